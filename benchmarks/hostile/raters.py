"""A world of raters: honest ones who err, and liars; a learner that they teach, label by label.

The records, the table of signals, the policy and the learner are the real ones, in the order in
which the learner's process calls them; there is no store.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from river import datasets
from river.datasets import synth

from benchmarks import models, streams
from benchmarks.streams import Row
from online_learner.evidence import Floats
from online_learner.learners.river import RiverLearner
from online_learner.replay import Validation as Policy
from online_learner.schema import Example, Feedback, Prediction, Signal
from policies.signals import Signals
from policies.validation import Accept, Validation

N, WARM, RATERS = 12_000, 600, 500
BLOCK, DELAY = 10, 20
NOISE = 0.05  # of honest labels that are wrong
WINDOW = 1_000  # labels that an accuracy is taken over
MS_EACH = 100  # a label every tenth of a second
SOURCE = "human:"


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who rates, and how.

    Parameters
    ----------
    liars, activity
        The share of raters who say the opposite of the truth, and how many times as many labels
        each of them gives as an honest one.
    from_
        The part of the stream after which they lie, and are so active; honest before.
    region
        Whether they lie only where the sum of the features is above its median.
    names
        Whether each lie comes from a name that was never heard before.
    keen
        The share of all labels that one honest rater gives.
    critics
        The share of raters who only speak where the answer was wrong.
    skewed
        Whether the n-th rater gives 1/n as many labels as the first.
    """

    raters: int = RATERS
    liars: float = 0.0
    activity: float = 1.0
    from_: float = 0.0
    region: bool = False
    names: bool = False
    keen: float = 0.0
    critics: float = 0.0
    skewed: bool = False

    def chances(self, *, lying: bool) -> list[float]:
        """Return the cumulated chance of each rater to be the next; liars come first."""
        chances = [1.0 / (n + 1) if self.skewed else 1.0 for n in range(self.raters)]
        if lying:
            for n in range(self.lying):
                chances[n] *= self.activity
        if self.keen:
            chances[-1] = sum(chances[:-1]) * self.keen / (1.0 - self.keen)
        return list(itertools.accumulate(chances))

    @property
    def lying(self) -> int:
        """The number of liars."""
        return round(self.liars * self.raters)


@dataclass(frozen=True, slots=True)
class Said:
    """What one rater is going to say of one row, or would."""

    rater: str
    label: bool
    critic: bool
    liar: bool


@lru_cache(maxsize=8)
def rows_of(stream: str, seed: int, n: int = N) -> tuple[Row, ...]:
    """Return the rows of a stream that stays as it is, or of one that drifts."""
    if stream in FIXED:
        return tuple(itertools.islice(FIXED[stream](seed), n))
    return tuple(streams.rows(stream, n, seed))


def _phishing(seed: int) -> Iterator[Row]:
    rows = [({k: float(v) for k, v in x.items()}, bool(y)) for x, y in datasets.Phishing()]
    rng = random.Random(seed)
    while True:
        yield from rng.sample(rows, len(rows))


def _made(rows: Any) -> Iterator[Row]:
    return (({str(k): float(v) for k, v in x.items()}, bool(y)) for x, y in rows)


FIXED: dict[str, Callable[[int], Iterator[Row]]] = {
    "Phishing": _phishing,
    "SEA": lambda seed: _made(synth.SEA(variant=0, seed=seed)),
    "Hyperplane": lambda seed: _made(
        synth.Hyperplane(seed=seed, n_features=10, n_drift_features=0, noise_percentage=0.05)
    ),
}


def said_of(rows: Sequence[Row], crowd: Crowd, seed: int, *, honest: bool) -> list[Said]:
    """Return who says what of each row; where all are `honest`, the same raters as otherwise."""
    rng = random.Random(f"{seed} said")
    median = float(np.median([_place(x) for x, _ in rows]))
    before, after = (crowd.chances(lying=lying) for lying in (False, True))
    critics = crowd.raters - round(crowd.critics * crowd.raters)
    found = []
    for n, (x, truth) in enumerate(rows):
        lying = n >= crowd.from_ * len(rows)
        [rater] = rng.choices(range(crowd.raters), cum_weights=after if lying else before)
        label = truth != (rng.random() < NOISE)
        liar = lying and rater < crowd.lying
        if liar and not honest and (not crowd.region or _place(x) > median):
            label = not truth
        name = f"{n}" if liar and crowd.names else f"rater {rater}"
        found.append(Said(SOURCE + name, label, rater >= critics, liar))
    return found


