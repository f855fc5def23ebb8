"""What becomes of each entry of the log, and files of the archive that are written anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from online_learner.archive.files import read
from online_learner.archive.form import STREAMS, decode
from online_learner.archive.log import Log
from online_learner.archive.place import Place
from online_learner.archive.segments import Segments, replace
from online_learner.archive.sweep import sweep
from online_learner.errors import DataError
from online_learner.forget.finding import Theirs
from online_learner.forget.labels import Labels
from online_learner.forget.mentions import in_controls, in_steps
from online_learner.forget.person import Person, is_erased
from online_learner.forget.streams import Change, Judge
from online_learner.ids import entry_order
from online_learner.registry import Registry
from online_learner.schema import Segment
from online_learner.store import Entry

ARCHIVED = ("predictions", "feedback", "late", "steps", "quarantine")
LEFT_OUT = frozenset({"quarantine", "audits", "asked"})  # the others keep the place of an entry
GONE, OUT = Change("x"), Change("drop")


def places(stream: str, theirs: Theirs) -> set[str]:
    """Return the entries of a stream that do not stay as they are."""
    known: Mapping[str, set[str]] = {
        "predictions": theirs.predictions,
        "audits": theirs.predictions,
        "asked": theirs.predictions,
        "feedback": theirs.feedback | theirs.controls,
        "quarantine": theirs.feedback,
        "late": theirs.late,
        "steps": theirs.steps,
    }
    return known[stream]


def judge_of(
    stream: str, theirs: Theirs, person: Person, labels: Labels | None = None
) -> tuple[Judge | None, bool]:
    """Return what becomes of the entries of a stream, and whether some are left out."""
    known, drops = places(stream, theirs), stream in LEFT_OUT
    rename = None if labels is None else labels.judge(stream)
    if not known and rename is None:
        return None, False
    if stream == "steps":
        return in_steps(theirs.feedback), False
    controls = in_controls(person)

    def judge(entry: Entry) -> Change | None:
        if entry[0] not in known:
            return None if rename is None else rename(entry)
        if b"c" in entry[1]:
            return controls(entry)
        return None if is_erased(entry[1]) else OUT if drops else GONE

    return judge, drops


async def check_reached(log: Log) -> None:
    """Raise `DataError` where files of an archive are listed that cannot be reached from here."""
    if log.place is None and await log.registry.store.call("EXISTS", log.registry.keys.segments):
        raise DataError(
            f"'{log.registry.model}' has an archive, and its configuration says `archive: null`: "
            "name its place again, erase, and then switch it off. Nothing was touched",
            code="missing",
        )


async def rewrite(
    log: Log,
    person: Person,
    theirs: Theirs,
    labels: Labels | None,
    alive: Callable[[int], Awaitable[None]],
) -> int:
    """Write those files of the archive anew that have any of it; returns how many.

    Where labels are renamed, all files of answers and signals are read.

    Raises
    ------
    DataError
        One is damaged, or cannot be written. It is left as it is.
    """
    if log.place is None:
        return 0
    count = 0
    for stream in ARCHIVED:
        judge, _ = judge_of(stream, theirs, person, labels)
        wanted = sorted(map(entry_order, places(stream, theirs)))
        if judge is None:
            continue
        for segment in await Segments(log.registry).all(stream):
            low, high = entry_order(segment.after), entry_order(segment.last)
            renames = labels is not None and labels.judge(stream) is not None
            if renames or any(low < place <= high for place in wanted):
                count += await _file(log.registry, log.place, segment, judge)
            await alive(0)
    return count


async def left_over(log: Log, *, remove: bool = False) -> int:
    """Return how many files of the archive nobody lists, once those that can go were removed.

    An archiver that died may have left one, with what has been erased since. What is left may be
    what one writes just now.
    """
    registry, place = log.registry, log.place
    if place is None:
        return 0
    if remove:
        await sweep(registry, place, partial_s=0.0)  # one that writes now writes again
    listed = set()
    for stream in STREAMS:
        listed |= {segment.path for segment in await Segments(registry).all(stream)}
    folder = f"model={registry.model}"
    there = await asyncio.to_thread(place.at(folder).files)
    return sum(f"{folder}/{path}" not in listed for path in there)


async def _file(registry: Registry, place: Place, segment: Segment, judge: Judge) -> bool:
    """Write one file anew; tells whether that was needed."""
    entries = await asyncio.to_thread(_entries, place, segment)
    changed = [(entry, judge(entry)) for entry in entries]
    if all(change is None for _, change in changed):
        return False
    kept = [entry if change is None else change.made(entry) for entry, change in changed]
    await replace(registry, place, segment, [entry for entry in kept if entry is not None])
    return True


def _entries(place: Place, segment: Segment) -> list[Entry]:
    return decode(segment.stream, read(place, segment, range(len(segment.cuts))))
