"""What is replied, as `/openapi.json` tells it. Nothing is checked against it while it serves.

Fields with a default are left out where there is nothing to tell.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, JsonValue

from online_learner.schema import (
    Aliases,
    Flag,
    Label,
    Prediction,
    Settled,
    Task,
    Trained,
    Verdict,
    Version,
    Weighed,
)
from online_learner.store import Durability


class ErrorItem(BaseModel):
    """One place of a body that is wrong; the pointer ends before a key that is not one of ours."""

    pointer: str
    code: str
    message: str


class Problem(BaseModel):
    """An error (RFC 9457). It repeats nothing of what was sent."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[ErrorItem]
    retryable: bool
    request_id: str
    retry_after_s: int | None = None  # there with a Retry-After


# --- answers ----------------------------------------------------------------------------------


class AskInfo(BaseModel):
    """Why a label is asked for; without scope `read` the reason is `label`, and nothing more."""

    reason: Literal["audit", "uncertain", "label"]
    probability: float | None


class RankedOption(BaseModel):
    """One option of a ranking, in the order shown."""

    id: str
    score: float
    probability: float
    propensity: float


class PredictResponse(BaseModel):
    """One answer. `prediction_id` is null where it could not be logged (`on_store_down`).

    `known` tells that it had been logged before, by an answer that is logged `once`.
    """

    prediction_id: str | None
    model: str
    version: int
    step: int
    role: str
    output: JsonValue
    scores: dict[str, float]
    uncertainty: float
    propensity: float
    ask: AskInfo | None
    flags: list[Flag]
    blocked: bool
    feedback_expires_at: str | None
    ranking: list[RankedOption] = []
    model_version: str = ""
    known: bool = False


class LogBatchResponse(BaseModel):
    """Answers in the order in which they were sent; an error stands in its place."""

    answers: list[PredictResponse | Problem]


class PredictBatchResponse(BaseModel):
    """Answers in the order of the instances; an error stands in its place."""

    predictions: list[PredictResponse | Problem]


class ScoreResponse(BaseModel):
    """Rewards in the order of the outputs."""

    model: str
    version: int
    step: int
    rewards: list[float]


# --- feedback ---------------------------------------------------------------------------------


class SignalReceipt(BaseModel):
    """One of several signals."""

    kind: str
    feedback_id: str | None
    status: str


class FeedbackReceipt(BaseModel):
    """A receipt: what was said is as durable as it says. A dry run has no `feedback_id`.

    `archived_only`: the window of the answer has passed. What is said of it goes into datasets, and
    alters no weights.
    """

    feedback_id: str | None
    prediction_id: str
    model: str
    status: str
    durability: Durability
    signals: list[SignalReceipt] = []


class FeedbackBatchResponse(BaseModel):
    """Receipts in the order of the items; an error stands in its place."""

    accepted: int
    duplicates: int
    rejected: int
    results: list[FeedbackReceipt | Problem]


class ServedBy(BaseModel):
    """The first answer that rests on a signal."""

    version: int
    step: int
    at: float


class ReleasedBy(BaseModel):
    """Who had a signal learned after all."""

    by: str
    reason: str
    at: float
    waiting: bool


class TakenBackBy(BaseModel):
    """Who took a signal back."""

    by: str
    reason: str
    at: float


class UnlearnedBy(BaseModel):
    """The commit from which on a signal is in no weights any more."""

    lineage: int
    step: int
    at: float


class FeedbackOutcome(BaseModel):
    """What became of a signal; `was` is what it would be, had it not been taken back."""

    status: Literal[
        "accepted", "learned", "kept", "quarantined", "rolled_back", "archived_only", "retracted"
    ]
    was: str = ""
    unlearned: Literal["pending", "done", "nothing", "impossible"] | None = None
    reason: str = ""
    lineage: int = 0
    step: int = 0
    learned_at: float = 0.0
    version: int | None = None
    weighed: Weighed | None = None
    served: ServedBy | None = None


class FeedbackStatus(FeedbackOutcome):
    """A signal, and what became of it."""

    feedback_id: str
    model: str
    durability: Durability
    feedback: dict[str, JsonValue]
    supersedes: str | None
    superseded_by: str | None
    released: ReleasedBy | None = None
    archived: bool = False  # it has left the store, and is told from the archive
    retracted: TakenBackBy | None = None
    unlearned_by: UnlearnedBy | None = None
    unlearned_why: str = ""


