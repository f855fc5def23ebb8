"""What became of signals, many at once. Each has one fate; a release may give it another.

The learner's steps form a tree: a reset goes back to an earlier state, and grows a branch from
there. The *course* is the way from the root to the weights of now. A signal is learned where a step
on the course learned it, and no course has two of them: a release is refused while one has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from online_learner.archive.log import Log
from online_learner.explain.taken_back import TakenBack, taken_back
from online_learner.ids import entry_order
from online_learner.interpret import NOTHING
from online_learner.registry import Registry
from online_learner.schema import Aliases, Step, Verdict
from online_learner.store import Fields

PAGE = 500


@dataclass(frozen=True, slots=True)
class Reset:
    """The weights went back to a version.

    Parameters
    ----------
    entry
        The control entry; None where the learner has not come to it yet.
    lineage
        The one that began with it.
    kept
        The last feedback entry that the version had learned.
    reason
        The sentence of the verdict.
    """

    entry: str | None
    lineage: int
    kept: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Course:
    """The way that led to the weights of now, as its turns: every reset, oldest first."""

    lineage: int
    resets: tuple[Reset, ...] = ()

    def turns(self) -> Iterator[Reset]:
        """Yield the resets that lie on the way, newest first.

        One that came after the version gone back to later had been cut, does not.
        """
        until = None
        for reset in reversed(self.resets):
            if until is None or (reset.entry is not None and entry_order(reset.entry) <= until):
                yield reset
                until = entry_order(reset.kept)

    def undone_by(self, entry: str, lineage: int) -> Reset | None:
        """Return the reset that undid what a lineage learned at an entry, or None: it stands."""
        at = entry_order(entry)
        for reset in self.turns():
            if lineage < reset.lineage and entry_order(reset.kept) < at:
                return reset
        return None


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one signal.

    Parameters
    ----------
    status
        `accepted`, `learned`, `kept`, `quarantined`, `rolled_back` or `retracted`.
    place
        The entry of the feedback stream by which it came about: the signal's own, or a release's.
    step
        The commit that decided it; None where it is only accepted.
    reason
        Why it was not learned, or not any more.
    releases
        The control entries that ever released it, in order.
    waiting
        Whether the learner has not come to the last of them yet.
    undone
        What rolled it back.
    was, taken_back
        What would be its status, had it not been taken back; and that it was.
    """

    status: str
    place: str = ""
    step: Step | None = None
    reason: str | None = None
    releases: tuple[str, ...] = ()
    waiting: bool = False
    undone: Reset | None = None
    was: str = ""
    taken_back: TakenBack | None = None


async def course_of(registry: Registry) -> Course:
    """Return the course. What is read after it cannot be taken for rolled back by mistake."""
    aliases = await registry.aliases()
    found = await registry.store.range(registry.keys.resets)
    resets = [Reset(entry, **json.loads(fields[b"r"])) for entry, fields in found]
    if aliases is None:
        return Course(1, tuple(resets))
    ahead = await _ahead(registry, aliases, resets[-1].lineage if resets else 1)
    return Course(aliases.lineage, (*resets, *ahead))


async def _ahead(registry: Registry, aliases: Aliases, obeyed: int) -> list[Reset]:
    """Return the resets that the learner has not come to yet, by the verdicts that ordered them."""
    found: list[Reset] = []
    until = "+"
    while aliases.lineage - len(found) > obeyed:
        page = await registry.store.latest(registry.keys.verdicts, PAGE, until=until)
        if not page:
            break
        for _, fields in page:
            verdict = Verdict.model_validate_json(fields[b"v"])
            lineage = aliases.lineage - len(found)
            if lineage > obeyed and _went_back(verdict) and verdict.epoch <= aliases.epoch:
                version = await registry.version(verdict.version or 0)
                found.append(Reset(None, lineage, version.offset, verdict.sentence))
        until = f"({page[-1][0]}"
    return found[::-1]


