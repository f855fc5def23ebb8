"""Web pages that phish, or do not: two labels, a logistic regression."""

from __future__ import annotations

from river import compose, linear_model, preprocessing


def learner() -> compose.Pipeline:
    """Return an untrained pipeline."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()
