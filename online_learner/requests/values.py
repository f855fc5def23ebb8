"""Values that clients send: finite and bounded numbers, bounded text, valid Unicode."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from online_learner.errors import Invalid

MAX_MAGNITUDE = 1e15  # a single 1e308 ruins a linear model for good
MAX_KEPT = 3.4028234663852886e38  # of a number that is only kept: what 32 bits hold
MAX_INTEGER = 10**15
MAX_FEATURES = 10_000
MAX_TEXT = 65_536  # of a feature or a comment
MAX_PROMPT = 1 << 20
MAX_NAME = 256
MAX_VECTOR = 8192
MAX_OPTIONS = 1000
MAX_BATCH = 1024
MAX_DEPTH = 16
MAX_LOGPROBS = 32_768
MAX_TAGS = 64
MAX_PARAMETERS = 256
MAX_FIELDS = 64  # of a request, or of a part of one: known or not

_NUMBERS = (float, int)


def at_most(most: int) -> BeforeValidator:
    """Refuse a list or an object that is too long, before what is in it is looked at."""

    def check(value: Any) -> Any:
        if isinstance(value, list | dict) and len(value) > most:
            raise ValueError(f"at most {most} are taken")
        return value

    return BeforeValidator(check)


def check_features(features: dict[str, Any]) -> dict[str, Any]:
    """Return the features; raises `Invalid` that counts out the one that cannot be taken.

    It does not name it: names are sent, like values.
    """
    if len(features) > MAX_FEATURES:
        raise Invalid.at("/features", f"at most {MAX_FEATURES} features are taken")
    for number, (name, value) in enumerate(features.items(), 1):
        if len(name) > MAX_NAME or not _is_utf8(name):
            raise _bad(number, f"has a name that is not valid Unicode of {MAX_NAME} characters")
        kind = type(value)
        if kind is float or kind is int:
            if not abs(value) <= MAX_MAGNITUDE:  # refuses NaN as well
                raise _bad(number, f"must be a finite number within ±{MAX_MAGNITUDE:g}")
        elif kind is not bool:
            _check_other(number, value)
    return features


def _check_other(number: int, value: Any) -> None:
    if isinstance(value, list):
        _check_vector(number, value)
    elif not isinstance(value, str):
        raise _bad(number, "must be a number, a string, a boolean, or a list of numbers")
    elif len(value) > MAX_TEXT:
        raise _bad(number, f"is a text longer than {MAX_TEXT} characters")
    elif not _is_utf8(value):
        raise _bad(number, "is not valid Unicode: half a surrogate pair")


def _check_vector(number: int, value: list[Any]) -> None:
    if not 1 <= len(value) <= MAX_VECTOR:
        raise _bad(number, f"is a list, which holds 1 to {MAX_VECTOR} numbers")
    for part in value:
        if type(part) not in _NUMBERS or not abs(part) <= MAX_MAGNITUDE:
            raise _bad(number, f"is a list, which holds finite numbers within ±{MAX_MAGNITUDE:g}")


def _is_utf8(text: str) -> bool:
    # Python's own JSON parser lets "\ud800" pass, and then no encoder takes it.
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad(number: int, message: str) -> Invalid:
    return Invalid.at("/features", f"the feature at place {number}, as sent, {message}")


def _check_json(value: Any) -> Any:
    """Check a JSON value: finite, bounded, valid Unicode, not nested without end."""
    _walk(value, MAX_MAGNITUDE)
    return value


def _check_kept(value: Any) -> Any:
    """Check JSON that is kept and never learned from as a number: a seed may have 64 bits."""
    _walk(value, MAX_KEPT)
    return value


def _check_kept_object(value: dict[str, Any]) -> dict[str, Any]:
    """Check JSON that is kept, each value of an object by itself, up to the first that is wrong."""
    for part in value.values():
        _walk(part, MAX_KEPT)
    return value


def _walk(value: Any, most: float) -> None:
    """Check all of a value, one level of its nesting after the other."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        deeper: list[Any] = []
        for part in level:
            if isinstance(part, list):
                deeper.append(part)
            elif isinstance(part, dict):
                deeper += (part, part.values())
            else:
                _check_scalar(part, most)
        if not deeper:
            return
        level = [part for parts in deeper for part in parts]
    raise ValueError(f"is nested more than {MAX_DEPTH} deep")


def _check_scalar(value: Any, most: float) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, _NUMBERS):
        if not abs(value) <= most:
            raise ValueError(f"must be a finite number within ±{most:g}")
    elif value is not None:
        raise ValueError(f"is no JSON value, but a {type(value).__name__}")


def _check_version(value: Any) -> Any:
    if type(value) is int and 0 <= value <= MAX_INTEGER:
        return value
    if isinstance(value, str) and 1 <= len(value) <= MAX_NAME:
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
    if value is None or (isinstance(value, bool | int) and abs(value) <= MAX_INTEGER):
        return value
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return value
    raise ValueError("is a label or an id that was shown, or null: none of these")


