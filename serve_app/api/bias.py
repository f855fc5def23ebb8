"""`GET /v1/models/{model}/bias` and `.../alarms`: what those who look on have found.

A report is made by an observer, possibly one of a team's own. What it says beyond the fields here
is passed on; where it is of another form altogether, it is passed on as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from online_learner import explain
from online_learner.auth import Credential
from online_learner.schema import Raised
from serve_app.access import allowed

Reader = Annotated[Credential, allowed("read")]
Count = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str, Query(pattern=r"^[0-9]{1,15}-[0-9]{1,15}$")]
Number: TypeAlias = int | float  # a count; where what is counted is weighed, it is no integer


class Told(BaseModel):
    """What an observer reports: fields that are not known here are passed on."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Rate(Told):
    """Of `n` trials `k` came out so: their share, and bounds for it (95 %)."""

    n: Number = 0
    k: Number = 0
    share: float | None = None
    low: float | None = None
    high: float | None = None


class RateOf(Rate):
    """A rate where something has a value."""

    value: str | int | float | bool | None = None


class RateBetween(Rate):
    """A rate where the score of the answer lies between two; null is without bound."""

    score_low: float | None = None
    score_high: float | None = None


class Estimate(Told):
    """How often answers are right, by some of those who say so, and bounds for it (95 %)."""

    n: Number = 0
    score: float | None = None
    low: float | None = None
    high: float | None = None


class Weighing(Told):
    """Whether a correction is in force, and why: how raw and corrected did where it is known.

    `raw` and `corrected` are mean scores on audits, or on planted questions; `log10_e` is the
    evidence that the corrected ones are better, and `needed_log10_e` at which it is switched on.
    """

    mode: str = "auto"
    on: bool = False
    n: Number = 0
    raw: float | None = None
    corrected: float | None = None
    log10_e: float | None = None
    needed_log10_e: float | None = None
    sentence: str = ""


# --- who answers ------------------------------------------------------------------------------


class Responses(Told):
    """How often people speak up, by what they were shown."""

    score: list[RateBetween] = []
    output: list[RateOf] = []
    asked: list[RateOf] = []
    segment: dict[str, list[RateOf]] = {}
    interface: list[RateOf] = []
    position: list[RateOf] = []


class Estimates(Told):
    """How often answers are right: as volunteers say, corrected for who speaks, and as audited."""

    volunteered: Estimate | None = None
    corrected: Estimate | None = None
    audited: Estimate | None = None


