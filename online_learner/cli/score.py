"""How the answers went that were served while a file was taught, against knowing nothing.

Each row is asked before it is corrected, so that the score is honest (prequential). The answers of
one batch rest on what was learned before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

from online_learner.schema import label_key

LAST = 100


class Score(ABC):
    """What was served against what was right."""

    unit = ""

    def __init__(self) -> None:
        self.count = 0
        self.last: deque[float] = deque(maxlen=LAST)
        self.total = 0.0
        self.baseline = 0.0

    def add(self, output: Any, right: Any) -> None:
        """Count one answer."""
        points, blind = self.points(output, right), self.points(self.guess(), right)
        self.count += 1
        self.total += points
        self.baseline += blind
        self.last.append(points)
        self.learn(right)

    @abstractmethod
    def points(self, output: Any, right: Any) -> float:
        """Return what one answer is worth."""

    @abstractmethod
    def guess(self) -> Any:
        """Return the answer of somebody who sees the labels so far, and nothing else."""

    @abstractmethod
    def learn(self, right: Any) -> None:
        """Take note of a label."""

    def report(self) -> dict[str, Any] | None:
        """Return the figures; None where nothing was asked."""
        if not self.count:
            return None
        return {
            "metric": self.unit,
            "n": self.count,
            "served": self.total / self.count,
            "last": sum(self.last) / len(self.last),
            "baseline": self.baseline / self.count,
        }

    def brief(self) -> str:
        """Return the figures for a progress bar."""
        found = self.report()
        if found is None:
            return ""
        return f"{self.unit} {found['last']:.3f}, knowing nothing {found['baseline']:.3f}"

    def told(self) -> Iterator[str]:
        """Yield the figures in words."""
        found = self.report()
        if found is not None:
            last = f" (the last {len(self.last)}: {found['last']:.3f})"
            yield f"Served: {self.unit} {found['served']:.3f}{last}."
            yield f"{self.blind}: {found['baseline']:.3f}."

    blind = ""


class Accuracy(Score):
    """The share of right labels, against the most frequent label so far."""

    unit = "accuracy"
    blind = "Always the most frequent label so far"

    def __init__(self) -> None:
        super().__init__()
        self._labels: Counter[str] = Counter()

    def points(self, output: Any, right: Any) -> float:
        """Return 1 for the right label."""
        return float(label_key(output) == label_key(right))

    def guess(self) -> Any:
        """Return the most frequent label."""
        return self._labels.most_common(1)[0][0] if self._labels else None

    def learn(self, right: Any) -> None:
        """Count a label."""
        self._labels[label_key(right)] += 1


class Distance(Score):
    """The mean distance from the right number, against the mean of those so far."""

    unit = "mean error"
    blind = "Always the mean so far"

    def __init__(self) -> None:
        super().__init__()
        self._sum = 0.0

    def points(self, output: Any, right: Any) -> float:
        """Return the distance."""
        return abs(float(output or 0.0) - float(right))

    def guess(self) -> Any:
        """Return the mean."""
        return self._sum / self.count if self.count else 0.0

    def learn(self, right: Any) -> None:
        """Count a number."""
        self._sum += right


def score_of(task: str) -> Score:
    """Return the score of a task."""
    return Distance() if task == "regression" else Accuracy()