class FeedbackItem(FeedbackOutcome):
    """A signal in a list; `released` tells whether its release waits for the learner."""

    feedback_id: str
    prediction_id: str
    kind: str
    value: JsonValue
    source: str
    comment: str | None
    at: float
    decided_at: float | None
    released: bool


class FeedbackPage(BaseModel):
    """Signals, oldest first; `next` is where to go on."""

    feedback: list[FeedbackItem]
    next: str | None


class QuarantinePage(BaseModel):
    """What was set aside or rolled back, oldest first; `next` is where to go on."""

    quarantine: list[FeedbackItem]
    next: str | None


class PredictionFeedbackItem(FeedbackOutcome):
    """A signal about one answer, and what became of it."""

    feedback_id: str
    kind: str
    value: JsonValue
    source: str
    supersedes: str | None
    released: ReleasedBy | None = None


class PredictionDetail(BaseModel):
    """One answer, what was said of it, and why its version was live."""

    prediction: Prediction
    feedback: list[PredictionFeedbackItem]
    learned_by: list[int]
    live_because: Verdict | None
    archived: bool = False  # it has left the store, and is told from the archive
    incomplete: str = ""  # what of it cannot be told, and why
    trained: Trained | None


# --- models -----------------------------------------------------------------------------------


class Memory(BaseModel):
    """How full the store is."""

    used_bytes: int
    limit_bytes: int
    state: Literal["ok", "tight", "full"]


class StoreStatus(BaseModel):
    """What the store promises."""

    durability: Durability
    durability_reason: str
    durability_cure: str = ""
    eviction: str = ""
    memory: Memory | None


class ModelReadiness(BaseModel):
    """What of one model is there."""

    weights: bool
    learner: bool
    gatekeeper: bool


class Readiness(StoreStatus):
    """What readiness rests on."""

    ready: bool
    models: dict[str, ModelReadiness]
    refused: list[str] = []  # states that are not taken: changed, or written with another secret


class Liveness(BaseModel):
    """The process serves."""

    live: Literal[True]


class Heartbeat(BaseModel):
    """When a writer last showed that it is alive."""

    pid: int
    age_s: float
    trouble: str = ""  # why it cannot go on


class GateStatus(BaseModel):
    """How many audits have settled, and what is under test."""

    answered: int
    unanswered: int
    tests: list[dict[str, JsonValue]]


class ModelSummary(BaseModel):
    """Who answers, what is tested, how far the learner is; little before the model is founded."""

    model: str
    task: Task
    labels: list[Label] | None  # a closed set; None where they are learned as they come
    ready: bool
    version: int = 0
    step: int = 0
    untrained: bool = False
    aliases: Aliases | None = None
    learned: int = 0
    state_digest: str | None = None
    differs: int | None = None  # step from which on the weights are not those recorded
    lag_ms: int = 0
    gate: GateStatus | None = None
    trimmed: dict[str, str] = {}
    learner: Heartbeat | None = None
    gatekeeper: Heartbeat | None = None


class ModelStatus(ModelSummary, StoreStatus):
    """One model, and what the store promises."""


class Models(StoreStatus):
    """All models."""

    models: list[ModelSummary]


class Versions(BaseModel):
    """Kept snapshots, oldest first."""

    versions: list[Version]


class VerdictEntry(Verdict):
    """A decision, and its place in the log."""

    id: str


class Verdicts(BaseModel):
    """Decisions."""

    verdicts: list[VerdictEntry]


class EvidenceEntry(Settled):
    """A settled audit, and its place in the log."""

    id: str


class Evidence(BaseModel):
    """Settled audits, oldest first."""

    evidence: list[EvidenceEntry]


class AliasesResponse(BaseModel):
    """Who answers now, or would, and the verdict that is in the log of it."""

    dry_run: bool
    aliases: Aliases
    verdict: Verdict


class ReleaseResponse(BaseModel):
    """What is learned after all, or would be."""

    dry_run: bool
    released: int
    feedback_ids: list[str]
