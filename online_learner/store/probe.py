"""What the server says of itself: what an acknowledged write survives, and how full it is.

It is asked again and again, since whoever runs it may change it under us. Nothing is taken on
trust from our own configuration: the class of a receipt is that of the server as it runs.
"""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from redis.exceptions import ResponseError

from online_learner.errors import StoreFull, Unavailable

Durability: TypeAlias = Literal["fsynced", "os", "none", "unknown"]
State: TypeAlias = Literal["ok", "tight", "full"]
Values: TypeAlias = Mapping[str, Any]

TIGHT, FULL = 0.70, 0.95  # shares of the memory: unaudited predictions give way; feedback as well
SETTINGS = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite")
SECTIONS = ("persistence", "memory", "commandstats")
LOG_ALL = "CONFIG SET appendfsync always, CONFIG SET appendonly yes, and then CONFIG REWRITE"
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, slots=True)
class Promise:
    """What an acknowledged write survives, why, and what would let it survive more.

    `fsynced`: kill -9 and power cut; `os`: kill -9 of the server, save for what waits for a slow
    sync, two seconds at most, and no power cut; `none`: it may be lost at any time; `unknown`: the
    server does not say.
    """

    durability: Durability
    reason: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """How much of its memory the server has used, in bytes, and what counts as all of it."""

    used_bytes: int
    limit_bytes: int

    @property
    def state(self) -> State:
        """`ok`; `tight`: unaudited predictions give way; `full`: feedback as well."""
        share = self.used_bytes / self.limit_bytes
        return "full" if share >= FULL else "tight" if share >= TIGHT else "ok"

    def render(self) -> dict[str, Any]:
        """Return it as it is told."""
        return {
            "used_bytes": self.used_bytes,
            "limit_bytes": self.limit_bytes,
            "state": self.state,
        }

    def __str__(self) -> str:
        return f"{self.used_bytes >> 20} of {self.limit_bytes >> 20} MiB used"


@dataclass(frozen=True, slots=True)
class Health:
    """What the server said when it was last asked.

    Parameters
    ----------
    memory
        None where the server does not tell.
    eviction
        Its policy, or `unknown`.
    """

    promise: Promise = Promise("unknown", "the server has not been asked")
    memory: Memory | None = None
    eviction: str = "unknown"

    @property
    def durability(self) -> Durability:
        """What an acknowledged write survives."""
        return self.promise.durability

    @property
    def evicts(self) -> bool:
        """Whether the server may drop what was acknowledged."""
        return self.eviction not in ("noeviction", "unknown")

    @property
    def reliable(self) -> bool:
        """Whether what is acknowledged survives the death of the server, at the least."""
        return self.durability in ("fsynced", "os") and not self.evicts

    def describe(self) -> dict[str, Any]:
        """Return class, reason and cure, and the memory, as they are told."""
        found: dict[str, Any] = {
            "durability": self.durability,
            "durability_reason": self.promise.reason,
        }
        if self.promise.cure:
            found["durability_cure"] = self.promise.cure
        if self.evicts:
            found["eviction"] = eviction_told(self.eviction)
        return found | {"memory": None if self.memory is None else self.memory.render()}

    def sentence(self) -> str:
        """Return what is to be known of it in one line: for a log, or a terminal."""
        promise = self.promise
        cure = f" Cure: {promise.cure}." if promise.cure else ""
        evicts = f" {eviction_told(self.eviction)}." if self.evicts else ""
        return f"The store's durability is {promise.durability}: {promise.reason}.{cure}{evicts}"

    def check_feedback(self) -> None:
        """Raise where nothing may be accepted that has to be kept.

        Raises
        ------
        StoreFull
            The memory is used up but for what the learner needs to go on.
        Unavailable
            The server has been set to evict.
        """
        if self.evicts:
            raise Unavailable(f"{eviction_told(self.eviction)}; until then nothing is accepted")
        if self.memory is not None and self.memory.state == "full":
            raise StoreFull(f"the store is full ({self.memory}): nothing was accepted. {MORE_ROOM}")

    def no_room(self, *, audited: bool) -> StoreFull | None:
        """Return why an answer may not be logged, or None where there is room for it."""
        state = "ok" if self.memory is None else self.memory.state
        if state == "ok" or (state == "tight" and audited):
            return None
        return StoreFull(f"the store is nearly full ({self.memory}): not logged. {MORE_ROOM}")


MORE_ROOM = "There is room again as entries pass window_s; or raise maxmemory."


def eviction_told(policy: str) -> str:
    """Return what is wrong with a policy, and the cure."""
    return (
        f"the store's maxmemory-policy is {policy}: it would silently drop what was acknowledged. "
        "Run `CONFIG SET maxmemory-policy noeviction` and put it in redis.conf"
    )


