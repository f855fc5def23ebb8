"""The store: streams, scripts and blobs in a server that speaks the Redis protocol.

`open_store` takes `redis://`, `rediss://` and `unix://` URLs; `auto` runs the bundled server.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self, TypeAlias, cast

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    InvalidResponse,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from online_learner.errors import ConfigError, Unavailable
from online_learner.secret import complete, shown
from online_learner.store.embedded import EmbeddedServer
from online_learner.store.probe import Durability, Health, Probe, eviction_told

__all__ = [
    "SCRIPTS",
    "Durability",
    "Entry",
    "Fields",
    "Health",
    "Store",
    "open_store",
    "translated",
]

Fields: TypeAlias = dict[bytes, bytes]
Entry: TypeAlias = tuple[str, Fields]

TIMEOUT_S = 0.9  # a request waits for the group before it and for its own: 503 within 2 s
# redis-py knows some refusals by class, and cuts their code off the message.
REFUSALS = (OutOfMemoryError, ReadOnlyError, ClusterDownError, TryAgainError)
REFUSAL_CODES = ("LOADING", "OOM", "MISCONF", "READONLY", "MASTERDOWN", "NOREPLICAS", "BUSY")
CONNECTIONS_MAX = 64
AGAIN_S = 0.2  # between two looks for a server that does not answer
SCRIPTS = (
    "journal",
    "ingest",
    "commit_step",
    "decide",
    "found",
    "register",
    "release",
    "retract",
    "unlearn",
    "remember",
    "trim",
    "meter",
    "observe",
    "lease",
    "give_back",
    "job",
    "rebuild",
    "archive",
    "configure",
    "essential",
)


class Store:
    """A connection to the server. Safe to share between tasks of one event loop.

    Nothing is retried here: whether a write that timed out took place is unknown, and only the
    caller knows whether to write it again would be right.

    Attributes
    ----------
    health
        What the server said of itself when it was last asked (`look`).
    """

    def __init__(self, url: str, *, server: EmbeddedServer | None = None) -> None:
        self.url, url = shown(url), complete(url)
        self._server = server
        options: dict[str, Any] = {
            "protocol": 2,
            "legacy_responses": False,
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": TIMEOUT_S,
        }
        # Who comes when all connections are in use waits for one, instead of being refused.
        pool: Any = aioredis.BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS_MAX,
            timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            **options,
        )
        self.redis: Any = aioredis.Redis.from_pool(pool)
        # Blocking reads wait on a connection of their own, longer than a write may take.
        self._waiting: Any = aioredis.Redis.from_url(url, socket_timeout=30.0, **options)
        self._scripts = {name: self.redis.register_script(_source(name)) for name in SCRIPTS}
        self._probe = Probe(self.call, url)
        self.health = Health()

    async def run(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run one of the package's scripts; all of it takes place, or none."""
        with translated():
            return await self._scripts[script](keys=list(keys), args=list(args))

    async def run_many(
        self, script: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]
    ) -> list[Any]:
        """Run a script once a call, in one round trip. Each call is atomic; errors are returned."""
        with translated():
            replies = await self._pipeline("EVALSHA", self._scripts[script].sha, calls)
            missing = [i for i, reply in enumerate(replies) if _no_script(reply)]
            if missing:  # the server was restarted: these did not run, and bring the script along
                again = await self._pipeline("EVAL", _source(script), [calls[i] for i in missing])
                for i, reply in zip(missing, again, strict=True):
                    replies[i] = reply
            return replies

    async def _pipeline(
        self, command: str, script: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]
    ) -> list[Any]:
        pipe = self.redis.pipeline(transaction=False)
        for keys, args in calls:
            pipe.execute_command(command, script, len(keys), *keys, *args)
        return cast("list[Any]", await pipe.execute(raise_on_error=False))

    async def read(
        self, offsets: dict[str, str], *, count: int, block_ms: int | None = None
    ) -> dict[str, list[Entry]]:
        """Read entries after the given offsets, at most `count` from each stream."""
        client = self.redis if block_ms is None else self._waiting
        with translated():
            reply = await client.xread(offsets, count=count, block=block_ms)
        return {
            _text(stream): [(_text(entry), fields) for entry, fields in _entries(entries)]
            for stream, entries in (reply or {}).items()
        }

    async def range(
        self, stream: str, start: str = "-", end: str = "+", *, count: int | None = None
    ) -> list[Entry]:
        """Return the entries from `start` to `end`, both included (`(id` excludes it)."""
        with translated():
            reply = await self.redis.xrange(stream, start, end, count=count)
        return [(_text(entry), fields) for entry, fields in reply]

    async def entries(self, places: Sequence[tuple[str, str]]) -> list[Fields | None]:
        """Return the entries of (stream, id) pairs, None where there is none, in one round trip."""
        pipe = self.redis.pipeline(transaction=False)
        for stream, entry in places:
            pipe.xrange(stream, entry, entry)
        with translated():
            found = await pipe.execute()
        return [entries[0][1] if entries else None for entries in found]

    async def latest(self, stream: str, count: int = 1, *, until: str = "+") -> list[Entry]:
        """Return the newest entries, up to an id, newest first."""
        with translated():
            reply = await self.redis.xrevrange(stream, until, count=count)
        return [(_text(entry), fields) for entry, fields in reply]

    async def backwards(self, stream: str, most: int, *, page: int = 500) -> AsyncIterator[Entry]:
        """Yield the newest entries, `most` at most, newest first; read a page at a time."""
        until = "+"
        while most > 0 and (found := await self.latest(stream, min(page, most), until=until)):
            for entry in found:
                yield entry
            most -= len(found)
            until = f"({found[-1][0]}"

    async def hash(self, key: str) -> Fields:
        """Return the whole hash, empty where the key does not exist."""
        with translated():
            return cast("Fields", await self.redis.hgetall(key))

    async def call(self, *command: Any) -> Any:
        """Send any other command."""
        with translated():
            return await self.redis.execute_command(*command)

    async def many(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send several commands in one round trip; returns their replies in order."""
        pipe = self.redis.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        with translated():
            return cast("list[Any]", await pipe.execute())

    async def listen(self, channel: str) -> AsyncIterator[bytes]:
        """Yield messages of a channel, for as long as the connection stands."""
        async with self._waiting.pubsub(ignore_subscribe_messages=True) as pubsub:
            with translated():
                await pubsub.subscribe(channel)
                while True:
                    message = await pubsub.get_message(timeout=20.0)
                    if message is not None:
                        yield message["data"]

    async def essential(self, command: str, key: str, *rest: Any) -> Any:
        """Send a small write that is possible even where the store is full."""
        return await self.run("essential", [key], [command, *rest])

    async def look(self) -> Health:
        """Ask the server what an acknowledged write survives, and how full it is."""
        self.health = await self._probe.look()
        return self.health

    def keep_running(self) -> None:
        """Start the bundled server again whenever it dies, if this process started it."""
        if self._server is not None:
            self._server.keep_running()

    async def close(self) -> None:
        """Close the connections, and stop the server if this process started it."""
        with contextlib.suppress(RedisError, OSError):
            await self.redis.aclose()
            await self._waiting.aclose()
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


async def open_store(
    url: str,
    *,
    data_dir: Path | str = ".online_learner",
    maxmemory_bytes: int | None = None,
    patience_s: float = 0.0,
) -> Store:
    """Open a store and check that it can be relied on.

    Parameters
    ----------
    url
        `redis://`, `rediss://`, `unix://`, or `auto`: the bundled server on a private socket under
        `data_dir`, started unless it runs already. A password that is not in it is found in the
        environment; see `secret`.
    maxmemory_bytes
        What the bundled server may use, where it is started; see `embedded`.
    patience_s
        For how many seconds a server is waited for that does not answer.

    Raises
    ------
    ConfigError
        The URL has another scheme, or the server is set to evict keys.
    Unavailable
        No server answers.
    """
    server = None
    if url == "auto":
        server = EmbeddedServer.ensure(Path(data_dir), maxmemory_bytes=maxmemory_bytes)
        url = server.url
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ConfigError(
            "store: it is none of auto, redis://host:port, rediss://host:port, unix:///path"
        )
    try:
        store = Store(url, server=server if server is not None and server.owned else None)
    except ValueError:  # what it says repeats parts of the URL
        raise ConfigError(
            "store: it is no URL of a store. In a password, percent-encode what is special in a "
            "URL: / as %2F, ? as %3F, # as %23, @ as %40"
        ) from None
    try:
        health = await _first_look(store, patience_s)
    except BaseException:
        await store.close()
        raise
    if health.evicts:
        await store.close()
        raise ConfigError(f"{eviction_told(health.eviction)}.")
    return store


async def _first_look(store: Store, patience_s: float) -> Health:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            await store.call("PING")
            return await store.look()
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
        await asyncio.sleep(AGAIN_S)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the client's connection errors into `Unavailable`."""
    try:
        yield
    except AuthenticationError:
        raise Unavailable(
            "the store refuses our password, or asks for one: give the whole URL in OL_STORE or "
            "REDIS_URL, or in a file that OL_STORE_FILE or REDIS_URL_FILE names"
        ) from None
    except (RedisConnectionError, RedisTimeoutError, InvalidResponse, OSError) as error:
        raise Unavailable(
            "the store does not answer; nothing was accepted. Try again; if it lasts, run "
            "`online-learner doctor`."
        ) from error
    except ResponseError as error:
        if isinstance(error, REFUSALS) or str(error).startswith(REFUSAL_CODES):
            raise Unavailable(f"the store refuses writes: {error}") from error
        raise


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(f"lua/{name}.lua").read_text("utf-8")


def _no_script(reply: Any) -> bool:
    return (
        isinstance(reply, ResponseError) and "NOSCRIPT" in f"{type(reply).__name__} {reply}".upper()
    )


def _entries(entries: Any) -> Any:
    # redis-py nests the entries of a stream once more under RESP2.
    return entries[0] if entries and isinstance(entries[0], list) else entries


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
