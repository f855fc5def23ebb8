"""What was taken back: by whom, and whether it is still in any weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from online_learner.archive.log import Log
from online_learner.errors import DataError
from online_learner.forget.rebuild import was_there
from online_learner.forget.unlearn import within_reach
from online_learner.ids import entry_order
from online_learner.registry import Registry
from online_learner.schema import Control, Step
from online_learner.store import Fields

TAINTED = (
    "it is in the learner's weights no more, but version {} may hold it, which was made of a "
    "dataset or a file: `online-learner retrain` makes weights without it"
)
NEVER_LEARNED = {"kept", "quarantined"}
OUT_OF_REACH = (
    "the record no longer goes back to before it was learned. `online-learner retrain` on a "
    "dataset, which leaves it out, makes weights without it"
)


@dataclass(frozen=True, slots=True)
class TakenBack:
    """That a signal was taken back.

    Parameters
    ----------
    control
        The entry of the feedback stream by which the learner was told; `0-0` for what only went on
        file.
    unlearned
        The one from which on it is in no weights any more; None while it may be.
    """

    control: str
    unlearned: str | None


async def taken_back(registry: Registry, entries: Sequence[str]) -> dict[str, TakenBack]:
    """Return those of some signals that were taken back; late ones as in the hash `retracted`."""
    if not entries:
        return {}
    keys = registry.keys
    marked, done = await registry.store.many(
        [("HMGET", keys.retracted, *entries), ("HMGET", keys.unlearned, *entries)]
    )
    return {
        entry: TakenBack(control.decode(), None if until is None else until.decode())
        for entry, control, until in zip(entries, marked, done, strict=True)
        if control is not None
    }


def unlearned(was: str, found: TakenBack) -> str:
    """Return `nothing` where it was never learned, else `done` or `pending`."""
    if was in NEVER_LEARNED:
        return "nothing"
    return "pending" if found.unlearned is None else "done"


async def tell_taken_back(log: Log, entry: str, was: str, found: TakenBack) -> dict[str, Any]:
    """Return what a receipt says of a signal that was taken back.

    `unlearned` is `pending`, `done` (with the step), `nothing` where it was never learned, or
    `impossible`, with why and what to do: the record is too short, or versions are `tainted`.
    """
    told: dict[str, Any] = {"unlearned": unlearned(was, found)}
    control = _control(await _at(log, "feedback", found.control))
    if control is not None:
        at = entry_order(found.control)[0] / 1000
        told["retracted"] = {"by": control.by, "reason": control.reason, "at": at}
    if told["unlearned"] == "pending" and not await within_reach(log, [entry]):
        told |= {"unlearned": "impossible", "unlearned_why": OUT_OF_REACH}
    if told["unlearned"] == "done" and found.unlearned is not None:
        fields = await _at(log, "steps", found.unlearned)
        if fields is not None and b"s" in fields:
            step = Step.model_validate_json(fields[b"s"])
            told["unlearned_by"] = {"lineage": step.lineage, "step": step.step, "at": step.at}
    return told | (await still_held(log.registry, entry) if told["unlearned"] == "done" else {})


async def still_held(registry: Registry, entry: str) -> dict[str, Any]:
    """Return what a receipt says where versions may hold a signal that cannot be learned anew."""
    found = [
        str(version.version)
        for version in await registry.versions()
        if version.tainted and version.status != "rejected" and was_there(version, entry)
    ]
    if not found:
        return {}
    return {"unlearned": "impossible", "unlearned_why": TAINTED.format(", ".join(found))}


async def _at(log: Log, stream: str, entry: str) -> Fields | None:
    try:
        [found] = await log.entries([(stream, entry)])
    except DataError:
        return None
    return found


def _control(fields: Mapping[bytes, bytes] | None) -> Control | None:
    return None if not fields or b"c" not in fields else Control.model_validate_json(fields[b"c"])
