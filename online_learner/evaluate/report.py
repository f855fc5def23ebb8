"""A version on a dataset: how good it is on all rows, by segment, and against another version."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from online_learner.dataset.lessons import Reader, Row, features_of
from online_learner.errors import ConfigError, did_you_mean
from online_learner.evaluate.asking import Model, Taught, ask, batches, measure_for, take
from online_learner.evaluate.baselines import Constant, NoChange
from online_learner.evaluate.measures import Labels, Numbers, Pairs
from online_learner.evidence import RunningMean
from online_learner.schema import Example, label_key
from online_learner.settings import ModelSpec

Measured: TypeAlias = Labels | Numbers | Pairs

FEATURE = "features."
COLUMNS = ("kind", "source", "output", "target")  # that rows may be parted by, beside features
MOST_SEGMENTS = 50  # of one field; what comes later is counted together
OTHERS, ABSENT = "(others)", "(none)"


@dataclass(slots=True)
class _Side:
    """One set of weights, and what has been measured of it."""

    learner: Model
    spec: ModelSpec
    by: Sequence[str]
    whole: Measured = field(init=False)
    parts: dict[str, dict[str, Measured]] = field(init=False)

    def __post_init__(self) -> None:
        self.whole = measure_for(self.spec.task)
        self.parts = {name: {} for name in self.by}

    def take(self, row: Row, truth: Taught, given: Any) -> float:
        for name, found in self.parts.items():
            value = segment_of(row, name)
            if value not in found and len(found) >= MOST_SEGMENTS:
                value = OTHERS
            if value not in found:
                found[value] = measure_for(self.spec.task)
            take(found[value], truth, given)
        return take(self.whole, truth, given)

    def report(self) -> dict[str, Any]:
        segments = {
            name: {value: one.report() for value, one in sorted(found.items())}
            for name, found in self.parts.items()
        }
        return {"all": self.whole.report(), "segments": segments}


def evaluate(
    spec: ModelSpec,
    learner: Model,
    rows: Iterable[Row],
    *,
    by: Sequence[str] = (),
    against: Model | None = None,
    constant: Constant | None = None,
) -> dict[str, Any]:
    """Return how good weights are on rows, as plain JSON.

    Parameters
    ----------
    by
        Fields to part the rows by: `kind`, `source`, `output`, `target`, or `features.NAME`.
    against
        Other weights, asked the same.
    constant
        The answer that heeds nothing, of other rows; None: without it.

    Returns
    -------
    `all` rows and `segments`, `baselines` (`constant`, `no_change`), what was `left_out` and why,
    and with `against`, the same of that one, and the `difference`: see `paired`.

    Raises
    ------
    ConfigError
        There is no such field.
    """
    for name in by:
        _check_field(name)
    reader, sides = Reader.of(spec), [_Side(learner, spec, by)]
    sides += [] if against is None else [_Side(against, spec, by)]
    difference, baselines = RunningMean(), _Baselines(spec, constant)
    for batch in batches(reader.lessons(rows)):
        truths = [truth for _, truth in batch]
        given = [ask(side.learner, truths) for side in sides]
        for i, (row, truth) in enumerate(batch):
            points = [side.take(row, truth, g[i]) for side, g in zip(sides, given, strict=True)]
            baselines.see(truth)
            if len(points) > 1:
                difference.add(0.5 + 0.5 * _ahead(spec, *points))
    told = sides[0].report() | {"left_out": dict(reader.left_out), "baselines": baselines.report()}
    if against is not None:
        told["against"] = sides[1].report() | {"difference": paired(difference)}
    return told


def paired(mean: RunningMean) -> dict[str, Any] | None:
    """Return by how much weights are better than others on the same rows, with bounds.

    Of labels and pairs it is the difference of the shares that are right; of numbers, the share of
    rows on which they are closer, less the share on which the others are. The bounds hold with 95 %
    whenever one looks; see `evidence.confidence_sequence`.
    """
    if not mean.n or mean.mean is None:
        return None
    low, high = mean.bounds()
    return {
        "rows": mean.n,
        "difference": 2 * mean.mean - 1,
        "low": 2 * low - 1,
        "high": 2 * high - 1,
    }


def _ahead(spec: ModelSpec, one: float, other: float) -> float:
    if spec.task != "regression":
        return one - other
    return float(one > other) - float(one < other)


class _Baselines:
    """What takes no learning, on the same rows; there is none for pairs."""

    def __init__(self, spec: ModelSpec, constant: Constant | None) -> None:
        self._answer = None if constant is None else constant.answer()
        self._constant, self._repeated = measure_for(spec.task), measure_for(spec.task)
        self._before = NoChange()

    def see(self, truth: Taught) -> None:
        if not isinstance(truth, Example):
            return
        if self._answer is not None:
            take(self._constant, truth, self._answer)
        before = self._before.answer(truth)
        if before is not None:
            take(self._repeated, truth, before)

    def report(self) -> dict[str, Any]:
        found = {"constant": self._constant.report(), "no_change": self._repeated.report()}
        return {name: _short(report) for name, report in found.items() if report["rows"]}


def _short(report: dict[str, Any]) -> dict[str, Any]:
    """Return the plain numbers of a report that are finite."""
    return {n: v for n, v in report.items() if isinstance(v, int | float) and math.isfinite(v)}


# --- segments ---------------------------------------------------------------------------------


def _check_field(name: str) -> None:
    if name in COLUMNS or name.startswith(FEATURE):
        return
    raise ConfigError(
        f"rows cannot be parted by that.{did_you_mean(name, COLUMNS)} Take one of "
        f"{', '.join(COLUMNS)}, or {FEATURE}NAME"
    )


def segment_of(row: Row, name: str) -> str:
    """Return to which segment a row belongs.

    >>> segment_of({"kind": "thumbs", "features": {"country": "DE"}}, "features.country")
    'DE'
    """
    if name.startswith(FEATURE):
        value = features_of(row["features"]).get(name.removeprefix(FEATURE))
    else:
        value = row.get(name)
    return ABSENT if value is None else label_key(value)


def default_fields(spec: ModelSpec) -> list[str]:
    """Return the fields that a model's declared segments stand for."""
    return [f"{FEATURE}{name}" for name in spec.guard_segments]


def lessons_of(spec: ModelSpec, rows: Iterable[Row]) -> Iterator[Taught]:
    """Yield what rows teach."""
    return (lesson for _, lesson in Reader.of(spec).lessons(rows))
