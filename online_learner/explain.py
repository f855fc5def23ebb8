"""The whole story: what became of a signal, of an answer, of a model."""

from __future__ import annotations

import json
from typing import Any

from online_learner.errors import NotFound
from online_learner.ids import Address
from online_learner.judge import entry_order
from online_learner.registry import Registry
from online_learner.schema import Feedback, Prediction, Step, Verdict
from online_learner.store import Fields


async def receipt(registry: Registry, address: Address) -> dict[str, Any]:
    """Return what became of one accepted signal.

    `status` is `accepted`, `learned` (with lineage and step), `quarantined` (with the reason) or
    `rolled_back`.
    """
    entries = await registry.store.range(registry.keys.feedback, address.entry, address.entry)
    if not entries or entries[0][1].get(b"n", b"").decode() != address.nonce:
        raise NotFound(
            "this feedback was accepted here, but is no longer in the log", code="unknown_feedback"
        )
    entry, fields = entries[0]
    return {
        "model": registry.model,
        "feedback": Feedback.model_validate_json(fields[b"f"]).model_dump(),
        "supersedes": fields[b"s"].decode() if b"s" in fields else None,
        **await _fate(registry, entry),
    }


async def _fate(registry: Registry, entry: str) -> dict[str, Any]:
    steps = await registry.store.range(registry.keys.steps, entry, count=1)
    if not steps:
        return {"status": "accepted"}
    step = Step.model_validate_json(steps[0][1][b"s"])
    if entry in step.set_aside:
        return {"status": "quarantined", "reason": step.set_aside[entry]}
    where = {"lineage": step.lineage, "step": step.step}
    aliases = await registry.aliases()
    if aliases is not None and aliases.lineage != step.lineage:
        for reset_at, version in await _resets(registry):
            after_version = entry_order(entry) > entry_order(version)
            if after_version and entry_order(entry) <= entry_order(reset_at):
                return {"status": "rolled_back", **where}
    return {"status": "learned", **where}


async def _resets(registry: Registry) -> list[tuple[str, str]]:
    """Return when the learner was reset, and how far the version it went back to had learned."""
    found = []
    for entry, fields in await registry.store.range(registry.keys.verdicts):
        verdict = Verdict.model_validate_json(fields[b"v"])
        if verdict.action in ("pull", "rollback") and verdict.version is not None:
            version = await registry.version(verdict.version)
            found.append((entry, version.offset))
    return found


async def story(registry: Registry, address: Address, record: Prediction) -> dict[str, Any]:
    """Return one answer and everything that was said about it."""
    signals = []
    start = f"{address.ms}-0"
    for entry, fields in await registry.store.range(registry.keys.feedback, start):
        if fields.get(b"p", b"").decode() == address.entry:
            feedback = Feedback.model_validate_json(fields[b"f"]).model_dump()
            signals.append({**feedback, **await _fate(registry, entry)})
    return {"prediction": record.model_dump(), "feedback": signals}


async def verdicts(registry: Registry, *, count: int = 100) -> list[dict[str, Any]]:
    """Return the newest decisions, newest first."""
    found = await registry.store.latest(registry.keys.verdicts, count)
    return [Verdict.model_validate_json(fields[b"v"]).model_dump() for _, fields in found]


async def status(registry: Registry, *, now: float) -> dict[str, Any]:
    """Return who answers, what is tested, how far the learner is, and who is alive."""
    aliases = await registry.aliases()
    if aliases is None:
        return {"model": registry.model, "ready": False}
    meta = await registry.checkpoint_meta()
    checkpoint = json.loads(meta) if meta else {}
    champion = await registry.version(aliases.champion)
    last = await registry.store.latest(registry.keys.feedback)
    last_step = await registry.store.latest(registry.keys.steps)
    gate = (await registry.store.hash(registry.keys.checkpoint("gatekeeper"))).get(b"meta")
    return {
        "model": registry.model,
        "ready": True,
        "version": aliases.champion,
        "step": checkpoint.get("step", 0) if aliases.following else champion.step,
        "untrained": champion.untrained and not aliases.following,
        "aliases": aliases.model_dump(),
        "learned": checkpoint.get("learned", 0),
        "lag_ms": _lag(last, last_step),
        "gate": {key: json.loads(gate or b"{}").get(key, 0) for key in ("answered", "unanswered")},
        "learner": await _heartbeat(registry, "learner", now),
        "gatekeeper": await _heartbeat(registry, "gatekeeper", now),
    }


async def _heartbeat(registry: Registry, writer: str, now: float) -> dict[str, Any] | None:
    found = await registry.store.call("GET", registry.keys.heartbeat(writer))
    if found is None:
        return None
    beat = json.loads(found)
    return {"pid": beat["pid"], "age_s": round(max(0.0, now - beat["at"]), 3)}


def _lag(feedback: list[tuple[str, Fields]], steps: list[tuple[str, Fields]]) -> int:
    """Return how far the last commit is behind the last feedback, in milliseconds."""
    if not feedback:
        return 0
    behind = entry_order(feedback[0][0])[0]
    return max(0, behind - (entry_order(steps[0][0])[0] if steps else behind - 1))
