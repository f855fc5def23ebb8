"""How one pass over a stream went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Outcome:
    """Answers given before each lesson.

    Attributes
    ----------
    right
        Whether each answer was right, in order.
    log_loss
        Mean of -log of the probability of what came true, in nats; 0 where it was not taken.
    rate
        Rows a second, answering and learning.
    """

    right: Sequence[bool]
    log_loss: float
    rate: float

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return sum(self.right) / len(self.right)

    def parts(self, n: int) -> list[float]:
        """Return the accuracy in each of `n` equal parts of the stream."""
        cuts = [round(i * len(self.right) / n) for i in range(n + 1)]
        return [sum(self.right[a:b]) / (b - a) for a, b in pairwise(cuts) if b > a]
