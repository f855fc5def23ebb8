"""The laws of `checks` find who breaks them, each law by itself, and pass who keeps them."""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self
from zlib import crc32

import pytest
from river import datasets, forest

from online_learner import checks
from online_learner.checks import (
    LEARNER_LAWS,
    RANKER_LAWS,
    Law,
    Subject,
    check_answers,
    check_asking_changes_nothing,
    check_bounded_by_labels,
    check_bounded_by_names,
    check_complementary,
    check_concurrent_asking,
    check_copies_are_independent,
    check_feature_order,
    check_finite_after_hostile_input,
    check_fitted,
    check_input_is_not_mutated,
    check_learner,
    check_learning_after_round_trip,
    check_lessons_pull,
    check_new_and_missing_features,
    check_no_weight_teaches_nothing,
    check_option_order,
    check_predict_before_learn,
    check_ranker,
    check_reloads_change_nothing,
    check_round_trip,
    check_same_state_in_another_process,
    check_same_stream_same_state,
    check_weights_scale,
    digests_elsewhere,
)
from online_learner.learners import Answer
from online_learner.learners.recorder import Recorder
from online_learner.learners.river import RiverLearner
from online_learner.requests import Features
from online_learner.schema import Example, Lesson, Ranked, Rated

BUCKETS = 64


def logistic(number: float) -> float:
    """Return the logistic of a number, without overflow."""
    return 0.5 * (1.0 + math.tanh(0.5 * number))


def bounded(value: Any) -> float:
    """Return a number between -1 and 1 for a number, and 1 for all else."""
    return value / (1.0 + abs(value)) if isinstance(value, int | float) else 1.0


