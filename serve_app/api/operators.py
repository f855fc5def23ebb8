"""The operator API: what is served, why, and moving it by hand. FastAPI, off the hot path."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from online_learner import explain, operate, release
from online_learner.auth import Credential
from online_learner.errors import Invalid, ServiceError, StateError, Unavailable, json_pointer
from online_learner.explain.signals import find
from online_learner.requests import KINDS
from online_learner.requests import Request as Schema
from online_learner.requests.values import Count as Number
from online_learner.requests.values import Name
from online_learner.stages import Stages
from serve_app.access import allowed, needs
from serve_app.api.bias import add_bias
from serve_app.api.forgetting import add_forgetting
from serve_app.api.metrics import add_metrics
from serve_app.api.openapi import document
from serve_app.api.queue import add_queue
from serve_app.api.sessions import add_session
from serve_app.api.versions import add_versions
from serve_app.console import add_console
from serve_app.http import body_of, defect, no_route, parse, problem, wrong_method
from serve_app.pages import add_pages
from serve_app.service import Service
from serve_app.stream import add_stream


class PromoteRequest(Schema):
    """Which version is to answer."""

    version: Number
    dry_run: bool = False


class SwitchRequest(Schema):
    """Freeze, or thaw."""

    dry_run: bool = False


class RollbackRequest(Schema):
    """Back to the version before, or to the one named."""

    version: Number | None = None
    dry_run: bool = False


class ReleaseOneRequest(Schema):
    """Why it is to be learned after all."""

    reason: Annotated[str, Field(max_length=1000)] = ""
    dry_run: bool = False


class ReleaseRequest(ReleaseOneRequest):
    """Which signals are to be learned after all: those named, or all that the last pull undid."""

    feedback_ids: Annotated[list[Name], Field(max_length=release.MOST, default_factory=list)]
    rolled_back: bool = False


def operator_api() -> FastAPI:
    """Return the application; `app.state.service` is set by the one that mounts it."""
    app = FastAPI(
        title="Online learner", version="1", docs_url=None, redoc_url=None, openapi_url=None
    )
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(StateError, _damaged)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _defect)
    _reads(app)
    _signals(app)
    _operations(app)
    _releases(app)
    add_forgetting(app)
    add_session(app)
    add_console(app)
    add_stream(app)
    add_versions(app)
    add_metrics(app)
    add_queue(app)
    add_bias(app)
    add_pages(app)

    @app.get("/openapi.json", include_in_schema=False)
    @needs("nothing")
    async def page() -> dict[str, Any]:
        return dict(app.state.document)

    return app


def describe(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Let the application tell, as `/openapi.json`, all routes of the service, its own among them.

    Raises
    ------
    LookupError
        A route is not described.
    """
    app.state.document = document(app, routes, _BODIES)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _room(request: Request, model: str) -> Stages:
    return _service(request).room(model)


Reader = Annotated[Credential, allowed("read")]
Operator = Annotated[Credential, allowed("operate")]
Services = Annotated[Service, Depends(_service)]
Room = Annotated[Stages, Depends(_room)]


def _sent(kind: type[Schema]) -> Any:
    """Read the body as the hot routes do: once the key is known, bounded, every error in place."""

    async def read(request: Request) -> Schema:
        return parse(kind, await body_of(request) or b"{}")

    return Depends(read)


Promotion = Annotated[PromoteRequest, _sent(PromoteRequest)]
Switch = Annotated[SwitchRequest, _sent(SwitchRequest)]
Rollback = Annotated[RollbackRequest, _sent(RollbackRequest)]
Release = Annotated[ReleaseRequest, _sent(ReleaseRequest)]
ReleaseOne = Annotated[ReleaseOneRequest, _sent(ReleaseOneRequest)]

