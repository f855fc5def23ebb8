"""Signals by the page: all that was said of a model, or what of it was set aside or rolled back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from pydantic import ValidationError

from online_learner.explain.fates import PAGE, Course, Fate, Reset, course_of, fates
from online_learner.explain.signals import feedback_id, tell
from online_learner.ids import entry_order
from online_learner.registry import Registry
from online_learner.schema import Feedback
from online_learner.store import Entry, Fields

LOOK_AT = 10 * PAGE  # entries that one call reads at most; it may return fewer than were asked for

Source: TypeAlias = Callable[[str], Awaitable[list[Entry]]]


async def feedback(
    registry: Registry,
    *,
    kind: str | None = None,
    status: str | None = None,
    after: str = "0-0",
    count: int = 100,
) -> dict[str, Any]:
    """Return what was said, oldest first, each with its fate.

    Parameters
    ----------
    kind, status
        Only such signals.
    after
        Where the page before ended: its `next`.

    Returns
    -------
    `feedback`, and `next`: where to go on, or None at the end.
    """

    async def stream(at: str) -> list[Entry]:
        return await registry.store.range(registry.keys.feedback, f"({at}", count=PAGE)

    wanted = None if status is None else {status}
    course = await course_of(registry)
    found, go_on = await _page(registry, stream, course, after, count, kind=kind, wanted=wanted)
    return {"feedback": found, "next": go_on}


async def quarantine(registry: Registry, *, after: str = "0-0", count: int = 100) -> dict[str, Any]:
    """Return what was set aside or rolled back, oldest first, as `feedback` does.

    `released` tells whether a release of it waits for the learner; what was learned since is not
    listed.
    """
    course = await course_of(registry)

    async def candidates(at: str) -> list[Entry]:
        return await _candidates(registry, course, at)

    wanted = {"quarantined", "rolled_back"}
    found, go_on = await _page(registry, candidates, course, after, count, wanted=wanted)
    return {"quarantine": found, "next": go_on}


async def _page(
    registry: Registry,
    source: Source,
    course: Course,
    after: str,
    count: int,
    *,
    kind: str | None = None,
    wanted: set[str] | None = None,
) -> tuple[list[dict[str, Any]], str | None]:
    found: list[dict[str, Any]] = []
    for _ in range(LOOK_AT // PAGE):
        page = await source(after)
        if not page:
            return found, None
        said = _signals(page, kind)
        known = await fates(registry, list(said), course)
        for entry, fields in page:
            after = entry
            if entry in said and (wanted is None or known[entry].status in wanted):
                found.append(_row(registry, entry, fields, said[entry], known[entry]))
                if len(found) == count:
                    return found, after
    return found, after


def _signals(page: list[Entry], kind: str | None) -> Mapping[str, Feedback]:
    """Return those that are signals, of one kind where one is asked for."""
    found = {}
    for entry, fields in page:
        try:
            said = Feedback.model_validate_json(fields[b"f"])
        except (KeyError, ValidationError):  # a control entry, or none of ours
            continue
        if b"n" in fields and kind in {None, said.kind}:
            found[entry] = said
    return found


def _row(
    registry: Registry, entry: str, fields: Fields, said: Feedback, fate: Fate
) -> dict[str, Any]:
    return {
        "feedback_id": feedback_id(registry, entry, fields),
        **said.model_dump(include={"prediction_id", "kind", "value", "source", "comment"}),
        "at": entry_order(entry)[0] / 1000,
        **tell(fate),
        "decided_at": _decided_at(fate),
        "released": fate.waiting,
    }


def _decided_at(fate: Fate) -> float | None:
    """Return when the fate came about; None where that is still to come."""
    if fate.undone is not None:
        return None if fate.undone.entry is None else entry_order(fate.undone.entry)[0] / 1000
    return None if fate.step is None else fate.step.at


async def _candidates(registry: Registry, course: Course, after: str) -> list[Entry]:
    """Return the next entries that were set aside, or that a reset went back beyond."""
    aside = await registry.store.range(registry.keys.quarantine, f"({after}", count=PAGE)
    places = [(registry.keys.feedback, entry) for entry, _ in aside]
    known = zip(aside, await registry.store.entries(places), strict=True)
    found: dict[str, Fields] = {entry: fields or {} for (entry, _), fields in known}
    for turn in course.turns():
        found |= dict(await _beyond(registry, turn, after))
    return sorted(found.items(), key=lambda item: entry_order(item[0]))[:PAGE]


async def _beyond(registry: Registry, turn: Reset, after: str) -> list[Entry]:
    """Return the next signals between what a version had learned and the reset that went to it."""
    start = max(after, turn.kept, key=entry_order)
    end = turn.entry or "+"
    if turn.entry is not None and entry_order(start) >= entry_order(turn.entry):
        return []
    return await registry.store.range(registry.keys.feedback, f"({start}", end, count=PAGE)
