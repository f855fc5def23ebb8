"""One who listens to a model: what is new since a cursor, as it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence

from online_learner.errors import Unavailable
from serve_app.stream.cursor import Cursor, pack
from serve_app.stream.feed import AGAIN_S, Feed
from serve_app.stream.telling import Event

LOST = "lost"
_LOST = "these were trimmed before they could be told: read the state anew"


class Listener:
    """One who listens to a feed, from a cursor on.

    Attributes
    ----------
    cursor
        How far all that was returned goes.
    """

    def __init__(self, feed: Feed, kinds: Sequence[str], cursor: Cursor) -> None:
        self._feed = feed
        self._kinds = tuple(kinds)
        self._next = 0
        self.cursor = dict(cursor)

    async def hear(self, within_s: float) -> bytes:
        """Return what is new, as it is sent; nothing, where nothing comes for so many seconds.

        It may return nothing earlier, too: then ask again.
        """
        if self._is_behind():
            return await self._past()
        news = self._feed.news
        if text := self._fresh():
            return text
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await news.wait()
        return b"" if self._is_behind() else self._fresh()

    def id_line(self) -> bytes:
        """Return the line that tells the cursor."""
        return f"id: {pack(self.cursor)}\n".encode()

    def _is_behind(self) -> bool:
        return any(self.cursor[kind] < self._feed.start[kind] for kind in self._kinds)

    def _fresh(self) -> bytes:
        events = self._feed.since(self._next)
        text = self._written(events)
        self._next = self._feed.count
        for kind in self._kinds:
            self.cursor[kind] = max(self.cursor[kind], self._feed.quiet[kind])
        return text

    async def _past(self) -> bytes:
        try:
            page = await self._feed.read_back(self.cursor, self._kinds)
        except Unavailable:  # it may come back, and the connection stands
            await asyncio.sleep(AGAIN_S)
            return b""
        self.cursor, text = page.begin, b""
        if page.lost:
            told = {"model": self._feed.model, "at": time.time(), "events": page.lost}
            text = Event.of(LOST, (0, 0), {**told, "detail": _LOST}).text + self.id_line() + b"\n"
        text += self._written(page.events)
        self.cursor = page.end
        return text

    def _written(self, events: Iterable[Event]) -> bytes:
        parts: list[bytes] = []
        for event in events:
            if event.kind in self._kinds and event.place > self.cursor[event.kind]:
                self.cursor[event.kind] = event.place
                parts += (event.text, self.id_line(), b"\n")
        return b"".join(parts)
