"""How long still."""

from __future__ import annotations

import math


def labels_to_go(log_e: float, log_goal: float, n: int, log_best: float) -> int | None:
    """Return about how many more settled labels the decision takes, at the pace so far.

    The best constant bet grew by `log_best` in `n` labels, and the e-value grows as it does. None
    where no bet has gained: the challenger is not ahead of the raised null.

    >>> labels_to_go(log_e=1.0, log_goal=4.6, n=100, log_best=2.4)
    150
    """
    if log_e >= log_goal:
        return 0
    if n == 0 or log_best <= 0:
        return None
    return math.ceil(n * (log_goal - log_e) / log_best)


def requests_to_go(labels: int | None, audit: float, response: float) -> int | None:
    """Return how many predictions bring `labels` more audited, answered ones, or None.

    >>> requests_to_go(150, audit=0.1, response=0.5)
    3000
    """
    rate = audit * response
    return None if labels is None or rate <= 0 else math.ceil(labels / rate)