def _place(x: dict[str, float]) -> float:
    """Return what tells the regions of the inputs apart: the sum of all features."""
    return sum(x.values())


@dataclass(slots=True)
class World:
    """A learner that starts warm, and a policy."""

    policy: Policy
    signals: Signals = field(default_factory=lambda: Signals("classification", [*models.LABELS]))
    learner: RiverLearner = field(
        default_factory=lambda: RiverLearner(
            models.logistic(), task="classification", labels=models.LABELS
        )
    )
    aside: int = 0

    def warm(self, rows: Sequence[Row]) -> None:
        """Learn some rows as they are."""
        self.learner.learn([Example(features=x, target=y) for x, y in rows])

    def answer(self, rows: Sequence[Row]) -> list[Prediction]:
        """Answer some rows."""
        answers = self.learner.predict([x for x, _ in rows])
        place = {"model": "web", "version": 1, "lineage": 1, "step": 1}
        return [
            Prediction(features=x, output=a.output, scores=a.scores, **place)
            for (x, _), a in zip(rows, answers, strict=True)
        ]

    def hear(self, prediction: Prediction, answer: str, said: Said, at_ms: int) -> None:
        """Have a label looked at, weighed and learned."""
        feedback = Feedback(
            kind="correction", value=said.label, source=said.rater, prediction_id=answer
        )
        told = self.signals.said(feedback, prediction)
        self.take(Signal(feedback, prediction, told, answer, at_ms))

    def take(self, signal: Signal) -> None:
        """Have a signal looked at, weighed and learned."""
        if self.policy.look(signal) is not None:
            self.aside += 1
            return
        lesson = self.signals.lesson(signal.feedback, signal.prediction)
        assert isinstance(lesson, Example)
        weight = self.policy.weigh(signal, lesson.weight)
        self.learner.learn([replace(lesson, weight=weight)])


def play(
    rows: Sequence[Row], said: Sequence[Said], policy: Policy, *, silent: bool = False
) -> tuple[Floats, World]:
    """Answer each row, and learn what is said of it `DELAY` rows later.

    Parameters
    ----------
    silent
        Whether the liars say nothing.

    Returns
    -------
    Which answers were right, shape `(n - WARM,)`, and the world at the end.
    """
    world, right = World(policy), list[bool]()
    world.warm(rows[:WARM])
    waiting: deque[tuple[int, Prediction]] = deque()
    for start in range(WARM, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        answers = world.answer(block)
        right += [a.output == y for a, (_, y) in zip(answers, block, strict=True)]
        waiting.extend((start + n, answer) for n, answer in enumerate(answers))
        while len(waiting) > DELAY:
            n, answer = waiting.popleft()
            if speaks(said[n], answer) and not (silent and said[n].liar):
                world.hear(answer, f"{n}-0", said[n], n * MS_EACH)
    return np.array(right, float), world


def speaks(said: Said, answer: Prediction) -> bool:
    """Tell whether a rater says something: critics only do where they disagree."""
    return not said.critic or said.label != answer.output


@dataclass(frozen=True, slots=True)
class Cost:
    """Points of accuracy lost over a sliding window: the most, at the end, and on average."""

    worst: float
    end: float
    mean: float

    @classmethod
    def of(cls, right: Floats, without: Floats) -> Cost:
        """Compare a run with the same one without an attack."""
        lost = 100.0 * (without - right)
        sums = np.concatenate([[0.0], np.cumsum(lost)])
        windows = (sums[WINDOW:] - sums[:-WINDOW]) / WINDOW
        return cls(float(windows.max()), float(windows[-1]), float(lost.mean()))


@dataclass(frozen=True, slots=True)
class Costs:
    """What a crowd costs: everybody believed, defended, and defended against a stricter measure.

    The measure is the same stream without the liars. The stricter one has them tell the truth,
    which is more than a policy can bring back.
    """

    believed: Cost
    defended: Cost
    strictly: Cost

    @classmethod
    def of(cls, stream: str, crowd: Crowd, seed: int, n: int = N) -> Costs:
        """Play a crowd."""
        rows = rows_of(stream, seed, n)
        honest, told = (said_of(rows, crowd, seed, honest=honest) for honest in (True, False))
        accept = Accept("classification")
        without, _ = play(rows, told, accept, silent=True)
        truthful, _ = play(rows, honest, accept) if crowd.lying else (without, None)
        believed, _ = play(rows, told, accept)
        defended, _ = play(rows, told, Validation("classification"))
        return cls(
            Cost.of(believed, without), Cost.of(defended, without), Cost.of(defended, truthful)
        )
