"""How long still."""

from __future__ import annotations

import math


def labels_to_go(log_e: float, log_goal: float, n: int) -> int | None:
    """Return about how many more labels the decision takes at the pace so far, or None."""
    if n == 0 or log_e <= 0:
        return None
    return max(0, math.ceil(n * (log_goal - log_e) / log_e))
