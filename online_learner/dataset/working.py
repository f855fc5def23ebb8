"""What workers do: rows of one part of the signals, and counts of one part of the answers.

They need no store: files alone, and nothing that is not in the work they are handed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet
from pydantic_core import from_json

from online_learner.archive.parts import Part, entries_of, read_part
from online_learner.archive.place import Place
from online_learner.dataset.query import Format
from online_learner.dataset.rows import FORMATS, Said, Shape
from online_learner.dataset.rows.common import common_columns
from online_learner.dataset.split import BOTH, TRAIN, VALIDATION, Split
from online_learner.ids import entry_order
from online_learner.schema.values import label_key
from online_learner.store import Fields

SIDE = "__side"  # the split of a row, or why it is in none
GROUP = "any"  # the one output of answers that are no labels
COUNTS = pa.schema(
    [
        pa.field("output", pa.string()),
        pa.field("answers", pa.int64()),
        pa.field("answered", pa.int64()),
    ]
)


# --- rows -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Signals:
    """One part of the signals, with what was decided of them.

    Parameters
    ----------
    decisions
        A file of the scratch place.
    superseded
        Signals of it that were replaced later.
    mark
        What their names begin with.
    """

    part: Part
    decisions: str
    superseded: frozenset[str] = frozenset()
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """Makes rows of a part of the signals.

    Parameters
    ----------
    scratch
        The URL of the place where decisions are.
    """

    scratch: str
    format: Format
    shape: Shape
    split: Split

    @property
    def schema(self) -> pa.Schema:
        """The columns of the dataset."""
        return pa.schema([*common_columns(self.shape), *FORMATS[self.format].columns(self.shape)])

    def __call__(self, signals: Signals) -> pa.Table:
        """Return the rows, with a last column that says in which split they are."""
        schema = self.schema.append(pa.field(SIDE, pa.string()))
        decided = read_table(Place.open(self.scratch), signals.decisions).to_pylist()
        columns: list[list[Any]] = [[] for _ in schema]
        if decided:
            said = dict(entries_of(signals.part))
            for decision in decided:
                for row in self._rows(decision, said[decision["entry"]], signals):
                    for column, value in zip(columns, row, strict=True):
                        column.append(value)
        arrays = [pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _rows(
        self, decision: dict[str, Any], fields: Fields, signals: Signals
    ) -> Iterator[Sequence[Any]]:
        entry, feedback = decision["entry"], from_json(fields[b"f"])
        record = from_json(decision["record"] or fields[b"r"])
        second = decision["other"] or fields.get(b"o")
        other = None if second is None else from_json(second)
        said_ms = entry_order(entry)[0]
        weights = [decision[f"weight_{name}"] for name in self.shape.factors]
        common = [
            fields[b"p"].decode(),
            f"{signals.mark}{entry}",
            said_ms,
            feedback["kind"],
            feedback["source"],
            decision["weight"],
            decision["weight_raw"],
            *weights,
        ]
        side = "superseded"
        if entry not in signals.superseded:
            side = self._side(record, other, decision["answered_ms"], said_ms)
        if side in {TRAIN, VALIDATION}:
            payload = from_json(decision["payload"])
            made = FORMATS[self.format].rows(payload, Said(feedback, record, other), self.shape)
            found = [[*common, *values, side] for values in made]
            if found:
                yield from found
                return
            side = "nothing_to_learn"
        yield [*common, *(None for _ in FORMATS[self.format].columns(self.shape)), side]

    def _side(
        self, record: dict[str, Any], other: dict[str, Any] | None, answered_ms: int, said_ms: int
    ) -> str:
        side = self.split.side(record, answered_ms, said_ms)
        if other is None or self.split.side(other, answered_ms, said_ms) == side:
            return side
        return BOTH


# --- counts ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answers:
    """One part of the answers, and the files that name those that people spoke of."""

    part: Part
    spoken_of: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts a part of the answers, by output.

    Parameters
    ----------
    labels
        Whether outputs are labels; else all count together.
    since_ms
        Before that, answers are not counted.
    """

    scratch: str
    labels: bool
    since_ms: float = 0.0

    def __call__(self, answers: Answers) -> pa.Table:
        """Return how many there are of each output, and of how many somebody spoke."""
        table = read_part(answers.part, ["id", "at", "output", "erased"])
        if self.since_ms:
            first = pa.scalar(int(np.ceil(self.since_ms)), pa.int64())
            table = table.filter(pc.greater_equal(table["at"].cast(pa.int64()), first))
        outputs = pc.fill_null(table["output"], "")
        if not self.labels:
            outputs = pa.array([GROUP] * table.num_rows, pa.string())
        spoken = self._spoken(answers, table["id"])
        grouped = (
            pa.table({"output": outputs, "spoken": pc.cast(spoken, pa.int64())})
            .group_by("output", use_threads=False)
            .aggregate([("spoken", "count"), ("spoken", "sum")])
        )
        names = [_name(text) for text in grouped["output"].to_pylist()]
        return pa.table(
            [
                pa.array(names, pa.string()),
                grouped["spoken_count"],
                pc.fill_null(grouped["spoken_sum"], 0),
            ],
            schema=COUNTS,
        )

    def _spoken(self, answers: Answers, ids: pa.ChunkedArray) -> pa.ChunkedArray:
        place = Place.open(self.scratch)
        known = [read_table(place, name)["answer"] for name in answers.spoken_of]
        chunks = [chunk for column in known for chunk in column.chunks]
        return pc.is_in(ids, value_set=pa.chunked_array(chunks, pa.string()))


def _name(text: str) -> str:
    """Return the name of an output, which is JSON; nothing where it was erased."""
    if text in {"", GROUP}:
        return text
    return label_key(json.loads(text))


# --- files ----------------------------------------------------------------------------------------


def write_table(place: Place, name: str, table: pa.Table) -> None:
    """Write a table to a file of the scratch place."""
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd", compression_level=1)
    place.write(name, buffer.getvalue())


def read_table(place: Place, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return what `write_table` wrote."""
    return parquet.read_table(
        pa.BufferReader(place.read(name)), columns=columns and list(columns), use_threads=False
    )
