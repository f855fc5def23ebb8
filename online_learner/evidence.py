"""Anytime-valid tests: look after every label, stop whenever you like, and the error stays bounded.

Pure numpy, constant memory. Every test takes paired score differences `d` in [-1, 1], settled in
prediction order, and keeps its state as plain numbers so that it can be stored and recomputed.

References
----------
[1] Y. J. Choe and A. Ramdas. Comparing sequential forecasters. arXiv 2110.00115.
[2] I. Waudby-Smith and A. Ramdas. Estimating means of bounded random variables by betting.
    JRSS-B 2024, arXiv 2010.09686.
[3] J. Shin, A. Ramdas and A. Rinaldo. E-detectors: a nonparametric framework for sequential change
    detection. arXiv 2203.03532.
[4] Z. Xu and A. Ramdas. Online multiple testing with e-values. AISTATS 2024, arXiv 2311.06412.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from online_learner.schema import Aliases

Floats = NDArray[np.float64]

BETS = 12
ZETA = 2.612375348685488  # zeta(1.5)


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


@dataclass(frozen=True, slots=True)
class Duel:
    """Two roles to be compared: whether `challenger` is better than `reference`.

    Parameters
    ----------
    challenger, reference
        Roles of the audit record: `champion`, `anchor`, `latest`, `challenger:<version>`.
    detector
        Look for the moment at which it became better, instead of the average so far.
    restart_after
        Settled labels after which the test starts anew, as another candidate.
    """

    challenger: str
    reference: str
    version: int | None = None
    detector: bool = False
    restart_after: int | None = None

    def key(self, generation: int) -> str:
        """Return the name under which evidence counts."""
        return f"{self.challenger}>{self.reference}@{generation}"


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
        return _log_mean_exp(self.log_wealth)


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
        return _log_mean_exp(self.log_r)


@dataclass(slots=True)
class Trial:
    """A duel under way: the test's state and the counts that explain it.

    Parameters
    ----------
    k
        Number of the candidate in the stream of all candidates, from 1.
    scale
        Running mean absolute error of the reference, for numbers; shape of the bounded loss.
    """

    duel: Duel
    k: int
    test: BettingTest | ChangeDetector
    n: int = 0
    wins: int = 0
    losses: int = 0
    total: float = 0.0
    scale: float = 0.0
    seen: int = 0

    @classmethod
    def fresh(cls, duel: Duel, *, k: int, m: float) -> Trial:
        """Start a duel without evidence."""
        return cls(duel, k, (ChangeDetector if duel.detector else BettingTest).fresh(m))

    @property
    def log_e(self) -> float:
        """Log of the e-value, or of the detector's value."""
        return self.test.log_e

    @property
    def mean(self) -> float:
        """Mean difference so far, in [-1, 1]."""
        return self.total / self.n if self.n else 0.0

    def score(self, truth: object, challenger: object, reference: object) -> float:
        """Return d for one settled prediction, before it is counted."""
        if (
            isinstance(truth, float)
            and isinstance(challenger, float)
            and isinstance(reference, float)
        ):
            d = paired_loss(truth, challenger, reference, 2 * self.scale)
            self.seen += 1
            self.scale += (abs(truth - reference) - self.scale) / self.seen
            return d
        if isinstance(truth, list):
            return agreement(truth, challenger) - agreement(truth, reference)
        return paired_score(truth, challenger, reference)

    def count(self, d: float) -> None:
        """Add one settled difference."""
        self.n += 1
        self.wins += d > 0
        self.losses += d < 0
        self.total += d
        self.test.update(d)

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        logs = self.test.log_r if isinstance(self.test, ChangeDetector) else self.test.log_wealth
        state = asdict(self)
        state["test"] = {
            "m": self.test.m,
            "logs": [None if v == -np.inf else v for v in logs.tolist()],
        }
        return state

    @classmethod
    def unpack(cls, state: dict[str, Any]) -> Trial:
        """Return the trial that `pack` wrote."""
        duel = Duel(**state["duel"])
        logs = np.array([-np.inf if v is None else v for v in state["test"]["logs"]])
        kind = ChangeDetector if duel.detector else BettingTest
        return cls(**{**state, "duel": duel, "test": kind(state["test"]["m"], logs)})


@dataclass(frozen=True, slots=True)
class Case:
    """All that a promotion may rest on."""

    aliases: Aliases
    trials: Mapping[str, Trial]
    candidates: Sequence[int]  # versions that were cut and have not been looked at
    promotions: int

    def trial(self, duel: Duel) -> Trial | None:
        """Return the state of a duel under the aliases as they are."""
        return self.trials.get(duel.key(self.aliases.generation))


def log_threshold(alpha: float, *, k: int, promotions: int, fdr: float = 0.05) -> float:
    """Return the log e-value at which candidate `k` is promoted.

    max(1/alpha, 1/alpha_k) with e-LOND's level alpha_k = fdr * g_k * (promotions + 1) [4] and g_k
    proportional to k^-1.5: any one candidate errs with probability at most alpha, and over an
    endless stream at most `fdr` of the promotions are wrong.

    Parameters
    ----------
    k
        Number of the candidate, from 1.
    promotions
        How many candidates before it were promoted.
    """
    level = fdr * lond_weight(k) * (promotions + 1)
    return max(-math.log(alpha), -math.log(level))


def lond_weight(k: int) -> float:
    """Return g_k = k^-1.5 / zeta(1.5), which sums to 1 over all candidates."""
    return float(k**-1.5 / ZETA)


def paired_score(truth: object, challenger: object, reference: object) -> float:
    """Return d for a label: +1 where only the challenger was right, -1 where only the reference."""
    return float(same(challenger, truth)) - float(same(reference, truth))


def agreement(truth: Sequence[str], order: object) -> float:
    """Return how well an order of options agrees with what was said, from 0 to 1.

    For one option whether it stands first (top-1 accuracy); for several the share of their pairs
    that stand in this order (pair accuracy).

    >>> agreement(["b"], ["a", "b"]), agreement(["b", "a"], ["b", "c", "a"])
    (0.0, 1.0)
    """
    if not isinstance(order, list) or not order:
        return 0.0
    if len(truth) == 1:
        return float(order[0] == truth[0])
    known = {name: float(place) for place, name in enumerate(order)}
    places = np.array([known.get(name, math.nan) for name in truth])  # comparisons with nan fail
    right = np.triu(np.less.outer(places, places), 1).sum()
    return float(right) / (len(truth) * (len(truth) - 1) / 2)


def same(left: object, right: object) -> bool:
    """Tell whether two labels are the same one: `True` is not `1`."""
    return type(left) is type(right) and left == right


def paired_loss(truth: float, challenger: float, reference: float, scale: float) -> float:
    """Return d for a number: the reference's absolute error less the challenger's, over `scale`.

    Clipped to [-1, 1], so that the tests stay valid for any distribution of errors. `scale` must
    come from the past alone.
    """
    gain = abs(truth - reference) - abs(truth - challenger)
    return max(-1.0, min(1.0, gain / scale)) if scale > 0 else 0.0


def labels_to_go(log_e: float, log_goal: float, n: int) -> int | None:
    """Return about how many more labels the decision takes at the pace so far, or None."""
    if n == 0 or log_e <= 0:
        return None
    return max(0, math.ceil(n * (log_goal - log_e) / log_e))


def _log_mean_exp(logs: Sequence[float] | Floats) -> float:
    values = np.asarray(logs, dtype=np.float64)
    top = float(values.max())
    if top == -math.inf:
        return -math.inf
    return top + math.log(float(np.mean(np.exp(values - top))))
