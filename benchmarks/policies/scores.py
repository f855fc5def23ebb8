"""Do scores mean what they say? Calibration error of what was served, against the raw scores.

Each row is predicted, then learned; the observer of scores hears the truth of those that a coin
audits, as it would from the log, and what it advises scales the answers after it. What is measured
is what was served after the first thousand answers.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from river import datasets, naive_bayes

from benchmarks import models, report, texts
from benchmarks.report import Bar
from online_learner.evidence import Reliability
from online_learner.learners import Answer, Learner
from online_learner.learners.factory import make_learner
from online_learner.learners.river import RiverLearner
from online_learner.schema import (
    Ask,
    Example,
    Feedback,
    Label,
    Prediction,
    Said,
    Scaling,
    Shadow,
    Signal,
    label_key,
    place_of,
)
from online_learner.settings import ModelSpec
from policies.fitting import Truth
from policies.scores import Scores

FIRST = 1000  # answers before what is measured
PASSES = 5  # over Phishing: each in an order of its own, as new draws
SPARSE = 0.1  # of the answers are audited
AIM = 0.03
DRAWS = 20  # to tell the error that is chance alone
AUDIT = Ask(reason="audit", probability=1.0)

Row: TypeAlias = tuple[dict[str, Any], Label]
Told: TypeAlias = tuple[Answer, Label]  # what was answered, and what was right


@dataclass(slots=True)
class Outcome:
    """What one run gave, after the first answers."""

    raw: Reliability = field(default_factory=Reliability)
    served: Reliability = field(default_factory=Reliability)
    sure: list[float] = field(default_factory=list)
    raw_loss: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    right: int = 0
    on_after: int | None = None  # audits
    scalings: int = 0

    def take(self, answer: Answer, right: str, scaling: Scaling | None) -> None:
        """Take in one answer that was served."""
        output = label_key(answer.output)
        scores = answer.scores if scaling is None else scaling.apply(answer.scores)
        hit = float(output == right)
        self.raw.add(answer.scores[output], hit)
        self.served.add(scores[output], hit)
        self.sure.append(scores[output])
        self.raw_loss.append(Truth(right=right).loss(answer.scores))
        self.loss.append(Truth(right=right).loss(scores))
        self.right += int(hit)

    def by_chance(self) -> float:
        """Return the error that scores would have which mean exactly what they say."""
        rng, found = np.random.default_rng(0), []
        for _ in range(DRAWS):
            drawn = Reliability()
            for sure, u in zip(self.sure, rng.random(len(self.sure)), strict=True):
                drawn.add(sure, float(u < sure))
            found.append(drawn.error or 0.0)
        return statistics.mean(found)


def heard(told: Sequence[Told], *, audit: float, thumbs: bool = False, seed: int = 0) -> Outcome:
    """Return what was served, where so many answers are audited, and the lineage is followed."""
    lens, rng, outcome = Scores("classification"), random.Random(seed), Outcome()
    place, audited, before = place_of("latest", 1), 0, None
    for number, (answer, truth) in enumerate(told):
        right = label_key(truth)
        scaling = lens.scalings().get(place)
        outcome.scalings += scaling != before
        before = scaling
        if scaling is not None and outcome.on_after is None:
            outcome.on_after = audited
        if number >= FIRST:
            outcome.take(answer, right, scaling)
        if rng.random() < audit and answer.scores:
            audited += 1
            said = Said(right=truth)
            if thumbs and label_key(answer.output) != right:
                said = Said(wrong=answer.output)
            lens.hear(_signal(answer, said, scaling, str(number)))
    return outcome


def _signal(answer: Answer, said: Said, scaling: Scaling | None, entry: str) -> Signal:
    place: dict[str, Any] = {"version": 1, "lineage": 1, "step": 1}
    prediction = Prediction(
        model="m",
        features={},
        output=answer.output,
        scores=answer.scores if scaling is None else scaling.apply(answer.scores),
        scaling=scaling,
        ask=AUDIT,
        shadows={
            "champion": Shadow(output=answer.output, scores=answer.scores, **place),
            "anchor": Shadow(failed=True, **place),
        },
        **place,
    )
    feedback = Feedback(kind="correction", value=said.right, source="human:x", prediction_id="")
    return Signal(feedback, prediction, said, entry, 0)


def prequential(learner: Learner, rows: Sequence[Row]) -> Iterator[Told]:
    """Yield each answer and the truth that is learned after it."""
    for features, right in rows:
        [answer] = learner.predict([features])
        yield answer, right
        learner.learn([Example(features=features, target=right)])


# --- streams ----------------------------------------------------------------------------------


def sms(seed: int) -> list[Told]:
    """Return SMS Spam by the text head: in file order, or for a seed above 0 shuffled."""
    rows: list[Row] = [({"text": text}, label) for text, label in texts.sms()]
    if seed:
        random.Random(seed).shuffle(rows)
    return list(prequential(_head(["ham", "spam"], seed), rows))


def banking(seed: int) -> list[Told]:
    """Return Banking77, shuffled, by the text head."""
    rows = texts.banking(seed)
    head = _head(sorted({label for _, label in rows}), seed)
    return list(prequential(head, [({"text": text}, label) for text, label in rows]))


def phishing(seed: int) -> list[Told]:
    """Return Phishing by River's logistic regression, in passes."""
    return _passes(models.logistic(), seed)


