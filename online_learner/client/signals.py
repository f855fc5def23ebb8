"""What can be said of an answer: one function for each kind of feedback.

from online_learner.client import signals

answer.say(signals.rating(2), signals.correction("ham"), user_id="ada")

Who says it, and why, are fields beside it; see `fields.FeedbackFields`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

Signal: TypeAlias = dict[str, Any]


def thumbs(*, up: bool) -> Signal:
    """Say that the answer is good, or bad."""
    return {"kind": "thumbs", "value": up}


def correction(value: Any) -> Signal:
    """Say what the right answer is: a label, a number, a text, an option's id."""
    return {"kind": "correction", "value": value}


def rating(value: float, scale: tuple[float, float] | None = None) -> Signal:
    """Rate the answer, from 1 to 5 or on a scale `(low, high)` of your own.

    >>> rating(8, (0, 10))
    {'kind': 'rating', 'value': 8, 'scale': [0, 10]}
    """
    found: Signal = {"kind": "rating", "value": value}
    return found if scale is None else found | {"scale": list(scale)}


def selection(value: Any) -> Signal:
    """Say which of those shown was taken; None: none of them."""
    return {"kind": "selection", "value": value}


def preference(chosen: str, rejected: str) -> Signal:
    """Say which of two options, or of two answers, is better."""
    return {"kind": "preference", "chosen": chosen, "rejected": rejected}


def ranking(ids: Iterable[str]) -> Signal:
    """Put some or all of the options in order, best first."""
    return {"kind": "ranking", "value": list(ids)}


def category(value: str) -> Signal:
    """Put the answer into a category that the configuration declares."""
    return {"kind": "category", "value": value}


def flag(rule: str, *, severity: str | None = None, detail: str | None = None) -> Signal:
    """Say that the answer breaks a rule; severity is `note`, `warn` (the default) or `block`."""
    return _without_none({"kind": "flag", "rule": rule, "severity": severity, "detail": detail})


def implicit(event: str, value: float | None = None) -> Signal:
    """Say what a user did, rather than said: `click`, `purchase`, `dwell` with its seconds."""
    return _without_none({"kind": "implicit", "event": event, "value": value})


def of_kind(kind: str, value: Any) -> Signal:
    """Return a signal of any kind; a preference and a flag have other fields than a value.

    >>> of_kind("selection", None), of_kind("flag", None)
    ({'kind': 'selection', 'value': None}, {'kind': 'flag'})
    """
    if value is None and kind in {"preference", "flag"}:
        return {"kind": kind}
    return {"kind": kind, "value": value}


def _without_none(found: Signal) -> Signal:
    return {name: value for name, value in found.items() if value is not None}
