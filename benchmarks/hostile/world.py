"""A learner that raters teach, label by label, and what it loses where some of them lie.

The records, the table of signals, the policy and the learner are the real ones, in the order in
which the learner's process calls them; there is no store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks import models
from benchmarks.hostile.raters import WARM, Crowd, Said, model_of, rows_of, said_of, set_apart
from benchmarks.streams import Row
from online_learner.evidence import Floats
from online_learner.interpret import Validation as Policy
from online_learner.learners.river import RiverLearner
from online_learner.schema import Example, Feedback, Prediction, Signal
from policies.signals import Signals
from policies.validation import Accept, Validation

BLOCK, DELAY = 10, 20
WINDOW = 1_000  # labels that an accuracy is taken over
MS_EACH = 100  # a label every tenth of a second
BELIEVED = Accept("classification")


@dataclass(slots=True)
class World:
    """A learner that starts warm, and a policy."""

    policy: Policy
    signals: Signals = field(default_factory=lambda: Signals("classification", [*models.LABELS]))
    learner: RiverLearner = field(default_factory=lambda: learner_of("Phishing"))
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


def learner_of(stream: str) -> RiverLearner:
    """Return a fresh learner of a stream."""
    return RiverLearner(model_of(stream), task="classification", labels=models.LABELS)


def play(
    rows: Sequence[Row],
    said: Sequence[Said],
    policy: Policy,
    *,
    learner: RiverLearner | None = None,
    silent: bool = False,
) -> tuple[Floats, World]:
    """Answer each row, and learn what is said of it `DELAY` rows later.

    Parameters
    ----------
    learner
        One that has learned nothing; left out, a scaler and a logistic regression.
    silent
        Whether the liars say nothing.

    Returns
    -------
    Which answers were right, shape `(n - WARM,)`, and the world at the end.
    """
    world, right = World(policy), list[bool]()
    world.learner = learner or world.learner
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
    def of(cls, stream: str, crowd: Crowd, seed: int) -> Costs:
        """Play a crowd with liars in it."""
        rows = rows_of(stream, seed)
        honest, told = (said_of(rows, crowd, seed, honest=honest) for honest in (True, False))
        (without, _), (truthful, _), (believed, _), (defended, _) = (
            play(rows, said, policy, learner=learner_of(stream), silent=silent)
            for said, policy, silent in [
                (told, BELIEVED, True),
                (honest, BELIEVED, False),
                (told, BELIEVED, False),
                (told, Validation("classification"), False),
            ]
        )
        return cls(
            Cost.of(believed, without), Cost.of(defended, without), Cost.of(defended, truthful)
        )


def cost_of_defence(stream: str, crowd: Crowd, seed: int) -> Cost:
    """Return what the defence costs where nobody lies; everybody believed is the measure."""
    rows = rows_of(stream, seed)
    said = said_of(rows, crowd, seed, honest=True)
    believed, defended = (
        play(rows, said, policy, learner=learner_of(stream))[0]
        for policy in (BELIEVED, Validation("classification"))
    )
    return Cost.of(defended, believed)


def rights_of_group(stream: str, crowd: Crowd, seed: int) -> tuple[float, ...]:
    """Return how often the group, and then the others, get what is right to them, in per cent.

    Returns
    -------
    For the group, believed, over all and in the last quarter; defended, likewise; then the others.
    """
    rows = rows_of(stream, seed)
    rows, said = set_apart(rows, said_of(rows, crowd, seed, honest=True), crowd.apart)
    grouped = np.array([one.grouped for one in said[WARM:]])
    late = np.arange(len(grouped)) >= 0.75 * len(grouped)
    found = [
        play(rows, said, policy, learner=learner_of(stream))[0]
        for policy in (BELIEVED, Validation("classification"))
    ]
    return tuple(
        100.0 * float(right[who & when].mean())
        for who in (grouped, ~grouped)
        for right in found
        for when in (late | True, late)
    )
