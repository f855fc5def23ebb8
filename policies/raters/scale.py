"""How somebody uses a scale: how lenient they are, and whether they read it upside down.

Each value of a rater is compared with what the others say of the same answer: their mean, each
freed of their own leniency; an auditor's word alone, where there is one. The gap is the leniency.
The slope of a rater's values against those of the others is 1 for one who means the same by the
scale, less where there is noise, 0 where there is nothing else, and below 0 for whom 1 is best.

`inverted` is only said where bounds for the slope are below 0. They hold at every look at once, for
long sequences: an asymptotic confidence sequence [1] with the usual standard error.

References
----------
[1] I. Waudby-Smith, D. Arbour, R. Sinha, E. Kennedy, A. Ramdas. Time-uniform central limit theory
    and asymptotic confidence sequences. Annals of Statistics 2024, arXiv 2103.06476.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

HALF = 400.0  # comparisons of a rater, after which one counts half
LENIENCY_N = 10.0  # comparisons that no leniency is worth
RELIABILITY_N = 30.0  # comparisons that the usual correlation is worth
ALPHA = 0.01  # with which the bounds of a slope may ever fail
TIGHTEST = 40.0  # comparisons at which the bounds are tightest, against those of one look
ENOUGH = 8  # comparisons before a slope is told
LEAST_SPREAD = 1e-4  # variance of what others say, below which it tells nothing
MOST_VALUES = 10  # of one answer; where the truth is known, the latest
AUDITOR = ""  # the name under which an auditor's value is kept


@dataclass(slots=True)
class Value:
    """What somebody gave, from 0 to 1; `at` is its number; `crowd` is what it was compared with."""

    given: float
    at: int = 0
    crowd: float | None = None
    rated: bool = False  # on a scale, so that it tells of its rater


@dataclass(slots=True)
class Sums:
    """Of a rater's values x and the crowd's c, where they could be compared; `n` were given."""

    n: int = 0
    weight: float = 0.0
    x: float = 0.0
    c: float = 0.0
    xx: float = 0.0
    xc: float = 0.0
    cc: float = 0.0

    def count(self, x: float, c: float, weight: float) -> None:
        """Count a comparison; a negative weight takes it back."""
        self.weight += weight
        self.x += weight * x
        self.c += weight * c
        self.xx += weight * x * x
        self.xc += weight * x * c
        self.cc += weight * c * c

    def fade(self) -> None:
        """Let all that was counted count less."""
        keep = 0.5 ** (1.0 / HALF)
        self.weight, self.x, self.c = self.weight * keep, self.x * keep, self.c * keep
        self.xx, self.xc, self.cc = self.xx * keep, self.xc * keep, self.cc * keep

    @property
    def leniency(self) -> float | None:
        """By how much they give more than others do, shrunk to 0; None where nothing is known."""
        if self.weight < 0.5:
            return None
        return (self.x - self.c) / (self.weight + LENIENCY_N)

    @property
    def moments(self) -> tuple[float, float, float] | None:
        """Variance of x, covariance, variance of c; None where the crowd tells nothing."""
        if self.weight < ENOUGH:
            return None
        x, c = self.x / self.weight, self.c / self.weight
        found = (
            max(0.0, self.xx / self.weight - x * x),
            self.xc / self.weight - x * c,
            self.cc / self.weight - c * c,
        )
        return found if found[2] >= LEAST_SPREAD else None

    @property
    def slope(self) -> tuple[float, float, float] | None:
        """The slope and its bounds; None where nothing is known."""
        if (found := self.moments) is None:
            return None
        xx, xc, cc = found
        slope = xc / cc
        left = max(xx - slope * xc, LEAST_SPREAD)  # even where all is explained, chance is not 0
        error = math.sqrt(left / cc / max(1.0, self.weight - 2.0))
        radius = error * _times(self.weight)
        return slope, slope - radius, slope + radius

    @property
    def inverted(self) -> bool:
        """Whether they read the scale upside down, beyond doubt."""
        return (found := self.slope) is not None and found[2] < 0.0

    @property
    def correlation(self) -> float | None:
        """Of their values with those of others; None where nothing is known."""
        if (found := self.moments) is None:
            return None
        xx, xc, cc = found
        return xc / math.sqrt(cc * xx) if xx >= LEAST_SPREAD else 0.0


@dataclass(slots=True)
class Scale:
    """What is known of how raters use a scale.

    Parameters
    ----------
    most, most_raters
        Answers and raters that are remembered.
    """

    most: int = 1000
    most_raters: int = 1000
    raters: dict[str, Sums] = field(default_factory=dict)  # the least recent first
    answers: dict[str, dict[str, Value]] = field(default_factory=dict)

    def hear(self, name: str, rater: str, given: float, *, rated: bool = True) -> None:
        """Take in what somebody gives an answer, from 0 to 1; the last counts.

        Parameters
        ----------
        rater
            `AUDITOR` for one who knows.
        rated
            Whether it is a value on a scale; else it only tells what others think.
        """
        values = self.answers.pop(name, {})
        self.answers[name] = values
        if len(self.answers) > self.most:
            del self.answers[next(iter(self.answers))]
        if rater not in values and len(values) >= MOST_VALUES:
            if AUDITOR not in {rater, *values}:
                return
            del values[next(source for source in values if source != AUDITOR)]  # it has taught
        for source, value in values.items():
            self._count(source, value, -1.0)
        at = 0
        if rater != AUDITOR and rated:
            sums = self.raters.pop(rater, None) or Sums()
            self.raters[rater] = sums
            sums.fade()
            sums.n += 1
            at = sums.n
            if len(self.raters) > self.most_raters:
                del self.raters[next(iter(self.raters))]
        values[rater] = Value(given, at, None, rated)
        self._compare(values)

    def usual(self, name: str, *, but: str = AUDITOR) -> float | None:
        """Return what raters gave an answer, without one of them; None where nobody else did."""
        values = self.answers.get(name, {})
        found = [self.freed(s, v) for s, v in values.items() if s not in {AUDITOR, but}]
        return sum(found) / len(found) if found else None

    def freed(self, source: str, value: Value) -> float:
        """Return what a rater gave, without their leniency."""
        sums = self.raters.get(source) if value.rated else None
        return value.given - ((sums.leniency or 0.0) if sums is not None else 0.0)

    def _compare(self, values: Mapping[str, Value]) -> None:
        truth = values.get(AUDITOR)
        crowd = {s: self.freed(s, v) for s, v in values.items() if s != AUDITOR}
        total, others = sum(crowd.values()), len(crowd) - 1
        for source, value in values.items():
            value.crowd = None
            if source == AUDITOR or not value.rated or source not in self.raters:
                continue
            if truth is not None:
                value.crowd = truth.given
            elif others:
                value.crowd = (total - crowd[source]) / others
            self._count(source, value, 1.0)

    def _count(self, source: str, value: Value, sign: float) -> None:
        sums = self.raters.get(source)
        if sums is not None and value.crowd is not None and sums.n >= value.at > 0:
            weight = sign * 0.5 ** ((sums.n - value.at) / HALF)
            sums.count(value.given, value.crowd, weight)

    def weights(self, floor: float, most: float) -> dict[str, float]:
        """Return how far each is believed, by their correlation with others; the mean is 1.

        It is shrunk hard to the usual correlation: real raters differ less than it seems.
        """
        known = {s: r for s, sums in self.raters.items() if (r := sums.correlation) is not None}
        n = {source: self.raters[source].weight for source in known}
        total = sum(n.values())
        usual = sum(known[s] * n[s] for s in known) / total if total else 0.0
        if usual <= 0.0:
            return {}
        return {
            source: floor
            if self.raters[source].inverted
            else min(most, max(floor, (1.0 + _pull(n[source]) * (r / usual - 1.0))))
            for source, r in known.items()
        }

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {
            "raters": {name: list(astuple(sums)) for name, sums in self.raters.items()},
            "answers": {
                name: {s: [v.given, v.at, v.crowd, int(v.rated)] for s, v in values.items()}
                for name, values in self.answers.items()
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `pack` returned."""
        self.raters = {name: Sums(*sums) for name, sums in state["raters"].items()}
        self.answers = {
            name: {s: Value(x, at, c, bool(rated)) for s, (x, at, c, rated) in values.items()}
            for name, values in state["answers"].items()
        }


def _pull(n: float) -> float:
    return n / (n + RELIABILITY_N)


def _times(n: float) -> float:
    """Return how many standard errors the bounds are wide after `n` comparisons, at every look."""
    ratio = n / TIGHTEST
    return math.sqrt(2.0 * (1.0 + 1.0 / ratio) * math.log(math.sqrt(1.0 + ratio) / ALPHA))
