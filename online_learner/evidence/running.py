"""Between which bounds is a mean? From four sums, however many scores there were."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from online_learner.evidence.betting import Floats
from online_learner.evidence.confidence import OCTAVES


@dataclass(slots=True)
class RunningMean:
    """The mean of scores in [0, 1] so far, and bounds for it, in constant memory.

    The guesses of `confidence_sequence` rest on the sum alone: so its bounds after the newest score
    follow from n, sum x_i and sum (x_i - g_i)^2, and they are the same: they hold for the plain
    average so far, after every score at once, with probability 1 - alpha or more.

    A score may count less: with weights w_i in (0, 1] that were known before their scores,

        exp(l sum w_i (x_i - m_i) - psi(l) sum w_i^2 (x_i - g_i)^2)

    is a supermartingale too, since psi(l w) <= w^2 psi(l), and the bounds are those of the weighted
    average, at every look at once.

    Where each score makes those before it count less (`keep` below 1), the weights depend on when
    one looks. The same formula bounds the average of the means, weighted so, at *one look* that was
    planned before; over all looks at once nothing is promised.

    Parameters
    ----------
    keep
        By how much the weight of all scores before is multiplied with each score, in (0, 1].
    n
        How many scores there were.
    weight, total, surprise
        The sums of w_i, of w_i x_i, and of w_i^2 (x_i - g_i)^2.

    Examples
    --------
    >>> mean = RunningMean()
    >>> for _ in range(1000):
    ...     mean.add(1.0)
    >>> low, high = mean.bounds()
    >>> mean.mean, round(low, 2), high
    (1.0, 0.99, 1.0)
    """

    keep: float = 1.0
    n: int = 0
    weight: float = 0.0
    total: float = 0.0
    surprise: float = 0.0

    @classmethod
    def decayed(cls, half_life: float) -> RunningMean:
        """Start a mean in which a score counts half after `half_life` further ones."""
        return cls(keep=0.5 ** (1.0 / half_life))

    def add(self, score: float, weight: float = 1.0) -> None:
        """Take in one score in [0, 1].

        Parameters
        ----------
        weight
            In (0, 1], known before the score.
        """
        guess = (0.5 + self.total) / (1.0 + self.weight)
        surprise = weight * (score - guess)
        self.n += 1
        self.weight = self.keep * self.weight + weight
        self.total = self.keep * self.total + weight * score
        self.surprise = self.keep**2 * self.surprise + surprise * surprise

    @property
    def mean(self) -> float | None:
        """The mean so far; None of nothing."""
        return self.total / self.weight if self.n else None

    def bounds(self, alpha: float = 0.05) -> tuple[float, float]:
        """Return the lower and the upper bound now; (0, 1) of nothing.

        Parameters
        ----------
        alpha
            The probability with which the bounds may ever fail, or fail at this look (see above).
        """
        if not self.n:
            return 0.0, 1.0
        mean = self.total / self.weight
        radius = min((odds + psi * self.surprise) / bet for bet, odds, psi in _bets(alpha))
        radius /= self.weight
        return max(0.0, min(1.0, mean - radius)), min(1.0, max(0.0, mean + radius))

    def along(self, scores: ArrayLike, alpha: float = 0.05) -> tuple[Floats, Floats, Floats]:
        """Return mean, lower and upper bound after each of some further scores, shape (n,).

        They are not taken in. It is for means that forget nothing.
        """
        x = np.asarray(scores, dtype=float)
        weight = self.weight + np.arange(1, len(x) + 1)
        total = self.total + x.cumsum()
        surprise = self.surprise + ((x - (0.5 + total - x) / weight) ** 2).cumsum()
        radius = np.min([(odds + psi * surprise) / bet for bet, odds, psi in _bets(alpha)], axis=0)
        mean, radius = total / weight, radius / weight
        return mean, np.clip(mean - radius, 0.0, 1.0), np.clip(mean + radius, 0.0, 1.0)

    def interval(self, alpha: float = 0.05) -> dict[str, Any] | None:
        """Return `n`, `score`, `low` and `high` as plain JSON; None of nothing."""
        if not self.n:
            return None
        low, high = self.bounds(alpha)
        return {"n": self.n, "score": self.total / self.weight, "low": low, "high": high}

    def rate(self, alpha: float = 0.05) -> dict[str, Any] | None:
        """Return a share of yes (1) and no (0): `n`, `k`, `share`, `low`, `high`; None of nothing.

        It is for means that keep all scores alike: `k` is how many were yes.
        """
        if not self.n:
            return None
        low, high = self.bounds(alpha)
        share = self.total / self.weight
        return {"n": self.n, "k": round(self.total), "share": share, "low": low, "high": high}

    def pack(self) -> list[float]:
        """Return the state as plain JSON."""
        return [self.keep, self.n, self.weight, self.total, self.surprise]

    @classmethod
    def unpack(cls, state: Sequence[float]) -> RunningMean:
        """Return the mean that `pack` wrote."""
        keep, n, weight, total, surprise = state
        return cls(float(keep), int(n), float(weight), float(total), float(surprise))


@functools.lru_cache(maxsize=16)
def _bets(alpha: float) -> tuple[tuple[float, float, float], ...]:
    """Return the bets l_k, their log(1 / a_k) and psi(l_k), as in `confidence_sequence`."""
    bets = [(2.0**-k, math.log(2 * k * (k + 1) / alpha)) for k in range(1, OCTAVES + 1)]
    return tuple((bet, odds, -math.log1p(-bet) - bet) for bet, odds in bets)
