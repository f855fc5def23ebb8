"""Features become sparse rows by hashing, and numbers are measured by their own spread."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_learner.errors import Unfit
from online_learner.learners.torch.encode import Bags, Encoder, mixed, ngrams_of, words
from online_learner.learners.torch.scaling import BOUND, Scaler, checked

BUCKETS = 1 << 20
ENCODER = Encoder(BUCKETS)

VALUES = st.one_of(
    st.text(max_size=30),
    st.booleans(),
    st.floats(-1e6, 1e6),
    st.lists(st.floats(-1e6, 1e6), max_size=4),
)
FEATURES = st.dictionaries(st.text(max_size=5), VALUES, max_size=4)


def entries(features: dict[str, Any], encoder: Encoder = ENCODER) -> list[tuple[int, float]]:
    """Return the entries of one feature dict, sorted."""
    bags = encoder.encode([features])
    return sorted(zip(bags.indices.tolist(), bags.values.tolist(), strict=True))


def split(bags: Bags) -> list[list[tuple[int, float, bool]]]:
    """Return the entries of each example."""
    found = list(
        zip(bags.indices.tolist(), bags.values.tolist(), bags.numeric.tolist(), strict=True)
    )
    ends = np.cumsum(bags.counts)
    return [found[end - count : end] for end, count in zip(ends, bags.counts, strict=True)]


@given(st.lists(FEATURES, max_size=6))
def test_a_batch_is_the_examples_one_by_one(batch: list[dict[str, Any]]) -> None:
    """What else is in a batch changes nothing about an example's entries."""
    together = split(ENCODER.encode(batch))
    assert together == [split(ENCODER.encode([features]))[0] for features in batch]


@given(FEATURES)
def test_the_order_of_features_does_not_matter(features: dict[str, Any]) -> None:
    """Features that come in another order have the same entries, in the same order."""
    turned = dict(reversed(features.items()))
    assert split(ENCODER.encode([turned])) == split(ENCODER.encode([features]))


def test_a_text_is_its_words_and_the_pairs_of_neighbours() -> None:
    """Four words have four entries and three pairs, and a repeated word two entries."""
    assert len(entries({"text": "to be or to"})) == 4 + 3
    assert len(set(entries({"text": "to be or to"}))) == 3 + 3


@pytest.mark.parametrize(("ngrams", "count"), [(1, 3), (2, 5), (3, 6), (8, 6)])
def test_ngrams_end_where_the_text_ends(ngrams: int, count: int) -> None:
    """Three words have no n-gram of more than three words, whatever stands beside them."""
    encoder = Encoder(BUCKETS, ngrams=ngrams)
    bags = encoder.encode([{"a": "one two three"}, {"a": ""}, {"a": "one two three"}])
    assert bags.counts.tolist() == [count, 0, count]


def test_pairs_tell_the_order_of_words() -> None:
    """The same words in another order share their words, and no pair."""
    one, other = set(entries({"text": "man bites dog"})), set(entries({"text": "dog bites man"}))
    assert len(one & other) == 3


def test_case_does_not_matter() -> None:
    """Capitals and small letters are the same word."""
    assert entries({"text": "FREE Entry Ä"}) == entries({"text": "free entry ä"})


@pytest.mark.parametrize(
    ("text", "count"),
    [("don't", 1), ("£1000!!", 4), ("4u2", 3), ("naïve 日本", 2), ("", 0), (" \t\n", 0), ("🎉", 1)],
)
def test_what_a_word_is(text: str, count: int) -> None:
    """Letters hold together, with an apostrophe; digits do; every other sign is a word."""
    assert len(words(text)) == count


def test_a_name_sets_features_apart() -> None:
    """The same text, number or truth under two names has no entry in common."""
    for value in ("free entry", 3.0, True, [1.0, 2.0]):
        assert not set(entries({"a": value})) & set(entries({"b": value}))


def test_truth_and_numbers_are_told_apart() -> None:
    """A boolean is a category: true, false, one and zero are four different features."""
    found = [entries({"a": value})[0] for value in (True, False, 1, "1")]
    assert len(set(found)) == len(found)
    assert ENCODER.encode([{"a": True}]).numeric.tolist() == [False]
    assert ENCODER.encode([{"a": 1}]).numeric.tolist() == [True]


def test_numbers_keep_their_precision() -> None:
    """A time in seconds survives the encoding to the last bit."""
    assert ENCODER.encode([{"at": 1_700_000_000.125}]).values.tolist() == [1_700_000_000.125]


def test_places_of_a_list_are_features_of_their_own() -> None:
    """A list of numbers has an entry a place, and turned round it is another list."""
    bags = ENCODER.encode([{"v": [1.0, 2, 3.0]}])
    assert bags.values.tolist() == [1.0, 2.0, 3.0]
    assert len(set(bags.indices.tolist())) == 3
    assert entries({"v": [1.0, 2.0]}) != entries({"v": [2.0, 1.0]})


def test_nested_values_are_read_through() -> None:
    """Messages of a prompt are read by the names within them; None counts as missing."""
    messages = [{"role": "user", "content": "hi there"}, {"role": "system", "content": None}]
    assert entries({"m": messages}) == sorted(
        entries({"m.role": "user"})
        + entries({"m.role": "system"})
        + entries({"m.content": "hi there"})
    )


def test_what_has_no_encoding_is_refused() -> None:
    """The error says of which strange type a value is."""
    with pytest.raises(Unfit, match="one is a bytes"):
        ENCODER.encode([{"when": b"now"}])


