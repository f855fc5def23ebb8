"""Leases: who labels what just now. They are in the store, so that every gateway heeds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from online_learner.queue.items import Question
from online_learner.registry import Registry

Which: TypeAlias = Literal["next", "these"]


@dataclass(frozen=True, slots=True)
class Lease:
    """What is noted of a question: who labels it, until when (ms since 1970).

    `spent` says that it is not given to whoever asks any more: they skipped it.
    """

    holder: str = ""
    until_ms: int = 0
    spent: bool = False


def name_of(registry: Registry, source: str) -> str:
    """Return what a holder is called in the store: a keyed hash of who they speak as."""
    return registry.keyring.pseudonym(registry.model.encode(), b"holder", source.encode()).hex()


async def noted(
    registry: Registry, questions: Sequence[Question], holder: str, *, now: float
) -> dict[str, Lease]:
    """Return the leases in force of some questions, by entry; those that are free are left out.

    Of a planted question it is the holder's own, and one that has run out is among them.
    """
    if not questions:
        return {}
    names = [name for q in questions for name in (q.entry, f"{q.entry} {holder}")]
    values = iter(await registry.store.call("HMGET", registry.keys.leases, *names))
    found, now_ms = {}, int(now * 1000)
    for question in questions:
        lease, mark = next(values), next(values)
        until, _, by = (lease or b"0").decode().partition(" ")
        ends, _, mine = (mark or b"0").decode().partition(" ")
        if question.planted:
            until, by = mine or "0", holder if mine else ""
        elif int(until) <= now_ms:
            until, by = "0", ""
        spent = int(ends) > now_ms and not mine
        if by or spent:
            found[question.entry] = Lease(by, int(until), spent)
    return found


async def take(
    registry: Registry,
    questions: Iterable[Question],
    holder: str,
    *,
    count: int,
    seconds: float,
    now: float,
    which: Which = "next",
) -> dict[str, float]:
    """Lease the first `count` questions that are free, all at once.

    Parameters
    ----------
    which
        `these`: those that the holder has leased already are theirs for longer.

    Returns
    -------
    By entry, until when, in seconds since 1970; at the latest when the question ends.
    """
    arguments: list[str | int] = [int(now * 1000), int((now + seconds) * 1000), count]
    arguments += [holder, which]
    for question in questions:
        alone = "each" if question.planted else "alone"
        arguments += [question.entry, question.ends_ms, alone]
    given = iter(await registry.store.run("lease", [registry.keys.leases], arguments))
    return {entry.decode(): int(until) / 1000 for entry, until in zip(given, given, strict=True)}


async def give_back(
    registry: Registry, ends_ms: dict[str, int], holder: str, *, again: bool, now: float
) -> int:
    """Give leased questions back; returns how many of them the holder had, and had not run out.

    Parameters
    ----------
    ends_ms
        By entry, until when a question can be answered.
    again
        Whether they may be given to this holder again.
    """
    arguments: list[str | int] = [int(now * 1000), holder, "again" if again else "never"]
    for entry, end in ends_ms.items():
        arguments += [entry, end]
    return int(await registry.store.run("give_back", [registry.keys.leases], arguments))
