"""`GET /v1/stream`: what happens to a model, as server-sent events that can be resumed.

- `cursor` is how far somebody has heard, `telling` makes events of the entries of the streams.
- `feed` reads a model's streams for all who listen, each of whom is a `listener`.
- `response` is a connection, `streams` are all of them.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request
from starlette.responses import Response

from online_learner.auth import Credential
from serve_app.access import allowed, credential_of
from serve_app.stream.cursor import FORM, KINDS, unpack
from serve_app.stream.response import EventStream
from serve_app.stream.streams import Door, Streams

__all__ = ["Streams", "add_stream"]

_ALL = ",".join(KINDS)
_KIND = f"({'|'.join(KINDS)})"

Reader = Annotated[Credential, allowed("read")]
Model = Annotated[str, Query(max_length=64, description="Whose events.")]
Events = Annotated[str, Query(pattern=f"^{_KIND}(,{_KIND})*$", description="Which of them.")]
After = Annotated[
    str | None, Query(pattern=FORM, description="The id of the event after which to go on.")
]
LastEventId = Annotated[
    str | None, Header(pattern=FORM, description="The same; browsers send it, and it wins.")
]


def add_stream(app: FastAPI) -> None:
    """Add the route; `app.state.streams` has to be closed in the end."""
    app.state.streams = Streams()

    @app.get("/v1/stream")
    async def stream(
        _: Reader,
        request: Request,
        *,
        model: Model,
        events: Events = _ALL,
        after: After = None,
        last_event_id: LastEventId = None,
    ) -> Response:
        """Tell what happens to a model, as it happens: server-sent events, each with an id."""
        service = request.app.state.service
        streams: Streams = request.app.state.streams
        registry = service.room(model).registry
        word = last_event_id or after
        cursor = None if word is None else unpack(word)

        def check() -> None:
            streams.check()
            credential_of(request, "read")
            service.room(model)

        kinds = tuple(dict.fromkeys(events.split(",")))
        listener = await streams.join(registry, kinds, cursor, _door(request))
        return EventStream(listener, check=check, leave=lambda: streams.leave(model))


def _door(request: Request) -> Door | None:
    server: Any = request.scope.get("server")
    return None if server is None or server[1] is None else (str(server[0]), int(server[1]))
