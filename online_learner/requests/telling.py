"""What is told: one thing or several about one answer, in every kind of explicit feedback."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError, create_model

from online_learner.errors import Invalid, ServiceError, did_you_mean, from_validation
from online_learner.requests.document import read_json
from online_learner.requests.values import (
    MAX_BATCH,
    MAX_NAME,
    MAX_OPTIONS,
    MAX_TEXT,
    Choice,
    Count,
    Finite,
    Json,
    Moment,
    Name,
    Request,
    Tags,
    VersionName,
)
from online_learner.schema import Severity

MAX_SIGNALS = 16  # of one answer, in one payload


class Source(Request):
    """Who says it."""

    type: Literal["human", "system", "model"] = "human"
    id: Name


class Interface(Request):
    """Where it was said, and in which place on the page."""

    id: Name
    variant: Name | None = None
    position: Count | None = None


class Signal(Request):
    """One thing that is said about an answer."""


class Thumbs(Signal):
    """Say that the answer is good, or bad."""

    kind: Literal["thumbs"]
    value: bool


class Rating(Signal):
    """Stars, or any number on a scale."""

    kind: Literal["rating"]
    value: Finite
    scale: Annotated[list[Finite], Field(min_length=2, max_length=2)] = Field(
        default_factory=lambda: [1.0, 5.0]
    )


class Correction(Signal):
    """The right answer: a label, a number, a text, an option with its features."""

    kind: Literal["correction"]
    value: Json


class Selection(Signal):
    """The option that the user took, out of those shown; null: none of these."""

    kind: Literal["selection"]
    value: Choice


class Preference(Signal):
    """One is better than the other: two option ids of this answer, or two prediction ids."""

    kind: Literal["preference"]
    chosen: Name
    rejected: Name


class Ranking(Signal):
    """An order over some or all of the options shown, best first."""

    kind: Literal["ranking"]
    value: Annotated[list[Name], Field(min_length=2, max_length=MAX_OPTIONS, fail_fast=True)]


class Category(Signal):
    """A label that the configuration declares: `helpful`, `off_topic`, ..."""

    kind: Literal["category"]
    value: Name


class FlagRaised(Signal):
    """A rule of the system says that the answer is not acceptable."""

    kind: Literal["flag"]
    rule: Name
    severity: Severity = "warn"
    detail: Annotated[str, Field(max_length=1024)] | None = None


class Implicit(Signal):
    """What a user did, not what they said: a click, seconds of reading, a purchase."""

    kind: Literal["implicit"]
    event: Name
    value: Finite | None = None


class FeedbackRequest(Request):
    """The fields that every kind of feedback has."""

    prediction_id: Annotated[str, Field(max_length=MAX_NAME)] | None = None
    model: Name | None = None  # with external_id or session_id
    external_id: Name | None = None
    session_id: Name | None = None
    idempotency_key: Name | None = None
    source: Source | None = None
    user_id: Name | None = None
    model_version: VersionName | None = None
    reasons: Annotated[list[Name], Field(max_length=32, default_factory=list)]
    interface: Interface | None = None
    comment: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    observed_at: Moment | None = None
    tags: Tags
    dry_run: bool = False

    def said(self) -> list[Any]:
        """Return the signals in it: itself, where it carries one of its own."""
        return [self]


KINDS: dict[str, type[Signal]] = {
    "thumbs": Thumbs,
    "rating": Rating,
    "correction": Correction,
    "selection": Selection,
    "preference": Preference,
    "ranking": Ranking,
    "category": Category,
    "flag": FlagRaised,
    "implicit": Implicit,
}


def _union(members: Iterable[Any]) -> Any:
    return Annotated[functools.reduce(operator.or_, members), Field(discriminator="kind")]


ONE: Any = _union(
    create_model(f"{kind.__name__}Feedback", __base__=(FeedbackRequest, kind), __doc__=kind.__doc__)
    for kind in KINDS.values()
)


Anything: TypeAlias = _union(KINDS.values())  # type: ignore[valid-type]


class SeveralSignals(FeedbackRequest):
    """Several things said of one answer at once: all are accepted, or none."""

    signals: Annotated[list[Anything], Field(min_length=1, max_length=MAX_SIGNALS)]

    def said(self) -> list[Any]:
        """Return the signals in it."""
        return list(self.signals)


_ONE: TypeAdapter[FeedbackRequest] = TypeAdapter(ONE)


def parse_feedback(body: bytes) -> FeedbackRequest:
    """Return what a body says; raises `Malformed` or `Invalid`, with every place named."""
    return read_feedback(read_json(body))


def read_feedback(document: Any) -> FeedbackRequest:
    """Return what a document says; raises as `parse_feedback` does."""
    try:
        return _ONE.validate_python(document)
    except ValidationError as error:
        return _other(error, document)


def _other(error: ValidationError, document: Any) -> FeedbackRequest:
    """Return several signals, where that is what was sent; else raise what is wrong with one."""
    if isinstance(document, dict) and not _is_kind(document.get("kind")):
        if "signals" not in document or "kind" in document:
            raise _unknown(document.get("kind")) from None
        try:
            return SeveralSignals.model_validate(document)
        except ValidationError as found:
            raise _of_several(found, document["signals"]) from None
    raise from_validation(error, ONE) from None


def _of_several(error: ValidationError, signals: Any) -> ServiceError:
    """Return what is wrong with several signals; a kind that is none is named as with one."""
    few = signals if isinstance(signals, list) and len(signals) <= MAX_SIGNALS else []
    for index, signal in enumerate(few):
        if isinstance(signal, dict) and not _is_kind(signal.get("kind")):
            return _unknown(signal.get("kind")).under("signals", index)
    return from_validation(error, SeveralSignals)


def _is_kind(kind: Any) -> bool:
    return isinstance(kind, str) and kind in KINDS


def _unknown(kind: Any) -> Invalid:
    known = f"send one of {', '.join(KINDS)}"
    if not isinstance(kind, str):
        return Invalid.at("/kind", f"names the kind of feedback: {known}")
    hint = did_you_mean(kind, KINDS)
    message = f"is no kind of feedback: {known}.{hint}"
    return Invalid.at("/kind", message, code="kind_not_applicable")


class FeedbackBatchRequest(Request):
    """Several payloads in one call; each is accepted or refused by itself."""

    items: Annotated[list[Any], Field(min_length=1, max_length=MAX_BATCH)]
