"""What a learner has to do. Three families: `river`, torch heads, and rankers.

A factory named in the configuration (see `learners.factory`) returns a River estimator or pipeline,
a `torch.nn.Module`, or any object that keeps one of these protocols. It may return one that has
been fitted: it then starts as version 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self, runtime_checkable

from online_learner.requests import Features
from online_learner.schema import Lesson, Output


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    `scores` are probabilities by label key for classification, rewards by option id for a ranking,
    and empty for regression.
    """

    output: Output
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def uncertainty(self) -> float:
        """One minus the largest probability; 0 where there are none."""
        if not self.scores or isinstance(self.output, list):
            return 0.0
        return 1.0 - max(self.scores.values())


@runtime_checkable
class Model(Protocol):
    """What learns from weighted lessons, and travels as bytes.

    A learner that can take complementary examples ("not this label") says so by a true attribute
    `complementary`; without one, they are set aside before they reach it.
    """

    family: str

    @property
    def fitted(self) -> bool:
        """Whether it has learned anything yet."""

    def learn(self, lessons: Sequence[Lesson]) -> None:
        """Learn from the lessons, in order.

        Raises
        ------
        Exception
            Any: a lesson cannot be taken, or has ruined the model. The caller restores the state,
            finds the lesson, sets it aside with the reason, and learns the others.
        """

    def to_bytes(self) -> bytes:
        """Return the whole state."""

    def from_bytes(self, blob: bytes) -> Self:
        """Return a learner like this one with the state of `blob`; this one stays as it is."""

    def digest(self) -> str:
        """Return a digest of the state that is equal for equal models, whatever their history."""


@runtime_checkable
class Learner(Model, Protocol):
    """A classifier or a regressor."""

    def predict(self, batch: Sequence[Features]) -> list[Answer]:
        """Answer each of the feature dicts. Changes nothing that a later answer depends on.

        Raises
        ------
        TypeError, ValueError, KeyError, ArithmeticError
            These features cannot be taken; the message says what would be. The client is told.
        """


@runtime_checkable
class Ranker(Model, Protocol):
    """A scorer of options, learned from comparisons and judgements: a reward model."""

    def score(self, features: Features, options: Sequence[Features]) -> list[float]:
        """Return the reward of each option in this context; raises as `Learner.predict` does.

        Differences of rewards are log-odds of preference; the logistic of a reward is the
        probability that the option is good.
        """
