"""Questions, whether they were answered, and how they are shown to whoever labels them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

from online_learner.ids import Address, entry_order
from online_learner.interpret import ERASED
from online_learner.promote import NO_ANSWER
from online_learner.registry import Registry
from online_learner.schema import Feedback, Prediction
from online_learner.store.keys import said_place

Lane: TypeAlias = Literal["audit", "ask"]

AUDIT: Lane = "audit"
ASK: Lane = "ask"
LANES: tuple[Lane, ...] = (AUDIT, ASK)  # in the order in which they are handed out


@dataclass(frozen=True, slots=True)
class Question:
    """An answer that a label is wanted of.

    Parameters
    ----------
    entry
        The place of the answer in the log.
    ends_ms
        Until when it can be answered, in milliseconds since 1970.
    planted
        Whether an operator planted it: several may hold it at a time.
    """

    entry: str
    lane: Lane
    ends_ms: int
    planted: bool = False

    @classmethod
    def of(cls, entry: str, lane: Lane, open_s: float, *, planted: bool = False) -> Self:
        """Return a question that is open for so many seconds."""
        return cls(entry, lane, entry_order(entry)[0] + int(open_s * 1000), planted)


async def unanswered(
    registry: Registry, questions: Sequence[Question], *, by: str | None = None
) -> list[Question]:
    """Return those that nobody has said anything about yet; flags and clicks say nothing.

    Parameters
    ----------
    by
        Only what this source has said counts.
    """
    keys, store = registry.keys, registry.store
    replies = await store.many([("HVALS", keys.said(question.entry)) for question in questions])
    places = [
        (question.entry, (keys.feedback, said_place(value)))
        for question, values in zip(questions, replies, strict=True)
        for value in values
    ]
    found = await store.entries([place for _, place in places])
    said = zip((entry for entry, _ in places), found, strict=True)
    heard = {entry for entry, fields in said if fields and _is_answer(fields.get(b"f"), by)}
    return [question for question in questions if question.entry not in heard]


def _is_answer(signal: bytes | None, by: str | None) -> bool:
    if signal is None:  # erased
        return False
    said = Feedback.model_validate_json(signal)
    return said.kind not in NO_ANSWER and by in (None, said.source)


async def shown(
    registry: Registry, questions: Sequence[Question], leased_until: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return the questions as whoever labels them gets them; what is gone is left out.

    There is nothing in it that could sway them: no score, no version, nothing that another role
    answered, and not why a label is wanted. Times are in seconds since 1970.

    Parameters
    ----------
    leased_until
        By entry; what is not in it is free.
    """
    places = [(registry.keys.predictions, question.entry) for question in questions]
    found = await registry.store.entries(places)
    return [
        _item(registry, question, fields[b"n"].decode(), fields[b"r"])
        | {"leased_until": leased_until.get(question.entry)}
        for question, fields in zip(questions, found, strict=True)
        if fields is not None and ERASED not in fields
    ]


def _item(registry: Registry, question: Question, nonce: str, record: bytes) -> dict[str, Any]:
    address = Address(*entry_order(question.entry), nonce)
    answer = Prediction.model_validate_json(record)
    return {
        "prediction_id": registry.keyring.seal("prediction", registry.model, address),
        "features": answer.features,
        "options": [option.model_dump(include={"id", "features"}) for option in answer.options],
        "output": answer.fallback if answer.withheld else answer.output,
        "lane": question.lane,
        "asked_at": address.ms / 1000,
        "expires_at": question.ends_ms / 1000,
    }
