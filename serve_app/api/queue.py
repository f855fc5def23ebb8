"""The queue: what waits for a label, leases on it, and questions that an operator plants.

Leasing takes the scope `label`, and the lane of audits `audit` as well: who knew which answers
are evidence could answer those otherwise. Why one of the others is asked about is told to nobody.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, Field

from online_learner.auth import Credential
from online_learner.errors import Invalid
from online_learner.ids import Address
from online_learner.queue import (
    ASK,
    AUDIT,
    LANES,
    LEASE_S,
    MOST_LEASED,
    MOST_S,
    Lane,
    Queue,
    plant,
)
from online_learner.requests import PredictRequest
from online_learner.requests import Request as Schema
from online_learner.requests.values import MAX_NAME, Json, Name
from online_learner.schema import Label, Output, Task
from online_learner.stages import Stages
from serve_app.access import allowed
from serve_app.http import body_of, off_loop, parse
from serve_app.service import Service

Auditor = Annotated[Credential, allowed("audit")]
Labeller = Annotated[Credential, allowed("label")]
Operator = Annotated[Credential, allowed("operate")]
Count = Annotated[int, Query(ge=1, le=1000)]
Which: TypeAlias = Literal["audit", "ask", "any"]
Id = Annotated[str, Field(max_length=MAX_NAME)]
Ids = Annotated[list[Id], Field(max_length=MOST_LEASED)]


class LeaseRequest(Schema):
    """How many, of which lane, for how long, and who labels: as `user_id` names them later.

    With `prediction_ids`, these alone, and for longer those that are leased already.
    """

    count: Annotated[int, Field(ge=1, le=MOST_LEASED)] = 20
    lane: Which = "any"
    seconds: Annotated[float, Field(ge=1, le=MOST_S)] = LEASE_S
    rater: Name | None = None
    prediction_ids: Ids | None = None


class SkipRequest(Schema):
    """What is given back, by whom, and whether they may be given it `again`."""

    prediction_ids: Ids
    rater: Name | None = None
    again: bool = False


class GoldRequest(PredictRequest):
    """A question, as for `predict`, and its right answer, as in a correction."""

    value: Json


class QueueItem(BaseModel):
    """An answer that waits for a label. Times are in seconds since 1970."""

    prediction_id: str
    features: dict[str, Any]
    options: list[dict[str, Any]]
    output: Output
    lane: Lane
    asked_at: float
    expires_at: float
    leased_until: float | None


class Waiting(BaseModel):
    """Answers that wait for a label."""

    lane: Which
    queue: list[QueueItem]


class Leased(Waiting):
    """Answers to label, and what a label may be: without a closed set, they are learned."""

    task: Task
    labels: list[Label] | None


class GivenBack(BaseModel):
    """How many of them were leased."""

    given_back: int


class Gold(BaseModel):
    """A question that was planted: what the model answered, and until when it is asked."""

    prediction_id: str
    feedback_id: str
    output: Output
    open_until: float


def add_queue(app: FastAPI) -> None:
    """Add the routes."""

    @app.get("/v1/models/{model}/queue")
    async def queue(
        _: Auditor, request: Request, model: str, lane: Which, count: Count = 20
    ) -> dict[str, Any]:
        """List answers that wait for a label: those that the gate needs, and those asked about."""
        found = queue_of(_service(request).room(model))
        lanes = LANES if lane == "any" else (lane,)
        return {"lane": lane, "queue": await found.waiting(lanes, count=count)}

    @app.post("/v1/models/{model}/queue/lease")
    async def lease(who: Labeller, request: Request, model: str) -> dict[str, Any]:
        """Take answers to label: nobody else is given them until the lease runs out."""
        service = _service(request)
        room = service.room(model)
        body = parse(LeaseRequest, await body_of(request) or b"{}")
        lanes, found = _lanes(who, body.lane), queue_of(room)
        how: dict[str, Any] = {"holder": holder(who, body.rater), "seconds": body.seconds}
        # Whoever names nobody is the application: no rater, of whom it would tell anything.
        how["gold"] = body.rater is not None and "audit" not in who.scopes
        if body.prediction_ids is None:
            items = await found.lease(lanes, count=body.count, **how)
        else:
            addresses = _addresses(service, room, body.prediction_ids)
            items = await found.renew(addresses, lanes, **how)
        task, labels = room.spec.task, room.spec.labels
        return {"lane": body.lane, "task": task, "labels": labels, "queue": items}

    @app.post("/v1/models/{model}/queue/skip")
    async def skip(who: Labeller, request: Request, model: str) -> dict[str, Any]:
        """Give answers back unlabelled: never to be given them again, or `again` where said so."""
        service = _service(request)
        room = service.room(model)
        body = parse(SkipRequest, await body_of(request) or b"{}")
        addresses = _addresses(service, room, body.prediction_ids)
        by = holder(who, body.rater)
        had = await queue_of(room).give_back(addresses, holder=by, again=body.again)
        return {"given_back": had}

    @app.post("/v1/models/{model}/gold", status_code=201)
    async def gold(who: Operator, request: Request, model: str) -> dict[str, Any]:
        """Plant a question with its right answer: what raters say of it tells about them."""
        service = _service(request)
        room = service.room(model)
        body = await off_loop(lambda sent: parse(GoldRequest, sent), await body_of(request))
        done = await plant(room, service.ingest, body, body.value, by=who.name)
        return {
            "prediction_id": done.prediction_id,
            "feedback_id": done.feedback_id,
            "output": done.output,
            "open_until": done.open_until,
        }


def queue_of(room: Stages) -> Queue:
    """Return the queue of a model."""
    return Queue(room.registry, room.spec, room.window_s, clock=room.clock, inputs=room.inputs)


def holder(who: Credential, rater: str | None = None) -> str:
    """Return who labels, as what they say is attributed: to a rater, or to the key's holder."""
    return f"key:{who.name}" if rater is None else f"human:{rater}"


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _lanes(who: Credential, lane: Which) -> tuple[Lane, ...]:
    """Return the lanes that a key may label in, of those asked for.

    Raises
    ------
    Forbidden
        The lane of audits, and the key is no auditor's.
    """
    if lane == AUDIT:
        who.require("audit")
        return (AUDIT,)
    return LANES if lane == "any" and "audit" in who.scopes else (ASK,)


def _addresses(service: Service, room: Stages, ids: list[str]) -> list[Address]:
    found = []
    for place, prediction_id in enumerate(ids):
        its, address = service.open_id("prediction", prediction_id)
        if its is not room:
            raise Invalid.at(f"/prediction_ids/{place}", "is of another model")
        found.append(address)
    return found
