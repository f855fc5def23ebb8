"""Placeholder."""

from __future__ import annotations

import random
from collections.abc import Mapping

from online_learner.schema import Task


class VariableUncertainty:
    """Nothing yet."""

    def __init__(self, task: Task, budget: float) -> None:
        self.budget = budget

    def ask(
        self, scores: Mapping[str, float], rng: random.Random, *, factor: float = 1.0
    ) -> float | None:
        """Return None: nothing is asked."""
