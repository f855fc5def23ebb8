"""Orders that are varied on purpose: what is logged as their probability is their probability."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_learner.explore import Order, draw, softmax
from online_learner.loop import Loop
from online_learner.settings import ExplorationSpec

SCORES = {"a": 0.1, "b": 0.9, "c": 0.1, "d": -1.0}
SPECS = [
    ExplorationSpec(kind="softmax", temperature=0.7),
    ExplorationSpec(kind="softmax", temperature=5.0),
    ExplorationSpec(kind="epsilon", epsilon=0.3),
    ExplorationSpec(kind="epsilon", epsilon=1.0),
]
KINDS = pytest.mark.parametrize(
    "spec", SPECS, ids=lambda s: f"{s.kind} {s.temperature} {s.epsilon}"
)

specs = st.one_of(
    st.builds(
        ExplorationSpec, kind=st.just("softmax"), temperature=st.sampled_from([0.1, 1.0, 10.0])
    ),
    st.builds(ExplorationSpec, kind=st.just("epsilon"), epsilon=st.floats(0, 1)),
)
scored = st.dictionaries(
    st.sampled_from("abcd"), st.floats(-3, 3, allow_subnormal=False), min_size=1
)


def probability(order: list[str], scores: dict[str, float], spec: ExplorationSpec) -> float:
    """Return the probability with which an order begins so, from the definition."""
    best = sorted(scores, key=lambda name: -scores[name])
    count = len(best)
    if spec.kind == "epsilon":
        by_chance = spec.epsilon / math.perm(count, len(order))
        return by_chance + (1.0 - spec.epsilon) * (order == best[: len(order)])
    left, found = dict(scores), 1.0
    for name in order:
        weights = {k: math.exp(v / spec.temperature) for k, v in left.items()}
        found *= weights[name] / sum(weights.values())
        del left[name]
    return found


def drawn(scores: dict[str, float], spec: ExplorationSpec, count: int, top: int = 9) -> list[Order]:
    """Return orders that were drawn one after the other."""
    rng = random.Random(7)
    return [draw(scores, spec, rng, top=top) for _ in range(count)]


# --- propensities -----------------------------------------------------------------------------


@given(scored, specs, st.integers(1, 5), st.integers(0, 10_000))
def test_propensities_multiply_to_the_probability_of_the_order(
    scores: dict[str, float], spec: ExplorationSpec, top: int, seed: int
) -> None:
    """The product over the places shown is the probability of just these, in this order."""
    order = draw(scores, spec, random.Random(seed), top=top)
    assert len(order.ids) == len(order.propensities) == min(top, len(scores))
    assert all(0.0 < p <= 1.0 + 1e-12 for p in order.propensities)
    expected = probability(order.ids, scores, spec)
    assert math.prod(order.propensities) == pytest.approx(expected, rel=1e-9)


@KINDS
@pytest.mark.parametrize("top", [1, 2, 4])
def test_the_probabilities_of_all_orders_add_up_to_one(spec: ExplorationSpec, top: int) -> None:
    """Every order can be drawn, always with the same probability, and they sum to 1."""
    by_order: dict[tuple[str, ...], set[float]] = {}
    for order in drawn(SCORES, spec, 5000, top):
        by_order.setdefault(tuple(order.ids), set()).add(round(math.prod(order.propensities), 12))
    assert set(by_order) == set(itertools.permutations(SCORES, top))
    assert all(len(found) == 1 for found in by_order.values())
    assert sum(map(sum, by_order.values())) == pytest.approx(1.0, abs=1e-9)


@KINDS
def test_orders_come_as_often_as_they_say(spec: ExplorationSpec) -> None:
    """Over 20,000 draws each order is as frequent as its propensities have it: 4.5 s.e."""
    count = 20_000
    orders = drawn(SCORES, spec, count)
    seen = Counter(tuple(order.ids) for order in orders)
    for order in orders:
        p = math.prod(order.propensities)
        standard_error = math.sqrt(p * (1.0 - p) / count)
        assert abs(seen[tuple(order.ids)] / count - p) < 4.5 * standard_error


def test_far_scores_keep_their_odds() -> None:
    """Two options hopelessly behind a third still stand in the order of their own odds."""
    spec = ExplorationSpec(kind="softmax")
    orders = drawn({"a": 0.0, "b": -800.0, "c": -801.0}, spec, 200)
    b_first = 1.0 / (1.0 + math.exp(-1.0))
    expected = {"abc": [1.0, b_first, 1.0], "acb": [1.0, 1.0 - b_first, 1.0]}
    assert {"".join(order.ids) for order in orders} == set(expected)
    for order in orders:
        assert order.propensities == pytest.approx(expected["".join(order.ids)])


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[3], ExplorationSpec(kind="epsilon", epsilon=0.5)])
def test_a_thousand_options_are_no_trouble(spec: ExplorationSpec) -> None:
    """The probability of a whole order of a thousand is no float; those of its places are."""
    scores = {str(n): n / 100 for n in range(1000)}
    for order in drawn(scores, spec, 5, top=1000):
        assert sorted(order.ids) == sorted(scores)
        assert all(0.0 < p <= 1.0 for p in order.propensities)
        assert order.propensities[-1] == 1.0


# --- what is shown ----------------------------------------------------------------------------


def test_without_exploration_the_best_is_first() -> None:
    """Nothing is drawn: the order is that of the scores, ties as they came, for sure."""
    order = draw(SCORES, None, random.Random(0), top=3)
    assert order == Order(["b", "a", "c"], [1.0, 1.0, 1.0], explored=False)


@KINDS
def test_explored_tells_whether_the_order_is_another(spec: ExplorationSpec) -> None:
    """What counts is what is shown: the first places, against the best ones."""
    orders = drawn(SCORES, spec, 300, top=2)
    assert all(order.explored == (order.ids != ["b", "a"]) for order in orders)
    assert {order.explored for order in orders} == {True, False}


def test_epsilon_zero_never_explores() -> None:
    """A probability of zero is none, and costs no propensity."""
    for order in drawn(SCORES, ExplorationSpec(kind="epsilon", epsilon=0.0), 100):
        assert order == Order(["b", "a", "c", "d"], [1.0] * 4, explored=False)


def test_softmax_of_far_scores_is_finite() -> None:
    """Differences that no exponential can hold are certainty, and equal scores are equal."""
    assert softmax({"a": 1e15, "b": -1e15}) == {"a": 1.0, "b": 0.0}
    assert softmax(dict.fromkeys("abcd", 1e9)) == dict.fromkeys("abcd", 0.25)
    assert softmax({}) == {}


# --- through the loop -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["softmax", "epsilon"])
async def test_propensities_are_logged_with_the_answer(
    open_loop: Callable[..., Awaitable[Loop]], make_settings: Callable[..., Any], kind: str
) -> None:
    """Answer and record say which places were filled by chance; shadows stay unexplored."""
    exploration = {"kind": kind, "epsilon": 1.0}
    loop = await open_loop(make_settings(pages={"exploration": exploration}))
    options = [{"id": name, "features": {"title": name}} for name in "abc"]
    explored = 0
    for _ in range(20):
        answer = await loop.predict("pages", {"query": "x"}, options=options, top_k=2)
        _, address = loop.keyring.open("prediction", answer["prediction_id"])
        record = await loop.stages("pages").journal.read(address)
        assert record.output == answer["output"] == [item["id"] for item in answer["ranking"]]
        assert record.propensities == [item["propensity"] for item in answer["ranking"]]
        assert record.propensities == pytest.approx([1 / 3, 1 / 2])
        assert answer["propensity"] == record.propensity == record.propensities[0]
        assert record.shadows["champion"].output == ["a", "b", "c"]
        assert record.explored == (record.output != ["a", "b"])
        explored += record.explored
    assert 5 < explored < 20