After = Annotated[str, Query(pattern=r"^[0-9]{1,15}-[0-9]{1,15}$")]
Count = Annotated[int, Query(ge=1, le=1000)]
Kind: TypeAlias = Literal[tuple(KINDS)]  # type: ignore[valid-type]
Status: TypeAlias = Literal[
    "accepted", "learned", "kept", "quarantined", "rolled_back", "retracted"
]


def _reads(app: FastAPI) -> None:
    @app.get("/v1/models")
    async def models(_: Reader, service: Services) -> dict[str, Any]:
        """List the models: aliases, durability, lag."""
        now = time.time()
        rooms = service.rooms.values()
        found = [await _told(room, now=now) for room in rooms]
        return {**service.store.health.describe(), "models": found}

    @app.get("/v1/models/{model}")
    async def model(_: Reader, service: Services, room: Room) -> dict[str, Any]:
        """Tell who answers, what is tested and how long still, and how far the learner is."""
        return {**await _told(room, now=time.time()), **service.store.health.describe()}

    @app.get("/v1/models/{model}/versions")
    async def versions(_: Reader, room: Room) -> dict[str, Any]:
        """List every kept snapshot and its lineage."""
        return {"versions": [version.model_dump() for version in await room.registry.versions()]}

    @app.get("/v1/models/{model}/verdicts")
    async def verdicts(
        _: Reader, room: Room, count: Count = 100, after: After | None = None
    ) -> dict[str, Any]:
        """List the newest decisions with their numbers; or all after an id, oldest first."""
        return {"verdicts": await explain.verdicts(room.registry, count=count, after=after)}

    @app.get("/v1/models/{model}/evidence")
    async def evidence(
        _: Reader, room: Room, count: Count = 1000, after: After = "0-0"
    ) -> dict[str, Any]:
        """List settled audits as scalars, oldest first: all that the verdicts rest on."""
        return {"evidence": await explain.evidence(room.registry, count=count, after=after)}

    @app.get("/v1/predictions/{prediction_id}")
    async def prediction(_: Reader, service: Services, prediction_id: str) -> dict[str, Any]:
        """Tell the whole story of one answer."""
        room, address = service.open_id("prediction", prediction_id)
        return await explain.answer(room.log, address, window_s=room.window_s)

    @app.get("/v1/feedback/{feedback_id}")
    async def receipt(_: Reader, service: Services, feedback_id: str) -> dict[str, Any]:
        """Tell what became of a signal."""
        room, address = service.open_id("feedback", feedback_id)
        found = await explain.receipt(room.registry, address, log=room.log)
        return {"feedback_id": feedback_id, "durability": service.ingest.durability, **found}


async def _told(room: Stages, *, now: float) -> dict[str, Any]:
    """Return what a model is for, who answers, and how it is."""
    status = await explain.status(room.registry, room.policy, now=now)
    return {**status, "task": room.spec.task, "labels": room.spec.labels}


def _signals(app: FastAPI) -> None:
    @app.get("/v1/models/{model}/feedback")
    async def feedback(
        _: Reader,
        room: Room,
        kind: Kind | None = None,
        status: Status | None = None,
        after: After = "0-0",
        count: Count = 100,
    ) -> dict[str, Any]:
        """List what was said, oldest first, with its fate; `next` is where to go on."""
        return await explain.feedback(
            room.registry, kind=kind, status=status, after=after, count=count
        )

    @app.get("/v1/models/{model}/quarantine")
    async def quarantine(
        _: Reader, room: Room, after: After = "0-0", count: Count = 100
    ) -> dict[str, Any]:
        """List what was set aside or rolled back, and why; `next` is where to go on."""
        return await explain.quarantine(room.registry, after=after, count=count)


