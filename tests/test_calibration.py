"""Rater calibration: planted habits are taken out, honest raters are left alone."""

from __future__ import annotations

import json
import math
import random
import statistics
from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.calibration import PRIOR_N, Calibration, Crowd

Rows = list[tuple[str, float, float]]

ratings = st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 1)), min_size=1, max_size=60)


def rated(*, offset_sd: float, seed: int, raters: int = 60, count: int = 2400) -> Rows:
    """Return (rater, rating from 1 to 5 stars on [0, 1], quality of what was rated).

    `offset_sd`, in stars, is how far raters differ in what they usually give.
    """
    rng = random.Random(seed)
    offsets = [rng.gauss(0, offset_sd) for _ in range(raters)]
    rows = []
    for _ in range(count):
        rater, quality = rng.randrange(raters), rng.gauss(0, 0.8)
        stars = round(3.0 + quality + offsets[rater] + rng.gauss(0, 0.4))
        rows.append((str(rater), (min(5, max(1, stars)) - 1) / 4, quality))
    return rows


def read_all(rows: Rows, calibration: Calibration | None = None) -> list[float]:
    """Return what each rating says, one after the other."""
    calibration = Calibration() if calibration is None else calibration
    return [calibration.read(rater, value) for rater, value, _ in rows]


def fit(found: list[float], rows: Rows) -> float:
    """Return how well the second half agrees with the quality: Pearson's r."""
    half = len(rows) // 2
    return statistics.correlation(found[half:], [quality for *_, quality in rows[half:]])


# --- what it takes out, and what it leaves ----------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_planted_offsets_are_taken_out(seed: int) -> None:
    """Of the agreement that offsets of 0.6 of a star cost, four fifths come back."""
    rows, clean = (rated(offset_sd=sd, seed=seed, count=4800) for sd in (0.6, 0.0))
    raw = fit([value for _, value, _ in rows], rows)
    best = fit([value for _, value, _ in clean], clean)
    assert best - raw > 0.05
    assert fit(read_all(rows), rows) > raw + 0.8 * (best - raw)


@pytest.mark.parametrize("seed", range(3))
def test_raters_without_offsets_are_left_alone(seed: int) -> None:
    """Where nobody is generous or harsh, what ratings say hardly changes: r > .99 with the raw."""
    rows = rated(offset_sd=0.0, seed=seed)
    found, half = read_all(rows), len(rows) // 2
    raw = [value for _, value, _ in rows]
    assert statistics.correlation(found[half:], raw[half:]) > 0.99
    assert fit(found, rows) > fit(raw, rows) - 0.01


def test_a_generous_rater_is_read_against_their_own_habit() -> None:
    """A 4 from one who gives fives says less than a 4 from one who gives threes."""
    calibration = Calibration()
    rng = random.Random(1)
    for _ in range(200):
        calibration.read("generous", rng.choice([0.75, 1.0, 1.0, 1.0]))
        calibration.read("harsh", rng.choice([0.25, 0.5, 0.5, 0.5]))
    assert calibration.distance("generous", 0.75) < 0.0 < calibration.distance("harsh", 0.75)
    assert calibration.distance("generous", 0.75) < calibration.distance("a stranger", 0.75)


def test_a_stranger_is_read_against_the_crowd() -> None:
    """Before anybody has spoken the middle of the scale is the usual; later the crowd's mean is."""
    calibration = Calibration()
    assert calibration.distance("a", 0.5) == 0.0
    assert calibration.distance("a", 1.0) == -calibration.distance("a", 0.0) > 0.0
    for n in range(500):
        calibration.read(str(n % 50), 0.9)
    assert calibration.distance("a stranger", 0.9) == pytest.approx(0.0, abs=0.1)
    assert calibration.distance("a stranger", 0.5) < -0.5


def test_one_rating_is_not_a_habit() -> None:
    """After a single 5 the rater's next 5 still counts as praise, though other raters differ."""
    calibration = Calibration()
    for rater, value, _ in rated(offset_sd=0.6, seed=4):
        calibration.read(rater, value)
    first = calibration.read("new", 1.0)
    assert 0.25 < calibration.distance("new", 1.0) < first


def test_looking_changes_nothing() -> None:
    """`distance` is what `read` would return, and takes nothing in."""
    calibration = Calibration()
    read_all(rated(offset_sd=0.6, seed=0, count=100), calibration)
    before = calibration.pack()
    expected = calibration.distance("3", 0.75)
    assert calibration.pack() == before
    assert calibration.read("3", 0.75) == expected
    assert calibration.pack() != before


# --- bounds -----------------------------------------------------------------------------------


@given(ratings)
def test_what_a_rating_says_is_bounded_and_rises_with_it(rows: list[tuple[str, float]]) -> None:
    """Whatever was said before: finite, within [-1, 1], and a better rating never says less."""
    calibration = Calibration(most=3)
    for rater, value in rows:
        lower, here, upper = (
            calibration.distance(rater, v) for v in (max(0.0, value - 0.1), value, 1.0)
        )
        assert -1.0 <= lower <= here <= upper <= 1.0
        assert calibration.read(rater, value) == here


@given(ratings)
def test_the_crowd_is_the_raters_that_are_remembered(rows: list[tuple[str, float]]) -> None:
    """At most `most` raters are kept, the latest to speak, and the sums are theirs alone."""
    calibration = Calibration(most=3)
    for rater, value in rows:
        calibration.read(rater, value)
    latest = list(dict.fromkeys(rater for rater, _ in reversed(rows)))[:3]
    assert list(calibration.raters) == latest[::-1]
    anew = Crowd()
    for kept in calibration.raters.values():
        anew.put(kept, 1)
    assert astuple(calibration.crowd) == pytest.approx(astuple(anew), abs=1e-9)


def test_a_forgotten_rater_starts_anew() -> None:
    """Who has not spoken for long is a stranger again."""
    calibration = Calibration(most=2)
    for rater in ("a", "a", "b", "c"):
        calibration.read(rater, 1.0)
    assert list(calibration.raters) == ["b", "c"]
    calibration.read("a", 0.0)
    assert calibration.raters["a"].n == 1
    assert calibration.raters["a"].mean == 0.0


def test_raters_who_all_agree_are_the_crowd() -> None:
    """Without a difference between raters, nobody's own mean counts."""
    calibration = Calibration()
    for n in range(100):
        calibration.read(str(n % 10), 0.75)
    assert calibration.crowd.shrinkage == math.inf
    expected = (100 * 0.75 + PRIOR_N * 0.5) / (100 + PRIOR_N)
    assert calibration.crowd.mean == pytest.approx(expected)


# --- state ------------------------------------------------------------------------------------


@given(ratings, ratings)
def test_packed_and_unpacked_it_reads_the_same_bits(
    before: list[tuple[str, float]], after: list[tuple[str, float]]
) -> None:
    """The state is plain JSON; every later reading is the same to the last bit."""
    one = Calibration(most=3)
    for rater, value in before:
        one.read(rater, value)
    other = Calibration.unpack(json.loads(json.dumps(one.pack())), most=3)
    assert other == one
    assert list(other.raters) == list(one.raters)
    for rater, value in after:
        assert other.read(rater, value).hex() == one.read(rater, value).hex()
    assert json.dumps(other.pack()) == json.dumps(one.pack())
