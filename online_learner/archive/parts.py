"""The record in parts of a bounded size, for workers in other processes: they need no store."""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from online_learner.archive.files import read
from online_learner.archive.form import decode, sliced
from online_learner.archive.place import Place
from online_learner.ids import entry_order
from online_learner.schema import Segment
from online_learner.store import Entry

MOST_ROWS = 25_000


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of one stream in one file.

    Parameters
    ----------
    url
        Of the place that the file is in.
    segment
        The file.
    groups
        The row groups of it that hold the stretch, by number.
    after, until
        The entries after the first, up to and with the second.
    """

    url: str
    segment: Segment
    groups: tuple[int, ...]
    after: str
    until: str

    @property
    def stream(self) -> str:
        """The stream, by its short name."""
        return self.segment.stream


def split(
    place: Place, segment: Segment, after: str, until: str, *, most_rows: int = MOST_ROWS
) -> Iterator[Part]:
    """Yield the parts of a file between two entries, in order."""
    if not segment.cuts:
        return
    cuts = [entry_order(cut) for cut in segment.cuts]
    begin = bisect_left(cuts, entry_order(after))
    if begin < len(cuts) and cuts[begin] == entry_order(after):
        begin += 1
    end = min(len(cuts), bisect_left(cuts, entry_order(until)) + 1)
    each = max(1, most_rows * len(cuts) // max(1, segment.rows))
    for at in range(begin, end, each):
        groups = tuple(range(at, min(end, at + each)))
        low = after if at == begin else segment.cuts[at - 1]
        high = until if groups[-1] == end - 1 else segment.cuts[groups[-1]]
        yield Part(place.url, segment, groups, low, high)


def read_part(part: Part, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a part's rows, in the columns of `archive.form`; all of them, or those named.

    Raises
    ------
    DataError
        Its file is gone, damaged, or of another form.
    """
    wanted = None if columns is None else list(dict.fromkeys(["id", *columns]))
    table = read(_place(part.url), part.segment, part.groups, wanted)
    table = sliced(table, part.after, part.until)
    return table if columns is None or wanted == list(columns) else table.select(list(columns))


def entries_of(part: Part) -> list[Entry]:
    """Return a part's entries, as they were in the store; raises as `read_part` does."""
    return decode(part.stream, read_part(part))


@functools.lru_cache(maxsize=16)
def _place(url: str) -> Place:
    return Place.open(url)
