"""Rows of a version, in their order, a batch at a time: for training, and for people.

Each file is checked against the manifest before anything of it is given.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from online_learner.dataset.columns import parse_lines, records, schema_of
from online_learner.dataset.manifest import File, Manifest
from online_learner.dataset.versions import Versions
from online_learner.errors import DataError

ALL = "all"
BATCH_ROWS = 8_192


def rows(versions: Versions, name: str, split: str = "train") -> Iterator[dict[str, Any]]:
    """Yield the rows of a split, or of `all`; columns of JSON are the objects that they hold.

    Raises
    ------
    DataError
        There is no such version or split (`missing`), or what is there is `damaged`.
    """
    for table in tables(versions, name, split):
        yield from records(table)


def tables(
    versions: Versions,
    name: str,
    split: str = "train",
    *,
    columns: Sequence[str] | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[pa.Table]:
    """Yield the rows of a split, or of `all`, a batch at a time; raises as `rows` does.

    The columns are those of the manifest, whatever the format of the files; or some of them.
    """
    manifest = versions.get(name)
    for file in files(manifest, split):
        versions.check(manifest.id, file)
        yield from _of_file(versions, manifest, file, columns, batch_rows)


def files(manifest: Manifest, split: str) -> list[File]:
    """Return the files of a split, or of `all`; raises `DataError` where there is no such split."""
    known = dict.fromkeys([*manifest.splits, *(file.split for file in manifest.files)])
    if split not in {*known, ALL}:
        raise DataError(
            f"version {manifest.id} has no such split: there are {', '.join(known)}", code="missing"
        )
    return [file for file in manifest.files if split in {file.split, ALL}]


def holds(versions: Versions, name: str, signals: frozenset[str]) -> bool:
    """Tell whether a version has a row of any of these signals; one that is damaged may have."""
    try:
        return "signal" not in versions.read(name).columns or has(versions, name, signals)
    except DataError:
        return True


def has(versions: Versions, name: str, signals: frozenset[str]) -> bool:
    """Tell whether a version has a row of any of these signals; raises as `rows` does."""
    wanted = pa.array(sorted(signals), pa.string())
    found = tables(versions, name, ALL, columns=["signal"])
    return any(pc.any(pc.is_in(table["signal"], value_set=wanted)).as_py() for table in found)


def _of_file(
    versions: Versions,
    manifest: Manifest,
    file: File,
    columns: Sequence[str] | None,
    batch_rows: int,
) -> Iterator[pa.Table]:
    schema = schema_of(manifest.columns)
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    with versions.place(manifest.id).input(file.path) as stream:
        if file.path.endswith(".jsonl"):
            buffered = io.BufferedReader(stream)
            while lines := list(islice(buffered, batch_rows)):
                yield parse_lines(lines, wanted)
            return
        parquet = pq.ParquetFile(stream)
        for batch in parquet.iter_batches(batch_rows, columns=wanted.names):
            yield pa.Table.from_batches([batch]).cast(wanted)
