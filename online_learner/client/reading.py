"""From JSON to a record: unknown keys are passed by, as a newer service may send some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

T = TypeVar("T")


def read_as(kind: type[T], reply: Mapping[str, Any]) -> T:
    """Return a dataclass with the values of its own names.

    >>> from online_learner.client.receipts import ServedBy
    >>> read_as(ServedBy, {"version": 1, "step": 7, "at": 0.5, "region": "north"})
    ServedBy(version=1, step=7, at=0.5)
    """
    return kind(**{field.name: reply[field.name] for field in fields(kind)})  # type: ignore[arg-type]
