"""How unequally might outcomes be answered, for a decision to stand all the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from online_learner.evidence.betting import SHARES, Floats, log_factors, log_mixture, raised_null

STEPS = 100  # of d, between 0 and 1
GAMMA_MAX = 20.0


@dataclass(slots=True)
class Sensitivity:
    """The break-even Gamma of a test: the sensitivity analysis of observational studies [5].

    The order of points does not matter to constant bets, so it is enough to count how often each d
    was seen. Between whole steps d is rounded down, so that a break-even is never too large.

    Parameters
    ----------
    malice
        Share of the answers that differ that an adversary may give, besides.
    raised, trusted
        Points by their d, in `STEPS`: those for which the null is raised, and an auditor's.
    """

    malice: float = 0.0
    raised: dict[int, int] = field(default_factory=dict)
    trusted: dict[int, int] = field(default_factory=dict)

    def update(self, d: float, *, trusted: bool = False) -> None:
        """Add one settled difference in [-1, 1]."""
        step = math.floor(d * STEPS)
        if step:
            counts = self.trusted if trusted else self.raised
            counts[step] = counts.get(step, 0) + 1

    def break_even(self, log_goal: float) -> float | None:
        """Return the largest Gamma at which the e-value reaches the goal; None: not even at 1.

        By bisection, to 1e-3; it ends at `GAMMA_MAX`.
        """
        low, high = 1.0, GAMMA_MAX
        if self._log_e(low) < log_goal:
            return None
        if self._log_e(high) >= log_goal:
            return high
        while high - low > 1e-3:
            middle = (low + high) / 2
            low, high = (middle, high) if self._log_e(middle) >= log_goal else (low, middle)
        return low

    def _log_e(self, gamma: float) -> float:
        m = raised_null(gamma, self.malice)
        grid = SHARES / (1.0 + m)
        log_wealth = _grown(self.raised, m, grid) + _grown(self.trusted, 0.0, grid)
        return float(log_mixture(log_wealth))

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {
            "malice": self.malice,
            "raised": sorted(self.raised.items()),
            "trusted": sorted(self.trusted.items()),
        }

    @classmethod
    def unpack(cls, state: Mapping[str, Any]) -> Sensitivity:
        """Return what `pack` wrote."""
        return cls(state["malice"], dict(state["raised"]), dict(state["trusted"]))


def _grown(counts: Mapping[int, int], m: float, grid: Floats) -> Floats:
    """Return the log of what each bet has gained, shape `(BETS,)`."""
    d = np.array(list(counts), dtype=np.float64)[:, None] / STEPS
    logs: Floats = np.array(list(counts.values()), dtype=np.float64) @ log_factors(d, m, grid)
    return logs
