"""`GET /v1/models/{model}/metrics`: how much, how fast, how good, and what was lost on the way."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel

from online_learner.auth import Credential
from online_learner.metrics.report import report
from online_learner.metrics.series import MINUTES_S, SECONDS_S
from serve_app.access import allowed

Reader = Annotated[Credential, allowed("read")]
WindowS = Annotated[float, Query(ge=1, le=MINUTES_S)]


class Rates(BaseModel):
    """How much there was, on average."""

    predictions_per_s: float
    feedback_per_min: float


class Delay(BaseModel):
    """Milliseconds that half of them, and 99 of 100, do not exceed; within 9 %."""

    p50: float
    p99: float


class Latency(Delay):
    """And of how many."""

    count: int


class Latencies(BaseModel):
    """Of answers; to what is said of them; to the commit; to weights that answer."""

    predict: Latency | None
    join: Latency | None
    learn: Latency | None
    loop: Latency | None


class FunnelStage(BaseModel):
    """How many signals came so far, and how many did not, by reason."""

    stage: str
    count: int
    lost: dict[str, int]
    delay_ms: Delay | None


class Score(BaseModel):
    """A mean, and bounds for it (95 %): at one look, or at all points of one curve."""

    n: int
    score: float
    low: float
    high: float


class RoleScore(Score):
    """Of one role; `version` is null for the learner's newest step."""

    version: int | None


class ScorePoint(Score):
    """A running score, after the answer given at `at`."""

    at: float
    role: str


class Mark(BaseModel):
    """A decision that moved something."""

    at: float
    action: str
    version: int | None
    sentence: str


class Scores(BaseModel):
    """How good the roles are on audited answers, each predicted before it was scored."""

    metric: str
    roles: dict[str, RoleScore]
    points: list[ScorePoint]
    marks: list[Mark]


class Figures(BaseModel):
    """How good one role is. What is not known is null.

    `accuracy` is the mean since the tests began anew (closeness for numbers, agreement for orders);
    its bounds hold at every look at once. `recent` is that of the last 500 settled audits, and of
    `decayed` half fades within 500, each with bounds for one look; the others fade likewise.
    """

    accuracy: Score | None
    recent: Score | None
    decayed: Score | None
    log_loss: float | None
    calibration_error: float | None
    macro_f1: float | None


class Baselines(BaseModel):
    """What guessing would do: the last right label that was known, or the most frequent one."""

    no_change: Figures
    majority: Figures


class SegmentScore(Score):
    """The champion's mean where a segment has a value; of late it is `decayed`."""

    decayed: float | None


class Opinion(BaseModel):
    """What people say, 0 to 1: all sayings alike, and (`corrected`) all raters alike; of late."""

    raw: Score | None
    corrected: Score | None


class Opinions(BaseModel):
    """Thumbs that are up, and ratings as shares of their scale."""

    thumbs_up: Opinion
    mean_rating: Opinion


class Estimates(BaseModel):
    """How often the champion is right, as told by those who speak, corrected, and by audits."""

    volunteered: Score | None
    corrected: Score | None
    audited: Score | None


class Quality(BaseModel):
    """How good the answers are, as it goes on: of each role, by settled audits; and what is said.

    A generation begins whenever the reference of the tests changes. `estimates` correct for who
    speaks and who does not; see the `response` of `/bias`.
    """

    generation: int
    roles: dict[str, Figures]
    baselines: Baselines
    segments: dict[str, dict[str, SegmentScore]]
    said: Opinions
    estimates: Estimates


class CalibrationBin(BaseModel):
    """Answers that were so sure, and the share of them that was right."""

    low: float
    high: float
    count: int
    mean_score: float
    share_right: float


class Calibration(BaseModel):
    """Whether the champion is right as often as it is sure; `error` is the mean gap."""

    n: int
    error: float
    bins: list[CalibrationBin]


class ScoreBin(BaseModel):
    """How many answers were so sure."""

    low: float
    high: float
    count: int


class Detector(BaseModel):
    """How much evidence there is that the anchor is better, and at which the leash is pulled."""

    log10: float | None
    limit_log10: float


class Share(BaseModel):
    """Of one label among the champion's answers."""

    recent: float
    long_run: float


class Drift(BaseModel):
    """How it goes of late, against the long run."""

    recent: Score | None
    long_run: Score | None
    detector: Detector | None
    outputs: dict[str, Share]


class Series(BaseModel):
    """Counts over time, in steps of `step_s` that begin at `at`."""

    step_s: int
    at: list[float]
    predictions: list[int]
    feedback: list[int]
    learned: list[int]


class ModelMetrics(BaseModel):
    """One model at a glance. Times are in seconds since 1970."""

    model: str
    at: float
    window_s: float
    rates: Rates
    latency_ms: Latencies
    funnel: list[FunnelStage]
    kinds: dict[str, int]
    implicit: dict[str, int]
    score: Scores
    quality: Quality | None
    calibration: Calibration | None
    scores: list[ScoreBin] | None
    drift: Drift | None
    series: Series


def add_metrics(app: FastAPI) -> None:
    """Add the route."""

    @app.get("/v1/models/{model}/metrics", response_model=ModelMetrics)
    async def metrics(
        _: Reader, request: Request, model: str, window_s: WindowS = SECONDS_S
    ) -> dict[str, Any]:
        """Tell how much, how fast and how good, and what was lost on the way."""
        room = request.app.state.service.room(model)
        return await report(room.registry, room.spec, window_s=window_s, now=time.time())
