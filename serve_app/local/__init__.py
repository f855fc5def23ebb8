"""Everything on this machine: the bundled store, a Ray of its own, the gateway and the models."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import logging
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from online_learner import auth, config
from online_learner.errors import ConfigError, Unavailable
from online_learner.ids import Keyring
from online_learner.note import NOTE, Note
from online_learner.retrain.search import check_search
from online_learner.secret import read_or_create
from online_learner.settings import Settings
from online_learner.stages import check_model
from online_learner.store import Health, Store, open_store
from serve_app.local import environment
from serve_app.local.ending import stop
from serve_app.local.guardian import Guardian, is_alive, sweep
from serve_app.telemetry import logs, ray_metrics

READY_S = 120.0
SWEPT_S = 15.0  # a guardian that outlived the one before us takes less
LOCK = "up.lock"
_LEAST_BYTES = 1 << 20  # for what is written before the store says how much room there is
_SCRATCH_BYTES = 13  # HAProxy takes 97 for a socket, less the names that Serve gives folders


class Tell(Protocol):
    """Told whenever a part begins to start, and when it is ready."""

    def __call__(self, part: str, *, ready: bool) -> None:
        """Show it."""


def _tell_nobody(part: str, *, ready: bool) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Endpoint(Note):
    """Where the running system is, the key that it takes, and what is wrong with its store."""

    warning: str = ""


@contextlib.contextmanager
def running(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    tell: Tell = _tell_nobody,
) -> Iterator[Endpoint]:
    """Start everything, yield where it is, and stop everything it started.

    Call it from the main thread, before Ray is imported. What a killed one left behind on this
    `data_dir` is cleared away first.

    Raises
    ------
    ConfigError
        A model's configuration cannot be used (a GPU that is not there, say), `data_dir` cannot be
        written to, it runs already there, or the port is taken.
    """
    settings = settings.absolute()
    logs.configure(settings)
    sys.path.insert(0, str(Path.cwd()))  # so that a learner beside the configuration is found
    _make(settings.data_dir)
    with contextlib.ExitStack() as stack:
        folder = scratch() / f"ol-{secrets.token_hex(4)}"
        stack.enter_context(_only_one(settings.data_dir, folder))
        _check_port(host, port)
        stack.enter_context(_guarded(folder))
        for spec in settings.models.values():  # not before the guardian: torch starts threads
            check_model(spec)
            check_search(spec.on_cpu())
        tell("store", ready=False)
        store_url = stack.enter_context(_store(settings))
        settings = settings.model_copy(update={"store": store_url})
        key = auth.key_from_environment("OL_API_KEY") or read_or_create(
            settings.data_dir / "api_key", auth.new_key
        )
        health = asyncio.run(_prepare(settings, key))
        warning = "" if health.reliable else health.sentence()
        endpoint = Endpoint(f"http://{host}:{port}", key, store_url, os.getpid(), warning)
        tell("store", ready=True)
        stack.enter_context(_ray(settings, folder, host, port, tell))
        tell("front door", ready=False)
        _wait_until_ready(endpoint.url)
        tell("front door", ready=True)
        endpoint.write(settings.data_dir)
        stack.callback((settings.data_dir / NOTE).unlink, missing_ok=True)
        stack.enter_context(ray_metrics.targets(settings.data_dir))
        yield endpoint


def _make(data_dir: Path) -> None:
    """Make the data directory, and see that there is room in it."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=data_dir) as probe:
            probe.write(bytes(_LEAST_BYTES))
    except OSError as error:
        raise ConfigError(
            f"{data_dir} cannot be written to ({error.strerror}): see `online-learner doctor`, or "
            "give another data_dir"
        ) from None


@contextlib.contextmanager
def _only_one(data_dir: Path, folder: Path) -> Iterator[None]:
    """Hold the lock, in which stands who holds it: a process, and Ray's private folder.

    The kernel lets go of it when the holder ends, and its guardian. What is then still written
    there was killed, so its leftovers are cleared away.
    """
    with (data_dir / LOCK).open("a+") as file:
        _lock(file, data_dir)
        for left in map(Path, _holder(file)[1:]):
            sweep(left.name, left)
        file.truncate(0)
        file.write(f"{os.getpid()} {folder}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _lock(file: TextIO, data_dir: Path) -> None:
    """Take the lock; a guardian, which holds it for one who was killed, is waited for."""
    deadline = time.monotonic() + SWEPT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(file)
            orphaned = bool(holder) and not is_alive(int(holder[0]))
            if not orphaned or time.monotonic() > deadline:
                raise ConfigError(
                    f"it is running already on {data_dir}: see `online-learner status`, or give "
                    "another data_dir"
                ) from None
            time.sleep(0.05)
        else:
            return


def _holder(file: TextIO) -> list[str]:
    """Return what stands in the lock, a process and a folder; nothing where it was let go of."""
    file.seek(0)
    found = re.fullmatch(r"(\d+) (/.*/ol-[0-9a-f]{8})", file.read())
    return list(found.groups()) if found else []


def scratch() -> Path:
    """Return where Ray's private folder goes: paths of its sockets, and HAProxy's, must be short.

    So it is not under data_dir, and in `TMPDIR` only where that is short.
    """
    place = tempfile.gettempdir()
    return Path(place if len(os.fsencode(place)) <= _SCRATCH_BYTES else "/tmp")  # noqa: S108


@contextlib.contextmanager
def _guarded(folder: Path) -> Iterator[None]:
    """Make Ray's private folder, with a guardian that cleans up after us, whatever ends us."""
    folder.mkdir(mode=0o700)
    guardian = Guardian(folder.name, folder)
    try:
        yield
    finally:
        guardian.release()


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"{host}:{port} cannot be used ({error}): give another --port"
            ) from None


