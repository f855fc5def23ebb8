"""Who may ask what: each route says which scope it needs, and that is what is checked.

A route that says nothing is open to nobody. There is no setting that opens one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeAlias, TypeVar

from fastapi import Depends
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.routing import BaseRoute, Mount, Route

from online_learner.auth import SCOPES, Credential, Scope
from serve_app import session

F = TypeVar("F", bound=Callable[..., Any])

# Beside a scope: `any` is a key with whatever scopes, `key` is the same and not the cookie of a
# session, and `nothing` lets everybody in, where there is no data.
Need: TypeAlias = Scope | Literal["any", "key", "nothing"]


def needs(need: Need | None) -> Callable[[F], F]:
    """Declare what it takes to be let in; `None` is for what only refuses, whoever asks."""

    def declare(handler: F) -> F:
        handler.needs = need  # type: ignore[attr-defined]
        return handler

    return declare


def credential_of(request: Request, need: Need) -> Credential:
    """Return who asks, by the `Authorization` header or else by the session's cookie.

    Raises
    ------
    Unauthorized
        Nobody that is known.
    Forbidden
        The key lacks the scope, or a cookie comes without its token where something is changed.
    """
    service = request.app.state.service
    header = request.headers.get("authorization")
    if header is None and need != "key" and session.is_named(request):
        credential = session.resume(service.keyring, service.keychain, request)
    else:
        credential = service.keychain.open(header)
    if need in SCOPES:
        credential.require(need)
    return credential


def admitted(request: Request) -> Credential:
    """Return who asks a plain route, once they have what its handler says that it needs."""
    return credential_of(request, request.scope["endpoint"].needs)


def allowed(need: Need) -> Any:
    """Return the dependency that lets in only those who have what is needed, and says who asks."""

    @needs(need)
    def check(request: Request) -> Credential:
        return credential_of(request, need)

    return Depends(check)


def is_anonymous(request: Request) -> bool:
    """Tell whether a request names nobody at all, by no means."""
    return "authorization" not in request.headers and not session.is_named(request)


def declared(routes: Iterable[BaseRoute]) -> dict[tuple[str, str], Need]:
    """Return what each route of an application needs, by method and path.

    Raises
    ------
    LookupError
        A route does not say.
    """
    return {
        (method, route.path): need
        for route in _flat(routes)
        if (need := _need(route)) is not None
        for method in sorted((route.methods or set()) - {"HEAD"})
    }


def _flat(routes: Iterable[BaseRoute]) -> Iterator[Route]:
    for route in routes:
        if isinstance(route, Mount):
            yield from _flat(route.routes)
        else:
            assert isinstance(route, Route)
            yield route


def _need(route: Route) -> Need | None:
    asked: list[Any] = [route.endpoint]
    if isinstance(route, APIRoute):
        asked += [dependency.call for dependency in route.dependant.dependencies]
    found: list[Need | None] = [call.needs for call in asked if hasattr(call, "needs")]
    if len(found) != 1:
        raise LookupError(f"{route.path} does not say, once, what it needs: see `needs`")
    return found[0]
