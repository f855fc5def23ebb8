"""Which rows are wanted, as a filter in words: parsed here, and never evaluated as code.

    output = 'spam' and user != 'u1' and weight >= 0.5
    kind in ('correction', 'rating') and not (tags.campaign = 'x' or features.country = 'DE')

A comparison has a field on its left and a value on its right: a text in quotes, a number, `true`,
`false` or `null`. It is `=`, `!=`, `<`, `<=`, `>`, `>=`, `in (...)` or `not in (...)`. Texts and
numbers are never equal, nor `true` and 1; an order between values of different types is false, and
so is one with `null`, which a field is where there is none. A field alone stands for `= true`.
Names that are no words are quoted: `features."zip code"`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from online_learner.errors import DataError, did_you_mean

Row: TypeAlias = Mapping[str, Any]
Test: TypeAlias = Callable[[Row], bool]

FIELDS = (
    *("kind", "source", "auditor", "output", "user", "session", "external_id"),
    *("version", "step", "role", "model_version", "explored", "weight", "weight_raw"),
)
OBJECTS = ("features", "tags")
MAX_LENGTH = 4096
MAX_DEPTH = 32

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
    | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<op><=|>=|!=|==|=|<|>)
    | (?P<mark>[().,])
    | (?P<word>[^\W\d][\w-]*)
    )""",
    re.VERBOSE,
)
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_WORDS = {"true": True, "false": False, "null": None}
_KEYWORDS = {"and", "or", "not", "in", *_WORDS}


def parse(text: str) -> Test:
    """Return the test that a filter stands for.

    It takes a row: the fields of `FIELDS`, and `features` and `tags` as objects.

    >>> test = parse("kind in ('thumbs', 'rating') and weight >= 0.5")
    >>> test({"kind": "thumbs", "weight": 1.0}), test({"kind": "thumbs", "weight": 0.1})
    (True, False)

    Raises
    ------
    DataError
        It cannot be understood (`not_understood`): says at which character, and what is known.
    """
    if len(text) > MAX_LENGTH:
        raise _wrong(f"it is longer than {MAX_LENGTH} characters")
    reader = _Reader(_tokens(text))
    test = reader.any_of()
    if reader.kind != "end":
        raise reader.wrong("`and`, `or`, or the end")
    return test


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int  # from 1


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            place = at + len(text[at:]) - len(text[at:].lstrip())
            raise _wrong("this begins no name, value or comparison", place + 1)
        kind = match.lastgroup
        word = match[kind]
        if kind == "word" and word.lower() in _KEYWORDS:
            kind, word = "keyword", word.lower()
        found.append(_Token(kind, word, match.start(match.lastgroup) + 1))
        at = match.end()
    return [*found, _Token("end", "", len(text) + 1)]


class _Reader:
    """Reads a filter from left to right (recursive descent)."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    @property
    def kind(self) -> str:
        """The kind of the next token."""
        return self._tokens[self._at].kind

    def wrong(self, wanted: str) -> DataError:
        """Return the error that says what is wanted in the place of the next token."""
        return _wrong(f"here should be {wanted}", self._tokens[self._at].at)

    def any_of(self) -> Test:
        """Read tests, parted by `or`."""
        tests = [self._all_of()]
        while self._took("or"):
            tests.append(self._all_of())
        return tests[0] if len(tests) == 1 else lambda row: any(test(row) for test in tests)

    def _all_of(self) -> Test:
        tests = [self._one()]
        while self._took("and"):
            tests.append(self._one())
        return tests[0] if len(tests) == 1 else lambda row: all(test(row) for test in tests)

    def _one(self) -> Test:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self.wrong(f"fewer than {MAX_DEPTH} parentheses and `not` within each other")
        try:
            if self._took("not"):
                test = self._one()
                return lambda row: not test(row)
            if self._took("("):
                test = self.any_of()
                self._need(")")
                return test
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Test:
        get = self._field()
        if self.kind == "op":
            sign = self._next().text
            value = self._value()
            if sign in _ORDERS:
                return _ordered(get, _ORDERS[sign], value)
            if sign == "!=":
                return lambda row: not _equal(get(row), value)
            return lambda row: _equal(get(row), value)
        if self._took("in"):
            return _within(get, self._values())
        if self._took("not"):
            self._need("in")
            test = _within(get, self._values())
            return lambda row: not test(row)
        return lambda row: get(row) is True

    def _field(self) -> Callable[[Row], Any]:
        if self.kind != "word":
            raise self.wrong(f"the name of a field ({_known()})")
        token = self._next()
        if token.text in OBJECTS:
            self._need(".")
            if self.kind not in {"word", "text", "keyword"}:
                raise self.wrong(f"the name of one of the {token.text}")
            return _inside(token.text, _unquoted(self._next()))
        if token.text not in FIELDS:
            hint = did_you_mean(token.text, [*FIELDS, *OBJECTS])
            raise _wrong(f"there is no such field.{hint} Known: {_known()}", token.at)
        return operator.methodcaller("get", token.text)

    def _values(self) -> list[Any]:
        self._need("(")
        found = [self._value()]
        while self._took(","):
            found.append(self._value())
        self._need(")")
        return found

    def _value(self) -> Any:
        token = self._tokens[self._at]
        if token.kind == "text":
            return _unquoted(self._next())
        if token.kind == "number":
            text = self._next().text
            return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
        if token.kind == "keyword" and token.text in _WORDS:
            return _WORDS[self._next().text]
        raise self.wrong("a value: a text in quotes, a number, true, false or null")

    def _took(self, text: str) -> bool:
        token = self._tokens[self._at]
        if token.kind in {"keyword", "mark"} and token.text == text:
            self._at += 1
            return True
        return False

    def _need(self, text: str) -> None:
        if not self._took(text):
            raise self.wrong(f"`{text}`")

    def _next(self) -> _Token:
        self._at += 1
        return self._tokens[self._at - 1]


def _inside(of: str, name: str) -> Callable[[Row], Any]:
    return lambda row: row[of].get(name)


def _within(get: Callable[[Row], Any], values: list[Any]) -> Test:
    return lambda row: any(_equal(get(row), value) for value in values)


def _ordered(get: Callable[[Row], Any], compare: Callable[[Any, Any], bool], value: Any) -> Test:
    kind = _kind(value)

    def test(row: Row) -> bool:
        found = get(row)
        return kind in {"number", "text"} and _kind(found) == kind and compare(found, value)

    return test


def _equal(one: Any, other: Any) -> bool:
    return _kind(one) == _kind(other) and bool(one == other)


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "word"
    return "number" if isinstance(value, int | float) else "text" if _is_text(value) else "other"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _unquoted(token: _Token) -> str:
    if token.kind != "text":
        return token.text
    return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)


def _known() -> str:
    return ", ".join([*FIELDS, *(f"{name}.<name>" for name in OBJECTS)])


def _wrong(why: str, at: int | None = None) -> DataError:
    place = "" if at is None else f" At character {at}:"
    return DataError(
        f"the filter (`where`) cannot be understood.{place} {why}.", code="not_understood"
    )
