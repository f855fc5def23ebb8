"""A team's own model with two defects: what it raises repeats the features that it was given."""

from __future__ import annotations

from typing import Any

from river import linear_model

PREDICTING, LEARNING = "explode", "spoil"


class Bomb(linear_model.LogisticRegression):  # type: ignore[misc]
    """A logistic regression that fails where a feature of a certain name is there."""

    def predict_proba_one(self, x: dict[str, Any]) -> dict[bool, float]:
        """Return the probabilities."""
        if PREDICTING in x:
            raise RuntimeError(f"no answer to {x}")
        found: dict[bool, float] = super().predict_proba_one(x)
        return found

    def learn_one(self, x: dict[str, Any], y: bool) -> None:
        """Learn one example."""
        if LEARNING in x:
            raise ValueError(f"nothing to learn from {x}")
        super().learn_one(x, y)


def learner() -> Bomb:
    """Return the model."""
    return Bomb()
