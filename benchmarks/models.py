"""What the benchmarks learn and ask: small River models, and requests from River's own data."""

from __future__ import annotations

import itertools
from typing import Any

from pydantic_core import to_json
from river import compose, datasets, linear_model, preprocessing, tree

from online_learner.learners import Learner
from online_learner.learners.river import RiverLearner
from online_learner.schema import Example

LABELS = [False, True]


def logistic() -> compose.Pipeline:
    """Return a scaler and a logistic regression."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def hoeffding() -> tree.HoeffdingTreeClassifier:
    """Return a Hoeffding tree."""
    return tree.HoeffdingTreeClassifier()


def phishing() -> Learner:
    """Return a logistic regression that has seen a third of Phishing."""
    learner = RiverLearner(logistic(), task="classification", labels=LABELS)
    rows = itertools.islice(datasets.Phishing(), 400)
    learner.learn([Example(features=x, target=bool(y)) for x, y in rows])
    return learner


def spec(learner: str = "phishing", *, module: str = __name__, **changes: Any) -> dict[str, Any]:
    """Return the configuration of a model that learns with a factory of a module."""
    return {
        "task": "classification",
        "labels": LABELS,
        "learner": f"{module}:{learner}",
        **changes,
    }


def questions() -> list[bytes]:
    """Return the bodies of predict requests, one for each row of Phishing."""
    return [to_json({"features": x}) for x, _ in datasets.Phishing()]


def batches(size: int) -> list[bytes]:
    """Return the bodies of predict_batch requests of `size` rows."""
    rows = [{"features": x} for x, _ in datasets.Phishing()]
    return [to_json({"instances": rows[i : i + size]}) for i in range(0, 1200 - size, size)]
