"""The wire: bodies in, JSON and `application/problem+json` out.

Nothing that was sent comes back in an error, and nothing of it is logged.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from online_learner.errors import (
    Invalid,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    ServiceError,
    TooLarge,
    UnsupportedMediaType,
    trace,
)
from online_learner.requests import MAX_NAME, check, read_json
from serve_app.telemetry import logs

log = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")
Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

PROBLEM = "application/problem+json"
LARGE_BYTES = 1 << 16  # of a body that is read on a thread
MAX_TOLD = 1 << 15  # bytes of the errors in a batch that are told in full
_ALONE = "send it alone to be told more"
_KEY = re.compile(rf"[ -~]{{0,{MAX_NAME}}}")


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return compact JSON."""
    return Response(to_json(body), status, headers, media_type="application/json")


def problem(error: ServiceError, request: Request) -> Response:
    """Return an error in the form of RFC 9457; its `instance` is a name for this request."""
    request_id = logs.request_id(request.scope)
    body = error.problem(instance=f"urn:online-learner:request:{request_id}", request_id=request_id)
    headers = {"x-request-id": request_id, **error.headers}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.status == 408:
        headers["connection"] = "close"  # what else comes of the body is not waited for
    return Response(to_json(body), error.status, headers, media_type=PROBLEM)


def wrong_method(request: Request, allowed: str) -> Response:
    """Return the problem for a method that a route does not take."""
    error = MethodNotAllowed(f"this method is not taken here, but {allowed}: see /openapi.json")
    response = problem(error, request)
    response.headers["allow"] = allowed
    return response


def no_route(request: Request) -> Response:
    """Return the problem for a path that leads nowhere."""
    return problem(NotFound("there is no such route: see /openapi.json"), request)


async def lost(request: Request, _: Exception) -> Response:
    """Answer where a path is so odd (it has a line break, say) that no part of us is asked."""
    return no_route(request)


def defect(request: Request) -> Response:
    """Return the problem for an error that nobody expected."""
    return problem(ServiceError("this is a defect of the server; see its log"), request)


def endpoint(handler: Endpoint) -> Endpoint:
    """Turn every error that a handler raises on purpose into a problem."""

    @functools.wraps(handler)
    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except ServiceError as error:
            return problem(error, request)
        except ClientDisconnect:
            return Response(status_code=400)

    return handle


class Guarded:
    """Answer where something raises that nobody expected; log where, and not what it says."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http":
                raise
            name = getattr(scope.get("endpoint"), "__name__", "what was asked")
            log.error("%s failed\n%s", name, trace(error))  # noqa: TRY400
            if not begun:
                await defect(Request(scope))(scope, receive, send)


def idempotency_key(request: Request) -> str | None:
    """Return the key of the header; raises `Invalid` where it can be none."""
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise Invalid(f"the header idempotency-key holds up to {MAX_NAME} characters of ASCII")
    return key


async def body_of(request: Request) -> bytes:
    """Return the body, within the limits that the configuration sets.

    Raises
    ------
    UnsupportedMediaType
        The body is not declared as JSON, or is compressed.
    TooLarge
        The body is longer than `max_body_bytes`.
    RequestTimeout
        It has not arrived within `body_timeout_s`.
    """
    headers, settings = request.headers, request.app.state.service.settings
    kind = headers.get("content-type", "application/json").partition(";")[0].strip()
    if kind.lower() != "application/json":
        raise UnsupportedMediaType("the body is not declared as JSON: send application/json")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("the body is compressed: send it as it is")
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            return await _read(request, settings.max_body_bytes)
    except TimeoutError:
        raise RequestTimeout(
            f"the body has not arrived within {settings.body_timeout_s:g} s: send it in one go"
        ) from None


async def _read(request: Request, limit: int) -> bytes:
    too_large = TooLarge(f"the body is over {limit} bytes: send fewer or smaller items")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    parts, size = [], 0  # counted in any case: what comes in chunks may be longer than declared
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def parse(model: type[M], body: bytes) -> M:
    """Check a body against a model; raises a `ServiceError` that names every place."""
    return check(model, read_json(body))


async def off_loop(read: Callable[[bytes], R], body: bytes) -> R:
    """Read a body, on a thread where it is so large that it would hold up the event loop."""
    if len(body) > LARGE_BYTES:
        return await asyncio.to_thread(read, body)
    return read(body)


def told(results: Iterable[R | ServiceError], render: Callable[[R], Any]) -> list[Any]:
    """Return the results of a batch as its client gets them, an error as a problem in its place.

    The errors after the first `MAX_TOLD` bytes of them have their status and code alone.
    """
    found, left = [], MAX_TOLD
    for index, result in enumerate(results):
        if not isinstance(result, ServiceError):
            found.append(render(result))
            continue
        item = result.under(index).problem()
        size = len(to_json(item))
        if size > left:
            item |= {"detail": _ALONE, "errors": []}
        else:
            left -= size
        found.append(item)
    return found
