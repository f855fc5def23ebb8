"""Is the challenger better? An e-process by betting on paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# The bets as shares of the largest legal one, and how the wealth is spread over them at the start:
# chosen by simulation (`benchmarks.gate.power`) for +10 points down to +2.
SHARES: Floats = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9])
PRIOR: Floats = np.array([1, 2, 3, 3, 3, 2, 1, 1]) / 16
BETS = len(SHARES)


def raised_null(gamma: float, malice: float = 0.0) -> float:
    """Return the raise of the null against selective answering and malice.

    Where wrong answers are up to G times as likely to be labelled as right ones (or the other way
    round), an equal challenger has E[d] <= m E|d| with m = (G - 1) / (G + 1). Where a share s of
    the answers that differ is labelled by an adversary besides, m + s (1 - m) takes its place.

    >>> raised_null(1.5), raised_null(3.0, malice=0.5)
    (0.2, 0.75)
    """
    m = (gamma - 1.0) / (gamma + 1.0)
    return m + malice * (1.0 - m)


def gamma_of(m: float) -> float:
    """Return the G against which a null raised by `m` holds, without malice: (1 + m) / (1 - m).

    >>> gamma_of(0.5)
    3.0
    """
    return (1.0 + m) / (1.0 - m)


def bets(m: float) -> Floats:
    """Return the bets, shape `(BETS,)`, ascending, below the largest legal one, 1 / (1 + m)."""
    legal: Floats = SHARES / (1.0 + m)
    return legal


def log_factors(d: Floats | float, m: Floats | float, bet: Floats) -> Floats:
    """Return the logs of 1 + l (d - m |d|), by which the wealth of a bet changes; they broadcast.

    Under the null the factor is 1 on average or less, and it is positive for every legal bet.
    """
    logs: Floats = np.log1p(bet * (d - m * np.abs(d)))
    return logs


def log_mixture(log_wealth: Floats, prior: Floats = PRIOR) -> Floats:
    """Return the log of the wealth over all bets, the last axis, without leaving logarithms."""
    top = np.maximum(log_wealth.max(axis=-1, keepdims=True), -1e300)  # -inf - -inf is no number
    with np.errstate(divide="ignore"):
        mixed: Floats = np.log(np.exp(log_wealth - top) @ prior) + top[..., 0]
    return mixed


def log_mean_exp(logs: Sequence[float] | Floats) -> float:
    """Return the log of the mean of exp(logs), without leaving logarithms."""
    values = np.asarray(logs, dtype=np.float64)
    return float(log_mixture(values, np.full(len(values), 1.0 / len(values))))


@dataclass(slots=True)
class BettingTest:
    """Is the challenger better than the reference? An e-process for H0: E[d] <= m E|d|.

    M_t = sum over bets l of prior(l) prod_i (1 + l (d_i - m |d_i|)), which is a non-negative
    supermartingale under the null; by Ville's inequality P(sup M >= 1/alpha) <= alpha [1, 2].

    The bets are constants, and so the promise also speaks of the average so far: with mu_i the
    conditional mean of d_i - m |d_i|, each product over prod_i (1 + l mu_i) is a martingale, and
    prod_i (1 + l mu_i) <= exp(l sum_i mu_i) <= 1 whenever the mean of the mu_i so far is <= 0.

    Parameters
    ----------
    m
        The raised null, from `raised_null`.
    log_wealth
        Log of the product for each bet, shape `(..., BETS)`: many tests may run side by side.
    """

    m: float
    log_wealth: Floats

    @classmethod
    def fresh(cls, m: float, shape: tuple[int, ...] = ()) -> BettingTest:
        """Start with a wealth of 1 on every bet, for as many tests as `shape` has places."""
        return cls(m, np.zeros((*shape, BETS)))

    def update(self, d: ArrayLike, raised: ArrayLike | None = None) -> None:
        """Add one settled difference in [-1, 1] to each test.

        Parameters
        ----------
        raised
            The raise for this point, at most `m` (the default): 0 where an auditor gave it.
        """
        point = np.asarray(d, dtype=np.float64)[..., None]
        raise_ = np.asarray(self.m if raised is None else raised)[..., None]
        self.log_wealth = self.log_wealth + log_factors(point, raise_, bets(self.m))

    @property
    def log_es(self) -> Floats:
        """Log of the e-value of each test now, shape `(...)`."""
        return log_mixture(self.log_wealth)

    @property
    def log_e(self) -> float:
        """Log of the e-value of a single test now."""
        return float(self.log_es)

    @property
    def log_best(self) -> float:
        """Log of the wealth of the bet that did best so far: how fast a single test can grow."""
        return float(self.log_wealth.max())

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {"m": self.m, "log_wealth": self.log_wealth.tolist()}

    @classmethod
    def unpack(cls, state: dict[str, Any]) -> BettingTest:
        """Return the test that `pack` wrote."""
        return cls(state["m"], np.array(state["log_wealth"]))
