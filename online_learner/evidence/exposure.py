"""Is what the challenger shows liked better? Rewards of a logged share, by inverse propensity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from online_learner.evidence.betting import BettingTest, Floats
from online_learner.evidence.detector import ChangeDetector

RATES: Floats = np.geomspace(0.9, 0.005, 8)  # of the confidence sequence


@dataclass(slots=True)
class ExposureTest:
    """Is the challenger's mean reward higher? An e-process and a confidence sequence.

    A coin decides who answers. With p the probability of who was shown, r in [0, 1] the reward and
    b the mean of all rewards before it, x = +(r - b) / p where the challenger was shown,
    x = -(r - b) / p where the reference was, and 0 where somebody else was: then E[x | past] is the
    difference of the mean rewards. b is a control variate: it cancels in the mean, and takes most
    of the variance. z = p_min x is in [-1, 1], and `BettingTest` bets on it [6]; a `ChangeDetector`
    where the question is whether the challenger has become better.

    Whether a reward is given may depend on the outcome, but not on the role: nobody sees who
    answered. Then equal roles have E[x] = 0 all the same, and of rewards that are 0 or 1 the worse
    role has the lower mean x, whatever share of either is given. So the null is not raised.

    Parameters
    ----------
    smallest
        The smallest propensity that may occur, p_min.
    n
        How many points there were.
    total, squares
        Sum of z and of z squared.
    rewards
        Sum of the rewards, from a first one of 1/2.
    """

    smallest: float
    test: BettingTest | ChangeDetector
    n: int = 0
    total: float = 0.0
    squares: float = 0.0
    rewards: float = 0.5

    @classmethod
    def fresh(cls, smallest: float, *, detector: bool = False) -> ExposureTest:
        """Start without evidence."""
        return cls(smallest, (ChangeDetector if detector else BettingTest).fresh(0.0))

    def update(
        self, shown: int, reward: float, propensity: float, least: float | None = None
    ) -> None:
        """Add one settled, answered prediction.

        Parameters
        ----------
        shown
            +1 for the challenger, -1 for the reference, 0 for somebody else.
        reward
            In [0, 1].
        propensity
            The probability with which it was shown, given that the prediction is audited; one
            below the smallest counts as the smallest, to keep z in [-1, 1].
        least
            The smallest propensity that any role had then, known before the draw: bets are scaled
            by it where it is not the smallest of all.
        """
        x = shown * (reward - self.rewards / (self.n + 1))
        z = x * self.smallest / max(self.smallest, propensity)
        least = self.smallest if least is None else least
        self.n += 1
        self.rewards += reward
        self.total += z
        self.squares += z * z
        self.test.update(x * least / max(least, propensity))  # in [-1, 1], whatever is sent

    @property
    def log_e(self) -> float:
        """Log of the e-value, or detector, for H0: the challenger's mean reward is not higher."""
        return self.test.log_e

    @property
    def estimate(self) -> float:
        """Estimate of the difference of the mean rewards, without bias; in [-1, 1] on average."""
        return self.total / (self.n * self.smallest) if self.n else 0.0

    def interval(self, alpha: float) -> tuple[float, float]:
        """Return an interval that holds the mean difference so far at all times at once.

        P(at some time it does not) <= alpha. An empirical Bernstein bound: for every rate l < 1,
        exp(l S - psi(l) V) with S = sum(z - E[z | past]), V = sum(z^2) and
        psi(l) = -log(1 - l) - l is a supermartingale; the rates share alpha, on both sides [7].
        """
        costs = np.log(2 * len(RATES) / alpha) + (-np.log1p(-RATES) - RATES) * self.squares
        radius = float((costs / RATES).min()) / (max(1, self.n) * self.smallest)
        low, high = np.clip((self.estimate - radius, self.estimate + radius), -1.0, 1.0)
        return float(low), float(high)

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {
            "smallest": self.smallest,
            "test": self.test.pack(),
            "n": self.n,
            "total": self.total,
            "squares": self.squares,
            "rewards": self.rewards,
        }

    @classmethod
    def unpack(cls, state: dict[str, Any]) -> ExposureTest:
        """Return the test that `pack` wrote."""
        kind = ChangeDetector if "log_r" in state["test"] else BettingTest
        return cls(**{**state, "test": kind.unpack(state["test"])})
