"""All who listen at one replica: how many there may be, and when all of them have to go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

from online_learner.errors import Unavailable
from online_learner.registry import Registry
from serve_app.stream.cursor import Cursor
from serve_app.stream.feed import Feed, now
from serve_app.stream.listener import Listener

MOST = 100  # listeners: each is a request under way, and the others need room
LOOK_S = 0.5  # between two looks whether the replica is to go
HEALTH = "/-/healthz"  # where each replica of Serve's tells, on its own port, whether it is to go

Door: TypeAlias = tuple[str, int]  # host and port


class Streams:
    """Who listens to what.

    An upgrade waits for all requests under way, and Serve does not tell an application that it has
    begun. So the replica's own health is asked for, as HAProxy does, while anybody listens.
    """

    def __init__(self) -> None:
        self._feeds: dict[str, Feed] = {}
        self._listening: dict[str, int] = {}
        self._watch: asyncio.Task[None] | None = None
        self._ends: set[asyncio.Task[None]] = set()
        self._closing = False

    @property
    def count(self) -> int:
        """How many listen."""
        return sum(self._listening.values())

    def check(self) -> None:
        """Raise `Unavailable` where the replica is to go."""
        if self._closing:
            raise Unavailable("this replica is about to go: try again, and another will answer")

    async def join(
        self, registry: Registry, kinds: Sequence[str], cursor: Cursor | None, door: Door | None
    ) -> Listener:
        """Return a listener, for whom `leave` has to be called once.

        Parameters
        ----------
        cursor
            From where on; None is from now on.
        door
            Where this replica was asked, so that its health can be asked for.

        Raises
        ------
        Unavailable
            As many as there may be listen already, the replica is about to go, or the store does
            not answer.
        """
        self.check()
        if self.count >= MOST:
            raise Unavailable(
                f"{MOST} listen to this replica already, and it takes no more: try again later",
                code="too_many_streams",
            )
        model = registry.model
        self._listening[model] = self._listening.get(model, 0) + 1  # before anything is awaited
        try:
            moment = await now(registry.store)
        except BaseException:
            self.leave(model)
            raise
        if model not in self._feeds:
            self._feeds[model] = Feed(registry, moment)
        if door is not None and self._watch is None:
            self._watch = asyncio.create_task(self._look(door))
        return Listener(self._feeds[model], kinds, cursor or moment)

    def leave(self, model: str) -> None:
        """Let a listener go; nothing is read for nobody."""
        self._listening[model] -= 1
        if not self._listening[model]:
            del self._listening[model]
            if (feed := self._feeds.pop(model, None)) is not None:
                self._end(feed)
        if not self._listening and self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _end(self, feed: Feed) -> None:
        task = asyncio.create_task(feed.close())
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    def begin_to_close(self) -> None:
        """End all streams, and let none begin."""
        self._closing = True
        for feed in self._feeds.values():
            feed.wake()

    async def close(self) -> None:
        """End all streams, and wait until nothing is read any more."""
        self.begin_to_close()
        if self._watch is not None:
            self._watch.cancel()
        for feed in list(self._feeds.values()):
            await feed.close()
        await asyncio.gather(*self._ends)

    async def _look(self, door: Door) -> None:
        leaving = False
        while not leaving:
            await asyncio.sleep(LOOK_S)
            leaving = await is_leaving(door)
        self.begin_to_close()


async def is_leaving(door: Door) -> bool:
    """Tell whether a replica takes no more requests: by its own word, or since nobody opens.

    A server that is not Serve's, uvicorn say, has no such page; it opens to nobody once it ends.
    """
    try:
        async with asyncio.timeout(LOOK_S):
            reader, writer = await asyncio.open_connection(*door)
            try:
                writer.write(f"GET {HEALTH} HTTP/1.0\r\nhost: {door[0]}\r\n\r\n".encode())
                line = await reader.readline()
            finally:
                writer.close()
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False  # it is busy
    return line.split()[1:2] == [b"503"]
