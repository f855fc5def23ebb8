"""How far do raters differ, beyond chance? What the usual table is worth against a rater's own."""

from __future__ import annotations

import numpy as np

from online_learner.evidence import Floats

WEAKEST, STRONGEST = 4.0, 1000.0  # words that the table of all is worth against a rater's
NEGLIGIBLE = 0.5  # words, below which nothing is known of a rater


def strengths(known: Floats, labels: int) -> Floats:
    """Return how many words the usual table is worth for each truth, shape `(labels,)`.

    Parameters
    ----------
    known
        Counts of each rater.
    """
    if known.ndim == 2:  # right and wrong
        return np.full(labels, _strength(known.sum(axis=1), known[:, 0]))
    found = np.full(labels, STRONGEST)
    for truth in range(labels) if len(known) else ():
        rows = known[:, truth]
        found[truth] = _strength(rows.sum(axis=1), rows[:, truth])
    return found


def _strength(n: Floats, right: Floats) -> float:
    """Return how many words the usual share is worth, from each rater's words and right ones.

    It is the n at which the variance of chance equals that between raters: of a beta-binomial,
    a + b, by the method of moments.
    """
    n, right = n[n > NEGLIGIBLE], right[n > NEGLIGIBLE]
    total = float(n.sum())
    if len(n) < 3 or total <= len(n):
        return STRONGEST
    mean, share = float(right.sum()) / total, right / n
    between = float((n * (share - mean) ** 2).sum()) / (len(n) - 1)
    within = float((n * share * (1.0 - share)).sum()) / (total - len(n))
    usual = (total - float((n**2).sum()) / total) / (len(n) - 1)
    variance = (between - within) / max(usual, 1e-9)
    if variance <= 0.0:
        return STRONGEST
    return min(STRONGEST, max(WEAKEST, mean * (1.0 - mean) / variance - 1.0))
