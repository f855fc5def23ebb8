"""What runs while it is measured: the whole system, and variants of the gateway beside it."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, TypeAlias

from online_learner.settings import GatewaysSpec, Settings
from serve_app import local

_BARE = (
    "import sys, uvicorn; from {module} import {name} as create; "
    "uvicorn.run(create(*sys.argv[1:3]), port={port}, access_log=False, log_level='warning')"
)

BARE = (("serve_app.gateway", "create_app"), ("benchmarks.unlogged", "create_unlogged_app"))
Profile: TypeAlias = Literal["fast", "plain"]
Sides: TypeAlias = dict[str, str]  # variant -> address


@dataclass(frozen=True, slots=True)
class Stack:
    """Where the running system is."""

    url: str
    key: str
    store: str
    data_dir: Path


@contextlib.contextmanager
def running(profile: Profile, *, gateways: int | GatewaysSpec = 1, **model: Any) -> Iterator[Stack]:
    """Run the whole system with one model, `web`, in a folder that is gone afterwards.

    Call it through `load.apart`: one process runs one Ray.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        settings = Settings(
            profile=profile, data_dir=Path(folder), gateways=gateways, models={"web": model}
        )
        with local.running(settings, port=free_port()) as endpoint:
            yield Stack(endpoint.url, endpoint.key, endpoint.store, Path(folder))


@contextlib.contextmanager
def beside(profile: Profile, **model: Any) -> Iterator[tuple[Stack, Sides]]:
    """Run the whole system in a process of its own, and the fast one with all of its variants.

    So that two profiles can be asked in turn, within one stretch of this machine's moods.
    """
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_host, args=(there, profile, model))
    process.start()
    there.close()
    try:
        yield here.recv()
    finally:
        here.close()
        process.join()


def _host(pipe: Connection, profile: Profile, model: dict[str, Any]) -> None:
    with contextlib.ExitStack() as parts:
        stack = parts.enter_context(running(profile, **model))
        sides = {profile: stack.url}
        if profile == "fast":
            logged, no_log = BARE
            sides["fast, no log"] = parts.enter_context(unlogged(stack))
            sides["bare uvicorn"] = parts.enter_context(bare(stack, *logged))
            sides["bare uvicorn, no log"] = parts.enter_context(bare(stack, *no_log))
        pipe.send((stack, sides))
        with contextlib.suppress(EOFError):
            pipe.recv()  # until the other end is closed


@contextlib.contextmanager
def unlogged(stack: Stack) -> Iterator[str]:
    """Run the gateway without its log beside the other, on the same ingress."""
    from ray import serve

    from benchmarks.unlogged import gateway
    from serve_app.app import QUIET

    application = gateway(stack.store, str(stack.data_dir))
    serve.run(application, name="unlogged", route_prefix="/unlogged", logging_config=QUIET)
    yield _ready(f"{stack.url}/unlogged")
    serve.delete("unlogged")


@contextlib.contextmanager
def bare(stack: Stack, module: str, name: str) -> Iterator[str]:
    """Run an application on uvicorn, without Serve, on the same store."""
    port = free_port()
    code = _BARE.format(module=module, name=name, port=port)
    process = subprocess.Popen([sys.executable, "-c", code, stack.store, str(stack.data_dir)])
    try:
        yield _ready(f"http://127.0.0.1:{port}")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ready(url: str) -> str:
    """Return the address once it is ready."""
    for _ in range(600):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=2):
            return url
        time.sleep(0.05)
    raise TimeoutError(f"{url} was not ready within half a minute")
