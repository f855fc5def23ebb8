"""What all torch heads have in common: lessons in chunks, and state as safetensors."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any, Self, cast

import torch

from online_learner.errors import StateError
from online_learner.learners import Answer
from online_learner.learners.torch import tensors
from online_learner.learners.torch.goals import Goal
from online_learner.learners.torch.layers import Tensors
from online_learner.requests import Features
from online_learner.schema import Example, Lesson

CHUNK = 16  # lessons a step: each sees the weights as they were before its chunk


class Head(abc.ABC):
    """A classifier or a regressor whose state is tensors.

    Parameters
    ----------
    goal
        What it learns towards.
    config
        All that the state depends on beside the lessons, as a JSON object.
    device
        Where it computes.
    fitted
        Whether it has learned already.
    """

    family = "torch"

    def __init__(
        self, goal: Goal, config: dict[str, Any], device: torch.device, *, fitted: bool = False
    ) -> None:
        tensors.one_thread()
        self.complementary = goal.complementary
        self._goal = goal
        self._config = config
        self._device = device
        self._fitted = fitted

    @property
    def fitted(self) -> bool:
        """Whether it has learned anything yet."""
        return self._fitted

    @abc.abstractmethod
    def _fresh(self) -> Self:
        """Return a head like this one, to be given a state."""

    @abc.abstractmethod
    def _sums(self, batch: Sequence[Features]) -> torch.Tensor:
        """Return what the head says of each example, of shape (n_examples, width)."""

    @abc.abstractmethod
    def _step(
        self, batch: Sequence[Features], wanted: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Take one step, and return numbers that are finite if all of the state is.

        Parameters
        ----------
        batch
            The features of each example.
        wanted
            What `Goal.take` has made of the targets, of shape (n_examples,).
        weights
            How much each example counts, of shape (n_examples,).
        """

    @abc.abstractmethod
    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return what `_restore` needs, beside the goal's state."""

    @abc.abstractmethod
    def _restore(self, found: Tensors, about: dict[str, Any]) -> None:
        """Take over a state."""

    def predict(self, batch: Sequence[Features]) -> list[Answer]:
        """Answer each of the feature dicts.

        Raises
        ------
        TypeError, ValueError
            A feature is not for this model.
        FloatingPointError
            An answer would not be finite.
        """
        if not batch:
            return []
        sums = self._sums(batch)
        if not tensors.all_finite(sums):
            raise FloatingPointError("the answer to these features is not finite")
        return self._goal.answers(sums)

    def learn(self, lessons: Sequence[Lesson]) -> None:
        """Learn from the lessons, `CHUNK` of them at a time.

        Raises
        ------
        TypeError, ValueError
            A lesson is not for this model: its features, its target or its weight.
        FloatingPointError
            The weights are no longer finite: the state is ruined, and has to be restored.
        """
        for start in range(0, len(lessons), CHUNK):
            examples = _checked(lessons[start : start + CHUNK])
            if not examples:
                continue
            wanted = self._goal.take(examples).to(self._device)
            weights = torch.tensor([float(e.weight) for e in examples], device=self._device)
            ruin = self._step([example.features for example in examples], wanted, weights)
            if not tensors.all_finite(ruin):
                raise FloatingPointError("the weights are not finite after these lessons")
            self._fitted = True

    def to_bytes(self) -> bytes:
        """Return the whole state: safetensors, no pickle."""
        return tensors.pack(*self._whole())

    def digest(self) -> str:
        """Return the digest of the state, which is the same on every device."""
        return tensors.digest(*self._whole())

    def _whole(self) -> tuple[Tensors, dict[str, Any]]:
        found, about = self._state()
        aims, more = self._goal.state()
        about = about | more | {"config": self._config, "fitted": self._fitted}
        return found | prefixed("goal", aims), about

    def from_bytes(self, blob: bytes) -> Self:
        """Return a head with the state of `blob`, on this one's device.

        Raises
        ------
        StateError
            The bytes are damaged, or are the state of another configuration.
        """
        found, about = tensors.unpack(blob)
        tensors.check_same(self._config, about.get("config"))
        head = self._fresh()
        head.restore(found, about)
        return head

    def wearing(self, other: Self) -> Self:
        """Return a head like this one with the weights of another, whatever rate that learned at.

        Raises
        ------
        StateError
            They differ in more than that.
        """
        found, about = other._whole()
        return self.from_bytes(tensors.pack(found, tensors.at_rate(about, "config", self._config)))

    def restore(self, found: Tensors, about: dict[str, Any]) -> None:
        """Take over a state; raises `StateError` where it is not whole."""
        try:
            self._fitted = bool(about["fitted"])
            self._goal.restore(part_of(found, "goal"), about)
            self._restore(found, about)
            held = self._whole()
        except Exception as error:
            raise StateError(f"the state is damaged: {error!r}") from error
        tensors.check_whole(found, about, *held)


def prefixed(part: str, state: Tensors) -> Tensors:
    """Return the tensors of a part of a head, under names that say so."""
    return {f"{part}.{name}": tensor for name, tensor in state.items()}


def part_of(state: Tensors, part: str) -> Tensors:
    """Return the tensors that `prefixed` has named, under their own names."""
    start = f"{part}."
    return {
        name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)
    }


def _checked(lessons: Sequence[Lesson]) -> list[Example]:
    for lesson in lessons:
        if not isinstance(lesson, Example):
            raise TypeError(f"a {type(lesson).__name__} teaches rankers only, as torch:ranking")
        if not 0.0 <= lesson.weight < math.inf:
            raise ValueError(f"the weight of a lesson is 0 or more, and not {lesson.weight}")
    return [e for e in cast("Sequence[Example]", lessons) if e.weight]
