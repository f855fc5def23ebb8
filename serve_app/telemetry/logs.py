"""Where what we log goes, how it is written, and what each line says of the request it is about.

Serve writes the log of a replica itself. What others log reaches it by way of standard error, as
chatter, which a log of warnings leaves out; and on the fast profile it keeps a thousand lines back.

With `logs: json` each line is a JSON object: `at` (RFC 3339), `level`, `logger`, `message`, and
where there is one `trace` (where an error was raised, and not what it says), `model`, `replica`,
`request_id`, `prediction_id` and `feedback_id`. With `access_log: true` there is a line a request,
with its `route`, never its path, query or body. Whoever holds a prediction id may speak about that
answer where a model has `public_feedback`: guard such logs accordingly.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from logging.handlers import MemoryHandler
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from online_learner.errors import trace
from online_learner.render import rfc3339
from online_learner.settings import Settings

OURS = ("online_learner", "serve_app", "policies")

_SERVE = "ray.serve"
_REQUEST_ID, _ABOUT = "online_learner.request_id", "online_learner.about"
_ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_requests = logging.getLogger("serve_app.requests")
_request: ContextVar[Scope | None] = ContextVar("request", default=None)
_process: dict[str, str] = {}  # what all lines of this process are about
_texts: dict[logging.Handler, logging.Formatter | None] = {}  # as they wrote before


def join_serve(model: str = "") -> None:
    """Let our warnings go where Serve's go, and at once; all of them are about a model, if any."""
    serve = logging.getLogger(_SERVE)
    for name in OURS:
        logging.getLogger(name).parent = serve
    for handler in serve.handlers:
        if isinstance(handler, MemoryHandler):
            handler.flushLevel = logging.WARNING
    if model:
        _process["model"] = model


def configure(settings: Settings) -> None:
    """Write as the settings say; it may be called as often as they are read."""
    _requests.setLevel(logging.INFO if settings.access_log else logging.WARNING)
    as_json = settings.logs == "json"
    for handler in _ends(make=as_json or settings.access_log):
        if isinstance(handler, MemoryHandler):
            handler.flushLevel = min(handler.flushLevel, _requests.level)
        elif as_json and not isinstance(handler.formatter, JsonLines):
            _texts[handler] = handler.formatter
            handler.setFormatter(JsonLines())
        elif not as_json and handler in _texts:
            handler.setFormatter(_texts.pop(handler))


def _ends(*, make: bool) -> Iterator[logging.Handler]:
    """Yield what writes our lines; where nobody else does, standard error is made to."""
    ours = [logging.getLogger(name) for name in OURS]
    serve = logging.getLogger(_SERVE)
    joined = ours[0].parent is serve
    if make and not joined and not logging.getLogger().handlers and not ours[0].handlers:
        error = logging.StreamHandler(sys.stderr)
        for logger in ours:
            logger.addHandler(error)
    for handler in [*ours[0].handlers, *(serve.handlers if joined else ())]:
        yield handler
        if isinstance(handler, MemoryHandler) and handler.target is not None:
            yield handler.target


class JsonLines(logging.Formatter):
    """Writes each record as a JSON object in a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        message, _, place = record.getMessage().partition("\n")
        if record.exc_info and record.exc_info[1] is not None:
            place = trace(record.exc_info[1])
        found = {
            "at": rfc3339(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": message,
            "trace": place,
            "replica": getattr(record, "replica", ""),
            **_process,
            **about(),
            **getattr(record, "facts", {}),
        }
        return json.dumps({name: value for name, value in found.items() if value != ""})


# --- requests ---------------------------------------------------------------------------------


def request_id(scope: Scope) -> str:
    """Return the client's own id of a request where it is a UUID or a trace id, else a new one."""
    if _REQUEST_ID not in scope:
        sent = Headers(scope=scope).get("x-request-id", "")
        scope[_REQUEST_ID] = sent if _ID.fullmatch(sent) else uuid4().hex
    return str(scope[_REQUEST_ID])


def note(**ids: str | None) -> None:
    """Let the lines of the request under way say what it is about; only ids that were verified."""
    scope = _request.get()
    if scope is not None:
        scope[_ABOUT] = ids


def about() -> dict[str, Any]:
    """Return what is known of the request under way; nothing, where there is none."""
    scope = _request.get()
    if scope is None:
        return {}
    found = {"request_id": request_id(scope), **scope.get(_ABOUT, {})}
    served = getattr(scope["app"].state, "service", None) if "app" in scope else None
    model = scope.get("path_params", {}).get("model")
    if served is not None and model in served.rooms:  # and nothing else that was sent
        found["model"] = model
    return {name: value for name, value in found.items() if value is not None}


class Logged:
    """Tells what we log which request it is about, and logs each request where that is wanted."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        token = _request.set(scope)
        try:
            if _requests.isEnabledFor(logging.INFO):
                await self._told(scope, receive, send)
            else:
                await self._app(scope, receive, send)
        finally:
            _request.reset(token)

    async def _told(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), 499  # as nginx has it: the client went before

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            ms = round(1000 * (time.perf_counter() - began), 1)
            route = getattr(scope.get("route"), "path", "") or "none"
            facts = {"method": _method(scope), "route": route, "status": status, "ms": ms}
            line = "%(method)s %(route)s %(status)s %(ms)s ms"
            _requests.info(f"{line} %(request_id)s", facts | about(), extra={"facts": facts})


def _method(scope: Scope) -> str:
    """Return the method, where it is one that we know: a client may send any word."""
    known = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
    return scope["method"] if scope["method"] in known else "other"