def bayes(seed: int) -> list[Told]:
    """Return Phishing by naive Bayes, which is too sure."""
    return _passes(naive_bayes.GaussianNB(), seed)


def _passes(model: Any, seed: int) -> list[Told]:
    rng, rows = random.Random(seed), [(x, bool(y)) for x, y in datasets.Phishing()]
    drawn: list[Row] = [row for _ in range(PASSES) for row in rng.sample(rows, len(rows))]
    learner = RiverLearner(model, task="classification", labels=models.LABELS)
    return list(prequential(learner, drawn))


def _head(labels: list[str], seed: int) -> Learner:
    spec = {"task": "classification", "labels": labels, "learner": "torch:text", "seed": seed}
    made = make_learner(ModelSpec.model_validate(spec))
    assert isinstance(made, Learner)
    return made


# --- the section ------------------------------------------------------------------------------

STREAMS: dict[str, tuple[Callable[[int], list[Told]], int, int]] = {  # seeds: as a rule, in full
    "SMS spam, text head": (sms, 3, 10),
    "Phishing, River LR": (phishing, 5, 20),
    "Phishing, naive Bayes": (bayes, 5, 20),
    "Banking77, text head": (banking, 1, 5),
}
AIMED_AT = ("SMS spam, text head", "Phishing, River LR")


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return the table, and the bars on the two sets that they name."""
    rows, bars = [], []
    for name, (stream, seeds, many) in STREAMS.items():
        ways: dict[str, dict[str, Any]] = {"all": {"audit": 1.0}, "10 %": {"audit": SPARSE}}
        if stream is banking:
            ways["all, thumbs"] = {"audit": 1.0, "thumbs": True}
        found: dict[str, list[Outcome]] = {way: [] for way in ways}
        for seed in range(many if full else seeds):
            told = stream(seed)
            for way, options in ways.items():
                found[way].append(heard(told, seed=seed, **options))
        for way, outcomes in found.items():
            rows.append(_row(name, way, outcomes))
            if name in AIMED_AT:
                worst = max(outcome.served.error or 0.0 for outcome in outcomes)
                what = f"{name}, audited: {way}; calibration error as served, the worst run"
                bars.append(Bar(what, worst, AIM, at_most=True))
    head = ["stream", "audited", "runs", "accuracy", "raw error", "served", "by chance"]
    head += ["raw log loss", "served", "on after", "scalings"]
    return f"{_INTRO}\n\n{report.table(head, rows)}", bars


_INTRO = f"""Expected calibration error (ten bins of equal width) of the answer's own score, after
the first {FIRST:,} answers, mean and standard error over runs; each answer is scored by the scaling
that was known before it. *By chance*: of scores that mean exactly what they say. *On after*: so
many audits until the scaling had won, the median; where it did not win, scores are served as they
are. *Scalings*: how often gateways were told another one. SMS in file order, then shuffled;
Phishing has 1,250 rows: {PASSES} passes, each in an order of its own, stand for new draws.
*Thumbs*: of a wrong answer it is known only that it is wrong. All answers are learned from, audited
or not."""


def _row(name: str, way: str, outcomes: Sequence[Outcome]) -> list[str]:
    on = [outcome.on_after for outcome in outcomes if outcome.on_after is not None]
    share = f" ({len(on)} of {len(outcomes)})" if len(on) < len(outcomes) else ""
    return [
        name,
        way,
        str(len(outcomes)),
        _mean([outcome.right / outcome.raw.n for outcome in outcomes]),
        _mean([outcome.raw.error or 0.0 for outcome in outcomes]),
        _mean([outcome.served.error or 0.0 for outcome in outcomes]),
        f"{statistics.mean(outcome.by_chance() for outcome in outcomes):.4f}",
        _mean([statistics.mean(outcome.raw_loss) for outcome in outcomes]),
        _mean([statistics.mean(outcome.loss) for outcome in outcomes]),
        (f"{statistics.median(on):.0f}{share}" if on else "never"),
        f"{statistics.mean(outcome.scalings for outcome in outcomes):.0f}",
    ]


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.4f}"
    return f"{statistics.mean(values):.4f} +- {statistics.stdev(values) / len(values) ** 0.5:.4f}"
