"""The wire: bodies in, JSON and `application/problem+json` out."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from online_learner.errors import (
    MethodNotAllowed,
    NotFound,
    ServiceError,
    TooLarge,
    UnsupportedMediaType,
    from_validation,
)

log = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)
Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return compact JSON."""
    return Response(to_json(body), status, headers, media_type="application/json")


def problem(error: ServiceError, request: Request) -> Response:
    """Return an error in the form of RFC 9457."""
    request_id = request.headers.get("x-request-id") or uuid4().hex
    body = error.problem(instance=request.url.path, request_id=request_id)
    headers = {"x-request-id": request_id, **error.headers}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(to_json(body), error.status, headers, media_type="application/problem+json")


def wrong_method(request: Request, allowed: str) -> Response:
    """Return the problem for a method that a route does not take."""
    error = MethodNotAllowed(
        f"{request.method} is not taken here, but {allowed}: see /openapi.json"
    )
    response = problem(error, request)
    response.headers["allow"] = allowed
    return response


def no_route(request: Request) -> Response:
    """Return the problem for a path that leads nowhere."""
    return problem(NotFound(f"no route {request.url.path}: see /openapi.json"), request)


def endpoint(handler: Endpoint) -> Endpoint:
    """Turn every error of a handler into a problem; the client never sees a stack trace."""

    @functools.wraps(handler)
    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except ServiceError as error:
            return problem(error, request)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            log.exception("%s %s failed", request.method, request.url.path)
            return problem(ServiceError("this is a defect of the server; see its log"), request)

    return handle


async def body_of(request: Request, *, limit: int) -> bytes:
    """Return the body, up to `limit` bytes.

    Raises
    ------
    UnsupportedMediaType
        The body is not declared as JSON.
    TooLarge
        The body is longer than `limit`.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if kind.lower() != "application/json":
        raise UnsupportedMediaType(f"the body is declared as '{kind}': send application/json")
    too_large = TooLarge(f"the body is over {limit} bytes: send fewer or smaller items")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    if declared:
        return await request.body()
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def parse(model: type[M], body: bytes) -> M:
    """Check a body against a model; raises a `ServiceError` that names every place."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error, model) from None
