"""The audit lane: answers that the gate waits for a label of, in random order.

Which answers are audited, a coin decided when they were given. Whoever labels them must not choose
among them by what the models said, else the gate would see the labels of some outcomes more often
than those of others. So the lane shows what the user was shown, nothing of what other roles
answered, and its order is a keyed hash of the place in the log: it stays, and means nothing.
"""

from __future__ import annotations

import contextlib

from online_learner.errors import StateError
from online_learner.ids import entry_order
from online_learner.queue.items import AUDIT, Question
from online_learner.registry import Registry

LOOK_AT = 1000  # audits that one call looks at; of more, one in each slice of time


async def audits(registry: Registry, *, now: float, open_s: float) -> list[Question]:
    """Return audits that can still be answered before they settle, in random order.

    Parameters
    ----------
    open_s
        Seconds after which an audit settles as unanswered, or takes no feedback any more.
    """
    entries = await _waiting(registry, now=now, open_s=open_s)
    order = sorted(entries, key=lambda entry: registry.keyring.mac("lane", entry.encode()))
    return [Question.of(entry, AUDIT, open_s) for entry in order]


async def _waiting(registry: Registry, *, now: float, open_s: float) -> list[str]:
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
