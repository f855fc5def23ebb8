"""Versions of datasets from rows that a test makes up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from online_learner.archive.place import Place
from online_learner.dataset.columns import json_field
from online_learner.dataset.manifest import File, Manifest
from online_learner.dataset.query import Query
from online_learner.dataset.versions import Draft

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("signal", pa.string()),
        pa.field("at", pa.timestamp("ms", "UTC")),
        json_field("features"),
        pa.field("target", pa.bool_()),
        pa.field("weight", pa.float64()),
    ]
)
QUERY = Query(model="web", format="supervised")


def table(numbers: Iterable[int], *, weight: float = 1.0) -> pa.Table:
    """Return a row for each number."""
    numbers = list(numbers)
    return pa.Table.from_arrays(
        [
            pa.array([f"{1_700_000_000_000 + n}-0" for n in numbers]),
            pa.array([f"{1_700_000_000_500 + n}-1" for n in numbers]),
            pa.array([1_700_000_000_000 + n for n in numbers], SCHEMA.field("at").type),
            pa.array([f'{{"a":{n},"text":"Grüße\\n{n}"}}' for n in numbers]),
            pa.array([n % 3 == 0 for n in numbers]),
            pa.array([weight] * len(numbers)),
        ],
        schema=SCHEMA,
    )


def write(draft: Draft, split: str, rows: pa.Table, query: Query, batch: int) -> list[File]:
    """Write the rows of a split, so many at a time."""
    sink = draft.sink(split, rows.schema, query.file_format)
    for start in range(0, rows.num_rows, batch):
        sink.write(rows.slice(start, batch))
    return sink.close()


def publish(
    datasets: Place,
    train: pa.Table,
    validation: pa.Table | None = None,
    *,
    query: Query = QUERY,
    batch: int = 1000,
    **fields: Any,
) -> Manifest:
    """Publish a version with these rows."""
    splits = {"train": train} | ({} if validation is None else {"validation": validation})
    with Draft(datasets) as draft:
        files = [
            file
            for split, rows in splits.items()
            for file in write(draft, split, rows, query, batch)
        ]
        counts = {split: rows.num_rows for split, rows in splits.items()}
        told = {"splits": counts, "counts": {"rows": sum(counts.values())}, "created_at": 1.0}
        return draft.publish(Manifest(query=query, files=files, **(told | fields)))


def names(manifests: Sequence[Manifest]) -> list[str]:
    """Return the ids of manifests."""
    return [manifest.id for manifest in manifests]
