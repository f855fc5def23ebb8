"""Let the learner have what was set aside or rolled back after all, at an operator's word.

A release is one control entry of the feedback stream. The learner obeys it in its turn: it reads
the signals again, interprets them as it would now, and commits them as one step. The script appends
it only where nobody has gone back or released one of them since they were looked at, so that each
signal is learned at most once on the way to the weights of now (see `explain.fates`).
"""

from __future__ import annotations

from collections.abc import Sequence

from online_learner.errors import Conflict, Invalid
from online_learner.explain.fates import PAGE, Course, Fate, course_of, fates
from online_learner.explain.signals import feedback_id
from online_learner.ids import entry_order
from online_learner.registry import Registry
from online_learner.schema import Control, Step
from online_learner.store import Entry

MOST = 500  # signals in one release: the learner takes them as one batch


async def release(
    registry: Registry,
    signals: Sequence[Entry],
    *,
    by: str,
    reason: str = "",
    dry_run: bool = False,
) -> list[str]:
    """Release signals, all or none.

    Parameters
    ----------
    signals
        Entries of the feedback stream; at most `MOST` that differ.
    by, reason
        Who wants it, and why, for the record.
    dry_run
        Tell what would be released, and do nothing.

    Returns
    -------
    The ids of the signals, in the order in which they will be learned.

    Raises
    ------
    Invalid
        One of them was not set aside, or has been released already.
    Conflict
        The weights went back meanwhile.
    """
    found = dict(sorted(signals, key=lambda item: entry_order(item[0])))
    if len(found) > MOST:
        raise Invalid.at("/feedback_ids", f"release at most {MOST} at a time")
    course = await course_of(registry)
    known = await fates(registry, list(found), course)
    wrong = {entry: why for entry, fate in known.items() if (why := _why_not(fate))}
    ids = {entry: feedback_id(registry, entry, fields) for entry, fields in found.items()}
    if wrong:
        raise Invalid(
            "; ".join(f"{ids[entry]} {why}" for entry, why in wrong.items()), code="not_set_aside"
        )
    if not dry_run:
        await _append(registry, course, known, ids, by=by, reason=reason)
    return list(ids.values())


async def release_rolled_back(
    registry: Registry, *, by: str, reason: str = "", dry_run: bool = False
) -> list[str]:
    """Release all that the last pull or rollback undid, and that nobody has released since.

    Where there are more than `MOST` of them it takes several control entries, each by itself.

    Raises
    ------
    Conflict
        The learner has not gone back yet, or goes back again.
    """
    course = await course_of(registry)
    if course.resets and course.resets[-1].entry is None:
        raise Conflict("the learner has not gone back yet: try again in a second")
    undone = await _undone(registry, course)
    known = await fates(registry, [entry for entry, _ in undone], course)
    left = {
        entry: feedback_id(registry, entry, fields)
        for entry, fields in undone
        if known[entry].status == "rolled_back" and not known[entry].waiting
    }
    entries = [] if dry_run else list(left)
    for start in range(0, len(entries), MOST):
        part = {entry: left[entry] for entry in entries[start : start + MOST]}
        await _append(registry, course, known, part, by=by, reason=reason)
    return list(left.values())


def _why_not(fate: Fate) -> str | None:
    """Return why a signal cannot be released, or None where it can."""
    if fate.status == "retracted":
        return "was taken back"
    if fate.waiting:
        return "was released already: the learner comes to it next"
    if fate.status == "learned" and fate.step is not None:
        return f"was learned, at step {fate.step.step}"
    if fate.status == "accepted":
        return "has not been read by the learner yet"
    return "teaches nothing here: it is kept, not set aside" if fate.status == "kept" else None


async def _append(
    registry: Registry,
    course: Course,
    known: dict[str, Fate],
    ids: dict[str, str],
    *,
    by: str,
    reason: str,
) -> None:
    keys = registry.keys
    control = Control(action="release", entries=list(ids), by=by, reason=reason)
    marks = [part for entry in ids for part in (entry, " ".join(known[entry].releases))]
    reply, *more = await registry.store.run(
        "release",
        [keys.aliases, keys.feedback, keys.released, keys.retracted],
        [course.lineage, control.pack(), *marks],
    )
    if reply == b"conflict":
        raise Conflict("the weights went back meanwhile; look again, then release again")
    if reply == b"retracted":
        taken = ", ".join(ids[entry.decode()] for entry in more)
        raise Invalid(f"somebody has just taken back {taken}", code="not_set_aside")
    if reply == b"released":
        taken = ", ".join(ids[entry.decode()] for entry in more)
        raise Invalid(f"somebody else has just released {taken}", code="not_set_aside")


async def _undone(registry: Registry, course: Course) -> list[Entry]:
    """Return the signals that stood before the last reset, and were rolled back by it."""
    if not course.resets:
        return []
    *earlier, last = course.resets
    before, at = Course(course.lineage, tuple(earlier)), last.kept
    found: dict[str, Entry] = {}
    while page := await registry.store.range(
        registry.keys.steps, f"({at}", last.entry or "+", count=PAGE
    ):
        for at, fields in page:
            step = Step.model_validate_json(fields[b"s"])
            is_control = bool(
                step.tables or step.reset_to is not None or step.retracted or step.unlearned
            )
            if not is_control and before.undone_by(at, step.lineage) is None:
                found |= {item[0]: item for item in await _learned_by(registry, step)}
    return sorted(found.values(), key=lambda item: entry_order(item[0]))


async def _learned_by(registry: Registry, step: Step) -> list[Entry]:
    """Return the signals that a step learned, where they are still in the log."""
    stream = registry.keys.feedback
    if step.released:
        known = await registry.store.entries([(stream, entry) for entry in step.released])
        pairs = zip(step.released, known, strict=True)
        found = [(entry, fields) for entry, fields in pairs if fields is not None]
    else:
        found = await registry.store.range(stream, f"({step.after}", step.to)
    return [item for item in found if item[0] not in step.set_aside]
