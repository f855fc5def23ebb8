"""What a gateway replica holds: the store, the keys, and a room for every configured model.

A room keeps its weights current by message, with a poll behind it, and follows the configuration in
the store: a model that is added there gets a room, and nothing is restarted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from online_learner import config
from online_learner.auth import Keychain
from online_learner.errors import (
    NotFound,
    OnlineLearnerError,
    StateError,
    did_you_mean,
    trace,
)
from online_learner.ids import Address, Keyring, Kind, model_hash
from online_learner.ingest import Admission, Ingest
from online_learner.metrics.teller import Teller
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import Health, Store, open_store
from online_learner.store.keys import Keys
from serve_app.telemetry import logs, ray_metrics, spans

log = logging.getLogger(__name__)

POLL_S = 1.0
TELL_S = 1.0
KEYS_S = 0.25  # a key that is revoked is out within a second
COALESCE_S = 0.05
READ_BACK_S = 30.0
PATIENCE_S = 10.0  # for a store that does not answer when the replica starts


class Service:
    """The state of one gateway replica, on one event loop."""

    def __init__(self, store: Store, settings: Settings, keyring: Keyring) -> None:
        self.store = store
        self.settings = settings
        self.keyring = keyring
        self.keychain = Keychain()
        self.rooms: dict[str, Stages] = {}
        self.admissions: dict[str, Admission] = {}
        self.ingest = Ingest(store, keyring, self.admissions, settings.window_s)
        self.teller = Teller(store, ray_metrics.export)
        self._config_version = 0
        self._told: tuple[str, str, bool] | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @classmethod
    async def open(cls, store_url: str, data_dir: Path) -> Service:
        """Connect, read the configuration, and start to follow it."""
        store = await open_store(store_url, data_dir=data_dir, patience_s=PATIENCE_S)
        keyring = Keyring.load(data_dir)
        service = cls(store, await config.fetch(store, keyring), keyring)
        service._heed(store.health)
        await service.keychain.refresh(store)
        await service._follow_config()
        service._spawn("keys", service._poll_keys, longest_wait_s=KEYS_S)
        service._spawn("config", service._poll_config)
        service._spawn("store", service._poll_store)
        service._spawn("figures", service._tell)
        return service

    async def close(self) -> None:
        """Stop following, and disconnect."""
        pending = set(self._tasks.values())
        while pending:  # redis-py may swallow a cancellation, and listen on
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=1.0)
        with contextlib.suppress(OnlineLearnerError):
            await self.teller.tell()
        await self.store.close()

    def room(self, model: str) -> Stages:
        """Return the room of a model; raises `NotFound` with a did-you-mean."""
        if model not in self.rooms:
            hint = did_you_mean(model, self.rooms)
            raise NotFound(
                f"no such model is served here.{hint} See GET /v1/models.",
                code="unknown_model",
            )
        return self.rooms[model]

    def open_id(self, kind: Kind, text: str) -> tuple[Stages, Address]:
        """Return the room and the address of an id of any age; raises `NotFound`."""
        model_digest, address = self.keyring.open(kind, text)
        for model, room in self.rooms.items():
            if model_hash(model) == model_digest:
                return room, address
        raise NotFound(f"this {kind}_id is of a model not served here", code=f"unknown_{kind}")

    # --- following ----------------------------------------------------------------------------

    def _spawn(
        self, name: str, work: Callable[[], Awaitable[None]], *, longest_wait_s: float = 2.0
    ) -> None:
        self._tasks[name] = asyncio.create_task(_forever(name, work, longest_wait_s))

    async def _poll_keys(self) -> None:
        await asyncio.sleep(KEYS_S)
        await self.keychain.refresh(self.store)

    async def _poll_config(self) -> None:
        await asyncio.sleep(POLL_S)
        await self._follow_config()

    async def _poll_store(self) -> None:
        await asyncio.sleep(POLL_S)
        self._heed(await self.store.look())

    async def _tell(self) -> None:
        await asyncio.sleep(TELL_S)
        await self.teller.tell()

    def _heed(self, health: Health) -> None:
        """Take to heart what the store says of itself; what gets worse or better is logged."""
        told = (health.durability, health.promise.reason, health.evicts)
        if told != self._told:
            self._told = told
            level = logging.INFO if health.reliable else logging.WARNING
            log.log(level, "%s", health.sentence())
        self.ingest.durability = health.durability

    async def _follow_config(self) -> None:
        version = await config.version(self.store)
        if version == self._config_version:
            return
        self.settings = await config.fetch(self.store, self.keyring)
        logs.configure(self.settings)
        self.ingest.window_s = self.settings.window_s
        for model, spec in self.settings.models.items():
            known = self.rooms.get(model)
            as_built = None if known is None else (known.spec, known.window_s)
            if as_built != (spec, self.settings.window_s):
                await self._open_room(model)
        for model in set(self.rooms) - set(self.settings.models):
            self._close_room(model)
        self._config_version = version

    async def _open_room(self, model: str) -> None:
        """Open a room, with its weights where there are any; the old one answers until then.

        Where the configuration cannot be used, or the weights are not of it, the old one goes on.
        """
        spec, window_s = self.settings.model(model), self.settings.window_s
        room = Stages(
            self.store,
            self.keyring,
            model,
            spec,
            window_s=window_s,
            trains=False,
            data_dir=self.settings.data_dir,
        )
        try:
            admission, _ = room.admission, room.learner
        except Exception as error:  # a team's own code may raise anything
            log.warning("'%s' cannot be served as it is configured now\n%s", model, trace(error))
            return
        try:
            await room.follower.refresh()
        except StateError as error:
            log.warning("'%s' cannot take up its weights: %s", model, error)
            if model in self.rooms:
                return
        except Exception as error:
            if model in self.rooms:
                raise
            log.warning("'%s' has no weights yet; the poll tries again\n%s", model, trace(error))
        self._close_room(model)
        self.rooms[model], self.admissions[model] = room, admission
        moved = asyncio.Event()

        async def listen() -> None:
            async for _ in self.store.listen(room.registry.keys.swap):
                moved.set()

        async def refresh() -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(moved.wait(), POLL_S)
            moved.clear()
            started_ns = time.time_ns()
            if await room.follower.refresh():
                spans.swapped(room, started_ns)
            await asyncio.sleep(COALESCE_S)

        self._spawn(f"listen {model}", listen)
        self._spawn(f"refresh {model}", refresh)

    def _close_room(self, model: str) -> None:
        self.rooms.pop(model, None)
        self.admissions.pop(model, None)
        for name in (f"listen {model}", f"refresh {model}"):
            task = self._tasks.pop(name, None)
            if task is not None:
                task.cancel()

    async def ready(self) -> dict[str, Any]:
        """Return what readiness rests on; `ready` is false while anything is missing."""
        health = await self.store.look()
        self._heed(health)
        models, refused = {}, []
        for model in self.settings.models:
            room = self.rooms.get(model)
            beats = {
                writer: json.loads(
                    await self.store.call("GET", Keys(model).heartbeat(writer)) or b"null"
                )
                for writer in ("learner", "gatekeeper")
            }
            well = {
                writer: bool(beat) and not beat.get("trouble") for writer, beat in beats.items()
            }
            weights = room is not None and room.predictor.bundle is not None
            models[model] = {"weights": weights, **well}
            if room is not None and room.follower.refused:
                refused.append(f"the champion of {model}")
            refused += [
                f"the state of {model}'s {w}" for w, b in beats.items() if b and not well[w]
            ]
        ready = all(all(parts.values()) for parts in models.values()) and not health.evicts
        return {"ready": ready, **health.describe(), "models": models, "refused": refused}


async def _forever(name: str, work: Callable[[], Awaitable[None]], longest_wait_s: float) -> None:
    """Do the work again and again; what goes wrong is logged, and tried again with backoff."""
    wait_s, task = 0.05, asyncio.current_task()
    assert task is not None
    while not task.cancelling():  # redis-py may swallow a cancellation; the task still knows of it
        started = time.monotonic()
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except OnlineLearnerError as error:
            log.warning("%s: %s", name, error)
        except Exception as error:
            log.error("%s failed\n%s", name, trace(error))  # noqa: TRY400
        else:
            wait_s = 0.05
            continue
        if time.monotonic() - started > READ_BACK_S:
            wait_s = 0.05
        await asyncio.sleep(wait_s)
        wait_s = min(longest_wait_s, wait_s * 2)
