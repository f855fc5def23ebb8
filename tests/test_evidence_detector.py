"""The detector: what it computes, that it seldom cries wolf, and how soon it finds a fall."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gate import detecting, kernel
from online_learner.evidence import ChangeDetector, bets
from online_learner.evidence.detector import ALARM_PRIOR, LOG_FLOOR

DIFFERENCES = st.floats(-1.0, 1.0) | st.sampled_from([-1.0, 0.0, 1.0])
RAISED = st.sampled_from([0.0, 0.2, 0.5])


def value(d: list[float], m: float) -> float:
    """Return the detector's R by its formula: the sum of the wealth since every start."""
    total = 0.0
    for prior, bet in zip(ALARM_PRIOR, bets(m), strict=True):
        starts = range(len(d))
        total += prior * sum(
            math.prod(1 + bet * (x - m * abs(x)) for x in d[start:]) for start in starts
        )
    return total


@given(st.lists(DIFFERENCES, min_size=1, max_size=30), RAISED)
def test_detector_is_the_formula(d: list[float], m: float) -> None:
    """R is the sum over all starts of the wealth since then, averaged over the bets."""
    detector = ChangeDetector.fresh(m)
    for point in d:
        detector.update(point)
    assert math.exp(detector.log_e) == pytest.approx(value(d, m), rel=1e-9)


@pytest.mark.parametrize("m", [0.0, 0.2])
def test_r_grows_by_one_a_label_under_the_null(m: float) -> None:
    """Over all sequences of six labels at the edge of the null, R is 6 on average, exactly."""
    win = 0.5 * (1 + m) / 2
    outcomes = [(1.0, win), (-1.0, 0.5 - win), (0.0, 0.5)]
    mean = sum(
        math.prod(chance for _, chance in path) * value([d for d, _ in path], m)
        for path in itertools.product(outcomes, repeat=6)
    )
    assert mean == pytest.approx(6.0, abs=1e-9)


def test_the_prior_is_one() -> None:
    """All of the mixture is spread over the bets."""
    assert ALARM_PRIOR.sum() == 1.0


def test_agreement_is_no_alarm() -> None:
    """Models that never disagree set off no alarm, however long it lasts."""
    detector = ChangeDetector.fresh(0.2)
    for _ in range(300):
        detector.update(0.0)
    assert math.exp(detector.log_e) == pytest.approx(300)
    assert not detector.alarm(math.log(200))


def test_an_alarm_takes_evidence_since_the_change() -> None:
    """After a long agreement it takes so many wins that chance alone would seldom give them."""
    detector, wins = ChangeDetector.fresh(0.0), 0
    detector.log_r = np.full_like(detector.log_r, 20.0)
    while not detector.alarm(0.0):
        detector.update(1.0)
        wins += 1
    assert wins * math.log(1.9) > LOG_FLOOR
    assert wins < 10


@given(st.lists(DIFFERENCES, max_size=30), st.lists(DIFFERENCES, max_size=30))
def test_pack_and_unpack(d: list[float], later: list[float]) -> None:
    """A detector that went through JSON is equal to the last bit, even one that saw nothing."""
    detector = ChangeDetector.fresh(0.2)
    for point in d:
        detector.update(point)
    twin = ChangeDetector.unpack(json.loads(json.dumps(detector.pack(), allow_nan=False)))
    for point in later:
        detector.update(point, 0.0)
        twin.update(point, 0.0)
    assert twin.pack() == detector.pack()
    assert twin.log_e == detector.log_e


def test_a_fresh_detector_has_seen_nothing() -> None:
    """R starts at 0."""
    assert ChangeDetector.fresh(0.2).log_e == -math.inf
    assert not ChangeDetector.fresh(0.2).alarm(-1e9)


@pytest.mark.parametrize("m", [0.0, 0.2])
def test_arrays_alarm_on_the_same_label(m: float) -> None:
    """The kernel's detectors alarm on the very label on which the class does."""
    d = kernel.draw(np.random.default_rng(1), 0.3, 0.1, (400, 5))
    found = kernel.alarm_times(lambda t: d[t], m, 100.0, 400)
    for row, alarm in zip(d.T, found, strict=True):
        detector, n = ChangeDetector.fresh(m), 0
        while n < 400 and not detector.alarm(math.log(100.0)):
            detector.update(row[n])
            n += 1
        assert n == alarm


def test_many_detectors_side_by_side() -> None:
    """An array of detectors computes what each of them would alone."""
    d = np.random.default_rng(2).uniform(-0.5, 1, (40, 3))
    together, alone = ChangeDetector.fresh(0.2, (3,)), ChangeDetector.fresh(0.2)
    for point in d:
        together.update(point)
        alone.update(point[1])
    assert (together.log_r[1] == alone.log_r).all()
    assert together.alarms(2.0)[1] == alone.alarm(2.0)


@pytest.mark.parametrize("m", [0.0, 0.2])
def test_mean_time_to_a_false_alarm(m: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the edge of the null, alarms at level A come after A labels on average, or later."""
    monkeypatch.setattr(detecting, "GOAL", 100.0)
    found = detecting.labels_between(m, 0.2, 1000, 3000)
    assert found.mean() - 3 * found.std() / math.sqrt(len(found)) >= 100.0


def test_a_better_champion_is_left_alone() -> None:
    """A champion that wins three of the four answers in a hundred that differ sets off no alarm."""
    rng = np.random.default_rng(7)
    found = kernel.alarm_times(lambda _: kernel.draw(rng, 0.01, 0.03, (1, 100))[0], 0.2, 1e4, 5000)
    assert (found == 5000).all()


@pytest.mark.parametrize("right", [0.3, 0.6])
def test_labels_to_an_alarm(right: float) -> None:
    """A champion that fell, and errs where the anchor does and more, is found in time."""
    fall = detecting.Fall(right, "nested", 200, 0.2)
    median, p99 = np.quantile(detecting.labels_to_alarm(fall, 200), (0.5, 0.99))
    assert median <= detecting.BARS[right][0]
    assert p99 <= detecting.BARS[right][1]
