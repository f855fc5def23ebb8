"""The hot path: predict and feedback, as plain Starlette routes on raw bodies.

The application is made by a factory and holds its state in a lifespan, so that the same one runs
under Serve and under bare uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError
from pydantic_core import from_json, to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from online_learner.errors import (
    Invalid,
    ServiceError,
    Unavailable,
    from_validation,
)
from online_learner.ingest import Receipt
from online_learner.loop import Stages
from online_learner.predict import render
from online_learner.requests import (
    SIGNAL,
    Correction,
    FeedbackBatchRequest,
    PredictBatchRequest,
    PredictRequest,
    Signal,
    Thumbs,
)
from online_learner.schema import Prediction
from serve_app.http import body_of, endpoint, json_response, parse, wrong_method
from serve_app.operator_api import operator_api
from serve_app.service import Service

Accepted: TypeAlias = Thumbs | Correction

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def create_app(store_url: str, data_dir: str) -> Starlette:
    """Return the whole HTTP application."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.service = await Service.open(store_url, Path(data_dir))
        operators.state.service = app.state.service
        try:
            yield
        finally:
            await app.state.service.close()

    operators = operator_api()
    routes = [
        Route("/v1/models/{model}/predict", endpoint(predict), methods=["POST"]),
        Route("/v1/feedback", endpoint(feedback), methods=["POST"]),
        Route("/v1/models/{model}/predict_batch", endpoint(predict_batch), methods=["POST"]),
        Route("/v1/feedback_batch", endpoint(feedback_batch), methods=["POST"]),
        Route("/livez", endpoint(livez)),
        Route("/readyz", endpoint(readyz)),
    ]
    # Without these, the mount would say that there is no such path.
    others = [_other_methods(route) for route in routes]
    return Starlette(routes=[*routes, *others, Mount("/", operators)], lifespan=lifespan)


def _other_methods(route: Route) -> Route:
    taken = route.methods or set()

    async def refuse(request: Request) -> Response:
        return wrong_method(request, ", ".join(sorted(taken)))

    return Route(route.path, refuse, methods=list(METHODS - taken))


def service_of(request: Request) -> Service:
    """Return the replica's state."""
    service: Service = request.app.state.service
    return service


# --- predict ----------------------------------------------------------------------------------


async def predict(request: Request) -> Response:
    """Answer one request; the answer is in the log before it leaves."""
    service = service_of(request)
    service.keychain.open(request.headers.get("authorization")).require("predict")
    room = service.room(request.path_params["model"])
    body = await body_of(request, limit=service.settings.max_body_bytes)
    asked = parse(PredictRequest, body)
    [record] = await _answer(room, [asked])
    [answer] = await _log(service, room, [record], [asked])
    return json_response(answer)


async def predict_batch(request: Request) -> Response:
    """Answer several requests; all are logged in one round trip, errors stand in their places."""
    service = service_of(request)
    service.keychain.open(request.headers.get("authorization")).require("predict")
    room = service.room(request.path_params["model"])
    body = await body_of(request, limit=service.settings.max_body_bytes)
    batch = parse(PredictBatchRequest, body)
    asked: list[PredictRequest | ServiceError] = [
        _item(PredictRequest.model_validate_json, PredictRequest, item, index)
        for index, item in enumerate(batch.instances)
    ]
    valid = [item for item in asked if isinstance(item, PredictRequest)]
    records = await _answer(room, valid) if valid else []
    answers = iter(await _log(service, room, records, valid) if records else [])
    results = [
        item.problem() if isinstance(item, ServiceError) else next(answers) for item in asked
    ]
    return json_response({"predictions": results})


async def _answer(room: Stages, asked: list[PredictRequest]) -> list[Prediction]:
    answer = room.predictor.answer
    if room.predictor.slow:
        return await asyncio.to_thread(lambda: [answer(request) for request in asked])
    return [answer(request) for request in asked]


async def _log(
    service: Service, room: Stages, records: list[Prediction], asked: list[PredictRequest]
) -> list[dict[str, Any]]:
    window_s = service.settings.window_s
    try:
        addresses = await room.journal.append(records)
    except Unavailable:
        if service.settings.on_store_down == "refuse":
            raise
        return [
            render(record, None, None, window_s=window_s, top_k=item.top_k)
            for record, item in zip(records, asked, strict=True)
        ]
    seal, model = service.keyring.seal, room.registry.model
    return [
        render(
            record,
            seal("prediction", model, address),
            address,
            window_s=window_s,
            top_k=item.top_k,
        )
        for record, address, item in zip(records, addresses, asked, strict=True)
    ]


# --- feedback ---------------------------------------------------------------------------------


async def feedback(request: Request) -> Response:
    """Accept one signal. 202 means: durable as the receipt says, and learned exactly once."""
    service = service_of(request)
    credential = service.keychain.open(request.headers.get("authorization"))
    credential.require("feedback")
    body = await body_of(request, limit=service.settings.max_body_bytes)
    signal = _signal(body)
    receipt = await service.ingest.accept(
        signal, credential=credential.name, key=request.headers.get("idempotency-key")
    )
    return json_response(receipt.render(), 202)


async def feedback_batch(request: Request) -> Response:
    """Accept several signals, each by itself."""
    service = service_of(request)
    credential = service.keychain.open(request.headers.get("authorization"))
    credential.require("feedback")
    body = await body_of(request, limit=service.settings.max_body_bytes)
    batch = parse(FeedbackBatchRequest, body)
    signals = [_item(_signal, SIGNAL, item, index) for index, item in enumerate(batch.items)]
    results = await service.ingest.accept_many(signals, credential=credential.name)
    if results and all(isinstance(result, Unavailable) for result in results):
        raise Unavailable("the store does not answer; nothing was accepted")
    statuses = [result.status for result in results if isinstance(result, Receipt)]
    return json_response(
        {
            "accepted": statuses.count("accepted"),
            "duplicates": statuses.count("duplicate"),
            "rejected": len(results) - len(statuses),
            "results": [r.render() if isinstance(r, Receipt) else r.problem() for r in results],
        },
        202,
    )


def _signal(body: bytes) -> Accepted:
    try:
        return SIGNAL.validate_json(body)
    except ValidationError as error:
        raise _kind_error(error, body) or from_validation(error, Signal) from None


def _kind_error(error: ValidationError, body: bytes) -> ServiceError | None:
    """Return the error for a kind that no model takes, where that is what is wrong."""
    found = error.errors()[0]
    if found["type"] not in ("union_tag_invalid", "union_tag_not_found"):
        return None
    kind = (from_json(body) or {}).get("kind")
    return Invalid.at(
        "/kind",
        f"{kind!r} is not a kind of feedback that is taken here: send 'thumbs' or 'correction'",
        code="kind_not_applicable" if isinstance(kind, str) else "invalid_value",
    )


def _item(check: Any, model: Any, item: Any, index: int) -> Any:
    """Check one item of a batch; returns it, or the error in its place."""
    try:
        return check(to_json(item))
    except ValidationError as error:
        found = from_validation(error, model)
    except ServiceError as error:
        found = error
    for place in found.errors:
        place["pointer"] = f"/{index}{place['pointer']}"
    return found


# --- health -----------------------------------------------------------------------------------


async def livez(request: Request) -> Response:
    """Say that the process serves. Touches nothing."""
    return json_response({"live": True})


async def readyz(request: Request) -> Response:
    """Say whether store, weights, learner and gatekeeper are there, and how durable a 2xx is."""
    state = await service_of(request).ready()
    return json_response(state, 200 if state["ready"] else 503)
