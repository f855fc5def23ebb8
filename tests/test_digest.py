"""The state digest records values only: not history, identity, order or hash seeds."""

from __future__ import annotations

import collections
import copy
import math
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import forest, linear_model, naive_bayes, preprocessing, tree

from online_learner.learners.digest import state_digest

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.frozensets(st.text())
    ),
    max_leaves=20,
)


@given(PLAIN)
def test_copies_have_the_digest_of_the_original(value: Any) -> None:
    """A deep copy and a round trip through pickle have the same digest."""
    assert state_digest(copy.deepcopy(value)) == state_digest(value)
    assert state_digest(pickle.loads(pickle.dumps(value))) == state_digest(value)


@given(st.dictionaries(st.text(), st.floats(), min_size=2))
def test_order_in_a_dict_does_not_count(value: dict[str, float]) -> None:
    """The order in which a dict was filled does not count; that of a list does."""
    assert state_digest(dict(reversed(value.items()))) == state_digest(value)
    keys = list(value)
    assert state_digest(keys[::-1]) != state_digest(keys)


@given(st.dictionaries(st.text(), st.floats(allow_nan=False), min_size=1), st.data())
def test_every_bit_of_a_float_counts(value: dict[str, float], data: st.DataObject) -> None:
    """The next float up anywhere gives another digest."""
    key = data.draw(st.sampled_from(sorted(value)))
    moved = {**value, key: math.nextafter(value[key], math.inf)}
    same = moved[key] == value[key]
    assert (state_digest(moved) == state_digest(value)) == same


UNEQUAL: list[tuple[Any, Any]] = [
    (0.0, -0.0),
    (1, 1.0),
    (1, True),
    ("1", 1),
    ("a", b"a"),
    ([1, 2], (1, 2)),
    (["ab"], ["a", "b"]),
    ([[1], 2], [1, [2]]),
    ({1, 2}, [1, 2]),
    ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
    (None, "None"),
    (math.nan, math.inf),
    (np.zeros(2), np.zeros(3)),
    (np.zeros(2), np.zeros(2, dtype=np.float32)),
    (np.zeros((2, 3)), np.zeros((3, 2))),
    (np.array([1.0, 2.0]), np.array([2.0, 1.0])),
    (collections.Counter("ab"), collections.Counter("abb")),
    (collections.deque([1, 2]), collections.deque([2, 1])),
    (math.sin, math.cos),
    (linear_model.LogisticRegression(), linear_model.LogisticRegression(l2=0.1)),
    (linear_model.LogisticRegression(), linear_model.LinearRegression()),
]


@pytest.mark.parametrize(("left", "right"), UNEQUAL)
def test_unequal_values_differ(left: Any, right: Any) -> None:
    """Values that a model could tell apart have different digests."""
    assert state_digest(left) != state_digest(right)


def test_identity_does_not_count() -> None:
    """One object in two places is the same as two equal objects."""
    shared = [1.0, 2.0]
    assert state_digest([shared, shared]) == state_digest([[1.0, 2.0], [1.0, 2.0]])


def test_cycles_end() -> None:
    """An object that contains itself has a digest, and it depends on what else is in it."""
    one: list[Any] = [1]
    two: list[Any] = [2]
    one.append(one)
    two.append(two)
    assert state_digest(one) == state_digest(copy.deepcopy(one))
    assert state_digest(one) != state_digest(two)


def _taught(model: Any, order: int = 1) -> Any:
    for i in range(60):
        features = {"a": float(i % 7), "b": float(i % 3), "c": i / 60}
        model.learn_one(dict(list(features.items())[::order]), i % 7 > 3)
    return model


RIVER = {
    "logistic": lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(),
    "tree": lambda: tree.HoeffdingTreeClassifier(grace_period=10),
    "bayes": naive_bayes.GaussianNB,
    "forest": lambda: forest.ARFClassifier(n_models=2, seed=3),
}


@pytest.mark.parametrize("name", RIVER)
def test_history_does_not_count(name: str) -> None:
    """Pickling a model, or copying it, back and forth changes no digest."""
    model = _taught(RIVER[name]())
    twin = pickle.loads(pickle.dumps(copy.deepcopy(pickle.loads(pickle.dumps(model)))))
    assert state_digest(twin) == state_digest(model)


@pytest.mark.parametrize("name", RIVER)
def test_one_more_example_counts(name: str) -> None:
    """One more example gives another digest."""
    model = _taught(RIVER[name]())
    before = state_digest(model)
    model.learn_one({"a": 3.0, "b": 1.0, "c": 0.5}, y=True)
    assert state_digest(model) != before


def test_cached_plan_does_not_count() -> None:
    """What a pipeline caches when it is first asked is no part of its state."""
    model = _taught(RIVER["logistic"]())
    before = state_digest(model)
    model.predict_proba_one({"a": 1.0, "b": 1.0, "c": 1.0})
    assert state_digest(model) == before


SCRIPT = """
from river import forest, naive_bayes, preprocessing, linear_model
from online_learner.learners.digest import state_digest
made = [
    preprocessing.StandardScaler() | linear_model.LogisticRegression(),
    naive_bayes.GaussianNB(),
    forest.ARFClassifier(n_models=2, seed=3),
]
for model in made:
    for i in range(60):
        model.learn_one({"a": float(i % 7), "b": float(i % 3), "c": i / 60}, i % 7 > 3)
print(*map(state_digest, made), state_digest({"a", "b", "c", "d"}))
"""


def test_equal_in_another_process_with_another_hash_seed() -> None:
    """Two processes that hash strings differently agree on every digest."""
    runs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert len(set(runs[0].split())) == 4
