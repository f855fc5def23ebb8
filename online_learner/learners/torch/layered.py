"""Torch heads: classifiers and regressors that learn in one pass, linear or with one hidden layer.

    learner: torch:text                                  # hashed words and pairs of words
    learner: {use: "torch:dense", dim: 384}              # an embedding that the caller sends
    learner: {use: "torch:mixed", hidden: 32}            # numbers, categories, booleans, text

A `torch.nn.Module` of your own is served too, see `module`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch

from online_learner.errors import ConfigError
from online_learner.learners.torch.encode import Encoder
from online_learner.learners.torch.goals import Classes, Goal, Loss, Numbers
from online_learner.learners.torch.head import Head, part_of, prefixed
from online_learner.learners.torch.layers import DenseLayer, Layer, SparseLayer, Tensors
from online_learner.learners.torch.readers import MAX_PLACES, HashedReader, Reader, VectorReader
from online_learner.learners.torch.tensors import device_of
from online_learner.requests import Features
from online_learner.schema import Label
from online_learner.settings import ModelSpec

MAX_BUCKETS = 1 << 30
MAX_NGRAMS = 8


def text(
    *,
    spec: ModelSpec,
    buckets: int = 1 << 18,
    ngrams: int = 2,
    lr: float = 2.5,
    loss: Loss = "huber",
) -> LayeredHead:
    """Make a linear head over hashed words and n-grams of words, of every string in the features.

    Numbers and booleans beside the text count too.

    Parameters
    ----------
    buckets
        How many words and n-grams can be told apart; beyond, some share their weights.
    ngrams
        The longest sequence of words that has weights of its own.
    lr
        The learning rate.
    loss
        Of a regression: `huber`, or `squared`.
    """
    return mixed(spec=spec, buckets=buckets, ngrams=ngrams, lr=lr, loss=loss)


def mixed(
    *,
    spec: ModelSpec,
    hidden: int = 0,
    buckets: int = 1 << 18,
    ngrams: int = 2,
    lr: float = 1.0,
    loss: Loss = "huber",
) -> LayeredHead:
    """Make a head over numbers, booleans, categories and text together, all of them hashed.

    Parameters
    ----------
    hidden
        The width of a hidden layer; 0 for none.
    buckets, ngrams, lr, loss
        As of `text`.
    """
    more = {"buckets": buckets, "ngrams": ngrams}
    return _head(spec, reads="entries", hidden=hidden, lr=lr, loss=loss, **more)


def dense(
    *,
    spec: ModelSpec,
    dim: int | None = None,
    hidden: int = 0,
    lr: float = 1.0,
    loss: Loss = "huber",
) -> LayeredHead:
    """Make a head over an embedding, and the numbers beside it.

    Parameters
    ----------
    dim
        The length of the embedding; left out, that of the first lesson.
    hidden
        The width of a hidden layer; 0 for none.
    lr, loss
        As of `text`.
    """
    return _head(spec, reads="vector", hidden=hidden, dim=dim, lr=lr, loss=loss)


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """All that a head's state depends on, beside its lessons."""

    task: str
    labels: list[Label] | None
    seed: int
    reads: Literal["entries", "vector"]
    hidden: int
    lr: float
    loss: Loss
    dim: int | None = None
    buckets: int = 1
    ngrams: int = 1

    def __post_init__(self) -> None:
        sound = {
            "hidden": 0 <= self.hidden <= MAX_PLACES,
            "lr": 0 < self.lr < math.inf,
            "loss": self.loss in get_args(Loss),
            "dim": self.dim is None or 1 <= self.dim <= MAX_PLACES,
            "buckets": 1 <= self.buckets <= MAX_BUCKETS,
            "ngrams": 1 <= self.ngrams <= MAX_NGRAMS,
        }
        if wrong := [f"`{name}: {getattr(self, name)}`" for name in sound if not sound[name]]:
            raise ConfigError(f"learner: {', '.join(wrong)} is nothing that a head can have")


