"""Whom does one not hear? What those who speak say, against what audits drawn by a coin say.

Within a stratum (answers of like confidence and output) let pi_c be the share of answers of class
c, wrong or right, say; and v_c that share among those of which somebody spoke. The odds ratios

    exp(theta_c) = (v_c / v_0) / (pi_c / pi_0)

say how much more readily people speak of c than of class 0. Nothing that is known before they speak
shows them; only answers that were drawn by a coin, whoever wanted to speak of them, do. theta is
pooled over the strata by Mantel and Haenszel [1], with the variance of [2]; then it is shrunk, to 0
where audits are few, and in each stratum to the pooled one. That it is 0 is taken for as likely as
not beforehand (a spike and a slab [3]): noise in it would move what needs no correction. With it,

    pi_c ~ v_c exp(-theta_c),    P(speaks | x, c) = P(speaks | x) v_c / pi_c.

References
----------
[1] N. Mantel, W. Haenszel. Statistical aspects of the analysis of data from retrospective studies
    of disease. JNCI 22 (1959).
[2] J. Robins, N. Breslow, S. Greenland. Estimators of the Mantel-Haenszel variance consistent in
    both sparse data and large-strata limiting models. Biometrics 42 (1986).
[3] T. Mitchell, J. Beauchamp. Bayesian variable selection in linear regression. JASA 83 (1988).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from online_learner.evidence import Floats
from policies.response.covariates import STRATA

KEEP_SEEN = 1.0 - 1.0 / 10_000  # of the counts, with each further answer of their kind
KEEP_SPOKEN = 1.0 - 1.0 / 5000
KEEP_DRAWN = 1.0 - 1.0 / 2000
SPREAD = 1.5  # of theta, before anything is known: odds of 1 to 4.5 are nothing unusual
SPREAD_WITHIN = 0.5  # of theta in a stratum, around the pooled one
EVEN = 0.5  # pairs in favour of each side that pooling starts from
PRIOR = 5.0  # answers that all strata together are worth in each
Z = 1.96  # a 95 % interval of the normal distribution


@dataclass(frozen=True, slots=True)
class Heard:
    """What follows from the counts of one moment.

    Parameters
    ----------
    shares
        Of each class among those spoken of, shape `(STRATA, classes)`.
    truth
        Of each class among all answers, as corrected, likewise.
    theta
        The log odds of being spoken of, likewise, by which they differ; 0 for class 0.
    pooled, errors
        Theta over all strata, and its standard error, shape `(classes,)`.
    """

    shares: Floats
    truth: Floats
    theta: Floats
    pooled: Floats
    errors: Floats

    @property
    def ratios(self) -> Floats:
        """P(class | spoken of) / P(class): by how much more readily people speak of it."""
        found: Floats = self.shares / self.truth
        return found


class Silence:
    """Counts by stratum and class: of all answers, of those spoken of, of those drawn by a coin."""

    def __init__(self, classes: int) -> None:
        self.seen: Floats = np.zeros(STRATA)
        self.spoken: Floats = np.zeros((STRATA, classes))
        self.weighed: Floats = np.zeros((STRATA, classes))  # by 1 / P(speaks | x)
        self.drawn: Floats = np.zeros((STRATA, classes))
        middle = (np.arange(classes) + 0.5) / classes
        self.good: Floats = np.stack([middle, np.ones(classes)])  # sums of goodness, and of answers
        if classes == 2:
            self.good[0] = (0.0, 1.0)
        self._found: dict[bool, Heard] = {}

    def see(self, stratum: int) -> None:
        """Count an answer, spoken of or not."""
        self.seen *= KEEP_SEEN
        self.seen[stratum] += 1.0

    def hear(self, stratum: int, number: int, goodness: float, weight: float) -> None:
        """Count an answer of which somebody spoke unasked, or asked for another reason than chance.

        Parameters
        ----------
        weight
            In inverse proportion to the chance that somebody would; 1 on average.
        """
        self.spoken *= KEEP_SPOKEN
        self.weighed *= KEEP_SPOKEN
        self.spoken[stratum, number] += 1.0
        self.weighed[stratum, number] += weight
        self._take(number, goodness)

    def draw(self, stratum: int, number: int, goodness: float) -> None:
        """Count an answer that a coin drew, and that was answered."""
        self.drawn *= KEEP_DRAWN
        self.drawn[stratum, number] += 1.0
        self._take(number, goodness)

    def _take(self, number: int, goodness: float) -> None:
        self.good[:, number] *= KEEP_SPOKEN
        self.good[:, number] += (goodness, 1.0)
        self._found.clear()

    @property
    def worth(self) -> Floats:
        """The mean goodness of each class."""
        found: Floats = self.good[0] / self.good[1]
        return found

    # --- what follows -------------------------------------------------------------------------

    def raw(self) -> Floats:
        """Return how those who speak are spread over strata and classes, of shape of the counts."""
        often = self.spoken.sum(1) / max(1.0, self.spoken.sum())
        found: Floats = often[:, None] * _shares(self.spoken)
        return found

    def corrected(self) -> Floats:
        """Return how all answers are spread over strata and classes, as far as audits tell."""
        often = self.seen / max(1.0, self.seen.sum())
        found: Floats = often[:, None] * self.heard(audited=True).truth
        return found

    def heard(self, *, audited: bool) -> Heard:
        """Return what follows from the counts.

        Parameters
        ----------
        audited
            Whether the audits may be rested on; else silence is taken not to depend on the outcome.
        """
        if audited not in self._found:
            self._found[audited] = self._hear(audited=audited)
        return self._found[audited]

    def _hear(self, *, audited: bool) -> Heard:
        shares = _shares(self.weighed)
        theta = np.zeros_like(shares)
        pooled, errors = np.zeros(shares.shape[1]), np.zeros(shares.shape[1])
        for c in range(1, shares.shape[1]) if audited and self.drawn.any() else ():
            counts = self.weighed[:, c], self.weighed[:, 0], self.drawn[:, c], self.drawn[:, 0]
            pooled[c], errors[c], theta[:, c] = _odds(*counts)
        truth = shares * np.exp(-theta)
        truth /= truth.sum(1, keepdims=True)
        return Heard(shares, truth, theta, pooled, errors)

    def estimate(self, *, audited: bool) -> dict[str, Any] | None:
        """Return the mean goodness of all answers, as corrected: `n`, `score`, `low`, `high`.

        The strata count as often as they were answered, whoever spoke. The bounds are those of a
        normal approximation: of what was said within strata, and of the pooled theta.
        """
        n, total = self.spoken.sum(), self.seen.sum()
        if not n or not total:
            return None
        found, often, worth = self.heard(audited=audited), self.seen / total, self.worth
        value = _mean(found, found.theta, often, worth)
        means = found.truth @ worth
        spread = found.truth @ worth**2 - means**2
        variance = float((often**2 * spread / (self.spoken.sum(1) + 1.0)).sum())
        for c in range(1, len(worth)):
            moved = found.theta.copy()
            moved[:, c] += found.errors[c]
            variance += (_mean(found, moved, often, worth) - value) ** 2
        radius = Z * math.sqrt(max(0.0, variance))
        low, high = max(0.0, value - radius), min(1.0, value + radius)
        return {"n": round(n), "score": value, "low": low, "high": high}

    # --- memory -------------------------------------------------------------------------------

    def pack(self) -> dict[str, Any]:
        """Return the counts as plain JSON."""
        return {name: getattr(self, name).tolist() for name in _COUNTS}

    @classmethod
    def unpack(cls, state: Mapping[str, Any], classes: int) -> Silence:
        """Return what `pack` wrote."""
        found = cls(classes)
        for name in _COUNTS:
            counts = np.array(state[name], dtype=float)
            if counts.shape != getattr(found, name).shape:
                raise ValueError(f"{name} has another shape")
            setattr(found, name, counts)
        return found


_COUNTS = ("seen", "spoken", "weighed", "drawn", "good")


def _shares(counts: Floats) -> Floats:
    """Return the share of each class by stratum, shrunk to that of all strata."""
    overall = counts.sum(0) + EVEN
    overall /= overall.sum()
    found: Floats = (counts + PRIOR * overall) / (counts.sum(1, keepdims=True) + PRIOR)
    return found


def _mean(found: Heard, theta: Floats, often: Floats, worth: Floats) -> float:
    truth = found.shares * np.exp(-theta)
    return float(often @ (truth @ worth / truth.sum(1)))


def _odds(spoken: Floats, others: Floats, drawn: Floats, rest: Floats) -> tuple[Any, Any, Any]:
    """Return the pooled log odds ratio, shrunk, its standard error, and that of each stratum.

    Parameters
    ----------
    spoken, others, drawn, rest
        How many of a class, and of class 0, were spoken of; and how many of them were drawn.
    """
    n = np.maximum(1e-12, spoken + others + drawn + rest)
    agree, differ = (spoken + rest) / n, (others + drawn) / n
    up, down = spoken * rest / n, others * drawn / n
    ups, downs = up.sum() + EVEN, down.sum() + EVEN
    both = (agree * up).sum() + EVEN**2
    cross = (agree * down + differ * up).sum() + 2 * EVEN**2
    none = (differ * down).sum() + EVEN**2
    variance = both / (2 * ups**2) + cross / (2 * ups * downs) + none / (2 * downs**2)
    trust = SPREAD**2 / (SPREAD**2 + variance)
    log_odds = math.log(ups / downs)
    factor = math.sqrt(1.0 - trust) * math.exp(min(50.0, 0.5 * trust * log_odds**2 / variance))
    real = factor / (1.0 + factor)  # the probability that it is not 0, for which one in two bets
    pooled = real * trust * log_odds
    error = math.sqrt(real * (trust * variance + (1.0 - real) * (trust * log_odds) ** 2))
    cells = [count + 0.5 for count in (spoken, others, drawn, rest)]
    own = np.log(cells[0] * cells[3] / (cells[1] * cells[2]))
    noise = sum(1.0 / cell for cell in cells)
    known = (spoken + others > 0) & (drawn + rest > 0)
    within = np.where(known, SPREAD_WITHIN**2 / (SPREAD_WITHIN**2 + noise), 0.0)
    return pooled, error, pooled + within * (own - pooled)
