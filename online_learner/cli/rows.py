"""Rows of a CSV or JSONL file, with the type of each cell: what is wrong is named by its line.

The file is read twice: once to see what the columns hold, once to hand out the rows. A column of
numbers is numbers, one of true and false is that, and anything else is text. A number with a zero
in front (a postcode) is text, too. An empty cell is a feature that is missing.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import typer

from online_learner.errors import did_you_mean

DELIMITERS = ",;\t|"
JSON_LINES = {".jsonl", ".ndjson"}
_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)?(\.\d+)?([eE][+-]?\d+)?")
_BOOLEANS = {"true": True, "false": False}
_MAX_CELL = 1 << 20  # characters


class Wrong(Exception):
    """Why a row cannot be taken."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its line, its number from 0, and what is in it, or what is wrong with it."""

    line: int
    number: int
    features: dict[str, Any] = field(default_factory=dict)
    label: Any = None
    rater: str | None = None
    wrong: str | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns are what.

    Parameters
    ----------
    label, rater
        The right answer, and who gave it.
    features
        None: all the others.
    text
        Those that are text whatever they look like.
    """

    label: str
    features: tuple[str, ...] | None = None
    text: tuple[str, ...] = ()
    rater: str | None = None

    def check(self, names: Sequence[str]) -> None:
        """Raise `BadParameter` where a column is not there."""
        wanted = [self.label, *(self.features or ()), *self.text, *([self.rater or self.label])]
        for name in wanted:
            if name not in names:
                known = ", ".join(names) or "no columns"
                raise typer.BadParameter(
                    f"there is no column '{name}'.{did_you_mean(name, names)} The file has: {known}"
                )

    def of(self, names: Iterable[str]) -> list[str]:
        """Return the features among some columns."""
        if self.features is not None:
            return [name for name in names if name in self.features]
        return [name for name in names if name not in (self.label, self.rater)]


class Rows:
    """The rows of a file.

    Parameters
    ----------
    read_label
        Turns the label's cell, or JSON value, into a label; raises `Wrong`.
    """

    def __init__(
        self, file: Path, columns: Columns, read_label: Callable[[Any], Any] = lambda cell: cell
    ) -> None:
        self.file = file
        self.columns = columns
        self._read_label = read_label
        self._json = file.suffix.lower() in JSON_LINES
        self.kinds: dict[str, str] = {}
        self.count = 0
        self._names: list[str] = []
        self._look()

    def _look(self) -> None:
        """Find the columns, what each holds, and how many rows there are."""
        seen: dict[str, set[str]] = {}
        for _, found in self._raw():
            self.count += 1
            if isinstance(found, str):
                continue
            for name, value in found.items():
                seen.setdefault(name, set()).add("empty" if _is_empty(value) else _kind(value))
        self._names = self._names or list(seen)
        self.columns.check(self._names)
        for name, kinds in seen.items():
            full = kinds - {"empty"}
            self.kinds[name] = full.pop() if len(full) == 1 else "text"
        self.kinds |= dict.fromkeys(self.columns.text, "text")

    def __iter__(self) -> Iterator[Row]:
        for number, (line, found) in enumerate(self._raw()):
            if isinstance(found, str):
                yield Row(line, number, wrong=found)
                continue
            try:
                yield self._row(line, number, found)
            except Wrong as wrong:
                yield Row(line, number, wrong=str(wrong))

    def _row(self, line: int, number: int, found: Mapping[str, Any]) -> Row:
        label = found.get(self.columns.label)
        if _is_empty(label):
            raise Wrong(f"'{self.columns.label}' is empty: there is nothing to learn")
        features = {
            name: self._value(name, found[name])
            for name in self.columns.of(found)
            if not _is_empty(found[name])
        }
        if not features:
            raise Wrong("no feature of it has a value")
        rater = None if self.columns.rater is None else found.get(self.columns.rater)
        if self.columns.rater is not None and _is_empty(rater):
            raise Wrong(f"'{self.columns.rater}' is empty: nobody says so")
        return Row(
            line,
            number,
            features,
            self._read_label(label),
            None if rater is None else str(rater).strip(),
        )

    def _value(self, name: str, value: Any) -> Any:
        if self._json or not isinstance(value, str):
            return str(value) if name in self.columns.text else value
        kind = self.kinds[name]
        return value if kind == "text" else read_cell(value)

    def digest(self) -> str:
        """Return what is the same for the same rows, read in the same way."""
        found = hashlib.blake2b(digest_size=12)
        with self.file.open("rb") as file:
            while piece := file.read(1 << 20):
                found.update(piece)
        columns = self.columns
        how = [columns.label, columns.features, columns.text, columns.rater]
        found.update(json.dumps(how).encode())
        return found.hexdigest()

    # --- raw ----------------------------------------------------------------------------------

    def _raw(self) -> Iterator[tuple[int, dict[str, Any] | str]]:
        """Yield each row with its line, or why it is none."""
        with self._opened() as file:
            yield from _json_rows(file) if self._json else self._csv_rows(file)

    @contextmanager
    def _opened(self) -> Iterator[TextIO]:
        try:
            with self.file.open(encoding="utf-8-sig", newline="") as file:
                yield file
        except UnicodeDecodeError as error:
            raise typer.BadParameter(
                f"{self.file} is no UTF-8 at byte {error.start}: convert it, as with "
                f"`iconv -f latin1 -t utf-8`"
            ) from None

    def _csv_rows(self, file: TextIO) -> Iterator[tuple[int, dict[str, Any] | str]]:
        csv.field_size_limit(_MAX_CELL)
        first = file.readline()
        file.seek(0)
        delimiter = max(DELIMITERS, key=first.count)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            self._names = _header(next(reader, []))
            line = reader.line_num + 1
            for cells in reader:
                if cells:
                    yield line, _named(self._names, cells)
                line = reader.line_num + 1
        except csv.Error as error:
            raise typer.BadParameter(
                f"{self.file}, line {reader.line_num}: {error}. Is a quote not closed?"
            ) from None


def _header(cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = {name for name in names if names.count(name) > 1}
    if not names or "" in names or twice:
        what = f"'{min(twice)}' twice" if twice else "a column without a name"
        raise typer.BadParameter(f"the first line has to name the columns, and it has {what}")
    return names


def _named(names: list[str], cells: list[str]) -> dict[str, Any] | str:
    if len(cells) != len(names):
        return f"it has {len(cells)} cells, and the first line {len(names)}"
    return dict(zip(names, cells, strict=True))


def _json_rows(file: TextIO) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            found = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            yield line, f"it is no JSON that can be sent: {error}"
            continue
        yield line, found if isinstance(found, dict) else "it is no JSON object"


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    found = float(text)
    return found if math.isfinite(found) else _refuse(text)


# --- cells ------------------------------------------------------------------------------------


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _kind(value: Any) -> str:
    if not isinstance(value, str):
        return type(value).__name__
    try:
        kind = type(read_cell(value)).__name__
    except Wrong:
        return "number"
    return kind.replace("int", "number").replace("float", "number")


def read_cell(text: str) -> bool | int | float | str:
    """Return a cell as a number or a truth value where it is one, else as it is.

    >>> [read_cell(cell) for cell in ("3", "-2.50", "1e3", "TRUE", "0123", "4 rooms", "nan")]
    [3, -2.5, 1000.0, True, '0123', '4 rooms', 'nan']

    Raises `Wrong` where the number is larger than any that can be sent.
    """
    cell = text.strip()
    if cell.lower() in _BOOLEANS:
        return _BOOLEANS[cell.lower()]
    if not re.search(r"\d", cell) or not _NUMBER.fullmatch(cell):
        return text
    number = float(cell)
    if not math.isfinite(number):
        raise Wrong("a number in it is too large")
    return int(cell) if re.fullmatch(r"[+-]?\d+", cell) else number
