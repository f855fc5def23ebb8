"""Streams rebuilt under the same ids, without what was erased, while others go on appending.

An entry that is deleted by itself stays in the server's memory, and in each log file that is
written from it: a stream keeps its entries in blocks, and deleting only marks them. So the whole
stream is copied, a portion at a time, and the copy takes its place in one step with what was
appended meanwhile. Ids stay, and so does the last one that was given: signed addresses, offsets of
readers and order in time mean what they meant.

The copy has an expiry until it is in its place: of an attempt that was cut short nothing is left.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from online_learner.errors import Conflict, StateError
from online_learner.registry import Registry
from online_learner.store import Entry

PAGE = 500  # entries in one portion: the server does nothing else for a few milliseconds
LAST = 2000  # entries that are copied in the last step, together with the exchange
COPY_MS = 600_000  # for which a copy lives that nobody goes on with
LOCK_MS = 120_000
ROUNDS = 1000  # of catching up with those who append

Act: TypeAlias = Literal["x", "drop", "put"]


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of an entry: nothing of it stays, it is left out, or fields are put anew."""

    act: Act
    puts: tuple[tuple[str, bytes], ...] = ()

    def made(self, entry: Entry) -> Entry | None:
        """Return the entry as it is then; None where it is left out."""
        place, fields = entry
        if self.act == "drop":
            return None
        if self.act == "x":
            return place, {b"x": b"1"}
        return place, fields | {name.encode(): value for name, value in self.puts}


Judge: TypeAlias = Callable[[Entry], Change | None]


class Lock:
    """The right to rebuild the streams of one model; one holder at a time, and it expires."""

    def __init__(self, registry: Registry) -> None:
        self._store = registry.store
        self.key = registry.keys.lock("erase")
        self.token = secrets.token_hex(8)

    async def take(self) -> None:
        """Take it; raises `Conflict` where another holds it."""
        if not await self._store.call("SET", self.key, self.token, "NX", "PX", LOCK_MS):
            raise Conflict(
                "another erasure of this model is under way: wait until it has ended. One that was "
                f"killed counts as ended after {LOCK_MS // 1000} s"
            )

    async def keep(self) -> None:
        """Keep it for longer; raises `Conflict` where it was lost."""
        if await self._store.call("GET", self.key) != self.token.encode():
            raise lost()
        await self._store.call("PEXPIRE", self.key, LOCK_MS)

    async def give_back(self) -> None:
        """Give it back, if it is still held."""
        if await self._store.call("GET", self.key) == self.token.encode():
            await self._store.call("DEL", self.key)


@asynccontextmanager
async def locked(registry: Registry) -> AsyncIterator[Lock]:
    """Hold the lock of a model meanwhile."""
    lock = Lock(registry)
    await lock.take()
    try:
        yield lock
    finally:
        await lock.give_back()


def lost() -> Conflict:
    """Return the error of one who was taken for dead meanwhile."""
    return Conflict(
        "this erasure took too long between two steps, and another may be under way: run it again, "
        "and it goes on where it stopped"
    )


class Rebuilder:
    """Rebuilds streams of one model.

    Parameters
    ----------
    lock
        That is held.
    """

    def __init__(self, registry: Registry, lock: Lock) -> None:
        self._registry = registry
        self._store = registry.store
        self._lock = lock

    async def rebuild(self, stream: str, judge: Judge, *, drops: bool = False) -> int:
        """Rebuild a stream; returns how many entries were changed. It is left alone where none is.

        Parameters
        ----------
        stream
            By its short name.
        judge
            Says what becomes of an entry; None: it stays.
        drops
            Whether entries may be left out.

        Raises
        ------
        Conflict
            The lock was lost.
        StateError
            The copy is not as long as the stream, which is as it was.
        Unavailable
            The store does not answer, or has no room for a copy. The stream is as it was.
        """
        if not await self._concerned(stream, judge):
            return 0
        await self._run("begin", stream, ("0-0", "0-0"), 0, drops=drops)
        try:
            changed = await self._copy(stream, judge, drops=drops)
        except BaseException:
            await self._drop(stream)
            raise
        if changed is None:
            await self._drop(stream)
            raise StateError(
                f"the copy of the stream '{stream}' is not what the stream is, which was left as "
                "it was: something else writes to it. Run the erasure again"
            )
        return changed

    async def _copy(self, stream: str, judge: Judge, *, drops: bool) -> int | None:
        """Copy and exchange; returns how many entries were changed, None where it went wrong."""
        count, after = 0, "0-0"
        for _ in range(ROUNDS):
            async for page in self._pages(stream, after):
                changes, last = _changes(page, judge), page[-1][0]
                await self._run("copy", stream, (after, last), len(page), changes, drops=drops)
                count, after = count + len(changes), last
            changes = _changes(await self._range(stream, after, LAST), judge)
            done = await self._run("finish", stream, (after, "+"), LAST, changes, drops=drops)
            if done == "ok":
                return count + len(changes)
            if done == "unequal":
                return None
        return None

    async def _concerned(self, stream: str, judge: Judge) -> bool:
        async for page in self._pages(stream, "0-0"):
            if any(judge(entry) is not None for entry in page):
                return True
            await self._lock.keep()
        return False

    async def _pages(self, stream: str, after: str) -> AsyncIterator[list[Entry]]:
        while page := await self._range(stream, after, PAGE):
            yield page
            after = page[-1][0]
            if len(page) < PAGE:
                return

    async def _range(self, stream: str, after: str, count: int) -> list[Entry]:
        key = getattr(self._registry.keys, stream)
        return await self._store.range(key, f"({after}", count=count)

    async def _run(
        self,
        mode: str,
        stream: str,
        between: tuple[str, str],
        most: int,
        changes: Iterable[tuple[str, Change]] = (),
        *,
        drops: bool,
    ) -> str:
        keys = self._registry.keys
        names = [getattr(keys, stream), keys.copy(stream), keys.copy(f"{stream}:old")]
        arguments: list[str | int | bytes] = [mode, self._lock.token, *between, most, COPY_MS]
        arguments.append("" if drops else "exact")
        for entry, change in changes:
            for name, value in change.puts or (("", b""),):
                arguments += (entry, change.act, name, value)
        await self._lock.keep()
        done: bytes = await self._store.run(
            "rebuild", [*names, self._lock.key, keys.archive], arguments
        )
        if done == b"lost":
            raise lost()
        return done.decode()

    async def _drop(self, stream: str) -> None:
        await self._store.call("UNLINK", self._registry.keys.copy(stream))


def _changes(page: Sequence[Entry], judge: Judge) -> list[tuple[str, Change]]:
    found = [(entry, judge((entry, fields))) for entry, fields in page]
    return [(entry, change) for entry, change in found if change is not None]
