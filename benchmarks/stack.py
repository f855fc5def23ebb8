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
from pathlib import Path
from typing import Any, Literal

from online_learner.settings import Settings
from serve_app import local

_BARE = (
    "import sys, uvicorn; from {module} import {name} as create; "
    "uvicorn.run(create(*sys.argv[1:3]), port={port}, access_log=False, log_level='warning')"
)


@dataclass(frozen=True, slots=True)
class Stack:
    """Where the running system is."""

    url: str
    key: str
    store: str
    data_dir: Path


@contextlib.contextmanager
def running(
    profile: Literal["fast", "plain"], *, gateways: int = 1, **model: Any
) -> Iterator[Stack]:
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
