"""What every observer keeps to, whatever the task, the labels and what is said: it never fails."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from online_learner.evidence import Terms
from online_learner.judge import Judge
from online_learner.schema import (
    Ask,
    Audit,
    Feedback,
    Label,
    Option,
    Output,
    Prediction,
    Raised,
    Scaling,
    Settled,
    Shadow,
    Sighting,
    Signal,
    label_key,
)
from online_learner.settings import ModelSpec
from online_learner.stages import make_lenses, make_signals

LONG = "ß" * 300
COUNT = 300
NAMES = ("quality", "response", "raters", "drift", "implicit", "scores")
SOURCES = (
    "human:ada",
    f"human:{LONG}",
    "model:judge",
    "key:1",
    "system:rule",
    "human:",
    "human:🙂",
)
LABELS: Mapping[str, list[Label] | None] = {
    "two": ["ham", "spam"],
    "booleans": [False, True],
    "numbers": [0, 1, 2],
    "odd": ["", LONG, "ja/nein", "🙂", "true"],
    "seventy-seven": [f"intent {n}" for n in range(77)],
    "learned": None,
}
CASES = [("classification", name) for name in LABELS]
CASES += [(task, "learned") for task in ("regression", "ranking", "generation")]
EVENTS = ("click", "dwell", "skip", "feedback_shown", LONG)
ASKS = (
    None,
    Ask(reason="audit", probability=1.0),
    Ask(reason="audit", probability=0.1),
    Ask(reason="uncertain", probability=0.02),
    Ask(reason="gold", probability=1.0),
)
FEATURES: Sequence[dict[str, Any]] = (
    {},
    {"text": "free money", "plan": "paid", "n": 3},
    {"text": LONG * 10, "plan": None, "n": -1e300, LONG: 1.0},
    {"text": "", "plan": True, "n": 0.0, "vector": [0.1, -0.2, 0.3]},
    {"plan": {"nested": [1, "two", None]}, "n": "three", "vector": []},
    {"messages": [{"role": "user", "content": "hello"}], "n": 10**30},
)


class World:
    """Gives answers of a task, and has everybody say everything that can be said of them."""

    def __init__(self, task: str, labels: str, seed: int = 0) -> None:
        learner = "tiny_ranker:ranker" if task in {"ranking", "generation"} else None
        self.spec = ModelSpec.model_validate(
            {
                "task": task,
                "labels": LABELS[labels],
                "learner": learner or "river.naive_bayes:GaussianNB",
                "guard_segments": ["plan"],
                "categories": {"helpful": "up", "wrong": "down", "odd": "ignore"},
                "implicit_weight": 0.1,
            }
        )
        self.signals = make_signals(self.spec)
        self.rng = random.Random(seed)
        self.labels: Sequence[Label] = LABELS[labels] or [f"label {n}" for n in range(300)]

    def told(self, count: int = COUNT) -> Iterator[Sighting | Signal | tuple[str, Settled]]:
        """Yield what comes, in an order in which it may come."""
        judge = Judge(terms=Terms(), deadline_s=20.0, names=label_key)
        for n in range(count):
            at_ms, entry = 1_800_000_000_000 + 1000 * n, f"{1_800_000_000_000 + 1000 * n}-0"
            answer = self.answer(n)
            said = [self.say(answer) for _ in range(self.rng.randrange(5))]
            if answer.audited:
                judge.see_audit(entry, self.audit(answer))
            for feedback in said:
                signal = Signal(
                    feedback, answer, self.signals.said(feedback, answer), entry, at_ms + 500
                )
                judge.see_signal(
                    entry,
                    signal.said,
                    rater=feedback.source,
                    auditor=feedback.auditor,
                    at_ms=signal.at_ms,
                )
                yield signal
            yield from judge.settle(now=at_ms / 1000)
            yield Sighting(entry, at_ms, answer, tuple(said))

    def audit(self, answer: Prediction) -> Audit:
        """Return what the gatekeeper reads of an answer."""
        plan = answer.features.get("plan")
        segments = {"plan": "" if plan is None else label_key(plan)[:100]}
        return Audit(
            generation=answer.generation, roles=answer.shadows, shown="champion", segments=segments
        )

    def answer(self, n: int) -> Prediction:
        """Return an answer: sure or not, whole or not, with or without others beside it."""
        rng = self.rng
        ask = rng.choice(ASKS)
        output, scores, options = self.output()
        roles = ["champion", "latest", "anchor", "challenger:7"][: rng.randint(1, 4)]
        shadows = {role: self.shadow(n) for role in roles} if ask and ask.reason == "audit" else {}
        scaled = rng.random() < 0.2 and len(scores) > 1 and not options
        scaling = Scaling(slope=0.5, shifts={next(iter(scores)): 1.0}) if scaled else None
        return Prediction(
            model="m",
            features=rng.choice(FEATURES),
            options=options,
            output=output,
            scores=scaling.apply(scores) if scaling else scores,
            scaling=scaling,
            uncertainty=rng.random(),
            version=n // 100,
            lineage=1 + n // 150,
            step=n,
            role=rng.choice(["champion", "champion", "anchor"]),
            explored=rng.random() < 0.1,
            blocked=rng.random() < 0.05,
            generation=n // 100,
            ask=ask,
            shadows=shadows,
            tags={"team": LONG},
            user_id=rng.choice([None, "ada", LONG]),
        )

    def output(self) -> tuple[Output, dict[str, float], list[Option]]:
        """Return an answer, its scores, and what there was to choose from."""
        rng = self.rng
        if self.spec.task == "regression":
            return rng.choice([0.0, -1e300, 3.5, rng.gauss(0, 1)]), {}, []
        if self.spec.task != "classification":
            names = rng.sample(["a", "b", LONG, "🙂"], rng.randint(1, 4))
            scores = {name: rng.gauss(0, 10) for name in names}
            return names, scores, [Option(id=name, features={"x": 1.0}) for name in names]
        if rng.random() < 0.05:
            return None, {}, []  # no label is known yet
        some = self.labels if self.spec.labels else rng.sample(list(self.labels), rng.randint(1, 9))
        weights = [rng.choice([0.0, 1e-300, 1.0, rng.random()]) for _ in some]
        weights[rng.randrange(len(weights))] += 1.0
        scores = {label_key(x): w / sum(weights) for x, w in zip(some, weights, strict=True)}
        return max(some, key=lambda x: scores[label_key(x)]), scores, []

    def shadow(self, n: int) -> Shadow:
        """Return what a role answered, or that it failed."""
        place = {"version": n // 100, "lineage": 1 + n // 150, "step": n}
        output, scores, options = self.output()
        if self.rng.random() < 0.05:
            return Shadow(failed=True, **place)
        return Shadow(output=output, scores={} if options else scores, **place)

    def say(self, answer: Prediction) -> Feedback:
        """Return something that may be said of an answer."""
        kinds = self.signals.kinds()
        kind = self.rng.choice(kinds)
        source = self.rng.choice(SOURCES)
        auditor = source == "human:ada" and self.rng.random() < 0.3
        interface = self.rng.choice([None, {"id": LONG, "variant": "b", "position": 3}])
        return Feedback(
            kind=kind,
            value=self.value(kind, answer),
            source=source,
            auditor=auditor,
            prediction_id="p",
            interface=interface,
            comment=LONG,
        )

    def value(self, kind: str, answer: Prediction) -> Any:
        """Return what is said."""
        rng, shown = self.rng, answer.shown() if answer.output is not None else []
        if kind == "correction":
            if self.spec.task == "classification":
                return rng.choice(list(self.labels))
            if self.spec.task == "regression":
                return rng.choice([1e300, 0.0, rng.gauss(0, 1)])
            return rng.choice([shown[0], {"features": {"x": 2.0}}])
        if kind == "selection":
            if self.spec.task == "classification":
                return rng.choice([None, *self.labels])
            return rng.choice([None, *shown])
        values: dict[str, Any] = {
            "thumbs": rng.random() < 0.5,
            "rating": {"value": rng.choice([1, 5, 2.5]), "scale": [1, 5]},
            "preference": {"chosen": shown[0], "rejected": shown[-1]} if shown else None,
            "ranking": list(reversed(shown)),
            "category": rng.choice(["helpful", "wrong", "odd"]),
            "flag": {
                "rule": LONG,
                "severity": rng.choice(["note", "warn", "block"]),
                "option": None,
            },
            "implicit": {"event": rng.choice(EVENTS), "value": rng.choice([None, 3.0, 100.0])},
        }
        return values[kind]


def show(lens: Any, what: Sighting | Signal | tuple[str, Settled]) -> None:
    """Show something to an observer, as `observe.Observer` does."""
    if isinstance(what, Sighting):
        lens.see(what)
    elif isinstance(what, Signal):
        lens.hear(what)
    else:
        lens.settle(*what)


def plain(value: Any) -> Any:
    """Return what comes back of a value that is kept as JSON; fails where that is not possible."""
    return json.loads(json.dumps(value, allow_nan=False))


def found_by(lens: Any) -> Any:
    """Return all that an observer says; its alarms stay with it no longer."""
    alarms: list[Raised] = lens.alarms()
    scalings = {place: scaling.model_dump() for place, scaling in lens.scalings().items()}
    raised = [alarm.model_dump() for alarm in alarms]
    return plain([lens.report(), lens.table(), scalings, lens.ask(), raised])


@pytest.mark.parametrize(("task", "labels"), CASES)
def test_whatever_comes_all_look_on_and_say_plain_json(task: str, labels: str) -> None:
    """Any task, any labels, any signal: nothing raises, and all that is said is finite JSON."""
    world = World(task, labels)
    lenses = make_lenses(world.spec)
    assert set(lenses) == set(NAMES)
    for what in world.told():
        for lens in lenses.values():
            show(lens, what)
    for lens in lenses.values():
        found_by(lens)
        assert len(json.dumps(plain(lens.state()))) < 2_000_000
        assert len(json.dumps(lens.report())) < 200_000


@pytest.mark.parametrize(("task", "labels"), CASES)
def test_a_restart_changes_nothing_that_is_said(task: str, labels: str) -> None:
    """An observer that is taken up from its state says afterwards what it would have said."""
    world = World(task, labels, seed=1)
    whole, again = (make_lenses(world.spec) for _ in range(2))
    for n, what in enumerate(world.told()):
        for lens in (*whole.values(), *again.values()):
            show(lens, what)
        if n % 150 == 149:
            states = {name: plain(lens.state()) for name, lens in again.items()}
            again = make_lenses(world.spec)
            for name, lens in again.items():
                lens.restore(states[name])
    for name, lens in whole.items():
        assert found_by(again[name]) == found_by(lens), name


@pytest.mark.parametrize(("task", "labels"), CASES)
def test_what_the_learner_weighs_by_is_within_bounds(task: str, labels: str) -> None:
    """The learner's own instance takes any table, and multiplies no weight by more than ten."""
    world = World(task, labels, seed=2)
    lenses, learners = (make_lenses(world.spec) for _ in range(2))
    for n, what in enumerate(world.told()):
        for name, lens in lenses.items():
            show(lens, what)
            if n % 100 == 99:
                learners[name].adopt(plain(lens.table()))
            if isinstance(what, Signal):
                assert 0.0 < learners[name].factor(what) <= 10.0, name


@pytest.mark.parametrize("labels", LABELS)
def test_what_was_known_is_taken_up_with_other_labels(labels: str) -> None:
    """Labels that change in the configuration do not make an observer fail on what it knew."""
    before, after = World("classification", "two"), World("classification", labels)
    lenses, others = make_lenses(before.spec), make_lenses(after.spec)
    for what in before.told():
        for lens in lenses.values():
            show(lens, what)
    for name, lens in others.items():
        lens.restore(plain(lenses[name].state()))
    for what in after.told():
        for lens in others.values():
            show(lens, what)
    for lens in others.values():
        found_by(lens)
