"""How rows are parted: the share that is held out, what is never on both sides, and why."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_learner.dataset.split import STRADDLES, TRAIN, VALIDATION, Split, cut_of


@pytest.mark.parametrize("by", ["hash", "user"])
def test_a_share_is_held_out(by: str) -> None:
    """Of many questions, and of many users, about as many as is asked for; a seed draws others."""
    records = [{"features": {"n": n}, "user_id": f"u{n}"} for n in range(4000)]
    one, two = (
        {n for n, r in enumerate(records) if Split(by, 0.2, seed).side(r, 0, 0) == VALIDATION}
        for seed in (0, 1)
    )
    assert abs(len(one) - 800) < 4 * (4000 * 0.2 * 0.8) ** 0.5
    assert abs(len(one & two) - 160) < 4 * 160**0.5


def test_nothing_is_held_out_where_nothing_is_to_be() -> None:
    """A share of 0 leaves all rows to train on, by any way."""
    for by in ("hash", "time", "user"):
        assert Split(by, 0.0).side({"features": {}}, 5, 9) == TRAIN


def test_equal_questions_are_on_one_side() -> None:
    """Whatever the order of their features, and whoever asked."""
    split = Split("hash", 0.5)
    for n in range(100):
        one = {"features": {"a": n, "b": 1.0}, "user_id": "u1"}
        two = {"features": {"b": 1.0, "a": n}, "user_id": "u2", "session_id": "s"}
        assert split.side(one, 1, 2) == split.side(two, 3, 4)


def test_numbers_are_equal_however_they_are_sent() -> None:
    """Some clients write 3, some 3.0; `true` is another value."""
    split = Split("hash", 0.5)
    sides = [
        [split.side({"features": {"a": value, "v": [value, 2]}}, 1, 2) for value in (n, float(n))]
        for n in range(100)
    ]
    assert all(one == two for one, two in sides)
    assert len({one for one, _ in sides}) == 2
    ones = [
        split.side({"features": {"a": value, "n": n}}, 1, 2)
        for n in range(50)
        for value in (1, True)
    ]
    assert ones[::2] != ones[1::2]


def test_a_person_is_on_one_side() -> None:
    """By user; without one by session, and without that by the question."""
    split = Split("user", 0.5)
    for name in ("user_id", "session_id"):
        for n in range(50):
            sides = {split.side({"features": {"q": q}, name: f"p{n}"}, 0, 0) for q in range(20)}
            assert len(sides) == 1
    assert len({split.side({"features": {"q": q}}, 0, 0) for q in range(50)}) == 2


def test_what_was_said_of_the_past_after_the_cut_is_in_neither_part() -> None:
    """A model trained at the cut could not have known it."""
    split = Split("time", 0.2, cut_ms=100)
    found = [split.side({}, answered, said) for answered, said in ((99, 99), (99, 100), (100, 900))]
    assert found == [TRAIN, STRADDLES, VALIDATION]


@given(
    times=st.lists(st.integers(0, 1 << 41), min_size=1, max_size=60),
    share=st.floats(0.01, 0.99),
    pages=st.integers(1, 7),
)
def test_the_cut_is_the_quantile_of_the_times(times: list[int], share: float, pages: int) -> None:
    """As a sort of all of them finds it, however they come in pages."""
    parts = [np.array(times[n::pages], dtype=np.int64) for n in range(pages) if times[n::pages]]
    left = len(times) - round(share * len(times))
    cut = cut_of(parts, parts, share)
    if left < len(times):
        assert cut == sorted(times)[left]
    else:
        assert cut > max(times)


def test_of_no_times_there_is_no_cut() -> None:
    """Nothing is parted then."""
    assert cut_of([], [], 0.5) == 0
