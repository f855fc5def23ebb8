"""What one settled answer says about two roles: a difference in [-1, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


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
