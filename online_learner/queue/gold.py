"""Gold: questions that an operator planted, with the right answer, to learn about raters.

The model answers it as any other. It is handed out among what active learning asks about, to many
holders, until each has answered or skipped it. Nothing in it tells which it is, nor does leasing,
renewing or giving back. What raters say of it teaches the model nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from online_learner.errors import Conflict
from online_learner.ingest import Ingest, Speaker
from online_learner.queue.items import ASK, Question
from online_learner.registry import Registry
from online_learner.requests import PredictRequest, read_feedback
from online_learner.schema import Ask, Output, Prediction
from online_learner.stages import Stages

MOST_PLANTED = 1000  # that are open at once


@dataclass(frozen=True, slots=True)
class Planted:
    """A question that was planted: what the model answered, and until when it is asked.

    `open_until` is in seconds since 1970.
    """

    prediction_id: str
    feedback_id: str | None
    output: Output
    open_until: float


async def plant(
    room: Stages, ingest: Ingest, request: PredictRequest, value: Any, *, by: str
) -> Planted:
    """Have a question answered and logged, and its right answer learned; then it is asked.

    Parameters
    ----------
    value
        What is right, as a `correction` has it.
    by
        Whose word that is: the holder of an API key.

    Raises
    ------
    Invalid
        The model cannot take the question, or the right answer. Nothing was logged.
    Conflict
        `MOST_PLANTED` are open, or the log keeps nothing of what is asked.
    Unavailable
        The store does not answer, or is full. What was logged by then is not asked about.
    """
    now = room.clock()
    if room.spec.log_inputs == "none":
        raise Conflict(
            "the log keeps nothing of what this model is asked (log_inputs: none), so that nobody "
            "could be shown the question: plant where it is full or hashed"
        )
    if len(await planted(room.registry, now=now)) >= MOST_PLANTED:
        raise Conflict(f"{MOST_PLANTED:,} planted questions are open: wait until some have ended")
    if room.predictor.slow:
        record = await asyncio.to_thread(room.predictor.answer, request)
    else:
        record = room.predictor.answer(request)
    record = record.model_copy(
        update={"ask": Ask(reason="gold", probability=1.0), "shadows": {}, "chances": {}}
    )
    speaker = Speaker(by, auditor=True, limited=False)
    _check(room, record, value)
    if (full := room.store.health.no_room(audited=False)) is not None:
        raise full
    [address] = await room.journal.append([record])
    prediction_id = room.keyring.seal("prediction", room.model, address)
    receipt = await ingest.accept(read_feedback(_truth(prediction_id, value)), speaker)
    open_ms = int(1000 * min(room.spec.ask_for_s, room.window_s))
    ends_ms = address.ms + open_ms
    gold = room.registry.keys.gold
    await room.store.many([("HSET", gold, address.entry, ends_ms), ("PEXPIRE", gold, open_ms)])
    output = record.fallback if record.withheld else record.output
    return Planted(prediction_id, receipt.feedback_id, output, ends_ms / 1000)


def _truth(prediction_id: str, value: Any) -> dict[str, Any]:
    return {"prediction_id": prediction_id, "kind": "correction", "value": value}


def _check(room: Stages, record: Prediction, value: Any) -> None:
    """Raise `Invalid` where the right answer cannot be taken, before anything is logged."""
    request = read_feedback(_truth("", value))
    [signal] = request.said()
    room.admission.check_kind(signal)
    room.admission.admit(signal, request, record, prediction_id="", source="", auditor=True)


async def planted(registry: Registry, *, now: float) -> list[Question]:
    """Return the planted questions that are open; those that have ended are forgotten."""
    found = await registry.store.hash(registry.keys.gold)
    ends = {entry.decode(): int(end) for entry, end in found.items()}
    over = [entry for entry, end in ends.items() if end <= now * 1000]
    if over:
        await registry.store.call("HDEL", registry.keys.gold, *over)
    return [
        Question(entry, ASK, end, planted=True) for entry, end in ends.items() if entry not in over
    ]


def mixed(
    questions: Iterable[Question], plants: list[Question], *, share: float, rng: random.Random
) -> list[Question]:
    """Return questions with planted ones among them, which are taken from `plants`.

    Each place goes to a planted one with probability `share`, as long as there are any. Behind the
    last of the others none follows: where nothing else is asked, nothing planted is.
    """
    found: list[Question] = []
    for question in questions:
        while plants and rng.random() < share:
            found.append(plants.pop())
        found.append(question)
    return found
