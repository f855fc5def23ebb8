"""The whole story: what became of a signal, of an answer, of a model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from online_learner.errors import NotFound
from online_learner.ids import Address
from online_learner.judge import entry_order
from online_learner.registry import Registry
from online_learner.replay import NOTHING
from online_learner.schema import Feedback, Prediction, Served, Step, Verdict
from online_learner.store import Entry, Fields
from online_learner.store.keys import said_field

PAGE = 500
MOMENT_MS = 50  # that one script may take


async def receipt(registry: Registry, address: Address) -> dict[str, Any]:
    """Return what became of one accepted signal.

    `status` is `accepted` (not learned yet), `learned` (with the step, the first version that has
    it, and the first answer that rests on it), `kept` (valid, and nothing to learn from it here),
    `quarantined` or `rolled_back`. `supersedes` and `superseded_by` are the ids of what the same
    source had said before, or said later, in this kind about this answer.
    """
    entries = await registry.store.range(registry.keys.feedback, address.entry, address.entry)
    if not entries or entries[0][1].get(b"n", b"").decode() != address.nonce:
        raise NotFound(
            "this feedback was accepted here, but is no longer in the log", code="unknown_feedback"
        )
    entry, fields = entries[0]
    feedback = Feedback.model_validate_json(fields[b"f"])
    return {
        "model": registry.model,
        "feedback": feedback.model_dump(),
        "supersedes": await _predecessor(registry, fields),
        "superseded_by": await _successor(registry, entry, fields, feedback),
        **await _fate(registry, entry),
    }


async def _predecessor(registry: Registry, fields: Fields) -> str | None:
    """Return the id of the signal whose place this one took."""
    before = fields.get(b"s", b"").decode()
    found = await registry.store.range(registry.keys.feedback, before, before) if before else []
    return _feedback_id(registry, *found[0]) if found else None


async def _successor(
    registry: Registry, entry: str, fields: Fields, feedback: Feedback
) -> str | None:
    """Return the id of the signal that took the place of this one: back from the latest."""
    said = registry.keys.said(fields.get(b"p", b"").decode())
    name = said_field(feedback.source, feedback.kind, feedback.subject())
    latest = await registry.store.call("HGET", said, name)
    later = "" if latest is None else _place(latest)
    while later not in ("", entry):
        found = await registry.store.range(registry.keys.feedback, later, later)
        before = found[0][1].get(b"s", b"").decode() if found else ""
        if before == entry:
            return _feedback_id(registry, *found[0])
        later = before
    return None


def _feedback_id(registry: Registry, entry: str, fields: Fields) -> str:
    address = Address(*entry_order(entry), fields[b"n"].decode())
    return registry.keyring.seal("feedback", registry.model, address)


async def _said_of(registry: Registry, prediction: str) -> AsyncIterator[Entry]:
    """Yield what was said of one answer, from the index of the latest, back to the first.

    The index lives as long as the feedback window.
    """
    latest = await registry.store.hash(registry.keys.said(prediction))
    waiting = sorted((_place(value) for value in latest.values()), key=entry_order, reverse=True)
    while waiting:
        entry = waiting.pop(0)
        found = await registry.store.range(registry.keys.feedback, entry, entry)
        for item in found:
            yield item
            if b"s" in item[1]:
                waiting.append(item[1][b"s"].decode())


def _place(value: bytes) -> str:
    return value.decode().split("|")[1]


# --- what became of it ------------------------------------------------------------------------


async def _fate(registry: Registry, entry: str) -> dict[str, Any]:
    steps = await registry.store.range(registry.keys.steps, entry, count=1)
    if not steps:
        return {"status": "accepted"}
    step = Step.model_validate_json(steps[0][1][b"s"])
    where: dict[str, Any] = {"lineage": step.lineage, "step": step.step}
    if entry in step.set_aside:
        reason = step.set_aside[entry]
        status = "kept" if reason.startswith(NOTHING) else "quarantined"
        return {"status": status, "reason": reason, **where}
    where["learned_at"] = step.at
    if await _rolled_back(registry, entry, step):
        return {"status": "rolled_back", **where}
    return {
        "status": "learned",
        **where,
        "version": await _first_version(registry, step),
        "served": await _first_served(registry, entry, step),
    }


async def _rolled_back(registry: Registry, entry: str, step: Step) -> bool:
    aliases = await registry.aliases()
    if aliases is None or aliases.lineage == step.lineage:
        return False
    at, until = entry_order(entry), None
    for reset, kept in reversed(await _resets(registry)):
        if until is not None and entry_order(reset) > until:
            continue  # the version that was gone back to afterwards had been cut before it
        until = entry_order(kept)
        if until < at <= entry_order(reset):
            return True
    return False


async def _resets(registry: Registry) -> list[tuple[str, str]]:
    """Return when the learner was reset, and how far the version it went back to had learned."""
    found = []
    for entry, fields in await registry.store.range(registry.keys.verdicts):
        verdict = Verdict.model_validate_json(fields[b"v"])
        if verdict.action in ("pull", "rollback") and verdict.version is not None:
            version = await registry.version(verdict.version)
            found.append((entry, version.offset))
    return found


async def _first_version(registry: Registry, step: Step) -> int | None:
    """Return the first kept snapshot that has learned a step, or None before one was cut.

    Lineages and steps grow with the number, so a bisection finds it among any number of them.
    """
    last = await registry.last_version()
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        version = await registry.version(middle)
        if version.lineage >= step.lineage and version.step >= step.step:
            high = middle
        else:
            low = middle + 1
    return low if low <= last else None


async def _first_served(registry: Registry, entry: str, step: Step) -> dict[str, Any] | None:
    """Return the first answer whose weights had learned a step, or None before there was one.

    Steps count on through resets, and what was rolled back has been told apart before: weights of
    the same lineage or a later one have learned it where their step is not smaller.
    """
    start = f"{entry_order(entry)[0]}"
    while found := await registry.store.range(registry.keys.served, start, count=PAGE):
        for answer, fields in found:
            weights = Served.model_validate_json(fields[b"w"])
            if weights.lineage >= step.lineage and weights.step >= step.step:
                at = entry_order(answer)[0] / 1000
                return {"version": weights.version, "step": weights.step, "at": at}
        start = f"({found[-1][0]}"
    return None


# --- an answer --------------------------------------------------------------------------------


async def story(registry: Registry, address: Address, record: Prediction) -> dict[str, Any]:
    """Return one answer, everything that was said about it, and why its version was live."""
    found = dict(await _flagged(registry, address))
    found |= {entry: fields async for entry, fields in _said_of(registry, address.entry)}
    ids = {entry: _feedback_id(registry, entry, fields) for entry, fields in found.items()}
    signals = []
    for entry, fields in sorted(found.items(), key=lambda item: entry_order(item[0])):
        feedback = Feedback.model_validate_json(fields[b"f"]).model_dump()
        supersedes = ids.get(fields.get(b"s", b"").decode())
        fate = await _fate(registry, entry)
        signals.append({"feedback_id": ids[entry], **feedback, "supersedes": supersedes, **fate})
    return {
        "prediction": record.model_dump(),
        "feedback": signals,
        "learned_by": sorted({s["version"] for s in signals if s.get("version") is not None}),
        "live_because": await _why_live(registry, address),
    }


async def _flagged(registry: Registry, address: Address) -> list[Entry]:
    """Return the signals that rules gave with the answer: they were appended in its moment."""
    end = f"{address.ms + MOMENT_MS}"
    found = await registry.store.range(registry.keys.feedback, f"{address.ms}", end)
    entry = address.entry.encode()
    return [item for item in found if item[1].get(b"p") == entry]


async def _why_live(registry: Registry, address: Address) -> dict[str, Any] | None:
    """Return the last decision before an answer on who answers; None: the first version stood.

    That a challenger was retired is none.
    """
    until = address.entry
    while found := await registry.store.latest(registry.keys.verdicts, PAGE, until=until):
        for _, fields in found:
            verdict = Verdict.model_validate_json(fields[b"v"])
            if verdict.action != "reject":
                return verdict.model_dump()
        until = f"({found[-1][0]}"
    return None


# --- a model ----------------------------------------------------------------------------------


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
        "state_digest": checkpoint.get("state_digest"),
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
