"""The operator API: what is served, why, and moving it by hand. FastAPI, off the hot path."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException

from online_learner import explain, operate
from online_learner.auth import Credential, Scope
from online_learner.errors import Invalid, ServiceError, json_pointer
from online_learner.requests import (
    ONE,
    FeedbackBatchRequest,
    LogRequest,
    PredictBatchRequest,
    PredictRequest,
    ScoreRequest,
    SeveralSignals,
)
from online_learner.requests import Request as Schema
from online_learner.stages import Stages
from serve_app.http import body_of, no_route, parse, problem, wrong_method
from serve_app.service import Service


class PromoteRequest(Schema):
    """Which version is to answer."""

    version: int
    dry_run: bool = False


class RollbackRequest(Schema):
    """Back to the version before, or to the one named."""

    version: int | None = None
    dry_run: bool = False


def operator_api() -> FastAPI:
    """Return the application; `app.state.service` is set by the one that mounts it."""
    app = FastAPI(
        title="Online learner", version="1", docs_url=None, redoc_url=None, openapi_url=None
    )
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _defect)
    _reads(app)
    _operations(app)
    app.add_api_route("/openapi.json", lambda: _document(app), include_in_schema=False)
    return app


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _allowed(scope: Scope) -> Any:
    def check(request: Request) -> Credential:
        credential = _service(request).keychain.open(request.headers.get("authorization"))
        credential.require(scope)
        return credential

    return Depends(check)


def _room(request: Request, model: str) -> Stages:
    return _service(request).room(model)


Reader = Annotated[Credential, _allowed("read")]
Operator = Annotated[Credential, _allowed("operate")]
Services = Annotated[Service, Depends(_service)]
Room = Annotated[Stages, Depends(_room)]


def _sent(kind: type[Schema]) -> Any:
    """Read the body as the hot routes do: once the key is known, bounded, every error in place."""

    async def read(request: Request) -> Schema:
        body = await body_of(request, limit=_service(request).settings.max_body_bytes)
        return parse(kind, body or b"{}")

    return Depends(read)


Promotion = Annotated[PromoteRequest, _sent(PromoteRequest)]
Rollback = Annotated[RollbackRequest, _sent(RollbackRequest)]


def _reads(app: FastAPI) -> None:
    @app.get("/v1/models")
    async def models(_: Reader, service: Services) -> dict[str, Any]:
        """List the models: aliases, durability, lag."""
        now = time.time()
        found = [await explain.status(room.registry, now=now) for room in service.rooms.values()]
        return {"durability": service.ingest.durability, "models": found}

    @app.get("/v1/models/{model}")
    async def model(_: Reader, service: Services, room: Room) -> dict[str, Any]:
        """Tell who answers, what is tested, how far the learner is, and who is alive."""
        status = await explain.status(room.registry, now=time.time())
        return {**status, "durability": service.ingest.durability}

    @app.get("/v1/models/{model}/versions")
    async def versions(_: Reader, room: Room) -> dict[str, Any]:
        """List every kept snapshot and its lineage."""
        return {"versions": [version.model_dump() for version in await room.registry.versions()]}

    @app.get("/v1/models/{model}/verdicts")
    async def verdicts(_: Reader, room: Room, count: int = 100) -> dict[str, Any]:
        """List the newest decisions with their numbers."""
        return {"verdicts": await explain.verdicts(room.registry, count=max(1, min(count, 1000)))}

    @app.get("/v1/predictions/{prediction_id}")
    async def prediction(_: Reader, service: Services, prediction_id: str) -> dict[str, Any]:
        """Tell the whole story of one answer."""
        room, address = service.open_id("prediction", prediction_id)
        record = await room.journal.read(address)
        return await explain.story(room.registry, address, record)

    @app.get("/v1/feedback/{feedback_id}")
    async def receipt(_: Reader, service: Services, feedback_id: str) -> dict[str, Any]:
        """Tell what became of a signal."""
        room, address = service.open_id("feedback", feedback_id)
        found = await explain.receipt(room.registry, address)
        return {"feedback_id": feedback_id, "durability": service.ingest.durability, **found}


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
    async def freeze(who: Operator, room: Room) -> dict[str, Any]:
        """Let what answers now go on answering, and promote nothing."""
        return await _operate(room, "freeze", who)

    @app.post("/v1/models/{model}/thaw")
    async def thaw(who: Operator, room: Room) -> dict[str, Any]:
        """Let the gate decide again."""
        return await _operate(room, "thaw", who)


async def _operate(room: Stages, action: str, who: Credential, **options: Any) -> dict[str, Any]:
    by = f"key:{who.name}"
    now = time.time()
    aliases, verdict = await operate.operate(room.registry, action, by=by, now=now, **options)
    return {
        "dry_run": bool(options.get("dry_run")),
        "aliases": aliases.model_dump(),
        "verdict": verdict.model_dump(),
    }


def _document(app: FastAPI) -> dict[str, Any]:
    """Return one OpenAPI document, the hot routes included."""
    document = app.openapi()
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for path, title in _HOT.items():
        method = "get" if path in ("/livez", "/readyz") else "post"
        document["paths"][path] = {method: _operation(path, title)}
    for path, body in _BODIES.items():
        schema = TypeAdapter[Any](body).json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        content = {"application/json": {"schema": schema}}
        document["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
    return document


_HOT = {
    "/v1/models/{model}/predict": "Predict",
    "/v1/models/{model}/predict_batch": "Predict several",
    "/v1/models/{model}/log": "Log an answer that was made elsewhere",
    "/v1/models/{model}/score": "Score outputs by the reward model",
    "/v1/feedback": "Feedback",
    "/v1/feedback_batch": "Feedback, several",
    "/livez": "The process serves",
    "/readyz": "Store, weights, learners and gatekeepers are there",
}
_BODIES: dict[str, Any] = {
    "/v1/models/{model}/predict": PredictRequest,
    "/v1/models/{model}/predict_batch": PredictBatchRequest,
    "/v1/models/{model}/log": LogRequest,
    "/v1/models/{model}/score": ScoreRequest,
    "/v1/feedback": ONE | SeveralSignals,
    "/v1/feedback_batch": FeedbackBatchRequest,
    "/v1/models/{model}/promote": PromoteRequest,
    "/v1/models/{model}/rollback": RollbackRequest,
}


def _operation(path: str, title: str) -> dict[str, Any]:
    status = "202" if "feedback" in path else "200"
    found: dict[str, Any] = {"summary": title, "responses": {status: {"description": "Done"}}}
    if "{model}" in path:
        model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        found["parameters"] = [model]
    return found


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return problem(error, request)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()[0]
    return problem(Invalid.at(json_pointer(*found["loc"][1:]), found["msg"]), request)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow")
    return no_route(request) if allowed is None else wrong_method(request, allowed)


async def _defect(request: Request, error: Exception) -> Response:
    return problem(ServiceError("this is a defect of the server; see its log"), request)
