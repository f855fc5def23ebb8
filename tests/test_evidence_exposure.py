"""Exposure: the estimate is without bias, the interval holds, and equal arms are not promoted."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gate import exposed, kernel
from online_learner.evidence import ExposureTest
from online_learner.evidence.exposure import RATES

SHARE = 0.2
POINTS = st.lists(
    st.tuples(st.sampled_from([1, -1, 0]), st.floats(0, 1), st.sampled_from([0.2, 0.8])),
    max_size=40,
)


def played(points: list[tuple[int, float, float]]) -> ExposureTest:
    """Return the test after these points."""
    test = ExposureTest.fresh(SHARE)
    for shown, reward, propensity in points:
        test.update(shown, reward, propensity)
    return test


def one(challenger: float, champion: float) -> list[tuple[tuple[int, float, float], float]]:
    """Return every outcome of one request with thumbs, and its probability."""
    return [
        ((sign, float(up), p), p * (mean if up else 1 - mean))
        for sign, p, mean in [(1, SHARE, challenger), (-1, 1 - SHARE, champion)]
        for up in (0, 1)
    ]


@pytest.mark.parametrize("means", [(0.7, 0.7), (0.9, 0.2), (0.1, 0.6)])
def test_the_estimate_has_no_bias(means: tuple[float, float]) -> None:
    """Over all courses of three requests, the estimate is the difference on average, exactly."""
    paths = itertools.product(one(*means), repeat=3)
    mean = sum(
        math.prod(chance for _, chance in path) * played([point for point, _ in path]).estimate
        for path in paths
    )
    assert mean == pytest.approx(means[0] - means[1], abs=1e-12)


def test_the_mean_e_value_is_one_where_both_are_equal() -> None:
    """Over all courses of three requests, equal arms have an e-value of 1 on average, exactly."""
    mean = sum(
        math.prod(chance for _, chance in path)
        * math.exp(played([point for point, _ in path]).log_e)
        for path in itertools.product(one(0.7, 0.7), repeat=3)
    )
    assert mean == pytest.approx(1.0, abs=1e-12)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0, 1))
def test_answers_by_outcome_do_not_turn_the_sign(
    challenger: float, champion: float, up: float, down: float, before: float
) -> None:
    """However often thumbs up and down are given, the worse arm has the lower mean x."""
    of = [mean * up * (1 - before) - (1 - mean) * down * before for mean in (challenger, champion)]
    assert (of[0] - of[1]) * (challenger - champion) >= -1e-12


@given(st.sampled_from(list(RATES)), st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 1))
def test_the_interval_rests_on_a_supermartingale(
    rate: float, high: float, low: float, chance: float
) -> None:
    """E exp(l (z - E z) - psi(l) z^2) <= 1 for any two points, on both sides."""
    psi = -math.log1p(-rate) - rate
    for z in ((high, low), (-high, -low)):
        mean = chance * z[0] + (1 - chance) * z[1]
        grown = [math.exp(rate * (x - mean) - psi * x * x) for x in z]
        assert chance * grown[0] + (1 - chance) * grown[1] <= 1 + 1e-9


@given(POINTS)
def test_intervals_hold_the_estimate_and_each_other(points: list[tuple[int, float, float]]) -> None:
    """A surer interval is wider, none leaves [-1, 1], and at the start nothing is known."""
    test = played(points)
    wide, narrow = test.interval(0.01), test.interval(0.1)
    assert -1 <= wide[0] <= narrow[0] <= 1
    assert -1 <= narrow[1] <= wide[1] <= 1
    assert narrow[0] <= max(-1.0, min(1.0, test.estimate)) <= narrow[1]
    assert played([]).interval(0.05) == (-1.0, 1.0)
    assert played([]).estimate == 0.0


def test_an_impossible_propensity_ruins_nothing() -> None:
    """A propensity below the smallest that was announced leaves the wealth positive."""
    test = played([(-1, 1.0, 1e-9), (1, 0.0, 1e-9)] * 20)
    assert math.isfinite(test.log_e)


@given(POINTS, POINTS)
def test_pack_and_unpack(
    points: list[tuple[int, float, float]], later: list[tuple[int, float, float]]
) -> None:
    """A test that went through JSON is equal to the last bit, and goes on equally."""
    test = played(points)
    twin = ExposureTest.unpack(json.loads(json.dumps(test.pack(), allow_nan=False)))
    for point in later:
        test.update(*point)
        twin.update(*point)
    assert twin.pack() == test.pack()


@pytest.mark.parametrize("answered", [1.0, 0.6])
def test_arrays_compute_what_the_class_does(answered: float) -> None:
    """The kernel's estimates, e-values and intervals are those of the class."""
    rng = np.random.default_rng(3)
    first = rng.random((3, 80)) < SHARE
    shown, p = np.where(first, 1, -1).astype(np.int8), np.where(first, SHARE, 1 - SHARE)
    reward, heard = rng.random((3, 80)), rng.random((3, 80)) < answered
    path = kernel.expose(shown, reward, p, heard)
    test = ExposureTest.fresh(SHARE)
    for i in np.flatnonzero(heard[1]):
        test.update(int(shown[1, i]), float(reward[1, i]), float(p[1, i]))
    assert path.n[1, -1] == test.n
    assert path.log_e[1, -1] == pytest.approx(test.log_e, abs=1e-9)
    assert path.estimate[1, -1] == pytest.approx(test.estimate, abs=1e-9)
    low = path.estimate[1, -1] - path.radius(0.05)[1, -1]
    assert max(-1.0, low) == pytest.approx(test.interval(0.05)[0], abs=1e-9)


@pytest.mark.parametrize("arms", exposed.EQUAL, ids=lambda arms: arms.title)
def test_equal_arms_are_rarely_promoted(arms: exposed.Arms) -> None:
    """A challenger that is not better is promoted with probability alpha at most, ever."""
    shares = exposed.promoted(arms, 200, 2000)
    for alpha, share in zip(exposed.ALPHAS, shares, strict=True):
        assert share <= exposed.bound(alpha, 200)


@pytest.mark.parametrize("arms", exposed.EQUAL[:3], ids=lambda arms: arms.title)
def test_the_interval_is_rarely_ever_wrong(arms: exposed.Arms) -> None:
    """The interval holds the mean difference so far at all times, in all but alpha of the runs."""
    shares = exposed.missed(arms, 100, 2000)
    for alpha, share in zip(exposed.ALPHAS, shares, strict=True):
        assert share <= exposed.bound(alpha, 100)


def test_a_better_arm_is_promoted() -> None:
    """A challenger that is 20 points better is found within a few thousand requests."""
    found = exposed.requests_to_promotion(exposed.BETTER[0], 100, 6000, 0.05)
    assert np.median(found) < 3000
