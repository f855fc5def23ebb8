"""What the server has on its disk, written anew from what it holds: nothing erased stays there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from redis.exceptions import ResponseError

from online_learner.errors import Unavailable
from online_learner.store import Store
from online_learner.store.probe import mapping

LOOK_S = 0.1
PATIENCE_S = 3600.0  # a large log takes a while

Done: TypeAlias = Literal["rewritten", "none", "unproven"]


@dataclass(frozen=True, slots=True)
class Disk:
    """What became of the server's files.

    Parameters
    ----------
    aof, rdb
        `rewritten`; `none` where there is no such file; `unproven` where it is not known.
    todo
        What an operator has to do where it is not.
    """

    aof: Done
    rdb: Done
    todo: str = ""


async def rewrite(store: Store, alive: Callable[[int], Awaitable[None]]) -> Disk:
    """Have the server write its log, and its snapshot where it has one, anew; wait until it has."""
    await _forget_slow(store)
    config = await _config(store)
    aof, rdb, todo = await _aof(store, config, alive), await _rdb(store, config, alive), []
    if aof == "unproven":
        todo.append("run BGREWRITEAOF on the store, and see that aof_last_bgrewrite_status is ok")
    if rdb == "unproven":
        todo.append("run BGSAVE on the store if it keeps snapshots, and remove older ones")
    return Disk(aof, rdb, "; ".join(todo))


async def _config(store: Store) -> dict[str, Any]:
    """Return the server's settings that matter; empty where it does not tell."""
    names = ("appendonly", "save", "dir", "dbfilename", "appenddirname")
    try:
        return dict(mapping(await store.call("CONFIG", "GET", *names)))
    except (ResponseError, Unavailable):
        return {}


async def files(store: Store) -> list[Path]:
    """Return the server's log files and snapshots, as far as they can be read here."""
    config = await _config(store)
    home = Path(str(config.get("dir", "")) or "/nowhere")
    with contextlib.suppress(OSError):
        logs = sorted((home / str(config.get("appenddirname", "appendonlydir"))).glob("*.aof"))
        dump = home / str(config.get("dbfilename", "dump.rdb"))
        return [*logs, *([dump] if dump.is_file() else [])]
    return []


async def _aof(
    store: Store, config: dict[str, Any], alive: Callable[[int], Awaitable[None]]
) -> Done:
    if config.get("appendonly") == "no":
        return "none"
    before = await _idle(store, "aof_rewrite", alive)
    if before is None or before.get("aof_enabled") in (0, "0"):
        return "unproven" if before is None or not config else "none"
    if not await _ask(store, "BGREWRITEAOF"):
        return "unproven"
    after = await _idle(store, "aof_rewrite", alive)
    done = after is not None and _count(after, "aof_rewrites") > _count(before, "aof_rewrites")
    return (
        "rewritten" if done and after and after["aof_last_bgrewrite_status"] == "ok" else "unproven"
    )


async def _rdb(
    store: Store, config: dict[str, Any], alive: Callable[[int], Awaitable[None]]
) -> Done:
    if not config:
        return "unproven"
    dump = Path(str(config.get("dir", ""))) / str(config.get("dbfilename", ""))
    if not config.get("save") and not dump.is_file():
        return "none"
    before = await _idle(store, "rdb_bgsave", alive)
    if before is None or not await _ask(store, "BGSAVE"):
        return "unproven"
    after = await _idle(store, "rdb_bgsave", alive)
    done = after is not None and _count(after, "rdb_saves") > _count(before, "rdb_saves")
    return "rewritten" if done and after and after["rdb_last_bgsave_status"] == "ok" else "unproven"


async def _idle(
    store: Store, what: str, alive: Callable[[int], Awaitable[None]]
) -> dict[str, Any] | None:
    """Wait until nothing of a kind is under way, and return what the server says of it."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            info = dict(mapping(await store.call("INFO", "persistence")))
        except ResponseError:
            return None
        busy = (f"{what}_in_progress", "aof_rewrite_in_progress", "rdb_bgsave_in_progress")
        if not any(_count(info, name) for name in (*busy, "aof_rewrite_scheduled")):
            return info
        await alive(0)
        await asyncio.sleep(LOOK_S)
    return None


async def _ask(store: Store, command: str) -> bool:
    """Tell whether the server takes a command."""
    try:
        await store.call(command)
    except ResponseError:
        return False
    return True


async def _forget_slow(store: Store) -> None:
    """Empty the server's own list of slow commands: parts of what was sent stand in it."""
    for command in (("SLOWLOG", "RESET"), *(("COMMANDLOG", "RESET", k) for k in _KINDS)):
        with contextlib.suppress(ResponseError):
            await store.call(*command)


_KINDS = ("slow", "large-request", "large-reply")


def _count(info: dict[str, Any], name: str) -> int:
    return int(info.get(name, 0) or 0)
