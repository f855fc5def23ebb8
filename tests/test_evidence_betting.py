"""The e-process: what it computes, that its promise holds, and how it depends on G.

That the arrays of `benchmarks.gate` compute the same numbers as the classes is tested here too.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gate import kernel, many, nulls, power
from online_learner.evidence import (
    BETS,
    PRIOR,
    BettingTest,
    Sensitivity,
    bets,
    gamma_of,
    log_factors,
    log_mean_exp,
    log_mixture,
    raised_null,
)
from online_learner.evidence.sensitivity import GAMMA_MAX

DIFFERENCES = st.floats(-1.0, 1.0)
WHOLE = st.sampled_from([-1.0, 0.0, 1.0])
RAISED = st.sampled_from([0.0, 0.2, 0.5])


def e_value(d: list[float], m: float) -> float:
    """Return the e-value by its formula."""
    products = [math.prod(1 + bet * (x - m * abs(x)) for x in d) for bet in bets(m)]
    return sum(p * product for p, product in zip(PRIOR, products, strict=True))


# --- what it computes -----------------------------------------------------------------------------


@given(st.lists(DIFFERENCES, max_size=40), RAISED)
def test_betting_is_the_formula(d: list[float], m: float) -> None:
    """The e-value is the mean over the bets of the products of 1 + l (d - m |d|)."""
    test = BettingTest.fresh(m)
    for value in d:
        test.update(value)
    assert test.log_e == pytest.approx(math.log(e_value(d, m)), abs=1e-9)


@given(st.lists(st.tuples(DIFFERENCES, st.booleans()), max_size=40))
def test_auditors_points_are_not_raised(points: list[tuple[float, bool]]) -> None:
    """What an auditor says is taken as it is; the bets stay those of the gate."""
    test, logs = BettingTest.fresh(0.2), np.zeros(BETS)
    for d, auditor in points:
        test.update(d, 0.0 if auditor else None)
        logs = logs + log_factors(d, 0.0 if auditor else 0.2, bets(0.2))
    assert test.log_wealth == pytest.approx(logs)


def test_many_tests_side_by_side() -> None:
    """An array of tests computes what each of them would alone, to the last bit."""
    d = np.random.default_rng(0).uniform(-1, 1, (30, 2, 3))
    raised = np.where(d > 0, 0.0, 0.2)
    together, alone = BettingTest.fresh(0.2, (2, 3)), BettingTest.fresh(0.2)
    for point, raise_ in zip(d, raised, strict=True):
        together.update(point, raise_)
        alone.update(point[1, 2], raise_[1, 2])
    assert together.log_es.shape == (2, 3)
    assert (together.log_wealth[1, 2] == alone.log_wealth).all()


@given(st.lists(DIFFERENCES | WHOLE, max_size=60), RAISED)
def test_wealth_is_never_undefined(d: list[float], m: float) -> None:
    """No sequence of differences ruins a test: bets stay below what would lose everything."""
    test = BettingTest.fresh(m)
    for value in d:
        test.update(value)
    assert np.isfinite(test.log_wealth).all()
    assert math.isfinite(test.log_e)
    assert test.log_best == max(test.log_wealth)


@pytest.mark.parametrize("m", [0.0, 0.2, 0.5, 0.98])
def test_bets_are_legal(m: float) -> None:
    """Every bet is positive and below 1 / (1 + m), so the worst difference leaves some wealth."""
    assert (bets(m) > 0).all()
    assert (bets(m) * (1 + m) < 1).all()
    assert (np.diff(bets(m)) > 0).all()
    assert bets(m).shape == PRIOR.shape == (BETS,)


def test_the_prior_is_one() -> None:
    """A test starts with a wealth of exactly 1."""
    assert PRIOR.sum() == 1.0
    assert (PRIOR > 0).all()
    assert BettingTest.fresh(0.2).log_e == 0.0


def test_mixtures_of_logs_neither_overflow_nor_underflow() -> None:
    """Means of huge and of tiny wealth come out, and the mean of nothing is nothing."""
    assert log_mean_exp([1000.0, 1000.0]) == pytest.approx(1000.0)
    assert log_mean_exp([-1000.0, -2000.0]) == pytest.approx(-1000.0 - math.log(2))
    assert log_mean_exp([-math.inf, -math.inf]) == -math.inf
    assert log_mean_exp([-math.inf, 0.0]) == pytest.approx(-math.log(2))
    assert log_mixture(np.zeros((3, BETS))) == pytest.approx(0.0)


@given(st.lists(DIFFERENCES, max_size=30), st.lists(DIFFERENCES, max_size=30))
def test_pack_and_unpack(d: list[float], later: list[float]) -> None:
    """A test that went through JSON is equal to the last bit, and goes on equally."""
    test, other = BettingTest.fresh(0.2), Sensitivity(0.1)
    for value in d:
        test.update(value)
        other.update(value)
    twin = BettingTest.unpack(json.loads(json.dumps(test.pack(), allow_nan=False)))
    other_twin = Sensitivity.unpack(json.loads(json.dumps(other.pack(), allow_nan=False)))
    for value in later:
        test.update(value)
        twin.update(value)
        other.update(value, trusted=True)
        other_twin.update(value, trusted=True)
    assert twin.pack() == test.pack()
    assert other_twin.pack() == other.pack()


# --- the promise, exactly -------------------------------------------------------------------------

EDGE = [(1.0, 0.0), (0.5, 0.0), (1.0, 0.2), (0.5, 0.2), (1.0, 0.5)]  # size of a win, m


def outcomes(win: float, m: float) -> list[tuple[float, float]]:
    """Return points and their probabilities with E d = m E|d|, exactly on the edge of the null."""
    chance = 0.6 * (1 + m) / (win * (1 - m) + 1 + m)
    return [(win, chance), (-1.0, 0.6 - chance), (0.0, 0.4)]


def tree(steps: list[list[tuple[float, float]]]) -> Iterator[tuple[list[float], float]]:
    """Yield every sequence of points, with its probability."""
    for path in itertools.product(*steps):
        yield [d for d, _ in path], math.prod(chance for _, chance in path)


@pytest.mark.parametrize(("win", "m"), EDGE)
def test_the_mean_e_value_is_one_at_the_edge_of_the_null(win: float, m: float) -> None:
    """Over all sequences of six points, the e-value is 1 on average where E d = m E|d|."""
    mean = sum(chance * e_value(d, m) for d, chance in tree([outcomes(win, m)] * 6))
    assert mean == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("win", "m"), EDGE)
@pytest.mark.parametrize("goal", [1.5, 2.0, 4.0])
def test_the_goal_is_reached_with_the_bound_at_most(win: float, m: float, goal: float) -> None:
    """Over all sequences of six points, P(the e-value is ever above c) <= 1/c (Ville)."""
    ever = sum(
        chance
        for d, chance in tree([outcomes(win, m)] * 6)
        if max(e_value(d[: n + 1], m) for n in range(6)) >= goal
    )
    assert ever <= 1 / goal


@given(st.lists(st.floats(-0.9, 0.9), min_size=1, max_size=6))
def test_the_promise_speaks_of_the_average_so_far(means: list[float]) -> None:
    """However the true mean moves, the mean e-value is at most 1 while the average is <= 0."""
    factors = [math.prod(1 + bet * mean for mean in means) for bet in bets(0.0)]
    mean = sum(p * factor for p, factor in zip(PRIOR, factors, strict=True))
    steps = [[(1.0, (1 + mu) / 2), (-1.0, (1 - mu) / 2)] for mu in means]
    exact = sum(chance * e_value(d, 0.0) for d, chance in tree(steps))
    assert exact == pytest.approx(mean, abs=1e-9)
    if sum(means) <= 0:
        assert exact <= 1 + 1e-12


# --- the raise ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gamma", "m"), [(1.0, 0.0), (1.5, 0.2), (3.0, 0.5)])
def test_raised_null(gamma: float, m: float) -> None:
    """The null is raised to (G - 1) / (G + 1); G = 1 raises nothing, and m gives G back."""
    assert raised_null(gamma) == pytest.approx(m)
    assert gamma_of(m) == pytest.approx(gamma)


@given(st.floats(1, 20), st.floats(0, 0.5))
def test_the_raise_is_all_that_answers_and_malice_can_feign(gamma: float, malice: float) -> None:
    """G-fold answers of an equal pair, a share of them turned to wins: E d = m E|d|."""
    win = gamma / (1 + gamma)
    win = malice + (1 - malice) * win
    assert raised_null(gamma, malice) == pytest.approx(2 * win - 1)


# --- the break-even -------------------------------------------------------------------------------


def sensitivity(wins: int, losses: int) -> Sensitivity:
    """Return the sensitivity after so many wins and losses."""
    found = Sensitivity()
    for d in [1.0] * wins + [-1.0] * losses:
        found.update(d)
    return found


def exact(wins: int, losses: int, log_goal: float) -> float:
    """Return by bisection the G at which the log e-value of whole points is the goal."""
    low, high = 1.0, 100.0
    for _ in range(60):
        m = raised_null((low + high) / 2)
        logs = wins * log_factors(1.0, m, bets(m)) + losses * log_factors(-1.0, m, bets(m))
        if log_mixture(logs) >= log_goal:
            low = (low + high) / 2
        else:
            high = (low + high) / 2
    return low


@pytest.mark.parametrize(("wins", "losses"), [(40, 10), (100, 40), (300, 100), (1000, 600)])
def test_break_even_is_where_the_decision_would_fall(wins: int, losses: int) -> None:
    """The break-even of whole points is exact to a thousandth."""
    found = sensitivity(wins, losses).break_even(math.log(100))
    assert found == pytest.approx(exact(wins, losses, math.log(100)), abs=1e-3)


def test_break_even_at_both_ends() -> None:
    """What does not stand at G = 1 has none; what stands everywhere stands up to the last G."""
    assert sensitivity(10, 9).break_even(math.log(100)) is None
    assert sensitivity(500, 0).break_even(math.log(100)) == GAMMA_MAX


@given(
    st.lists(st.tuples(WHOLE | st.just(1.0), st.booleans()), min_size=5, max_size=50),
    st.lists(st.tuples(DIFFERENCES, st.booleans()), max_size=50),
    st.floats(1, 5),
)
def test_break_even_agrees_with_the_gate(
    whole: list[tuple[float, bool]], parts: list[tuple[float, bool]], gamma: float
) -> None:
    """With whole points, what stands at the gate's G breaks even there; with others it is less."""
    m = raised_null(gamma, 0.1)
    for points, exactly in ((whole, True), (whole + parts, False)):
        test, found = BettingTest.fresh(m), Sensitivity(0.1)
        for d, trusted in points:
            test.update(d, 0.0 if trusted else m)
            found.update(d, trusted=trusted)
        if test.log_e < 1.0:
            continue  # there is no decision to stand or fall
        even = found.break_even(test.log_e - 1e-9)
        if exactly:
            assert even is not None
            assert even >= gamma - 1e-3
        again = found.break_even(test.log_e + 1e-9)
        assert again is None or again <= gamma + 1e-3