class Toy:
    """A logistic regression over hashed features that keeps every law."""

    family = "toy"
    complementary = True

    def __init__(self) -> None:
        self.weights = [0.0] * BUCKETS
        self.steps = 0

    @property
    def fitted(self) -> bool:
        """Whether it has learned anything yet."""
        return self.steps > 0

    def entries(self, features: Features) -> Iterator[tuple[int, float]]:
        """Yield the bucket and the value of each feature."""
        for name in sorted(features):
            yield crc32(name.encode()) % BUCKETS, bounded(features[name])

    def reward(self, features: Features) -> float:
        """Return the weighted sum of features."""
        return sum(self.weights[bucket] * value for bucket, value in self.entries(features))

    def predict(self, batch: Sequence[Features]) -> list[Answer]:
        """Answer true or false."""
        return [self.answer(features) for features in batch]

    def answer(self, features: Features) -> Answer:
        """Answer one question."""
        yes = logistic(self.reward(features))
        return Answer(yes > 0.5, {"true": yes, "false": 1.0 - yes})

    def learn(self, lessons: Sequence[Lesson]) -> None:
        """Take a step for each lesson."""
        for lesson in lessons:
            self.learn_one(lesson)

    def learn_one(self, lesson: Lesson) -> None:
        """Take one step."""
        assert isinstance(lesson, Example)
        if type(lesson.target) is not bool:
            raise TypeError("the target is true or false")
        target = lesson.target != lesson.complementary
        self.step(
            lesson.features, lesson.weight * (target - logistic(self.reward(lesson.features)))
        )

    def step(self, features: Features, by: float) -> None:
        """Move the weights."""
        for bucket, value in self.entries(features):
            self.weights[bucket] += 0.5 * by * value
        self.steps += 1

    def state(self) -> dict[str, Any]:
        """Return all that makes the state."""
        return {"weights": self.weights, "steps": self.steps}

    def to_bytes(self) -> bytes:
        """Return the state as JSON."""
        return json.dumps(self.state()).encode()

    def from_bytes(self, blob: bytes) -> Self:
        """Return a toy with the state of `blob`."""
        made = type(self)()
        vars(made).update(json.loads(blob))
        return made

    def digest(self) -> str:
        """Return the hash of the state."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


class ToyRanker(Toy):
    """The same as a ranker: of a comparison, it takes the first option to be good."""

    def score(self, features: Features, options: Sequence[Features]) -> list[float]:
        """Return the reward of each option."""
        return [self.reward(option) for option in options]

    def learn_one(self, lesson: Lesson) -> None:
        """Take a step for each option that the lesson says something of."""
        assert not isinstance(lesson, Example)
        if isinstance(lesson, Rated):
            self.judge(lesson.option, lesson.reward, lesson.weight)
            return
        first, *rest = lesson.options
        self.judge(first, 0.0 if lesson.worst_first else 1.0, lesson.weight)
        for option in rest:
            self.judge(option, 1.0 if lesson.worst_first else 0.0, lesson.weight)

    def judge(self, option: Features, reward: float, weight: float) -> None:
        """Move the reward of one option."""
        self.step(option, weight * (reward - logistic(self.reward(option))))


# --- breaches ---------------------------------------------------------------------------------


class WritesIntoLessons(Toy):
    """Marks each lesson as seen."""

    def learn_one(self, lesson: Lesson) -> None:
        """Take one step."""
        super().learn_one(lesson)
        lesson.features["seen"] = 1.0


class SilentAtFirst(Toy):
    """Has no answer before its first lesson."""

    def answer(self, features: Features) -> Answer:
        """Answer one question."""
        if not self.fitted:
            raise RuntimeError("nothing has been learned yet")
        return super().answer(features)


class WantsItsFeatures(Toy):
    """Takes no question without the feature that it is used to."""

    def answer(self, features: Features) -> Answer:
        """Answer one question."""
        return super().answer({**features, "length": features["length"]})


class ReadsByPlace(Toy):
    """Takes the place of a feature for its name."""

    def entries(self, features: Features) -> Iterator[tuple[int, float]]:
        """Yield the place and the value of each feature."""
        yield from ((place % BUCKETS, bounded(v)) for place, v in enumerate(features.values()))


class CountsQuestions(Toy):
    """Remembers how often it was asked."""

    def answer(self, features: Features) -> Answer:
        """Answer one question."""
        self.asked = getattr(self, "asked", 0) + 1
        return super().answer(features)

    def state(self) -> dict[str, Any]:
        """Return all that makes the state."""
        return super().state() | {"asked": getattr(self, "asked", 0)}


class AlwaysFitted(Toy):
    """Says that it has learned, whatever happens."""

    fitted = True


class Rounds(Toy):
    """Loses the last digits on the way."""

    def to_bytes(self) -> bytes:
        """Return the state, rounded."""
        return json.dumps(self.state() | {"weights": [round(w, 3) for w in self.weights]}).encode()

    def digest(self) -> str:
        """Return the hash of the state before it is rounded."""
        return hashlib.sha256(json.dumps(self.state()).encode()).hexdigest()


class ForgetsItsPace(Toy):
    """Takes ever shorter steps, and starts with long ones again after a reload."""

    def __init__(self) -> None:
        super().__init__()
        self.pace = 1.0

    def step(self, features: Features, by: float) -> None:
        """Move the weights."""
        super().step(features, by * self.pace)
        self.pace *= 0.9


class SharesItsWeights(Toy):
    """Has one list of weights for all copies of equal state."""

    known: dict[bytes, list[float]] = {}  # noqa: RUF012

    def from_bytes(self, blob: bytes) -> Self:
        """Return a toy with the state of `blob`."""
        made = super().from_bytes(blob)
        made.weights = self.known.setdefault(blob, made.weights)
        return made


class Wavers(Toy):
    """Adds noise that nobody has seeded."""

    def step(self, features: Features, by: float) -> None:
        """Move the weights."""
        super().step(features, by * random.uniform(0.9, 1.1))


class HashesAsPythonDoes(Toy):
    """Finds buckets by a hash that every process seeds anew."""

    def entries(self, features: Features) -> Iterator[tuple[int, float]]:
        """Yield the bucket and the value of each feature."""
        for name in sorted(features):
            yield hash(name) % BUCKETS, bounded(features[name])


class Contrary(Toy):
    """Learns the opposite of what it is told."""

    def step(self, features: Features, by: float) -> None:
        """Move the weights."""
        super().step(features, -by)


class BlindToWeights(Toy):
    """Takes every weight for 1, but for that of 0."""

    def learn_one(self, lesson: Lesson) -> None:
        """Take one step."""
        assert isinstance(lesson, Example)
        weight = float(lesson.weight > 0)
        super().learn_one(Example(lesson.features, lesson.target, weight, lesson.complementary))


class HalfBlindToWeights(Toy):
    """Counts the targets, whatever their weight."""

    def learn_one(self, lesson: Lesson) -> None:
        """Take one step."""
        super().learn_one(lesson)
        assert isinstance(lesson, Example)
        by = 0.01 if lesson.target is True else -0.01
        self.weights = [weight + by for weight in self.weights]


class KeepsNames(Toy):
    """Remembers the name of every feature."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def step(self, features: Features, by: float) -> None:
        """Move the weights."""
        super().step(features, by)
        self.names = sorted({*self.names, *features})

    def state(self) -> dict[str, Any]:
        """Return all that makes the state."""
        return super().state() | {"names": self.names}


