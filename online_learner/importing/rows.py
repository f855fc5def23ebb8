"""Rows of a file of JSON Lines, or of Parquet, as they are sent."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from online_learner.errors import DataError, ServiceError
from online_learner.requests import read_json

T = TypeVar("T")
Row: TypeAlias = tuple[int, dict[str, Any] | str]
"""The line or the number of a row, from 1, and what is in it, or why nothing can be read of it."""

BATCH = 256
_PARQUET = b"PAR1"
_MARK = b"\xef\xbb\xbf"  # some editors begin a text with it
_NO_VALUE = (KeyError, ValueError, OverflowError)  # names twice, texts in no UTF-8, the year 99999
_AS_JSON = ("features", "options", "outputs", "messages", "parameters", "scores", "tags")
_TEXTS = ("output", "value", "outputs")  # which may be a text as well


class Unreadable(Exception):
    """Why a row cannot be sent."""


def digest_of(file: Path) -> str:
    """Return what is the same for the same bytes: 16 hex digits."""
    found = hashlib.blake2b(digest_size=8)
    with file.open("rb") as opened:
        while piece := opened.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


def count_rows(file: Path) -> int:
    """Return how many rows a file has; raises `DataError` where it is none that can be read."""
    if _is_parquet(file):
        return int(_parquet(file).metadata.num_rows)
    with file.open("rb") as opened:
        return sum(1 for line in opened if line.strip())


def read_rows(file: Path) -> Iterator[Row]:
    """Yield the rows of a file of JSON Lines, or of Parquet; raises `DataError`."""
    return _parquet_rows(file) if _is_parquet(file) else _json_rows(file)


def _is_parquet(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == _PARQUET


def _json_rows(file: Path) -> Iterator[Row]:
    with file.open("rb") as opened:
        for number, line in enumerate(opened, 1):
            if not line.strip():
                continue
            try:
                found = read_json(line.removeprefix(_MARK) if number == 1 else line)
            except ServiceError as error:
                yield number, error.detail.removeprefix("/: ").replace("the body", "it")
                continue
            yield number, found if isinstance(found, dict) else "it is no JSON object"


def _parquet(file: Path) -> Any:
    from pyarrow import ArrowException, parquet

    try:
        return parquet.ParquetFile(file)
    except (ArrowException, OSError) as error:
        raise DataError(
            f"{file.name} begins as Parquet, and cannot be read: it is damaged"
        ) from error


def _parquet_rows(file: Path) -> Iterator[Row]:
    """Yield rows without their empty cells. A text may be JSON where the field is no text."""
    from pyarrow import ArrowException

    number = 0
    try:
        for batch in _parquet(file).iter_batches(batch_size=BATCH):
            for row in _rows_of(batch):
                number += 1
                if isinstance(row, str):
                    yield number, row
                    continue
                try:
                    cells = {n: _cell(n, value) for n, value in row.items() if value is not None}
                except Unreadable as error:
                    yield number, str(error)
                else:
                    yield number, cells
    except (ArrowException, OSError) as error:
        raise DataError(f"{file.name} is damaged behind row {number}") from error


def _rows_of(batch: Any) -> Iterator[dict[str, Any] | str]:
    """Yield the rows of a batch; where one cannot be read, each by itself."""
    try:
        yield from batch.to_pylist(maps_as_pydicts="strict")
    except _NO_VALUE as error:
        if len(batch) > 1:
            for at in range(len(batch)):
                yield from _rows_of(batch.slice(at, 1))
            return
        repeats = isinstance(error, KeyError)
        yield "a map in it has a name twice" if repeats else "a cell in it has no value of its type"


def _cell(name: str, value: Any) -> Any:
    if isinstance(value, str) and name in {*_AS_JSON, "feedback", "output", "value"}:
        found: Any = None
        with suppress(ServiceError):
            found = read_json(value.encode(errors="replace"))
        if isinstance(found, list | dict):  # a label that reads like a number is a label
            return found
        if name not in _TEXTS:
            raise Unreadable(f"`{name}` is a text, and no JSON")
    return _plain(value)


def _plain(value: Any) -> Any:
    """Return a cell as JSON has it: structs without their empty fields, times in RFC 3339."""
    match value:
        case Mapping():
            return {name: _plain(part) for name, part in value.items() if part is not None}
        case list():
            return [_plain(part) for part in value]
        case dt.datetime():
            zoned = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
            return zoned.isoformat()
        case decimal.Decimal():
            return float(value)
        case bytes():
            return base64.b64encode(value).decode()
        case float() if not math.isfinite(value):
            raise Unreadable("a number in it is not finite")
        case None | bool() | int() | float() | str():
            return value
    raise Unreadable(f"a cell in it is a {type(value).__name__}, which cannot be sent")
