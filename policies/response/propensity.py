"""How likely is it that somebody speaks of an answer? A small logistic regression, learned online.

AdaGrad [1] with a little L2, so that rare features stay near 0; and the intercept is set, at each
look, so that of late as many spoke as were expected to.

References
----------
[1] J. Duchi, E. Hazan, Y. Singer. Adaptive subgradient methods for online learning and stochastic
    optimization. JMLR 12 (2011).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from online_learner.evidence import Floats
from policies.response.covariates import BUCKETS, SIZE, Place

RATE = 0.2  # of learning
L2 = 1e-3
FIRST = -2.0  # the intercept before anything was seen: one in eight speaks
KEEP = 1.0 - 1.0 / 2000  # of what was expected, and what came, with each answer
FORGET = 1.0 - 1.0 / 20_000  # of the gradients, so that what changes is learned anew
PRIOR = 5.0  # answers that the first intercept is worth against what came
MOST_LOG_ODDS = 9.0
DIGITS = 5  # of what the learner is told


class Propensity:
    """P(somebody speaks | where an answer stands), O(features) an answer.

    That active learning asked is a covariate of its own; a chance that speaks of all answers of a
    place counts it by the share of those that are asked about.
    """

    def __init__(self) -> None:
        self.weights: Floats = np.zeros(SIZE + 1)  # the last is that of having been asked
        self.weights[0] = FIRST
        self.squares: Floats = np.zeros(SIZE + 1)
        self.asked: Floats = np.zeros(BUCKETS)  # share of answers asked about, by bucket
        self.seen = PRIOR
        self.spoke = self.expected = PRIOR * _sigmoid(FIRST)
        self._plain: list[float] = []  # the weights, for single answers: faster than an array

    @property
    def mean(self) -> float:
        """The share of answers that were spoken of lately."""
        return self.spoke / self.seen

    def chance(self, place: Place) -> float:
        """Return the probability that somebody speaks, whether or not they are asked to."""
        log_odds = self._log_odds(place)
        share = float(self.asked[place.bucket])
        found = (1.0 - share) * _sigmoid(log_odds)
        return found + share * _sigmoid(log_odds + float(self.weights[SIZE])) if share else found

    def see(self, place: Place, *, spoke: bool) -> None:
        """Take in an answer after its window."""
        at = [*place.at, SIZE] if place.asked else place.at
        x = np.array([*place.values, 1.0] if place.asked else place.values)
        log_odds = float(self.weights[at] @ x)
        told = _sigmoid(log_odds)
        self.seen = KEEP * self.seen + 1.0
        self.spoke = KEEP * self.spoke + spoke
        self.expected = KEEP * self.expected + told
        gradient = (told - spoke) * x + L2 * self.weights[at]
        gradient[0] = told - spoke  # the intercept is free
        self.squares *= FORGET
        np.add.at(self.squares, at, gradient**2)
        np.add.at(self.weights, at, -RATE * gradient / np.sqrt(1e-3 + self.squares[at]))
        self._plain = []
        self.asked[place.bucket] += (place.asked - self.asked[place.bucket]) / 500.0

    def _log_odds(self, place: Place) -> float:
        plain = self._plain = self._plain or self.weights.tolist()
        found = sum(plain[at] * value for at, value in zip(place.at, place.values, strict=True))
        return found + math.log(self.spoke / self.expected)

    def told(self) -> dict[str, Any]:
        """Return what chances rest on, as plain JSON."""
        return {
            "weights": np.round(self.weights, DIGITS).tolist(),
            "asked": np.round(self.asked, DIGITS).tolist(),
            "shift": [round(sum_, DIGITS) for sum_ in (self.seen, self.spoke, self.expected)],
        }

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {
            "weights": self.weights.tolist(),
            "asked": self.asked.tolist(),
            "shift": [self.seen, self.spoke, self.expected],
            "squares": self.squares.tolist(),
        }

    @classmethod
    def unpack(cls, state: Mapping[str, Any]) -> Propensity:
        """Return what `pack` wrote; of what `told` returned, one that only tells chances."""
        found = cls()
        found.weights, found.asked = np.array(state["weights"]), np.array(state["asked"])
        found.seen, found.spoke, found.expected = state["shift"]
        found.squares = np.array(state.get("squares", found.squares))
        if found.weights.shape != (SIZE + 1,) or found.asked.shape != (BUCKETS,):
            raise ValueError("the propensities are those of other covariates")
        return found


def _sigmoid(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-MOST_LOG_ODDS, min(MOST_LOG_ODDS, log_odds))))