def _operations(app: FastAPI) -> None:
    @app.post("/v1/models/{model}/promote")
    async def promote(who: Operator, room: Room, body: Promotion) -> dict[str, Any]:
        """Let a version answer, by hand."""
        return await _operate(room, "promote", who, version=body.version, dry_run=body.dry_run)

    @app.post("/v1/models/{model}/rollback")
    async def rollback(who: Operator, room: Room, body: Rollback) -> dict[str, Any]:
        """Go back to the version before; nothing is promoted until `thaw`."""
        return await _operate(room, "rollback", who, version=body.version, dry_run=body.dry_run)

    @app.post("/v1/models/{model}/freeze")
    async def freeze(who: Operator, room: Room, body: Switch) -> dict[str, Any]:
        """Let what answers now go on answering, and promote nothing."""
        return await _operate(room, "freeze", who, dry_run=body.dry_run)

    @app.post("/v1/models/{model}/thaw")
    async def thaw(who: Operator, room: Room, body: Switch) -> dict[str, Any]:
        """Let the gate decide again."""
        return await _operate(room, "thaw", who, dry_run=body.dry_run)


def _releases(app: FastAPI) -> None:
    @app.post("/v1/models/{model}/quarantine/release", status_code=202)
    async def release_several(
        who: Operator, service: Services, room: Room, body: Release
    ) -> dict[str, Any]:
        """Have several signals learned after all, or all that the last pull undid."""
        if body.rolled_back == bool(body.feedback_ids):
            raise Invalid.at("/feedback_ids", "name signals, or send rolled_back: true")
        if not body.rolled_back:
            return await _release(service, room, who, body.feedback_ids, body)
        return _done(body, await release.release_rolled_back(room.registry, **_word(who, body)))

    @app.post("/v1/models/{model}/quarantine/{feedback_id}/release", status_code=202)
    async def release_one(
        who: Operator, service: Services, room: Room, feedback_id: str, body: ReleaseOne
    ) -> dict[str, Any]:
        """Have one signal learned after all."""
        return await _release(service, room, who, [feedback_id], body)


async def _release(
    service: Service, room: Stages, who: Credential, ids: list[str], body: ReleaseOneRequest
) -> dict[str, Any]:
    signals = []
    for index, feedback_id in enumerate(ids):
        found, address = service.open_id("feedback", feedback_id)
        if found is not room:
            raise Invalid.at(f"/feedback_ids/{index}", "is of another model")
        signals.append(await find(room.registry, address))
    return _done(body, await release.release(room.registry, signals, **_word(who, body)))


def _word(who: Credential, body: ReleaseOneRequest) -> dict[str, Any]:
    return {"by": f"key:{who.name}", "reason": body.reason, "dry_run": body.dry_run}


def _done(body: ReleaseOneRequest, ids: list[str]) -> dict[str, Any]:
    return {"dry_run": body.dry_run, "released": len(ids), "feedback_ids": ids}


async def _operate(room: Stages, action: str, who: Credential, **options: Any) -> dict[str, Any]:
    by = f"key:{who.name}"
    now = time.time()
    aliases, verdict = await operate.operate(room.registry, action, by=by, now=now, **options)
    return {
        "dry_run": bool(options.get("dry_run")),
        "aliases": aliases.model_dump(),
        "verdict": verdict.model_dump(),
    }


_BODIES: dict[str, Any] = {
    "/v1/models/{model}/promote": PromoteRequest,
    "/v1/models/{model}/rollback": RollbackRequest,
    "/v1/models/{model}/freeze": SwitchRequest,
    "/v1/models/{model}/thaw": SwitchRequest,
    "/v1/models/{model}/quarantine/release": ReleaseRequest,
    "/v1/models/{model}/quarantine/{feedback_id}/release": ReleaseOneRequest,
}


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return problem(error, request)


async def _damaged(request: Request, error: Exception) -> Response:
    return problem(Unavailable(f"{error}: see `online-learner doctor`", code="not_ready"), request)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()[0]
    return problem(Invalid.at(json_pointer(*found["loc"][1:]), found["msg"]), request)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code != 405:
        return no_route(request)
    taken = [
        method
        for route in request.app.routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods
    ]
    return wrong_method(request, ", ".join(sorted(taken)))


async def _defect(request: Request, error: Exception) -> Response:
    return defect(request)
