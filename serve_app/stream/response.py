"""The connection of one listener: what is sent, how long it stands, and what ends it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from online_learner.errors import ServiceError
from serve_app.stream.listener import Listener

RETRY_MS = 1000  # after which a browser comes back
ALIVE_S = 10.0  # between two signs of life, where nothing happens
CHECK_S = 1.0  # between two looks whether the listener may still listen
SLOW_S = 10.0  # that a listener may take to make room for more
PACE_S = 0.02  # what happens meanwhile is sent in one go
HEADERS = {
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx, and those who copy it, would hold the events back
}


class EventStream(Response):
    """Sends events until the listener goes, may listen no more, or does not keep up.

    Whoever is cut off comes back with the id that came last, and has lost nothing.

    Parameters
    ----------
    check
        Raises `ServiceError` where the stream has to end.
    leave
        Called in the end.
    """

    media_type = "text/event-stream"
    charset = "utf-8"

    def __init__(
        self, listener: Listener, *, check: Callable[[], None], leave: Callable[[], None]
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._listener = listener
        self._check = check
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Talk until one of the two has had enough."""
        tasks = [asyncio.create_task(work) for work in (self._talk(send), _gone(receive))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._leave()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _talk(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        with contextlib.suppress(TimeoutError, OSError):  # nobody takes it
            await _say(send, f"retry: {RETRY_MS}\n".encode() + self._listener.id_line() + b"\n")
            with contextlib.suppress(ServiceError):
                await self._tell(send)
            await _say(send, b"", more=False)

    async def _tell(self, send: Send) -> None:
        said_at = checked_at = time.monotonic()
        this = asyncio.current_task()
        assert this is not None
        while not this.cancelling():  # redis-py may swallow a cancellation
            text = await self._listener.hear(CHECK_S)
            at = time.monotonic()
            if not text or at - checked_at >= CHECK_S:
                self._check()
                checked_at = at
            if not text and at - said_at >= ALIVE_S:
                text = b": alive\n" + self._listener.id_line() + b"\n"
            if text:
                await _say(send, text)
                said_at = time.monotonic()
                await asyncio.sleep(PACE_S)


async def _say(send: Send, text: bytes, *, more: bool = True) -> None:
    async with asyncio.timeout(SLOW_S):
        await send({"type": "http.response.body", "body": text, "more_body": more})


async def _gone(receive: Receive) -> None:
    """Wait until the other side has closed the connection."""
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()
