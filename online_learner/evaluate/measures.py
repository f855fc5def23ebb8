"""From answers and truths to numbers: labels, numbers, and pairs.

Each takes in one row after the other, and keeps a few numbers a row. Weighted numbers are weighted
by what the rows weigh. (River's own metrics have no Brier score, no calibration and no pairs.)
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from online_learner.learners import Answer
from online_learner.schema import Task, label_key

Floats: TypeAlias = npt.NDArray[np.float64]

BINS = 10  # of equal mass
LEAST_SCORE = 1e-6  # of the right label: whoever was sure and wrong loses no more than that
MOST_LABELS = 20  # of which a table of confusion is shown


def _row() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Labels:
    """Labels and their probabilities.

    A row that the weights failed to answer is wrong, and has the least score.

    Examples
    --------
    >>> found = Labels()
    >>> found.add(True, Answer(True, {"true": 0.8, "false": 0.2}))
    1.0
    >>> found.add(True, Answer(False, {"true": 0.4, "false": 0.6}))
    0.0
    >>> found.report()["accuracy"], round(found.report()["brier"], 6)
    (0.5, 0.4)
    """

    weights: array[float] = field(default_factory=_row)
    right: array[float] = field(default_factory=_row)
    scores: array[float] = field(default_factory=_row)  # of the right label
    distances: array[float] = field(default_factory=_row)  # sum of squares from the truth
    sure: array[float] = field(default_factory=_row)  # the score of the answer itself
    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: int = 0

    def add(self, target: Any, answer: Answer | None, weight: float = 1.0) -> float:
        """Take in one row; returns how good the answer was, 0 or 1."""
        name = label_key(target)
        if answer is None:
            self.failed += 1
            answer = Answer(None)
        given = "" if answer.output is None else label_key(answer.output)
        right = float(given == name)
        scores = answer.scores or ({given: 1.0} if given else {})
        own = scores.get(name, 0.0)
        self.weights.append(weight)
        self.right.append(right)
        self.scores.append(own)
        self.distances.append(sum(p * p for p in scores.values()) - own * own + (1 - own) ** 2)
        self.sure.append(scores.get(given, 0.0))
        self.confusion[name, given] += 1
        return right

    def report(self) -> dict[str, Any]:
        """Return accuracy, log loss, Brier score, calibration, and the confusion of few labels.

        The Brier score is the sum over all labels (Brier, Monthly Weather Review 78, 1950), and so
        between 0 and 2.
        """
        if not self.right:
            return {"rows": 0}
        weights, right, sure = (np.array(x) for x in (self.weights, self.right, self.sure))
        losses = -np.log(np.clip(np.array(self.scores), LEAST_SCORE, 1.0))
        bins = reliability(sure, right)
        found = {
            "rows": len(right),
            "failed": self.failed,
            "accuracy": float(right.mean()),
            "weighted_accuracy": float(np.average(right, weights=weights)),
            "log_loss": float(losses.mean()),
            "weighted_log_loss": float(np.average(losses, weights=weights)),
            "brier": float(np.mean(self.distances)),
            "calibration_error": calibration_error(bins),
            "calibration": bins,
        }
        return found | self._confused()

    def _confused(self) -> dict[str, Any]:
        names = sorted({name for pair in self.confusion for name in pair if name})
        if len(names) > MOST_LABELS:
            return {}
        table = {
            right: {given: n for (of, given), n in sorted(self.confusion.items()) if of == right}
            for right in names
        }
        return {"confusion": table}


def reliability(sure: Floats, right: Floats, bins: int = BINS) -> list[dict[str, float]]:
    """Return how often answers are right that are so sure, in bins of as many answers each.

    Parameters
    ----------
    sure, right
        Of shape (n_answers,): the score of the answer, and 1 where it is right.

    Examples
    --------
    >>> reliability(np.array([0.6, 0.6, 0.9, 0.9]), np.array([0, 1, 1, 1]), bins=2)[0]
    {'rows': 2, 'sure': 0.6, 'right': 0.5}
    """
    order = np.argsort(sure, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [
        {
            "rows": len(part),
            "sure": round(float(sure[part].mean()), 6),
            "right": round(float(right[part].mean()), 6),
        }
        for part in parts
    ]


def calibration_error(bins: list[dict[str, float]]) -> float:
    """Return the mean distance between how sure answers are and how often they are right.

    The expected calibration error (Guo et al., ICML 2017, equation 3), over bins of equal mass,
    which leave no bin to chance (Nguyen and O'Connor, EMNLP 2015).
    """
    rows = sum(one["rows"] for one in bins)
    return float(sum(one["rows"] * abs(one["sure"] - one["right"]) for one in bins) / rows)


@dataclass(slots=True)
class Numbers:
    """Numbers, and how far they are from the truth.

    Where the weights failed to answer, the row is counted, and nothing else.

    Examples
    --------
    >>> found = Numbers()
    >>> found.add(10.0, Answer(12.0)), found.add(20.0, Answer(20.0))
    (-2.0, -0.0)
    >>> found.report()["mae"], found.report()["r2"]
    (1.0, 0.92)
    """

    weights: array[float] = field(default_factory=_row)
    truths: array[float] = field(default_factory=_row)
    errors: array[float] = field(default_factory=_row)
    rows: int = 0
    failed: int = 0

    def add(self, target: float, answer: Answer | None, weight: float = 1.0) -> float:
        """Take in one row; returns the negative error, so that more is better."""
        self.rows += 1
        output = None if answer is None else answer.output
        known = isinstance(output, int | float) and not isinstance(output, bool)
        number = float(cast("float", output)) if known else math.nan
        if not math.isfinite(number):
            self.failed += 1
            return -np.inf
        self.weights.append(weight)
        self.truths.append(target)
        self.errors.append(abs(number - target))
        return -self.errors[-1]

    def report(self) -> dict[str, Any]:
        """Return the mean and the root mean squared error, and the share of variance explained.

        The latter, `r2`, is left out where the truth does not vary, and where the errors are so
        large that it is no number.
        """
        if not self.rows:
            return {"rows": 0}
        found: dict[str, Any] = {"rows": self.rows, "failed": self.failed}
        if not self.errors:
            return found
        weights, truths, errors = (np.array(x) for x in (self.weights, self.truths, self.errors))
        largest, spread = float(errors.max()), float(np.std(truths))
        found["mae"] = float(errors.mean())
        found["weighted_mae"] = float(np.average(errors, weights=weights))
        found["rmse"] = largest * float(np.mean((errors / (largest or 1.0)) ** 2)) ** 0.5
        with np.errstate(over="ignore"):
            unexplained = np.square(found["rmse"] / spread) if spread else np.inf
        return found | ({"r2": 1.0 - float(unexplained)} if np.isfinite(unexplained) else {})


@dataclass(slots=True)
class Pairs:
    """Pairs of options, of which one was preferred."""

    weights: array[float] = field(default_factory=_row)
    right: array[float] = field(default_factory=_row)
    losses: array[float] = field(default_factory=_row)
    failed: int = 0

    def add(self, chosen: float | None, rejected: float | None, weight: float = 1.0) -> float:
        """Take in the rewards of one pair; returns 1 where their order is right, 1/2 for a tie."""
        self.weights.append(weight)
        if chosen is None or rejected is None:
            self.failed += 1
            right, ahead = 0.0, float(np.log(LEAST_SCORE))
        else:
            ahead = chosen - rejected
            right = 0.5 if ahead == 0 else float(ahead > 0)
        self.right.append(right)
        self.losses.append(min(float(np.logaddexp(0.0, -ahead)), -float(np.log(LEAST_SCORE))))
        return right

    def report(self) -> dict[str, Any]:
        """Return the share of pairs in the right order, and the log loss of Bradley-Terry."""
        if not self.right:
            return {"rows": 0}
        weights, right, losses = (np.array(x) for x in (self.weights, self.right, self.losses))
        return {
            "rows": len(right),
            "failed": self.failed,
            "pair_accuracy": float(right.mean()),
            "weighted_pair_accuracy": float(np.average(right, weights=weights)),
            "log_loss": float(losses.mean()),
        }


PRIMARY: dict[Task, tuple[str, bool]] = {  # by which the best is chosen; whether more is better
    "classification": ("weighted_accuracy", True),
    "regression": ("weighted_mae", False),
    "ranking": ("weighted_pair_accuracy", True),
    "generation": ("weighted_pair_accuracy", True),
}


def flat(report: dict[str, Any]) -> dict[str, float]:
    """Return the plain numbers of a report that are finite."""
    return {
        name: round(value, 6)
        for name, value in report.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def better(task: Task, one: dict[str, float], than: dict[str, float]) -> bool:
    """Tell whether scores are better than others, by what counts for the task; not where equal.

    Of numbers, what failed has no error: whoever fails less often is better.

    >>> better("regression", {"weighted_mae": 1.0}, {"weighted_mae": 2.0})
    True
    """
    name, more = PRIMARY[task]
    if name not in one:
        return False
    if name not in than:
        return True
    if task == "regression" and one.get("failed", 0) != than.get("failed", 0):
        return one.get("failed", 0) < than.get("failed", 0)
    return one[name] > than[name] if more else one[name] < than[name]
