"""How a Ray of our own ends: stopped by us, or before us."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

STOPS_S = 20.0  # Serve: what has not stopped then is killed


def stop() -> None:
    """Stop Serve, then Ray, as far as they still run; who guards us ends the rest."""
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    shutdown: Any = importlib.import_module("ray.serve").shutdown
    helper = threading.Thread(target=_quietly, args=(shutdown,), daemon=True)
    helper.start()
    deadline = time.monotonic() + STOPS_S
    while helper.is_alive() and _ray_runs() and time.monotonic() < deadline:
        helper.join(0.1)
    if not helper.is_alive() and _ray_runs():
        ray.shutdown()


def _quietly(work: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):
        work()


def _core() -> dict[str, subprocess.Popen[bytes]]:
    """Return the two processes of Ray without which it starts and replaces nothing."""
    node: Any = sys.modules["ray"]._private.worker._global_node  # noqa: SLF001
    return {name: node.all_processes[name][0].process for name in ("gcs_server", "raylet")}


def _ray_runs() -> bool:
    """Tell whether Ray still runs: a signal to all of our group, or session, reaches it as well."""
    return all(process.poll() is None for process in _core().values())


def ended() -> str:
    """Wait until Ray ends, and return which of its processes did; a signal raises before that."""
    while _ray_runs():
        time.sleep(0.5)
    return next(name for name, process in _core().items() if process.poll() is not None)


def leave(code: int) -> None:
    """End this process here and now where Ray ended before it: its own exit would wait for it."""
    ray: Any = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        sys.stdout.flush()
        os._exit(code)
