"""What the right answers of a model look like, and how one is read from a cell or from typing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from online_learner.cli.rows import Wrong, read_cell
from online_learner.errors import did_you_mean
from online_learner.schema import label_key


def reader_of(task: str, labels: list[Any] | None) -> Callable[[Any], Any]:
    """Return what reads a right answer; it raises `Wrong` where there is none.

    >>> reader_of("classification", [False, True])("TRUE"), reader_of("regression", None)("3")
    (True, 3.0)
    """
    if task == "regression":
        return read_number
    if labels is None:
        return lambda value: read_cell(value) if isinstance(value, str) else value
    by_key = {label_key(label): label for label in labels}
    by_key |= {key.lower(): label for key, label in by_key.items() if not isinstance(label, str)}

    def read(value: Any) -> Any:
        key = value.strip() if isinstance(value, str) else label_key(value)
        for known in (key, key.lower()):
            if known in by_key and (known == key or not isinstance(by_key[known], str)):
                return by_key[known]
        names = ", ".join(label_key(label) for label in labels)
        hint = did_you_mean(key, [label_key(label) for label in labels])
        raise Wrong(f"'{key}' is not among the labels of the model: {names}.{hint}")

    return read


def read_number(value: Any) -> float:
    """Return a number; raises `Wrong` where there is none."""
    found = read_cell(value) if isinstance(value, str) else value
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise Wrong(f"'{value}' is no number")
    return float(found)