class Probe:
    """Asks one server. It remembers one thing: the last time that no rewrite was under way.

    Parameters
    ----------
    call
        Sends a command.
    url
        Where the server is: for one on this machine, the limit of our own cgroup counts as well.
    """

    def __init__(self, call: Callable[..., Awaitable[Any]], url: str) -> None:
        self._call = call
        self._local = is_local(url)
        self._settled_at = 0  # how often the configuration had been changed by then

    async def look(self) -> Health:
        """Ask now; raises `Unavailable` where the server does not answer."""
        config = mapping(await self._ask("CONFIG", "GET", *SETTINGS))
        info = mapping(await self._ask("INFO", *SECTIONS))
        memory = memory_of(info, local=self._local)
        policy = str(info.get("maxmemory_policy", "unknown"))
        return Health(promise(config, info, logged=self._is_logged(info)), memory, policy)

    def _is_logged(self, info: Values) -> bool:
        """Tell whether what is written goes into a log that counts.

        INFO does not tell the first rewrite after `CONFIG SET appendonly yes`, before whose end
        the log counts for nothing, from any other; but whether anybody has changed the
        configuration since no rewrite was under way.
        """
        running = info.get("aof_rewrite_in_progress") or info.get("aof_rewrite_scheduled")
        failed = info.get("aof_last_bgrewrite_status", "ok") != "ok"
        changes = _changes(info)
        if running or failed:
            return changes == self._settled_at
        self._settled_at = changes
        return True

    async def _ask(self, *command: str) -> Any:
        try:
            return await self._call(*command)
        except ResponseError:  # it is forbidden, or has another name
            return None


def promise(config: Values, info: Values, *, logged: bool) -> Promise:
    """Return what an acknowledged write survives.

    Parameters
    ----------
    config, info
        What the server told; empty where it does not tell.
    logged
        Whether what is written goes into a log that counts.
    """
    if config.get("appendonly") == "no" or info.get("aof_enabled") == 0:
        return Promise("none", "the server keeps no log of its writes (appendonly no)", LOG_ALL)
    if info.get("aof_last_write_status", "ok") != "ok":
        cure = "see the server's log: is its disk full?"
        return Promise("none", "the server could not write its log", cure)
    if not info or not config:
        cure = "allow INFO and CONFIG GET for our user, or ask who runs it"
        return Promise("unknown", "the server does not let us see how it runs", cure)
    if not logged:
        reason = (
            "the log was switched on while the server ran, and its first rewrite has not finished: "
            "after a crash the server would know nothing of what came since"
        )
        return Promise("none", reason, "wait for the rewrite; where it failed, run BGREWRITEAOF")
    if _perhaps_for_now(info):
        reason = (
            "the configuration was changed while the server ran, and not kept: if the log was "
            "switched on by that, the next start will not read it"
        )
        cure = "CONFIG REWRITE; or put `appendonly yes` in its configuration, and start it anew"
        return Promise("unknown", reason, cure)
    return _by_sync(config)


def _by_sync(config: Values) -> Promise:
    sync = config.get("appendfsync")
    if sync != "always":
        held = " and, while one sync takes long, before it is written at all" * (sync == "everysec")
        reason = f"the server answers before its log is on disk{held} (appendfsync {sync})"
        return Promise("os", reason, "CONFIG SET appendfsync always, and then CONFIG REWRITE")
    if config.get("no-appendfsync-on-rewrite") == "yes":
        reason = "while its log is rewritten, the server does not sync it"
        cure = "CONFIG SET no-appendfsync-on-rewrite no, and then CONFIG REWRITE"
        return Promise("os", reason, cure)
    return Promise("fsynced", "a write is on disk before it is acknowledged (appendfsync always)")


def _perhaps_for_now(info: Values) -> bool:
    """Tell whether the log may have been switched on by a `CONFIG SET` that nobody has kept.

    Switching it on takes a rewrite. The server does not tell with which configuration it started.
    """
    return bool(info.get("aof_rewrites") and _changes(info) and not _calls(info, "rewrite"))


def _changes(info: Values) -> int:
    """Return how often the configuration was changed; or the statistics, which hides the same."""
    return _calls(info, "set") + _calls(info, "resetstat")


def _calls(info: Values, command: str) -> int:
    """Return how often a command of CONFIG did what it should."""
    stats = info.get(f"cmdstat_config|{command}", {})
    return int(stats.get("calls", 0)) - int(stats.get("failed_calls", 0))


# --- memory -----------------------------------------------------------------------------------


def memory_of(info: Values, *, local: bool) -> Memory | None:
    """Return how full the server is: of `maxmemory`, else of the memory of its host."""
    if "used_memory" not in info:
        return None
    limit = int(info.get("maxmemory", 0))
    if not limit:
        total = int(info.get("total_system_memory", 0))
        limit = min(total or host_memory_bytes(), host_memory_bytes()) if local else total
    if not limit:
        return None
    used = int(info["used_memory"]) - int(info.get("mem_not_counted_for_evict", 0))
    return Memory(used, limit)


def host_memory_bytes() -> int:
    """Return the memory of this machine, or the limit of our cgroup where that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # absent, or `max`
            limits.append(int(Path(path).read_text()))
    return min(limits)


def is_local(url: str) -> bool:
    """Tell whether a server is on this machine.

    >>> is_local("unix:///run/valkey.sock"), is_local("redis://:pw@10.0.0.3:6379")
    (True, False)
    """
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "unix" or parts.hostname in ("localhost", "127.0.0.1", "::1")


def mapping(reply: Any) -> dict[str, Any]:
    """Return a reply as a dictionary, by whatever form the client gives it; empty for none."""
    if isinstance(reply, dict):
        return {text(key): text(value) for key, value in reply.items()}
    if not reply:
        return {}
    return dict(zip(map(text, reply[::2]), map(text, reply[1::2]), strict=True))


def text(value: Any) -> Any:
    """Return bytes as text, and anything else as it is."""
    return value.decode() if isinstance(value, bytes) else value
