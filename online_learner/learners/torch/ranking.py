"""Rankers: they learn from comparisons and judgements which options suit a context.

    learner: torch:ranking
    learner: {use: "torch:ranking", buckets: 65536, context: false}

A ranker is a linear scorer of options, and so a reward model: Bradley-Terry for two options,
Plackett-Luce for more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from online_learner.errors import ConfigError, StateError
from online_learner.learners.torch import tensors
from online_learner.learners.torch.pairs import Case, Pairs, Rows
from online_learner.learners.torch.scaling import Floats, Scaler
from online_learner.requests import MAX_MAGNITUDE, Features
from online_learner.schema import Lesson, Ranked, Rated
from online_learner.settings import ModelSpec

Comparison: TypeAlias = Ranked | Rated

_START = 1e-3  # added to the accumulators, so that the size of a first slope counts
_TOGETHER = 128  # options that are hashed at once


def ranker(
    *,
    spec: ModelSpec,
    buckets: int = 1 << 18,
    ngrams: int = 2,
    step: float = 1.5,
    context: bool = True,
) -> LinearRanker:
    """Make a linear ranker over hashed text, categories, numbers and lists of numbers.

    Parameters
    ----------
    buckets
        How many features can be told apart; beyond, some share a weight.
    ngrams
        The longest sequence of words that has a weight of its own.
    step
        How far a first lesson may move two options apart, in log-odds.
    context
        Whether options are seen in their context (query, prompt), or by themselves.

    Raises
    ------
    ConfigError
        A GPU is asked for, or an argument makes no sense.
    """
    if spec.resources.num_gpus and spec.on_gpu_missing != "cpu":
        raise ConfigError(
            "torch:ranking computes on the CPU: a lesson touches a few hundred weights, which is "
            "no work for a GPU. Set resources.num_gpus to 0, or `on_gpu_missing: cpu`"
        )
    if buckets < 1 or ngrams < 1 or not 0.0 < step < math.inf:
        raise ConfigError("torch:ranking: `buckets` and `ngrams` are 1 or more, `step` is above 0")
    return LinearRanker(Shape(buckets, ngrams, step, context))


@dataclass(frozen=True, slots=True)
class Shape:
    """All that a ranker's state depends on, beside its lessons: the arguments of `ranker`."""

    buckets: int
    ngrams: int
    step: float
    context: bool


