"""Datasets of a test's own: rows, written as a version as the compiler writes them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from online_learner.archive.place import Place
from online_learner.dataset.columns import json_field
from online_learner.dataset.manifest import Manifest
from online_learner.dataset.query import Query
from online_learner.dataset.versions import Draft

COMMON = [
    pa.field("id", pa.string()),
    pa.field("signal", pa.string()),
    pa.field("kind", pa.string()),
    pa.field("source", pa.string()),
    pa.field("weight", pa.float64()),
]


def write_version(
    datasets: Place,
    query: Query,
    splits: dict[str, Sequence[dict[str, Any]]],
    target: pa.DataType | None = None,
) -> Manifest:
    """Write a version that holds these rows, and publish it.

    A row has what it teaches, and may have `weight`, `kind`, `source`. With a `target` type, the
    rows are supervised; else they are preferences between options.
    """
    own = ["features", "target"] if target else ["features", "chosen_features", "rejected_features"]
    fields = [pa.field(n, target) if n == "target" and target else json_field(n) for n in own]
    schema = pa.schema([*COMMON, *fields])
    draft = Draft(datasets)
    files = []
    for split, rows in splits.items():
        sink = draft.sink(split, schema, query.file_format)
        sink.write(pa.Table.from_pylist([_row(i, row) for i, row in enumerate(rows)], schema))
        files += sink.close()
    counts = {split: len(rows) for split, rows in splits.items()}
    return draft.publish(Manifest(query=query, splits=counts, files=files, created_at=1.0))


def _row(number: int, row: dict[str, Any]) -> dict[str, Any]:
    place = f"{1_700_000_000_000 + number}-0"
    known = {"id": place, "signal": place, "kind": "correction", "source": "human:ada"}
    told = {n: json.dumps(v) if n.endswith("features") else v for n, v in row.items()}
    return {**known, "weight": 1.0, **told}


def signs(count: int, *, seed: int = 0, noise: float = 0.05) -> list[dict[str, Any]]:
    """Return rows whose label is the sign of `a`, but for a share of them."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        a, wrong = rng.gauss(0, 1), rng.random() < noise
        found.append({"features": {"a": a, "b": rng.gauss(0, 1)}, "target": (a > 0) != wrong})
    return found
