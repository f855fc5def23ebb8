"""The tests bound the error they claim to bound, and find what is there in the time they claim.

Simulations run on whole arrays, with fixed seeds; that the classes compute the same numbers is a
test of its own.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from online_learner.evidence import (
    BettingTest,
    ChangeDetector,
    Duel,
    Trial,
    bets,
    labels_to_go,
    log_threshold,
    lond_weight,
    paired_loss,
    paired_score,
    raised_null,
)

Floats = NDArray[np.float64]
DIFFERENCES = st.floats(-1.0, 1.0)
RAISED = st.sampled_from([0.0, 0.2, 0.5])


def log_e_paths(d: Floats, m: float) -> Floats:
    """Return the log e-value after each label, shape `(runs, labels)`, of differences like it."""
    logs = np.cumsum(np.log1p(bets(m) * (d - m * np.abs(d))[..., None]), axis=1)
    top = logs.max(axis=2)
    found: Floats = top + np.log(np.exp(logs - top[..., None]).mean(axis=2))
    return found


def first_crossing(d: Floats, m: float, log_goal: float) -> Floats:
    """Return after how many labels each run wins, shape `(runs,)`; infinity where it never does."""
    found = []
    for rows in np.array_split(d, max(1, d.size // 200_000)):
        hit = log_e_paths(rows, m) >= log_goal
        found.append(np.where(hit.any(axis=1), hit.argmax(axis=1) + 1.0, np.inf))
    return np.concatenate(found)


def first_alarm(d: Floats, m: float, goal: float) -> Floats:
    """Return after how many labels each run sets off the detector, or infinity."""
    r, alarm = np.zeros((len(d), len(bets(m)))), np.full(len(d), np.inf)
    for t in range(d.shape[1]):
        now = d[:, t]
        moved = (r + 1.0) * (1.0 + bets(m) * (now - m * np.abs(now))[:, None])
        r = np.where((now != 0.0)[:, None], moved, r)
        alarm = np.where(np.isinf(alarm) & (r.mean(axis=1) >= goal), t + 1.0, alarm)
        if not np.isinf(alarm).any():
            break
    return alarm


def draw(win: float, loss: float, shape: tuple[int, int], seed: int = 0) -> Floats:
    """Draw differences: +1 with probability `win`, -1 with probability `loss`, else 0."""
    u = np.random.default_rng(seed).random(shape)
    return (u < win).astype(float) - (u > 1.0 - loss)


# --- the classes compute what is simulated --------------------------------------------------------


@given(st.lists(DIFFERENCES, min_size=1, max_size=40), RAISED)
def test_betting_is_the_formula(d: list[float], m: float) -> None:
    """The e-value is the mean over the bets of the products of 1 + l (d - m |d|)."""
    test = BettingTest.fresh(m)
    for value in d:
        test.update(value)
    products = [math.prod(1 + bet * (x - m * abs(x)) for x in d) for bet in bets(m)]
    assert test.log_e == pytest.approx(math.log(sum(products) / len(products)), abs=1e-9)
    assert test.log_e == pytest.approx(log_e_paths(np.array([d]), m)[0, -1], abs=1e-9)


@given(st.lists(DIFFERENCES, min_size=1, max_size=40), RAISED)
def test_detector_is_the_formula(d: list[float], m: float) -> None:
    """The detector is R = (R + 1) (1 + l (d - m |d|)) over the labels with d != 0, averaged."""
    detector = ChangeDetector.fresh(m)
    values = []
    for bet in bets(m):
        r = 0.0
        for x in (x for x in d if x != 0.0):
            r = (r + 1.0) * (1.0 + bet * (x - m * abs(x)))
        values.append(r)
    for value in d:
        detector.update(value)
    mean = sum(values) / len(values)
    assert math.exp(detector.log_e) == pytest.approx(mean, rel=1e-9, abs=1e-12)


def test_first_alarm_is_that_of_the_class() -> None:
    """The simulated detector alarms on the very label on which the class does."""
    d = draw(0.3, 0.1, (5, 300), seed=1)
    for row, alarm in zip(d, first_alarm(d, 0.2, 100.0), strict=True):
        detector, n = ChangeDetector.fresh(0.2), 0
        while detector.log_e < math.log(100.0):
            detector.update(row[n])
            n += 1
        assert n == alarm


@given(st.lists(DIFFERENCES | st.sampled_from([-1.0, 1.0]), max_size=60), RAISED)
def test_wealth_is_never_negative_nor_undefined(d: list[float], m: float) -> None:
    """No sequence of differences ruins a test: bets stay below what would lose everything."""
    test, detector = BettingTest.fresh(m), ChangeDetector.fresh(m)
    for value in d:
        test.update(value)
        detector.update(value)
    assert np.isfinite(test.log_wealth).all()
    assert math.isfinite(test.log_e)
    assert not math.isnan(detector.log_e)


@pytest.mark.parametrize("m", [0.0, 0.2, 0.5])
def test_bets_are_legal(m: float) -> None:
    """Every bet is positive and below 1 / (1 + m), so the worst difference leaves some wealth."""
    assert (bets(m) > 0).all()
    assert (bets(m) * (1 + m) < 1).all()
    assert (np.diff(bets(m)) > 0).all()


# --- false promotions -----------------------------------------------------------------------------

RUNS, LOOKS, ALPHA = 800, 1500, 0.05
SLACK = 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)


@pytest.mark.parametrize("discordance", [0.02, 0.1, 0.5, 1.0])
def test_equal_models_are_rarely_promoted(discordance: float) -> None:
    """Looked at after every label, an equal candidate is promoted at most alpha of the time."""
    d = draw(discordance / 2, discordance / 2, (RUNS, LOOKS), seed=2)
    rate = np.isfinite(first_crossing(d, 0.0, -math.log(ALPHA))).mean()
    assert rate <= ALPHA + SLACK


def test_peeking_at_a_z_test_would_promote_them() -> None:
    """The same looks at a textbook z-test promote an equal candidate far more often."""
    d = draw(0.25, 0.25, (RUNS, LOOKS), seed=2)
    z = np.cumsum(d, axis=1) / np.sqrt(0.5 * np.arange(1, LOOKS + 1))
    assert (z[:, 30:] > 1.645).any(axis=1).mean() > 4 * ALPHA


@pytest.mark.parametrize("shape", ["uniform", "skewed", "bursts"])
def test_null_of_any_shape(shape: str) -> None:
    """Differences of mean zero promote at most alpha of the time, whatever their shape."""
    rng = np.random.default_rng(3)
    if shape == "uniform":
        d = rng.uniform(-1, 1, (RUNS, LOOKS))
    elif shape == "skewed":  # many small losses, few large wins
        d = np.where(rng.random((RUNS, LOOKS)) < 0.1, 0.9, -0.1)
    else:  # quiet and loud times, the next one chosen by how the last one went
        d = rng.choice([-1.0, 1.0], (RUNS, LOOKS))
        for start in range(50, LOOKS, 50):
            lost = d[:, start - 50 : start].sum(axis=1) < 0
            d[:, start : start + 50] *= np.where(lost, 1.0, 0.1)[:, None]
    rate = np.isfinite(first_crossing(d, 0.0, -math.log(ALPHA))).mean()
    assert rate <= ALPHA + SLACK


def selectively_answered(gamma: float) -> Floats:
    """Draw differences of an equal candidate whose wins are labelled `gamma` times as often."""
    win = 0.5 * gamma / (1 + gamma)
    return draw(win, 0.5 - win, (RUNS, LOOKS), seed=4)


def test_raised_null_holds_against_selective_answers() -> None:
    """With wins labelled G times as often, the null raised for G promotes at most alpha."""
    m = raised_null(1.5)
    rate = np.isfinite(first_crossing(selectively_answered(1.5), m, -math.log(ALPHA))).mean()
    assert rate <= ALPHA + SLACK


def test_without_raising_selective_answers_promote() -> None:
    """The null that is not raised promotes an equal candidate under the same answers."""
    rate = np.isfinite(first_crossing(selectively_answered(1.5), 0.0, -math.log(ALPHA))).mean()
    assert rate > 0.9


@pytest.mark.parametrize(("gamma", "m"), [(1.0, 0.0), (1.5, 0.2), (3.0, 0.5)])
def test_raised_null(gamma: float, m: float) -> None:
    """The null is raised to (G - 1) / (G + 1); G = 1 raises nothing."""
    assert raised_null(gamma) == pytest.approx(m)


# --- power ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("win", "loss", "m", "low", "high"),
    [
        (0.150, 0.050, 0.0, 150, 300),  # +10 points at 20 % discordance
        (0.075, 0.025, 0.0, 300, 600),  # +5 at 10 %
        (0.060, 0.040, 0.0, 2000, 3500),  # +2 at 10 %
        (0.150, 0.050, 0.2, 400, 750),  # the first with the null raised for G = 1.5
    ],
)
def test_labels_to_promote(win: float, loss: float, m: float, low: int, high: int) -> None:
    """A better candidate wins within the stated number of labels, in the median, at alpha .01."""
    d = draw(win, loss, (200, 3 * high), seed=5)
    assert low <= np.median(first_crossing(d, m, math.log(100))) <= high


# --- the detector ---------------------------------------------------------------------------------


def test_mean_time_to_a_false_alarm() -> None:
    """At the edge of the null, alarms at level A come after A labels on average, or later."""
    goal, m = 100.0, 0.2
    d = draw(0.6, 0.4, (1000, 4000), seed=6)  # E[d] = 0.2 = m E|d|
    alarm = np.minimum(first_alarm(d, m, goal), d.shape[1])
    assert alarm.mean() - 3 * alarm.std() / math.sqrt(len(alarm)) >= goal


def test_agreement_is_no_alarm() -> None:
    """Models that never disagree set off no alarm, however long it lasts."""
    detector = ChangeDetector.fresh(0.2)
    for _ in range(1000):
        detector.update(0.0)
    assert detector.log_e == -math.inf


def test_a_better_champion_is_left_alone() -> None:
    """A champion that wins three of the few answers that differ sets off no alarm."""
    d = draw(0.005, 0.015, (200, 10_000), seed=7)
    assert not np.isfinite(first_alarm(d, 0.2, 1000.0)).any()


@pytest.mark.parametrize(
    ("before", "after", "median"), [(0.8, 0.3, 120), (0.8, 0.6, 800)], ids=["collapse", "decline"]
)
def test_labels_to_an_alarm(before: float, after: float, median: int) -> None:
    """A champion that fell to `after` is found in time, after any time in which it was as good."""
    quiet = draw(0.1, 0.1, (200, 500), seed=8)
    fallen = draw(before * (1 - after), (1 - before) * after, (200, 4 * median), seed=9)
    alarm = first_alarm(np.concatenate([quiet, fallen], axis=1), 0.2, 10_000.0)
    assert (alarm > 500).all()
    assert np.median(alarm) - 500 <= median


# --- many candidates ------------------------------------------------------------------------------


def test_levels_sum_to_one() -> None:
    """e-LOND's weights over endlessly many candidates sum to 1."""
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


