"""Sums over rows, table by table: exact, so that they do not depend on how the rows were parted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from online_learner.dataset.split import TRAIN, VALIDATION
from online_learner.dataset.working import SIDE
from online_learner.schema.values import label_key

MOST = 100  # that are listed; the others count together
OTHERS = "others"
_MILLION = 1_000_000


class Sums:
    """What a manifest tells of the rows.

    Parameters
    ----------
    label
        The column by which rows are balanced, or None where there is none.
    """

    def __init__(self, label: str | None) -> None:
        self.rows = 0
        self.splits = {TRAIN: 0, VALIDATION: 0}
        self.by_kind: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()  # signals that workers made no row of, by reason
        self._label = label
        self._labels: Counter[str] = Counter()
        self._rows_by: Counter[str] = Counter()
        self._weights_by: Counter[str] = Counter()  # in millionths

    def add(self, table: pa.Table) -> None:
        """Take in what a worker has made of a part."""
        in_split = pc.is_in(table[SIDE], value_set=pa.array([TRAIN, VALIDATION]))
        self.dropped.update(table.filter(pc.invert(in_split))[SIDE].to_pylist())
        rows = table.filter(in_split)
        self.rows += rows.num_rows
        for split in self.splits:
            self.splits[split] += int(pc.sum(pc.equal(rows[SIDE], split)).as_py() or 0)
        for kind, count in _counted(rows["kind"]):
            self.by_kind[kind] += count
        if self._label is not None:
            for label, count in _counted(rows[self._label]):
                self._labels[label_key(label)] += count
        self._raters(rows)

    def balance(self) -> dict[str, int]:
        """Return rows by label, the most frequent first."""
        ranked = sorted(self._labels.items(), key=lambda item: (-item[1], item[0]))
        found = dict(ranked[:MOST])
        rest = sum(count for _, count in ranked[MOST:])
        # There may be a label of that name.
        return {**found, OTHERS: rest + found.get(OTHERS, 0)} if rest else found

    def raters(self) -> dict[str, dict[str, float]]:
        """Return by source how many rows it gave, and what these weigh on average."""
        ranked = sorted(self._rows_by.items(), key=lambda item: (-item[1], item[0]))
        found = {name: self._rater([name]) for name, _ in ranked[:MOST]}
        rest = [name for name, _ in ranked[MOST:]]
        return {**found, OTHERS: self._rater(rest)} if rest else found

    def _rater(self, names: list[str]) -> dict[str, float]:
        rows = sum(self._rows_by[name] for name in names)
        weights = sum(self._weights_by[name] for name in names)
        return {"rows": float(rows), "mean_weight": round(weights / _MILLION / rows, 6)}

    def _raters(self, rows: pa.Table) -> None:
        millionths = pc.cast(pc.round(pc.multiply(rows["weight"], float(_MILLION))), pa.int64())
        grouped = (
            pa.table({"source": rows["source"], "weight": millionths})
            .group_by("source", use_threads=False)
            .aggregate([("weight", "count"), ("weight", "sum")])
        )
        for row in grouped.to_pylist():
            self._rows_by[row["source"]] += row["weight_count"]
            self._weights_by[row["source"]] += row["weight_sum"]


def _counted(column: pa.ChunkedArray) -> list[tuple[Any, int]]:
    return [(found["values"], found["counts"]) for found in pc.value_counts(column).to_pylist()]
