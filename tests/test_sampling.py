"""Active learning: what is asked is worth it, within the budget, and by the chance that is told."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_learner.errors import ConfigError
from online_learner.settings import ModelSpec
from online_learner.stages import make_sampling
from policies.sampling import Entropy, Margin, Random, VariableUncertainty

Scores = dict[str, float]

UNSURE = [VariableUncertainty, Margin, Entropy]
ALL = [Random, *UNSURE]
each_unsure = pytest.mark.parametrize("kind", UNSURE)
each = pytest.mark.parametrize("kind", ALL)
# With two labels the measures agree (which is shown below), so one stands for all.
each_by_two = pytest.mark.parametrize("kind", [Random, VariableUncertainty])
MANY = 4000


def two(uncertainty: float) -> Scores:
    """Return the scores of two labels, the less probable of which has this probability."""
    return {"ham": 1.0 - uncertainty, "spam": uncertainty}


def calm(rng: random.Random) -> Iterator[Scores]:
    """Yield scores of a model that is sure of most, and unsure of some."""
    while True:
        yield two(0.5 * rng.random() ** 4)


def bursts(rng: random.Random) -> Iterator[Scores]:
    """Yield a hundred answers in a row that are unsure, after each four hundred that are sure."""
    while True:
        for n in range(500):
            yield two(rng.uniform(0.4, 0.5) if n >= 400 else rng.uniform(0.0, 0.01))


def two_heaps(rng: random.Random) -> Iterator[Scores]:
    """Yield one answer in twenty that is unsure, all others wholly sure: many are equal."""
    while True:
        yield two(rng.choice([0.49, *[0.0] * 19]))


def equal(_: random.Random) -> Iterator[Scores]:
    """Yield the same scores all the time."""
    while True:
        yield two(0.3)


def surer(rng: random.Random) -> Iterator[Scores]:
    """Yield scores of a model that grows sure, over many orders of magnitude."""
    for n in range(10**9):
        yield two(0.5 * math.exp(-n / 300.0) * rng.uniform(0.9, 1.0))


def in_doubt(rng: random.Random) -> Iterator[Scores]:
    """Yield scores of a model that is less sure with every answer."""
    for n in range(10**9):
        yield two(0.5 * math.exp(n / 300.0 - 40.0) * rng.uniform(0.99, 1.0) if n < 12_000 else 0.5)


def collapse(rng: random.Random) -> Iterator[Scores]:
    """Yield scores of a model that is swapped for a surer one, and back, now and then."""
    while True:
        for low, high in ((0.2, 0.5), (1e-6, 1e-5)):
            for _ in range(700):
                yield two(rng.uniform(low, high))


STREAMS: list[Callable[[random.Random], Iterator[Scores]]]
STREAMS = [calm, bursts, two_heaps, equal, surer, in_doubt, collapse]
each_stream = pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.__name__)


def run(policy: Random, stream: Iterator[Scores], rng: random.Random, n: int) -> list[Any]:
    """Return the scores of the first answers, and what was returned for each."""
    return [(scores, policy.ask(scores, rng)) for scores, _ in zip(stream, range(n), strict=False)]


def asked(found: list[Any]) -> int:
    """Return of how many answers a label was asked."""
    return sum(chance is not None for _, chance in found)


# --- the probability --------------------------------------------------------------------------


@each_by_two
@each_stream
def test_divided_by_their_chances_the_questions_add_up_to_all_answers(
    kind: Any, stream: Any
) -> None:
    """Each question stands for 1 / chance answers: in sum for all, and for all of the sure ones."""
    policy = kind("classification", 0.1)
    found = run(policy, stream(random.Random(3)), random.Random(4), 3 * MANY)
    middle = sorted(scores["spam"] for scores, _ in found)[len(found) // 2]
    for group in (found, [pair for pair in found if pair[0]["spam"] <= middle]):
        chances = [chance for _, chance in group if chance is not None]
        assert all(0.0 < chance <= 1.0 for chance in chances)
        error = math.sqrt(sum((1.0 - p) / p**2 for p in chances))
        assert abs(sum(1.0 / p for p in chances) - len(group)) <= 4.5 * error + 1e-6


@each
@pytest.mark.parametrize("before", [0, 7, 300])
@pytest.mark.parametrize("now", [0.0, 0.02, 0.1, 0.5])
def test_the_chance_is_the_frequency_given_all_that_came_before(
    kind: Any, before: int, now: float
) -> None:
    """With the same history, one answer is asked as often as the number that is returned says."""
    policy = kind("classification", 0.2)
    run(policy, calm(random.Random(1)), random.Random(2), before)
    state = {k: v for k, v in vars(policy).items() if k != "_lock"}
    draws, rng, chances = 4000, random.Random(5), []
    for _ in range(draws):
        again = kind("classification", 0.2)
        for name, value in state.items():
            setattr(again, name, value.copy() if hasattr(value, "copy") else value)
        chances.append(again.ask(two(now), rng))
    [chance] = {chance for chance in chances if chance is not None}
    seen = sum(c is not None for c in chances) / draws
    assert abs(seen - chance) <= 4.5 * math.sqrt(chance * (1.0 - chance) / draws) + 1e-12


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=40),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.floats(1, 4),
)
def test_every_answer_has_a_chance(
    uncertain: list[float], budget: float, at_random: float, softness: float, factor: float
) -> None:
    """Whatever the scores and the arguments, it is at least what is asked at random, at most 1."""

    class Always(random.Random):
        def random(self) -> float:
            return 0.0

    policy = Margin("classification", budget, at_random=at_random, softness=softness, window=10)
    for one in uncertain:
        chance = policy.ask(two(one), Always(), factor=factor)
        assert chance is not None
        assert at_random * budget - 1e-12 <= chance <= 1.0 + 1e-12


@pytest.mark.parametrize("share", [0.03, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("softness", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_over_all_ranks_the_chance_is_the_share(share: float, softness: float, n: int) -> None:
    """However few answers there are to stand among, the mean over all places is what was meant."""
    policy = VariableUncertainty("classification", share, softness=softness)
    places = [policy._chosen(i / n, (i + 1) / n, share) for i in range(n)]
    assert sum(places) / n == pytest.approx(share, rel=1e-9)
    assert places == sorted(places, reverse=True)


# --- the budget -------------------------------------------------------------------------------


@each_by_two
@each_stream
@pytest.mark.parametrize("budget", [0.05, 0.1, 0.2, 0.5])
def test_the_budget_is_kept_within_two_percent(kind: Any, stream: Any, budget: float) -> None:
    """Over 400 questions, in bursts, ties, heaps, drift or none, as much is asked as said."""
    n = max(MANY, round(400 / budget))
    found = run(kind("classification", budget), stream(random.Random(0)), random.Random(9), n)
    assert asked(found) == pytest.approx(budget * n, rel=0.02)


def test_no_budget_asks_nothing_and_all_of_it_asks_everything() -> None:
    """The ends of the scale are certain."""
    none, every = (VariableUncertainty("classification", budget) for budget in (0.0, 1.0))
    assert asked(run(none, calm(random.Random(0)), random.Random(0), 500)) == 0
    found = run(every, calm(random.Random(0)), random.Random(0), 500)
    assert {chance for _, chance in found} == {1.0}


@each
def test_a_factor_raises_the_budget_while_it_is_in_force(kind: Any) -> None:
    """Three times as much is asked at once, and afterwards as much as before: nothing is owed."""
    policy, rng, stream = kind("classification", 0.1), random.Random(2), calm(random.Random(1))
    counts = []
    for factor in (1.0, 3.0, 1.0):
        found = [
            policy.ask(scores, rng, factor=factor)
            for scores, _ in zip(stream, range(1000), strict=False)
        ]
        counts.append(sum(chance is not None for chance in found))
    assert counts == pytest.approx([100, 300, 100], abs=8)


def test_a_factor_asks_at_most_everything() -> None:
    """Beyond all answers there is nothing to ask, and nothing is owed for it later."""
    policy, rng = Margin("classification", 0.5), random.Random(0)
    found = [policy.ask(two(0.2), rng, factor=4.0) for _ in range(300)]
    assert all(chance is not None for chance in found[20:])
    later = [policy.ask(two(0.2), rng) for _ in range(1000)]
    assert sum(chance is not None for chance in later) == pytest.approx(500, abs=10)


def test_threads_may_share_it() -> None:
    """Four threads ask at once: the window stays in order, and the budget is kept."""
    policy = Margin("classification", 0.2)

    def work(seed: int) -> int:
        return asked(run(policy, calm(random.Random(seed)), random.Random(seed), MANY))

    with ThreadPoolExecutor(4) as pool:
        total = sum(pool.map(work, range(4)))
    assert total == pytest.approx(0.2 * 4 * MANY, rel=0.02)
    assert policy._ordered == sorted(policy._last)
    assert len(policy._ordered) == policy.window


# --- what is asked ----------------------------------------------------------------------------


@each_unsure
def test_the_least_sure_answers_are_asked_first(kind: Any) -> None:
    """Of the least sure twentieth most are asked; of the surer half about what is at random."""
    policy = kind("classification", 0.2, at_random=0.1)
    found = run(policy, calm(random.Random(3)), random.Random(4), MANY)[500:]
    found.sort(key=lambda pair: pair[0]["spam"])
    sure, unsure = found[: len(found) // 2], found[-len(found) // 20 :]
    assert asked(unsure) / len(unsure) > 0.9
    assert 0.01 < asked(sure) / len(sure) < 0.04


def test_with_two_labels_the_measures_agree() -> None:
    """The same answers are asked, by the same chances, whichever way uncertainty is measured."""
    found = [
        run(kind("classification", 0.1), calm(random.Random(6)), random.Random(7), 2000)
        for kind in UNSURE
    ]
    chances = [[chance for _, chance in one] for one in found]
    assert chances[0] == chances[1] == chances[2]


def test_with_many_labels_the_measures_differ() -> None:
    """Two that compete are close by margin; a spread is unsure by entropy and by its largest."""
    pair, spread = [0.48, 0.47, 0.05], [0.4, 0.3, 0.3]
    by = {kind: kind("classification", 0.1).uncertainty for kind in UNSURE}
    assert by[Margin](pair) > by[Margin](spread)
    assert by[Entropy](pair) < by[Entropy](spread)
    assert by[VariableUncertainty](pair) < by[VariableUncertainty](spread)
    assert by[Margin](pair) == pytest.approx(0.99)
    assert by[Entropy]([0.25] * 4) == pytest.approx(math.log(4))
    assert by[Entropy]([1.0, 0.0]) == 0.0


@each_unsure
def test_the_scale_of_the_scores_does_not_matter(kind: Any) -> None:
    """Scores that are flattened by a temperature lead to the same questions."""
    chances = []
    for power in (1.0, 0.25):
        rng, policy = random.Random(5), kind("classification", 0.1)
        stream = ((s["ham"] ** power, s["spam"] ** power) for s in calm(random.Random(8)))
        flat = ({"ham": a / (a + b), "spam": b / (a + b)} for a, b in stream)
        chances.append([chance for _, chance in run(policy, flat, rng, 2000)])
    assert chances[0] == chances[1]


@each
@pytest.mark.parametrize("scores", [{}, {"ham": 1.0}, two(float("nan"))])
def test_where_nothing_tells_answers_apart_it_asks_at_random(kind: Any, scores: Scores) -> None:
    """A number, the only label known, or scores that are none: by the budget alone."""
    policy, rng = kind("classification", 0.2), random.Random(1)
    first = [kind("classification", 0.2).ask(scores, rng) for _ in range(100)]
    assert {round(chance, 12) for chance in first if chance is not None} == {0.2}
    chances = [policy.ask(scores, rng) for _ in range(1000)]
    assert sum(chance is not None for chance in chances) == pytest.approx(200, abs=6)


@each_unsure
def test_the_first_answer_is_asked_by_the_budget(kind: Any) -> None:
    """Before there is anything to compare with, each answer may be any: the chance is the share."""
    rng = random.Random(1)
    for scores in (two(0.5), two(0.0)):
        chances = {kind("classification", 0.2).ask(scores, rng) for _ in range(100)}
        assert max(c for c in chances if c is not None) == pytest.approx(0.2)


def test_after_a_second_label_is_found_it_asks_by_uncertainty() -> None:
    """One label known, all answers are equally sure; with two, the unsure ones come first."""
    policy, rng = Margin("classification", 0.1), random.Random(1)
    for _ in range(1000):
        policy.ask({"ham": 1.0}, rng)
    found = run(policy, calm(random.Random(3)), rng, 1500)[300:]
    found.sort(key=lambda pair: -pair[0]["spam"])
    assert asked(found[:60]) > 50


@each_unsure
@pytest.mark.parametrize("task", ["ranking", "generation"])
def test_a_ranking_is_asked_about_where_its_rewards_are_close(kind: Any, task: Any) -> None:
    """Rewards of any size are odds: those that differ by little are asked first."""
    policy, rng = kind(task, 0.1), random.Random(1)
    close = far = 0
    for n in range(2000):
        gap = 0.1 if n % 10 == 0 else 20.0 + n
        rewards = {"a": 1e4 * (n % 3) + gap, "b": 1e4 * (n % 3), "c": -1e9}
        chance = policy.ask(rewards, rng)
        close += chance is not None and gap < 1.0
        far += chance is not None and gap > 1.0
    assert close + far == pytest.approx(200, abs=5)
    assert close > 150


# --- the configuration ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (Random, {"slack": 0.0}, "slack: is 0.0, and has to be from 1 on"),
        (Random, {"slack": "x"}, "slack: is a number, not 'x'"),
        (Margin, {"at_random": 0.0}, "at_random: is 0.0, and has to be from 0.01 to 1"),
        (Margin, {"softness": 2}, "softness: is 2, and has to be from 0 to 1"),
        (Entropy, {"window": 3}, "window: is 3, and has to be from 10 to 10000"),
        (Entropy, {"window": 50.0}, "window: is a whole number, not 50.0"),
        (Random, {"windows": 50}, "windows"),
    ],
)
def test_what_cannot_be_is_refused(kind: Any, arguments: Any, message: str) -> None:
    """An argument that is out of its range is refused with a sentence that says the range."""
    with pytest.raises((ValueError, TypeError), match=message):
        kind("classification", 0.1, **arguments)


def test_a_model_is_given_its_policy_by_configuration() -> None:
    """`ask_budget` and `sampling` make the policy; a wrong argument is a wrong configuration."""
    use: Any = {"use": "policies.sampling:Margin", "at_random": 0.3}
    spec: dict[str, Any] = {"task": "classification", "labels": ["a", "b"], "learner": "torch:text"}
    policy = make_sampling(ModelSpec(**spec, ask_budget=0.2, sampling=use))
    assert (type(policy), policy.budget, policy.at_random) == (Margin, 0.2, 0.3)
    with pytest.raises(ConfigError, match="at_random: is 3, and has to be from"):
        make_sampling(ModelSpec(**spec, ask_budget=0.2, sampling=use | {"at_random": 3}))
    assert make_sampling(ModelSpec(**spec)).budget >= 0.0