# --- simulated ------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), RAISED)
def test_arrays_compute_what_the_class_does(seed: int, m: float) -> None:
    """The kernel's e-values, of whole points and of others, are those of the class."""
    d = kernel.draw(np.random.default_rng(seed), 0.4, 0.3, (2, 50))
    test, paths = BettingTest.fresh(m, (2,)), []
    for point in d.T:
        test.update(point)
        paths.append(test.log_es)
    assert kernel.log_es(d, m) == pytest.approx(np.stack(paths, axis=1), abs=1e-9)
    assert kernel.log_es(d.astype(np.float64), m) == pytest.approx(kernel.log_es(d, m), abs=1e-9)


@pytest.mark.parametrize("null", nulls.NULLS, ids=lambda null: null.title)
def test_nulls_are_rarely_promoted(null: nulls.Null) -> None:
    """A candidate that is not better is promoted with probability alpha at most, ever."""
    shares = nulls.promoted(null, 500, 2000)
    for alpha, share in zip(nulls.ALPHAS, shares, strict=True):
        assert share <= nulls.bound(alpha, 500)


def test_an_adversary_gains_nothing() -> None:
    """One who sees the e-value and chooses the next fair point wins alpha of the time at most."""
    for alpha, share in zip(nulls.ALPHAS, nulls.opposed(500, 500), strict=True):
        assert share <= nulls.bound(alpha, 500)


