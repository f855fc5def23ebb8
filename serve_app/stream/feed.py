"""One model's events on one replica: read once, for all who listen.

A reader waits at the model's streams, and keeps the last events in a ring. Each listener walks the
ring at its own pace, and holds nothing. Who is further behind than the ring reaches, or comes back
with a cursor, reads the streams up to where the ring begins.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from online_learner.errors import Unavailable, trace
from online_learner.metrics.series import SECONDS_S
from online_learner.observe.observer import MOST_ALARMS, MOST_POINTS
from online_learner.registry import Registry
from online_learner.store import Entry, Fields, Store
from online_learner.store.keys import Keys
from serve_app.stream.cursor import Cursor, Place, at_moment, before, entry_of, place_of
from serve_app.stream.telling import Event, Telling

log = logging.getLogger(__name__)

RING = 1000  # events
PAGE = 100  # entries of each stream that are read in one go
LONGEST_S = 1.0  # that the reader waits at the streams
AGAIN_S = 0.2  # between two attempts at a store that does not answer
# Up to where these have been trimmed is noted in the store, under this name.
_TRIMMED = {"feedback": b"feedback", "swap": b"feedback"}
# These hold so many entries, or a few more.
_MOST = {"alarm": MOST_ALARMS, "quality": MOST_POINTS}


@dataclass(frozen=True, slots=True)
class Page:
    """What came after a cursor.

    Parameters
    ----------
    lost
        Kinds of which some events are gone: they have been trimmed.
    begin, end
        Where the page begins, if not at the cursor, and where it ends.
    """

    lost: tuple[str, ...]
    begin: Cursor
    events: list[Event]
    end: Cursor


class Feed:
    """What happens to one model, read from a moment on, until it is closed.

    Attributes
    ----------
    model
        Its name.
    news
        Set when there is something new; another event has taken its place by then.
    start
        By kind, the place after which the ring has everything.
    quiet
        By kind, a place up to which there is nothing but what is, or was, in the ring.
    count
        How many events were ever in the ring.
    """

    def __init__(self, registry: Registry, moment: Cursor) -> None:
        self.model = registry.model
        self._registry = registry
        self._store = registry.store
        self._streams = _streams(registry.keys)
        self._ring: deque[Event] = deque()
        self._asked_at = time.monotonic()
        self.news = asyncio.Event()
        self.start = dict(moment)
        self.quiet = dict(moment)
        self.count = 0
        self._task = asyncio.create_task(self._run(dict(moment)))

    async def close(self) -> None:
        """Stop reading, and wake who listens."""
        self.wake()
        while not self._task.done():  # redis-py may swallow a cancellation
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1.0)

    def wake(self) -> None:
        """Wake all who wait for news."""
        news, self.news = self.news, asyncio.Event()
        news.set()

    def since(self, number: int) -> list[Event]:
        """Return the events of the ring from a number on."""
        length = min(self.count - number, len(self._ring))
        return [self._ring[-i] for i in range(length, 0, -1)]

    # --- from now on --------------------------------------------------------------------------

    async def _run(self, at: Cursor) -> None:
        telling, failing, this = Telling(self._registry), False, asyncio.current_task()
        assert this is not None
        while not this.cancelling():
            try:
                self._add(await self._read(telling, at))
                failing = False
            except Exception as error:
                if not failing and not isinstance(error, Unavailable):
                    log.error("the events of a model cannot be read\n%s", trace(error))  # noqa: TRY400
                failing = True
                await asyncio.sleep(AGAIN_S)

    async def _read(self, telling: Telling, at: Cursor) -> list[Event]:
        """Wait for what is new, and return it; `at` is moved on."""
        moment = await self._moment()
        block_ms = max(1, int(1000 * min(LONGEST_S, telling.wait_s())))
        offsets = {stream: entry_of(at[kind]) for kind, stream in self._streams.items()}
        found = await self._store.read(offsets, count=PAGE, block_ms=block_ms)
        events = []
        for kind, place, fields in _in_order(self._streams, found):
            at[kind] = place
            events += telling.take(kind, place, fields)
        events += telling.due()
        for kind, stream in self._streams.items():
            whole = len(found.get(stream, ())) < PAGE
            if moment is not None and whole and not telling.waits(kind):
                self.quiet[kind] = max(moment[kind], at[kind])
        return events

    async def _moment(self) -> Cursor | None:
        """Return the present moment by the store's clock; None where it was asked for just now."""
        if time.monotonic() - self._asked_at < LONGEST_S:
            return None
        self._asked_at = time.monotonic()
        return await now(self._store)

    def _add(self, events: Sequence[Event]) -> None:
        for event in events:
            self._ring.append(event)
            self.count += 1
            if len(self._ring) > RING:
                gone = self._ring.popleft()
                self.start[gone.kind] = gone.place
        if events:
            self.wake()

    # --- from a cursor on ---------------------------------------------------------------------

    async def read_back(self, cursor: Cursor, kinds: Sequence[str]) -> Page:
        """Return what came after a cursor and is not in the ring; raises `Unavailable`."""
        limit = dict(self.start)  # as it is before the streams are read: the ring has the rest
        streams = {kind: self._streams[kind] for kind in kinds}
        offsets = {stream: entry_of(cursor[kind]) for kind, stream in streams.items()}
        found = await self._store.read(offsets, count=PAGE)
        lost = await self._lost(cursor, kinds)
        begin = {**cursor, **lost}
        for entries in found.values():
            if len(entries) == PAGE:  # what is later in another stream is not in order yet
                bound = place_of(entries[-1][0])
                limit |= {kind: min(limit[kind], bound) for kind in kinds}
        telling, events = Telling(self._registry), []
        for kind, place, fields in _in_order(streams, found):
            if begin[kind] < place <= limit[kind]:
                events += telling.take(kind, place, fields)
        end = begin | {kind: max(begin[kind], limit[kind]) for kind in kinds}
        return Page(tuple(lost), begin, [*events, *telling.rest()], end)

    async def _lost(self, cursor: Cursor, kinds: Sequence[str]) -> Cursor:
        """Return, by kind, up to where what came after a cursor has been trimmed."""
        noted = await self._store.hash(self._registry.keys.trimmed)
        least = {kind: place_of(noted.get(name, b"0").decode()) for kind, name in _TRIMMED.items()}
        least["metrics"] = (int((time.time() - SECONDS_S) * 1000), 0)
        for kind in _MOST.keys() & set(kinds):
            least |= await self._kept(kind)
        gone = {kind: before(least[kind]) for kind in kinds if kind in least}
        return {kind: place for kind, place in gone.items() if cursor[kind] < place}

    async def _kept(self, kind: str) -> Cursor:
        """Return the first place of a stream that is full; of others, nothing is gone."""
        stream = self._streams[kind]
        if int(await self._store.call("XLEN", stream)) < _MOST[kind]:
            return {}
        first = await self._store.range(stream, count=1)
        return {kind: place_of(first[0][0])} if first else {}


async def now(store: Store) -> Cursor:
    """Return the cursor of who has heard all until now, by the store's clock."""
    seconds, micros = await store.call("TIME")
    return at_moment(int(seconds) * 1000 + int(micros) // 1000)


def _streams(keys: Keys) -> dict[str, str]:
    return {
        "metrics": keys.metrics,
        "feedback": keys.feedback,
        "verdict": keys.verdicts,
        "swap": keys.served,
        "alarm": keys.alarms,
        "quality": keys.quality,
    }


def _in_order(
    streams: Mapping[str, str], found: Mapping[str, list[Entry]]
) -> Iterator[tuple[str, Place, Fields]]:
    """Yield kind, place and fields of what several streams have, in the order of their ids."""
    rows = [
        (place_of(entry), kind, fields)
        for kind, stream in streams.items()
        for entry, fields in found.get(stream, ())
    ]
    for place, kind, fields in sorted(rows, key=lambda row: row[:2]):
        yield kind, place, fields
