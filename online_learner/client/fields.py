"""What may be sent beside what is asked or said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class PredictFields(TypedDict, total=False):
    """Beside the features."""

    options: Sequence[Mapping[str, Any]]  # for a model that ranks: {"id", "features"} each
    top_k: int
    session_id: str
    user_id: str
    external_id: str
    tags: dict[str, str]


class LogFields(TypedDict, total=False):
    """Beside what was asked and answered elsewhere."""

    parameters: Mapping[str, Any]
    model_version: str
    latency_ms: float
    session_id: str
    user_id: str
    external_id: str
    observed_at: str
    once: bool  # not where an answer is known by this external_id
    dry_run: bool
    tags: dict[str, str]


class FeedbackFields(TypedDict, total=False):
    """Beside a signal."""

    user_id: str
    source: dict[str, str]
    idempotency_key: str
    model_version: int | str
    reasons: list[str]
    interface: dict[str, Any]
    comment: str
    observed_at: str
    tags: dict[str, str]
    dry_run: bool


class SignalFields(FeedbackFields, total=False):
    """Beside the kind and the value of a signal: the fields that only some kinds have."""

    scale: Sequence[float]
    chosen: str
    rejected: str
    rule: str
    severity: str
    detail: str
    event: str
