"""At which e-value a candidate is promoted, over the stream of all candidates."""

from __future__ import annotations

import math

ZETA = 2.612375348685488  # zeta(1.5)


def log_threshold(alpha: float, *, k: int, promotions: int, fdr: float = 0.05) -> float:
    """Return the log e-value at which candidate `k` is promoted.

    max(1/alpha, 1/alpha_k) with e-LOND's level alpha_k = fdr * g_k * (promotions + 1) [4] and g_k
    proportional to k^-1.5: any one candidate errs with probability at most alpha, and over an
    endless stream at most `fdr` of the promotions are wrong, in expectation and at any time.

    Parameters
    ----------
    k
        Number of the candidate, from 1.
    promotions
        How many candidates were promoted so far.
    """
    level = fdr * lond_weight(k) * (promotions + 1)
    return max(-math.log(alpha), -math.log(level))


def log_threshold_spent(alpha: float, *, k: int) -> float:
    """Return the log e-value at which candidate `k` is promoted where alpha is spent.

    1/(alpha g_k): the levels of all candidates sum to alpha, and so by the union bound no candidate
    of an endless stream is ever promoted wrongly, with probability 1 - alpha or more.
    """
    return -math.log(alpha * lond_weight(k))


def lond_weight(k: int) -> float:
    """Return g_k = k^-1.5 / zeta(1.5), which sums to 1 over all candidates."""
    return float(k**-1.5 / ZETA)
