"""A running HTTP application, and how the tests talk to it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from online_learner import auth, config
from online_learner.ids import Keyring
from online_learner.loop import Loop
from online_learner.settings import Settings
from online_learner.store import open_store
from online_learner.store.embedded import EmbeddedServer
from serve_app.gateway import create_app

KEY = "ol_test_key"
PROBLEM = {
    "type", "title", "status", "detail", "instance", "code", "errors", "retryable", "request_id",
}  # fmt: skip


def unused_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def bearer(key: str) -> dict[str, str]:
    """Return the header that carries a key."""
    return {"authorization": f"Bearer {key}"}


def problem(reply: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """Check that a reply is a complete problem, and return it."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    body = dict(reply.json())
    assert set(body) - {"retry_after_s"} == PROBLEM
    assert body.get("retry_after_s") == _seconds(reply.headers.get("retry-after"))
    assert body["status"] == status
    assert body["code"] == code, body
    assert body["type"] == f"urn:online-learner:{code}"
    assert body["title"]
    assert body["detail"]
    assert body["instance"] == f"urn:online-learner:request:{body['request_id']}"
    assert body["request_id"] == reply.headers["x-request-id"]
    assert "Traceback" not in reply.text
    return body


def _seconds(text: str | None) -> int | None:
    return None if text is None else int(text)


@dataclass(slots=True)
class Service:
    """The HTTP application under uvicorn, on a store of its own; learners run only in `turn`."""

    data_dir: Path
    settings: Settings
    server: EmbeddedServer
    key: str = KEY
    url: str = ""

    def client(self, key: str | None = KEY, **options: Any) -> httpx2.Client:
        """Return a bare HTTP client with the service's key, another one, or none."""
        headers = {} if key is None else bearer(key)
        # It speaks plain HTTP: reading certificates would be most of a short test's time.
        options = {"timeout": 10.0, "verify": False} | options
        return httpx2.Client(base_url=self.url, headers=headers, **options)

    async def turn(self) -> None:
        """Learn all that has arrived, judge it, and move the aliases, for every model."""
        async with await Loop.open(self.settings):
            pass

    async def prepare(self) -> None:
        """Write configuration and key to the store, and found the models."""
        async with await open_store(self.server.url) as opened:
            await config.publish(opened, Keyring.load(self.data_dir), self.settings)
            await auth.allow(opened, self.key, name="tester")
        await self.turn()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run the application on a free port, on a thread with a loop of its own."""
        app = create_app(self.server.url, str(self.data_dir))
        web = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", ws="none"))
        thread = threading.Thread(target=web.run, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not web.started:
            assert thread.is_alive(), "the application did not start"
            assert time.monotonic() < deadline, "the application did not start in time"
            time.sleep(0.005)
        self.url = f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            web.should_exit = True
            thread.join(20)
