"""A model whose answers are spoken of by some people, and not by others, as a stream.

The records, the table of signals, the learner and the lens are the real ones, called in the order
in which the loop calls them; there is no store. People speak `DELAY` answers later, and the window
of an answer ends `WINDOW` answers later. A coin draws audits, which an auditor answers.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from river.datasets import synth

from benchmarks import models
from benchmarks.hostile import raters
from benchmarks.streams import Row
from online_learner.evidence import Floats
from online_learner.learners.river import RiverLearner
from online_learner.schema import (
    Ask,
    Example,
    Feedback,
    Prediction,
    Settled,
    Sighting,
    Signal,
    label_key,
)
from policies.response import Response
from policies.signals import Signals
from policies.switch import Mode

N = 6_000
WARM = 200  # rows that the learner starts from
BLOCK, DELAY, WINDOW = 10, 20, 60  # answers
SELDOM, OFTEN = 0.08, 0.4  # the chance that somebody speaks: five times as large
ALIKE = 0.15
EXTREME = 0.8  # above this quantile of confidence an answer is extreme

Speaks = Callable[[bool, float], float]
"""The chance that somebody speaks: of whether the answer is right, and its rank by confidence."""

SILENCES: dict[str, Speaks] = {
    "wrong answers": lambda right, _: SELDOM if right else OFTEN,
    "the surest answers": lambda _, rank: OFTEN if rank > EXTREME else SELDOM,
    "all alike": lambda _right, _rank: ALIKE,
}


def _rows(made: Iterable[Any]) -> Iterator[Row]:
    return (({str(k): float(v) for k, v in x.items()}, bool(y)) for x, y in made)


def _noisy(rows: Iterable[Row], seed: int) -> Iterator[Row]:
    """Yield rows of which a fifth of the labels are wrong."""
    rng = random.Random(f"{seed} noise")
    return ((x, y != (rng.random() < 0.2)) for x, y in rows)


STREAMS: dict[str, Callable[[int], Iterable[Row]]] = {
    "SMS spam": lambda seed: raters.rows_of("SMS spam", seed, N),
    "Phishing": lambda seed: raters.rows_of("Phishing", seed, N),
    "Phishing, 20 % noise": lambda seed: _noisy(raters.rows_of("Phishing", seed, N), seed),
    "SEA, 25 % noise": lambda seed: _rows(synth.SEA(variant=2, seed=seed, noise=0.25)),
    "Hyperplane, 25 % noise": lambda seed: _rows(
        synth.Hyperplane(seed=seed, n_features=10, n_drift_features=0, noise_percentage=0.25)
    ),
    "RBF": lambda seed: _rows(
        synth.RandomRBF(seed_model=seed, seed_sample=seed, n_features=8, n_centroids=20)
    ),
    "Agrawal, tree": lambda seed: _rows(
        synth.Agrawal(classification_function=0, seed=seed, perturbation=0.1)
    ),
}


def rows_of(stream: str, seed: int, n: int = N) -> list[Row]:
    """Return the first rows of a stream that stays as it is."""
    return list(itertools.islice(STREAMS[stream](seed), n))


def learner_of(stream: str) -> RiverLearner:
    """Return a fresh learner of a stream: logistic regression, or a Hoeffding tree."""
    model = models.hoeffding() if stream.endswith("tree") else raters.model_of(stream)
    return RiverLearner(model, task="classification", labels=models.LABELS)


@dataclass(frozen=True, slots=True)
class Look:
    """The accuracy so far, and what is told of it; `blind` is what would be without audits."""

    accuracy: float
    volunteered: float
    corrected: float
    blind: float
    audited: float | None


@dataclass(slots=True)
class Run:
    """What came of one stream.

    Parameters
    ----------
    right
        Whether each answer was, shape `(n - WARM,)`.
    labels
        How many labels were learned.
    looks
        The true accuracy so far, and what the lens told at that moment.
    """

    right: Floats
    labels: int
    looks: list[Look]


@dataclass(slots=True)
class World:
    """A learner that starts warm, and those who speak of its answers."""

    stream: str
    speaks: Speaks
    audit: float
    rng: random.Random
    weigh: Mode = "off"
    share: float | None = None  # of answers whose label is told, whatever they are
    clip: float = 10.0
    learner: RiverLearner = field(init=False)
    lens: Response = field(init=False)
    told: Response = field(init=False)
    signals: Signals = field(init=False)
    labels: int = 0
    table: dict[str, Any] = field(default_factory=dict)
    sure: deque[float] = field(default_factory=lambda: deque(maxlen=300))

    def __post_init__(self) -> None:
        self.learner = learner_of(self.stream)
        self.lens = Response("classification", models.LABELS, weigh=self.weigh, clip=self.clip)
        self.told = Response("classification", models.LABELS, clip=self.clip)
        self.signals = Signals("classification", [*models.LABELS])

    def answer(self, features: dict[str, Any]) -> Prediction:
        """Answer one question; a coin draws whether it is audited."""
        [answer] = self.learner.predict([features])
        ask = Ask(reason="audit", probability=self.audit)
        drawn = self.rng.random() < self.audit
        return Prediction(
            model="web",
            features=features,
            output=answer.output,
            scores=answer.scores,
            version=1,
            lineage=1,
            step=1,
            ask=ask if drawn else None,
        )

    def feedback(self, prediction: Prediction, truth: bool, n: int) -> Feedback | None:
        """Return what is said of an answer, if anything."""
        confidence = prediction.scores[label_key(prediction.output)]
        rank = float(np.mean(np.array(self.sure) < confidence)) if self.sure else 0.5
        self.sure.append(confidence)
        coin = self.rng.random()
        chance = self.speaks(prediction.output == truth, rank)
        if self.share is not None:
            speaks = coin < self.share
        else:
            speaks = prediction.audited or coin < chance
        if not speaks:
            return None
        auditor = prediction.audited
        source = "human:auditor" if auditor else f"human:{n % 200}"
        return Feedback(
            kind="correction", value=truth, source=source, auditor=auditor, prediction_id=f"{n}"
        )

    def hear(self, prediction: Prediction, feedback: Feedback, entry: str, at_ms: int) -> None:
        """Have a signal observed, weighed and learned."""
        said = self.signals.said(feedback, prediction)
        signal = Signal(feedback, prediction, said, entry, at_ms)
        self.lens.hear(signal)
        lesson = self.signals.lesson(feedback, prediction)
        assert isinstance(lesson, Example)
        factor = self.told.factor(signal)
        self.labels += 1
        self.learner.learn([replace(lesson, weight=lesson.weight * factor)])

    def turn(self) -> None:
        """Tell the learner what was observed, where that is news."""
        table = self.lens.table()
        if table != self.table:
            self.told.adopt(table)
            self.table = table

    def settle(self, prediction: Prediction, feedback: Feedback | None, entry: str) -> None:
        """Have an audit settle."""
        told = feedback is not None
        scores = {"champion": float(feedback.value == prediction.output)} if feedback else {}
        self.lens.settle(entry, Settled(answered=told, auditor=told, scores=scores))

    def look(self, right: Sequence[bool]) -> Look:
        """Return what is told now."""
        told = self.lens.report()["estimates"]
        blind = self.lens._silence.estimate(audited=False)
        assert blind is not None
        return Look(
            accuracy=sum(right) / len(right),
            volunteered=told["volunteered"]["score"],
            corrected=told["corrected"]["score"],
            blind=blind["score"],
            audited=told["audited"] and told["audited"]["score"],
        )


def play(world: World, rows: Sequence[Row], *, observe: bool = True) -> Run:
    """Answer each row, and learn what is said of it.

    Parameters
    ----------
    observe
        Whether the lens looks on; it is asked twice, half-way and at the end.
    """
    world.learner.learn([Example(features=x, target=y) for x, y in rows[:WARM]])
    right, looks = list[bool](), list[Look]()
    waiting: deque[tuple[int, Prediction, Feedback | None]] = deque()
    seen: deque[tuple[int, Prediction, Feedback | None]] = deque()
    for n, (x, truth) in enumerate(rows[WARM:]):
        prediction = world.answer(x)
        right.append(prediction.output == truth)
        waiting.append((n, prediction, world.feedback(prediction, truth, n)))
        while waiting and waiting[0][0] <= n - DELAY:
            number, answer, said = waiting.popleft()
            if said is not None:
                world.hear(answer, said, f"{number}-0", number)
            if observe and answer.audited:
                world.settle(answer, said, f"{number}-0")
            seen.append((number, answer, said))
        while seen and seen[0][0] <= n - WINDOW:
            number, answer, said = seen.popleft()
            if observe:
                signals = () if said is None else (said,)
                world.lens.see(Sighting(f"{number}-0", number, answer, signals))
        if n % BLOCK == BLOCK - 1:
            world.turn()
        if observe and (n + 1) % ((len(rows) - WARM) // 2) == 0:
            looks.append(world.look(right))
    return Run(np.array(right, float), world.labels, looks)
