"""One signal: the receipt that follows it to the weights that learned it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from online_learner.errors import NotFound
from online_learner.explain.fates import Fate, fates
from online_learner.ids import Address, entry_order
from online_learner.registry import Registry
from online_learner.retain import why_gone
from online_learner.schema import Control, Feedback, Served, Step
from online_learner.store import Entry, Fields
from online_learner.store.keys import said_field, said_place

PAGE = 500


async def receipt(registry: Registry, address: Address) -> dict[str, Any]:
    """Return what became of one accepted signal.

    `status` is `accepted` (not learned yet), `learned` (with the step, the first version that has
    it, and the first answer that rests on it), `kept` (valid, and nothing to learn from it here),
    `quarantined` or `rolled_back`. `weighed` is there where its weight was corrected: the `raw`
    one, the one `given`, and the `factors` of observers (what these do not account for, validation
    did). `released` tells who had it learned after all. `supersedes` and `superseded_by` are the
    ids of what the same source had said before, or said later, in this kind about this answer.
    """
    entry, fields = await find(registry, address)
    feedback = Feedback.model_validate_json(fields[b"f"])
    return {
        "model": registry.model,
        "feedback": feedback.model_dump(),
        "supersedes": await _predecessor(registry, fields),
        "superseded_by": await _successor(registry, entry, fields, feedback),
        **await fate_of(registry, entry),
    }


async def find(registry: Registry, address: Address) -> Entry:
    """Return the signal at an address; raises `NotFound` where it is gone, or another is there."""
    entries = await registry.store.range(registry.keys.feedback, address.entry, address.entry)
    if not entries or entries[0][1].get(b"n", b"").decode() != address.nonce:
        why = await why_gone(registry.store, registry.keys, "feedback", address.entry)
        raise NotFound(
            f"this feedback was accepted here, and is no longer in the log: {why}",
            code="unknown_feedback",
        )
    return entries[0]


async def _predecessor(registry: Registry, fields: Fields) -> str | None:
    """Return the id of the signal whose place this one took."""
    before = fields.get(b"s", b"").decode()
    found = await registry.store.range(registry.keys.feedback, before, before) if before else []
    return feedback_id(registry, *found[0]) if found else None


async def _successor(
    registry: Registry, entry: str, fields: Fields, feedback: Feedback
) -> str | None:
    """Return the id of the signal that took the place of this one: back from the latest."""
    said = registry.keys.said(fields.get(b"p", b"").decode())
    name = said_field(feedback.source, feedback.kind, feedback.subject())
    latest = await registry.store.call("HGET", said, name)
    later = "" if latest is None else said_place(latest)
    while later not in ("", entry):
        found = await registry.store.range(registry.keys.feedback, later, later)
        before = found[0][1].get(b"s", b"").decode() if found else ""
        if before == entry:
            return feedback_id(registry, *found[0])
        later = before
    return None


def feedback_id(registry: Registry, entry: str, fields: Fields) -> str:
    """Return the signed id of a signal."""
    address = Address(*entry_order(entry), fields[b"n"].decode())
    return registry.keyring.seal("feedback", registry.model, address)


# --- what became of it ------------------------------------------------------------------------


async def fate_of(registry: Registry, entry: str) -> dict[str, Any]:
    """Return the fate of the signal at an entry, to the first answer that rests on it."""
    fate = (await fates(registry, [entry]))[entry]
    told = tell(fate)
    if fate.status == "learned" and fate.step is not None:
        told["version"] = await _first_version(registry, fate.step)
        told["served"] = await _first_served(registry, fate.place, fate.step)
    if fate.releases:
        told["released"] = await _released(registry, fate)
    return told


def tell(fate: Fate) -> dict[str, Any]:
    """Return a fate as it is told, by what its step alone says."""
    found: dict[str, Any] = {"status": fate.status}
    if fate.reason is not None:
        found["reason"] = fate.reason
    if fate.step is not None:
        found |= {"lineage": fate.step.lineage, "step": fate.step.step}
        if fate.status in {"learned", "rolled_back"}:
            found["learned_at"] = fate.step.at
        if (weighed := fate.step.weighed.get(fate.place)) is not None:
            found["weighed"] = asdict(weighed)
    return found


async def _released(registry: Registry, fate: Fate) -> dict[str, Any] | None:
    """Return the release that waits, or that the fate came about by: who ordered it, and when."""
    place = fate.releases[-1] if fate.waiting else fate.place
    found = await registry.store.range(registry.keys.feedback, place, place)
    if place not in fate.releases or not found:
        return None
    control = Control.model_validate_json(found[0][1][b"c"])
    at = entry_order(place)[0] / 1000
    return {"by": control.by, "reason": control.reason, "at": at, "waiting": fate.waiting}


async def _first_version(registry: Registry, step: Step) -> int | None:
    """Return the first kept snapshot that has learned a step, or None before one was cut.

    Lineages and steps grow with the number, so a bisection finds it among any number of them.
    """
    last = await registry.last_version()
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        version = await registry.version(middle)
        if version.lineage >= step.lineage and version.step >= step.step:
            high = middle
        else:
            low = middle + 1
    return low if low <= last else None


async def _first_served(registry: Registry, entry: str, step: Step) -> dict[str, Any] | None:
    """Return the first answer whose weights had learned a step, or None before there was one.

    Steps count on through resets, and what was rolled back has been told apart before: weights of
    the same lineage or a later one have learned it where their step is not smaller.
    """
    start = f"{entry_order(entry)[0]}"
    while found := await registry.store.range(registry.keys.served, start, count=PAGE):
        for answer, fields in found:
            weights = Served.model_validate_json(fields[b"w"])
            if weights.lineage >= step.lineage and weights.step >= step.step:
                at = entry_order(answer)[0] / 1000
                return {"version": weights.version, "step": weights.step, "at": at}
        start = f"({found[-1][0]}"
    return None
