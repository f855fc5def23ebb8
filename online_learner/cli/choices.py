"""What can be said of an answer with one key, by task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from online_learner.cli.keyboard import Keyboard
from online_learner.cli.output import said
from online_learner.cli.rows import Wrong
from online_learner.cli.truths import reader_of
from online_learner.errors import did_you_mean
from online_learner.schema import label_key

KEYS = "123456789"


@dataclass(frozen=True, slots=True)
class Choices:
    """The signals that keys stand for.

    Parameters
    ----------
    keys
        What each key says, with its name.
    typed
        What `c` asks for, and reads; empty where nothing is typed.
    single
        Whether a key alone decides; with more than nine labels, their names are typed.
    """

    keys: dict[str, tuple[str, dict[str, Any]]]
    typed: str = ""
    read_typed: Any = None
    single: bool = True
    names: dict[str, dict[str, Any]] = field(default_factory=dict)

    def told(self) -> str:
        """Return the keys in one line."""
        found = "   ".join(f"{key} {name}" for key, (name, _) in self.keys.items())
        typed = f"   c {self.typed}" if self.typed and self.single else ""
        return (found + typed).strip() or self.typed

    def named(self, signal: dict[str, Any]) -> str:
        """Return a signal in words."""
        kind, value = signal["kind"], signal.get("value")
        return "none of them" if value is None else f"{kind} {said(value)}"

    def read(self, key: str, keyboard: Keyboard) -> dict[str, Any] | str:
        """Return the signal of a key, or what is wrong with it."""
        if key in self.keys:
            return self.keys[key][1]
        if key == "c" and self.typed:
            return self._typed(keyboard.line(f"{self.typed}: "))
        return "this key says nothing here" if self.single else self._typed(key)

    def _typed(self, text: str) -> dict[str, Any] | str:
        """Return the signal of a text: a name, or so much of one that it can be no other."""
        found = [name for name in self.names if text and name.lower().startswith(text.lower())]
        if text in self.names or len(found) == 1:
            return self.names[text if text in self.names else found[0]]
        if self.read_typed is None:
            return f"that is none of them.{did_you_mean(text, self.names)}"
        try:
            return {"kind": "correction", "value": self.read_typed(text)}
        except Wrong as wrong:
            return str(wrong)


def choices_for(about: dict[str, Any], item: dict[str, Any]) -> Choices:
    """Return what can be said of an answer.

    >>> choices_for({"task": "classification", "labels": ["a", "b"]}, {"options": []}).told()
    '1 a   2 b   c other'
    >>> choices_for({"task": "regression", "labels": None}, {"options": []}).told()
    'the right number'
    """
    return _BY_TASK[about["task"]](about, item)


def _labels(about: dict[str, Any], item: dict[str, Any]) -> Choices:
    labels = about["labels"]
    read = reader_of("classification", labels)
    if labels is None:
        keys = {"1": ("right", {"kind": "thumbs", "value": True})}
        return Choices(keys, "the right label", read)
    signals = {label_key(each): {"kind": "correction", "value": each} for each in labels}
    if len(labels) > len(KEYS):
        return Choices({}, "type a label", read, single=False, names=signals)
    keys = dict(zip(KEYS, signals.items(), strict=False))
    return Choices(keys, "other", read, names=signals)


def _number(about: dict[str, Any], item: dict[str, Any]) -> Choices:
    return Choices({}, "the right number", reader_of("regression", None), single=False)


def _options(about: dict[str, Any], item: dict[str, Any]) -> Choices:
    names = [option["id"] for option in item["options"]]
    signals = {name: {"kind": "selection", "value": name} for name in names}
    none = {"0": ("none of them", {"kind": "selection", "value": None})}
    keys = dict(zip(KEYS, signals.items(), strict=False)) | none
    single = len(names) <= len(KEYS)
    return Choices(keys, "" if single else "type an id", None, single=single, names=signals)


def _texts(about: dict[str, Any], item: dict[str, Any]) -> Choices:
    thumbs = {
        "+": ("good", {"kind": "thumbs", "value": True}),
        "-": ("bad", {"kind": "thumbs", "value": False}),
    }
    keys = thumbs if len(item["options"]) < 2 else _options(about, item).keys | thumbs
    return Choices(keys, "a better text", lambda text: text)


_BY_TASK = {
    "classification": _labels,
    "regression": _number,
    "ranking": _options,
    "generation": _texts,
}
