"""What a learner has to do, and how one is made from a configuration.

A factory named in the configuration returns a River estimator or pipeline, or any object that
keeps the `Learner` protocol. It may return one that has been fitted: it then starts as version 1.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from online_learner.errors import ConfigError, did_you_mean
from online_learner.requests import Features
from online_learner.schema import Example, Output
from online_learner.settings import ModelSpec


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: `scores` are probabilities by label key for classification, else empty."""

    output: Output
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def uncertainty(self) -> float:
        """One minus the largest score; 0 where there are none."""
        return 1.0 - max(self.scores.values()) if self.scores else 0.0


@runtime_checkable
class Learner(Protocol):
    """A model that answers, learns from weighted examples, and travels as bytes."""

    family: str

    @property
    def fitted(self) -> bool:
        """Whether it has learned anything yet."""

    def predict(self, batch: Sequence[Features]) -> list[Answer]:
        """Answer each of the feature dicts. Changes nothing that a later answer depends on."""

    def learn(self, examples: Sequence[Example]) -> None:
        """Learn from the examples, in order."""

    def to_bytes(self) -> bytes:
        """Return the whole state."""

    def from_bytes(self, blob: bytes) -> Learner:
        """Return a learner like this one with the state of `blob`."""

    def digest(self) -> str:
        """Return a digest of the state that is equal for equal models, whatever their history."""


def resolve(path: str) -> Any:
    """Import `package.module:name`.

    Raises
    ------
    ConfigError
        The path is not of that form, or leads nowhere; says what the module has instead.
    """
    module_name, _, name = path.partition(":")
    if not name:
        raise ConfigError(f"'{path}' is not an import path: write package.module:name")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"cannot import '{module_name}' of '{path}': {error}") from error
    try:
        return getattr(module, name)
    except AttributeError:
        hint = did_you_mean(name, vars(module))
        raise ConfigError(f"'{module_name}' has no '{name}'.{hint}") from None


def make_learner(spec: ModelSpec) -> Learner:
    """Call the factory of a model and wrap what it returns."""
    factory: Callable[[], Any] = resolve(spec.learner)
    made = factory()
    if isinstance(made, Learner):
        return made
    from river.base import Estimator

    if isinstance(made, Estimator):
        from online_learner.learners.river import RiverLearner

        labels = len(spec.labels or ())
        if labels > 2 and not getattr(made, "_multiclass", True):
            raise ConfigError(
                f"'{spec.learner}' returned a model of two labels, and {labels} are configured: "
                "wrap it in river.multiclass.OneVsRestClassifier"
            )
        return RiverLearner(made, task=spec.task, labels=spec.labels)
    raise ConfigError(
        f"'{spec.learner}' returned a {type(made).__name__}: return a River estimator, or an "
        "object with the methods of online_learner.learners.Learner"
    )
