"""Servers as somebody may run them, which can be cut off from their power."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from online_learner.store import Store, embedded

REDIS = shutil.which("redis-server")
STOCK = Path("/etc/redis/redis.conf")  # as Debian ships it


async def _nothing(store: Store) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Setup:
    """A server as somebody may run it.

    Parameters
    ----------
    prepare
        What is done to the running server before the load.
    load_s
        How long the load lasts, at least and at most, in seconds.
    """

    name: str
    options: dict[str, str] = field(default_factory=dict)
    binary: str = ""
    file: Path | None = None
    prepare: Callable[[Store], Awaitable[None]] = _nothing
    load_s: tuple[float, float] = (0.05, 0.5)


# --- the server -------------------------------------------------------------------------------


class Server:
    """One server on files of its own, which can be cut off from its power."""

    def __init__(self, setup: Setup, home: Path, library: Path) -> None:
        self.setup = setup
        self.home = home
        self.notes = home / "notes"
        self.socket = home / "s"
        self._library = library
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where to connect."""
        return f"unix://{self.socket}"

    def start(self, *, die_at: int | None = None) -> None:
        """Start it, and wait until it has loaded its log.

        Parameters
        ----------
        die_at
            At which sync it kills itself, if at all.
        """
        known = {"port": "0", "unixsocket": str(self.socket), "dir": str(self.home)}
        known |= {"daemonize": "no", "pidfile": "", "logfile": str(self.home / "log")}
        options = known | self.setup.options
        arguments = [self._file(self.setup.file)] if self.setup.file else []
        arguments += [part for key, value in options.items() for part in (f"--{key}", value)]
        environment = {**os.environ, "LD_PRELOAD": str(self._library), "CUT_LOG": str(self.notes)}
        environment |= {} if die_at is None else {"CUT_DIE_AT": str(die_at)}
        self._process = subprocess.Popen(
            [self.setup.binary or embedded.server_binary(), *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while not embedded.answers(self.socket):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it does not start: {(self.home / 'log').read_text()[-2000:]}")
            time.sleep(0.005)

    def _file(self, given: Path) -> str:
        """Return a configuration file of its own, which it may write."""
        own = self.home / given.name
        if not own.exists():
            own.write_bytes(given.read_bytes())
        return str(own)

    @property
    def dead(self) -> bool:
        """Whether it has ended."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """End it at once, and what it has forked."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def cut(self, rng: random.Random, *, torn: bool) -> None:
        """Leave of its logs what was on disk; `torn`: and part of a record behind that."""
        synced = self._synced()
        logs = sorted(self.home.glob("appendonlydir/*.incr.aof"), key=_sequence)
        for log in logs:
            found = log.stat()
            length = min(synced.get(found.st_ino, 0), found.st_size)
            if torn and log == logs[-1] and found.st_size - length > 1:
                length = rng.randint(length + 1, found.st_size - 1)
            os.truncate(log, length)

    def _synced(self) -> dict[int, int]:
        """Return by inode how much of each file was on disk."""
        if not self.notes.exists():
            return {}
        lines = self.notes.read_text().splitlines()
        return {int(inode): int(length) for inode, length in map(str.split, lines)}


def _sequence(log: Path) -> int:
    return int(log.name.split(".")[-3])


@contextlib.contextmanager
def built() -> Iterator[Path]:
    """Build the library that notes what is on disk."""
    with tempfile.TemporaryDirectory(prefix="ol-cut") as folder:
        library = Path(folder) / "synced.so"
        source = Path(__file__).with_name("synced.c")
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True)
        yield library


# --- of all kinds -----------------------------------------------------------------------------


async def _rewriting(store: Store) -> None:
    await _much_to_rewrite(store)
    await store.call("BGREWRITEAOF")


async def _much_to_rewrite(store: Store) -> None:
    for n in range(20):
        await store.call("SET", f"key{n}", "value")


async def _switched_on(store: Store) -> None:
    await _much_to_rewrite(store)
    await store.call("CONFIG", "SET", "appendonly", "yes")


async def _off_and_on(store: Store) -> None:
    await _much_to_rewrite(store)
    await store.call("CONFIG", "SET", "appendonly", "no")
    await store.call("CONFIG", "SET", "appendonly", "yes")


async def _made_durable_for_now(store: Store) -> None:
    """Do half of what `doctor` says, and wait until the log is whole."""
    await store.call("CONFIG", "SET", "appendfsync", "always")
    await store.call("CONFIG", "SET", "appendonly", "yes")
    while (await store.look()).durability == "none":
        await asyncio.sleep(0.01)


async def _made_durable(store: Store) -> None:
    await _made_durable_for_now(store)
    await store.call("CONFIG", "REWRITE")


LOG = {"appendonly": "yes", "save": ""}
ALWAYS = Setup("bundled: always", LOG | {"appendfsync": "always"})
EVERYSEC = Setup("bundled: everysec", LOG | {"appendfsync": "everysec"}, load_s=(0.3, 2.5))
NEVER = Setup("bundled: appendfsync no", LOG | {"appendfsync": "no"})


def setups() -> list[Setup]:
    """Return the servers of all kinds that can be had here."""
    always = ALWAYS.options
    slow = {"rdb-key-save-delay": "1000000"}  # a rewrite takes a second for each key
    found = [
        ALWAYS,
        Setup("bundled: always, log being rewritten", always | slow, prepare=_rewriting),
        Setup(
            "the same, no-appendfsync-on-rewrite yes",
            always | slow | {"no-appendfsync-on-rewrite": "yes"},
            prepare=_rewriting,
        ),
        EVERYSEC,
        NEVER,
        Setup("bundled: no log", {"appendonly": "no", "save": ""}),
        Setup("bundled: snapshots only", {"appendonly": "no", "save": "1 1"}, load_s=(0.5, 2.0)),
        Setup(
            "bundled: log just switched on",
            {"save": "", "appendfsync": "always"} | slow,
            prepare=_switched_on,
        ),
        Setup("bundled: log switched off and on", always | slow, prepare=_off_and_on),
    ]
    if REDIS is not None:
        found += [
            Setup("Redis 7.0: always", always, binary=REDIS),
            Setup("Redis 7.0: everysec", EVERYSEC.options, binary=REDIS, load_s=EVERYSEC.load_s),
        ]
    if REDIS is not None and os.access(STOCK, os.R_OK):
        stock: dict[str, Any] = {"binary": REDIS, "file": STOCK}
        found += [
            Setup("Debian's Redis, as it comes", **stock),
            Setup("the same, cured as we say", **stock, prepare=_made_durable),
            Setup("the same, without CONFIG REWRITE", **stock, prepare=_made_durable_for_now),
        ]
    return found
