"""What writers left behind that died: files that are in no list."""

from __future__ import annotations

import asyncio
import re

from online_learner.archive.log import Log
from online_learner.archive.place import Place
from online_learner.archive.segments import ERA, unsealed
from online_learner.registry import Registry

_NAME = re.compile(r"(\w+)/date=[\d-]+/(\d+-\d+)_(\d+-\d+)(?:-\w+)?\.parquet")
PARTIAL_S = 600.0  # a file takes less to be written


async def sweep(registry: Registry, place: Place, *, partial_s: float = PARTIAL_S) -> list[str]:
    """Remove files that are in no list; returns their names.

    Only those go that another took the place of, and those of a stretch that the record still has.
    All else stays: the store may have lost its list, and the files may be all that is left. What
    was begun `partial_s` seconds ago, and is not whole, goes too.

    Others may write meanwhile. The files are looked for first, then the era moves, and then the
    list is read: whoever has written one of these files, and not listed it by then, does no more.

    Raises
    ------
    DataError
        The archive cannot be looked at, or is damaged.
    """
    log, removed = Log(registry, place), list[str]()
    folder = f"model={registry.model}"
    parts = await asyncio.to_thread(place.at(folder).clear, partial_s)
    removed += [f"{folder}/{path}" for path in parts]
    there = await asyncio.to_thread(place.at(folder).files)
    listed = await registry.store.hash(registry.keys.segments)
    unlisted = [
        (f"{folder}/{path}", found)
        for path in there
        if (found := _NAME.fullmatch(path)) is not None
        and f"{folder}/{path}".encode() not in listed.get(f"{found[1]}|{found[2]}".encode(), b"")
    ]
    if unlisted:
        await registry.store.essential("HINCRBY", registry.keys.archive, ERA, 1)
    for path, found in unlisted:
        if not await _is_listed(registry, path, found) and await _is_spare(log, *found.groups()):
            await asyncio.to_thread(place.remove, path)
            removed.append(path)
    return removed


async def _is_listed(registry: Registry, path: str, found: re.Match[str]) -> bool:
    field = f"{found[1]}|{found[2]}"
    listed = await registry.store.call("HGET", registry.keys.segments, field)
    return listed is not None and unsealed(registry, field, listed).path == path


async def _is_spare(log: Log, stream: str, after: str, last: str) -> bool:
    registry, field = log.registry, f"{stream}|{after}"
    keys = registry.keys
    listed = await registry.store.call("HGET", keys.segments, field)
    if listed is not None:
        if unsealed(registry, field, listed).last == last:
            return True
    elif (await registry.store.call("HGET", keys.archive, stream) or b"0-0").decode() != after:
        return False
    return bool(await log.range(stream, last, last))
