"""JSON as it is taken: RFC 8259 to the letter, and each key once."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import jiter
from pydantic import BaseModel, ValidationError

from online_learner.errors import Invalid, Malformed, from_validation

M = TypeVar("M", bound=BaseModel)

_ESCAPE, _NUL = b"\\", b"\\u0000"
_PLACE = re.compile(r" at line \d+ column \d+$")


def read_json(body: bytes) -> Any:
    """Return what a body holds.

    A number too large for a 64-bit float is read as infinity; the model that checks the document
    refuses it.

    Raises
    ------
    Malformed
        It is not JSON in UTF-8: cut off, with something behind it, nested without end, with a key
        that stands twice, with NaN or Infinity, with half a surrogate pair, or with an integer of
        thousands of digits.
    Invalid
        A text in it has the character NUL.
    """
    try:
        document = jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError as error:
        words = _without_key(str(error))
        raise Malformed.at("", f"the body is not valid JSON: {words}") from None
    # The first is quick. A backslash that is escaped itself begins no escape.
    if _ESCAPE in body and _NUL in body.replace(_ESCAPE * 2, b""):
        raise Invalid.at("", "a text in it has the character NUL (\\u0000): take it out")
    return document


def check(model: type[M], document: Any) -> M:
    """Check a document against a model; raises a `ServiceError` that names every place."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise from_validation(error, model) from None


def _without_key(message: str) -> str:
    """Return the parser's words: of all that it says, only a doubled key was sent.

    >>> _without_key('Detected duplicate key "hunter2" at line 1 column 9')
    'a key stands twice in one object at line 1 column 9'
    """
    if not message.startswith("Detected duplicate key"):
        return message
    place = _PLACE.search(message)
    return f"a key stands twice in one object{place[0] if place else ''}"
