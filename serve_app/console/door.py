"""The door: a form that takes a key for the cookie of a session, and one that gives it back.

Attempts are not counted: a key has 256 random bits, so that guessing leads nowhere, while a count
would let anybody lock everybody out. A form of another site is refused: it would let a visitor in
with a key that is not theirs, and have them work where somebody else looks on.
"""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs, urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from online_learner.auth import Credential
from online_learner.errors import (
    Forbidden,
    RequestTimeout,
    ServiceError,
    TooLarge,
    Unauthorized,
)
from serve_app import session
from serve_app.access import credential_of, needs
from serve_app.api.sessions import cookie_flags
from serve_app.session import COOKIE, Session

MAX_FORM_BYTES = 4096
PATIENCE_S = 10.0  # for a form to arrive
WRONG = "/?wrong=1"


@needs("nothing")
async def log_in(request: Request) -> Response:
    """Take the key of the form for a cookie; a wrong one leads back to the form."""
    if not _is_ours(request):
        raise Forbidden("this form is not ours: open the console itself, and log in there")
    service = request.app.state.service
    try:
        who = service.keychain.open(f"Bearer {await _field(request, 'key')}")
    except ServiceError:
        return _to(WRONG)
    now = service.keychain.clock()
    begun, response = Session.begin(who, now=now), _to("/")
    lasts_s, flags = begun.ends_at - int(now), cookie_flags(request)
    response.set_cookie(COOKIE, begun.seal(service.keyring), max_age=lasts_s, **flags)
    return response


@needs("nothing")
async def log_out(request: Request) -> Response:
    """End the session whose token the form has; without it, nothing ends."""
    response, service = _to("/"), request.app.state.service
    try:
        token = await _field(request, "csrf_token")
        found = session.opened(service.keyring, request, now=service.keychain.clock())
    except ServiceError:
        return response
    if found.has_token(service.keyring, token):
        response.delete_cookie(COOKIE, **cookie_flags(request))
    return response


def visitor(request: Request) -> tuple[Credential, str | None] | None:
    """Return who looks at the page, and the token of their session; None where nobody is known."""
    service = request.app.state.service
    try:
        who = credential_of(request, "any")
        if "authorization" in request.headers:
            return who, None
        found = session.opened(service.keyring, request, now=service.keychain.clock())
    except Unauthorized:
        return None
    return who, found.token(service.keyring)


def _is_ours(request: Request) -> bool:
    """Tell whether a form comes from a page of ours, or from no page at all.

    Browsers say so, but over plain HTTP they name the origin only.
    """
    site, origin = (request.headers.get(name) for name in ("sec-fetch-site", "origin"))
    if site is not None:
        return site in {"same-origin", "none"}
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


async def _field(request: Request, name: str) -> str:
    """Return a field of a form, empty where it is not there.

    Raises
    ------
    TooLarge
        The form is longer than any of ours.
    RequestTimeout
        It has not arrived in time, or will not.
    """
    body = b""
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for part in request.stream():
                body += part
                if len(body) > MAX_FORM_BYTES:
                    raise TooLarge(f"a form of over {MAX_FORM_BYTES} bytes is none of this page")
    except (TimeoutError, ClientDisconnect):
        raise RequestTimeout("the form has not arrived: send it in one go") from None
    fields = parse_qs(body.decode("utf-8", "replace"))
    return fields.get(name, [""])[0].strip()


def _to(place: str) -> RedirectResponse:
    return RedirectResponse(place, 303, {"cache-control": "no-store"})
