"""Receipts for what was said, and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from online_learner.client.errors import ApiError, api_error
from online_learner.client.reading import read_as


@dataclass(frozen=True, slots=True)
class SignalReceipt:
    """Acknowledges one signal of several that were sent as one."""

    kind: str
    feedback_id: str
    status: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """Acknowledges one signal, or several that were sent as one.

    Attributes
    ----------
    feedback_id
        Of the signal, or of the first of several. None for a dry run.
    status
        `accepted`, or `duplicate`: it had been accepted before, and is learned once. Or
        `archived_only`: the window of the answer has passed, and the signal goes into datasets, but
        alters no weights.
    durability
        What the signal survives: `fsynced` (a power cut), `os` (kill -9 of the store, not a power
        cut), `none`, or `unknown`.
    signals
        Each of several; empty where there was one.
    """

    feedback_id: str | None
    prediction_id: str
    model: str
    status: str
    durability: str
    signals: tuple[SignalReceipt, ...] = ()

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> Receipt:
        """Return the receipt in a reply."""
        return cls(
            feedback_id=reply["feedback_id"],
            prediction_id=reply["prediction_id"],
            model=reply["model"],
            status=reply["status"],
            durability=reply["durability"],
            signals=tuple(read_as(SignalReceipt, one) for one in reply.get("signals", ())),
        )


@dataclass(frozen=True, slots=True)
class BatchReceipt:
    """Acknowledges several payloads, each by itself; errors stand in their places."""

    accepted: int
    duplicates: int
    rejected: int
    results: tuple[Receipt | ApiError, ...]

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> BatchReceipt:
        """Return the receipts in a reply."""
        return cls.of(
            Receipt.read(item) if "durability" in item else api_error(item)
            for item in reply["results"]
        )

    @classmethod
    def of(cls, results: Iterable[Receipt | ApiError]) -> BatchReceipt:
        """Return what became of each, counted."""
        found = tuple(results)
        statuses = Counter(one.status for one in found if isinstance(one, Receipt))
        rejected = len(found) - statuses.total()
        accepted = statuses["accepted"] + statuses["archived_only"]
        return cls(accepted, statuses["duplicate"], rejected, found)


@dataclass(frozen=True, slots=True)
class ServedBy:
    """The first answer that rests on a signal: by which weights, and when (seconds since 1970)."""

    version: int
    step: int
    at: float


@dataclass(frozen=True, slots=True)
class ReleasedBy:
    """An operator had a signal learned after all: who, why, and when (seconds since 1970).

    It is `waiting` until the learner comes to it.
    """

    by: str
    reason: str
    at: float
    waiting: bool


@dataclass(frozen=True, slots=True)
class Weighed:
    """What a signal's lesson weighed: by the table of signals, in the end, and by what in between.

    `factors` are those of the observers, by name. What they do not account for is validation's.
    """

    raw: float
    given: float
    factors: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a signal.

    Attributes
    ----------
    status
        `accepted` (not learned yet), `learned`, `kept` (valid, and nothing to learn from it here),
        `quarantined`, `rolled_back`, `archived_only` (said after the window) or `retracted`.
    unlearned
        Of what was taken back: `pending`, `done`, `nothing` (it was never learned) or `impossible`;
        else None.
    reason
        Why it was kept, quarantined or rolled back.
    lineage, step, learned_at
        The commit of the learner that learned it, and when (seconds since 1970).
    version
        The first kept snapshot that has learned it.
    weighed
        By how much its weight was corrected; None where it was not.
    served
        The first answer that rests on it.
    released
        The release that it was learned by after all, or waits for.
    supersedes, superseded_by
        The id of what the same source had said before, or said later, in the same kind about the
        same answer.
    raw
        The reply as it came.
    """

    feedback_id: str
    status: str
    reason: str | None
    lineage: int | None
    step: int | None
    learned_at: float | None
    version: int | None
    weighed: Weighed | None
    served: ServedBy | None
    released: ReleasedBy | None
    supersedes: str | None
    superseded_by: str | None
    unlearned: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> Fate:
        """Return the fate in a reply."""
        served, released = reply.get("served"), reply.get("released")
        weighed = reply.get("weighed")
        return cls(
            feedback_id=reply["feedback_id"],
            status=reply["status"],
            reason=reply.get("reason"),
            lineage=reply.get("lineage"),
            step=reply.get("step"),
            learned_at=reply.get("learned_at"),
            version=reply.get("version"),
            weighed=None if weighed is None else read_as(Weighed, weighed),
            served=None if served is None else read_as(ServedBy, served),
            released=None if released is None else read_as(ReleasedBy, released),
            supersedes=reply["supersedes"],
            superseded_by=reply["superseded_by"],
            unlearned=reply.get("unlearned"),
            raw=reply,
        )
