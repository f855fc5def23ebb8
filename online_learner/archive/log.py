"""Archive and store as one record: what has left the one is read from the other.

The store is read first. All that had left it by then is in the archive, so that what is read there
afterwards leaves no gap; and what both have is taken from the store.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from online_learner.archive.files import MOST_BYTES, READ_ROWS, SegmentWriter, read
from online_learner.archive.form import STREAMS, decode
from online_learner.archive.parts import MOST_ROWS, Part, entries_of, read_part, split
from online_learner.archive.place import Place
from online_learner.archive.segments import REWRITTEN, Mark, Segments
from online_learner.errors import DataError
from online_learner.ids import entry_order
from online_learner.registry import Registry
from online_learner.retain import TOLD_BY, trimmed_to
from online_learner.schema import Segment
from online_learner.store import Entry, Fields

__all__ = ["PAGE", "STREAMS", "Log", "Part", "entries_of", "read_part"]

PAGE = 500  # each may be a megabyte
GROUPS_KEPT = 8  # row groups that were decoded last
_END = f"{(1 << 64) - 1}-{(1 << 64) - 1}"
_LAST_SEQ = (1 << 64) - 1

Order = tuple[int, int]


class Log:
    """One model's record, from its beginning to now.

    Streams go by their short names: `predictions`, `feedback`, `late`, `steps`, `quarantine`,
    `verdicts`, `resets`, `evidence`.

    Parameters
    ----------
    place
        Where the archive of all models is; None where there is none, and the store is all there is.
    """

    def __init__(self, registry: Registry, place: Place | None = None) -> None:
        self.registry = registry
        self.place = place
        self._segments = Segments(registry)
        self._kept: OrderedDict[tuple[str, int], list[Entry]] = OrderedDict()

    async def range(
        self, stream: str, start: str = "-", end: str = "+", *, count: int | None = None
    ) -> list[Entry]:
        """Return the entries from `start` to `end`, both included (`(id` excludes it), in order.

        Raises
        ------
        DataError
            A file of the archive is gone, damaged, or of another form.
        """
        store, keys = self.registry.store, self.registry.keys
        key = getattr(keys, stream)
        if self.place is None:
            return await store.range(key, start, end, count=count)
        most = () if count is None else ("COUNT", count)
        found, first, marks = await store.many(
            [
                ("XRANGE", key, start, end, *most),
                ("XRANGE", key, "-", "+", "COUNT", 1),
                ("HMGET", keys.archive, stream, REWRITTEN),
            ]
        )
        found, mark = _entries(found), Mark.read(stream, *marks)
        low, high = _from(start), _to(end)
        if mark is None or low > entry_order(mark.last):
            return found
        if first and low >= entry_order(_entries(first)[0][0]):
            return found
        if found:
            high = min(high, _before(entry_order(found[0][0])))
        archived = await self._archived(self.place, mark, (low, high), count)
        return [*archived, *found] if count is None else [*archived, *found][:count]

    async def entries(self, places: Sequence[tuple[str, str]]) -> list[Fields | None]:
        """Return the entries of (stream, id) pairs, None where there is none; raises as `range`."""
        keys = self.registry.keys
        found = await self.registry.store.entries(
            [(getattr(keys, stream), entry) for stream, entry in places]
        )
        missing = [n for n, fields in enumerate(found) if fields is None]
        if self.place is None or not missing:
            return found
        streams = list({places[n][0] for n in missing})
        reply = await self.registry.store.call("HMGET", keys.archive, *streams, REWRITTEN)
        marks = {s: Mark.read(s, last, reply[-1]) for s, last in zip(streams, reply, strict=False)}
        for n in sorted(missing, key=lambda n: (places[n][0], entry_order(places[n][1]))):
            mark, order = marks[places[n][0]], entry_order(places[n][1])
            if mark is not None:
                one = await self._archived(self.place, mark, (order, order), 1)
                found[n] = one[0][1] if one else None
        return found

    async def pages(
        self, stream: str, after: str = "0-0", until: str = "+", *, most: int = PAGE
    ) -> AsyncIterator[list[Entry]]:
        """Yield the entries after one, up to another, a page at a time, in order."""
        while page := await self.range(stream, f"({after}", until, count=most):
            yield page
            after = page[-1][0]

    async def last(self, stream: str) -> str:
        """Return the newest entry of a stream, `0-0` where there is none."""
        store, keys = self.registry.store, self.registry.keys
        found = await store.latest(getattr(keys, stream))
        if found or self.place is None:
            return found[0][0] if found else "0-0"
        mark = await store.call("HGET", keys.archive, stream)
        return "0-0" if mark is None else str(mark.decode())

    async def begins(self, stream: str) -> str:
        """Return the entry before which something of a stream is gone; `0-0`: it is whole."""
        store, keys = self.registry.store, self.registry.keys
        if self.place is not None:
            mark, begins = await store.call("HMGET", keys.archive, stream, f"begins:{stream}")
            if mark is not None:
                return "0-0" if begins is None else str(begins.decode())
        what = TOLD_BY.get(stream)
        return "0-0" if what is None else await trimmed_to(store, keys, what)

    async def parts(
        self,
        stream: str,
        after: str,
        until: str,
        scratch: Place,
        *,
        most_rows: int = MOST_ROWS,
    ) -> list[Part]:
        """Return the entries after one, up to and with another, in parts for other processes.

        What only the store has is written to `scratch`, in the form of the archive.

        Parameters
        ----------
        until
            `+` stands for the newest entry.

        Raises
        ------
        DataError
            Something cannot be read, or not be written to `scratch`.
        """
        until = await self.last(stream) if until == "+" else until
        parts: list[Part] = []
        if self.place is not None:
            mark = await self._segments.mark(stream)
            last = "0-0" if mark is None else min(mark.last, until, key=entry_order)
            if mark is not None and entry_order(after) < entry_order(last):
                for file in await self._segments.between(after, last, mark):
                    parts += split(self.place, file, after, last, most_rows=most_rows)
                after = last
        return parts + await self._spooled(stream, after, until, scratch, most_rows)

    async def _spooled(
        self, stream: str, after: str, until: str, scratch: Place, most_rows: int
    ) -> list[Part]:
        """Return the parts of what only the store has."""
        model, parts = self.registry.model, list[Part]()
        while entry_order(after) < entry_order(until):
            writer = SegmentWriter(model, stream, after, most_rows=most_rows, most_bytes=MOST_BYTES)
            while not writer.is_full:
                page = await self.range(stream, f"({writer.last}", until, count=READ_ROWS)
                if not page:
                    break
                await asyncio.to_thread(writer.add, page)
            if not writer.rows:
                break
            name = f"{stream}-{after}.parquet"
            file = await asyncio.to_thread(writer.finish, scratch, name, writer.last)
            parts += split(scratch, file, after, file.last, most_rows=most_rows)
            after = file.last
        return parts

    async def files(self, stream: str, after: str = "0-0", until: str = "+") -> list[Segment]:
        """Return the files of the archive that have entries after one, up to another, in order.

        Raises
        ------
        DataError
            The list of files was changed.
        """
        mark = None if self.place is None else await self._segments.mark(stream)
        if mark is None:
            return []
        last = mark.last if until == "+" else until
        return await self._segments.between(after, last, mark)

    # --- the archive --------------------------------------------------------------------------

    async def _archived(
        self, place: Place, mark: Mark, span: tuple[Order, Order], count: int | None
    ) -> list[Entry]:
        """Return what the archive has between two entries, both included; `count` at most."""
        low, high = span[0], min(span[1], entry_order(mark.last))
        if high < low:
            return []
        while True:
            try:
                files = await self._segments.between(_text(_before(low)), _text(high), mark)
                return await self._read(place, files, (low, high), count)
            except DataError as error:
                now = await self._segments.mark(mark.stream)
                if error.code != "missing" or now is None or now.rewritten == mark.rewritten:
                    raise
            mark = replace(mark, rewritten=now.rewritten)  # replaced since the list was read

    async def _read(
        self, place: Place, files: Sequence[Segment], span: tuple[Order, Order], count: int | None
    ) -> list[Entry]:
        (low, high), found = span, list[Entry]()
        for file in files:
            if entry_order(file.first) > high:
                break
            cuts = [entry_order(cut) for cut in file.cuts]
            for group in range(bisect_left(cuts, low), len(cuts)):
                entries = await self._group(place, file, group)
                begin = bisect_left(entries, low, key=_order)
                end = bisect_right(entries, high, key=_order)
                found += entries[begin:end]
                if end < len(entries) or (count is not None and len(found) >= count):
                    return found[:count]
        return found

    async def _group(self, place: Place, file: Segment, group: int) -> list[Entry]:
        key = (file.sha256, group)
        entries = self._kept.get(key)
        if entries is None:
            entries = await asyncio.to_thread(_decoded, place, file, group)
            self._kept[key] = entries
            while len(self._kept) > GROUPS_KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        return entries


def _decoded(place: Place, file: Segment, group: int) -> list[Entry]:
    return decode(file.stream, read(place, file, [group]))


def _entries(reply: Any) -> list[Entry]:
    return [(entry.decode(), fields) for entry, fields in reply]


def _order(entry: Entry) -> Order:
    return entry_order(entry[0])


def _text(order: Order) -> str:
    return f"{order[0]}-{order[1]}"


def _from(start: str) -> Order:
    """Return the first entry that a range may have, as Redis understands its start."""
    if start == "-":
        return (0, 0)
    order = entry_order(start.removeprefix("("))
    return _after(order) if start.startswith("(") else order


def _to(end: str) -> Order:
    """Return the last entry that a range may have."""
    if end == "+":
        return entry_order(_END)
    given = end.removeprefix("(")
    ms, seq = entry_order(given)
    if "-" not in given and not end.startswith("("):
        return (ms, _LAST_SEQ)
    return _before((ms, seq)) if end.startswith("(") else (ms, seq)


def _after(order: Order) -> Order:
    ms, seq = order
    return (ms, seq + 1) if seq < _LAST_SEQ else (ms + 1, 0)


def _before(order: Order) -> Order:
    ms, seq = order
    if seq:
        return (ms, seq - 1)
    return (ms - 1, _LAST_SEQ) if ms else (0, 0)
