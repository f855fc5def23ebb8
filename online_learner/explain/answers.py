"""One answer: what was said about it, and why its version was live."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from online_learner.explain.signals import fate_of, feedback_id
from online_learner.ids import Address, entry_order
from online_learner.registry import Registry
from online_learner.schema import Feedback, Prediction, Verdict
from online_learner.store import Entry
from online_learner.store.keys import said_place

PAGE = 500
MOMENT_MS = 50  # that one script may take
WHO_ANSWERS = {"register", "promote", "follow", "bless", "pull", "rollback", "freeze", "thaw"}


async def story(registry: Registry, address: Address, record: Prediction) -> dict[str, Any]:
    """Return one answer, everything that was said about it, and why its version was live."""
    found = dict(await _flagged(registry, address))
    found |= {entry: fields async for entry, fields in _said_of(registry, address.entry)}
    ids = {entry: feedback_id(registry, entry, fields) for entry, fields in found.items()}
    signals = []
    for entry, fields in sorted(found.items(), key=lambda item: entry_order(item[0])):
        feedback = Feedback.model_validate_json(fields[b"f"]).model_dump()
        supersedes = ids.get(fields.get(b"s", b"").decode())
        fate = await fate_of(registry, entry)
        signals.append({"feedback_id": ids[entry], **feedback, "supersedes": supersedes, **fate})
    return {
        "prediction": record.model_dump(),
        "feedback": signals,
        "learned_by": sorted({s["version"] for s in signals if s.get("version") is not None}),
        "live_because": await _why_live(registry, address),
    }


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