class LinearRanker:
    """A weighted sum of what an option is, and of what it is in its context.

    Each lesson is one step of AdaGrad (Duchi, Hazan and Singer, JMLR 12, 2011), whose length is
    bounded by what it does to the scores: long and short texts learn alike.

    Parameters
    ----------
    shape
        What it is made of.
    """

    family = "torch"

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._pairs = Pairs(shape.buckets, ngrams=shape.ngrams, context=shape.context)
        self._scaler = Scaler(shape.buckets)
        self._weights = np.zeros(shape.buckets, np.float32)
        self._squares = np.zeros(shape.buckets, np.float32)  # of slopes so far
        self._slopes = np.zeros(shape.buckets)  # of one lesson; zero between lessons

    @property
    def fitted(self) -> bool:
        """Whether it has learned anything yet."""
        return bool(self._squares.any())

    def score(self, features: Features, options: Sequence[Features]) -> list[float]:
        """Return the reward of each option in this context; 0 before the first lesson.

        Raises
        ------
        TypeError, ValueError
            A feature has no encoding, or a number is not finite.
        """
        rows = self._pairs.rows(self._pairs.encode([(features, options)]), self._scaler)
        scores: list[float] = rows.sums(self._weights[rows.indices]).tolist()
        return scores

    def learn(self, lessons: Sequence[Lesson]) -> None:
        """Learn from comparisons and judgements, one after the other.

        Raises
        ------
        TypeError, ValueError
            A lesson is not for a ranker, or makes no sense: the message says why.
        FloatingPointError
            A lesson moves the weights beyond all bounds: the state has to be restored.
        """
        for chunk in _chunks(lessons):
            encoded = self._pairs.encode([_case(lesson) for lesson in chunk])
            self._scaler.learn_at(*encoded.numbers())
            rows = self._pairs.rows(encoded, self._scaler)
            for lesson, part in zip(chunk, rows.by_case(encoded.option_cases), strict=True):
                self._learn_one(lesson, part)

    def _learn_one(self, lesson: Comparison, rows: Rows) -> None:
        at, old = rows.indices, self._weights[rows.indices]
        by_score = slopes_of(lesson, rows.sums(old))
        by_entry = by_score[rows.options] * rows.values
        # Entries of one bucket add up before they are squared: what all options share says nothing.
        np.add.at(self._slopes, at, by_entry)
        slopes = self._slopes[at]
        self._slopes[at] = 0.0
        squares = np.square(slopes)
        moved = float(by_entry @ np.sign(slopes)) / (float(np.abs(by_score).max()) or 1.0)
        rate = self.shape.step * lesson.weight / max(moved, 1.0)
        new = old - rate * slopes / np.sqrt(self._squares[at] + squares + _START)
        if not (np.abs(new) <= MAX_MAGNITUDE).all():
            raise FloatingPointError("the weights are beyond all bounds after this lesson")
        self._weights[at] = new  # entries of one bucket write the same number
        self._squares[at] += lesson.weight * squares

    def _state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the weights that have learned, and which they are."""
        learned = np.flatnonzero((self._weights != 0) | (self._squares != 0))
        scales = {f"scale.{name}": tensor for name, tensor in self._scaler.state().items()}
        found = {
            "rows": torch.from_numpy(learned.astype(np.int32)),
            "weights": torch.from_numpy(self._weights[learned]),
            "squares": torch.from_numpy(self._squares[learned]),
        }
        return found | scales, {"shape": asdict(self.shape)}

    def to_bytes(self) -> bytes:
        """Return the whole state: safetensors, no pickle."""
        return tensors.pack(*self._state())

    def digest(self) -> str:
        """Return the digest of the state."""
        return tensors.digest(*self._state())

    def from_bytes(self, blob: bytes) -> LinearRanker:
        """Return a ranker with the state of `blob`.

        Raises
        ------
        StateError
            The bytes are damaged, or are the state of another configuration.
        """
        found, about = tensors.unpack(blob)
        tensors.check_same(asdict(self.shape), about.get("shape"))
        made = LinearRanker(self.shape)
        try:
            at = found["rows"].numpy()
            made._weights[at] = found["weights"].numpy()
            made._squares[at] = found["squares"].numpy()
            made._scaler.restore({k.removeprefix("scale."): v for k, v in found.items()})
            held = made._state()
        except Exception as error:
            raise StateError(f"the state is damaged: {error!r}") from error
        tensors.check_whole(found, about, *held)
        if not bool((found["squares"] >= 0).all()):
            raise StateError("the state is damaged: a square is below 0")
        return made

    def wearing(self, other: LinearRanker) -> LinearRanker:
        """Return a ranker like this one with the weights of another, whatever its `step` was.

        Raises
        ------
        StateError
            They differ in more than that.
        """
        found, about = other._state()
        about = tensors.at_rate(about, "shape", asdict(self.shape))
        return self.from_bytes(tensors.pack(found, about))


def _case(lesson: Comparison) -> Case:
    options = lesson.options if isinstance(lesson, Ranked) else (lesson.option,)
    return lesson.features, options


def _chunks(lessons: Sequence[Lesson]) -> Iterator[list[Comparison]]:
    """Yield the lessons in parts of bounded size, however many options each has."""
    chunk: list[Comparison] = []
    size = 0
    for lesson in lessons:
        chunk.append(checked(lesson))
        size += len(_case(chunk[-1])[1])
        if size >= _TOGETHER:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def checked(lesson: Lesson) -> Comparison:
    """Return the lesson.

    Raises
    ------
    TypeError, ValueError
        It is not for a ranker, or makes no sense; says why.
    """
    if not isinstance(lesson, Ranked | Rated):
        raise TypeError("a ranker learns from Ranked and Rated lessons: an Example names no option")
    if not 0.0 <= lesson.weight < math.inf:
        raise ValueError(f"a weight of {lesson.weight} is none")
    if isinstance(lesson, Rated) and not 0.0 <= lesson.reward <= 1.0:
        raise ValueError(f"a reward lies between 0 and 1, not at {lesson.reward}")
    if isinstance(lesson, Ranked) and (len(lesson.options) < 2 or lesson.places < 1):
        raise ValueError("a comparison decides one place or more, between two options or more")
    return lesson


def slopes_of(lesson: Comparison, scores: Floats) -> Floats:
    """Return the derivative of a lesson's loss by the score of each option.

    Parameters
    ----------
    scores
        Of shape (n_options,), in the lesson's order.
    """
    if isinstance(lesson, Rated):  # the logistic loss: the score is the log-odds of "good"
        return 0.5 * (1.0 + np.tanh(0.5 * scores)) - lesson.reward
    if lesson.worst_first:
        return -plackett_luce(-scores, lesson.places)
    return plackett_luce(scores, lesson.places)


def plackett_luce(scores: Floats, places: int) -> Floats:
    """Return the derivative of -log P(the first `places` places are filled in this order).

    At each stage an option is taken, of those that are left, with probability proportional to the
    exponential of its score (Plackett, The Analysis of Permutations, Applied Statistics 24, 1975).
    With two options this is Bradley-Terry.

    Parameters
    ----------
    scores
        Of shape (n_options,), in the order of preference.
    places
        How many places are decided, from the first on.

    Examples
    --------
    >>> plackett_luce(np.zeros(3), 1).round(3).tolist()
    [-0.667, 0.333, 0.333]
    """
    left = np.logaddexp.accumulate(scores[::-1])[::-1]  # log of the sum over those still there
    stages = np.logaddexp.accumulate(-left[:places])
    last = np.minimum(np.arange(len(scores)), len(stages) - 1)
    slopes: Floats = np.exp(scores + stages[last])
    slopes[:places] -= 1.0
    return slopes
