"""What raters say of what is true: counts, shrunk to those of all, that forget.

With few labels a rater has a table of their own: what they say where a label is true. With more
there is too little to fill it, and only right and wrong are counted; wrong labels are then alike.

Counts are linear in what is counted: a word can be taken back, as it was counted, and counted anew
once more is known of its answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from online_learner.evidence import Floats

MOST_FULL = 6  # labels up to which a table is kept
LEAST = 1e-4  # of a probability


@dataclass(frozen=True, slots=True)
class Word:
    """What somebody says of an answer: a label by its number; `wrong` where it is said not to be.

    `at` is the number of the word among those of its rater.
    """

    label: int
    wrong: bool = False
    at: int = 0


def blank(labels: int) -> Floats:
    """Return counts of nothing: shape `(labels, labels)` by truth and word, or right and wrong."""
    return np.zeros((labels, labels) if labels <= MOST_FULL else 2)


def guessed(labels: int, right: float, n: float) -> Floats:
    """Return counts of `n` words for each truth, so many of which are right."""
    if labels > MOST_FULL:
        return np.array([right, 1.0 - right]) * n
    found = np.full((labels, labels), n * (1.0 - right) / max(1, labels - 1))
    np.fill_diagonal(found, n * right)
    return found


def grown(counts: Floats, labels: int) -> Floats:
    """Return counts for more labels than there were."""
    if counts.ndim == 1:
        return counts
    if labels > MOST_FULL:
        right = float(np.trace(counts))
        return np.array([right, float(counts.sum()) - right])
    more = labels - len(counts)
    return np.pad(counts, (0, more))


def count(counts: Floats, word: Word, posterior: Floats, weight: float) -> None:
    """Count a word, in place, by what is known of the truth; a negative weight takes it back.

    That a label is wrong counts as right where another one is true; else as any of the others.
    """
    if counts.ndim == 1:
        p = float(posterior[word.label])
        right = 1.0 - p if word.wrong else p
        counts += np.array([right, 1.0 - right]) * weight
    elif not word.wrong:
        counts[:, word.label] += posterior * weight
    else:
        others = np.ones(len(posterior))
        others[word.label] = 0.0
        np.fill_diagonal(counts, counts.diagonal() + posterior * others * weight)
        spread = posterior[word.label] * weight / max(1, len(posterior) - 1)
        counts[word.label] += others * spread


def chances(counts: Floats, word: Word, usual: Floats, strength: Floats) -> Floats:
    """Return the probability of a word for each truth, shape `(labels,)`.

    Parameters
    ----------
    counts
        Of the rater.
    usual
        Probabilities of all raters, in the form of the counts.
    strength
        How many words for each truth the usual ones are worth, shape `(labels,)`.
    """
    if counts.ndim == 1:
        labels = len(strength)
        right = float(shrunk(counts, usual, strength)[0])
        found = np.full(labels, (1.0 - right) / max(1, labels - 1))
        found[word.label] = right
    else:
        own = np.maximum(counts, 0.0)
        column, rows = own[:, word.label], own.sum(axis=1)
        found = (column + strength * usual[:, word.label]) / (rows + strength)
    return np.clip(1.0 - found if word.wrong else found, LEAST, 1.0)


def shrunk(counts: Floats, usual: Floats, strength: Floats) -> Floats:
    """Return a rater's probabilities in the form of the counts, shrunk to the usual ones."""
    own = np.maximum(counts, 0.0)
    if counts.ndim == 1:
        worth = float(strength.sum())
        coin: Floats = (own + worth * usual) / (own.sum() + worth)
        return coin
    found: Floats = (own + strength[:, None] * usual) / (own.sum(axis=1) + strength)[:, None]
    return found


def kappa(words: Floats, classes: Floats) -> float:
    """Return how far words agree with the truth beyond chance: 1 always, 0 as by chance.

    It is Cohen's (1960). Who always says the same agrees by chance only, however often that is
    true; who says the opposite is below 0.

    Parameters
    ----------
    words
        Probabilities in the form of the counts.
    classes
        The probability of each truth, shape `(labels,)`.

    Examples
    --------
    >>> honest, same = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    >>> round(kappa(honest, np.array([0.5, 0.5])), 2), kappa(same, np.array([0.9, 0.1]))
    (0.7, 0.0)
    """
    if words.ndim == 1:
        right, chance = float(words[0]), 1.0 / len(classes)
    else:
        right, chance = float(classes @ words.diagonal()), float(classes @ (classes @ words))
    return (right - chance) / max(1.0 - chance, LEAST)
