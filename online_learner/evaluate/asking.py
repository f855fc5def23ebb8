"""Ask a learner about rows whose truth is known, a batch at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar, cast

from online_learner.evaluate.measures import Labels, Numbers, Pairs
from online_learner.learners import Answer, Learner, Ranker
from online_learner.schema import Example, Ranked, Task

T = TypeVar("T")
Model: TypeAlias = Learner | Ranker
Taught: TypeAlias = Example | Ranked
Rewards: TypeAlias = tuple[float, float]
Given: TypeAlias = Answer | Rewards | None  # None: it failed

BATCH = 256


def measure_for(task: Task) -> Labels | Numbers | Pairs:
    """Return what measures the answers of a task."""
    if task == "classification":
        return Labels()
    return Numbers() if task == "regression" else Pairs()


def batches(rows: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """Yield rows in lists of a bounded length."""
    waiting = iter(rows)
    while batch := list(itertools.islice(waiting, size)):
        yield batch


def ask(learner: Model, truths: Sequence[Taught]) -> list[Given]:
    """Return what a learner answers to each, None where it fails.

    For a pair that is the reward of the one that was chosen, and of the other.
    """
    try:
        return _ask(learner, truths)
    except Exception:  # whatever a learner raises: find out of which row
        return [_alone(learner, truth) for truth in truths]


def _ask(learner: Model, truths: Sequence[Taught]) -> list[Given]:
    if isinstance(learner, Ranker):
        return [_rewards(learner, cast("Ranked", truth)) for truth in truths]
    return list(learner.predict([truth.features for truth in truths]))


def _alone(learner: Model, truth: Taught) -> Given:
    try:
        return _ask(learner, [truth])[0]
    except Exception:  # as above; it is counted as failed
        return None


def _rewards(learner: Ranker, truth: Ranked) -> Rewards:
    chosen, rejected = learner.score(truth.features, list(truth.options))
    return chosen, rejected


def take(measure: Labels | Numbers | Pairs, truth: Taught, given: Given) -> float:
    """Have an answer measured; returns how good it was."""
    if isinstance(measure, Pairs):
        chosen, rejected = cast("Rewards", given) if given is not None else (None, None)
        return measure.add(chosen, rejected, truth.weight)
    example = cast("Example", truth)
    target: Any = example.target
    return measure.add(target, cast("Answer | None", given), example.weight)
