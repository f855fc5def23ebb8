"""The whole service in a process of its own, learners and gatekeepers too; what it prints is kept.

One process is quick to ask, and cheap to start. Handlers, stages and store are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from benchmarks.stack import free_port
from benchmarks.writers import STAGES, Role, run
from online_learner import auth, config
from online_learner.ids import Keyring
from online_learner.loop import Loop
from online_learner.settings import Settings
from online_learner.store import open_store
from online_learner.store.embedded import EmbeddedServer
from serve_app.gateway import create_app
from serve_app.telemetry.logs import OURS

START_S = 60.0
ALWAYS = {"promotion": {"policy": "policies.promotion:Always"}}
MODELS: dict[str, dict[str, Any]] = {
    "web": {
        "task": "classification",
        "labels": [False, True],
        "learner": "river.linear_model:LogisticRegression",
        "categories": {"helpful": "up", "off_topic": "down"},
        "public_feedback": True,
        **ALWAYS,
    },
    "rent": {"task": "regression", "learner": "river.linear_model:LinearRegression", **ALWAYS},
    "pages": {"task": "ranking", "learner": "torch:ranking", **ALWAYS},
    "llm": {"task": "generation", "learner": "torch:ranking", **ALWAYS},
}


@dataclass(frozen=True, slots=True)
class Site:
    """Where it is, and the key that may do everything there."""

    url: str
    key: str
    server: EmbeddedServer
    log: Path
    process: subprocess.Popen[bytes]

    def client(self, **options: Any) -> httpx2.Client:
        """Return a client with the key."""
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=20.0, **options)


@contextlib.contextmanager
def running(models: Mapping[str, dict[str, Any]] = MODELS, **settings: Any) -> Iterator[Site]:
    """Run the service on a store of its own, in a folder that is gone afterwards."""
    with contextlib.ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        server = EmbeddedServer.ensure(folder)
        parts.callback(server.stop)
        chosen = Settings(store=server.url, data_dir=folder, models=dict(models), **settings)
        key, port, log = auth.new_key(), free_port(), folder / "site.log"
        asyncio.run(_prepare(chosen, key))
        code = "import sys; from benchmarks.hostile import site; site.serve(*sys.argv[1:])"
        command = [sys.executable, "-c", code]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, server.url, str(folder), str(port), *models],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        parts.callback(_stop, process)
        site = Site(f"http://127.0.0.1:{port}", key, server, log, process)
        _wait(site)
        yield site


async def _prepare(settings: Settings, key: str) -> None:
    async with await open_store(settings.store) as store:
        await config.publish(store, Keyring.load(settings.data_dir), settings)
        await auth.allow(store, key, name="bench", scopes=auth.SCOPES)
    async with await Loop.open(settings):  # founds the models
        pass


def _wait(site: Site) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx2.TransportError), site.client() as http:
            ready = http.get("/readyz").status_code == 200
            if ready and http.get("/v1/session").status_code == 200:
                return
        time.sleep(0.05)
    raise TimeoutError(f"the service was not ready in time: {site.log.read_text()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def serve(store_url: str, folder: str, port: str, *models: str) -> None:
    """Serve until told to stop; learners and gatekeepers run on threads."""
    logging.basicConfig(level=logging.INFO)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.DEBUG)
    for model in models:
        for role in STAGES:
            threading.Thread(
                target=_keep_up, args=(role, model, store_url, Path(folder)), daemon=True
            ).start()
    uvicorn.run(create_app(store_url, folder), port=int(port), log_level="debug", access_log=False)


def _keep_up(role: Role, model: str, store_url: str, folder: Path) -> None:
    """Run a writer, and another one where it ends, as Serve does."""
    while True:
        with contextlib.suppress(RuntimeError):
            run(role, model, store_url, folder)
