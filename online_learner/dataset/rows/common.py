"""What all formats share: their protocol, their common columns, and prompts and texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from online_learner.chat import chat_text
from online_learner.dataset.heard import Heard
from online_learner.schema.values import Task, canonical, label_key

STAMP = pa.timestamp("ms", "UTC")
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
TYPES = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "text": pa.string()}


@dataclass(frozen=True, slots=True)
class Shape:
    """What the columns of a dataset are, as the rows that it is made of have settled it.

    Parameters
    ----------
    target
        The type of labels, or of numbers: `bool`, `int`, `float` or `text`.
    chat
        Whether prompts are lists of messages: so they are in all rows where they are in one.
    features
        Name and type of each feature, `json` for what is no plain value; for `tabular`.
    factors
        What weights are made of, by name.
    """

    task: Task
    target: str = "text"
    chat: bool = False
    features: tuple[tuple[str, str], ...] = ()
    factors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Said:
    """One signal as a worker has it, as plain JSON: what was said of what was answered."""

    feedback: Mapping[str, Any]
    record: Mapping[str, Any]
    other: Mapping[str, Any] | None = None


class Format(Protocol):
    """One kind of rows."""

    tasks: frozenset[Task]
    balance: str | None  # the column by which rows are counted

    def payload(self, heard: Heard) -> Any:
        """Return what rows need beside the records, as plain JSON; None where there are none."""

    def columns(self, shape: Shape) -> list[pa.Field]:
        """Return the columns beside the common ones."""

    def rows(self, payload: Any, said: Said, shape: Shape) -> Iterator[Sequence[Any]]:
        """Yield the values of these columns, for each row that a signal makes."""


def common_columns(shape: Shape) -> list[pa.Field]:
    """Return the columns that all datasets begin with.

    The prediction's entry, the signal's, when it was said, its kind, who said it, and what it
    weighs: in the end, by the table of signals, and the factors in between.
    """
    texts = [pa.field(name, pa.string()) for name in ("id", "signal", "kind", "source")]
    texts.insert(2, pa.field("at", STAMP))
    weights = ("weight", "weight_raw", *(f"weight_{name}" for name in shape.factors))
    return texts + [pa.field(name, pa.float64()) for name in weights]


# --- texts ----------------------------------------------------------------------------------------


def text_of(features: Mapping[str, Any]) -> str:
    """Return an option, or a question, as a text: its only text, or all of it as JSON.

    >>> text_of({"text": "Hi"}), text_of({"km": 3.0, "colour": "red"})
    ('Hi', '{"colour": "red", "km": 3.0}')
    """
    for name in ("text", "json", "prompt"):
        if isinstance(features.get(name), str) and len(features) == 1:
            return str(features[name])
    values = list(features.values())
    return values[0] if len(values) == 1 and isinstance(values[0], str) else canonical(features)


def value_text(value: Any) -> str:
    """Return a label, a number, or what was generated, as a text."""
    return canonical(value) if isinstance(value, dict | list) else label_key(value)


def is_chat(features: Mapping[str, Any]) -> bool:
    """Tell whether a question is the messages of a chat."""
    messages = features.get("messages")
    return isinstance(messages, list) and all(isinstance(m, dict) for m in messages)


def prompt_of(features: Mapping[str, Any], shape: Shape) -> Any:
    """Return a question: a text, or messages where some of the dataset's are."""
    if not is_chat(features):
        text = text_of(features)
        return [message("user", text)] if shape.chat else text
    if not shape.chat:
        return chat_text(features["messages"])
    return [message(str(m.get("role", "")), _content(m)) for m in features["messages"]]


def reply_of(text: str, shape: Shape) -> Any:
    """Return an answer, as messages where the dataset's prompts are."""
    return [message("assistant", text)] if shape.chat else text


def message(role: str, content: str) -> dict[str, str]:
    """Return one message of a chat."""
    return {"role": role, "content": content}


def _content(sent: Mapping[str, Any]) -> str:
    """Return what a message says; of one that only calls tools, the calls as JSON."""
    content = sent.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    rest = {name: value for name, value in sent.items() if name != "role" and value is not None}
    return canonical(rest) if rest else ""


def dialogue(shape: Shape) -> pa.DataType:
    """Return the type of prompts and answers."""
    return MESSAGES if shape.chat else pa.string()


def shown_first(record: Mapping[str, Any]) -> str | None:
    """Return the name of the option that was shown first."""
    output = record.get("output")
    return output[0] if isinstance(output, list) and output else None


def option_text(record: Mapping[str, Any], name: str | None) -> str | None:
    """Return an option of a record as a text, or None where it has none of that name."""
    for option in record.get("options", ()):
        if option["id"] == name:
            return text_of(option.get("features", {}))
    return None
