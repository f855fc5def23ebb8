"""The audit lane: answers that the gate waits for a label of, in random order.

Which answers are audited, a coin decided when they were given. Whoever labels them must not choose
among them by what the models said, else the gate would see the labels of some outcomes more often
than those of others. So the lane shows what the user was shown, nothing of what other roles
answered, and its order is a keyed hash of the place in the log: it stays, and means nothing.
"""

from __future__ import annotations

import contextlib
from typing import Any

from online_learner.errors import StateError
from online_learner.ids import Address, entry_order
from online_learner.promote import NO_ANSWER
from online_learner.registry import Registry
from online_learner.schema import Feedback, Prediction
from online_learner.store.keys import said_place

LOOK_AT = 1000  # audits that one call looks at; of more, one in each slice of time
STRIDE = 100  # of those, that it reads at a time


async def audits(
    registry: Registry, *, count: int, now: float, deadline_s: float, window_s: float
) -> list[dict[str, Any]]:
    """Return audited answers that have not settled, and that nobody has said anything about yet.

    Parameters
    ----------
    deadline_s
        Seconds after which an audit settles as unanswered.
    window_s
        For how many seconds an answer takes feedback.

    Returns
    -------
    At most `count`, each with `prediction_id`, `features`, `options`, the `output` that the user
    saw, `asked_at` and `expires_at`, in seconds since 1970.
    """
    open_s = min(deadline_s, window_s)
    waiting = await _waiting(registry, now=now, open_s=open_s)
    order = sorted(waiting, key=lambda entry: registry.keyring.mac("lane", entry.encode()))
    found: list[dict[str, Any]] = []
    for start in range(0, len(order), STRIDE):
        part = order[start : start + STRIDE]
        heard = await _answered(registry, part)
        found += await _told(registry, [entry for entry in part if entry not in heard], open_s)
        if len(found) >= count:
            break
    return found[:count]


async def _waiting(registry: Registry, *, now: float, open_s: float) -> list[str]:
    """Return audits that can still be answered before they settle."""
    settled = "0-0"
    with contextlib.suppress(StateError):  # the gatekeeper says so, and begins anew
        state = await registry.gate()
        settled = state.settled if state else settled
    opened = f"{int((now - open_s) * 1000)}-0"
    start = max(settled, opened, key=entry_order)
    found = await registry.store.range(registry.keys.audits, f"({start}", count=LOOK_AT + 1)
    entries = [entry for entry, _ in found]
    return entries if len(entries) <= LOOK_AT else await _sampled(registry, start, now, open_s)


async def _sampled(registry: Registry, start: str, now: float, open_s: float) -> list[str]:
    """Return the first audit in each slice of time; the slices stay where they are."""
    width = int(open_s * 1000) // LOOK_AT + 1
    slices = range(entry_order(start)[0] // width, int(now * 1000) // width + 1)
    stream = registry.keys.audits
    replies = await registry.store.many(
        [("XRANGE", stream, n * width, (n + 1) * width - 1, "COUNT", 1) for n in slices]
    )
    entries = [reply[0][0].decode() for reply in replies if reply]
    return [entry for entry in entries if entry_order(entry) > entry_order(start)]


async def _answered(registry: Registry, entries: list[str]) -> set[str]:
    """Return the audits that somebody has answered."""
    replies = await registry.store.many([("HVALS", registry.keys.said(entry)) for entry in entries])
    places = [
        (entry, (registry.keys.feedback, said_place(value)))
        for entry, values in zip(entries, replies, strict=True)
        for value in values
    ]
    found = await registry.store.entries([place for _, place in places])
    said = zip((entry for entry, _ in places), found, strict=True)
    return {entry for entry, fields in said if fields is not None and _is_answer(fields[b"f"])}


def _is_answer(signal: bytes) -> bool:
    return Feedback.model_validate_json(signal).kind not in NO_ANSWER


async def _told(registry: Registry, entries: list[str], open_s: float) -> list[dict[str, Any]]:
    found = await registry.store.entries([(registry.keys.predictions, e) for e in entries])
    return [
        _item(registry, Address(*entry_order(entry), fields[b"n"].decode()), fields[b"r"], open_s)
        for entry, fields in zip(entries, found, strict=True)
        if fields is not None
    ]


def _item(registry: Registry, address: Address, record: bytes, open_s: float) -> dict[str, Any]:
    answer = Prediction.model_validate_json(record)
    asked_at = address.ms / 1000
    return {
        "prediction_id": registry.keyring.seal("prediction", registry.model, address),
        "features": answer.features,
        "options": [option.model_dump(include={"id", "features"}) for option in answer.options],
        "output": answer.fallback if answer.withheld else answer.output,
        "asked_at": asked_at,
        "expires_at": asked_at + open_s,
    }
