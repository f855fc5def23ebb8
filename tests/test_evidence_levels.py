"""Levels over many candidates, the share of one rater, and how long a decision still takes."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gate import power
from online_learner.evidence import (
    Influence,
    labels_to_go,
    log_threshold,
    log_threshold_spent,
    lond_weight,
    requests_to_go,
)

# --- levels ---------------------------------------------------------------------------------------


def test_weights_sum_to_one() -> None:
    """The weights over endlessly many candidates sum to 1."""
    head = sum(lond_weight(k) for k in range(1, 100_001))
    tail = 2 / math.sqrt(100_000) / 2.612375348685488  # the integral of k^-1.5 over the rest
    assert head + tail == pytest.approx(1.0, abs=1e-6)


def test_threshold_is_never_below_alpha() -> None:
    """No candidate wins below 1/alpha, and later ones need more, unless others have won."""
    goals = [log_threshold(0.01, k=k, promotions=0) for k in range(1, 50)]
    assert min(goals) == pytest.approx(math.log(100))
    assert goals == sorted(goals)
    assert log_threshold(0.01, k=40, promotions=5) < log_threshold(0.01, k=40, promotions=0)
    assert log_threshold(0.01, k=1, promotions=10**6) == pytest.approx(math.log(100))


def test_levels_that_are_spent_sum_to_alpha() -> None:
    """Over endlessly many candidates, the levels of alpha spending sum to alpha."""
    levels = [math.exp(-log_threshold_spent(0.05, k=k)) for k in range(1, 10_001)]
    assert sum(levels) < 0.05
    assert sum(levels) + 0.05 * 2 / math.sqrt(10_000) / 2.612 == pytest.approx(0.05, abs=1e-4)
    assert levels == sorted(levels, reverse=True)


# --- the share of one rater -----------------------------------------------------------------------


def heard(raters: list[str], share: float = 0.1, window: int = 100) -> Influence:
    """Return the window after these raters have spoken, those with a full share unheard."""
    influence = Influence(share, window)
    for rater in raters:
        if influence.admits(rater):
            influence.add(rater)
    return influence


def test_one_rater_alone_gives_one_point() -> None:
    """However often one rater speaks, it counts once."""
    assert heard(["ada"] * 1000).raters == ["ada"]


@pytest.mark.parametrize(("raters", "points"), [(1, 1), (5, 5), (9, 9), (10, 100), (12, 100)])
def test_a_tenth_each_takes_ten(raters: int, points: int) -> None:
    """Fewer than ten raters never get past one point each; ten can go on for ever."""
    assert len(heard([str(i % raters) for i in range(2000)]).raters) == points


@given(
    st.lists(st.integers(0, 15).map(str), max_size=300), st.sampled_from([0.05, 0.1, 0.3, 0.5, 1.0])
)
def test_nobody_has_more_than_a_share(raters: list[str], share: float) -> None:
    """At any time a rater's points are at most the share of the window, rounded up."""
    influence = Influence(share, window=50)
    for rater in raters:
        if influence.admits(rater):
            influence.add(rater)
        most = math.ceil(share * len(influence.raters) - 1e-9)
        assert influence.raters.count(rater) <= max(1, most)
    assert len(influence.raters) <= 50


def test_a_share_of_one_caps_nothing() -> None:
    """Who may give all the evidence, gives it."""
    assert len(heard(["ada"] * 70, share=1.0).raters) == 70


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_pack_and_unpack(raters: list[str]) -> None:
    """The window comes back from JSON as it was, and lives on by itself."""
    influence = heard(raters, 0.5, 7)
    twin = Influence.unpack(json.loads(json.dumps(influence.pack())))
    assert twin == influence
    twin.add("z")
    assert twin != influence


# --- how long still -------------------------------------------------------------------------------


def test_labels_to_go() -> None:
    """At the pace of the best bet so far; none at the goal, and nobody knows without progress."""
    assert labels_to_go(2.0, 4.0, 100, log_best=4.0) == 50
    assert labels_to_go(5.0, 4.0, 100, log_best=9.0) == 0
    assert labels_to_go(-1.0, 4.0, 100, log_best=-0.5) is None
    assert labels_to_go(0.0, 4.0, 0, log_best=0.0) is None


def test_requests_to_go() -> None:
    """Only audited, answered requests bring labels."""
    assert requests_to_go(10, audit=0.1, response=0.5) == 200
    assert requests_to_go(0, audit=0.1, response=0.5) == 0
    assert requests_to_go(10, audit=0.1, response=0.0) is None
    assert requests_to_go(None, audit=0.1, response=0.5) is None


def test_forecasts_are_of_the_right_size() -> None:
    """Half way to a promotion, the forecast is right within a factor of three in the median."""
    ratios = sorted(power.forecasts(power.EFFECTS[0], 100))
    assert 1 / 3 <= ratios[len(ratios) // 2] <= 3
