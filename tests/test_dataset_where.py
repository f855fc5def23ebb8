"""The filter of a dataset: what it selects, and what it refuses, and in which words."""

from __future__ import annotations

import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_learner.dataset.where import FIELDS, MAX_DEPTH, MAX_LENGTH, parse
from online_learner.errors import DataError

ROW: dict[str, Any] = {
    **dict.fromkeys(FIELDS),
    "kind": "rating",
    "source": "human:ada",
    "auditor": False,
    "output": "spam",
    "user": "u1",
    "version": 3,
    "weight": 0.5,
    "features": {"country": "DE", "km": 12.5, "old": True, "zip code": "1"},
    "tags": {"campaign": "x", "in": "y"},
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("output = 'spam'", True),
        ('output == "spam"', True),
        ("output != 'spam'", False),
        ("user != 'u1' and weight >= 0.5", False),
        ("user = 'u2' or weight >= 0.5", True),
        ("kind in ('correction', 'rating')", True),
        ("kind not in ('correction', 'rating')", False),
        ("not kind = 'rating' or version >= 3", True),
        ("not (kind = 'rating' or version >= 3)", False),
        ("user = 'u2' or user = 'u1' and weight < 0.5", False),
        ("(user = 'u2' or user = 'u1') and weight < 0.6", True),
        ("tags.campaign = 'x'", True),
        ("tags.in = 'y'", True),
        ("tags.nothing = 'x'", False),
        ("tags.nothing = null", True),
        ("session = null", True),
        ("session != 'a'", True),
        ("session < 'a'", False),
        ("features.country = 'DE'", True),
        ("features.km > 12 and features.km <= 12.5", True),
        ("features.old", True),
        ("auditor", False),
        ("features.'zip code' = '1'", True),
        ("features.old = 1", False),
        ("features.old = true", True),
        ("version = '3'", False),
        ("version > '2'", False),
        ("weight > -1e3", True),
        ("output = 'it\\'s'", False),
    ],
)
def test_a_filter_takes_what_it_says(text: str, wanted: bool) -> None:
    """`and` binds closer than `or`; types are never mixed; a field without a value is null."""
    assert parse(text)(ROW) is wanted


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ("", 1, "the name of a field"),
        ("outputt = 'x'", 1, "Did you mean 'output'"),
        ("__class__ = 'x'", 1, "Known: kind, source"),
        ("output = 'x' or nonsense = 1", 17, "no such field"),
        ("output = spam", 10, "a text in quotes"),
        ("output 'x'", 8, "`and`, `or`, or the end"),
        ("output = 'x", 10, "begins no name"),
        ("output = 'x' and", 17, "the name of a field"),
        ("(output = 'x'", 14, "`)`"),
        ("output in 'x'", 11, "`(`"),
        ("output in ()", 12, "a value"),
        ("output in ('x',)", 16, "a value"),
        ("features = 'x'", 10, "`.`"),
        ("features. = 'x'", 11, "the name of one of the features"),
        ("weight >= 1; import os", 12, "begins no name"),
        ("weight.real = 1", 7, "`and`, `or`, or the end"),
        ("print('x')", 1, "no such field"),
        ("'a' = 'a'", 1, "the name of a field"),
        ("output = 'x' )", 14, "the end"),
    ],
)
def test_what_is_no_filter_is_refused_with_its_place(text: str, place: int, told: str) -> None:
    """The error says at which character, and what should be there."""
    with pytest.raises(DataError, match="cannot be understood") as caught:
        parse(text)
    assert caught.value.code == "not_understood"
    assert f"At character {place}:" in str(caught.value)
    assert told in str(caught.value)


def test_an_error_repeats_nothing_that_was_sent() -> None:
    """A value may be personal."""
    with pytest.raises(DataError) as caught:
        parse("user = 'Zanzibar' output")
    assert "Zanzibar" not in str(caught.value)


def test_a_filter_has_bounds() -> None:
    """One that is long, or nested without end, is refused before it costs anything."""
    with pytest.raises(DataError, match="longer than"):
        parse("weight > 0 " + "and weight > 0 " * (MAX_LENGTH // 10))
    assert parse("(" * (MAX_DEPTH - 1) + "weight > 0" + ")" * (MAX_DEPTH - 1))(ROW)
    with pytest.raises(DataError, match="within each other"):
        parse("(" * 2000 + "weight > 0" + ")" * 2000)


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_a_named_error(text: str) -> None:
    """Nothing else is ever raised, be it while it is read or when it is asked."""
    try:
        test = parse(text)
    except DataError as error:
        assert error.code == "not_understood"  # noqa: PT017
    else:
        assert test(ROW) in {True, False}


_OPS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@given(
    sign=st.sampled_from(sorted(_OPS)),
    value=st.one_of(st.integers(-(10**9), 10**9), st.floats(-1e9, 1e9), st.text(max_size=9)),
    found=st.one_of(st.integers(-(10**9), 10**9), st.floats(-1e9, 1e9), st.text(max_size=9)),
)
def test_comparisons_are_those_of_the_language(sign: str, value: Any, found: Any) -> None:
    """Between values of one type; between others, only `!=` holds."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'") if isinstance(value, str) else ""
    written = f"'{escaped}'" if isinstance(value, str) else repr(value)
    wanted = sign == "!="
    if isinstance(value, str) == isinstance(found, str):
        wanted = _OPS[sign](found, value)
    assert parse(f"features.x {sign} {written}")({"features": {"x": found}}) is wanted
