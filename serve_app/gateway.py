"""The hot path: predict and feedback, as plain Starlette routes on raw bodies.

The application is made by a factory and holds its state in a lifespan, so that the same one runs
under Serve and under bare uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from online_learner.auth import Credential
from online_learner.errors import (
    RateLimited,
    ServiceError,
    Unauthorized,
    Unavailable,
    rationed,
)
from online_learner.ingest import OWN, Receipt, Speaker, limits
from online_learner.requests import (
    FeedbackBatchRequest,
    FeedbackRequest,
    LogBatchRequest,
    LogRequest,
    PredictBatchRequest,
    PredictRequest,
    ScoreRequest,
    check,
    parse_feedback,
    read_chat,
    read_feedback,
)
from online_learner.schema import Prediction
from online_learner.stages import Stages
from serve_app.access import admitted, is_anonymous, needs
from serve_app.api.operators import describe, operator_api
from serve_app.cors import Cors
from serve_app.http import (
    Guarded,
    body_of,
    endpoint,
    idempotency_key,
    json_response,
    lost,
    off_loop,
    parse,
    told,
    wrong_method,
)
from serve_app.logged import log_answers
from serve_app.service import Service
from serve_app.telemetry import spans, tracing
from serve_app.telemetry.counting import (
    count_batch,
    count_feedback,
    count_refused_items,
    counted,
)
from serve_app.telemetry.logs import Logged, note

T = TypeVar("T")
R = TypeVar("R")

PLACES_AN_ITEM = 5  # of a batch that its error names
LARGE_BYTES = 1 << 14  # a body that may take a while whatever the requests before it took


def create_app(store_url: str, data_dir: str) -> Starlette:
    """Return the whole HTTP application."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.service = await Service.open(store_url, Path(data_dir))
        operators.state.service = app.state.service
        gc.collect()
        gc.freeze()  # a large body makes many objects: no pass over all that was loaded before
        try:
            yield
        finally:
            await operators.state.streams.close()
            await app.state.service.close()

    operators = operator_api()
    routes = [
        Route("/v1/models/{model}/predict", endpoint(counted(predict)), methods=["POST"]),
        Route("/v1/feedback", endpoint(feedback), methods=["POST"]),
        Route(
            "/v1/models/{model}/predict_batch", endpoint(counted(predict_batch)), methods=["POST"]
        ),
        Route("/v1/feedback_batch", endpoint(feedback_batch), methods=["POST"]),
        Route("/v1/models/{model}/log", endpoint(counted(log_answer)), methods=["POST"]),
        Route("/v1/models/{model}/log_batch", endpoint(counted(log_batch)), methods=["POST"]),
        Route("/v1/models/{model}/score", endpoint(score), methods=["POST"]),
        Route("/livez", endpoint(livez)),
        Route("/readyz", endpoint(readyz)),
    ]
    # Without these, the mount would say that there is no such path.
    others = [_other_methods(route) for route in routes]
    rest = Mount("/", operators)
    describe(operators, [*routes, rest])
    return Starlette(
        routes=[*routes, *others, rest],
        middleware=[
            *tracing.middleware(),
            Middleware(Logged),
            Middleware(Guarded),
            Middleware(Cors),
        ],
        exception_handlers={404: lost},
        lifespan=lifespan,
    )


def _other_methods(route: Route) -> Route:
    taken = route.methods or set()

    @needs(None)
    async def refuse(request: Request) -> Response:
        return wrong_method(request, ", ".join(sorted(taken)))

    others = Route(route.path, refuse)
    others.methods = None  # whatever a client may think of: the route before it has taken its own
    return others


def service_of(request: Request) -> Service:
    """Return the replica's state."""
    service: Service = request.app.state.service
    return service


# --- predict ----------------------------------------------------------------------------------


@needs("predict")
async def predict(request: Request) -> Response:
    """Answer one request; the answer is in the log before it leaves."""
    began = time.perf_counter()
    service, credential, room, body = await _opened(request)
    asked = await off_loop(lambda sent: parse(PredictRequest, sent), body)
    [record] = await _compute(room, room.predictor.answer, [asked], body)
    [answer] = await log_answers(service, credential, room, [record], began)
    return json_response(answer)


@needs("predict")
async def predict_batch(request: Request) -> Response:
    """Answer several requests; all are logged in one round trip, errors stand in their places."""
    return await _batch(request, _instances, lambda room: room.predictor.answer, "predictions")


def _instances(body: bytes) -> list[PredictRequest | ServiceError]:
    return _each(
        lambda sent: check(PredictRequest, sent), parse(PredictBatchRequest, body).instances
    )


@needs("predict")
async def log_answer(request: Request) -> Response:
    """Log an answer that was made elsewhere; feedback on it joins."""
    began = time.perf_counter()
    service, credential, room, body = await _opened(request)
    asked = await off_loop(lambda sent: read_chat(parse(LogRequest, sent)), body)
    [record] = await _compute(room, room.predictor.record, [asked], body)
    [answer] = await log_answers(service, credential, room, [record], began, asked=[asked])
    return json_response(answer)


@needs("predict")
async def log_batch(request: Request) -> Response:
    """Log several answers that were made elsewhere; errors stand in their places."""
    return await _batch(request, _made_elsewhere, lambda room: room.predictor.record, "answers")


def _made_elsewhere(body: bytes) -> list[LogRequest | ServiceError]:
    return _each(
        lambda sent: read_chat(check(LogRequest, sent)), parse(LogBatchRequest, body).answers
    )


