"""One file of the archive: written whole, and read only where it is what was written."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import math
import secrets
import threading
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from online_learner.archive.form import FORMS, VERSION, encode
from online_learner.archive.place import Place
from online_learner.errors import DataError
from online_learner.ids import entry_order
from online_learner.schema import Segment
from online_learner.store import Entry

LEVEL = 3  # of zstd
GROUP_ROWS = 5_000
GROUP_BYTES = 8 << 20  # of the fields' values
MOST_BYTES = 32 << 20  # of these in a file: it is read and written in memory
READ_ROWS = 256  # that are read from the store at once: each may be a megabyte
_CHUNK = 1 << 20
_LAST_DAY = dt.date(9999, 12, 31).toordinal()
_EPOCH = dt.date(1970, 1, 1).toordinal()
_DAY_MS = 86_400_000


def day(entry: str) -> str:
    """Return the day of an entry, in UTC.

    >>> day("1700000000000-3")
    '2023-11-14'
    """
    days = _EPOCH + entry_order(entry)[0] // _DAY_MS
    return dt.date.fromordinal(min(days, _LAST_DAY)).isoformat()


def path_of(model: str, stream: str, after: str, last: str) -> str:
    """Return where a file is to be within the archive.

    No other is ever there: a writer that comes too late cannot write over what another has listed.
    """
    mark = secrets.token_hex(4)
    return f"model={model}/{stream}/date={day(last)}/{after}_{last}-{mark}.parquet"


class SegmentWriter:
    """Writes a file in memory, a row group at a time.

    Parameters
    ----------
    after
        The entry after which the file begins.
    most_rows, most_bytes
        With so many entries, or so much in the values of their fields, it is full.

    Attributes
    ----------
    first, last
        The first entry that it has, and the last; `after` where it has none.
    rows
        How many it has.
    """

    def __init__(
        self,
        model: str,
        stream: str,
        after: str,
        *,
        most_rows: float = math.inf,
        most_bytes: float = math.inf,
    ) -> None:
        self.model = model
        self.stream = stream
        self.after = after
        self.first = ""
        self.last = after
        self.cuts: list[str] = []
        self.rows = 0
        self._most = most_rows, most_bytes
        self._size = self._group_size = 0
        self._group: list[Entry] = []
        self._bytes = io.BytesIO()
        self._writer: Any = parquet.ParquetWriter(
            self._bytes,
            FORMS[stream].schema,
            compression="zstd",
            compression_level=LEVEL,
            write_page_checksum=True,
        )

    @property
    def is_full(self) -> bool:
        """Whether it takes no more."""
        return self.rows >= self._most[0] or self._size + self._group_size >= self._most[1]

    def add(self, entries: Sequence[Entry]) -> int:
        """Add entries, which follow those before, until it is full; returns how many it took."""
        for taken, entry in enumerate(entries):
            if self.is_full:
                return taken
            self.first = self.first or entry[0]
            self.last = entry[0]
            self.rows += 1
            self._group.append(entry)
            self._group_size += sum(map(len, entry[1].values()))
            if len(self._group) >= GROUP_ROWS or self._group_size >= GROUP_BYTES:
                self._write_group()
        return len(entries)

    def _write_group(self) -> None:
        group = self._group
        self._writer.write_table(encode(self.stream, group), row_group_size=len(group))
        self.cuts.append(group[-1][0])
        self._size += self._group_size
        self._group, self._group_size = [], 0

    def finish(self, place: Place, path: str, last: str) -> Segment:
        """Write the file to its place, and return what is to be known of it.

        Raises
        ------
        DataError
            It cannot be written.
        """
        if self._group:
            self._write_group()
        known = {
            "form": str(VERSION),
            "model": self.model,
            "stream": self.stream,
            "after": self.after,
            "last": last,
            "rows": str(self.rows),
        }
        self._writer.add_key_value_metadata(known)
        self._writer.close()
        data = self._bytes.getvalue()
        place.write(path, data)
        return Segment(
            stream=self.stream,
            after=self.after,
            last=last,
            first=self.first or last,
            path=path,
            rows=self.rows,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            cuts=self.cuts,
            form=VERSION,
        )


# --- reading ----------------------------------------------------------------------------------

_sound: dict[tuple[str, str, str], tuple[int, int]] = {}  # files that were found to be whole
_lock = threading.Lock()
_MOST_SOUND = 10_000


def check(place: Place, segment: Segment) -> None:
    """Raise `DataError` unless a file is what was written.

    It is read once in each process, and again where it has changed since.
    """
    if segment.form != VERSION:
        raise DataError(
            f"{segment.path} is of form {segment.form}, and this release reads form {VERSION}: "
            "read it with the release that wrote it, or a later one",
            code="other_form",
        )
    known = (place.url, segment.path, segment.sha256)
    stamp = place.stamp(segment.path)
    if stamp is None:
        raise DataError(
            f"{segment.path} is not in {place.url}: put it back from a backup. If `archive` was "
            "changed, bring along what is in the place of before; if it is on another node's disk, "
            "set it to one that every node reaches; if somebody is being erased, try again",
            code="missing",
        )
    with _lock:
        if _sound.get(known) == stamp:
            return
    if stamp[0] != segment.size:
        raise DataError(
            f"{segment.path} has {stamp[0]} bytes, and {segment.size} were written: it was cut "
            "short or changed. Put it back from a backup",
        )
    if _sha256(place, segment.path) != segment.sha256:
        raise DataError(
            f"{segment.path} is not what was written: a byte of it was changed. Put it back from "
            "a backup",
        )
    with _lock:
        if len(_sound) >= _MOST_SOUND:
            _sound.clear()
        _sound[known] = stamp


def _sha256(place: Place, path: str) -> str:
    digest = hashlib.sha256()
    with place.input(path) as file:
        try:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        except OSError as error:
            raise DataError(
                f"{path} in {place.url} cannot be read: look at the disk, or try again"
            ) from error
    return digest.hexdigest()


def read(
    place: Place, segment: Segment, groups: Sequence[int], columns: Sequence[str] | None = None
) -> pa.Table:
    """Return row groups of a file, by number.

    Raises
    ------
    DataError
        It is gone (`missing`), damaged, or of another form (`other_form`).
    """
    check(place, segment)
    try:
        with (
            place.input(segment.path) as file,
            parquet.ParquetFile(file, page_checksum_verification=True) as parts,
        ):
            written = (parts.metadata.metadata or {}).get(b"form", b"").decode()
            if written != str(segment.form):
                raise DataError(
                    f"{segment.path} says that it is of form {written}: it is not what was written",
                    code="other_form",
                )
            found: pa.Table = parts.read_row_groups(list(groups), columns=columns)
            return found
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{segment.path} cannot be read: it is damaged. Put it back from a backup"
        ) from error
