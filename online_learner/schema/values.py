"""What all records rest on: labels, outputs, and how they are written down."""

from __future__ import annotations

import json
import math
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

Label: TypeAlias = bool | int | str
Output: TypeAlias = bool | int | float | str | list[str] | None  # a ranking: option ids, best first
Severity: TypeAlias = Literal["note", "warn", "block"]
Task: TypeAlias = Literal["classification", "regression", "ranking", "generation"]

_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False)


class Record(BaseModel):
    """What the store keeps.

    Records on the hot path have a `default_factory`: pydantic deep-copies a default of `{}`.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    def pack(self) -> bytes:
        """Return compact JSON; fields at their default are left out."""
        return self.__pydantic_serializer__.to_json(self, exclude_defaults=True)


def label_key(label: Any) -> str:
    """Return the name of a label as a JSON key.

    >>> label_key(True), label_key("spam"), label_key(3)
    ('true', 'spam', '3')
    """
    return label if isinstance(label, str) else json.dumps(label)


def finite(numbers: Any) -> bool:
    """Tell whether all of the numbers are finite."""
    return all(map(math.isfinite, numbers))


def canonical(value: Any) -> str:
    """Return JSON as text, the same for equal values.

    >>> canonical({"b": 1, "a": [True]})
    '{"a": [true], "b": 1}'
    """
    return _CANONICAL.encode(value)


def pack(value: Any) -> bytes:
    """Return compact JSON."""
    return to_json(value)
