"""Everything on this machine: the bundled store, a Ray of its own, the gateway and the models."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib
import io
import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from online_learner import auth, config
from online_learner.errors import ConfigError, Unavailable
from online_learner.ids import Keyring
from online_learner.note import NOTE, Note
from online_learner.secret import read_or_create
from online_learner.settings import Settings
from online_learner.stages import check_model
from online_learner.store import Health, Store, open_store
from serve_app import environment
from serve_app.guardian import Guardian

READY_S = 120.0


@dataclass(frozen=True, slots=True)
class Endpoint(Note):
    """Where the running system is, the key that it takes, and what is wrong with its store."""

    warning: str = ""


@contextlib.contextmanager
def running(settings: Settings, *, host: str = "127.0.0.1", port: int = 8000) -> Iterator[Endpoint]:
    """Start everything, yield where it is, and stop everything it started.

    Call it from the main thread, before Ray is imported.

    Raises
    ------
    ConfigError
        A model's configuration cannot be used (a GPU that is not there, say), it runs already on
        this `data_dir`, or the port is taken.
    """
    settings = settings.absolute()
    sys.path.insert(0, str(Path.cwd()))  # so that a learner beside the configuration is found
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_only_one(settings.data_dir))
        _check_port(host, port)
        folder = stack.enter_context(_guarded_folder())
        for spec in settings.models.values():  # not before the guardian: torch starts threads
            check_model(spec)
        store_url = stack.enter_context(_store(settings))
        settings = settings.model_copy(update={"store": store_url})
        key = auth.key_from_environment("OL_API_KEY") or read_or_create(
            settings.data_dir / "api_key", auth.new_key
        )
        health = asyncio.run(_prepare(settings, key))
        warning = "" if health.reliable else health.sentence()
        endpoint = Endpoint(f"http://{host}:{port}", key, store_url, os.getpid(), warning)
        stack.enter_context(_ray(settings, folder, host, port))
        _wait_until_ready(endpoint.url)
        endpoint.write(settings.data_dir)
        stack.callback((settings.data_dir / NOTE).unlink, missing_ok=True)
        yield endpoint


@contextlib.contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    with (data_dir / "up.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"it is running already on {data_dir}: see `online-learner status`, or give "
                "another data_dir"
            ) from None
        yield


@contextlib.contextmanager
def _guarded_folder() -> Iterator[Path]:
    """Make Ray's private folder, with a guardian that cleans up after us, whatever ends us."""
    token = f"ol-{secrets.token_hex(4)}"
    # The paths of Ray's sockets must stay short, so this is not under data_dir.
    folder = Path(tempfile.gettempdir()) / token
    folder.mkdir(mode=0o700)
    guardian = Guardian(token, folder)
    try:
        yield folder
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
        await auth.allow_environment_keys(store, key, name="up")
        return store.health


@contextlib.contextmanager
def _ray(settings: Settings, folder: Path, host: str, port: int) -> Iterator[None]:
    """Run a Ray of our own, quiet and in a private folder, with all applications deployed."""
    environment.prepare(settings.profile, folder, settings.data_dir)
    terminal = sys.stdout
    with (settings.data_dir / "ray.log").open("a") as log_file:
        try:
            with contextlib.redirect_stdout(log_file), contextlib.redirect_stderr(log_file):
                _deploy(settings, folder, host, port)
            with contextlib.redirect_stdout(_WithoutRay(terminal, log_file)):
                yield
        finally:
            with contextlib.redirect_stdout(log_file), contextlib.redirect_stderr(log_file):
                _stop()


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


def _deploy(settings: Settings, folder: Path, host: str, port: int) -> None:
    import ray
    from ray import serve
    from ray.serve.api import RunTarget

    from serve_app.app import QUIET, gateway, model_app

    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
        num_cpus=max(4, os.cpu_count() or 1),
        object_store_memory=80 << 20,
        namespace="serve",
        _temp_dir=str(folder),
    )
    serve.start(http_options={"host": host, "port": port}, logging_config=QUIET)
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
    serve.run_many(targets)


def _stop() -> None:
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    serve: Any = importlib.import_module("ray.serve")
    with contextlib.suppress(Exception):
        serve.shutdown()
    ray.shutdown()


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
