"""Asking: what a label is worth where the policy chooses the answers, against asking at random.

Every row is answered, and learned at once if its label is asked; nothing else is learned. Real
texts go to the text head, streams whose concept changes to a logistic regression.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from benchmarks import models, report, streams, texts
from benchmarks.report import Bar
from online_learner.learners import Learner
from online_learner.learners.factory import make_learner
from online_learner.learners.river import RiverLearner
from online_learner.schema import Example
from online_learner.settings import ModelSpec
from online_learner.settings.parts import SAMPLING
from policies.sampling import Entropy, Margin, Random, VariableUncertainty

Rows: TypeAlias = Sequence[tuple[dict[str, Any], Any]]

SEEDS, MORE_SEEDS = 4, 20
STREAM_SEEDS, MORE_STREAM_SEEDS = 8, 40
N = 6_000  # rows of a stream
MUCH, LITTLE = 0.2, 0.05  # of whose labels are asked
MOST_OFF = 2.0  # percent by which what is asked may differ from the budget
AIMS = {("SMS spam", 0.2): 0.966, ("SMS spam", 0.1): 0.944, ("Banking77", 0.2): 0.571}


class Asking(Protocol):
    """Says which labels are asked."""

    def ask(self, scores: Mapping[str, float], rng: random.Random) -> float | None:
        """Return None where none is."""


class Stepping:
    """The rule of Zliobaite et al. (2014) as printed: *RandVarUncertainty*, with its constants.

    Its budget is a ceiling, held over a fading window of 100 answers.
    """

    STEP, DEVIATION, WINDOW = 0.01, 1.0, 100

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.spent = 0.0
        self.threshold = 1.0

    def ask(self, scores: Mapping[str, float], rng: random.Random) -> float | None:
        """Return 1.0 where it asks: nobody divides by it here."""
        asked = False
        if self.spent / self.WINDOW < self.budget:
            drawn = self.threshold * rng.gauss(1.0, self.DEVIATION)
            asked = max(scores.values(), default=0.0) < drawn
            self.threshold *= 1.0 - self.STEP if asked else 1.0 + self.STEP
        self.spent = self.spent * (self.WINDOW - 1) / self.WINDOW + asked
        return 1.0 if asked else None


OURS = {kind.__name__: kind for kind in (Random, VariableUncertainty, Margin, Entropy)}
RANDOM, PRINTED = Random.__name__, "as printed in 2014"
DEFAULT = SAMPLING.rpartition(":")[2]  # what a model gets whose configuration names none
ALL = (*OURS, PRINTED)
BINARY = (RANDOM, DEFAULT, PRINTED)  # with two labels the measures are one


@dataclass(frozen=True, slots=True)
class Run:
    """One pass: the share of right answers, and of labels asked."""

    accuracy: float
    asked: float


def make(policy: str, budget: float) -> Asking:
    """Return a policy with its defaults."""
    return OURS[policy]("classification", budget) if policy in OURS else Stepping(budget)


def play(learner: Learner, rows: Rows, policy: Asking, seed: int) -> Run:
    """Answer every row, and learn those whose label is asked, one at a time."""
    rng = random.Random(seed)
    right = asked = 0
    for features, label in rows:
        [answer] = learner.predict([features])
        right += answer.output == label
        if policy.ask(answer.scores, rng) is not None:
            asked += 1
            learner.learn([Example(features=features, target=label)])
    return Run(right / len(rows), asked / len(rows))


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return the tables of accuracy by share of labels, and the bars."""
    off: list[float] = []
    try:
        text, bars = _texts(MORE_SEEDS if full else SEEDS, off)
    except texts.Absent as error:
        text, bars = f"Real texts are left out: {error}", []
    changing, more = _streams(MORE_STREAM_SEEDS if full else STREAM_SEEDS, off)
    kept = Bar("budget, the worst of all passes: off by", max(off), MOST_OFF, " %", at_most=True)
    return f"{text}\n\n{changing}", [*bars, *more, kept]


# --- real texts ---------------------------------------------------------------------------------


