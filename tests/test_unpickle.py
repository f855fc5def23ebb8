"""Pickles of River: every model comes back, and nothing that a pickle can name is run.

All attacks here are read as they are, as if they had been sealed with the right key.
"""

from __future__ import annotations

import builtins
import collections
import contextlib
import datetime as dt
import functools
import inspect
import math
import operator
import os
import pickle
import random
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from river import (
    api,
    base,
    compose,
    datasets,
    feature_extraction,
    forest,
    linear_model,
    naive_bayes,
    preprocessing,
    stats,
    tree,
)

from benchmarks.hostile.gadgets import Call, crashes, escapes, gadgets
from online_learner.errors import StateError
from online_learner.learners.constructors import ArrayKind
from online_learner.learners.digest import state_digest
from online_learner.learners.river import RiverLearner
from online_learner.learners.unpickle import Allowed, NotAllowed, dumps, loads
from online_learner.schema import Example

NO_ROUND_TRIP = {
    "AMRules": "River's own pickle of it recurses without end",
    "ThresholdFilter": "it holds the trees that are tried by themselves, and takes seconds",
    "Set": "its digest meets an integer of more than 4,300 digits",
}


def logistic() -> RiverLearner:
    """Return a model that has learned something."""
    made = RiverLearner(linear_model.LogisticRegression(), task="classification")
    made.learn([Example({"x": 1.0}, True)])
    return made


# --- what is ours comes back ------------------------------------------------------------------


def estimators() -> Iterator[Any]:
    """Yield every model of River that can be made without arguments, or with its own examples."""
    modules = [module for _, module in inspect.getmembers(api, inspect.ismodule)]
    classes = {kind for m in modules for _, kind in inspect.getmembers(m, inspect.isclass)}
    for kind in sorted(classes, key=lambda kind: kind.__qualname__):
        if not issubclass(kind, base.Base) or inspect.isabstract(kind):
            continue
        try:
            made = [kind(**arguments) for arguments in kind._unit_test_params()]
        except (TypeError, ValueError, RuntimeError):  # it needs arguments, or another Python
            continue
        yield from (pytest.param(one, id=f"{kind.__name__}-{n}") for n, one in enumerate(made))


def teach(model: Any, count: int = 40) -> None:
    """Teach a model what it can be taught; some models take other data, and stop where they are."""
    with contextlib.suppress(AttributeError, IndexError, TypeError, RuntimeWarning):
        source: Any = datasets.ImageSegments()
        if isinstance(model, base.Regressor):
            source = datasets.TrumpApproval()
        elif not getattr(model, "_multiclass", True):
            source = datasets.Phishing()
        for x, y in source.take(count):
            model.learn_one(*((x, y) if model._supervised else (x,)))


@pytest.mark.parametrize("model", list(estimators()))
def test_every_model_of_river_comes_back(model: Any) -> None:
    """What a model holds after some lessons is what it may hold by how it was made."""
    if type(model).__name__ in NO_ROUND_TRIP:
        pytest.skip(NO_ROUND_TRIP[type(model).__name__])
    allowed = Allowed.of(model)
    teach(model)
    assert state_digest(loads(dumps(model), allowed)) == state_digest(model)


def double(x: dict[str, float]) -> dict[str, float]:
    """Return twice the features: a step of a team's own."""
    return {name: 2 * value for name, value in x.items()}


class Halver(base.Transformer):
    """A step of a team's own."""

    def __init__(self) -> None:
        self.seen = Counted()

    def learn_one(self, x: dict[str, float]) -> None:
        """Count."""
        self.seen.count += 1

    def transform_one(self, x: dict[str, float]) -> dict[str, float]:
        """Return half of the features."""
        return {name: value / 2 for name, value in x.items()}


class Counted:
    """What a step of a team's own holds."""

    count = 0


PIPELINES: dict[str, Callable[[], Any]] = {
    "function": lambda: compose.FuncTransformer(double) | linear_model.LogisticRegression(),
    "class": lambda: Halver() | naive_bayes.GaussianNB(),
    "words": lambda: feature_extraction.BagOfWords(on="text") | naive_bayes.MultinomialNB(),
    "aggregate": lambda: (
        feature_extraction.Agg(on="x", by=["y"], how=stats.Mean())
        | preprocessing.StandardScaler()
        | linear_model.LogisticRegression()
    ),
    "forest": lambda: forest.ARFClassifier(n_models=2, seed=1),
    "tree": lambda: tree.HoeffdingAdaptiveTreeClassifier(grace_period=5, seed=1),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines_of_a_team_come_back(name: str) -> None:
    """The functions and classes that a model was made with are its own."""
    learner = RiverLearner(PIPELINES[name](), task="classification")
    fresh = RiverLearner(PIPELINES[name](), task="classification")
    x = {"text": "a few words"} if name == "words" else {"x": 1.0, "y": 2.0}
    learner.learn([Example(x, bool(n % 2)) for n in range(20)])
    found = fresh.from_bytes(learner.to_bytes())
    assert found.digest() == learner.digest()
    assert found.from_bytes(found.to_bytes()).digest() == learner.digest()


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6.0).reshape(2, 3).T[::2],
        np.asfortranarray(np.ones((2, 3), np.float32)),
        np.array(["ä", "longer"]),
        np.array([], ">i4"),
        np.float32(0.1),
        np.bool_(True),
        np.array(3.5),
    ],
)
def test_arrays_come_back(value: Any) -> None:
    """Arrays in pieces, in other orders and of text come back, and so do numbers of numpy."""
    found = loads(dumps([value, {"deep": value}]), Allowed())
    assert found[0].dtype == value.dtype
    assert np.array_equal(found[1]["deep"], value)


# --- what is not ours is not run --------------------------------------------------------------


