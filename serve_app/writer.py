"""A single writer as a Serve deployment: a stage that takes turns on a thread and loop of its own.

On Serve's loop, a batch that takes long to learn would starve the health check, and the writer
would be killed for working. Here the check looks at the thread, and at when it last came around.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError
from redis.exceptions import ResponseError

from online_learner import config
from online_learner.errors import (
    ConfigError,
    Conflict,
    DataError,
    Fenced,
    NotFound,
    StateError,
    Unavailable,
    trace,
)
from online_learner.ids import Keyring
from online_learner.learn import Trainer
from online_learner.metrics.meter import Meter
from online_learner.promote import Gatekeeper
from online_learner.registry import Registry
from online_learner.retain import Retention
from online_learner.settings import ModelSpec
from online_learner.stages import Stages
from online_learner.store import Entry, Store, open_store
from online_learner.store.keys import Keys
from serve_app.telemetry import logs, ray_metrics, spans
from serve_app.unlearner import Unlearner

log = logging.getLogger(__name__)

BLOCK_MS = 500
BEAT_S = 1.0
BEAT_EXPIRES_S = 5
STUCK_S = 120.0
PATIENCE_S = 60.0  # for a store that does not answer when the writer starts
LEAST_WAIT_S, MOST_WAIT_S = 0.5, 30.0  # between attempts at a state that is refused
# What lies in the store is not what it should be: any other process would meet it, too.
REFUSED = (
    StateError,
    DataError,
    ConfigError,
    NotFound,
    RecursionError,
    ResponseError,
    ValidationError,
)


class Stage(Protocol):
    """A stage with a single writer: `learn.Trainer`, `promote.Gatekeeper`.

    Attributes
    ----------
    alive
        Awaited by the stage, in a turn that takes long, whenever it has come further.
    heard
        Called in each turn with what was read of the feedback, before any of it is worked on.
    """

    alive: Callable[[], Awaitable[None]] | None
    heard: Callable[[Sequence[Entry]], None]

    async def turn(self, *, block_ms: int | None = None) -> int:
        """Do what there is to do; wait for it up to `block_ms`."""


class Writer:
    """Runs one stage of one model until told to stop.

    Parameters
    ----------
    role
        `learner` or `gatekeeper`, as in the keys.
    pick
        Returns the stage to run out of a model's stages.
    """

    def __init__(
        self,
        role: str,
        model: str,
        store_url: str,
        data_dir: str,
        pick: Callable[[Stages], Stage],
    ) -> None:
        self.role = role
        self.model = model
        self._store_url = store_url
        self._data_dir = Path(data_dir)
        self._pick = pick
        self._came_around = time.monotonic()
        self._beat_at = self._shown_at = 0.0
        self._trouble = ""
        self._failing: dict[str, str] = {}  # chores, and why each of them is not done
        self._failure: BaseException | None = None
        unlearns = role == "learner"
        self._unlearner = Unlearner(model, store_url, self._data_dir) if unlearns else None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._main, name=role, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `RuntimeError` where the writer is dead or stuck, so that Serve replaces it."""
        if not self._thread.is_alive():
            raise RuntimeError(f"the {self.role} of '{self.model}' has ended") from self._failure
        if time.monotonic() - self._came_around > STUCK_S:
            raise RuntimeError(f"the {self.role} of '{self.model}' is stuck")

    async def stop(self) -> None:
        """End after the turn under way."""
        self._stopping.set()
        if self._unlearner is not None:
            self._unlearner.stop()
        await asyncio.to_thread(self._thread.join, 2 * BLOCK_MS / 1000)

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            log.error("the %s of '%s' failed\n%s", self.role, self.model, trace(error))  # noqa: TRY400
            self._failure = error

    async def _run(self) -> None:
        opening = open_store(self._store_url, data_dir=self._data_dir, patience_s=PATIENCE_S)
        async with await opening as store:
            keyring = Keyring.load(self._data_dir)
            place, stages, stage, wait_s = None, None, None, LEAST_WAIT_S
            turns = spans.Turns()
            retention: Retention | None = None
            meter = Meter(Registry(store, keyring, self.model))
            while not self._stopping.is_set():
                self._came_around = time.monotonic()
                try:
                    found = await self._beat(store, keyring, place)
                    if stages is None or found != place:
                        if retention is None or found != place:
                            retention = self._retention(store, *found)
                        place = found
                        stages = self._stages(store, keyring, *place)
                        stage = self._pick(stages)
                        stage.alive = partial(self._alive, store)
                        turns = spans.turns(stages, role=self.role)
                        stage.heard = turns.read
                    assert stage is not None
                    if self._unlearner is not None and isinstance(stage, Trainer):
                        self._unlearner.serve(stage, *found)
                    turns.told(await stage.turn(block_ms=BLOCK_MS))
                    self._trouble, wait_s = "", LEAST_WAIT_S
                except REFUSED as error:
                    stages = None
                    await self._wait_out(store, error, wait_s)
                    wait_s = min(MOST_WAIT_S, 2 * wait_s)
                except Fenced as error:
                    log.warning("%s; standing by", error)
                    await self._stand_by(store)
                    continue  # the successor trims
                except (Unavailable, Conflict) as error:
                    log.warning("%s of '%s': %s", self.role, self.model, error)
                    await asyncio.sleep(0.2)
                if self.role == "gatekeeper" and retention is not None:
                    await self._chores(retention, meter, stage)
                    if stages is not None:
                        await self._chore("observed", stages.observer.turn_when_due)

    async def _chores(self, retention: Retention, meter: Meter, stage: Stage | None) -> None:
        """Do what is due beside the stage, be it in trouble or not."""
        await self._chore("trimmed", retention.trim_when_due)
        await self._chore("counted", partial(self._count, meter, stage))

    async def _chore(self, what: str, work: Callable[[], Awaitable[object]]) -> None:
        """Do one thing beside the stage; why it fails is logged once, until it has been done."""
        try:
            if await work():
                self._failing.pop(what, None)
        except Exception as error:
            if self._failing.get(what) != str(error):
                self._failing[what] = str(error)
                log.error("nothing of '%s' is %s\n%s", self.model, what, trace(error))  # noqa: TRY400

    async def _count(self, meter: Meter, stage: Stage | None) -> bool:
        """Count what has come, and let it be seen; tells whether there was anything."""
        waiting = stage.judge.waiting if isinstance(stage, Gatekeeper) else 0
        tally = await meter.turn_when_due(waiting=waiting)
        if tally:
            ray_metrics.export(self.model, tally)
            await meter.roll_up_when_due()
        return bool(tally)

    def _stages(self, store: Store, keyring: Keyring, spec: ModelSpec, window_s: float) -> Stages:
        trains = self.role == "learner"
        return Stages(
            store,
            keyring,
            self.model,
            spec,
            window_s=window_s,
            trains=trains,
            data_dir=self._data_dir,
        )

    def _retention(self, store: Store, spec: ModelSpec, window_s: float) -> Retention:
        return Retention(
            store,
            self.model,
            window_s=window_s,
            archived=spec.archive is not None,
            horizon_s=spec.unlearn_horizon,
        )

    async def _beat(
        self, store: Store, keyring: Keyring, known: tuple[ModelSpec, float] | None
    ) -> tuple[ModelSpec, float]:
        """Show that the writer is alive, and look whether its model, or the window, has changed."""
        now = time.monotonic()
        if known is not None and now - self._beat_at < BEAT_S:
            return known
        await self._show(store)
        settings = await config.fetch(store, keyring)
        logs.configure(settings)
        self._beat_at = now
        return settings.model(self.model), settings.window_s

    async def _alive(self, store: Store) -> None:
        """Show within a long turn, too, that the writer is alive."""
        self._came_around = time.monotonic()
        if self._came_around - self._shown_at >= BEAT_S:
            with contextlib.suppress(Unavailable):
                await self._show(store)

    async def _show(self, store: Store) -> None:
        """Write the heartbeat, with what keeps the writer from working, if anything does."""
        key = Keys(self.model).heartbeat(self.role)
        beat = json.dumps({"pid": os.getpid(), "at": time.time(), "trouble": self._trouble})
        await store.essential("SET", key, beat, "EX", BEAT_EXPIRES_S)
        self._shown_at = time.monotonic()

    async def _wait_out(self, store: Store, error: Exception, wait_s: float) -> None:
        """Wait before another attempt, and be seen to live; the reason is logged once."""
        trouble = str(error)
        if isinstance(error, ValidationError):  # its own words repeat the record
            trouble = f"the store holds a {error.title} that this release cannot read"
        if self._trouble != trouble:
            self._trouble = trouble
            log.error("the %s of '%s' cannot go on: %s", self.role, self.model, trouble)
        until = time.monotonic() + wait_s
        while time.monotonic() < until and not self._stopping.is_set():
            self._came_around = time.monotonic()
            with contextlib.suppress(Unavailable, ResponseError):
                await self._show(store)
            await asyncio.sleep(min(BEAT_S, wait_s))

    async def _stand_by(self, store: Store) -> None:
        """Wait while the successor lives; Serve may still stop it, and then this one goes on."""
        key = Keys(self.model).heartbeat(self.role)
        alive: object = True
        while alive and not self._stopping.is_set():
            self._came_around = time.monotonic()
            await asyncio.sleep(BEAT_EXPIRES_S + 1.0)
            with contextlib.suppress(Unavailable):
                alive = await store.call("EXISTS", key)
