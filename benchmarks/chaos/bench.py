"""A real server, a proxy before it, and one model behind both, on which harm can be done."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos.clients import MODEL, Clients
from benchmarks.chaos.ledger import Audit, audit, caught_up, patiently
from benchmarks.chaos.proxy import Proxy
from online_learner import config
from online_learner.errors import Unavailable
from online_learner.ids import Keyring
from online_learner.loop import Loop
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import Store, open_store
from online_learner.store.embedded import EmbeddedServer

WEB: dict[str, Any] = {
    "task": "classification",
    "labels": [False, True],
    "learner": "river.linear_model:LogisticRegression",
    "audit_deadline_s": 2.0,
}


@dataclass(slots=True)
class Bench:
    """A real server, a proxy before it, and one model behind both.

    Attributes
    ----------
    store
        Goes past the proxy.
    """

    home: Path
    server: EmbeddedServer
    proxy: Proxy
    store: Store
    settings: Settings

    def stages(self) -> Stages:
        """Return the stages of the model, past the proxy."""
        keyring = Keyring.load(self.home)
        return Stages(self.store, keyring, MODEL, self.settings.model(MODEL))

    async def audit(self, clients: Clients, *, within_s: float = 60.0) -> Audit:
        """Wait until the learner has caught up, and look for what is wrong."""
        stages = self.stages()
        await until(lambda: caught_up(self.store, stages), within_s, "the learner to catch up")
        return await audit(stages, clients.ledger)


@contextlib.asynccontextmanager
async def bench(**model: Any) -> AsyncIterator[Bench]:
    """Run a server and a proxy, and found the model."""
    with tempfile.TemporaryDirectory(prefix="ol-") as folder:
        home = Path(folder)
        server = EmbeddedServer.ensure(home)
        server.keep_running()
        try:
            async with (
                Proxy(home / "proxy", server.socket_path) as proxy,
                await open_store(server.url) as store,
            ):
                document = {"store": proxy.url, "data_dir": home, "models": {MODEL: WEB | model}}
                settings = Settings.parse(document)
                await config.publish(store, Keyring.load(home), settings)
                direct = settings.model_copy(update={"store": server.url})
                await (await patiently(lambda: Loop.open(direct))).close()
                yield Bench(home, server, proxy, store, settings)
        finally:
            await asyncio.to_thread(server.stop)


async def open_door(place: Bench) -> Loop:
    """Return a loop that answers and takes signals; others learn and decide."""
    store = await patiently(lambda: open_store(place.proxy.url))
    loop = Loop(place.settings, store, Keyring.load(place.home))
    await patiently(loop.stages(MODEL).follower.refresh)
    return loop


async def until(
    condition: Callable[[], Awaitable[bool]], within_s: float, what: str, *, every_s: float = 0.02
) -> None:
    """Wait until a condition holds; raises `TimeoutError`."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with contextlib.suppress(Unavailable):
            if await condition():
                return
        await asyncio.sleep(every_s)
    raise TimeoutError(f"waited {within_s:g} s for {what}")
