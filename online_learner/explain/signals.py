"""One signal: the receipt that follows it to the weights that learned it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from online_learner.archive.log import Log
from online_learner.errors import DataError, NotFound
from online_learner.explain.archived import find_entry, unreadable
from online_learner.explain.fates import Fate, fates
from online_learner.explain.taken_back import still_held, tell_taken_back, unlearned
from online_learner.ids import LATE, Address, entry_order
from online_learner.interpret import ERASED
from online_learner.registry import Registry
from online_learner.schema import Control, Feedback, Served, Step
from online_learner.store import Entry, Fields
from online_learner.store.keys import said_field, said_place

PAGE = 500
ARCHIVED_ONLY = {
    "status": "archived_only",
    "reason": "the window of its answer had passed: it goes into datasets, and alters no weights",
}


async def receipt(
    registry: Registry, address: Address, *, log: Log | None = None
) -> dict[str, Any]:
    """Return what became of one accepted signal.

    `status` is `accepted` (not learned yet), `learned` (with the step, the first version that has
    it, and the first answer that rests on it), `kept` (valid, and nothing to learn from it here),
    `quarantined`, `rolled_back`, or `retracted`: then `was` is what it would be else, `retracted`
    tells who took it back, and `unlearned` whether it is still in the weights. `weighed` is there
    where its weight was corrected: the `raw` one, the one `given`, and the `factors` of observers
    (what these do not account for, validation did). `released` tells who had it learned after all.
    `supersedes` and `superseded_by` are the ids of what the same source had said before, or said
    later, in this kind about this answer.

    `archived_only` is what was said once the window of its answer had passed. `archived` is there,
    and true, where a signal has left the store, and is told from the archive.

    Parameters
    ----------
    log
        With the archive, where there is one; None tells of the store alone.
    """
    log = log or Log(registry)
    stream = "late" if address.shard == LATE else "feedback"
    fields, archived = await find_entry(log, stream, address, "feedback")
    feedback = Feedback.model_validate_json(fields[b"f"])
    found: dict[str, Any] = {"model": registry.model, "feedback": feedback.model_dump()}
    try:
        if address.shard == LATE:
            found |= {"supersedes": None, "superseded_by": None}
            found |= await late_fate(registry, address.entry)
        else:
            found["supersedes"] = await _predecessor(log, fields)
            found["superseded_by"] = await _successor(log, address.entry, fields, feedback)
            found |= await fate_of(log, address.entry, archived=archived)
    except DataError as error:
        raise unreadable("feedback", error) from error
    return found | ({"archived": True} if archived else {})


async def find(registry: Registry, address: Address) -> Entry:
    """Return the signal at an address of the store.

    Raises
    ------
    NotFound
        It is gone, or another is there; or it was said late, and goes on file alone.
    Erased
        Nothing of it is kept but its place.
    """
    if address.shard == LATE:
        raise NotFound(
            f"this feedback is on file alone: {ARCHIVED_ONLY['reason']}", code="unknown_feedback"
        )
    fields, _ = await find_entry(Log(registry), "feedback", address, "feedback")
    return address.entry, fields


async def _predecessor(log: Log, fields: Fields) -> str | None:
    """Return the id of the signal whose place this one took."""
    before = fields.get(b"s", b"").decode()
    found = await _at(log, before) if before else None
    return feedback_id(log.registry, before, found) if found else None


async def _at(log: Log, entry: str) -> Fields | None:
    """Return the signal at an entry; None where it is gone, or cannot be read."""
    try:
        [found] = await log.entries([("feedback", entry)])
    except DataError:
        return None
    return None if found is None or ERASED in found else found


async def _successor(log: Log, entry: str, fields: Fields, feedback: Feedback) -> str | None:
    """Return the id of the signal that took the place of this one: back from the latest."""
    registry = log.registry
    said = registry.keys.said(fields.get(b"p", b"").decode())
    name = said_field(feedback.source, feedback.kind, feedback.subject())
    latest = await registry.store.call("HGET", said, name)
    later = "" if latest is None else said_place(latest)
    while later not in ("", entry):
        found = await _at(log, later) or {}
        before = found.get(b"s", b"").decode()
        if before == entry:
            return feedback_id(registry, later, found)
        later = before
    return None


def feedback_id(registry: Registry, entry: str, fields: Fields, *, shard: int = 0) -> str:
    """Return the signed id of a signal; the shard of what was said late is `LATE`."""
    address = Address(*entry_order(entry), fields[b"n"].decode(), shard)
    return registry.keyring.seal("feedback", registry.model, address)


# --- what became of it ------------------------------------------------------------------------


async def late_fate(registry: Registry, entry: str) -> dict[str, Any]:
    """Return the fate of what was said late: it is on file, unless it was taken back."""
    if await registry.store.call("HEXISTS", registry.keys.retracted, f"L{entry}"):
        told = {"status": "retracted", "was": ARCHIVED_ONLY["status"], "unlearned": "nothing"}
        return told | await still_held(registry, entry)
    return ARCHIVED_ONLY


async def fate_of(log: Log, entry: str, *, archived: bool = False) -> dict[str, Any]:
    """Return the fate of the signal at an entry, to the first answer that rests on it.

    Parameters
    ----------
    archived
        It has left the store, and which answers were the first is not known any more.
    """
    registry = log.registry
    fate = (await fates(registry, [entry], log=log if archived else None))[entry]
    told = tell(fate)
    if fate.status == "learned" and fate.step is not None:
        told["version"] = await _first_version(registry, fate.step)
        if not archived:
            told["served"] = await _first_served(registry, fate.place, fate.step)
    if fate.taken_back is not None:
        told |= await tell_taken_back(log, entry, fate.was, fate.taken_back)
    if fate.releases:
        told["released"] = await _released(log, fate)
    return told


def tell(fate: Fate) -> dict[str, Any]:
    """Return a fate as it is told, by what its step alone says."""
    found: dict[str, Any] = {"status": fate.status}
    if fate.taken_back is not None:
        found |= {"was": fate.was, "unlearned": unlearned(fate.was, fate.taken_back)}
    if fate.reason is not None:
        found["reason"] = fate.reason
    if fate.step is not None:
        found |= {"lineage": fate.step.lineage, "step": fate.step.step}
        if {fate.status, fate.was} & {"learned", "rolled_back"}:
            found["learned_at"] = fate.step.at
        if (weighed := fate.step.weighed.get(fate.place)) is not None:
            found["weighed"] = asdict(weighed)
    return found


async def _released(log: Log, fate: Fate) -> dict[str, Any] | None:
    """Return the release that waits, or that the fate came about by: who ordered it, and when."""
    place = fate.releases[-1] if fate.waiting else fate.place
    found = await _at(log, place)
    if place not in fate.releases or not found:
        return None
    control = Control.model_validate_json(found[b"c"])
    at = entry_order(place)[0] / 1000
    return {"by": control.by, "reason": control.reason, "at": at, "waiting": fate.waiting}


async def _first_version(registry: Registry, step: Step) -> int | None:
    """Return the first kept snapshot that has learned a step, or None before one was cut.

    Lineages and steps grow with the number, so a bisection finds it among any number of them.
    Those that were made elsewhere stand at no step, and are passed over.
    """
    low, high, found = 1, await registry.last_version() + 1, None
    while low < high:
        middle = at = (low + high) // 2
        while (version := await registry.version(at)).brought and at > low:
            at -= 1
        if version.brought:
            low = middle + 1
        elif version.lineage >= step.lineage and version.step >= step.step:
            high = found = at
        else:
            low = middle + 1
    return found


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
