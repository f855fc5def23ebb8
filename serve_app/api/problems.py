"""What there is to say of errors in the document of the service: one response for each status."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from online_learner.errors import ServiceError
from serve_app.http import PROBLEM

Document: TypeAlias = dict[str, Any]

_TEXT: Document = {"schema": {"type": "string"}}
RATE: Document = {"ratelimit": _TEXT, "ratelimit-policy": _TEXT}
_HEADERS: dict[int, Document] = {
    401: {"www-authenticate": {"required": True, **_TEXT}},
    429: {"retry-after": {"required": True, "schema": {"type": "integer", "minimum": 1}}} | RATE,
    503: {"retry-after": {"required": True, "schema": {"type": "integer", "minimum": 1}}},
}


def problems(body: Document) -> Iterator[tuple[str, Document]]:
    """Yield what there is to say of each error, by its status.

    Parameters
    ----------
    body
        The schema of a problem.
    """
    kinds: list[type[ServiceError]] = [ServiceError, *ServiceError.__subclasses__()]
    for kind in kinds:
        header = {"x-request-id": {"required": True, **_TEXT}}
        yield (
            str(kind.status),
            {
                "description": kind.title,
                "headers": header | _HEADERS.get(kind.status, {}),
                "content": {PROBLEM: {"schema": body}},
            },
        )
