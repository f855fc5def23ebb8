"""From rows of a dataset to lessons, each with the weight that the row says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic_core import from_json

from online_learner.chat import shared_context
from online_learner.dataset.query import Format
from online_learner.errors import DataError
from online_learner.interpret import MAX_WEIGHT
from online_learner.schema import Example, Ranked, Task, finite, label_key
from online_learner.settings import ModelSpec

Row: TypeAlias = Mapping[str, Any]
Taught: TypeAlias = Example | Ranked

FORMATS: dict[Task, Format] = {
    "classification": "supervised",
    "regression": "supervised",
    "ranking": "preference",
    "generation": "preference",
}


def check_format(spec: ModelSpec, found: str) -> None:
    """Raise `DataError` where a model's learner cannot be trained on datasets of this format."""
    wanted = FORMATS[spec.task]
    if found != wanted:
        raise DataError(
            f"this dataset has the format {found}, and a model of the task {spec.task} is trained "
            f"on {wanted}: compile one with `--format {wanted}`",
            code="other_form",
        )


@dataclass(slots=True)
class Reader:
    """Reads the rows of one dataset for one model.

    Attributes
    ----------
    left_out
        Rows that teach nothing, by reason.
    """

    spec: ModelSpec
    left_out: Counter[str]

    @classmethod
    def of(cls, spec: ModelSpec) -> Reader:
        """Return one that has read nothing."""
        return cls(spec, Counter())

    def lessons(self, rows: Iterable[Row]) -> Iterator[tuple[Row, Taught]]:
        """Yield each row with its lesson, in order; rows without one are left out, and counted."""
        read = self._ranked if FORMATS[self.spec.task] == "preference" else self._example()
        for row in rows:
            try:
                yield row, read(row)
            except _LeftOutError as why:
                self.left_out[str(why)] += 1

    def _example(self) -> Any:
        known = {label_key(label): label for label in self.spec.labels or ()}
        number = self.spec.task == "regression"

        def read(row: Row) -> Example:
            target = row["target"]
            if number:
                if isinstance(target, bool) or not isinstance(target, int | float):
                    raise _LeftOutError("no number")
                target = float(target)
                if not finite([target]):
                    raise _LeftOutError("no number")
            elif known:
                name = label_key(target)
                if name not in known:
                    raise _LeftOutError("a label that the configuration does not have")
                target = known[name]
            return Example(_object(row["features"]), target, _weight(row))

        return read

    def _ranked(self, row: Row) -> Ranked:
        chosen, rejected = _object(row["chosen_features"]), _object(row["rejected_features"])
        context = shared_context(_object(row["features"]))
        return Ranked(context, (chosen, rejected), weight=_weight(row))


def _weight(row: Row) -> float:
    weight = float(row.get("weight", 1.0))
    if not 0.0 < weight <= MAX_WEIGHT:
        raise _LeftOutError("no weight")
    return weight


def features_of(value: Any) -> dict[str, Any]:
    """Return features: an object, or the JSON of one; of anything else none."""
    found = from_json(value) if isinstance(value, str | bytes) else value
    return found if isinstance(found, dict) else {}


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict | str | bytes):
        raise _LeftOutError("no features")
    return features_of(value)


class _LeftOutError(Exception):
    """Why a row teaches nothing."""
