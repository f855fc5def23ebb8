"""What a signal says of an answer, as far as raters can be compared by it."""

from __future__ import annotations

from typing import Any

from online_learner.schema import Output, Signal, Task, label_key
from policies.opinion import goodness

RATERS = ("human:", "model:")  # who can be told apart; a key names nobody, a rule is no person
SILENT = frozenset({"flag", "implicit"})  # what the system notes and what users do is no opinion
PAIR = ("first", "second")  # of two options by name: the one that is preferred


def is_rater(signal: Signal) -> bool:
    """Tell whether somebody speaks who can be told apart, and is no auditor."""
    feedback = signal.feedback
    speaks = feedback.source.startswith(RATERS) and feedback.kind not in SILENT
    return speaks and not feedback.auditor


def word_of(signal: Signal, task: Task) -> tuple[str, str, bool] | None:
    """Return of what a signal names a label, which, and whether it says that it is wrong.

    A preference names one of two options, which are a question of their own. None where no label
    is named.
    """
    feedback, said = signal.feedback, signal.said
    if feedback.kind == "preference" and isinstance(said.right, list):
        names = sorted(map(str, said.right))
        return f"{signal.answer} {' '.join(names)}", PAIR[str(said.right[0]) != names[0]], False
    if task != "classification":
        return None
    named: Output = said.wrong if said.right is None else said.right
    if named is None:
        return None
    return signal.answer, label_key(named), said.right is None


def number_of(signal: Signal, task: Task) -> float | None:
    """Return the value that a signal gives: how good an answer is, from 0 to 1, or a number.

    With numbers to be found only those count; else what is said of how good an answer is.
    """
    if task != "regression":
        return None if signal.feedback.kind == "preference" else goodness(signal)
    right: Any = signal.said.right
    number = isinstance(right, int | float) and not isinstance(right, bool)
    return float(right) if signal.feedback.kind == "correction" and number else None


def on_scale(signal: Signal, task: Task) -> bool:
    """Tell whether the value tells how its rater uses a scale."""
    return task != "classification" or signal.feedback.kind == "rating"