def test_few_of_the_promotions_are_wrong() -> None:
    """Over a stream in which most candidates are equal, at most 5 % of the promotions are wrong."""
    shares = []
    for seed in range(20):
        better = np.random.default_rng(seed).random(40) < 0.2
        right = wrong = 0
        for k, is_better in enumerate(better, start=1):
            win, loss = (0.15, 0.02) if is_better else (0.1, 0.1)
            goal = log_threshold(0.01, k=k, promotions=right + wrong)
            won = np.isfinite(first_crossing(draw(win, loss, (1, 1000), seed * 100 + k), 0, goal))
            right, wrong = right + (won[0] and is_better), wrong + (won[0] and not is_better)
        shares.append(wrong / max(1, right + wrong))
        assert right > 0
    assert np.mean(shares) <= 0.05


# --- scores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truth", "challenger", "reference", "d"),
    [
        ("a", "a", "b", 1.0),
        ("a", "b", "a", -1.0),
        ("a", "a", "a", 0.0),
        ("a", "b", "c", 0.0),
        (True, 1, True, -1.0),
        (1, True, "1", 0.0),
    ],
)
def test_paired_score(truth: object, challenger: object, reference: object, d: float) -> None:
    """A label counts for whoever alone was right, and `True` is neither `1` nor `"1"`."""
    assert paired_score(truth, challenger, reference) == d


