"""What comes back: answers, and receipts for what was said about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypedDict, TypeVar, Unpack

from online_learner.client.errors import ApiError, PredictionGone, api_error
from online_learner.schema import Output

R = TypeVar("R")  # a Receipt, or the promise of one


class PredictFields(TypedDict, total=False):
    """What may be sent beside the features."""

    top_k: int
    session_id: str
    user_id: str
    external_id: str
    tags: dict[str, str]


class FeedbackFields(TypedDict, total=False):
    """What may be sent beside kind and value."""

    user_id: str
    source: dict[str, str]
    idempotency_key: str
    model_version: int
    reasons: list[str]
    interface: dict[str, Any]
    comment: str
    observed_at: str
    tags: dict[str, str]
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Answer(Generic[R]):
    """One answer, and the way to say what is right or wrong about it.

    Attributes
    ----------
    prediction_id
        Signed; opens this answer for feedback. None where the service answered without a log.
    version, step
        Which snapshot answered, and at which commit of the learner.
    output
        The label, or the number.
    scores
        Probabilities by label; empty for regression.
    asked
        Whether the service would like the right answer.
    feedback_expires_at
        Until when feedback is taken, RFC 3339.
    raw
        The reply as it came.
    """

    prediction_id: str | None
    model: str
    version: int
    step: int
    output: Output
    scores: Mapping[str, float] = field(hash=False)
    uncertainty: float
    asked: bool
    feedback_expires_at: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    _say: Callable[..., R] = field(repr=False, compare=False)

    @classmethod
    def read(cls, say: Callable[..., R], reply: Mapping[str, Any]) -> Answer[R]:
        """Return the answer in a reply; `say` is the client's `feedback`."""
        return cls(
            prediction_id=reply["prediction_id"],
            model=reply["model"],
            version=reply["version"],
            step=reply["step"],
            output=reply["output"],
            scores=reply["scores"],
            uncertainty=reply["uncertainty"],
            asked=reply["ask"] is not None,
            feedback_expires_at=reply["feedback_expires_at"],
            raw=reply,
            _say=say,
        )

    def correct(self, value: Output, **fields: Unpack[FeedbackFields]) -> R:
        """Say what the right answer is."""
        return self._say(self._id(), "correction", value, **fields)

    def thumbs(self, *, up: bool, **fields: Unpack[FeedbackFields]) -> R:
        """Say whether the answer is good, without saying which one would be."""
        return self._say(self._id(), "thumbs", up, **fields)

    def _id(self) -> str:
        if self.prediction_id is None:
            detail = "this answer was given while its log was away: it takes no feedback"
            raise PredictionGone({"status": 404, "code": "not_logged", "detail": detail})
        return self.prediction_id


@dataclass(frozen=True, slots=True)
class Receipt:
    """Acknowledges one signal.

    Attributes
    ----------
    status
        `accepted`, or `duplicate`: it had been accepted before, and is learned once.
    durability
        What the signal survives: `fsynced` (a power cut), `os` (kill -9 of the store, not a power
        cut), `none`, or `unknown`.
    """

    feedback_id: str | None
    prediction_id: str
    model: str
    status: str
    durability: str

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> Receipt:
        """Return the receipt in a reply."""
        return cls(
            feedback_id=reply["feedback_id"],
            prediction_id=reply["prediction_id"],
            model=reply["model"],
            status=reply["status"],
            durability=reply["durability"],
        )


@dataclass(frozen=True, slots=True)
class BatchReceipt:
    """Acknowledges several signals, each by itself; errors stand in their places."""

    accepted: int
    duplicates: int
    rejected: int
    results: tuple[Receipt | ApiError, ...]

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> BatchReceipt:
        """Return the receipts in a reply."""
        results = tuple(
            Receipt.read(item) if "durability" in item else api_error(item)
            for item in reply["results"]
        )
        return cls(reply["accepted"], reply["duplicates"], reply["rejected"], results)


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a signal.

    Attributes
    ----------
    status
        `accepted` (not learned yet), `learned`, `quarantined` or `rolled_back`.
    reason
        Why it was set aside.
    lineage, step
        The commit of the learner that learned it.
    """

    feedback_id: str
    status: str
    reason: str | None
    lineage: int | None
    step: int | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> Fate:
        """Return the fate in a reply."""
        return cls(
            feedback_id=reply["feedback_id"],
            status=reply["status"],
            reason=reply.get("reason"),
            lineage=reply.get("lineage"),
            step=reply.get("step"),
            raw=reply,
        )
