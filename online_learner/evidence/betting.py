"""Is the challenger better? An e-process by betting on paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BETS = 12


def raised_null(gamma: float) -> float:
    """Return the raise of the null against selective answering, m = (G - 1) / (G + 1).

    Where wrong answers are up to G times as likely to be labelled as right ones (or the other way
    round), an equal challenger has E[d] <= m E|d|.

    >>> raised_null(1.5)
    0.2
    """
    return (gamma - 1.0) / (gamma + 1.0)


def bets(m: float) -> Floats:
    """Return the grid of bets, shape `(BETS,)`: geometric, below the largest legal 1 / (1 + m)."""
    largest: Floats = np.geomspace(0.01, 0.95, BETS) / (1.0 + m)
    return largest


@dataclass(slots=True)
class BettingTest:
    """Is the challenger better than the reference? An e-process for H0: E[d] <= m E|d|.

    M_t = mean over bets l of prod_i (1 + l (d_i - m |d_i|)), which is a non-negative
    supermartingale under the null; by Ville's inequality P(sup M >= 1/alpha) <= alpha [1, 2].

    Parameters
    ----------
    m
        The raised null, from `raised_null`.
    log_wealth
        Log of the product for each bet, shape `(BETS,)`.
    """

    m: float
    log_wealth: Floats

    @classmethod
    def fresh(cls, m: float) -> BettingTest:
        """Start with a wealth of 1 on every bet."""
        return cls(m, np.zeros(BETS))

    def update(self, d: float) -> None:
        """Add one settled difference, in [-1, 1]."""
        if d != 0.0:
            self.log_wealth = self.log_wealth + np.log1p(bets(self.m) * (d - self.m * abs(d)))

    @property
    def log_e(self) -> float:
        """Log of the e-value now."""
        return log_mean_exp(self.log_wealth)


def log_mean_exp(logs: Sequence[float] | Floats) -> float:
    """Return the log of the mean of exp(logs), without leaving logarithms."""
    values = np.asarray(logs, dtype=np.float64)
    top = float(values.max())
    if top == -math.inf:
        return -math.inf
    return top + math.log(float(np.mean(np.exp(values - top))))
