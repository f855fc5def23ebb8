"""What the spans of the loop say: of answers, signals, swaps, and the turns of the writers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from online_learner.errors import ServiceError
from online_learner.ids import Address, entry_order
from online_learner.ingest import Receipt
from online_learner.stages import Stages
from online_learner.store import Entry
from serve_app.telemetry import tracing

MOST_IDS = 100  # of the feedback that one step learned


def answered(model: str, answers: Sequence[dict[str, Any] | ServiceError]) -> None:
    """Add to the span under way which answer was given, or how many."""
    if not tracing.on():
        return
    if len(answers) != 1 or isinstance(answers[0], ServiceError):
        tracing.note(model=model, answers=len(answers))
    else:
        told = ("version", "step", "role", "prediction_id")
        tracing.note(model=model, **{name: answers[0].get(name) for name in told})


def heard(receipt: Receipt) -> None:
    """Add to the span under way what became of a signal."""
    tracing.note(
        model=receipt.model,
        feedback_id=receipt.feedback_id,
        prediction_id=receipt.prediction_id,
        status=receipt.status,
    )


def swapped(room: Stages, started_ns: int) -> None:
    """Tell that other weights answer since now; they began to be loaded at `started_ns`."""
    bundle = room.predictor.bundle
    if bundle is not None:
        champion = bundle.champion
        tracing.past(
            "swap",
            started_ns,
            model=room.registry.model,
            version=champion.version,
            lineage=champion.lineage,
            step=champion.step,
            following=bundle.aliases.following,
        )


class Turns:
    """Tells of the turns of a single writer, from when it had read: before, it may have waited."""

    def read(self, entries: Sequence[Entry]) -> None:
        """Take in what the stage has just read of the feedback: this is its `heard`."""

    def told(self, done: int) -> None:
        """Tell of a turn that has ended, where there was something to do."""


class _Traced(Turns):
    def __init__(self, stages: Stages) -> None:
        self._registry = stages.registry
        self._started_ns = 0
        self._entries: Sequence[Entry] = ()

    def read(self, entries: Sequence[Entry]) -> None:
        self._started_ns, self._entries = time.time_ns(), entries

    def told(self, done: int) -> None:
        if done:
            name, facts = self._facts()
            tracing.past(name, self._started_ns, model=self._registry.model, **facts)

    def _facts(self) -> tuple[str, dict[str, Any]]:
        raise NotImplementedError


class _LearnSteps(_Traced):
    def __init__(self, stages: Stages) -> None:
        super().__init__(stages)
        self._trainer = stages.trainer

    def _facts(self) -> tuple[str, dict[str, Any]]:
        at = self._trainer.at
        signals = [(entry, fields[b"n"]) for entry, fields in self._entries if b"n" in fields]
        ids = [self._id(entry, nonce) for entry, nonce in signals[:MOST_IDS]]
        facts = {"lineage": at.lineage, "step": at.step, "signals": len(signals)}
        return "learn step", facts | {"feedback_ids": ids}

    def _id(self, entry: str, nonce: bytes) -> str:
        address = Address(*entry_order(entry), nonce.decode())
        return self._registry.keyring.seal("feedback", self._registry.model, address)


class _GateTurns(_Traced):
    def __init__(self, stages: Stages) -> None:
        super().__init__(stages)
        self._gatekeeper = stages.gatekeeper

    def _facts(self) -> tuple[str, dict[str, Any]]:
        judge, moved = self._gatekeeper.judge, self._gatekeeper.moved
        verdict = moved.verdict if moved else None
        facts: dict[str, Any] = {"settled": judge.settled, "promotions": judge.promotions}
        if verdict is not None:
            facts |= {"action": verdict.action, "version": verdict.version}
        return "gate turn", facts


def turns(stages: Stages, *, role: str) -> Turns:
    """Return what tells of the turns of a model's learner or gatekeeper."""
    if not tracing.start():
        return Turns()
    return _LearnSteps(stages) if role == "learner" else _GateTurns(stages)
