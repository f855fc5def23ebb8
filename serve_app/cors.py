"""Which pages of other origins may call the service from a browser, as the configuration says now.

They send a key, never a cookie: the session is for our own pages.
"""

from __future__ import annotations

import functools

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from online_learner.errors import Forbidden
from serve_app.http import problem

METHODS = ("GET", "POST", "DELETE")
SENT = ("authorization", "content-type", "idempotency-key")
SEEN = ("retry-after", "ratelimit", "ratelimit-policy", "x-request-id")


class Cors:
    """Starlette's middleware, for the origins that the configuration names now."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._for = functools.lru_cache(maxsize=8)(self._make)

    def _make(self, origins: tuple[str, ...]) -> CORSMiddleware:
        return CORSMiddleware(
            self._app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=SENT,
            expose_headers=SEEN,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        app = self._app
        if scope["type"] == "http" and any(name == b"origin" for name, _ in scope["headers"]):
            origins = tuple(scope["app"].state.service.settings.cors.origins)
            if origins:
                app = _answer(self._for(origins), scope)
        await app(scope, receive, send)


def _answer(cors: CORSMiddleware, scope: Scope) -> ASGIApp:
    """Return what answers: the service, or where a browser asks first, a yes or a problem."""
    headers = Headers(scope=scope)
    if scope["method"] != "OPTIONS" or "access-control-request-method" not in headers:
        return cors
    found = cors.preflight_response(headers)
    return found if found.status_code == 200 else _refuse


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    error = Forbidden(
        "a page of this origin may not call this so: see `cors.origins` in the configuration"
    )
    await problem(error, Request(scope))(scope, receive, send)
