"""What one settled answer says about two roles: a difference in [-1, 1]. And of each, a score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from online_learner.schema import Output, Said


def difference(
    said: Said, challenger: Output, reference: Output, *, scale: float = 0.0, shown: bool = True
) -> float | None:
    """Return d = score(challenger) - score(reference), in [-1, 1], or None where nothing is told.

    Where a signal leaves open what another answer is worth, d is the least that it can be: so
    thumbs may keep a challenger from winning, and never make it win.

    Parameters
    ----------
    scale
        Of the loss, for numbers; from the past alone.
    shown
        Whether the reference gave the answer that the user saw.
    """
    if said.right is not None:
        return _by_truth(said.right, challenger, reference, scale)
    if said.wrong is not None:
        return _by_what_is_wrong(said.wrong, challenger, reference)
    if said.liked and shown:
        return _by_what_was_liked(challenger, reference, scale)
    return None


def score(said: Said, output: Output, shown: Output, *, scale: float = 0.0) -> float | None:
    """Return how good one role's own answer is, in [0, 1], or None where nothing is told.

    For a label whether it is right, for an order its `agreement`, for a number one less its
    absolute error over `scale`. Where a signal leaves open what an answer is worth, it is the least
    that it can be, as in `difference`.

    Parameters
    ----------
    shown
        The answer that the user saw.
    scale
        Of the loss, for numbers; from the past alone. Without one, nothing is told.
    """
    right = said.right
    if right is None and said.liked:
        right = shown[:1] if isinstance(shown, list) else shown
    if right is None:
        return None if said.wrong is None else 0.0
    if isinstance(right, list):
        return agreement(right, output)
    if not isinstance(right, float):
        return float(same(output, right))
    if not scale:
        return None
    return max(0.0, 1.0 - abs(right - output) / scale) if isinstance(output, float) else 0.0


def _by_truth(right: Output, challenger: Output, reference: Output, scale: float) -> float:
    if isinstance(right, float):
        return paired_loss(right, challenger, reference, scale)
    if isinstance(right, list):
        return agreement(right, challenger) - agreement(right, reference)
    return paired_score(right, challenger, reference)


def _by_what_is_wrong(wrong: Output, challenger: Output, reference: Output) -> float:
    """Return the least d where one label is known not to be the right one."""
    if same(challenger, reference) or same(reference, wrong):
        return 0.0
    return -1.0  # the reference may be right, and the challenger is wrong, or may be


def _by_what_was_liked(challenger: Output, reference: Output, scale: float) -> float:
    """Return the least d where the reference's own answer was liked: who disagrees has lost."""
    if isinstance(reference, list):
        first = challenger[:1] if isinstance(challenger, list) else None
        return float(first == reference[:1]) - 1.0
    if isinstance(reference, float):
        return paired_loss(reference, challenger, reference, scale)
    return float(same(challenger, reference)) - 1.0


def paired_score(right: object, challenger: object, reference: object) -> float:
    """Return d for a label: +1 where only the challenger was right, -1 where only the reference."""
    return float(same(challenger, right)) - float(same(reference, right))


def agreement(right: Sequence[str], order: object) -> float:
    """Return how well an order of options agrees with what was said, from 0 to 1.

    For one option whether it stands first (top-1 accuracy); for several the share of their pairs
    that stand in this order (pair accuracy).

    >>> agreement(["b"], ["a", "b"]), agreement(["b", "a"], ["b", "c", "a"])
    (0.0, 1.0)
    """
    if not isinstance(order, list) or not order:
        return 0.0
    if len(right) == 1:
        return float(order[0] == right[0])
    known = {name: float(place) for place, name in enumerate(order)}
    places = np.array([known.get(name, math.nan) for name in right])  # comparisons with nan fail
    agreed = np.triu(np.less.outer(places, places), 1).sum()
    return float(agreed) / (len(right) * (len(right) - 1) / 2)


def same(left: object, right: object) -> bool:
    """Tell whether two labels are the same one: `True` is not `1`."""
    return type(left) is type(right) and left == right


def paired_loss(right: float, challenger: Output, reference: Output, scale: float) -> float:
    """Return d for a number: the reference's absolute error less the challenger's, over `scale`.

    Clipped to [-1, 1], so that the tests stay valid for any distribution of errors. `scale` must
    come from the past alone. A role without a number has lost.
    """
    if not isinstance(challenger, float) or not isinstance(reference, float):
        return float(isinstance(challenger, float)) - float(isinstance(reference, float))
    gain = abs(right - reference) - abs(right - challenger)
    return max(-1.0, min(1.0, gain / scale)) if scale > 0 else 0.0
