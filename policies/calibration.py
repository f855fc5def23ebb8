"""A 3 from one rater is a 4 from another: ratings are centred and scaled, shrunk to the crowd.

The rater's own mean is a random effect. Its best linear predictor [1] moves from the crowd's mean
towards the rater's as n / (n + k) with k = within-rater over between-rater variance; both variances
come from the running one-way analysis of variance [2], so that raters who do not differ are left
alone. O(1) a rating; the least recent raters are forgotten beyond `most`.

References
----------
[1] G. K. Robinson. That BLUP is a good thing. Statistical Science 6 (1991).
[2] S. R. Searle, G. Casella, C. E. McCulloch. Variance Components. Wiley (1992), section 3.6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

PRIOR_N = 10.0  # ratings that the middle of the scale is worth, before anybody has spoken
PRIOR_SD = 0.25  # of ratings on [0, 1], before anybody has spoken
SPREAD_N = 20.0  # ratings that the crowd's spread is worth against a rater's own
MIN_SD = 0.05


@dataclass(slots=True)
class Rater:
    """Count, mean and sum of squared deviations of one rater's ratings on [0, 1]."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Take in one rating (Welford's recurrence)."""
        self.n += 1
        gap = value - self.mean
        self.mean += gap / self.n
        self.squares += gap * (value - self.mean)


@dataclass(slots=True)
class Crowd:
    """Sums over the raters that are remembered, from which the variances follow."""

    raters: int = 0
    n: float = 0.0
    total: float = 0.0
    within: float = 0.0  # sum of squared deviations from each rater's own mean
    between: float = 0.0  # sum of n_r mean_r^2
    n_squares: float = 0.0  # sum of n_r^2

    def put(self, rater: Rater, sign: int) -> None:
        """Add a rater's sums, or take them away."""
        self.raters += sign
        self.n += sign * rater.n
        self.total += sign * rater.n * rater.mean
        self.within += sign * rater.squares
        self.between += sign * rater.n * rater.mean**2
        self.n_squares += sign * rater.n**2

    @property
    def mean(self) -> float:
        """Mean rating; the middle of the scale counts as `PRIOR_N` ratings."""
        return (self.total + PRIOR_N * 0.5) / (self.n + PRIOR_N)

    @property
    def variance(self) -> float:
        """Variance of a rater's ratings around their own mean."""
        freedom = self.n - self.raters
        return max(
            MIN_SD**2, (self.within + SPREAD_N * PRIOR_SD**2) / (max(freedom, 0.0) + SPREAD_N)
        )

    @property
    def shrinkage(self) -> float:
        """The k of n / (n + k): how many ratings the crowd is worth; infinite where all agree."""
        if self.raters < 2 or self.n <= self.raters:
            return math.inf
        between = self.between - self.total**2 / self.n
        usual = (self.n - self.n_squares / self.n) / (self.raters - 1)
        excess = between / (self.raters - 1) - self.variance
        return self.variance * usual / excess if excess > 0 else math.inf


@dataclass(slots=True)
class Calibration:
    """What is known of the raters of one model.

    Parameters
    ----------
    most
        Raters that are remembered.
    """

    most: int = 2000
    crowd: Crowd = field(default_factory=Crowd)
    raters: dict[str, Rater] = field(default_factory=dict)  # the least recent first

    def read(self, source: str, value: float) -> float:
        """Return what a rating says, then take it in.

        Parameters
        ----------
        value
            The rating on [0, 1].

        Returns
        -------
        The distance from what this rater usually gives, in [-1, 1]: half a spread is a quarter.
        """
        found = self.distance(source, value)
        self._take_in(source, value)
        return found

    def distance(self, source: str, value: float) -> float:
        """Return what a rating would say, in [-1, 1], without taking it in."""
        rater = self.raters.get(source, Rater())
        trust = rater.n / (rater.n + self.crowd.shrinkage)
        usual = self.crowd.mean + trust * (rater.mean - self.crowd.mean)
        variance = (SPREAD_N * self.crowd.variance + rater.squares) / (SPREAD_N + rater.n)
        return max(-1.0, min(1.0, (value - usual) / (2.0 * math.sqrt(max(variance, MIN_SD**2)))))

    def _take_in(self, source: str, value: float) -> None:
        rater = self.raters.pop(source, None)
        if rater is not None:
            self.crowd.put(rater, -1)
        rater = rater or Rater()
        rater.add(value)
        self.raters[source] = rater
        self.crowd.put(rater, 1)
        if len(self.raters) > self.most:
            oldest = next(iter(self.raters))
            self.crowd.put(self.raters.pop(oldest), -1)

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON: the sums too, since adding up anew rounds otherwise."""
        raters = {name: [r.n, r.mean, r.squares] for name, r in self.raters.items()}
        return {"crowd": list(astuple(self.crowd)), "raters": raters}

    @classmethod
    def unpack(cls, state: Mapping[str, Any], *, most: int = 2000) -> Calibration:
        """Return the calibration that `pack` wrote."""
        raters = {name: Rater(*sums) for name, sums in state["raters"].items()}
        return cls(most, Crowd(*state["crowd"]), raters)
