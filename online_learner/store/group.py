"""Group commit: what is asked for while a round trip is under way shares the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class GroupCommit(Generic[T, R]):
    """Gathers items and commits them in groups, one group at a time, in order.

    Parameters
    ----------
    commit
        Commits a group; returns a result, or the error, for each item. If it raises, all of the
        group fail with that.
    most
        Items in one group.
    """

    def __init__(
        self, commit: Callable[[list[T]], Awaitable[Sequence[R | Exception]]], *, most: int
    ) -> None:
        self._commit = commit
        self._most = most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._flusher: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """Return the item's result once its group is committed; raise its error.

        An item is committed even if the caller is cancelled meanwhile.
        """
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())
        return await done

    async def _flush(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._commit_group(group)
        finally:
            self._flusher = None

    async def _commit_group(self, group: list[tuple[T, asyncio.Future[R]]]) -> None:
        results: Sequence[R | Exception]
        try:
            results = await self._commit([item for item, _ in group])
        except Exception as error:
            results = [error] * len(group)
        for (_, done), result in zip(group, results, strict=True):
            if done.done():
                continue
            if isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)
