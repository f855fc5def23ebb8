"""The running mean: the bounds of the confidence sequence, in constant memory."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_learner.evidence import RunningMean, confidence_sequence

PATHS, LENGTH, ALPHA = 300, 400, 0.1
SLACK = 3 * np.sqrt(ALPHA * (1 - ALPHA) / PATHS)

scores = st.lists(st.floats(0, 1), min_size=1, max_size=80)


def of(values: list[float] | np.ndarray, mean: RunningMean | None = None) -> RunningMean:
    """Return a mean that has taken in these scores."""
    mean = RunningMean() if mean is None else mean
    for value in values:
        mean.add(float(value))
    return mean


@given(scores, st.sampled_from([0.01, 0.05, 0.3]))
def test_bounds_are_those_of_the_confidence_sequence(values: list[float], alpha: float) -> None:
    """After every score the bounds are the last ones of the sequence over all scores so far."""
    lows, highs = confidence_sequence(values, alpha)
    mean = RunningMean()
    for value, low, high in zip(values, lows, highs, strict=True):
        mean.add(value)
        assert mean.bounds(alpha) == pytest.approx((low, high), abs=1e-12)
    assert mean.mean == pytest.approx(np.mean(values))


@given(scores, scores)
def test_further_scores_are_looked_at_at_once(before: list[float], after: list[float]) -> None:
    """Mean and bounds after each further score are those of taking in one after the other."""
    mean = of(before)
    found = zip(*mean.along(after, 0.1), strict=True)
    assert mean == of(before)
    for value, (average, low, high) in zip(after, found, strict=True):
        mean.add(value)
        assert (average, low, high) == pytest.approx((mean.mean, *mean.bounds(0.1)), abs=1e-12)


def test_it_stays_the_same_over_a_long_time() -> None:
    """After a hundred thousand scores rounding has not moved the bounds."""
    values = np.random.default_rng(1).random(100_000)
    low, high = confidence_sequence(values)
    assert of(values).bounds() == pytest.approx((low[-1], high[-1]), abs=1e-10)


@given(scores, scores)
def test_it_goes_on_after_a_restart(before: list[float], after: list[float]) -> None:
    """What was packed as JSON, and read again, goes on to the same bits."""
    mean = of(before, RunningMean.decayed(20.0))
    again = RunningMean.unpack(json.loads(json.dumps(mean.pack())))
    assert of(after, again) == of(after, mean)


def test_weights_that_are_known_before_are_covered_at_every_look() -> None:
    """Scores that count unequally: the weighted average of the means is within all bounds."""
    random = np.random.default_rng(2)
    weights = np.where(np.arange(LENGTH) % 3 == 0, 1.0, 0.2)
    means = np.where(np.arange(LENGTH) % 3 == 0, 0.8, 0.3)
    target = (weights * means).cumsum() / weights.cumsum()
    failed = 0
    for _ in range(PATHS):
        mean, ever = RunningMean(), False
        for n in range(LENGTH):
            mean.add(float(random.random() < means[n]), weights[n])
            low, high = mean.bounds(ALPHA)
            ever = ever or not low <= target[n] <= high
        failed += ever
    assert failed / PATHS <= ALPHA + SLACK


def test_a_decayed_mean_is_covered_at_one_look() -> None:
    """Where the mean drifts, its decayed average is within the bounds at a look planned before."""
    random = np.random.default_rng(3)
    means = np.linspace(0.9, 0.4, LENGTH)
    keep = RunningMean.decayed(50.0).keep
    weights = keep ** np.arange(LENGTH - 1, -1, -1)
    target = float(weights @ means / weights.sum())
    failed = 0
    for _ in range(PATHS):
        low, high = of(random.random(LENGTH) < means, RunningMean.decayed(50.0)).bounds(ALPHA)
        failed += not low <= target <= high
    assert failed / PATHS <= ALPHA + SLACK


def test_what_is_decayed_follows_and_stays_wide() -> None:
    """After a half life half of the distance is gone; bounds do not narrow without end."""
    mean = of([1.0] * 1000, RunningMean.decayed(50.0))
    of([0.0] * 50, mean)
    assert mean.mean == pytest.approx(0.5, abs=0.01)
    even = np.arange(4000) % 2
    low, high = of(even, RunningMean.decayed(50.0)).bounds()
    less, more = of(even).bounds()
    assert high - low > 3 * (more - less)


def test_nothing_has_no_mean() -> None:
    """Without scores there is no mean, no interval and no rate, and the bounds say nothing."""
    nothing = RunningMean()
    assert (nothing.mean, nothing.interval(), nothing.rate()) == (None, None, None)
    assert nothing.bounds() == (0.0, 1.0)


def test_a_rate_counts() -> None:
    """The rate of yes and no has the number of each, its share, and the bounds."""
    found = of([1.0, 0.0, 1.0, 1.0]).rate()
    assert found is not None
    assert (found["n"], found["k"], found["share"]) == (4, 3, 0.75)
    assert 0.0 <= found["low"] <= 0.75 <= found["high"] <= 1.0