async def _batch(
    request: Request,
    read: Callable[[bytes], list[T | ServiceError]],
    work: Callable[[Stages], Callable[[T], Prediction]],
    name: str,
) -> Response:
    """Answer each item of a batch by itself; all answers are logged in one round trip."""
    began = time.perf_counter()
    service, credential, room, body = await _opened(request)
    asked = await off_loop(read, body)
    valid = [item for item in asked if not isinstance(item, ServiceError)]
    records = await _compute(room, _in_its_place(work(room)), valid, body) if valid else []
    pairs = zip(valid, records, strict=True)
    made = [(item, record) for item, record in pairs if isinstance(record, Prediction)]
    kept, sent = [record for _, record in made], [item for item, _ in made]
    answers = iter(
        await log_answers(service, credential, room, kept, began, asked=sent) if made else []
    )
    found = iter(records)
    outcomes = [item if isinstance(item, ServiceError) else next(found) for item in asked]
    results = [
        outcome if isinstance(outcome, ServiceError) else next(answers) for outcome in outcomes
    ]
    count_refused_items(service, room.model, outcomes)
    return json_response({name: told(results, lambda answer: answer)})


@needs("predict")
async def score(request: Request) -> Response:
    """Return the rewards that a reward model gives to some outputs; nothing is logged."""
    _, _, room, body = await _opened(request)
    asked = await off_loop(lambda sent: parse(ScoreRequest, sent), body)
    [found] = await _compute(room, room.predictor.score, [asked], body)
    return json_response(found)


async def _opened(request: Request) -> tuple[Service, Credential, Stages, bytes]:
    """Return the service, who asks, the model's room and the body, once the key is found good."""
    service = service_of(request)
    credential = admitted(request)
    room = service.room(request.path_params["model"])
    body = await body_of(request)
    return service, credential, room, body


async def _compute(
    room: Stages, work: Callable[[T], R], asked: Sequence[T], body: bytes
) -> list[R]:
    """Do the work for each, on a thread where it would hold up the event loop."""
    if room.predictor.slow or len(body) > LARGE_BYTES:
        return await asyncio.to_thread(lambda: [work(item) for item in asked])
    return [work(item) for item in asked]


def _in_its_place(work: Callable[[T], R]) -> Callable[[T], R | ServiceError]:
    """Return the work with its errors returned instead of raised."""

    def run(item: T) -> R | ServiceError:
        try:
            return work(item)
        except ServiceError as error:
            return error

    return run


# --- feedback ---------------------------------------------------------------------------------


@needs("feedback")
async def feedback(request: Request) -> Response:
    """Accept one signal. 202 means: durable as the receipt says, and learned exactly once."""
    try:
        service, speaker, body = await _heard(request)
    except Unauthorized as no_key:
        return await _by_id_alone(request, no_key)
    return await _accepted(service, speaker, request, body)


async def _by_id_alone(request: Request, no_key: Unauthorized) -> Response:
    """Accept what is said without any key, where the model allows that; else it is as `no_key`."""
    service = service_of(request)
    if not is_anonymous(request) or not service.ingest.public:
        raise no_key
    body = await body_of(request)
    try:
        return await _accepted(service, OWN, request, body)
    except Unauthorized:
        raise no_key from None


async def _accepted(service: Service, speaker: Speaker, request: Request, body: bytes) -> Response:
    key = idempotency_key(request)
    asked: FeedbackRequest | None = None
    try:
        asked = await off_loop(parse_feedback, body)
        receipt = await service.ingest.accept(asked, speaker, key=key)
    except ServiceError as error:
        count_feedback(service, asked or body, error, by_key=speaker is not OWN)
        raise
    count_feedback(service, asked, receipt)
    spans.heard(receipt)
    note(prediction_id=receipt.prediction_id, feedback_id=receipt.feedback_id)
    return json_response(receipt.render(), 202, receipt.headers)


@needs("feedback")
async def feedback_batch(request: Request) -> Response:
    """Accept several signals, each by itself."""
    service, speaker, body = await _heard(request)
    with rationed(PLACES_AN_ITEM):
        items, signals = await off_loop(_items, body)
        results = await service.ingest.accept_many(signals, speaker)
    count_batch(service, items, signals, results)
    tracing.note(signals=len(results))
    refused = [result for result in results if isinstance(result, Unavailable | RateLimited)]
    if len(refused) == len(results):
        raise refused[0]
    receipts = [result for result in results if isinstance(result, Receipt)]
    statuses = [receipt.status for receipt in receipts]
    return json_response(
        {
            "accepted": statuses.count("accepted") + statuses.count("archived_only"),
            "duplicates": statuses.count("duplicate"),
            "rejected": len(results) - len(statuses),
            "results": told(results, Receipt.render),
        },
        202,
        limits.headers(limits.fullest(s for receipt in receipts for s in receipt.standings)),
    )


def _items(body: bytes) -> tuple[list[Any], list[FeedbackRequest | ServiceError]]:
    items = parse(FeedbackBatchRequest, body).items
    return items, _each(read_feedback, items)


def _each(read: Callable[[Any], R], items: list[Any]) -> list[R | ServiceError]:
    """Check the items of a batch, each by itself; returns the errors in their places."""
    with rationed(PLACES_AN_ITEM):
        return [_in_its_place(read)(item) for item in items]


async def _heard(request: Request) -> tuple[Service, Speaker, bytes]:
    """Return the service, who speaks, and the body."""
    service = service_of(request)
    credential = admitted(request)
    body = await body_of(request)
    return service, Speaker.of(credential), body


# --- health -----------------------------------------------------------------------------------


@needs("nothing")
async def livez(request: Request) -> Response:
    """Say that the process serves. Touches nothing."""
    return json_response({"live": True})


@needs("nothing")
async def readyz(request: Request) -> Response:
    """Say whether store, weights, learner and gatekeeper are there, and how durable a 2xx is."""
    state = await service_of(request).ready()
    return json_response(state, 200 if state["ready"] else 503)
