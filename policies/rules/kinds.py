"""The kinds of rules: what each takes, and what it finds."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from policies.rules.json_schema import JsonSchema
from policies.rules.personal_data import KINDS as PERSONAL
from policies.rules.personal_data import Kind, kinds_in, plain
from policies.rules.rule import FeatureRule, Rule, Subject, Target, at, meant, several

_EVERYTHING: tuple[Target, ...] = ("input", "output", "feedback")

# --- values -----------------------------------------------------------------------------------


class _Valued(FeatureRule):
    """A rule on single values: of a feature, or of the answer. Those of a list are taken singly."""

    @model_validator(mode="after")
    def _names_a_feature(self) -> Self:
        if self.feature is None and "input" in self.targets:
            raise ValueError("`on: input` needs a `feature`")
        return self

    def details(self, subject: Subject) -> Iterator[str]:
        """Yield each value that is wrong."""
        for place, value in subject.values(self.feature):
            items = enumerate(value) if isinstance(value, list) else [(None, value)]
            for i, item in items:
                if breach := self._breach(item):
                    yield at(place if i is None else (place, i), breach)

    def _breach(self, value: Any) -> str | None:
        raise NotImplementedError


class Range(_Valued):
    """Numbers from `low` to `high`, both included; one of them may be left out."""

    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("give `low`, `high`, or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"`low` ({self.low:g}) is above `high` ({self.high:g})")
        return self

    def _breach(self, value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "is not a number"
        if self.low is not None and not value >= self.low:
            return f"is not at least {self.low:g}"
        if self.high is not None and not value <= self.high:
            return f"is not at most {self.high:g}"
        return None


class Vocabulary(_Valued):
    """A closed set of values. `true` is not 1, and `"1"` is neither."""

    values: Annotated[list[bool | int | float | str], Field(min_length=1)]
    _known: frozenset[tuple[bool, Any]] = PrivateAttr()

    @model_validator(mode="after")
    def _index(self) -> Self:
        self._known = frozenset((isinstance(value, bool), value) for value in self.values)
        return self

    def _breach(self, value: Any) -> str | None:
        if isinstance(value, dict | list) or (isinstance(value, bool), value) not in self._known:
            return f"is not one of the {len(self.values)} values"
        return None


# --- texts ------------------------------------------------------------------------------------


class PersonalData(Rule):
    """Personal data in any text: a finding for each kind, at the first place of it."""

    usual = _EVERYTHING
    reads_prose = True

    kinds: Annotated[tuple[Kind, ...], BeforeValidator(several), Field(min_length=1)] = PERSONAL

    def details(self, subject: Subject) -> Iterator[str]:
        """Yield each kind that there is."""
        left = list(self.kinds)
        for place, text in subject.texts():
            for kind in kinds_in(text, left):
                left.remove(kind)
                yield at(place, kind)
            if not left:
                return


# A word, a single character of a script without spaces, or a sign.
_CJK = r"\u3040-\u30ff\u3400-\u9fff"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s]")


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(plain(text).casefold())


Entries: TypeAlias = dict[str, list[tuple[list[str], str]]]  # by their first token


class Blocklist(Rule):
    """Words and phrases that must not be said: whole words, whatever their case and width.

    `file` holds one to a line, in UTF-8. A finding names the place in the list, not the word.
    """

    usual = _EVERYTHING
    reads_prose = True

    words: Annotated[tuple[str, ...], BeforeValidator(several)] = ()
    file: str | None = None
    _entries: Entries = PrivateAttr()

    @model_validator(mode="after")
    def _index(self) -> Self:
        listed = [(f"words[{i}]", word) for i, word in enumerate(self.words)]
        listed += [
            (f"line {i} of the file", line)
            for i, line in enumerate(self._lines(), start=1)
            if line.strip()
        ]
        self._entries = {}
        for name, entry in listed:
            tokens = _tokens(entry)
            if not tokens:
                raise ValueError(f"{name} is empty")
            self._entries.setdefault(tokens[0], []).append((tokens, name))
        if not self._entries:
            raise ValueError("give `words`, a `file`, or both")
        return self

    def _lines(self) -> list[str]:
        if self.file is None:
            return []
        try:
            text = Path(self.file).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"file: cannot read '{self.file}': {error}") from error
        return text.splitlines()

    def details(self, subject: Subject) -> Iterator[str]:
        """Yield the first entry of the list that each text holds."""
        entries = self._entries
        for place, text in subject.texts():
            if (name := _first(entries, _tokens(text))) is not None:
                yield at(place, f"{name} of the list")


def _first(entries: Entries, tokens: list[str]) -> str | None:
    for i, token in enumerate(tokens):
        for entry, name in entries.get(token, ()):
            if tokens[i : i + len(entry)] == entry:
                return name
    return None


# --- by import path ---------------------------------------------------------------------------


class Hook(FeatureRule):
    """A function by import path: `function(value, where, **arguments) -> str | bool | None`.

    It is called with each text of an input or, where a `feature` is named, with that; with the
    output, the comment or the correction as it is; and with one of `"input"`, `"output"`,
    `"comment"`, `"correction"`. A text that it returns is the flag's detail, and must not hold the
    data; `True` is a flag without one. It must not alter what it is given, and is called from
    several threads.
    """

    model_config = ConfigDict(extra="allow")
    reads_prose = True

    _function: Callable[..., Any] = PrivateAttr()

    @model_validator(mode="after")
    def _find(self) -> Self:
        function, arguments = _imported(self.rule), self.model_extra or {}
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise ValueError(f"'{self.rule}' must be a function, and not an async one")
        signature = inspect.signature(function)
        try:
            signature.bind("", "output", **arguments)
        except TypeError as error:
            known = {*signature.parameters, *type(self).model_fields}
            hints = (meant(key, sorted(known)) for key in arguments if key not in known)
            message = f"'{self.rule}' cannot be called so: {error}.{''.join(hints)}"
            raise ValueError(message) from None
        self._function = partial(function, **arguments)
        return self

    def details(self, subject: Subject) -> Iterator[str]:
        """Yield what the function says first."""
        texts_only = subject.where == "input" and self.feature is None
        given = subject.texts(names=False) if texts_only else subject.values(self.feature)
        for place, value in given:
            found = self._function(value, subject.where)
            if not isinstance(found, str | bool | np.bool_ | None):
                raise TypeError(f"the hook returned a {type(found).__name__}")
            if found:
                yield at(place, found if isinstance(found, str) else "")
                return


def _imported(path: str) -> Any:
    module, _, names = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        raise ValueError(f"cannot import '{module}': {error}") from error
    for name in names.split("."):
        if not hasattr(found, name):
            raise ValueError(f"'{path}': no '{name}' there.{meant(name, dir(found))}")
        found = getattr(found, name)
    return found


KINDS: dict[str, type[Rule]] = {
    "range": Range,
    "vocabulary": Vocabulary,
    "json_schema": JsonSchema,
    "personal_data": PersonalData,
    "blocklist": Blocklist,
}
