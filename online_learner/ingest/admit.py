"""Stage 3, first half: may this be said of that answer? Checked against what was served.

Each kind is checked against the task, the labels, the options shown and the rules; what passes
becomes the `Feedback` that is appended. Nothing here touches the store.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from online_learner.archive.log import Log
from online_learner.errors import Invalid, did_you_mean
from online_learner.inputs import FULL, Inputs
from online_learner.requests import FeedbackRequest
from online_learner.requests.telling import (
    Category,
    Correction,
    Implicit,
    Preference,
    Ranking,
    Rating,
    Selection,
    Signal,
    Thumbs,
)
from online_learner.requests.values import MAX_TEXT, check_features
from online_learner.schema import Feedback, Flag, Label, Prediction, label_key
from online_learner.settings import LimitsSpec, ModelSpec


class Kinds(Protocol):
    """The part of the signals policy that says what it takes; see `policies.signals`."""

    def kinds(self) -> list[str]:
        """Return the kinds of feedback that mean something for the task."""


class Rules(Protocol):
    """The part of the rules that reads what people write; see `policies.rules`."""

    def of_comment(self, text: str) -> list[Flag]:
        """Return what the rules find in a comment."""

    def of_correction(self, value: Any) -> list[Flag]:
        """Return what the rules find in a correction."""


class Admission:
    """What may be said about one model's answers."""

    def __init__(
        self,
        spec: ModelSpec,
        signals: Kinds,
        rules: Rules,
        inputs: Inputs = FULL,
        log: Log | None = None,
    ) -> None:
        self.inputs = inputs  # by what hash answers and people are known, if by any
        self.log = log  # with the archive, where the model has one
        self._spec = spec
        self._kinds = frozenset(signals.kinds())
        self._rules = rules

    @property
    def public(self) -> bool:
        """Whether the signed id of an answer is enough to speak about it."""
        return self._spec.public_feedback

    @property
    def limits(self) -> LimitsSpec:
        """How much is taken, of one API key and of one source."""
        return self._spec.limits

    def needs_record(self, signal: Signal) -> bool:
        """Tell whether a signal is checked against the record of the answer."""
        if isinstance(signal, Correction):
            return self._spec.task == "ranking" and isinstance(signal.value, str)
        return isinstance(signal, Selection | Preference | Ranking)

    def check_kind(self, signal: Any) -> None:
        """Raise `Invalid` where a kind means nothing for the task; it says which kinds do."""
        if signal.kind not in self._kinds:
            raise Invalid.at(
                "/kind",
                f"'{signal.kind}' means nothing for the task {self._spec.task}: send "
                + ", ".join(sorted(self._kinds)),
                code="kind_not_applicable",
            )

    def read_comment(self, comment: str | None) -> list[Flag]:
        """Return what the rules find in a comment; raise `Invalid` where one of them blocks it."""
        flags = [] if comment is None else self._rules.of_comment(comment)
        _refuse_blocked(flags, "/comment")
        return flags

    def admit(
        self,
        signal: Any,
        request: FeedbackRequest,
        record: Prediction | None,
        *,
        prediction_id: str,
        source: str,
        auditor: bool = False,
        noted: Sequence[Flag] = (),
    ) -> Feedback:
        """Return one signal as it is kept.

        Parameters
        ----------
        request
            The payload that the signal came in.
        record
            The answer, where `needs_record`. None where it cannot be read here: then what is said
            of options shown is taken as it is, and looked at when a dataset is compiled.
        prediction_id, source, auditor
            What it is about, who says it, and whether their key is an auditor's.
        noted
            What `read_comment` found in the payload's comment.

        Raises
        ------
        Invalid
            The signal does not fit what was served, or a rule blocks it.
        """
        return Feedback(
            kind=signal.kind,
            value=self._value(signal, record),
            source=source,
            auditor=auditor,
            prediction_id=prediction_id,
            tags=dict(sorted(request.tags.items())),  # JSON objects have no order
            reasons=request.reasons,
            comment=request.comment,
            interface=None if request.interface is None else request.interface.model_dump(),
            observed_at=request.observed_at,
            flags=[*noted, *self._flags(signal)],
        )

    def _flags(self, signal: Any) -> list[Flag]:
        if not isinstance(signal, Correction):
            return []
        flags = self._rules.of_correction(signal.value)
        _refuse_blocked(flags, "/value")
        return flags

    def _value(self, signal: Any, record: Prediction | None) -> Any:
        found: Any
        match signal:
            case Rating():
                found = _rating(signal)
            case Category():
                found = self._category(signal.value)
            case Correction():
                found = self._correction(signal.value, record)
            case Selection():
                found = self._selection(signal.value, record)
            case Ranking():
                found = _order(signal, record)
            case Preference():
                found = _preference(signal, record)
            case _:
                found = _plain(signal)
        return found

    def _selection(self, value: Label | None, record: Prediction | None) -> Label | float | None:
        if value is None:  # none of these
            return None
        found = _shown(record, value, "/value")
        if self._spec.task == "classification":
            return target_value(found, self._spec)
        return label_key(found)  # an option's id, sent as a number

    def _category(self, value: str) -> str:
        known = self._spec.categories
        if value not in known:
            declared = f"Declared: {', '.join(known)}." if known else "None is: see `categories`."
            raise Invalid.at(
                "/value", f"is no declared category.{did_you_mean(value, known)} {declared}"
            )
        return value

    def _correction(self, value: Any, record: Prediction | None) -> Any:
        if self._spec.task == "generation":
            return value
        if self._spec.task == "ranking":
            return _option(value, record)
        return target_value(value, self._spec)