class KeepsLabels(Toy):
    """Remembers every target, those that it cannot learn as well."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[Any] = []

    def learn_one(self, lesson: Lesson) -> None:
        """Take one step."""
        assert isinstance(lesson, Example)
        if lesson.target not in self.labels:
            self.labels.append(lesson.target)
        if isinstance(lesson.target, bool):
            super().learn_one(lesson)

    def state(self) -> dict[str, Any]:
        """Return all that makes the state."""
        return super().state() | {"labels": self.labels}


class Overflows(Toy):
    """Multiplies numbers until no number is left to hold them."""

    def answer(self, features: Features) -> Answer:
        """Answer one question."""
        length = features.get("length")
        number = length if type(length) is float else 0.0
        yes = logistic(self.reward(features)) + 0.0 * math.prod([number] * 30)
        return Answer(yes > 0.5, {"true": yes, "false": 1.0 - yes})


class AddsUpInPlace(Toy):
    """Keeps the sum that it is working on where other threads find it."""

    def reward(self, features: Features) -> float:
        """Return the weighted sum of features."""
        self._sum = 0.0
        for bucket, value in self.entries(features):
            self._sum += self.weights[bucket] * value
            time.sleep(0)  # lets another thread go on
        return self._sum


class Unsure(Toy):
    """Has scores that sum to more than one."""

    def answer(self, features: Features) -> Answer:
        """Answer one question."""
        found = super().answer(features)
        return Answer(found.output, {key: 0.5 + score / 2 for key, score in found.scores.items()})


class TakesNoForYes(Toy):
    """Learns a label that is said to be wrong as the right one."""

    def learn_one(self, lesson: Lesson) -> None:
        """Take one step."""
        super().learn_one(Example(lesson.features, lesson.target, lesson.weight))  # type: ignore[union-attr]


class PrefersTheFirst(ToyRanker):
    """Gives whatever stands first a little more."""

    def score(self, features: Features, options: Sequence[Features]) -> list[float]:
        """Return the reward of each option."""
        rewards = super().score(features, options)
        return [reward + 0.1 * (place == 0) for place, reward in enumerate(rewards)]


BREACHES: dict[Law, type[Toy]] = {
    check_input_is_not_mutated: WritesIntoLessons,
    check_predict_before_learn: SilentAtFirst,
    check_new_and_missing_features: WantsItsFeatures,
    check_feature_order: ReadsByPlace,
    check_asking_changes_nothing: CountsQuestions,
    check_fitted: AlwaysFitted,
    check_round_trip: Rounds,
    check_learning_after_round_trip: Rounds,
    check_reloads_change_nothing: ForgetsItsPace,
    check_copies_are_independent: SharesItsWeights,
    check_same_stream_same_state: Wavers,
    check_same_state_in_another_process: HashesAsPythonDoes,
    check_lessons_pull: Contrary,
    check_weights_scale: BlindToWeights,
    check_no_weight_teaches_nothing: HalfBlindToWeights,
    check_bounded_by_names: KeepsNames,
    check_bounded_by_labels: KeepsLabels,
    check_finite_after_hostile_input: Overflows,
    check_concurrent_asking: AddsUpInPlace,
    check_answers: Unsure,
    check_complementary: TakesNoForYes,
    check_option_order: PrefersTheFirst,
}


# --- the laws ---------------------------------------------------------------------------------


def examples(count: int = 50) -> list[Example]:
    """Return lines of text, of which the long ones are true."""
    rng = random.Random(5)
    found = []
    for _ in range(count):
        length = rng.uniform(0.0, 3.0)
        features = {"length": length, "noise": rng.uniform(-1.0, 1.0), "one": 1.0}
        found.append(Example(features, length > 1.5))
    return found


def comparisons(count: int = 50) -> list[Ranked | Rated]:
    """Return comparisons of two lines of text and judgements of one: the longer, the better."""
    found: list[Ranked | Rated] = []
    for longer, other in zip(examples(count), examples(count)[::-1], strict=True):
        by_length = sorted((longer.features, other.features), key=lambda x: -x["length"])
        found.append(Ranked({}, tuple(by_length)))
        found.append(Rated({}, longer.features, float(longer.target is True)))
    return found[:count]


def subject(made: type[Toy]) -> Subject:
    """Return a toy under test."""
    return Subject(
        made, comparisons() if issubclass(made, ToyRanker) else examples(), max_bytes=1 << 14
    )


@pytest.fixture(autouse=True)
def _modules_of_tests_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent.parent)


@pytest.mark.parametrize("law", LEARNER_LAWS, ids=lambda law: law.__name__)
def test_learner_that_keeps_the_laws(law: Law) -> None:
    """A learner without fault keeps each law."""
    law(subject(Toy))


def test_ranker_that_keeps_the_laws() -> None:
    """A ranker without fault passes `check_ranker`."""
    check_ranker(ToyRanker, comparisons(), max_bytes=1 << 14)


@pytest.mark.parametrize(("law", "broken"), BREACHES.items(), ids=lambda x: x.__name__)
def test_each_law_finds_its_breach(law: Law, broken: type[Toy]) -> None:
    """A law that is broken on purpose raises."""
    with pytest.raises((AssertionError, KeyError, RuntimeError)):
        law(subject(broken))


def test_every_law_is_tried() -> None:
    """No law of learners and rankers is without a breach here."""
    assert set(BREACHES) == {*LEARNER_LAWS, *RANKER_LAWS}


def test_laws_can_be_imported_by_name() -> None:
    """Every law is a public name of `checks`, and its docstring says what it checks."""
    for law in (*LEARNER_LAWS, *RANKER_LAWS, *checks.POLICY_LAWS):
        assert law.__name__ in checks.__all__
        assert (law.__doc__ or "").startswith("Check that ")


# --- running all of them ----------------------------------------------------------------------


def notes_of(group: ExceptionGroup[Exception]) -> str:
    """Return what the errors of a group say of the laws that they break."""
    return "".join(note for error in group.exceptions for note in error.__notes__)


def test_all_breaches_are_told_at_once() -> None:
    """`check_learner` runs all laws, and raises one group of errors, each with its law."""
    with pytest.raises(ExceptionGroup) as caught:
        check_learner(AlwaysFitted, examples(), max_bytes=1 << 14)
    assert notes_of(caught.value).startswith("check_fitted: Check that `fitted` turns true")
    assert len(caught.value.exceptions) == 1


def test_known_failure_is_excused() -> None:
    """A failure that was announced, with its reason, is none."""
    excuse = {"check_fitted": "was trained before"}
    check_learner(AlwaysFitted, examples(), max_bytes=1 << 14, expected_failed_checks=excuse)


@pytest.mark.parametrize("name", ["check_round_trip", "check_rount_trip"])
def test_excuse_without_a_failure_is_refused(name: str) -> None:
    """A law that is kept, or does not exist, cannot be excused."""
    with pytest.raises(ExceptionGroup) as caught:
        check_learner(
            Toy, examples(), max_bytes=1 << 14, expected_failed_checks={name: "once broken"}
        )
    assert name in str(caught.value.exceptions[0])


def test_recorder_is_a_ranker_that_learns_nothing() -> None:
    """What only records keeps every law but those about learning."""
    excuse = dict.fromkeys(
        ("check_fitted", "check_same_stream_same_state"), "it has no state"
    ) | dict.fromkeys(("check_lessons_pull", "check_weights_scale"), "it does not learn")
    check_ranker(Recorder, comparisons(), max_bytes=1, expected_failed_checks=excuse)


def unseeded_forest() -> RiverLearner:
    """Make a forest that draws from a source that nobody has seeded."""
    return RiverLearner(forest.ARFClassifier(n_models=3), task="classification")


def test_an_unseeded_forest_is_found() -> None:
    """A model that draws from an unseeded source cannot be replayed."""
    pages = [Example(x, y) for x, y in datasets.Phishing().take(60)]
    with pytest.raises(ExceptionGroup) as caught:
        check_learner(unseeded_forest, pages, max_bytes=1 << 16)
    assert "check_same_stream_same_state" in notes_of(caught.value)
    assert "check_same_state_in_another_process" in notes_of(caught.value)


def test_factory_that_no_other_process_can_import() -> None:
    """A lambda cannot be sent to another process, and the error says what could be."""
    with pytest.raises(AssertionError, match=r"functools\.partial\(make_learner"):
        digests_elsewhere([Subject(lambda: Toy(), examples())])  # noqa: PLW0108


def test_failure_of_the_other_process_is_told() -> None:
    """What goes wrong in the other process is in the error here."""
    refused = [Example({}, "neither true nor false")]
    with pytest.raises(AssertionError, match="TypeError: the target is true or false"):
        digests_elsewhere([Subject(Toy, refused)])
