"""Whether a training job is due, and why: on schedule, after so many signals, or by an alarm."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from pydantic import ValidationError

from online_learner.errors import NotFound, StateError
from online_learner.ids import entry_order
from online_learner.registry import Registry
from online_learner.retrain.records import Job, jobs, late_signals, running
from online_learner.schema import Raised
from online_learner.settings import ModelSpec

EFFECT = "retrain"  # of an alarm that asks for it; see `policies.drift`
MOST_ALARMS = 200  # that are looked at
DEATHS = 3  # of jobs in a row, after which one that died counts as done


async def due(registry: Registry, spec: ModelSpec, *, now: float) -> str | None:
    """Return why a training job of a model is to begin now, or None.

    What counts is what has come since the last job began, whatever came of that; a job that died is
    tried again, but not for ever.
    """
    wanted = spec.retrain
    if spec.learner is None or not (wanted.every_s or wanted.after_signals or wanted.on_drift):
        return None
    aliases = await registry.aliases()
    if aliases is None or await running(registry):
        return None
    last = _counted(await jobs(registry, count=DEATHS + 1))
    if wanted.on_drift and (sentence := await _alarm(registry, last)):
        return f"an alarm: {sentence}"
    if wanted.after_signals is not None:
        more = await _more(registry, aliases.reference, last or Job(id=""))
        if more >= wanted.after_signals:
            since = "the beginning" if last is None else "the last job"
            return f"{more} signals have come since {since}"
    if wanted.every_s is not None:
        began = await _began(registry) if last is None else last.started_at
        if began is not None and now - began >= wanted.every_s:
            return f"on schedule, every {wanted.every_s:g} s"
    return None


def _counted(found: Sequence[Job]) -> Job | None:
    """Return the job since which things count: the newest, but for those that died."""
    if len(found) >= DEATHS and all(job.state == "died" for job in found[:DEATHS]):
        return found[0]
    return next((job for job in found if job.state != "died"), None)


async def _more(registry: Registry, reference: int, last: Job) -> int:
    """Return how many signals have come since a job began: what was learned, and what came late."""
    published = await registry.published()
    learned, before = 0 if published is None else published.learned, last.learned
    if learned < before:  # a reset went back to a version: what was learned from there on is new
        with contextlib.suppress(NotFound, StateError):
            before = min(learned, (await registry.version(reference)).learned)
    late = await late_signals(registry)
    return max(0, learned - before) + max(0, late - last.late)


async def _alarm(registry: Registry, last: Job | None) -> str | None:
    """Return the words of the newest alarm since a job that asks for one, or None."""
    since_ms = 0.0 if last is None else 1000 * last.started_at
    async for entry, fields in registry.store.backwards(registry.keys.alarms, MOST_ALARMS):
        if entry_order(entry)[0] <= since_ms:
            return None
        with contextlib.suppress(KeyError, ValidationError):
            alarm = Raised.model_validate_json(fields[b"a"])
            if EFFECT in alarm.effects:
                return alarm.sentence
    return None


async def _began(registry: Registry) -> float | None:
    """Return when the model's first kept version was cut."""
    found = await registry.versions()
    return min((version.cut_at for version in found), default=None)
