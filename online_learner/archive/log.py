"""Archive and store as one record: what has left the one is read from the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from online_learner.archive.place import Place
from online_learner.registry import Registry
from online_learner.store import Entry, Fields

PAGE = 2000


class Log:
    """One model's record, from its beginning to now.

    Streams go by their short names: `predictions`, `feedback`, `late`, `steps`, `quarantine`,
    `verdicts`, `resets`, `evidence`.

    Parameters
    ----------
    place
        Where the archive of all models is; None where there is none, and the store is all there is.
    """

    def __init__(self, registry: Registry, place: Place | None = None) -> None:
        self.registry = registry
        self.place = place

    async def range(
        self, stream: str, start: str = "-", end: str = "+", *, count: int | None = None
    ) -> list[Entry]:
        """Return the entries from `start` to `end`, both included (`(id` excludes it), in order."""
        store, keys = self.registry.store, self.registry.keys
        return await store.range(getattr(keys, stream), start, end, count=count)

    async def entries(self, places: Sequence[tuple[str, str]]) -> list[Fields | None]:
        """Return the entries of (stream, id) pairs, None where there is none."""
        keys = self.registry.keys
        return await self.registry.store.entries(
            [(getattr(keys, stream), entry) for stream, entry in places]
        )

    async def pages(
        self, stream: str, after: str = "0-0", until: str = "+", *, most: int = PAGE
    ) -> AsyncIterator[list[Entry]]:
        """Yield the entries after one, up to another, a page at a time, in order."""
        while page := await self.range(stream, f"({after}", until, count=most):
            yield page
            after = page[-1][0]

    async def last(self, stream: str) -> str:
        """Return the newest entry of a stream, `0-0` where there is none."""
        store, keys = self.registry.store, self.registry.keys
        found = await store.latest(getattr(keys, stream))
        return found[0][0] if found else "0-0"

    async def begins(self, stream: str) -> str:
        """Return the entry before which nothing of a stream is kept anywhere; `0-0`: it is whole."""
        raise NotImplementedError