def _texts(seeds: int, off: list[float]) -> tuple[str, list[Bar]]:
    rows, bars = [], []
    for (name, budget), aim in AIMS.items():
        policies = BINARY if name == "SMS spam" else ALL
        for policy in policies:
            runs = [_text(name, policy, budget, seed) for seed in range(seeds)]
            mean, error = _mean([run.accuracy for run in runs])
            title = f"{name}, {budget:.0%} of labels, {policy}"
            rows.append([title, f"{mean:.4f}", f"{error:.4f}", *_asked(runs, budget)])
            off += _off(runs, budget) if policy in OURS else []
            if policy == DEFAULT:
                bars.append(Bar(f"{name}, {budget:.0%} of labels: accuracy", mean, aim))
    whole = ", ".join(f"{name} {_whole(name):.4f}" for name in ("SMS spam", "Banking77"))
    about = (
        f"One pass in order (Banking77 shuffled by each seed), the head `torch:text`; {seeds} "
        f"seeds. With all labels: {whole}."
    )
    head = ["what is asked", "accuracy", "s.e.", "least asked", "most asked"]
    return f"{about}\n\n{report.table(head, rows)}", bars


def _rows(name: str, seed: int) -> Rows:
    found = texts.sms() if name == "SMS spam" else texts.banking(seed)
    return [({"text": text}, label) for text, label in found]


def _head(rows: Rows) -> Learner:
    labels = sorted({label for _, label in rows})
    made = make_learner(ModelSpec(task="classification", labels=labels, learner="torch:text"))
    if not isinstance(made, Learner):
        raise TypeError("the text head answers")
    return made


def _text(name: str, policy: str, budget: float, seed: int) -> Run:
    rows = _rows(name, seed)
    return play(_head(rows), rows, make(policy, budget), seed)


def _whole(name: str) -> float:
    rows = _rows(name, 0)
    return play(_head(rows), rows, Random("classification", 1.0), 0).accuracy


# --- streams that change ------------------------------------------------------------------------


def _streams(seeds: int, off: list[float]) -> tuple[str, list[Bar]]:
    tables, bars = [], []
    for budget in (MUCH, LITTLE):
        rows, gains = [], []
        for stream in streams.STREAMS:
            runs = {
                policy: [_stream(stream, policy, budget, seed) for seed in range(seeds)]
                for policy in BINARY
            }
            for policy in (RANDOM, DEFAULT):
                off += _off(runs[policy], budget)
            base = np.array([run.accuracy for run in runs[RANDOM]])
            cells = [stream, f"{100 * base.mean():.2f}"]
            for policy in BINARY[1:]:
                found = 100 * (np.array([run.accuracy for run in runs[policy]]) - base)
                mean, error = _mean(found.tolist())
                cells += [f"{mean:+.2f}", f"{error:.2f}", *_asked(runs[policy], budget)[1:]]
                gains += [mean] if policy == DEFAULT else []
            rows.append(cells)
        head = ["stream", RANDOM, *(c for p in BINARY[1:] for c in (p, "s.e.", "most asked"))]
        about = f"{budget:.0%} of labels: accuracy in percent, and points beyond asking at random."
        tables.append(f"{about}\n\n{report.table(head, rows)}")
        title = f"streams that change, {budget:.0%} of labels: points beyond random"
        if budget == MUCH:
            bars.append(Bar(f"{title}, the worst stream", min(gains), 0.0))
        bars.append(Bar(f"{title}, mean", float(np.mean(gains)), 0.0))
    about = f"Streams of {N:,} rows, logistic regression from nothing; {seeds} seeds, paired."
    return "\n\n".join([about, *tables]), bars


def _stream(stream: str, policy: str, budget: float, seed: int) -> Run:
    learner = RiverLearner(models.logistic(), task="classification", labels=models.LABELS)
    return play(learner, streams.rows(stream, N, seed), make(policy, budget), seed)


# --- figures ------------------------------------------------------------------------------------


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5


def _asked(runs: Sequence[Run], budget: float) -> list[str]:
    found = [run.asked / budget for run in runs]
    return [f"{min(found):.1%}", f"{max(found):.1%}"]


def _off(runs: Sequence[Run], budget: float) -> list[float]:
    """Return by how many percent of the budget each pass asked too many or too few."""
    return [100 * abs(run.asked / budget - 1.0) for run in runs]