def _went_back(verdict: Verdict) -> bool:
    return verdict.action in {"pull", "rollback", "register"} and verdict.version is not None


async def fates(
    registry: Registry,
    entries: Sequence[str],
    course: Course | None = None,
    log: Log | None = None,
) -> dict[str, Fate]:
    """Return what became of the signals at these entries of the feedback stream, in that order.

    Parameters
    ----------
    log
        With the archive, for signals that have left the store.
    """
    course = course or await course_of(registry)
    found: dict[str, Fate] = {}
    for start in range(0, len(entries), PAGE):
        part = entries[start : start + PAGE]
        steps = await _covering(registry, part)
        if log is not None and log.place is not None:
            steps = await _on_file(log, part, steps)
        releases = await _releases(registry, part)
        gone = await taken_back(registry, part)
        known = await _steps_at(registry, {place for places in releases for place in places})
        for entry, step, places in zip(part, steps, releases, strict=True):
            events = [(place, known[place]) for place in places if place in known]
            fate = _fate(entry, step, events, course)
            waiting = len(events) < len(places)
            fate = replace(fate, releases=places, waiting=waiting)
            if entry in gone:
                was, back = fate.status, gone[entry]
                fate = replace(fate, status="retracted", was=was, waiting=False, taken_back=back)
            found[entry] = fate
    return found


def _fate(
    entry: str, step: Step | None, releases: Sequence[tuple[str, Step]], course: Course
) -> Fate:
    """Return learned where a step on the course learned it; else what became of it last."""
    if step is None:
        return Fate("accepted")
    events = [(entry, step), *releases]
    for place, done in reversed(events):
        if entry not in done.set_aside and course.undone_by(place, done.lineage) is None:
            return Fate("learned", place, done)
    place, done = events[-1]
    undone = course.undone_by(place, done.lineage)
    reason = done.set_aside.get(entry)
    if reason is None:
        assert undone is not None  # else it were learned
        return Fate("rolled_back", place, done, undone.reason, undone=undone)
    return Fate("kept" if reason.startswith(NOTHING) else "quarantined", place, done, reason)


async def _covering(registry: Registry, entries: Sequence[str]) -> list[Step | None]:
    """Return the step that first covered each entry: the first one that is not before it."""
    commands = [("XRANGE", registry.keys.steps, entry, "+", "COUNT", 1) for entry in entries]
    replies = await registry.store.many(commands)
    known: dict[bytes, Step] = {}  # one step covers many
    return [_step(reply[0][1], known) if reply else None for reply in replies]


async def _on_file(
    log: Log, entries: Sequence[str], steps: Sequence[Step | None]
) -> list[Step | None]:
    """Return the steps; those that have left the store are read from the archive."""
    found = list(steps)
    for number, (entry, step) in enumerate(zip(entries, steps, strict=True)):
        if step is None or entry_order(entry) <= entry_order(step.after):
            page = await log.range("steps", entry, count=1)
            found[number] = _step(page[0][1], {}) if page else None
    return found


def _step(fields: Fields, known: dict[bytes, Step]) -> Step:
    record = fields[b"s"]
    if record not in known:
        known[record] = Step.model_validate_json(record)
    return known[record]


async def _releases(registry: Registry, entries: Sequence[str]) -> list[tuple[str, ...]]:
    if not entries:
        return []
    marks = await registry.store.call("HMGET", registry.keys.released, *entries)
    return [tuple((mark or b"").decode().split()) for mark in marks]


async def _steps_at(registry: Registry, places: set[str]) -> dict[str, Step]:
    """Return the steps of releases, where the learner has come to them."""
    order = sorted(places)
    found = await registry.store.entries([(registry.keys.steps, place) for place in order])
    return {
        place: Step.model_validate_json(fields[b"s"])
        for place, fields in zip(order, found, strict=True)
        if fields is not None
    }