@pytest.mark.parametrize(("buckets", "ngrams"), [(0, 2), (16, 0)])
def test_an_encoder_has_buckets_and_ngrams(buckets: int, ngrams: int) -> None:
    """None of either is refused."""
    with pytest.raises(ValueError, match="1 or more"):
        Encoder(buckets, ngrams=ngrams)


def test_few_buckets_are_shared() -> None:
    """Every index is within the buckets, however many words there are."""
    bags = Encoder(7).encode([{"text": " ".join(map(str, range(1000)))}])
    assert set(bags.indices.tolist()) == set(range(7))


def test_buckets_fill_evenly() -> None:
    """Many words spread over the buckets as if drawn at random."""
    buckets = 1 << 12
    text = " ".join(map("".join, itertools.product("abcdefghij", repeat=5)))
    bags = Encoder(buckets, ngrams=1).encode([{"text": text}])
    filled = np.bincount(bags.indices, minlength=buckets)
    assert filled.std() < 1.1 * filled.mean() ** 0.5


def test_hashes_are_the_same_in_every_process() -> None:
    """Another process, with another hash seed, finds the same buckets."""
    code = (
        "from online_learner.learners.torch.encode import Encoder;"
        "print(Encoder(1 << 20).encode([{'a': 'Free entry', 'b': 1.5}]).indices.tolist())"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "77"},
    )
    here = ENCODER.encode([{"a": "Free entry", "b": 1.5}]).indices.tolist()
    assert elsewhere.stdout.strip() == str(here)


def test_mixed_keys_do_not_collide() -> None:
    """Keys that differ in one bit are far apart after mixing."""
    keys = mixed(np.arange(1 << 16, dtype=np.uint64))
    assert len(np.unique(keys)) > (1 << 16) - 8
    assert keys.max() < 1 << 32


def test_ngrams_of_no_text_are_none() -> None:
    """No text has no key."""
    keys, texts = ngrams_of([], [], [])
    assert (len(keys), len(texts)) == (0, 0)


# --- the spread of numbers ----------------------------------------------------------------------


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9),
    st.lists(st.integers(1, 4), min_size=1, max_size=9),
)
def test_mean_and_spread_do_not_depend_on_batches(numbers: list[float], sizes: list[int]) -> None:
    """However the numbers are split into batches, mean and spread are those of all of them."""
    scaler, column = Scaler(1), np.array(numbers)[:, None]
    cuts = np.cumsum(sizes)[np.cumsum(sizes) < len(numbers)]
    for batch in np.split(column, cuts):
        scaler.learn(batch)
    ends = scaler.unscale(np.array([[0.0], [1.0]]))[:, 0]
    assert np.isclose(ends[0], column.mean(), rtol=1e-9, atol=1e-6)
    assert np.isclose(ends[1] - ends[0], column.std(), rtol=1e-6, atol=1e-3)


def test_entries_and_rows_are_measured_alike() -> None:
    """Numbers that come one by one, each with its column, give what a matrix of them gives."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(3.0, [1.0, 10.0], (50, 2))
    rows, entries_ = Scaler(2), Scaler(2)
    rows.learn(matrix)
    places = np.tile(np.arange(2), 50)
    entries_.learn_at(places, matrix.ravel())
    assert np.allclose(rows.scale(matrix).ravel(), entries_.scale(matrix.ravel(), places))


def test_missing_numbers_do_not_count() -> None:
    """What is not present changes neither mean nor spread."""
    scaler, alone = Scaler(1), Scaler(1)
    scaler.learn(np.array([[1.0], [0.0], [3.0]]), np.array([[True], [False], [True]]))
    alone.learn(np.array([[1.0], [3.0]]))
    assert scaler.scale(np.array([[5.0]])) == alone.scale(np.array([[5.0]]))


def test_one_absurd_number_does_not_silence_a_column() -> None:
    """After a number of 1e15, ordinary ones are still told apart."""
    rng = np.random.default_rng(0)
    scaler = Scaler(1)
    scaler.learn(rng.normal(size=(200, 1)))
    scaler.learn(np.array([[1e15]]))
    low, high = scaler.scale(np.array([[-1.0], [1.0]]))[:, 0]
    assert high - low > 1.0


def test_scaled_numbers_are_bounded() -> None:
    """Nothing is further than the bound from the mean, and without a spread nothing is apart."""
    scaler = Scaler(2)
    scaler.learn(np.array([[1.0, 5.0], [2.0, 5.0]]))
    assert scaler.scale(np.array([[1e15, 1e15]])).tolist() == [[BOUND, 0.0]]


def test_a_scaler_is_restored_whole() -> None:
    """The state of a scaler gives the same scaler, also where it was longer at last."""
    scaler = Scaler(1)
    scaler.lengthen(2)
    scaler.learn_at(np.array([2, 2, 0]), np.array([1.0, 2.0, 3.0]))
    twin = Scaler(3)
    twin.restore(scaler.state())
    matrix = np.array([[1.0, 2.0, 3.0]])
    assert twin.scale(matrix).tolist() == scaler.scale(matrix).tolist()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1e16])
def test_numbers_that_would_ruin_a_model_are_refused(number: float) -> None:
    """What is not finite or too large is no number to learn from."""
    with pytest.raises(ValueError, match="finite"):
        checked(np.array([1.0, number]))
