"""`/v1/session`: a key for a cookie, who asks, and the end of it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from online_learner.auth import Credential
from online_learner.render import rfc3339
from serve_app import session
from serve_app.access import allowed
from serve_app.session import COOKIE, Session

Holder = Annotated[Credential, allowed("key")]
Anyone = Annotated[Credential, allowed("any")]


class SessionInfo(BaseModel):
    """Who asks, and what they may do; `csrf_token` goes with the cookie."""

    name: str
    key_id: str
    scopes: list[str]
    expires_at: str | None
    csrf_token: str | None


def add_session(app: FastAPI) -> None:
    """Add the routes."""

    @app.post("/v1/session")
    async def begin(who: Holder, request: Request, response: Response) -> SessionInfo:
        """Begin a session: the key in `Authorization`, once, for a cookie."""
        service = request.app.state.service
        now = service.keychain.clock()
        begun = Session.begin(who, now=now)
        lasts_s, flags = begun.ends_at - int(now), cookie_flags(request)
        response.set_cookie(COOKIE, begun.seal(service.keyring), max_age=lasts_s, **flags)
        return _session_info(response, who, begun.ends_at, begun.token(service.keyring))

    @app.get("/v1/session")
    async def tell(who: Anyone, request: Request, response: Response) -> SessionInfo:
        """Describe the caller; for a cookie session, return its CSRF token."""
        if "authorization" in request.headers:
            return _session_info(response, who, who.expires_at, None)
        service = request.app.state.service
        found = session.opened(service.keyring, request, now=service.keychain.clock())
        return _session_info(response, who, found.ends_at, found.token(service.keyring))

    @app.delete("/v1/session", status_code=204)
    async def end(_: Anyone, request: Request, response: Response) -> None:
        """End a session. A copy of the cookie is good until it ends, or its key is revoked."""
        response.headers["cache-control"] = "no-store"
        response.delete_cookie(COOKIE, **cookie_flags(request))


def _session_info(
    response: Response, who: Credential, ends_at: float | None, csrf_token: str | None
) -> SessionInfo:
    response.headers["cache-control"] = "no-store"
    return SessionInfo(
        name=who.name,
        key_id=who.id,
        scopes=sorted(who.scopes),
        expires_at=None if ends_at is None else rfc3339(ends_at),
        csrf_token=csrf_token,
    )


def cookie_flags(request: Request) -> dict[str, Any]:
    """Return how the cookie of a session is set, and taken back."""
    return {"path": "/", "httponly": True, "samesite": "strict", "secure": _is_https(request)}


def _is_https(request: Request) -> bool:
    """Tell whether the browser came by https, to us or to a proxy in front."""
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    return "https" in (request.url.scheme, forwarded.lower())
