"""The single writer of the archive: streams become files, each entry once.

A file is written first, and then listed, together with how far its stream has come, by one script.
What dies in between leaves a file that nobody lists, which is no part of the archive. Only a writer
that holds the fence may list a file, and only one that begins where the last ended.

Whoever rebuilds a stream (to erase, say) moves `era` in `keys.archive` with it, and so does whoever
sweeps: what was read or written before is then not listed, but read and written again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from online_learner.archive.files import MOST_BYTES, READ_ROWS, SegmentWriter, day, path_of
from online_learner.archive.form import STREAMS
from online_learner.archive.place import Place
from online_learner.archive.segments import ERA, field_of, sealed
from online_learner.archive.sweep import sweep
from online_learner.errors import DataError, Fenced
from online_learner.ids import entry_order
from online_learner.registry import Registry
from online_learner.retain import TOLD_BY
from online_learner.schema import Segment
from online_learner.store import Entry

log = logging.getLogger(__name__)

MOST_ROWS = 50_000
MOST_AGE_S = 3600.0
NIGHT_S = 60.0  # after midnight, what is of yesterday waits so long for more of it
EVERY_S = 5.0
MOST_PAUSE_S = 60.0  # after trouble
SWEEP_S = 3600.0
FIRST_ROWS = 32  # that are read before it is known how long they are
PAGE_BYTES = 4 << 20


@dataclass(slots=True)
class _Waiting:
    """What is known of the entries of a stream that are not in the archive yet.

    Attributes
    ----------
    after
        The last entry that is there.
    since
        When something was first seen to wait, in seconds since the epoch.
    added
        How many entries the stream had ever had when it was archived to `after`; None: unknown.
    """

    after: str = ""
    since: float | None = None
    added: int | None = None


class Archiver:
    """Moves one model's streams to its archive.

    Parameters
    ----------
    place
        Where the archive of all models is.
    window_s
        For how many seconds an answer takes feedback. What waits for a quarter of that, or for an
        hour, is archived.
    clock
        Seconds since the epoch.

    Attributes
    ----------
    trouble
        Why it cannot go on, or nothing.
    lag_s
        For how long the oldest entry has waited that is not archived.
    alive
        Awaited after each file.
    """

    def __init__(
        self,
        registry: Registry,
        place: Place,
        *,
        window_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.registry = registry
        self.place = place
        self.trouble = ""
        self._troubled_by: str | None = None
        self.lag_s = 0.0
        self.alive: Callable[[], Awaitable[None]] | None = None
        self._age_s = min(MOST_AGE_S, window_s / 4)
        self._clock = clock
        self._fence: str | None = None
        self._waiting = {stream: _Waiting() for stream in STREAMS}
        self._turned_at = self._swept_at = 0.0
        self._pause_s = EVERY_S
        self._begun = False

    async def turn(self) -> int:
        """Archive all that is due; returns how many entries that were.

        Raises
        ------
        DataError
            The archive cannot be written to. Nothing is lost: what is not there is not trimmed.
        Fenced
            Another process archives this model now.
        """
        return await self._all(flush=False)

    async def flush(self) -> int:
        """Archive everything that there is now; raises as `turn` does."""
        return await self._all(flush=True)

    async def turn_when_due(self) -> int:
        """Take a turn, unless that was done a moment ago; trouble is logged once, and kept.

        Raises
        ------
        Fenced
            Another process archives this model now.
        """
        now = self._clock()
        if 0 <= now - self._turned_at < self._pause_s:
            return 0
        self._turned_at = now
        try:
            done = await self.turn()
        except DataError as error:
            told, self._troubled_by, self.trouble = self._troubled_by, error.code, str(error)
            if told != error.code:
                log.error(  # noqa: TRY400
                    "nothing of '%s' is archived, and nothing is trimmed: %s",
                    self.registry.model,
                    error,
                )
            self._pause_s = min(MOST_PAUSE_S, 2 * self._pause_s)
            return 0
        if self.trouble:
            log.warning("'%s' is archived again", self.registry.model)
        self.trouble, self._troubled_by, self._pause_s = "", None, EVERY_S
        return done

    # --- what is due --------------------------------------------------------------------------

    async def _all(self, *, flush: bool) -> int:
        if self._fence is None:
            await self._begin()
        total, oldest = 0, self._clock()
        for stream in STREAMS:
            while (segment := await self._next(stream, flush=flush)) is not None:
                total += segment.rows
                if self.alive is not None:
                    await self.alive()
            since = self._waiting[stream].since
            oldest = oldest if since is None else min(oldest, since)
        self.lag_s = self._clock() - oldest
        self._begun = True
        if self._clock() - self._swept_at >= SWEEP_S:
            await self._sweep()
        return total

    async def _begin(self) -> None:
        """Take the fence, and give streams their place that have none yet."""
        keys = self.registry.keys
        fence = str(await self.registry.store.essential("INCR", keys.fence("archive")))
        streams = [part for stream in STREAMS for part in (stream, TOLD_BY.get(stream, ""))]
        await self._script("begin", fence, *streams)
        self._fence = fence
        await self._sweep()

    async def _sweep(self) -> None:
        self._swept_at = self._clock()
        try:
            removed = await sweep(self.registry, self.place)
        except DataError as error:  # what is archived is there all the same
            log.warning("files of '%s' that nobody lists stay: %s", self.registry.model, error)
            return
        for path in removed:
            log.info("removed %s, which nobody lists", path)

    async def _next(self, stream: str, *, flush: bool) -> Segment | None:
        """Archive the next stretch of a stream, where one is due; returns None where none is."""
        store, keys, waiting = self.registry.store, self.registry.keys, self._waiting[stream]
        key = getattr(keys, stream)
        mark, era = await store.call("HMGET", keys.archive, stream, ERA)
        after = (mark or b"0-0").decode()
        if after != waiting.after:
            waiting.after, waiting.since = after, None
        first = await store.range(key, f"({after}", count=1)
        if not first:
            waiting.since = None
            return None
        now, said_at = self._clock(), entry_order(first[0][0])[0] / 1000
        if waiting.since is None:  # ids of steps and evidence are older than they are
            waiting.since = now if self._begun else min(now, said_at)
        added = await self._added(stream)
        if not flush and not (
            self._is_old(first[0][0], now, waiting.since)
            or await self._is_much(stream, waiting, added)
        ):
            return None
        segment = await self._archive(stream, after, (era or b"0").decode())
        waiting.after, waiting.since = segment.last, None
        if waiting.added is not None:
            waiting.added += segment.rows
        return segment

    def _is_old(self, entry: str, now: float, since: float) -> bool:
        over = day(entry) < day(f"{max(0, int(now * 1000))}-0")
        return now - since >= (min(NIGHT_S, self._age_s) if over else self._age_s)

    async def _added(self, stream: str) -> int:
        """Return how many entries a stream has ever had."""
        key = getattr(self.registry.keys, stream)
        info = await self.registry.store.call("XINFO", "STREAM", key)
        return int(info[info.index(b"entries-added") + 1])

    async def _is_much(self, stream: str, waiting: _Waiting, added: int) -> bool:
        """Tell whether a whole file waits; it is counted once, and then reckoned."""
        store, key = self.registry.store, getattr(self.registry.keys, stream)
        length = int(await store.call("XLEN", key))
        used = int(await store.call("MEMORY", "USAGE", key) or 0)
        most = min(MOST_ROWS, MOST_BYTES * length / max(1, used))
        if waiting.added is None or not 0 <= added - waiting.added <= length:
            if length < most:
                return False
            waiting.added = added - await self._count(stream, waiting.after)
        return added - waiting.added >= most

    async def _count(self, stream: str, after: str) -> int:
        count = 0
        async for page in self._pages(stream, after):
            count += len(page)
        return count

    # --- a file -------------------------------------------------------------------------------

    async def _archive(self, stream: str, after: str, era: str) -> Segment:
        registry = self.registry
        segment = await self._written(stream, after)
        reply = await self._script(
            "commit",
            self._fence or "",
            stream,
            after,
            era,
            segment.last,
            field_of(segment),
            sealed(registry, segment),
        )
        if reply == "rebuilt":
            await asyncio.to_thread(self.place.remove, segment.path)
            era = (await registry.store.call("HGET", registry.keys.archive, ERA)).decode()
            return await self._archive(stream, after, era)
        return segment

    async def _written(self, stream: str, after: str) -> Segment:
        """Write the file of what comes next: of one day, and not too long."""
        model = self.registry.model
        writer = SegmentWriter(model, stream, after, most_rows=MOST_ROWS, most_bytes=MOST_BYTES)
        async for page in self._pages(stream, after):
            of_day = day(writer.first or page[0][0])
            fitting = [entry for entry in page if day(entry[0]) == of_day]
            taken = await asyncio.to_thread(writer.add, fitting)
            if taken < len(page) or writer.is_full:
                break
        path = path_of(model, stream, after, writer.last)
        return await asyncio.to_thread(writer.finish, self.place, path, writer.last)

    async def _pages(self, stream: str, after: str) -> AsyncIterator[list[Entry]]:
        """Yield what the store has after an entry, in pages: short ones where entries are long."""
        key, rows = getattr(self.registry.keys, stream), FIRST_ROWS
        while page := await self.registry.store.range(key, f"({after}", count=rows):
            yield page
            after, size = page[-1][0], sum(len(v) for _, fields in page for v in fields.values())
            rows = max(1, min(READ_ROWS, PAGE_BYTES * len(page) // max(1, size)))

    async def _script(self, *arguments: str) -> str:
        keys = self.registry.keys
        reply: bytes = await self.registry.store.run(
            "archive",
            [keys.fence("archive"), keys.archive, keys.segments, keys.trimmed],
            list(arguments),
        )
        if reply in (b"fenced", b"moved"):
            self._fence, self._begun = None, False
            raise Fenced(f"another process archives '{self.registry.model}' now")
        return reply.decode()
