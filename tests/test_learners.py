"""Every learner keeps the laws of `checks`, and what River's models need beside."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from river import (
    datasets,
    feature_extraction,
    forest,
    linear_model,
    multiclass,
    naive_bayes,
    optim,
    preprocessing,
    tree,
)

from online_learner.checks import LEARNER_LAWS, Examples, Factory, check_learner
from online_learner.errors import ConfigError, StateError
from online_learner.learners import Answer, Learner
from online_learner.learners.factory import make_learner
from online_learner.learners.river import RiverLearner
from online_learner.requests import MAX_MAGNITUDE
from online_learner.schema import Example
from online_learner.settings import ModelSpec

PHISHING = ("classification", datasets.Phishing, 60)
SEGMENTS = ("classification", datasets.ImageSegments, 120)
TRUMP = ("regression", datasets.TrumpApproval, 60)

MODELS: dict[str, tuple[Callable[[], Any], tuple[str, Any, int]]] = {
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
            (preprocessing.StandardScaler() + feature_extraction.PolynomialExtender())
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
BROKEN = {
    ("random forest", "check_fitted"): "the first question plants River's forests",
}


@functools.cache
def examples_of(source: Callable[[], Any], count: int) -> list[Example]:
    """Return the head of a data set that River brings along."""
    return [Example(features=x, target=y) for x, y in source().take(count)]


def given(name: str) -> tuple[Factory, Examples]:
    """Return the factory and the examples of a model in the table."""
    make, (task, source, count) = MODELS[name]
    return lambda: RiverLearner(make(), task=task), examples_of(source, count)  # type: ignore[arg-type]


def scaled(**options: Any) -> RiverLearner:
    """Return a fresh scaler and logistic regression."""
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    return RiverLearner(model, task="classification", **options)


def taught(learner: RiverLearner, count: int = 30) -> RiverLearner:
    """Return the learner after the first web pages."""
    learner.learn(examples_of(datasets.Phishing, count))
    return learner


@pytest.mark.parametrize("law", LEARNER_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_laws(name: str, law: Callable[[Factory, Examples], None]) -> None:
    """Every model keeps every law, but for what River is known to do."""
    if (name, law.__name__) in BROKEN:
        with pytest.raises(AssertionError):
            law(*given(name))
    else:
        law(*given(name))


def test_check_learner_runs_all_laws_and_takes_known_failures() -> None:
    """`check_learner` passes a model whose only failure was announced, with its reason."""
    check_learner(*given("logistic"))
    expected = {law: reason for (name, law), reason in BROKEN.items() if name == "random forest"}
    check_learner(*given("random forest"), expected_failed_checks=expected)


def test_check_learner_finds_an_unseeded_forest() -> None:
    """A model that draws from an unseeded source cannot be replayed, and each failure is told."""

    def factory() -> Learner:
        return RiverLearner(forest.ARFClassifier(n_models=3), task="classification")

    with pytest.raises(ExceptionGroup) as caught:
        check_learner(factory, examples_of(datasets.Phishing, 60))
    notes = "".join(note for error in caught.value.exceptions for note in error.__notes__)
    assert "check_same_stream_same_state" in notes
    assert "check_fitted" in notes


@pytest.mark.parametrize("name", ["check_round_trip", "check_rount_trip"])
def test_check_learner_refuses_an_excuse_without_a_failure(name: str) -> None:
    """A law that is kept, or does not exist, cannot be excused."""
    with pytest.raises(ExceptionGroup) as caught:
        check_learner(*given("logistic"), expected_failed_checks={name: "once broken"})
    assert name in str(caught.value.exceptions[0])


class _Broken(RiverLearner):
    """A learner that keeps what it is asked, changes what it is told, and forgets on its way."""

    def predict(self, batch: Any) -> list[Answer]:
        self.learn([Example(features=features, target=True) for features in batch])
        return super().predict(batch)

    def learn(self, examples: Any) -> None:
        for example in examples:
            example.features["seen"] = 1.0
        super().learn(examples)

    def to_bytes(self) -> bytes:
        return type(self)(self.model.clone(), task=self.task).model_bytes()

    def model_bytes(self) -> bytes:
        return super().to_bytes()


def test_check_learner_finds_each_breach() -> None:
    """A learner that breaks laws on purpose is found out on each of them."""
    examples = [
        Example(features=dict(e.features), target=e.target)
        for e in examples_of(datasets.Phishing, 40)
    ]

    def factory() -> Learner:
        return _Broken(linear_model.LogisticRegression(), task="classification")

    with pytest.raises(ExceptionGroup) as caught:
        check_learner(factory, examples)
    notes = "".join(note for error in caught.value.exceptions for note in error.__notes__)
    for law in (
        "check_input_is_not_mutated",
        "check_predicting_changes_nothing",
        "check_fitted",
        "check_round_trip",
        "check_learning_after_round_trip",
    ):
        assert law in notes


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
