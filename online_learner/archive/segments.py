"""Which files there are: a list in the store, sealed, so that only what we wrote is read.

A file that is not listed is no part of the archive: what a writer left behind that died.
"""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from online_learner.archive.files import SegmentWriter, path_of
from online_learner.archive.place import Place
from online_learner.errors import Conflict, DataError, StateError
from online_learner.ids import entry_order
from online_learner.registry import Registry
from online_learner.schema import Segment
from online_learner.store import Entry

REWRITTEN = "rewritten"  # in `keys.archive`: how often a file took the place of another
ERA = "era"  # in `keys.archive`: what was read or written before it moved is not listed any more

Order = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a stream has been archived, as the store said with what else was read of it.

    Attributes
    ----------
    last
        The last entry that is there.
    rewritten
        What `keys.archive` has of `REWRITTEN`.
    """

    stream: str
    last: str
    rewritten: bytes | None

    @classmethod
    def read(cls, stream: str, last: bytes | None, rewritten: bytes | None) -> Self | None:
        """Return the mark of a stream; None of one that was never archived."""
        return None if last is None else cls(stream, last.decode(), rewritten)


def field_of(segment: Segment) -> str:
    """Return under which field of `keys.segments` a file is listed."""
    return f"{segment.stream}|{segment.after}"


def sealed(registry: Registry, segment: Segment) -> str:
    """Return what stands in the list of a file, with its seal."""
    seal = registry.seal("segment", segment, sha=segment.sha256)
    return json.dumps(seal.fields())


def unsealed(registry: Registry, field: str, value: bytes) -> Segment:
    """Return what is listed of a file.

    Raises
    ------
    DataError
        It carries no seal of ours, or stands in another's place.
    """
    try:
        fields = {name.encode(): text.encode() for name, text in json.loads(value).items()}
        segment, _ = registry.unseal("segment", fields, Segment)
    except (StateError, ValueError, AttributeError) as error:
        raise DataError(
            f"what the store lists of the archive's file {field} carries no valid seal: it was "
            "changed, or written with another secret (OL_SECRET, or the file 'secret' in data_dir)"
        ) from error
    if field_of(segment) != field:
        raise DataError(
            f"the store lists another file of the archive in the place of {field}: it was changed"
        )
    return segment


class Segments:
    """The files of one model's archive.

    What was read of the list is kept, and read on where it has grown.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._listed: dict[str, list[tuple[Order, str, bytes]]] = {}
        self._opened: dict[str, tuple[bytes, Segment]] = {}
        self._last: dict[str, str] = {}
        self._rewritten: bytes | None = None
        self._fresh = False
        self._lock = asyncio.Lock()

    async def mark(self, stream: str) -> Mark | None:
        """Return how far a stream has been archived; None where it never was."""
        store, keys = self.registry.store, self.registry.keys
        return Mark.read(stream, *await store.call("HMGET", keys.archive, stream, REWRITTEN))

    async def all(self, stream: str) -> list[Segment]:
        """Return all files of a stream, in order; raises `DataError`."""
        mark = await self.mark(stream)
        return [] if mark is None else await self.between("0-0", mark.last, mark)

    async def between(self, after: str, until: str, mark: Mark) -> list[Segment]:
        """Return the files that hold what comes after one entry, up to and with another, in order.

        Raises
        ------
        DataError
            The list was changed, or does not reach from one to the other.
        """
        stream = mark.stream
        async with self._lock:
            await self._follow(mark)
        listed = self._listed.get(stream, [])
        low, high = entry_order(after), min(entry_order(until), entry_order(mark.last))
        begin = max(0, bisect_right(listed, low, key=lambda each: each[0]) - 1)
        found: list[Segment] = []
        for order, field, value in listed[begin:]:
            if order >= high:
                break
            segment = self._open(field, value)
            found.append(segment)
        ends = [after, *(segment.last for segment in found)]
        gap = bool(found) and entry_order(found[0].after) > low
        gap = gap or any(s.after != end for s, end in zip(found[1:], ends[1:], strict=False))
        if low < high and (gap or entry_order(ends[-1]) < high):
            raise DataError(
                f"the store lists no file of the archive for a part of {stream}: the list was "
                "changed, or the store has lost data"
            )
        return [segment for segment in found if entry_order(segment.last) > low]

    async def _follow(self, mark: Mark) -> None:
        """Read the list, or read on in it, as far as the mark."""
        if not self._fresh or mark.rewritten != self._rewritten:
            await self._read()
            self._rewritten, self._fresh = mark.rewritten, True
        stream = mark.stream
        last = self._last.get(stream, "0-0")
        while entry_order(last) < entry_order(mark.last):
            field = f"{stream}|{last}"
            value = await self.registry.store.call("HGET", self.registry.keys.segments, field)
            if value is None:
                raise DataError(
                    f"the store lists no file of the archive that begins at {field}: it was "
                    "changed, or has lost data"
                )
            segment = self._open(field, value)
            self._listed.setdefault(stream, []).append((entry_order(last), field, value))
            last = self._last[stream] = segment.last

    async def _read(self) -> None:
        found = await self.registry.store.hash(self.registry.keys.segments)
        listed: dict[str, list[tuple[Order, str, bytes]]] = {}
        for name, value in found.items():
            stream, _, after = name.decode().partition("|")
            listed.setdefault(stream, []).append((entry_order(after), name.decode(), value))
        for each in listed.values():
            each.sort()
        self._last = {
            stream: self._open(*each[-1][1:]).last for stream, each in listed.items() if each
        }
        self._listed = listed

    def _open(self, field: str, value: bytes) -> Segment:
        known = self._opened.get(field)
        if known is None or known[0] != value:
            known = self._opened[field] = (value, unsealed(self.registry, field, value))
        return known[1]


async def replace(
    registry: Registry, place: Place, segment: Segment, entries: Sequence[Entry]
) -> Segment:
    """Put a file with other contents in the place of one; the old one is removed.

    The entries must be of the same stretch: without some, or with other fields.

    Raises
    ------
    DataError
        The new file cannot be written. The old one stays.
    Conflict
        Somebody else has replaced it meanwhile. Theirs stays.
    """
    keys, field = registry.keys, field_of(segment)
    while True:
        era = await registry.store.call("HGET", keys.archive, ERA) or b"0"
        listed = await registry.store.call("HGET", keys.segments, field)
        if listed is None or unsealed(registry, field, listed) != segment:
            raise Conflict(
                "this file of the archive has been replaced meanwhile: read the list again"
            )
        written = await asyncio.to_thread(_rewrite, registry.model, place, segment, entries)
        done = await registry.store.run(
            "archive",
            [keys.fence("archive"), keys.archive, keys.segments, keys.trimmed],
            ["replace", field, listed, sealed(registry, written), era],
        )
        if done == b"ok":
            await asyncio.to_thread(place.remove, segment.path)
            return written
        await asyncio.to_thread(place.remove, written.path)  # and again: it may have been swept


def _rewrite(model: str, place: Place, segment: Segment, entries: Sequence[Entry]) -> Segment:
    writer = SegmentWriter(model, segment.stream, segment.after)
    writer.add(entries)
    path = path_of(model, segment.stream, segment.after, segment.last)
    return writer.finish(place, path, segment.last)
