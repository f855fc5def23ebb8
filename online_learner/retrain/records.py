"""What is kept of training jobs, and that a model has one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Literal, TypeAlias

from pydantic import Field, ValidationError

from online_learner.errors import Conflict, Unavailable
from online_learner.registry import Registry
from online_learner.schema import Record

log = logging.getLogger(__name__)

State: TypeAlias = Literal["running", "done", "refused", "died"]

LOCK_S = 30.0  # after which a job that is not heard of is dead
KEPT = 1000  # records, two a job
_LOCK = "retrain"


class Tried(Record):
    """One configuration: what came of it. `failed` says why there are no scores."""

    configuration: dict[str, Any] = Field(default_factory=dict)
    scores: dict[str, float] = Field(default_factory=dict)
    learned: int = 0
    left_out: dict[str, int] = Field(default_factory=dict)
    failed: str = ""
    took_s: float = 0.0


class Job(Record):
    """One training job. It is written down when it begins, and again when it ends.

    `learned` is how many signals the model had learned by then, `late` how many were accepted for
    datasets alone, and `parent` who answered.
    `champion` and `constant` are the scores of that version, and of the answer that heeds nothing,
    on the same rows; of these the champion had learned `champion_learned` before. `version` is the
    candidate that came of it; `why`, why there is none.
    """

    id: str
    because: str = ""
    by: str = ""
    state: State = "running"
    dataset: str = ""
    rows: dict[str, int] = Field(default_factory=dict)
    parent: int | None = None
    learned: int = 0
    late: int = 0
    tried: list[Tried] = Field(default_factory=list)
    chosen: int | None = None  # of those that were tried
    champion: dict[str, float] = Field(default_factory=dict)
    champion_learned: int = 0
    constant: dict[str, float] = Field(default_factory=dict)
    version: int | None = None
    sentence: str = ""
    why: str = ""
    started_at: float = 0.0
    ended_at: float = 0.0


async def jobs(registry: Registry, *, count: int = 100) -> list[Job]:
    """Return the newest jobs, newest first; one that ended without a word has died."""
    holder = await registry.store.call("GET", registry.keys.heartbeat(_LOCK))
    found: dict[str, Job] = {}
    async for _, fields in registry.store.backwards(registry.keys.jobs, 2 * count):
        try:
            job = Job.model_validate_json(fields[b"j"])
        except (KeyError, ValidationError):  # another release's
            continue
        found.setdefault(job.id, job)  # the newest record of a job is the first that is met
    lives = holder.decode() if holder is not None else ""
    return [_told(job, lives) for job in list(found.values())[:count]]


def _told(job: Job, lives: str) -> Job:
    if job.state != "running" or job.id == lives:
        return job
    why = "it ended without a word: it was killed, or its machine was lost. Start it again"
    return job.model_copy(update={"state": "died", "why": why})


async def late_signals(registry: Registry) -> int:
    """Return how many signals were ever accepted that came too late to be learned."""
    if not await registry.store.call("EXISTS", registry.keys.late):
        return 0
    info = await registry.store.call("XINFO", "STREAM", registry.keys.late)
    return int(info[info.index(b"entries-added") + 1])


async def running(registry: Registry) -> bool:
    """Tell whether a job is under way."""
    return bool(await registry.store.call("EXISTS", registry.keys.heartbeat(_LOCK)))


class Lock:
    """Holds the model's only job while it runs.

    Attributes
    ----------
    lost
        Whether it has failed to hold on: another job may run by now.
    """

    def __init__(self, registry: Registry, job: str) -> None:
        self._registry = registry
        self._job = job
        self.lost = False

    async def write(self, action: Literal["begin", "hold", "end"], job: Job | None = None) -> bool:
        """Do one thing with the lock, and write down the job; tells whether it is held."""
        keys = self._registry.keys
        record = "" if job is None else job.pack().decode()
        arguments = [action, self._job, str(round(1000 * LOCK_S)), record, str(KEPT)]
        names = [keys.heartbeat(_LOCK), keys.jobs]
        return bool(await self._registry.store.run("job", names, arguments) == b"ok")

    async def hold(self) -> None:
        """Hold on until it is cancelled."""
        while True:
            await asyncio.sleep(LOCK_S / 3)
            with contextlib.suppress(Unavailable):
                self.lost = not await self.write("hold")
                if self.lost:
                    return


@contextlib.asynccontextmanager
async def locked(registry: Registry, job: Job) -> AsyncIterator[Lock]:
    """Write down that a job begins, and hold the lock meanwhile. Whoever enters writes its end.

    Raises
    ------
    Conflict
        Another job of this model is under way.
    """
    lock = Lock(registry, job.id)
    if not await lock.write("begin", job):
        raise Conflict(
            f"a training job of '{registry.model}' is under way already: see `online-learner jobs "
            f"{registry.model}`, and try again when it has ended"
        )
    holding = asyncio.create_task(lock.hold())
    try:
        yield lock
    finally:
        holding.cancel()
