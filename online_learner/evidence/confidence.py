"""Between which bounds is a mean? For as long as one looks, and however often."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from online_learner.evidence.betting import Floats

OCTAVES = 12  # of bets: enough for 10**8 scores


def confidence_sequence(scores: ArrayLike, alpha: float = 0.05) -> tuple[Floats, Floats]:
    """Return lower and upper bounds on the mean after each score: all hold at once.

    An empirical Bernstein confidence sequence after [7], Theorem 4. For scores x in [0, 1] with
    conditional means m_i, any bet l in (0, 1), and guesses g_i that rest on what came before,

        exp(l sum (x_i - m_i) - psi(l) sum (x_i - g_i)^2),    psi(l) = -log(1 - l) - l

    is a supermartingale: it ever exceeds 1 / a with probability a at most. Here

        g_i = (1/2 + sum_{j<i} x_j) / i,    l_k = 2^-k,    a_k = (alpha / 2) / (k (k + 1))

    so after t scores the average of all m_i is within

        (1/t) sum x_i  +-  (1/t) min_k (log(1 / a_k) + psi(l_k) sum (x_i - g_i)^2) / l_k

    for all t at once with probability 1 - alpha or more: whoever looks after every score, and stops
    where it looks best, is not misled. The scores may depend on the past. Where their mean drifts,
    the bounds hold for its plain average so far.

    Parameters
    ----------
    scores
        In [0, 1], in their order, shape (..., n); leading axes are sequences of their own.
    alpha
        The probability with which the bounds may ever fail.

    Returns
    -------
    Two arrays of the same shape, in [0, 1].

    Examples
    --------
    >>> low, high = confidence_sequence([1.0] * 1000)
    >>> round(float(low[-1]), 2), float(high[-1])
    (0.99, 1.0)
    """
    x: Floats = np.asarray(scores, dtype=float)
    number, total = np.arange(1, x.shape[-1] + 1), x.cumsum(-1)
    surprise = ((x - (0.5 + total - x) / number) ** 2).cumsum(-1)
    radius = np.full_like(x, np.inf)
    for k in range(1, OCTAVES + 1):
        bet, log_odds = 2.0**-k, math.log(2 * k * (k + 1) / alpha)
        psi = -math.log1p(-bet) - bet
        radius = np.minimum(radius, (log_odds + psi * surprise) / bet)
    mean, radius = total / number, radius / number
    return np.clip(mean - radius, 0.0, 1.0), np.clip(mean + radius, 0.0, 1.0)