@given(*[st.floats(-1e15, 1e15)] * 3, st.floats(0, 1e15))
def test_paired_loss_is_bounded_and_fair(
    truth: float, left: float, right: float, scale: float
) -> None:
    """A number's difference is in [-1, 1], and turns its sign when the roles are exchanged."""
    d = paired_loss(truth, left, right, scale)
    assert -1.0 <= d <= 1.0
    assert d == -paired_loss(truth, right, left, scale)


def test_number_is_scaled_by_the_past_alone() -> None:
    """The first number has no past and counts for nothing; the next by twice the mean error."""
    trial = Trial.fresh(Duel("a", "b"), k=1, m=0.0)
    assert trial.score(10.0, 10.0, 6.0) == 0.0
    assert trial.score(10.0, 10.0, 8.0) == pytest.approx(2.0 / (2 * 4.0))
    assert trial.score(10.0, 13.0, 10.0) == pytest.approx(-3.0 / (2 * 3.0))


# --- trials ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("detector", [False, True])
@given(st.lists(DIFFERENCES, max_size=30), st.lists(DIFFERENCES, max_size=30))
def test_pack_and_unpack(detector: bool, d: list[float], later: list[float]) -> None:
    """A trial that went through JSON is equal to the last bit, and goes on equally."""
    trial = Trial.fresh(
        Duel("challenger:3", "champion", version=3, detector=detector, restart_after=50), k=7, m=0.2
    )
    for value in d:
        trial.count(value)
    twin = Trial.unpack(json.loads(json.dumps(trial.pack(), allow_nan=False)))
    for value in later:
        trial.count(value)
        twin.count(value)
    assert twin.pack() == trial.pack()
    assert twin.log_e == trial.log_e
    assert twin.duel == trial.duel


def test_trial_counts() -> None:
    """A trial knows its labels, wins, losses and mean."""
    trial = Trial.fresh(Duel("a", "b"), k=1, m=0.0)
    assert (trial.n, trial.mean, trial.log_e) == (0, 0.0, 0.0)
    for d in (1.0, 1.0, 0.0, -1.0):
        trial.count(d)
    counted: tuple[Any, ...] = (trial.n, trial.wins, trial.losses, trial.mean)
    assert counted == (4, 2, 1, 0.25)


def test_labels_to_go() -> None:
    """Half the way took n labels, so the rest takes n; nobody can tell from no progress."""
    assert labels_to_go(2.0, 4.0, 100) == 100
    assert labels_to_go(5.0, 4.0, 100) == 0
    assert labels_to_go(-1.0, 4.0, 100) is None
    assert labels_to_go(0.0, 4.0, 0) is None
