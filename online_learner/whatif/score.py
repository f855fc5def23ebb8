"""Served against what would have been: how good both are, and how sure that is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from online_learner.evidence import Floats, agreement, confidence_sequence, same
from online_learner.schema import Output, Said, Task
from online_learner.whatif.truth import Told

BATCHES = 20  # of consecutive answers, whose means tell how far a mean of errors is known
T = 2.093  # the 0.975 quantile of Student's t with BATCHES - 1 degrees of freedom


@dataclass(frozen=True, slots=True)
class Scored:
    """One answer that was told, and the other learner's."""

    told: Told
    other: Output


@dataclass(frozen=True, slots=True)
class Row:
    """Means over some answers.

    Parameters
    ----------
    since_ms
        When the first of them was given.
    served, other
        Accuracy, agreement, or mean absolute error.
    no_change, majority
        Of what costs nothing to know: what was told last, and what was told most (of numbers, their
        mean), by then. None for an order.
    difference, low, high
        Of the other less the served one, with its 95 % confidence interval: `confidence_sequence`,
        which holds however often one looks; for errors, which have no bound, by the means of
        `BATCHES` consecutive batches [1]. None where there are too few.

    References
    ----------
    [1] A. M. Law, J. S. Carson. A sequential procedure for determining the length of a steady-state
        simulation. Operations Research 27 (1979).
    """

    name: str
    since_ms: int
    n: int
    served: float
    other: float
    no_change: float | None
    majority: float | None
    difference: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The tables.

    Parameters
    ----------
    measure
        `accuracy`, `agreement` (of an order with what was said of it: see `evidence.agreement`), or
        `error` (absolute), which is the better the smaller it is.
    undecided
        Answers that were told to be wrong, where the other answer may be right: they count nowhere.
        Where there are any, the comparison leans towards what was served, which they spare.
    """

    measure: str
    rows: list[Row]
    windows: list[Row]
    versions: list[Row]
    undecided: int


def compared(answers: Sequence[Scored], task: Task, windows: int = 10) -> Comparison:
    """Compare both over all answers and the audited ones, over time, and by who served."""
    measure = {"classification": "accuracy", "regression": "error"}.get(task, "agreement")
    score = _error if task == "regression" else _right
    found: list[tuple[Told, list[float]]] = []
    for item, guesses in zip(answers, _guesses(answers, task), strict=True):
        told = item.told
        scores = [score(told.said, output) for output in (told.served, item.other, *guesses)]
        if scores[0] is not None and scores[1] is not None:
            found.append((told, [math.nan if s is None else s for s in scores]))
    table = _Table([told for told, _ in found], np.array([s for _, s in found]), measure)
    everything = np.arange(len(found))
    audited = np.array([told.audited for told, _ in found], dtype=bool)
    rows = [table.row("all answers"), table.row("audited", np.flatnonzero(audited))]
    parts = np.array_split(everything, max(1, min(windows, len(found))))
    over_time = [table.row(f"{i} of {len(parts)}", part) for i, part in enumerate(parts, 1)]
    names = [(told.lineage, told.version) for told, _ in found]
    by_version = [
        table.row(_served_by(*name), np.array([i for i in everything if names[i] == name]))
        for name in dict.fromkeys(names)
    ]
    undecided = len(answers) - len(found)
    return Comparison(measure, _there(rows), _there(over_time), _there(by_version), undecided)


def _served_by(lineage: int, version: int) -> str:
    return f"version {version}" + (f", lineage {lineage}" if lineage > 1 else "")


def _there(rows: Sequence[Row | None]) -> list[Row]:
    return [row for row in rows if row is not None]


def _right(said: Said, output: Output) -> float | None:
    """Return how good an answer is, from 0 to 1; None where that is not told."""
    if isinstance(said.right, list):
        return agreement(said.right, output)
    if said.right is not None:
        return float(same(output, said.right))
    return 0.0 if same(output, said.wrong) or output is None else None


def _error(said: Said, output: Output) -> float | None:
    """Return the absolute error of a number; no answer counts as 0, as an untrained one's."""
    if not isinstance(said.right, int | float):
        return None
    number = output if isinstance(output, int | float) else 0.0
    return abs(float(said.right) - float(number))


def _guesses(answers: Sequence[Scored], task: Task) -> Iterator[tuple[Output, Output]]:
    """Yield what had been told last, and what had been told most, before each answer was given."""
    arrived = sorted((item.told for item in answers), key=lambda told: told.told_ms)
    last: Output = None
    counts: Counter[Any] = Counter()
    total, number, place = 0.0, 0, 0
    for item in answers:
        while place < len(arrived) and arrived[place].told_ms < item.told.at_ms:
            right, place = arrived[place].said.right, place + 1
            if task == "regression" and isinstance(right, int | float):
                last, total, number = float(right), total + right, number + 1
            elif isinstance(right, bool | int | str):
                last = right
                counts[type(right), right] += 1
        if task == "regression":
            yield last, total / number if number else None
        else:
            yield last, counts.most_common(1)[0][0][1] if counts else None


@dataclass(slots=True)
class _Table:
    """Scores of shape (n, 4): the served answer, the other, no change, the majority."""

    told: list[Told]
    scores: Floats
    measure: str

    def row(self, name: str, places: Any = None) -> Row | None:
        """Return the means over some of the answers; None where there are none."""
        places = np.arange(len(self.told)) if places is None else places
        if not len(places):
            return None
        part = self.scores[places]
        served, other = part[:, :2].mean(axis=0)
        guesses = [self._known(column) for column in part[:, 2:].T]
        no_change, majority = (None if math.isnan(guess) else float(guess) for guess in guesses)
        low, high = self._interval(part[:, 1] - part[:, 0])
        return Row(
            name=name,
            since_ms=self.told[int(places[0])].at_ms,
            n=len(places),
            served=float(served),
            other=float(other),
            no_change=no_change,
            majority=majority,
            difference=float(other - served),
            low=low,
            high=high,
        )

    def _known(self, scores: Floats) -> float:
        """Return the mean over those that are known; NaN for none, and for orders."""
        known = scores[~np.isnan(scores)]
        return float(known.mean()) if len(known) and self.measure != "agreement" else math.nan

    def _interval(self, differences: Floats) -> tuple[float | None, float | None]:
        if self.measure != "error":
            low, high = confidence_sequence((differences + 1.0) / 2.0)
            return float(2.0 * low[-1] - 1.0), float(2.0 * high[-1] - 1.0)
        if len(differences) < 2 * BATCHES:
            return None, None
        means = np.array([batch.mean() for batch in np.array_split(differences, BATCHES)])
        radius = T * float(means.std(ddof=1)) / math.sqrt(BATCHES)
        middle = float(differences.mean())
        return middle - radius, middle + radius
