"""What retention costs: how much memory and disk a window's worth of records takes.

Measured where there are records: their rate, times their size, times the window. Where there are
none, the other way around: how many answers a second the store has room for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from online_learner.cli.finding import Finding, Level
from online_learner.errors import Unavailable
from online_learner.retain import EVIDENCE_WINDOWS
from online_learner.store import Store
from online_learner.store.keys import CONFIG, Keys
from online_learner.store.probe import TIGHT

RECENT = 500  # records from which the rate is taken
ASSUMED_BYTES = 700  # of one answer, where none is there to be measured
LOG_FACTOR = 2  # the log is rewritten when it has doubled


@dataclass(frozen=True, slots=True)
class Cost:
    """What one stream takes.

    Attributes
    ----------
    per_s, bytes_each
        Its recent rate, and the memory of one record.
    windows
        For how many windows it is kept.
    """

    per_s: float
    bytes_each: float
    windows: int = 1

    def memory_bytes(self, window_s: float) -> float:
        """Return what it takes when the window is full, at this rate."""
        return self.per_s * self.bytes_each * window_s * self.windows


async def costs(store: Store, window_s: float) -> AsyncIterator[Finding]:
    """Say what each model's records take over the window, and whether that is there."""
    limit = store.health.memory.limit_bytes if store.health.memory else None
    total = 0.0
    try:
        for model in await models_of(store):
            found = await _of(store, Keys(model))
            if not found:
                continue
            beside = await _beside(store, Keys(model))
            taken = beside + sum(cost.memory_bytes(window_s) for cost in found.values())
            total += taken
            yield _tell(model, found, taken, window_s, beside)
        log_bytes = await _log_bytes(store)
    except Unavailable as error:
        yield Finding("retention", "warning", f"not measured: {error}", "run doctor again")
        return
    if limit is not None:
        yield _room(total, limit, window_s)
    yield Finding("retention", "ok", f"the log has {size(log_bytes)} on disk")


async def models_of(store: Store) -> list[str]:
    """Return the models that a store is configured for, whoever sealed that."""
    found = [key.decode() for key in await store.call("HKEYS", CONFIG)]
    return sorted(key.removeprefix("model:") for key in found if key.startswith("model:"))


async def _of(store: Store, keys: Keys) -> dict[str, Cost]:
    """Return what a model's streams take; those that are empty are left out."""
    streams = {
        "answers": (keys.predictions, 1),
        "signals": (keys.feedback, 1),
        "steps": (keys.steps, 1),
        "audits": (keys.audits, 1),
        "questions": (keys.asked, 1),
        "evidence": (keys.evidence, EVIDENCE_WINDOWS),
    }
    found = {}
    for name, (stream, windows) in streams.items():
        length = int(await store.call("XLEN", stream))
        if length:
            taken = int(await store.call("MEMORY", "USAGE", stream) or 0)
            found[name] = Cost(await _per_s(store, stream), taken / length, windows)
    return found


async def _beside(store: Store, keys: Keys) -> int:
    """Return what the observers of a model take, and who labels what: it does not grow in time."""
    names = (keys.observer, keys.alarms, keys.quality, keys.advice, keys.leases, keys.gold)
    return sum(filter(None, await store.many([("MEMORY", "USAGE", name) for name in names])))


async def _per_s(store: Store, stream: str) -> float:
    """Return how many records came a second, of late."""
    recent = await store.latest(stream, count=RECENT)
    seconds, micros = await store.call("TIME")
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    oldest_ms = min(int(entry.partition("-")[0]) for entry, _ in recent)
    return len(recent) / max(1.0, (now_ms - oldest_ms) / 1000)


async def _log_bytes(store: Store) -> int:
    info = await store.call("INFO", "persistence")
    text = info.decode() if isinstance(info, bytes) else str(info)
    pairs = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(pairs.get("aof_current_size", 0))


def _tell(
    model: str, found: dict[str, Cost], taken: float, window_s: float, beside: float
) -> Finding:
    rates = ", ".join(
        f"{cost.per_s:,.3g} {name} a second of {cost.bytes_each:,.0f} bytes"
        for name, cost in found.items()
        if name in ("answers", "signals")
    )
    message = (
        f"{model}: {rates}: {size(taken)} of memory for a window of {window_s:,.0f} s, and up to "
        f"{size(LOG_FACTOR * taken)} on disk"
    )
    if beside:
        message += f"; {size(beside)} of the memory are what observers know"
    return Finding("retention", "ok", message)


def _room(total: float, limit: int, window_s: float) -> Finding:
    """Compare what all models will take with what the store may take."""
    usable = TIGHT * limit
    if not total:
        rate = usable / (ASSUMED_BYTES * window_s)
        message = (
            f"{size(limit)} have room for about {rate:,.3g} answers a second, of {ASSUMED_BYTES} "
            f"bytes, over a window of {window_s:,.0f} s"
        )
        return Finding("retention", "ok", message)
    message = f"at this rate a full window takes {size(total)} of {size(limit)}"
    if total <= usable:
        return Finding("retention", "ok", message)
    level: Level = "warning" if total <= limit else "problem"
    fits_s = window_s * usable / total
    cure = f"raise maxmemory, or set window_s to {fits_s:,.0f} or less"
    return Finding("retention", level, f"{message}: answers will be refused", cure)


def size(count: float) -> str:
    """Return a number of bytes as people read it.

    >>> size(900), size(5.2e6), size(190e9)
    ('900 B', '5.2 MB', '190 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
