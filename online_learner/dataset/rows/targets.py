"""Rows of features and the right answer to them: `supervised`, and `tabular` with flat features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from online_learner.dataset.columns import json_field
from online_learner.dataset.heard import Heard
from online_learner.dataset.rows.common import TYPES, Said, Shape
from online_learner.schema import Example
from online_learner.schema.values import Task, canonical, label_key

PREFIX = "f_"


class Supervised:
    """Features as JSON, the right label or number, and what had been answered."""

    tasks: frozenset[Task] = frozenset({"classification", "regression"})
    balance: str | None = "target"

    def payload(self, heard: Heard) -> Any:
        """Return the right answer; None where it is only known what is wrong."""
        lesson = heard.lesson
        right = isinstance(lesson, Example) and not lesson.complementary
        return lesson.target if isinstance(lesson, Example) and right else None

    def columns(self, shape: Shape) -> list[pa.Field]:
        """Return features, target and output."""
        return [json_field("features"), *_answers(shape)]

    def rows(self, payload: Any, said: Said, shape: Shape) -> Iterator[Sequence[Any]]:
        """Yield one row."""
        features = canonical(said.record.get("features", {}))
        yield features, typed(payload, shape.target), typed(said.record["output"], shape.target)


class Tabular(Supervised):
    """The same, with a column for each feature."""

    def columns(self, shape: Shape) -> list[pa.Field]:
        """Return a column for each feature, target and output."""
        found = [
            json_field(f"{PREFIX}{name}")
            if kind == "json"
            else pa.field(f"{PREFIX}{name}", TYPES[kind])
            for name, kind in shape.features
        ]
        return found + _answers(shape)

    def rows(self, payload: Any, said: Said, shape: Shape) -> Iterator[Sequence[Any]]:
        """Yield one row."""
        features = said.record.get("features", {})
        values = [typed(features.get(name), kind) for name, kind in shape.features]
        answers = (typed(answer, shape.target) for answer in (payload, said.record["output"]))
        yield (*values, *answers)


def _answers(shape: Shape) -> list[pa.Field]:
    return [pa.field(name, TYPES[shape.target]) for name in ("target", "output")]


def kind_of(value: Any) -> str:
    """Return the type of a value: `bool`, `int`, `float`, `text` or `json`."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if abs(value) < 1 << 63 else "float"
    if isinstance(value, float):
        return "float"
    return "text" if isinstance(value, str) else "json"


def settle(kinds: frozenset[str] | set[str]) -> str:
    """Return the type of a column that holds values of these types: text where they are mixed.

    >>> settle({"int", "float"}), settle({"bool", "int"}), settle({"json"})
    ('float', 'text', 'json')
    """
    if len(kinds) == 1:
        return next(iter(kinds))
    return "float" if kinds == {"int", "float"} else "text"


def typed(value: Any, kind: str) -> Any:
    """Return a value as its column has it."""
    if value is None:
        return None
    if kind == "json":
        return canonical(value)
    if kind == "float":
        return float(value)
    if kind == "text":
        return canonical(value) if isinstance(value, list | dict) else label_key(value)
    return value