def _head(spec: ModelSpec, *, hidden: int, lr: float, loss: Loss, **more: Any) -> LayeredHead:
    if spec.task not in ("classification", "regression"):
        raise ConfigError(
            f"a head does classification or regression, and the task is {spec.task}: "
            "use torch:ranking"
        )
    config = HeadConfig(spec.task, spec.labels, spec.seed, hidden=hidden, lr=lr, loss=loss, **more)
    return LayeredHead(config, device_of(spec))


class LayeredHead(Head):
    """One layer, or two with rectified units between, over what a reader sees.

    Parameters
    ----------
    config
        What it is made of.
    device
        Where it computes.
    """

    def __init__(self, config: HeadConfig, device: torch.device) -> None:
        goal = _goal(config)
        super().__init__(goal, asdict(config), device)
        self._settings = config
        self._reader = _reader(config, device)
        self._width = config.hidden
        weight = self._weights(0, self._reader.width)
        kind = DenseLayer if config.reads == "vector" else SparseLayer
        self._first: Layer = kind(weight)
        self._second = DenseLayer(self._zeros(config.hidden)) if config.hidden else None

    def _weights(self, start: int, stop: int) -> torch.Tensor:
        """Return the weights that inputs `start` to `stop` begin with."""
        if not self._width:
            return self._zeros(stop - start)
        seed = (self._settings.seed * MAX_BUCKETS + start) % (1 << 63)
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(stop - start, self._width, generator=generator).to(self._device)

    def _zeros(self, rows: int) -> torch.Tensor:
        return torch.zeros(rows, self._goal.width, device=self._device)

    def _fresh(self) -> LayeredHead:
        return LayeredHead(self._settings, self._device)

    def _sums(self, batch: Sequence[Features]) -> torch.Tensor:
        return self._forward(self._reader.read(batch))[0]

    def _forward(self, x: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the head says, and what its last layer was given."""
        if self._second is None:
            return self._first.forward(x), x
        units = self._first.forward(x).relu_().mul_(self._width**-0.5)
        return self._second.forward(units), units

    def _step(
        self, batch: Sequence[Features], wanted: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        x = self._reader.learn(batch)
        self._grow()
        sums, given = self._forward(x)
        slope = self._goal.slope(sums, wanted)
        if self._second is not None:
            below = self._second.backward(slope) * (given > 0) * self._width**-0.5
            self._first.step(x, below, weights, self._settings.lr)
        self._last.step(given, slope, weights, self._settings.lr)
        return torch.cat([slope.sum(0), self._last.bias_squares])

    @property
    def _last(self) -> Layer:
        return self._first if self._second is None else self._second

    def _grow(self) -> None:
        """Make room for new labels and new inputs."""
        if self._last.width < self._goal.width:
            self._last.widen(self._goal.width)
        known = len(self._first.weight)
        if known < self._reader.width:
            self._first.lengthen(self._weights(known, self._reader.width))

    def _layers(self) -> dict[str, Layer]:
        return {"first": self._first} | ({} if self._second is None else {"second": self._second})

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        seen, about = self._reader.state()
        found = prefixed("reader", seen)
        for name, layer in self._layers().items():
            found |= prefixed(name, layer.state())
        return found, about

    def _restore(self, found: Tensors, about: dict[str, Any]) -> None:
        self._reader.restore(part_of(found, "reader"), about)
        goal = self._goal.width
        ends = {"first": (self._reader.width, self._width or goal), "second": (self._width, goal)}
        for name, layer in self._layers().items():
            layer.restore(part_of(found, name), *ends[name])


def _reader(config: HeadConfig, device: torch.device) -> Reader:
    if config.reads == "vector":
        return VectorReader(device, dim=config.dim)
    return HashedReader(Encoder(config.buckets, ngrams=config.ngrams), device)


def _goal(config: HeadConfig) -> Goal:
    return Classes(config.labels) if config.task == "classification" else Numbers(config.loss)
