"""How scores are made to mean what they say."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import Field

from online_learner.schema.values import Record

SMALLEST = 1e-12  # a probability; also where it is told as 0


class Scaling(Record):
    """How the scores of some weights are made to mean what they say: p' ~ exp(a log p + b).

    The slope a is the same for all labels: 1/T of temperature scaling (Guo et al., ICML 2017). The
    shifts b are by label; with two labels they make it Platt scaling (Platt, 1999).
    """

    slope: float = Field(default=1.0, gt=0)
    shifts: dict[str, float] = Field(default_factory=dict)

    def apply(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Return the scaled scores; they sum to 1.

        >>> round(Scaling(slope=0.5).apply({"a": 0.9, "b": 0.1})["a"], 6)
        0.75
        """
        return _normal({k: self.slope * _log(p) + self.shifts.get(k, 0) for k, p in scores.items()})

    def undo(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Return the scores that were scaled; they sum to 1."""
        return _normal(
            {k: (_log(p) - self.shifts.get(k, 0)) / self.slope for k, p in scores.items()}
        )


def _log(p: float) -> float:
    return math.log(max(SMALLEST, p))


def _normal(logs: Mapping[str, float]) -> dict[str, float]:
    top = max(logs.values(), default=0.0)
    weights = {name: math.exp(value - top) for name, value in logs.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
