"""Has it become worse? A Shiryaev-Roberts e-detector on paired differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from online_learner.evidence.betting import BETS, Floats, bets, log_mean_exp


@dataclass(slots=True)
class ChangeDetector:
    """Has the reference become better than what is served? A Shiryaev-Roberts e-detector.

    R_t = (R_{t-1} + 1) (1 + l (d_t - m |d_t|)) for each bet, averaged over the bets. While the null
    holds, an alarm at R >= A comes after A settled labels on average, or later [3]. Labels on which
    both do equally well (d = 0) are passed over: the null holds on the others as well, and R would
    grow by one with each, until two models that never disagree set off an alarm.

    Parameters
    ----------
    m
        The raised null, from `raised_null`.
    log_r
        Log of R for each bet, shape `(BETS,)`.
    """

    m: float
    log_r: Floats

    @classmethod
    def fresh(cls, m: float) -> ChangeDetector:
        """Start with R = 0 on every bet."""
        return cls(m, np.full(BETS, -np.inf))

    def update(self, d: float) -> None:
        """Add one settled difference, in [-1, 1]."""
        if d != 0.0:
            factor = np.log1p(bets(self.m) * (d - self.m * abs(d)))
            self.log_r = np.logaddexp(self.log_r, 0.0) + factor

    @property
    def log_e(self) -> float:
        """Log of the detector's value now."""
        return log_mean_exp(self.log_r)
