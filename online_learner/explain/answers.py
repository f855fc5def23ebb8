"""One answer: what was said about it, and why its version was live."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from online_learner.archive.log import Log
from online_learner.errors import DataError, NotFound, StateError
from online_learner.explain.archived import (
    find_entry,
    in_order,
    late_not_on_file,
    said_not_on_file,
    said_on_file,
)
from online_learner.explain.signals import fate_of, feedback_id, late_fate
from online_learner.ids import LATE, Address, entry_order
from online_learner.interpret import ERASED
from online_learner.registry import Registry
from online_learner.schema import Feedback, Prediction, Verdict
from online_learner.store import Entry
from online_learner.store.keys import said_place

PAGE = 500
END = "999999999999999-0"  # of all entries
MOMENT_MS = 50  # that one script may take
INCOMPLETE = {
    "incomplete": "what was said of it cannot be read here, or not all of it: the archive is away "
    "or damaged (see `online-learner doctor`), or too much was said meanwhile to look through it"
}
WHO_ANSWERS = {"register", "promote", "follow", "bless", "pull", "rollback", "freeze", "thaw"}


async def answer(
    log: Log, address: Address, *, window_s: float, now_s: float | None = None
) -> dict[str, Any]:
    """Return the story of the answer at an address, from the store or from the archive.

    `archived` is there, and true, where it has left the store. Then the first answers that rest on
    what was said of it are known no more, and are left out. Once its window has closed, the index
    of what was said is gone, and the log itself is looked through.

    Parameters
    ----------
    window_s
        For how many seconds after an answer what is said of it is learned.
    now_s
        Seconds since the epoch; None: now.

    Raises
    ------
    NotFound, Erased
        It is gone, or nothing of it is kept but its place.
    """
    fields, archived = await find_entry(log, "predictions", address, "prediction")
    record = Prediction.model_validate_json(fields[b"r"])
    closed_ms = address.ms + int(1000 * window_s)
    now_ms = 1000 * (time.time() if now_s is None else now_s)
    if not archived and now_ms < closed_ms:
        return await story(log.registry, address, record, log=log, closed_ms=closed_ms)
    late: list[Entry] = []
    try:
        late = await late_not_on_file(log, address.entry, closed_ms)  # first: it moves there
        recent = await said_not_on_file(log, address.entry, closed_ms)
        found = recent + await said_on_file(log, address.entry, "feedback", closed_ms)
        on_file = await said_on_file(log, address.entry, "late", None)
        begins = await _begins(log.registry)
        told = await _told(log, address, record, found, [*on_file, *late], begins=begins)
    except DataError:  # the answer can be read, and that cannot
        told = await _told(log, address, record, [], late) | INCOMPLETE
    return told | ({"archived": True} if archived else {})


async def _begins(registry: Registry) -> str:
    """Return the first signal that the store has."""
    first = await registry.store.range(registry.keys.feedback, count=1)
    return first[0][0] if first else END


async def story(
    registry: Registry,
    address: Address,
    record: Prediction,
    *,
    log: Log | None = None,
    closed_ms: int | None = None,
) -> dict[str, Any]:
    """Return one answer, everything that was said about it, and why its version was live.

    Parameters
    ----------
    closed_ms
        When its window closes, in milliseconds since the epoch: what was said later is told, too.
    """
    log = log or Log(registry)
    found = await _flagged(registry, address)
    found += [item async for item in _said_of(registry, address.entry)]
    late = [] if closed_ms is None else await late_not_on_file(log, address.entry, closed_ms)
    return await _told(log, address, record, found, late)


async def _told(
    log: Log,
    address: Address,
    record: Prediction,
    found: Sequence[Entry],
    late: Sequence[Entry],
    *,
    begins: str = "0-0",
) -> dict[str, Any]:
    registry = log.registry
    ids = {entry: feedback_id(registry, entry, fields) for entry, fields in found}
    signals = []
    for entry, fields in in_order(found):
        feedback = Feedback.model_validate_json(fields[b"f"]).model_dump()
        supersedes = ids.get(fields.get(b"s", b"").decode())
        archived = entry_order(entry) < entry_order(begins)
        fate = await fate_of(log, entry, archived=archived)
        signals.append({"feedback_id": ids[entry], **feedback, "supersedes": supersedes, **fate})
    for entry, fields in in_order(late):
        feedback = Feedback.model_validate_json(fields[b"f"]).model_dump()
        named = feedback_id(registry, entry, fields, shard=LATE)
        fate = await late_fate(registry, entry)
        signals.append({"feedback_id": named, **feedback, "supersedes": None, **fate})
    return {
        "prediction": record.model_dump(),
        "feedback": signals,
        "learned_by": sorted({s["version"] for s in signals if s.get("version") is not None}),
        "live_because": None if record.imported else await _why_live(registry, address),
        "trained": None if record.imported else await _trained(registry, record),
    }


async def _trained(registry: Registry, record: Prediction) -> dict[str, Any] | None:
    """Return on which dataset, and by which job, the weights were trained; None: by the learner."""
    try:
        version = await registry.version(record.version)
    except (NotFound, StateError):
        return None
    same = (version.lineage, version.step) == (record.lineage, record.step)  # not a later step
    return version.trained.model_dump() if same and version.trained is not None else None


async def _said_of(registry: Registry, prediction: str) -> AsyncIterator[Entry]:
    """Yield what was said of one answer, from the index of the latest, back to the first.

    The index lives as long as the feedback window.
    """
    latest = await registry.store.hash(registry.keys.said(prediction))
    waiting = sorted(map(said_place, latest.values()), key=entry_order, reverse=True)
    while waiting:
        entry = waiting.pop(0)
        found = await registry.store.range(registry.keys.feedback, entry, entry)
        for item in found:
            if ERASED in item[1]:
                continue
            yield item
            if b"s" in item[1]:
                waiting.append(item[1][b"s"].decode())


async def _flagged(registry: Registry, address: Address) -> list[Entry]:
    """Return the signals that rules gave with the answer: they were appended in its moment."""
    end = f"{address.ms + MOMENT_MS}"
    found = await registry.store.range(registry.keys.feedback, f"{address.ms}", end)
    entry = address.entry.encode()
    return [item for item in found if item[1].get(b"p") == entry]


async def _why_live(registry: Registry, address: Address) -> dict[str, Any] | None:
    """Return the last decision before an answer on who answers; None: the first version stood.

    That a test began, or that a challenger was retired, is none.
    """
    until = address.entry
    while found := await registry.store.latest(registry.keys.verdicts, PAGE, until=until):
        for _, fields in found:
            verdict = Verdict.model_validate_json(fields[b"v"])
            if verdict.action in WHO_ANSWERS:
                return verdict.model_dump()
        until = f"({found[-1][0]}"
    return None
