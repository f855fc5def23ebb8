"""Files of a split, written as rows come: what is in them depends on the rows alone.

Rows are cut into files and row groups by their number, however many come at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from online_learner.archive.place import Output, Place
from online_learner.dataset.columns import columns_of, lines
from online_learner.dataset.manifest import File

GROUP_ROWS = 8_192
FILE_ROWS = 16 * GROUP_ROWS


class Sink(Protocol):
    """Takes the rows of one split, in order."""

    def write(self, table: pa.Table) -> None:
        """Write some rows; raises `DataError` where they cannot be."""

    def close(self) -> list[File]:
        """Write all that is left, and return the files: none where there were no rows."""

    def abandon(self) -> None:
        """Let go of what is being written: it will not be whole."""


class _Blocks:
    """Rows in blocks of a fixed number."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> Iterator[pa.Table]:
        """Take some rows, and yield the blocks that are full."""
        if table.num_rows:
            self._waiting.append(table.select(self.schema.names).cast(self.schema))
            self._rows += table.num_rows
        while self._rows >= GROUP_ROWS:
            yield self._take(GROUP_ROWS)

    def rest(self) -> Iterator[pa.Table]:
        """Yield what is left."""
        if self._rows:
            yield self._take(self._rows)

    def _take(self, rows: int) -> pa.Table:
        whole = pa.concat_tables(self._waiting)
        block, left = whole.slice(0, rows), whole.slice(rows)
        self._waiting, self._rows = [left] if left.num_rows else [], left.num_rows
        return block.combine_chunks()  # pages end where chunks do


class ParquetSink:
    """Writes Parquet: `part-00000.parquet`, `part-00001.parquet`, ..."""

    def __init__(self, place: Place, split: str, schema: pa.Schema) -> None:
        self._place = place
        self._split = split
        self._schema = schema
        self._blocks = _Blocks(schema)
        self._files: list[File] = []
        self._writer: pq.ParquetWriter | None = None
        self._output: Output | None = None
        self._rows = 0

    def write(self, table: pa.Table) -> None:
        """Write some rows."""
        for block in self._blocks.add(table):
            self._put(block)

    def close(self) -> list[File]:
        """Write all that is left, and return the files."""
        for block in self._blocks.rest():
            self._put(block)
        self._end()
        return self._files

    def abandon(self) -> None:
        """Let go of what is being written."""
        if self._output is not None:
            self._output.abandon()
        if self._writer is not None:
            self._writer.close()  # into nowhere: else it would when it is collected

    def _put(self, block: pa.Table) -> None:
        if self._writer is None:
            self._output = self._place.output(self._name())
            self._writer = pq.ParquetWriter(
                self._output, self._schema, compression="zstd", compression_level=3
            )
        self._writer.write_table(block, row_group_size=GROUP_ROWS)
        self._rows += block.num_rows
        if self._rows >= FILE_ROWS:
            self._end()

    def _end(self) -> None:
        if self._writer is None or self._output is None:
            return
        self._writer.close()
        self._output.close()
        self._files.append(_file(self._name(), self._split, self._rows, self._output))
        self._writer, self._output, self._rows = None, None, 0

    def _name(self) -> str:
        return f"{self._split}/part-{len(self._files):05d}.parquet"


class JsonSink:
    """Writes lines of JSON, one file a split: `part-00000.jsonl`."""

    def __init__(self, place: Place, split: str, schema: pa.Schema) -> None:
        self._place = place
        self._split = split
        self._blocks = _Blocks(schema)
        self._output: Output | None = None
        self._rows = 0
        self._name = f"{split}/part-00000.jsonl"

    def write(self, table: pa.Table) -> None:
        """Write some rows."""
        for block in self._blocks.add(table):
            self._put(block)

    def close(self) -> list[File]:
        """Write all that is left, and return the file."""
        for block in self._blocks.rest():
            self._put(block)
        if self._output is None:
            return []
        self._output.close()
        return [_file(self._name, self._split, self._rows, self._output)]

    def abandon(self) -> None:
        """Let go of what is being written."""
        if self._output is not None:
            self._output.abandon()

    def _put(self, block: pa.Table) -> None:
        if self._output is None:
            self._output = self._place.output(self._name)
        self._output.write(lines(block))
        self._rows += block.num_rows


def make_sink(place: Place, split: str, schema: pa.Schema, file_format: str) -> Sink:
    """Return what writes the rows of a split to a place."""
    columns_of(schema)
    kind = ParquetSink if file_format == "parquet" else JsonSink
    return kind(place, split, schema)


def _file(path: str, split: str, rows: int, output: Output) -> File:
    return File(path=path, split=split, rows=rows, size=output.size, sha256=output.sha256)
