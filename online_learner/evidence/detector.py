"""Has it become worse? A Shiryaev-Roberts e-detector on paired differences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from online_learner.evidence.betting import BETS, Floats, bets, log_factors, log_mixture

LOG_FLOOR = math.log(20.0)
# A change that matters is large, and small bets would only add what they have in any case.
ALARM_PRIOR: Floats = np.array([0, 0, 1, 2, 3, 3, 3, 4]) / 16


@dataclass(slots=True)
class ChangeDetector:
    """Has the reference become better than what is served? A Shiryaev-Roberts e-detector.

    For each bet, R_t = (R_{t-1} + 1) (1 + l (d_t - m |d_t|)); their mixture R is the detector.
    While the null holds, E[R_t | past] <= R_{t-1} + 1, so that R_t - t is a supermartingale from 0,
    and at any alarm T with R_T >= A, by optional stopping, E[T] >= E[R_T] >= A: an alarm comes
    after A settled labels on average, or later [3].

    R grows by one with each label, even where both answer alike (d = 0), until two models that
    never disagree would set it off. So an alarm also takes evidence since the likeliest moment of
    the change: a CUSUM, C_t = max(C_{t-1}, 1) (1 + l (d_t - m |d_t|)), of 20 or more. A second
    condition only puts alarms off, and the bound stays.

    Parameters
    ----------
    m
        The raised null, from `raised_null`.
    log_r, log_c
        Log of R and of C for each bet, shape `(..., BETS)`.
    """

    m: float
    log_r: Floats
    log_c: Floats

    @classmethod
    def fresh(cls, m: float, shape: tuple[int, ...] = ()) -> ChangeDetector:
        """Start with R = 0 on every bet, for as many detectors as `shape` has places."""
        return cls(m, np.full((*shape, BETS), -np.inf), np.zeros((*shape, BETS)))

    def update(self, d: ArrayLike, raised: ArrayLike | None = None) -> None:
        """Add one settled difference in [-1, 1]; `raised` as in `BettingTest.update`."""
        point = np.asarray(d, dtype=np.float64)[..., None]
        raise_ = np.asarray(self.m if raised is None else raised)[..., None]
        factor = log_factors(point, raise_, bets(self.m))
        self.log_r = np.logaddexp(self.log_r, 0.0) + factor
        self.log_c = np.maximum(self.log_c, 0.0) + factor

    def alarms(self, log_goal: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Tell for each detector whether R has reached exp(`log_goal`), and C its floor."""
        reached: np.ndarray[Any, np.dtype[np.bool_]] = (
            log_mixture(self.log_r, ALARM_PRIOR) >= log_goal
        ) & (log_mixture(self.log_c, ALARM_PRIOR) >= LOG_FLOOR)
        return reached

    def alarm(self, log_goal: float) -> bool:
        """Tell whether a single detector alarms now."""
        return bool(self.alarms(log_goal))

    @property
    def log_e(self) -> float:
        """Log of R of a single detector now."""
        return float(log_mixture(self.log_r, ALARM_PRIOR))

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        log_r = None if np.isneginf(self.log_r).any() else self.log_r.tolist()
        return {"m": self.m, "log_r": log_r, "log_c": self.log_c.tolist()}

    @classmethod
    def unpack(cls, state: dict[str, Any]) -> ChangeDetector:
        """Return the detector that `pack` wrote."""
        log_c = np.array(state["log_c"])
        log_r = np.full_like(log_c, -np.inf) if state["log_r"] is None else state["log_r"]
        return cls(state["m"], np.array(log_r), log_c)