def _check_answered(value: Any) -> Any:
    if isinstance(value, list):
        return _check_ids(value)
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return _check_text(value)
    if value is None or (isinstance(value, bool | int | float) and abs(value) <= MAX_MAGNITUDE):
        return value
    raise ValueError(
        f"is a label of at most {MAX_TEXT} characters, a finite number within "
        f"±{MAX_MAGNITUDE:g}, or the ids of the options in the order shown"
    )


def _check_ids(value: list[Any]) -> list[Any]:
    if not 1 <= len(value) <= MAX_OPTIONS:
        raise ValueError(f"is a list, which holds 1 to {MAX_OPTIONS} ids of options")
    for part in value:
        if not (isinstance(part, str) and 1 <= len(part) <= MAX_NAME and _is_utf8(part)):
            raise ValueError(f"is a list, which holds ids of options: 1 to {MAX_NAME} characters")
    return value


def _check_text(text: str) -> str:
    if len(text) > MAX_PROMPT:
        raise ValueError(f"text is longer than {MAX_PROMPT} characters")
    if not _is_utf8(text):
        raise ValueError("is not valid Unicode: half a surrogate pair")
    return text


def _bounded(most: float) -> dict[str, Any]:
    return {"type": "number", "minimum": -most, "maximum": most}


def _json(most: float) -> dict[str, Any]:
    """Return the schema of JSON whose numbers are within ±`most`; how deep it may be, is told."""
    return {
        "anyOf": [
            {"type": ["boolean", "null", "array", "object"]},
            {"type": "string", "maxLength": MAX_PROMPT},
            _bounded(most),
        ],
        "description": f"JSON, at most {MAX_DEPTH} deep, its numbers within ±{most:g}",
    }


FEATURES = WithJsonSchema(
    {
        "type": "object",
        "maxProperties": MAX_FEATURES,
        "propertyNames": {"maxLength": MAX_NAME},
        "additionalProperties": {
            "anyOf": [
                _bounded(MAX_MAGNITUDE),
                {"type": "boolean"},
                {"type": "string", "maxLength": MAX_TEXT},
                {
                    "type": "array",
                    "items": _bounded(MAX_MAGNITUDE),
                    "minItems": 1,
                    "maxItems": MAX_VECTOR,
                },
            ]
        },
    }
)

Features: TypeAlias = Annotated[dict[str, Any], AfterValidator(check_features), FEATURES]
Finite: TypeAlias = Annotated[float, Field(ge=-MAX_MAGNITUDE, le=MAX_MAGNITUDE)]
KeptNumber: TypeAlias = Annotated[float, Field(ge=-MAX_KEPT, le=MAX_KEPT)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Json: TypeAlias = Annotated[Any, AfterValidator(_check_json), WithJsonSchema(_json(MAX_MAGNITUDE))]
Kept: TypeAlias = Annotated[Any, AfterValidator(_check_kept), WithJsonSchema(_json(MAX_KEPT))]
KeptObject: TypeAlias = Annotated[
    dict[str, Any],
    AfterValidator(_check_kept_object),
    WithJsonSchema({"type": "object", "additionalProperties": _json(MAX_KEPT)}),
]
VersionName: TypeAlias = Annotated[
    Any,
    AfterValidator(_check_version),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": MAX_INTEGER},
                {"type": "string", "minLength": 1, "maxLength": MAX_NAME},
            ]
        }
    ),
]
Choice: TypeAlias = Annotated[
    Any,
    AfterValidator(_check_choice),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "maxLength": MAX_TEXT},
                {"type": "integer", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER},
                {"type": ["boolean", "null"]},
            ]
        }
    ),
]
Answered: TypeAlias = Annotated[
    Any,
    AfterValidator(_check_answered),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": ["boolean", "null"]},
                {"type": "string", "maxLength": MAX_TEXT},
                _bounded(MAX_MAGNITUDE),
                {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1, "maxLength": MAX_NAME},
                    "minItems": 1,
                    "maxItems": MAX_OPTIONS,
                },
            ]
        }
    ),
]
Text: TypeAlias = Annotated[
    str, AfterValidator(_check_text), WithJsonSchema({"type": "string", "maxLength": MAX_PROMPT})
]
Moment: TypeAlias = Annotated[
    str,
    Field(max_length=64),
    AfterValidator(_check_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 64}),
]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Tags: TypeAlias = Annotated[
    dict[Name, Name], Field(max_length=MAX_TAGS, default_factory=dict), at_most(MAX_TAGS)
]


class Request(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, sent: Any) -> Any:
        """Refuse what has far more fields than there are, before each is looked up."""
        if isinstance(sent, dict) and len(sent) > MAX_FIELDS:
            raise ValueError(f"at most {MAX_FIELDS} fields are looked at: send the known ones")
        return sent