@pytest.mark.parametrize("null", nulls.MISTAKES, ids=lambda null: null.title)
def test_each_rule_is_needed(null: nulls.Null) -> None:
    """With one rule left out, the same kind of candidate is promoted far more often."""
    by_arrival = "arrival" in null.title
    assert nulls.promoted(null, 200, 5000, by_arrival=by_arrival)[0] > 0.2


def test_settlement_keeps_the_order_of_predictions() -> None:
    """A late label holds up all that were predicted after it, and arrivals are another order."""
    stream = kernel.Stream(
        np.array([[1, -1, 1, 1]], dtype=np.int8), arrival=np.array([[0, 9, 2, 1]])
    )
    assert np.array_equal(stream.in_time(), [[True, False, False, False]])
    assert stream.by_arrival().d.tolist() == [[1, 1, 1, -1]]


@pytest.mark.parametrize("effect", power.EFFECTS, ids=lambda effect: effect.title)
def test_labels_to_promote(effect: power.Effect) -> None:
    """A better candidate wins within the stated number of labels at alpha .01."""
    found = power.labels(effect, 400)
    assert np.median(found) <= effect.median
    assert np.quantile(found, 0.9) <= effect.p90


def test_peeking_at_a_z_test_would_promote_them() -> None:
    """The same looks at a textbook z-test promote an equal candidate far more often."""
    d = kernel.draw(np.random.default_rng(2), 0.25, 0.25, (500, 1500))
    z = np.cumsum(d, axis=1) / np.sqrt(0.5 * np.arange(1, 1501))
    assert (z[:, 30:] > 1.645).any(axis=1).mean() > 0.2


def test_few_of_many_promotions_are_wrong() -> None:
    """Of a stream in which most candidates are equal, at most 5 % of the promotions are wrong."""
    best, better = many.candidates(3)
    promoted = many.promote(best, many.by_default)
    assert (promoted & ~better).sum() <= 0.05 * promoted.sum()
    assert (promoted & better).sum() >= 0.9 * better.sum()
    assert not (many.promote(best, many.strict) & ~better).any()
