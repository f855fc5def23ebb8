"""Two real streams that come with River, and the learners that start on their first 5 %.

The rows are shuffled once; `--seed` shuffles what comes after the first 5 %. At half of it the
meaning of the labels is rotated: what was `sky` is now `window`, and so on.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from river import compose, datasets, linear_model, optim, preprocessing

from online_learner.schema import Label

WARM_SHARE = 0.05

Row = tuple[dict[str, Any], Label]


@dataclass(frozen=True)
class Stream:
    """A stream to be played: `rows` to predict, `warm` to start on, `turn` where labels rotate."""

    name: str
    labels: list[Label]
    warm: list[Row]
    rows: list[Row]
    turn: int
    learner: Callable[[], compose.Pipeline]


def phishing() -> compose.Pipeline:
    """Return the learner of the web pages, started on their first 5 %."""
    return _warmed(_phishing_fresh(), _rows(datasets.Phishing())[0])


def segments() -> compose.Pipeline:
    """Return the learner of the image segments, started on their first 5 %."""
    return _warmed(_segments_fresh(), _rows(datasets.ImageSegments())[0])


def load(seed: int) -> list[Stream]:
    """Return both streams, in the order of a seed."""
    return [
        _stream("phishing", datasets.Phishing(), phishing, seed),
        _stream("segments", datasets.ImageSegments(), segments, seed),
    ]


def _stream(name: str, dataset: Any, learner: Callable[[], compose.Pipeline], seed: int) -> Stream:
    warm, rest = _rows(dataset)
    random.Random(seed).shuffle(rest)
    labels = sorted({label for _, label in warm + rest}, key=str)
    rotated = dict(zip(labels, labels[1:] + labels[:1], strict=True))
    half = len(rest) // 2
    rows = rest[:half] + [(features, rotated[label]) for features, label in rest[half:]]
    return Stream(name, labels, warm, rows, half, learner)


def _rows(dataset: Any) -> tuple[list[Row], list[Row]]:
    rows = list(dataset)
    random.Random(0).shuffle(rows)
    cut = int(len(rows) * WARM_SHARE)
    return rows[:cut], rows[cut:]


def _phishing_fresh() -> compose.Pipeline:
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.1))


def _segments_fresh() -> compose.Pipeline:
    return preprocessing.StandardScaler() | linear_model.SoftmaxRegression(optim.SGD(0.1))


def _warmed(model: compose.Pipeline, rows: list[Row]) -> compose.Pipeline:
    for features, label in rows:
        model.learn_one(features, label)
    return model