@contextlib.contextmanager
def _store(settings: Settings) -> Iterator[str]:
    """Keep the store open, and so the bundled one running, until the end."""
    runner = asyncio.Runner()
    opening = open_store(
        settings.store, data_dir=settings.data_dir, maxmemory_bytes=settings.maxmemory_bytes
    )
    store: Store = runner.run(opening)
    store.keep_running()
    try:
        yield store.url
    finally:
        runner.run(store.close())
        runner.close()


async def _prepare(settings: Settings, key: str) -> Health:
    async with await open_store(settings.store) as store:
        await config.publish(store, Keyring.load(settings.data_dir), settings)
        auditors = auditors_key(settings.data_dir / "audit_key")
        await auth.allow_environment_keys(store, key, name="up", auditors=auditors)
        return store.health


def auditors_key(file: Path) -> str | None:
    """Return the key that `teach` and `label` find in a file; none where the environment has one.

    A file is removed then: its key lets nobody in any longer.
    """
    if auth.key_from_environment("OL_AUDIT_KEY") is None:
        return read_or_create(file, auth.new_key)
    file.unlink(missing_ok=True)
    return None


@contextlib.contextmanager
def _ray(settings: Settings, folder: Path, host: str, port: int, tell: Tell) -> Iterator[None]:
    """Run a Ray of our own, quiet and in a private folder, with all applications deployed."""
    environment.prepare(settings.profile, folder, settings.data_dir)
    terminal = sys.stdout
    with (settings.data_dir / "ray.log").open("a") as log_file:
        try:
            with contextlib.redirect_stdout(log_file), contextlib.redirect_stderr(log_file):
                _deploy(settings, folder, host, port, tell)
            with contextlib.redirect_stdout(_WithoutRay(terminal, log_file)):
                yield
        finally:
            with contextlib.redirect_stdout(log_file), contextlib.redirect_stderr(log_file):
                stop()


class _WithoutRay(io.TextIOBase):
    """Standard output, less what Ray's own threads print there: that some worker died, say."""

    def __init__(self, terminal: TextIO, log_file: TextIO) -> None:
        self._terminal = terminal
        self._log_file = log_file

    def write(self, text: str) -> int:
        ray_speaks = threading.current_thread().name.startswith("ray_")
        return (self._log_file if ray_speaks else self._terminal).write(text)

    def flush(self) -> None:
        self._terminal.flush()

    def isatty(self) -> bool:
        return self._terminal.isatty()

    def fileno(self) -> int:
        return self._terminal.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._terminal.encoding


def _deploy(settings: Settings, folder: Path, host: str, port: int, tell: Tell) -> None:
    tell("Ray", ready=False)
    import ray
    from ray import serve
    from ray.serve.api import RunTarget

    from serve_app.app import QUIET, archive_app, gateway, model_app, needs_archive

    handler = signal.getsignal(signal.SIGTERM)
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
        num_cpus=max(4, os.cpu_count() or 1),
        resources=_custom(settings),
        object_store_memory=80 << 20,
        namespace="serve",
        _temp_dir=str(folder / "r"),  # Ray lets everybody write there: what is above keeps them out
    )
    signal.signal(signal.SIGTERM, handler)  # Ray has set its own
    try:
        serve.start(http_options={"host": host, "port": port}, logging_config=QUIET)
    except Exception:
        _check_port(host, port)  # somebody may have been quicker
        raise
    tell("Ray", ready=True)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    place = (settings.store, str(settings.data_dir))
    targets = [
        RunTarget(
            gateway(*place, replicas=settings.gateways),
            name="gateway",
            route_prefix="/",
            logging_config=QUIET,
        )
    ]
    targets += [
        RunTarget(
            model_app(model, spec, *place),
            name=f"model-{model}",
            route_prefix=None,
            logging_config=QUIET,
        )
        for model, spec in settings.models.items()
    ]
    if needs_archive(settings):
        targets.append(
            RunTarget(archive_app(*place), name="archive", route_prefix=None, logging_config=QUIET)
        )
    serve.run_many(targets, wait_for_applications_running=False)
    _wait_for([target.name for target in targets], tell)


def _custom(settings: Settings) -> dict[str, float]:
    """Return what the models ask for by names of their own: all of it is on this machine."""
    asked: dict[str, float] = {}
    for spec in settings.models.values():
        for name, amount in spec.resources.custom.items():
            asked[name] = asked.get(name, 0.0) + 2 * amount  # of learner and gatekeeper
    return asked


def _wait_for(applications: list[str], tell: Tell) -> None:
    """Wait until all run; raises `Unavailable` where Serve gives one up."""
    from ray import serve

    for name in applications:
        tell(name, ready=False)
    pending = list(applications)
    while pending:
        found = serve.status().applications
        for name in pending:
            state = found[name].status
            if state == "DEPLOY_FAILED":
                why = [one.message for one in found[name].deployments.values() if one.message]
                raise Unavailable(f"{name} did not start: {'; '.join(why) or found[name].message}")
            if state == "RUNNING":
                tell(name, ready=True)
        pending = [name for name in pending if found[name].status != "RUNNING"]
        time.sleep(0.05)


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + READY_S
    problem: Exception | None = None
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2) as response:  # noqa: S310
                response.read()
                return
        except OSError as error:
            problem = error
            time.sleep(0.05)
    raise Unavailable(f"it was not ready within {READY_S:.0f} s: {problem}")
