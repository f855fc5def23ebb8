"""What clients send. An unknown key is refused, numbers are finite and bounded, text is bounded."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from online_learner.errors import Invalid, json_pointer

MAX_MAGNITUDE = 1e15  # a single 1e308 ruins a linear model for good
MAX_FEATURES = 10_000
MAX_TEXT = 65_536


def _check_features(features: dict[str, Any]) -> dict[str, Any]:
    if len(features) > MAX_FEATURES:
        raise Invalid.at("/features", f"at most {MAX_FEATURES} features are taken")
    for name, value in features.items():
        if not _is_utf8(name):
            raise Invalid.at("/features", "a name is not valid Unicode: half a surrogate pair")
        kind = type(value)
        if kind is float or kind is int:
            if not abs(value) <= MAX_MAGNITUDE:  # refuses NaN as well
                raise _bad(name, f"must be a finite number within ±{MAX_MAGNITUDE:g}")
        elif kind is str:
            if len(value) > MAX_TEXT:
                raise _bad(name, f"text is longer than {MAX_TEXT} characters")
            if not _is_utf8(value):
                raise _bad(name, "is not valid Unicode: half a surrogate pair")
        elif kind is not bool:
            raise _bad(name, "must be a number, a string or a boolean")
    return features


def _is_utf8(text: str) -> bool:
    # Python's own JSON parser lets "\ud800" pass, and then no encoder takes it.
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad(feature: str, message: str) -> Invalid:
    return Invalid.at(json_pointer("features", feature), message)


def _check_value(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise Invalid.at("/value", "must be the right label or number")
    if not isinstance(value, str) and not abs(value) <= MAX_MAGNITUDE:
        raise Invalid.at("/value", f"must be a finite number within ±{MAX_MAGNITUDE:g}")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise Invalid.at("/value", f"text is longer than {MAX_TEXT} characters")
    if isinstance(value, str) and not _is_utf8(value):
        raise Invalid.at("/value", "is not valid Unicode: half a surrogate pair")
    return value


Features: TypeAlias = Annotated[dict[str, Any], AfterValidator(_check_features)]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]


class Request(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# --- predictions ------------------------------------------------------------------------------


class PredictRequest(Request):
    """Ask for one answer."""

    features: Features
    top_k: Annotated[int, Field(ge=1, le=1000)] | None = None
    session_id: Name | None = None
    user_id: Name | None = None
    external_id: Name | None = None
    tags: dict[Name, Name] = Field(default_factory=dict)


class PredictBatchRequest(Request):
    """Ask for several answers in one call; each instance succeeds or fails by itself."""

    instances: Annotated[list[JsonValue], Field(min_length=1, max_length=1024)]


# --- feedback ---------------------------------------------------------------------------------


class Source(Request):
    """Who says it."""

    type: Literal["human", "system", "model"] = "human"
    id: Name


class Interface(Request):
    """Where it was said, and in which place on the page."""

    id: Name
    variant: Name | None = None
    position: int | None = None


class FeedbackRequest(Request):
    """The fields that every kind of feedback has."""

    prediction_id: str
    idempotency_key: Name | None = None
    source: Source | None = None
    user_id: Name | None = None
    model_version: int | None = None
    reasons: Annotated[list[Name], Field(max_length=32, default_factory=list)]
    interface: Interface | None = None
    comment: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    observed_at: Annotated[str, Field(max_length=64)] | None = None
    tags: dict[Name, Name] = Field(default_factory=dict)
    dry_run: bool = False


class Thumbs(FeedbackRequest):
    """Say that the answer is good, or bad."""

    kind: Literal["thumbs"]
    value: bool


class Correction(FeedbackRequest):
    """The right answer: a label, or a number."""

    kind: Literal["correction"]
    value: Annotated[Any, AfterValidator(_check_value)]


Signal: TypeAlias = Annotated[Thumbs | Correction, Field(discriminator="kind")]
SIGNAL: TypeAdapter[Thumbs | Correction] = TypeAdapter(Signal)
KINDS = ("thumbs", "correction")


class FeedbackBatchRequest(Request):
    """Several signals in one call; each is accepted or refused by itself."""

    items: Annotated[list[JsonValue], Field(min_length=1, max_length=1024)]
