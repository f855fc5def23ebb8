"""Every learner keeps the laws of `checks`, and what River's models need beside."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from river import (
    compose,
    datasets,
    forest,
    linear_model,
    multiclass,
    naive_bayes,
    optim,
    preprocessing,
    tree,
)

from online_learner.checks import (
    LEARNER_LAWS,
    RANKER_LAWS,
    Law,
    Subject,
    check_same_state_in_another_process,
    digests_elsewhere,
)
from online_learner.errors import ConfigError, StateError
from online_learner.learners import Answer, Learner
from online_learner.learners.factory import make_learner
from online_learner.learners.river import RiverLearner
from online_learner.requests import MAX_MAGNITUDE
from online_learner.schema import Example, Lesson, Ranked, Rated
from online_learner.settings import ModelSpec

Lessons: TypeAlias = Sequence[Lesson]

# --- what is learned --------------------------------------------------------------------------


@functools.cache
def examples_of(source: Callable[[], Any], count: int) -> list[Example]:
    """Return the head of a data set that River brings along."""
    return [Example(features=x, target=y) for x, y in source().take(count)]


PHISHING = examples_of(datasets.Phishing, 60)
SEGMENTS = examples_of(datasets.ImageSegments, 120)
TRUMP = examples_of(datasets.TrumpApproval, 60)
WORDS = {
    "ham": ["see", "you", "at", "home", "thanks", "for", "the", "lunch", "call", "me", "later"],
    "spam": ["free", "cash", "prize", "win", "now", "claim", "your", "call", "urgent", "txt"],
    "news": ["minister", "says", "vote", "on", "new", "budget", "moves", "to", "the", "house"],
}


def messages(labels: Sequence[str], count: int = 60) -> list[Example]:
    """Return texts whose words tell the label."""
    rng = random.Random(1)
    drawn = (rng.choice(labels) for _ in range(count))
    texts = ((" ".join(rng.choices(WORDS[label], k=8)), label) for label in drawn)
    return [Example({"text": text}, label) for text, label in texts]


def vectors(count: int = 60, size: int = 8) -> list[Example]:
    """Return embeddings, and a number beside each, of three labels."""
    rng = random.Random(2)
    centres = {label: [rng.gauss() for _ in range(size)] for label in "abc"}
    found = []
    for label in rng.choices("abc", k=count):
        embedding = [centre + rng.gauss(0, 0.5) for centre in centres[label]]
        found.append(Example({"embedding": embedding, "age": rng.uniform(0, 90)}, label))
    return found


def embeddings(count: int = 60) -> list[Example]:
    """Return embeddings alone."""
    return [replace(e, features={"e": e.features["embedding"]}) for e in vectors(count)]


def summed(examples: Sequence[Example]) -> list[Example]:
    """Return embeddings with the sum of their numbers as the target."""
    return [replace(e, target=float(sum(e.features["e"]))) for e in examples]


def flats(count: int = 60) -> list[Example]:
    """Return flats of numbers, categories, booleans and text, and their rents."""
    rng = random.Random(3)
    found = []
    for _ in range(count):
        size, furnished = rng.uniform(20, 140), rng.random() < 0.5
        flat = {
            "size": size,
            "district": rng.choice(["north", "east", "harbour"]),
            "furnished": furnished,
            "text": " ".join(rng.choices(WORDS["ham"], k=4)),
        }
        found.append(Example(flat, 12.0 * size + 300.0 * furnished + rng.gauss(0, 20)))
    return found


def dear(examples: Sequence[Example]) -> list[Example]:
    """Return the examples with a label in place of a number."""
    middle = sorted(float(e.target) for e in examples)[len(examples) // 2]  # type: ignore[arg-type]
    return [replace(e, target=e.target > middle) for e in examples]  # type: ignore[operator]


def comparisons(count: int = 60) -> list[Ranked | Rated]:
    """Return comparisons of answers to a question, of all kinds: the polite one is preferred."""
    rng = random.Random(4)
    found: list[Ranked | Rated] = []
    for number in range(count):
        options = tuple(
            {"text": " ".join(rng.choices(WORDS[kind], k=6)), "length": rng.uniform(1, 90)}
            for kind in ("ham", "news", "spam")
        )
        question = {"prompt": " ".join(rng.choices(WORDS["news"], k=5))}
        best, *_, worst = options
        found.append(
            (
                Ranked(question, options),
                Rated(question, best, 0.9),
                Ranked(question, options, places=2),
                Ranked(question, options[::-1], worst_first=True),
                Rated(question, worst, 0.0),
                Ranked(question, options[1:], weight=0.5),
            )[number % 6]
        )
    return found


# --- what learns ------------------------------------------------------------------------------

River: TypeAlias = tuple[Callable[[], Any], Lessons]

RIVER: dict[str, River] = {
    "logistic": (linear_model.LogisticRegression, PHISHING),
    "scaled logistic": (
        lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(),
        PHISHING,
    ),
    "logistic by adam": (
        lambda: preprocessing.MinMaxScaler() | linear_model.LogisticRegression(optim.Adam()),
        PHISHING,
    ),
    "union": (
        lambda: (
            (preprocessing.StandardScaler() + compose.Prefixer("raw "))
            | linear_model.LogisticRegression()
        ),
        PHISHING,
    ),
    "hoeffding tree": (lambda: tree.HoeffdingTreeClassifier(grace_period=20), PHISHING),
    "adaptive tree": (
        lambda: tree.HoeffdingAdaptiveTreeClassifier(grace_period=20, seed=1),
        PHISHING,
    ),
    "gaussian bayes": (naive_bayes.GaussianNB, PHISHING),
    "random forest": (lambda: forest.ARFClassifier(n_models=3, seed=7), PHISHING),
    "softmax": (
        lambda: preprocessing.StandardScaler() | linear_model.SoftmaxRegression(),
        SEGMENTS,
    ),
    "one against the rest": (
        lambda: (
            preprocessing.StandardScaler()
            | multiclass.OneVsRestClassifier(linear_model.LogisticRegression())
        ),
        SEGMENTS,
    ),
    "linear regression": (
        lambda: preprocessing.StandardScaler() | linear_model.LinearRegression(),
        TRUMP,
    ),
    "regression tree": (lambda: tree.HoeffdingTreeRegressor(grace_period=20), TRUMP),
}


def make_river(name: str) -> Learner:
    """Make a River model of the table."""
    make, lessons = RIVER[name]
    task = "regression" if lessons is TRUMP else "classification"
    return RiverLearner(make(), task=task)  # type: ignore[arg-type]


def spec_of(use: str, lessons: Lessons, labels: Any, arguments: dict[str, Any]) -> ModelSpec:
    """Return the configuration of a model that learns such lessons."""
    task = "ranking"
    if isinstance(lessons[0], Example):
        task = "regression" if isinstance(lessons[0].target, float) else "classification"
    learner = {"use": use, **arguments}
    return ModelSpec.model_validate({"task": task, "labels": labels, "learner": learner})


def configured(
    use: str, lessons: Lessons, labels: Any = None, *, max_bytes: int = 1 << 18, **arguments: Any
) -> Subject:
    """Return a model as a configuration makes it."""
    spec = spec_of(use, lessons, labels, arguments)
    return Subject(functools.partial(make_learner, spec), lessons, max_bytes)


SMALL = {"buckets": 1024}
WIDE = {"max_bytes": 8 << 20}
ABC = ["a", "b", "c"]
TWO = ["ham", "spam"]
LEARNERS = {
    **{
        name: Subject(functools.partial(make_river, name), lessons, 1 << 18)
        for name, (_, lessons) in RIVER.items()
    },
    "text of two labels": configured("torch:text", messages(TWO), TWO, **SMALL),
    "text of three labels": configured("torch:text", messages([*WORDS]), [*WORDS], **SMALL),
    "text of open labels": configured("torch:text", messages([*WORDS]), **SMALL, **WIDE),
    "dense": configured("torch:dense", vectors(), ABC, **WIDE),
    "dense of open labels": configured("torch:dense", vectors(), **WIDE),
    "hidden dense": configured("torch:dense", vectors(), ABC, hidden=8, **WIDE),
    "dense regression": configured("torch:dense", TRUMP, **WIDE),
    "mixed": configured("torch:mixed", dear(flats()), [False, True], **SMALL),
    "hidden mixed": configured("torch:mixed", dear(flats()), [False, True], hidden=8, **SMALL),
    "mixed regression": configured("torch:mixed", flats(), **SMALL),
    "hidden mixed regression": configured(
        "torch:mixed", flats(), hidden=8, loss="squared", **SMALL
    ),
    "module": configured("torch:nn.Linear", embeddings(), ABC, in_features=8, out_features=3),
    "module regression": configured(
        "torch:nn.Linear", summed(embeddings()), in_features=8, out_features=1
    ),
}
RANKERS = {
    "ranking": configured("torch:ranking", comparisons(), **SMALL),
    "ranking without context": configured("torch:ranking", comparisons(), context=False, **SMALL),
}
NO_LIMIT = "River keeps whatever it has seen"
NO_WEIGHTS = "the estimator takes no weights"
NO_RANGE = (
    "River's MinMaxScaler has no number for a feature without a range: the question is refused"
)
BROKEN = {
    ("random forest", "check_fitted"): "the first question plants River's forests",
    ("logistic by adam", "check_new_and_missing_features"): NO_RANGE,
    **{(name, "check_bounded_by_names"): NO_LIMIT for name in RIVER},
    **{
        (name, "check_bounded_by_labels"): NO_LIMIT
        for name in ("adaptive tree", "gaussian bayes", "softmax", "one against the rest")
    },
    **{
        (name, "check_weights_scale"): NO_WEIGHTS
        for name in ("gaussian bayes", "random forest", "softmax", "one against the rest")
    },
}


def pairs(subjects: Iterable[str], laws: Iterable[Law]) -> list[Any]:
    """Return every model with every law, but the one that all models are tried on at once."""
    return [
        pytest.param(name, law, id=f"{name}-{law.__name__}")
        for name in subjects
        for law in laws
        if law is not check_same_state_in_another_process
    ]


@pytest.mark.parametrize(
    ("name", "law"), [*pairs(LEARNERS, LEARNER_LAWS), *pairs(RANKERS, RANKER_LAWS)]
)
def test_laws(name: str, law: Law) -> None:
    """Every model keeps every law, but for what it is known to break."""
    subject = (LEARNERS | RANKERS)[name]
    if (name, law.__name__) not in BROKEN:
        law(subject)
        return
    with pytest.raises((AssertionError, ArithmeticError, TypeError)):
        law(subject)


def test_all_families_learn_the_same_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh process with other hashes of strings comes to the same digest of every model."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent)
    subjects = [*LEARNERS.values(), *RANKERS.values()]
    assert digests_elsewhere(subjects) == [subject.learned().digest() for subject in subjects]


# --- River's models ---------------------------------------------------------------------------


def scaled(**options: Any) -> RiverLearner:
    """Return a fresh scaler and logistic regression."""
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    return RiverLearner(model, task="classification", **options)


def taught(learner: RiverLearner, count: int = 30) -> RiverLearner:
    """Return the learner after the first web pages."""
    learner.learn(PHISHING[:count])
    return learner


def test_prior_before_the_first_lesson() -> None:
    """Before it has learned, a model with a closed set of labels gives each the same score."""
    learner = RiverLearner(
        naive_bayes.GaussianNB(), task="classification", labels=["ham", "spam", "news"]
    )
    [answer] = learner.predict([{"a": 1.0}])
    assert answer == Answer("ham", {"ham": 1 / 3, "spam": 1 / 3, "news": 1 / 3})


def test_cold_scaler_answers_with_the_prior() -> None:
    """A scaler whose fresh state gives NaN does not keep the first prediction from being made."""
    model = preprocessing.MinMaxScaler() | linear_model.LogisticRegression()
    learner = RiverLearner(model, task="classification", labels=[False, True])
    assert learner.predict([{"a": 1.0}]) == [
        Answer(output=False, scores={"false": 0.5, "true": 0.5})
    ]


def test_closed_set_is_scored_whole() -> None:
    """Labels of the closed set that have not been seen have the score 0."""
    learner = RiverLearner(naive_bayes.GaussianNB(), task="classification", labels=["a", "b", "c"])
    learner.learn([Example(features={"x": float(i)}, target="ab"[i % 2]) for i in range(8)])
    [answer] = learner.predict([{"x": 0.0}])
    assert set(answer.scores) == {"a", "b", "c"}
    assert answer.scores["c"] == 0.0
    assert answer.output in ("a", "b")


@pytest.mark.parametrize("labels", [["a", "b"], [False, True], [0, 1], [3, 7]])
def test_labels_keep_their_type(labels: list[Any]) -> None:
    """A label comes back as it was taught: `True` is not `1`, nor `"true"`."""
    learner = RiverLearner(
        tree.HoeffdingTreeClassifier(grace_period=5), task="classification", labels=labels
    )
    learner.learn([Example(features={"x": float(i % 2)}, target=labels[i % 2]) for i in range(40)])
    found = [answer.output for answer in learner.predict([{"x": 0.0}, {"x": 1.0}])]
    assert found == labels
    assert [type(output) for output in found] == [type(label) for label in labels]


def test_uncertainty() -> None:
    """Uncertainty is what the best score leaves, and 0 for numbers."""
    assert Answer("a", {"a": 0.75, "b": 0.25}).uncertainty == 0.25
    assert Answer(3.5).uncertainty == 0.0


def test_weights_count() -> None:
    """An example of weight 0 teaches nothing, and one of weight 2 more than one of weight 1."""
    base = Example(features={"a": 1.0}, target=True)
    scores = {}
    for weight in (0.0, 1.0, 2.0):
        learner = RiverLearner(linear_model.LogisticRegression(), task="classification")
        learner.learn([replace(base, weight=weight)])
        scores[weight] = learner.predict([{"a": 1.0}])[0].scores["true"]
    assert scores[0.0] == 0.5
    assert 0.5 < scores[1.0] < scores[2.0]


def test_strange_names_are_not_kept() -> None:
    """Questions with ever new feature names do not grow the model."""
    learner = taught(scaled())
    size = len(learner.to_bytes())
    learner.predict([{f"name {i}": 1.0} for i in range(1000)])
    assert len(learner.to_bytes()) == size


def test_question_that_makes_no_number_is_refused() -> None:
    """Features of which a model that has learned makes NaN are an error, and no answer."""
    model = preprocessing.MinMaxScaler() | linear_model.LogisticRegression()
    learner = taught(RiverLearner(model, task="classification"))
    with pytest.raises(FloatingPointError, match="not finite"):
        learner.predict([{"a feature without a range": 1.0}])


def test_failed_question_leaves_no_trace() -> None:
    """A question that the model cannot take leaves its digest as it was."""
    learner = taught(scaled())
    before = learner.digest()
    with pytest.raises(TypeError):
        learner.predict([{"new": 1.0, "https": "a string where a number was"}])
    assert learner.digest() == before


@pytest.mark.parametrize("number", [1e15, -1e15])
def test_regressor_that_is_blown_up_says_so(number: float) -> None:
    """An accepted number that throws an unscaled regressor beyond all bounds is an error."""
    learner = RiverLearner(linear_model.LinearRegression(), task="regression")
    learner.learn([Example(features={"a": 1.0}, target=2.0)] * 5)
    with pytest.raises(FloatingPointError):
        learner.learn([Example(features={"a": number}, target=2.0)])


def test_large_but_honest_numbers_are_learned() -> None:
    """Targets of any accepted size are no reason to give up."""
    model = tree.HoeffdingTreeRegressor(leaf_prediction="mean")
    learner = RiverLearner(model, task="regression")
    learner.learn([Example(features={"a": 1.0}, target=MAX_MAGNITUDE)] * 20)
    [answer] = learner.predict([{"a": 1.0}])
    assert isinstance(answer.output, float)
    assert math.isclose(answer.output, MAX_MAGNITUDE, rel_tol=1e-6)


def test_state_of_another_kind_is_refused() -> None:
    """Bytes that are no model raise `StateError`, with what to do."""
    with pytest.raises(StateError, match="replaying the log"):
        scaled().from_bytes(b"not a pickle")


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        (linear_model.LogisticRegression(), ["spam", "ham"]),
        (linear_model.Perceptron(), ["ham", "spam"]),
        (preprocessing.StandardScaler() | linear_model.LogisticRegression(), ["ham", "spam"]),
    ],
)
def test_state_of_another_configuration_is_refused(model: Any, labels: list[str]) -> None:
    """Labels in another order would swap the answers, and other estimators would never be used."""
    first = RiverLearner(
        linear_model.LogisticRegression(), task="classification", labels=["ham", "spam"]
    )
    first.learn([Example({"x": 1.0}, "spam")])
    with pytest.raises(StateError, match="another configuration"):
        RiverLearner(model, task="classification", labels=labels).from_bytes(first.to_bytes())


def test_factory_that_returns_something_else_is_refused() -> None:
    """A factory that returns neither an estimator nor a learner is named in the error."""
    spec = ModelSpec(task="classification", learner="collections:OrderedDict")
    with pytest.raises(ConfigError, match="OrderedDict"):
        make_learner(spec)


def test_factory_may_return_a_learner() -> None:
    """A factory may return anything that keeps the protocol."""
    spec = ModelSpec(task="classification", learner="river.naive_bayes:GaussianNB")
    assert isinstance(make_learner(spec), Learner)
    assert not isinstance(object(), Learner)
