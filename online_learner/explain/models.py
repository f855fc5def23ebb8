"""One model: who answers, what is tested, how far the learner is, what was decided."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from online_learner.errors import StateError
from online_learner.ids import entry_order
from online_learner.outlook import Goals, outlook
from online_learner.registry import Registry
from online_learner.schema import GateState, Settled, Verdict


async def verdicts(
    registry: Registry, *, count: int = 100, after: str | None = None
) -> list[dict[str, Any]]:
    """Return decisions, each with its `id`: the newest first, or all after an id, oldest first."""
    stream = registry.keys.verdicts
    if after is None:
        found = await registry.store.latest(stream, count)
    else:
        found = await registry.store.range(stream, f"({after}", count=count)
    return [
        {"id": entry, **Verdict.model_validate_json(fields[b"v"]).model_dump()}
        for entry, fields in found
    ]


async def evidence(registry: Registry, *, count: int, after: str = "0-0") -> list[dict[str, Any]]:
    """Return settled audits as scalars, in order, each with its `id`: those after an id."""
    found = await registry.store.range(registry.keys.evidence, f"({after}", count=count)
    return [
        {"id": entry, **Settled.model_validate_json(fields[b"e"]).model_dump()}
        for entry, fields in found
    ]


async def status(registry: Registry, policy: Goals, *, now: float) -> dict[str, Any]:
    """Return who answers, what is tested and how long still, how far the learner is, who is alive.

    Parameters
    ----------
    policy
        The promotion policy: it knows what a decision takes.
    """
    aliases = await registry.aliases()
    if aliases is None:
        return {"model": registry.model, "ready": False}
    published = await registry.published()
    checkpoint = {} if published is None else published.model_dump()
    behind_s = await lag_s(registry, now=now, learned=checkpoint.get("offset", "0-0"))
    champion = await registry.version(aliases.champion)
    gate = GateState()
    with contextlib.suppress(StateError):
        gate = await registry.gate() or gate
    return {
        "model": registry.model,
        "ready": True,
        "version": aliases.champion,
        "step": checkpoint.get("step", 0) if aliases.following else champion.step,
        "untrained": champion.untrained and not aliases.following,
        "aliases": aliases.model_dump(),
        "learned": checkpoint.get("learned", 0),
        "state_digest": checkpoint.get("state_digest"),
        "differs": checkpoint.get("differs"),
        "lag_ms": round(1000 * behind_s),
        "gate": {
            "answered": gate.answered,
            "unanswered": gate.unanswered,
            "tests": await outlook(registry, policy),
        },
        "trimmed": await _trimmed(registry),
        "learner": await _heartbeat(registry, "learner", now),
        "gatekeeper": await _heartbeat(registry, "gatekeeper", now),
    }


async def _trimmed(registry: Registry) -> dict[str, str]:
    """Return up to where each kind of record has been trimmed; what never was is left out."""
    found = await registry.store.hash(registry.keys.trimmed)
    return {what.decode(): entry.decode() for what, entry in found.items()}


async def _heartbeat(registry: Registry, writer: str, now: float) -> dict[str, Any] | None:
    found = await registry.store.call("GET", registry.keys.heartbeat(writer))
    if found is None:
        return None
    beat = json.loads(found)
    told = {"trouble": beat["trouble"]} if beat.get("trouble") else {}
    return {"pid": beat["pid"], "age_s": round(max(0.0, now - beat["at"]), 3), **told}


async def lag_s(registry: Registry, *, now: float, learned: str = "0-0") -> float:
    """Return the age, in seconds, of the oldest feedback entry that no step covers; else 0.

    Parameters
    ----------
    learned
        An entry up to which all is known to be learned, where the steps have been trimmed.
    """
    keys, store = registry.keys, registry.store
    steps = await store.latest(keys.steps)
    covered = steps[0][0] if steps else learned
    waiting = await store.range(keys.feedback, f"({covered}", count=1)
    return max(0.0, now - entry_order(waiting[0][0])[0] / 1000) if waiting else 0.0