GADGETS = sorted(gadgets(Path("/nowhere")))


@pytest.mark.parametrize("name", GADGETS)
def test_nothing_is_run(name: str, tmp_path: Path) -> None:
    """Whatever a pickle names, it is refused before it is called, or even imported."""
    before = set(sys.modules)
    with pytest.raises(StateError):
        logistic().from_bytes(gadgets(tmp_path / "mark")[name])
    assert not (tmp_path / "mark").exists()
    assert set(sys.modules) - before <= {"river.nonesuch"}


def test_nothing_is_changed_for_the_process() -> None:
    """What a pickle names is as before: classes, their methods, functions, stand-ins of ours."""
    kind = linear_model.LogisticRegression
    allowed = Allowed.of([double, functools.partial(kind.learn_one)])
    before = (dict(vars(kind)), kind.learn_one.__defaults__, dict(vars(ArrayKind)))
    name, state = (
        pickle.dumps(double, protocol=4)[:-1],
        pickle.dumps((None, {"__defaults__": (1,)}), protocol=4),
    )
    changes = {"function": name + state[2:-1] + b"b."} | escapes()
    for title in ("function", "a class changed", "defaults of a method", "a stand-in changed"):
        with pytest.raises(NotAllowed, match=r"itself|no method that this model holds"):
            loads(changes[title], allowed)
    assert (dict(vars(kind)), kind.learn_one.__defaults__, dict(vars(ArrayKind))) == before
    assert double.__defaults__ is None


def test_what_a_model_holds_is_not_called() -> None:
    """A function that a model was made with is held by its states, and not called by them."""
    held = Allowed.of([double, linear_model.LogisticRegression(), Halver()])
    for called in (double, linear_model.LogisticRegression, Halver, Halver.learn_one):
        with pytest.raises(NotAllowed, match=r"it calls|no class defined there"):
            loads(pickle.dumps(Call(called)), held)


class Others:
    """Where another class bears the name of the one above."""

    class Halver(Halver):
        """Another step."""


def test_a_class_of_the_same_name_is_another_one() -> None:
    """A state of a class that only bears the name of the model's is refused."""
    like = RiverLearner(Halver(), task="classification")
    with pytest.raises(StateError, match="another configuration"):
        like.from_bytes(RiverLearner(Others.Halver(), task="classification").to_bytes())


@pytest.mark.parametrize("name", sorted(escapes() | crashes()))
def test_it_is_refused_before_it_is_tried(name: str) -> None:
    """What a pickle does with River's own classes is not left to fail by itself."""
    with pytest.raises(pickle.UnpicklingError):
        loads((escapes() | crashes())[name], Allowed())


def test_what_python_writes_comes_back() -> None:
    """Values of each instruction of Python's pickler come back."""
    value = {
        "numbers": [0, -1, 255, 256, 65536, 1 << 40, -(1 << 3000), 0.5, 1j, True, None],
        "texts": ["", "ä" * 300, "\ud800", b"", b"x" * 300, bytearray(b"y")],
        ("a", (1, 2.0)): (1, 2, 3, 4),
        frozenset({1}): {1, "b"},
        "time": [dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.timedelta(1)],
        "more": [uuid.UUID(int=5), Decimal("0.1"), Fraction(1, 3), range(3), slice(1, None)],
        "held": [collections.deque([1, 2], 2), collections.Counter("aab"), NormalDist(1, 2)],
    }
    assert loads(dumps(value), Allowed()) == value


def test_what_holds_itself_comes_back() -> None:
    """A tuple may hold a list that holds it."""
    items: list[Any] = []
    items.append((items,))
    found = loads(dumps(items), Allowed())
    assert found[0][0] is found


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng, random.Random])
def test_random_numbers_go_on(make: Callable[[int], Any]) -> None:
    """A generator draws on where it was."""
    generator = make(3)
    generator.uniform(0, 1)
    again = loads(dumps(generator), Allowed())
    assert again.uniform(0, 1) == generator.uniform(0, 1)


@pytest.mark.parametrize(
    "value",
    [5, None, {}, ({},), ({}, None), ({}, 7), (5, 6), ({}, {}), ({}, math.nan), [], "text"],
)
def test_what_is_no_model_is_refused(value: Any) -> None:
    """Plain values in the place of a model are an error of ours."""
    with pytest.raises(StateError):
        logistic().from_bytes(dumps(value))


@pytest.mark.parametrize("state", [{}, {"steps": 5}, {"steps": {}}, {"steps": {"a": None}}])
def test_a_hollow_pipeline_is_refused(state: dict[str, Any]) -> None:
    """The right class with nothing in it is no model."""
    hollow = compose.Pipeline.__new__(compose.Pipeline)
    hollow.__dict__.update(state)
    like = RiverLearner(
        preprocessing.StandardScaler() | linear_model.LogisticRegression(), task="classification"
    )
    with pytest.raises(StateError):
        like.from_bytes(dumps(({}, hollow)))


def test_what_a_model_names_is_not_what_another_may() -> None:
    """Functions of a team count for the models that were made with them only."""
    taught = RiverLearner(PIPELINES["function"](), task="classification")
    other = RiverLearner(Halver() | linear_model.LogisticRegression(), task="classification")
    with pytest.raises(StateError, match=r"test_unpickle\.double"):
        other.from_bytes(taught.to_bytes())


def test_a_model_that_holds_something_harmful_gains_nothing() -> None:
    """That a model was made with `eval`, or a getter of attributes, allows neither."""
    for harmful in (builtins.eval, os.system, operator.attrgetter("x"), np.load, subprocess.run):
        allowed = Allowed.of([harmful])
        assert allowed == Allowed()
        with pytest.raises(NotAllowed):
            loads(pickle.dumps(harmful), allowed)
