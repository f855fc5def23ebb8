"""Web pages that phish, or do not: two labels, a logistic regression."""

from __future__ import annotations

from river import linear_model, preprocessing
from river.base import Classifier


def learner() -> Classifier:
    """Return an untrained pipeline."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()