def _plain(signal: Any) -> Any:
    if isinstance(signal, Thumbs):
        return signal.value
    if isinstance(signal, Implicit):
        return {"event": signal.event, "value": signal.value}
    return {"rule": signal.rule, "severity": signal.severity, "detail": signal.detail}


def _rating(signal: Rating) -> dict[str, Any]:
    low, high = signal.scale
    if not low < high:
        raise Invalid.at("/scale", "is [low, high], the lower end first")
    if not low <= signal.value <= high:
        raise Invalid.at("/value", "is off its scale: see `scale`")
    return {"value": signal.value, "scale": [low, high]}


def _order(signal: Ranking, record: Prediction | None) -> list[str]:
    known = set(signal.value if record is None else _seen(record))
    left = set(known)
    for index, name in enumerate(signal.value):
        if name in left:
            left.remove(name)
        elif name in known:
            raise Invalid.at(f"/value/{index}", "stands there twice")
        else:
            _shown(record, name, f"/value/{index}")
    return signal.value


def _preference(signal: Preference, record: Prediction | None) -> dict[str, str]:
    if signal.chosen == signal.rejected:
        raise Invalid.at("/rejected", "is the chosen one itself")
    if record is None:  # between two predictions, for one
        return {"chosen": signal.chosen, "rejected": signal.rejected}
    return {
        "chosen": _shown(record, signal.chosen, "/chosen"),
        "rejected": _shown(record, signal.rejected, "/rejected"),
    }


def _seen(record: Prediction) -> list[str]:
    """Return what the user could choose from."""
    return [] if record.withheld else record.shown()


def _shown(record: Prediction | None, value: Label, place: str) -> Any:
    """Return what was shown under this name; raises `Invalid` with code `not_served`."""
    if record is None:
        return value
    shown = _seen(record)
    if label_key(value) in shown:
        return value
    raise Invalid.at(
        place,
        f"is none of the {len(shown)} that were shown to the user: GET /v1/predictions/{{id}} "
        "tells which",
        code="not_served",
    )


def _option(value: Any, record: Prediction | None) -> Any:
    """Return the option that a correction names (one of those shown), or brings along."""
    if isinstance(value, str):
        return _shown(record, value, "/value")
    if not isinstance(value, dict) or set(value) != {"id", "features"}:
        raise Invalid.at("/value", "send the right option: an id, or {id: ..., features: {...}}")
    if not isinstance(value["id"], str) or not isinstance(value["features"], dict):
        raise Invalid.at("/value", "an option has a text as its id, and an object of features")
    try:
        check_features(value["features"])
    except Invalid as error:
        raise error.under("value") from None
    return value


def _refuse_blocked(flags: list[Flag], place: str) -> None:
    for flag in flags:
        if flag.severity == "block":
            raise Invalid.at(
                place,
                f"is refused by the rule '{flag.rule}': take out what that is about, and send "
                "again",
                code="blocked_by_rule",
            )


def target_value(value: Any, spec: ModelSpec, place: str = "/value") -> Label | float:
    """Return a correction's value, or what stands at another place, as the model's task takes it.

    Raises
    ------
    Invalid
        Not a label of the closed set (by type as well: `"true"` is not `true`), or not a number.
    """
    if not isinstance(value, bool | int | float | str):
        raise Invalid.at(place, "must be the right label or number")
    if spec.task == "regression":
        if isinstance(value, bool | str):
            raise Invalid.at(place, "this model answers with numbers: send the right number")
        return float(value)
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise Invalid.at(place, f"a label is at most {MAX_TEXT} characters long")
    if isinstance(value, float):
        raise Invalid.at(place, "a label is a string, an integer or a boolean")
    if spec.labels is None:
        return value
    for label in spec.labels:
        if type(label) is type(value) and label == value:
            return label
    known = ", ".join(json.dumps(label) for label in spec.labels)
    raise Invalid.at(place, f"is not a label of this model: {known}")
