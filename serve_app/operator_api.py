"""The operator API: what is served, why, and moving it by hand. FastAPI, off the hot path."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException

from online_learner import explain, operate
from online_learner.auth import Credential, Scope
from online_learner.errors import Invalid, Malformed, NotFound, ServiceError
from online_learner.loop import Stages
from online_learner.requests import (
    FeedbackBatchRequest,
    PredictBatchRequest,
    PredictRequest,
    Signal,
)
from online_learner.requests import Request as Schema
from serve_app.http import problem
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
        name, address = service.ingest.resolve(prediction_id)
        room = service.room(name)
        record = await room.journal.read(address)
        return await explain.story(room.registry, address, record)

    @app.get("/v1/feedback/{feedback_id}")
    async def receipt(_: Reader, service: Services, feedback_id: str) -> dict[str, Any]:
        """Tell what became of a signal."""
        room, address = service.open_feedback_id(feedback_id)
        found = await explain.receipt(room.registry, address)
        return {"feedback_id": feedback_id, "durability": service.ingest.durability, **found}


def _operations(app: FastAPI) -> None:
    @app.post("/v1/models/{model}/promote")
    async def promote(who: Operator, room: Room, body: PromoteRequest) -> dict[str, Any]:
        """Let a version answer, by hand."""
        return await _operate(room, "promote", who, version=body.version, dry_run=body.dry_run)

    @app.post("/v1/models/{model}/rollback")
    async def rollback(
        who: Operator, room: Room, body: Annotated[RollbackRequest | None, Body()] = None
    ) -> dict[str, Any]:
        """Go back to the version before; nothing is promoted until `thaw`."""
        asked = body or RollbackRequest()
        return await _operate(room, "rollback", who, version=asked.version, dry_run=asked.dry_run)

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
    routes: tuple[tuple[str, Any, str], ...] = (
        ("/v1/models/{model}/predict", PredictRequest, "Predict"),
        ("/v1/models/{model}/predict_batch", PredictBatchRequest, "Predict several"),
        ("/v1/feedback", Signal, "Feedback"),
        ("/v1/feedback_batch", FeedbackBatchRequest, "Feedback, several"),
    )
    for path, body, title in routes:
        schema = TypeAdapter[Any](body).json_schema(ref_template="#/components/schemas/{model}")
        document.setdefault("components", {}).setdefault("schemas", {}).update(
            schema.pop("$defs", {})
        )
        answer = {"200" if "predict" in path else "202": {"description": "Done, and durable"}}
        operation: dict[str, Any] = {
            "summary": title,
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": answer,
        }
        if "{model}" in path:
            operation["parameters"] = [
                {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
            ]
        document["paths"].setdefault(path, {})["post"] = operation
    return document


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return problem(error, request)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()[0]
    if found["type"] == "json_invalid":
        return problem(Malformed("the body is not valid JSON"), request)
    pointer = "".join(f"/{part}" for part in found["loc"][1:])
    code = "unknown_field" if found["type"] == "extra_forbidden" else "invalid_value"
    return problem(Invalid.at(pointer, found["msg"], code=code), request)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = problem(NotFound(f"no route {request.method} {request.url.path}"), request)
    response.status_code = error.status_code
    return response


async def _defect(request: Request, error: Exception) -> Response:
    return problem(ServiceError("this is a defect of the server; see its log"), request)
