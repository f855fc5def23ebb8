"""What a head is after: from lessons to slopes of a loss, and from sums to answers."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch

from online_learner.learners import Answer
from online_learner.learners.torch.layers import Tensors
from online_learner.learners.torch.scaling import Scaler, checked
from online_learner.schema import Example, Label, label_key

Loss: TypeAlias = Literal["huber", "squared"]

MAX_LABELS = 1000  # that are learned as they come: nobody can fill the memory with labels

_key = functools.lru_cache(maxsize=4096, typed=True)(label_key)  # typed: True is not 1


class Goal(Protocol):
    """A task: what is to be learned from examples, and said of a head's sums."""

    width: int
    complementary: bool  # whether "not this one" can be learned

    def take(self, examples: Sequence[Example]) -> torch.Tensor:
        """Note what the examples ask for, and return one number for each, on the CPU.

        Raises
        ------
        TypeError, ValueError
            A target is nothing that the task can learn.
        """

    def slope(self, sums: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Return the derivative of each example's loss by its sums, of shape (n_examples, width).

        Parameters
        ----------
        sums
            What the head says, of shape (n_examples, width).
        wanted
            What `take` has returned, of shape (n_examples,).
        """

    def answers(self, sums: torch.Tensor) -> list[Answer]:
        """Return the answer of each example."""

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return what `restore` needs."""

    def restore(self, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
        """Take over a state."""


class Classes:
    """Classification by cross-entropy, over a sum for each label, or over one for two labels.

    A complementary example says that a label is not the right one; its loss is -log(1 - p) of that
    label (Kim et al., NLNL: Negative Learning for Noisy Labels, ICCV 2019).

    Parameters
    ----------
    labels
        The closed set of labels; left out, labels are learned as they come.
    single
        Whether two labels share one sum, whose sign tells them apart.
    """

    complementary = True

    def __init__(self, labels: Sequence[Label] | None = None, *, single: bool = True) -> None:
        self._labels = {label_key(label): label for label in labels or ()}
        self._closed = labels is not None
        self._single = single and self._closed and len(self._labels) == 2
        self._number()

    def _number(self) -> None:
        self._columns = {key: column for column, key in enumerate(self._labels)}
        self.width = 1 if self._single else len(self._labels)

    def take(self, examples: Sequence[Example]) -> torch.Tensor:
        """Return the column of each target; -1 less the column where it is complementary.

        Raises
        ------
        ValueError
            A target is not among the closed set of labels, or one too many.
        TypeError
            A target is no label at all.
        """
        wanted = [self._column(example.target) for example in examples]
        signed = (
            -1 - column if example.complementary else column
            for example, column in zip(examples, wanted, strict=True)
        )
        return torch.tensor(list(signed))

    def _column(self, target: Any) -> int:
        key = _key(target)
        found = self._columns.get(key)
        if found is not None:
            return found
        if self._closed:
            known = ", ".join(list(self._labels)[:20])
            raise ValueError(f"'{key[:99]}' is not one of the labels: {known}")
        if not isinstance(target, bool | int | str):
            raise TypeError(f"{key} is no label: a string, an integer or a boolean is one")
        if len(self._labels) == MAX_LABELS:
            raise ValueError(
                f"'{key[:99]}' is one too many: {MAX_LABELS} labels are learned at most"
            )
        self._labels[key] = target
        self._number()
        return self._columns[key]

    def slope(self, sums: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Return the derivative of the loss by the sums, of shape (n_examples, width)."""
        if self._single:  # not this label, of two: the other
            right = torch.where(wanted < 0, 2 + wanted, wanted)
            return sums.sigmoid() - right[:, None]
        slope = sums.softmax(1)
        never = wanted < 0
        if bool(never.any()):
            slope[never] = _away_from(sums[never], -1 - wanted[never], slope[never])
        right = torch.nonzero(~never).flatten()
        slope[right, wanted[right]] -= 1.0
        return slope

    def answers(self, sums: torch.Tensor) -> list[Answer]:
        """Return the answer of each example."""
        if not self._labels:
            return [Answer(None)] * len(sums)
        if self._single:
            sums = torch.cat([-sums, sums], dim=1) / 2
        labels, keys = list(self._labels.values()), list(self._labels)
        rows: list[list[float]] = sums.double().softmax(1).tolist()
        return [
            Answer(labels[row.index(max(row))], dict(zip(keys, row, strict=True))) for row in rows
        ]

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return the labels, in the order in which they came."""
        return {}, {"labels": list(self._labels.values())}

    def restore(self, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
        """Take over the labels."""
        labels = {label_key(label): label for label in about["labels"]}
        if self._closed and list(labels) != list(self._labels):
            raise ValueError("its labels are others than those of the configuration")
        self._labels = labels
        self._number()


def _away_from(sums: torch.Tensor, column: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Return the slope of -log(1 - p[column]): p[column] times (that label less the others).

    Written with the softmax over the others, it is finite where p[column] is 1.
    """
    if sums.shape[1] < 2:
        return torch.zeros_like(sums)
    at = (torch.arange(len(sums), device=sums.device), column)
    others = sums.index_put(at, sums.new_tensor(-math.inf)).softmax(1)
    slope = -others
    slope[at] = 1.0
    return slope * share[at][:, None]


class Numbers:
    """Regression.

    Parameters
    ----------
    loss
        `squared`, or `huber`: squared up to a distance of one, and straight beyond, so that one
        absurd target moves little (Huber, Ann. Math. Statist. 35, 1964).
    scaled
        Whether targets are learned in units of their own spread, so that no rate depends on it.
    """

    width = 1
    complementary = False

    def __init__(self, loss: Loss = "huber", *, scaled: bool = True) -> None:
        self._scaler = Scaler(1)
        self._scaled = scaled
        self._steepest = 1.0 if loss == "huber" else math.inf

    def take(self, examples: Sequence[Example]) -> torch.Tensor:
        """Return each target, in standard deviations from the mean where they are `scaled`.

        Raises
        ------
        TypeError, ValueError
            A target is not a finite number.
        """
        column = checked(np.array([[_number(example)] for example in examples], np.float64))
        if self._scaled:
            self._scaler.learn(column)
            column = self._scaler.scale(column).astype(np.float64)
        return torch.from_numpy(column[:, 0].astype(np.float32))

    def slope(self, sums: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Return the derivative of the loss by the sum, of shape (n_examples, 1)."""
        return (sums - wanted[:, None]).clamp(-self._steepest, self._steepest)

    def answers(self, sums: torch.Tensor) -> list[Answer]:
        """Return the answer of each example."""
        numbers = sums.double().cpu().numpy()
        if self._scaled:
            numbers = self._scaler.unscale(numbers)
        return [Answer(number) for number in numbers[:, 0].tolist()]

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return the mean and spread of the targets."""
        return self._scaler.state(), {}

    def restore(self, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
        """Take over the mean and spread."""
        self._scaler.restore(tensors)


def _number(example: Example) -> float:
    target = example.target
    if example.complementary:
        raise ValueError("that a number is wrong says nothing about the right one")
    if isinstance(target, bool) or not isinstance(target, int | float):
        raise TypeError(f"the target of a regression is a number, not {target!r}")
    return float(target)
