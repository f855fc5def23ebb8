"""Values that clients send: finite and bounded numbers, bounded text, valid Unicode."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from online_learner.errors import Invalid, json_pointer

MAX_MAGNITUDE = 1e15  # a single 1e308 ruins a linear model for good
MAX_FEATURES = 10_000
MAX_TEXT = 65_536  # of a feature or a comment
MAX_PROMPT = 1 << 20
MAX_NAME = 256
MAX_VECTOR = 8192
MAX_OPTIONS = 1000
MAX_DEPTH = 16
MAX_LOGPROBS = 32_768


_NUMBERS = (float, int)


def check_features(features: dict[str, Any]) -> dict[str, Any]:
    """Return the features; raises `Invalid` that names the one that cannot be taken."""
    if len(features) > MAX_FEATURES:
        raise Invalid.at("/features", f"at most {MAX_FEATURES} features are taken")
    for name, value in features.items():
        if len(name) > MAX_NAME or not _is_utf8(name):
            raise Invalid.at("/features", f"a name is valid Unicode, up to {MAX_NAME} characters")
        kind = type(value)
        if kind is float or kind is int:
            if not abs(value) <= MAX_MAGNITUDE:  # refuses NaN as well
                raise _bad(name, f"must be a finite number within ±{MAX_MAGNITUDE:g}")
        elif kind is not bool:
            _check_other(name, value)
    return features


def _check_other(name: str, value: Any) -> None:
    if isinstance(value, list):
        _check_vector(name, value)
    elif not isinstance(value, str):
        raise _bad(name, "must be a number, a string, a boolean, or a list of numbers")
    elif len(value) > MAX_TEXT:
        raise _bad(name, f"text is longer than {MAX_TEXT} characters")
    elif not _is_utf8(value):
        raise _bad(name, "is not valid Unicode: half a surrogate pair")


def _check_vector(name: str, value: list[Any]) -> None:
    if not 1 <= len(value) <= MAX_VECTOR:
        raise _bad(name, f"a list holds 1 to {MAX_VECTOR} numbers, this one {len(value)}")
    for number in value:
        if type(number) not in _NUMBERS or not abs(number) <= MAX_MAGNITUDE:
            raise _bad(name, f"a list holds finite numbers within ±{MAX_MAGNITUDE:g} only")


def _is_utf8(text: str) -> bool:
    # Python's own JSON parser lets "\ud800" pass, and then no encoder takes it.
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad(feature: str, message: str) -> Invalid:
    return Invalid.at(json_pointer("features", feature), message)


def _check_json(value: Any) -> Any:
    """Check a JSON value: finite, bounded, valid Unicode, not nested without end."""
    _walk(value, 0, MAX_MAGNITUDE)
    return value


def _check_kept(value: Any) -> Any:
    """Check JSON that is kept and never learned from as a number: a seed may have 64 bits."""
    _walk(value, 0, sys.float_info.max)
    return value


def _walk(value: Any, depth: int, most: float) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, list | dict):
        if depth >= MAX_DEPTH:
            raise ValueError(f"is nested more than {MAX_DEPTH} deep")
        for part in value:
            _walk(part, depth + 1, most)
        for part in value.values() if isinstance(value, dict) else ():
            _walk(part, depth + 1, most)
    elif isinstance(value, float | int):
        if not abs(value) <= most:
            raise ValueError(f"must be a finite number within ±{most:g}")
    elif value is not None:
        raise ValueError(f"is no JSON value, but a {type(value).__name__}")


def _check_version(value: Any) -> Any:
    if type(value) is int or (isinstance(value, str) and 1 <= len(value) <= 256):
        return value
    raise ValueError("is the number of a version, or the name of one made elsewhere")


def _check_moment(text: str) -> str:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ValueError("is a time with its zone, as in 2026-01-31T12:00:00Z")
    return text


def _check_choice(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return value
    raise ValueError("is a label or an id that was shown, or null: none of these")


def _check_text(text: str) -> str:
    if len(text) > MAX_PROMPT:
        raise ValueError(f"text is longer than {MAX_PROMPT} characters")
    if not _is_utf8(text):
        raise ValueError("is not valid Unicode: half a surrogate pair")
    return text


Features: TypeAlias = Annotated[dict[str, Any], AfterValidator(check_features)]
Finite: TypeAlias = Annotated[float, Field(ge=-MAX_MAGNITUDE, le=MAX_MAGNITUDE)]
Json: TypeAlias = Annotated[Any, AfterValidator(_check_json)]
Kept: TypeAlias = Annotated[Any, AfterValidator(_check_kept)]
VersionName: TypeAlias = Annotated[
    Any,
    AfterValidator(_check_version),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
]
Choice: TypeAlias = Annotated[
    Any,
    AfterValidator(_check_choice),
    WithJsonSchema({"type": ["string", "integer", "boolean", "null"]}),
]
Text: TypeAlias = Annotated[str, AfterValidator(_check_text)]
Moment: TypeAlias = Annotated[str, Field(max_length=64), AfterValidator(_check_moment)]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]


class Request(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