class Odds(Told):
    """How much more readily people speak of the worst answers than of the best, with bounds."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Silence(Told):
    """What is known of those who are silent for how good an answer was; `odds` null: nothing."""

    odds: Odds | None = None
    sentence: str = ""


class ResponseReport(Told):
    """Who speaks, and what follows for what they say."""

    rate: Rate = Rate()
    by: Responses = Responses()
    estimates: Estimates = Estimates()
    silence: Silence | None = None
    weighing: Weighing = Weighing()


# --- whom to believe --------------------------------------------------------------------------


class RaterRow(Told):
    """One rater: how often they agree with others and with planted questions, and what they weigh.

    `leniency` is by how much their ratings are above those of others, `slope` how theirs move with
    those of others: below zero they read the scale upside down, and are `inverted`.
    """

    rater: str = ""
    signals: Number = 0
    agreement: Rate | None = None
    gold: Rate | None = None
    weight: float | None = None
    leniency: float | None = None
    slope: float | None = None
    inverted: bool = False


class RatersReport(Told):
    """The raters who say most, and how many others there are."""

    raters: list[RaterRow] = []
    others: int = 0
    weighing: Weighing = Weighing()


class EventRow(Told):
    """One implicit event: how often it agrees with what the same people say in words."""

    event: str = ""
    n: Number = 0
    with_explicit: Number = 0
    agreement: Rate | None = None
    expected: float | None = None
    verdict: str = ""


class ImplicitReport(Told):
    """What users do, against what they say; `weight` is what a lesson of it weighs."""

    weight: float | None = None
    events: list[EventRow] = []
    sentence: str = ""


# --- what has moved ---------------------------------------------------------------------------


class WatchedRow(Told):
    """A series that is watched for change: its mean over the window that the detector keeps."""

    what: str = ""
    n: Number = 0
    mean: float | None = None
    width: float | None = None
    alarms: Number = 0
    last_at_ms: float | None = None


class DriftReport(Told):
    """What is watched, and what follows from alarms now."""

    watched: list[WatchedRow] = []
    effects: dict[str, Any] = Field({}, description="By name; `until_ms` is when they end.")
    false_alarms_per_100000: float | None = None


class PlaceRow(Told):
    """How the scores of one set of weights are scaled, and what that does on audited answers."""

    place: str = ""
    n: Number = 0
    slope: float | None = None
    shifts: dict[str, float] = {}
    raw_error: float | None = None
    error: float | None = None
    raw_log_loss: float | None = None
    log_loss: float | None = None
    on: bool = False


class ReliabilityBin(Told):
    """Answers that were so sure, and the share of them that was right."""

    low: float = 0
    high: float = 1
    count: Number = 0
    mean_score: float | None = None
    share_right: float | None = None


class Reliability(Told):
    """Whether answers are right as often as they are sure; `error` is the mean gap."""

    n: Number = 0
    error: float | None = None
    bins: list[ReliabilityBin] = []


class ScoresReport(Told):
    """How scores are made to mean what they say, and whether those that are served do.

    `raw` is of the same answers, as the models scored them.
    """

    places: list[PlaceRow] = []
    served: Reliability | None = None
    raw: Reliability | None = None
    weighing: Weighing | None = None


REPORTS: dict[str, type[Told]] = {
    "response": ResponseReport,
    "raters": RatersReport,
    "implicit": ImplicitReport,
    "drift": DriftReport,
    "scores": ScoresReport,
}


class Bias(BaseModel):
    """What is known of those who speak and those who are silent.

    A section is null where nobody looks for that, or nothing was found yet. Times are in seconds
    since 1970, but for those that say `_ms`.
    """

    model: str
    at: float | None = Field(description="When it was written; null before the first time.")
    window_s: float = Field(description="How long after an answer it was looked at who had spoken.")
    seen: int = Field(description="Answers that were looked at.")
    weighs: list[str] = Field(description="Observers by whose word lessons are weighed now.")
    ask: float = Field(description="By which the budget of questions is multiplied now.")
    response: ResponseReport | dict[str, Any] | None
    raters: RatersReport | dict[str, Any] | None
    implicit: ImplicitReport | dict[str, Any] | None
    drift: DriftReport | dict[str, Any] | None
    scores: ScoresReport | dict[str, Any] | None


class AlarmEntry(Raised):
    """An alarm, and its place in the log."""

    id: str


class Alarms(BaseModel):
    """What observers raised. Nothing was decided by it; `effects` are what follows by policy."""

    alarms: list[AlarmEntry]


def read_report(kind: type[Told], report: Any) -> dict[str, Any] | None:
    """Return a report with every field of its kind; None where it is of another form."""
    try:
        return kind.model_validate(report).model_dump()
    except ValidationError:
        return None


def complete(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `explain.bias` does, with every field of each section that is of our form."""
    told = dict(found)
    for name, kind in REPORTS.items():
        if told[name] is not None:
            told[name] = read_report(kind, told[name]) or told[name]
    return told


def add_bias(app: FastAPI) -> None:
    """Add the routes."""

    @app.get("/v1/models/{model}/bias")
    async def bias(_: Reader, request: Request, model: str) -> dict[str, Any]:
        """Tell who speaks and who is silent, whom to believe, and what has moved."""
        room = request.app.state.service.room(model)
        return complete(await explain.bias(room.registry, room.spec))

    @app.get("/v1/models/{model}/alarms")
    async def alarms(
        _: Reader, request: Request, model: str, count: Count = 100, after: After | None = None
    ) -> dict[str, Any]:
        """List the newest alarms of observers; or all after an id, oldest first."""
        room = request.app.state.service.room(model)
        return {"alarms": await explain.alarms(room.registry, count=count, after=after)}
