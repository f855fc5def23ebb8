"""The archivist: moves the log of every model to its archive, as a Serve deployment.

One process does so for all models, on a thread and a loop of its own, in turn, and does other
chores that come up now and then. It follows the configuration in the store.
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

from online_learner import config
from online_learner.archive.archiver import Archiver
from online_learner.errors import Fenced, OnlineLearnerError, Unavailable, trace
from online_learner.ids import Keyring
from online_learner.settings import ModelSpec, Settings
from online_learner.stages import Stages
from online_learner.store import Store, open_store
from online_learner.store.keys import Keys
from serve_app.jobs.due import Retraining
from serve_app.telemetry import logs

log = logging.getLogger(__name__)

TURN_S = 1.0
BEAT_EXPIRES_S = 10
STUCK_S = 120.0
PATIENCE_S = 60.0  # for a store that does not answer when the archivist starts

Chore = Callable[[Stages], Awaitable[object]]  # done for each model in each turn, if it is due


class Archivist:
    """Archives what leaves the store. One replica, fenced by an epoch for each model."""

    def __init__(self, store_url: str, data_dir: str) -> None:
        logs.join_serve()
        retraining = Retraining(store_url, Path(data_dir))
        self._work = Work(store_url, Path(data_dir), [retraining.trained])

    def check_health(self) -> None:
        """Raise where the archivist is dead or stuck."""
        self._work.check()

    async def __del__(self) -> None:
        await self._work.stop()


class Work:
    """Archives, and does the chores, until told to stop.

    Parameters
    ----------
    chores
        What else is done for each model.
    """

    def __init__(self, store_url: str, data_dir: Path, chores: Sequence[Chore] = ()) -> None:
        self._chores = chores
        self._store_url = store_url
        self._data_dir = data_dir
        self._rooms: dict[str, _Room] = {}
        self._version = 0
        self._came_around = time.monotonic()
        self._failure: BaseException | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._main, name="archivist", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `RuntimeError` where it is dead or stuck, so that Serve replaces it."""
        if not self._thread.is_alive():
            raise RuntimeError("the archivist has ended") from self._failure
        if time.monotonic() - self._came_around > STUCK_S:
            raise RuntimeError("the archivist is stuck")

    async def stop(self) -> None:
        """End after the turn under way."""
        self._stopping.set()
        await asyncio.to_thread(self._thread.join, 2 * TURN_S)

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            log.error("the archivist failed\n%s", trace(error))  # noqa: TRY400
            self._failure = error

    async def _run(self) -> None:
        opening = open_store(self._store_url, data_dir=self._data_dir, patience_s=PATIENCE_S)
        async with await opening as store:
            keyring, trouble = Keyring.load(self._data_dir), ""
            while not self._stopping.is_set():
                self._came_around = time.monotonic()
                try:
                    await self._follow(store, keyring)
                    for room in list(self._rooms.values()):
                        await self._turn(room)
                    trouble = ""
                except OnlineLearnerError as error:
                    if trouble != str(error):
                        log.warning("the archivist waits: %s", error)
                    trouble = str(error)
                await asyncio.sleep(TURN_S)

    async def _follow(self, store: Store, keyring: Keyring) -> None:
        """Open rooms anew where the configuration has changed."""
        version = await config.version(store)
        if version == self._version:
            return
        settings = await config.fetch(store, keyring)
        logs.configure(settings)
        rooms = {}
        for model, spec in settings.models.items():
            known = self._rooms.get(model)
            if known is not None and known.built_of == (spec, settings.window_s):
                rooms[model] = known
            else:
                rooms[model] = _Room(self._stages(store, keyring, model, settings))
        self._rooms, self._version = rooms, version

    def _stages(self, store: Store, keyring: Keyring, model: str, settings: Settings) -> Stages:
        return Stages(
            store,
            keyring,
            model,
            settings.model(model),
            window_s=settings.window_s,
            trains=False,
            data_dir=self._data_dir,
        )

    async def _turn(self, room: _Room) -> None:
        """Do all that is due for one model; what fails for one is none of the others' business."""
        await room.attempt("archived", self._archive)
        for chore in self._chores:
            if self._stopping.is_set():
                return
            await room.attempt(getattr(chore, "__name__", "done"), partial(_done, chore))
            self._came_around = time.monotonic()

    async def _archive(self, room: _Room) -> None:
        archiver = room.stages.archiver
        if archiver is None or not await room.may_archive():
            return

        async def alive() -> None:
            self._came_around = time.monotonic()
            await room.show(archiver)

        archiver.alive = alive
        try:
            await archiver.turn_when_due()
        except Fenced as error:
            log.warning("%s; standing by", error)
            room.stands_by = True
            return
        await room.show(archiver)


async def _done(chore: Chore, room: _Room) -> object:
    return await chore(room.stages)


class _Room:
    """What belongs to one model."""

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self.stands_by = False
        self._failing: dict[str, str] = {}
        self._shown_at = 0.0
        self._waits_until = 0.0

    @property
    def built_of(self) -> tuple[ModelSpec, float]:
        """What it has to be built anew for, where that has changed."""
        return self.stages.spec, self.stages.window_s

    async def attempt(self, what: str, work: Callable[[_Room], Awaitable[object]]) -> None:
        """Do one thing; why it fails is logged once, until it has been done.

        Raises
        ------
        Unavailable
            The store does not answer.
        """
        try:
            await work(self)
            self._failing.pop(what, None)
        except Unavailable:
            raise
        except Exception as error:
            if self._failing.get(what) != str(error):
                self._failing[what] = str(error)
                ours = isinstance(error, OnlineLearnerError)  # its words may be read by anybody
                why = str(error) if ours else trace(error)
                log.error("'%s': %s failed\n%s", self.stages.model, what, why)  # noqa: TRY400

    async def may_archive(self) -> bool:
        """Tell whether it is ours to archive; another process may, as long as it lives."""
        if not self.stands_by:
            return True
        now = time.monotonic()
        if now >= self._waits_until:
            if self._waits_until:
                alive = await self.stages.store.call("EXISTS", self._heartbeat)
                self.stands_by = bool(alive)
            self._waits_until = now + BEAT_EXPIRES_S + 1.0 if self.stands_by else 0.0
        return not self.stands_by

    async def show(self, archiver: Archiver) -> None:
        """Write the heartbeat, with what keeps the archive from growing, if anything does."""
        if time.monotonic() - self._shown_at < TURN_S:
            return
        beat = {
            "pid": os.getpid(),
            "at": time.time(),
            "trouble": archiver.trouble,
            "lag_s": round(archiver.lag_s, 3),
        }
        with contextlib.suppress(Unavailable):
            await self.stages.store.essential(
                "SET", self._heartbeat, json.dumps(beat), "EX", BEAT_EXPIRES_S
            )
        self._shown_at = time.monotonic()

    @property
    def _heartbeat(self) -> str:
        return Keys(self.stages.model).heartbeat("archive")
