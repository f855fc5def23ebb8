"""The queue of one model: what waits, and handing it out."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from online_learner.ids import Address
from online_learner.inputs import FULL, Inputs
from online_learner.queue import leases
from online_learner.queue.asked import asked
from online_learner.queue.audits import audits
from online_learner.queue.gold import mixed, planted
from online_learner.queue.items import ASK, AUDIT, LANES, Lane, Question, shown, unanswered
from online_learner.queue.leases import Lease
from online_learner.registry import Registry
from online_learner.settings import ModelSpec

LEASE_S, MOST_S = 300.0, 3600.0  # how long a lease lasts, where nothing else is said; at most
MOST_LEASED = 100  # at once
STRIDE = 100  # questions of which it is read at a time whether they were answered

Noted: TypeAlias = tuple[Question, Lease | None]
"""A question, and what is noted of it where it is not free."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The answers of one model that wait for a label.

    Parameters
    ----------
    window_s
        For how many seconds an answer takes feedback.
    clock
        Seconds since the epoch.
    rng
        Draws where among the others a planted question comes.
    inputs
        What the log keeps of who speaks: by that it is known what a holder has answered.
    """

    registry: Registry
    spec: ModelSpec
    window_s: float
    clock: Callable[[], float] = time.time
    rng: random.Random = field(default_factory=random.SystemRandom)
    inputs: Inputs = FULL

    async def waiting(
        self, lanes: Sequence[Lane] = LANES, *, count: int, holder: str | None = None
    ) -> list[dict[str, Any]]:
        """Return what waits, and lease nothing; planted questions are not told of.

        Parameters
        ----------
        holder
            Who asks, as their feedback names its source: what others are labelling is left out.

        Returns
        -------
        At most `count`, each with `prediction_id`, `features`, `options`, the `output` that the
        user saw, `lane`, `asked_at` and `expires_at`, and `leased_until`, None where it is free;
        times in seconds since 1970.
        """
        name = "" if holder is None else leases.name_of(self.registry, holder)

        def told(lease: Lease | None) -> bool:
            if holder is None or lease is None:
                return True
            return lease.holder in ("", name) and not lease.spent

        found = await _first(self._unanswered(await self._open(lanes), name, told), count)
        until = {
            question.entry: lease.until_ms / 1000
            for question, lease in found
            if lease is not None and lease.until_ms
        }
        return await shown(self.registry, [question for question, _ in found], until)

    async def lease(
        self,
        lanes: Sequence[Lane] = LANES,
        *,
        holder: str,
        count: int,
        seconds: float = LEASE_S,
        gold: bool = False,
    ) -> list[dict[str, Any]]:
        """Hand out what waits, audits first; nobody else gets it until the lease runs out.

        Parameters
        ----------
        holder
            Who labels, as their feedback will name its source: `human:ada`.
        gold
            Whether planted questions are mixed in where the lane `ask` is asked for; for those who
            are no auditors, since what an auditor says is the truth.

        Returns
        -------
        As `waiting`; fewer than `count` only where no more is free.
        """
        now, name = self.clock(), leases.name_of(self.registry, holder)
        free = self._unanswered(await self._open(lanes), name, _is_free)
        plants = await self._plants(holder, now) if gold and ASK in lanes else []
        given: dict[str, float] = {}
        order: list[Question] = []
        while len(given) < count and (batch := await _first(free, count - len(given))):
            offered = mixed([q for q, _ in batch], plants, share=self.spec.gold_share, rng=self.rng)
            left = count - len(given)
            given |= await leases.take(
                self.registry, offered, name, count=left, seconds=seconds, now=now
            )
            order += offered
        return await shown(self.registry, [q for q in order if q.entry in given], given)

    async def renew(
        self,
        addresses: Iterable[Address],
        lanes: Sequence[Lane] = LANES,
        *,
        holder: str,
        seconds: float = LEASE_S,
        gold: bool = False,
    ) -> list[dict[str, Any]]:
        """Lease these, for longer where the holder has them; what others have is left out.

        They come in the order in which they are asked for: that of the lane would tell a planted
        one. For `gold` see `lease`.
        """
        wanted = list(dict.fromkeys(address.entry for address in addresses))
        now, name = self.clock(), leases.name_of(self.registry, holder)
        questions = [q for q in await self._open(lanes) if q.entry in wanted]
        free = [question async for question, _ in self._unanswered(questions, name)]
        if gold and ASK in lanes:
            free += await self._plants(holder, now, wanted)
        free.sort(key=lambda question: wanted.index(question.entry))
        given = await leases.take(
            self.registry, free, name, count=len(free), seconds=seconds, now=now, which="these"
        )
        return await shown(self.registry, [q for q in free if q.entry in given], given)

    async def give_back(
        self, addresses: Iterable[Address], *, holder: str, again: bool = False
    ) -> int:
        """Give back what was leased; returns how many of them the holder had.

        Parameters
        ----------
        again
            Whether they may be given to this holder again; else they are skipped for good.
        """
        open_ms = int(1000 * max(self._open_s(lane) for lane in LANES))
        ends = {address.entry: address.ms + open_ms for address in addresses}
        name = leases.name_of(self.registry, holder)
        return await leases.give_back(self.registry, ends, name, again=again, now=self.clock())

    # --- what is open -------------------------------------------------------------------------

    def _open_s(self, lane: Lane) -> float:
        own = self.spec.audit_deadline_s if lane == AUDIT else self.spec.ask_for_s
        return min(own, self.window_s)

    async def _open(self, lanes: Sequence[Lane]) -> list[Question]:
        """Return the questions of some lanes that can be answered yet, in order."""
        now, found = self.clock(), []
        if AUDIT in lanes:
            found += await audits(self.registry, now=now, open_s=self._open_s(AUDIT))
        if ASK in lanes:
            open_s, ask_for_s = self._open_s(ASK), self.spec.ask_for_s
            found += await asked(self.registry, now=now, open_s=open_s, ask_for_s=ask_for_s)
        return found

    async def _unanswered(
        self,
        questions: Sequence[Question],
        name: str,
        wanted: Callable[[Lease | None], bool] = lambda _: True,
    ) -> AsyncIterator[Noted]:
        """Yield those that nobody has answered, in order, and their leases; read a part at a time.

        Parameters
        ----------
        name
            What the holder is called in the store.
        wanted
            Whether a question is, by its lease.
        """
        for start in range(0, len(questions), STRIDE):
            part = questions[start : start + STRIDE]
            taken = await leases.noted(self.registry, part, name, now=self.clock())
            left = [question for question in part if wanted(taken.get(question.entry))]
            for question in await unanswered(self.registry, left):
                yield question, taken.get(question.entry)

    async def _plants(
        self, holder: str, now: float, wanted: Collection[str] | None = None
    ) -> list[Question]:
        """Return the planted questions that may be leased to a holder, in random order.

        As with others, that is what they have neither answered nor skipped, nor have now: one that
        never came again would be told by that. Of those they have, the `wanted` ones are there.
        """
        found = await planted(self.registry, now=now)
        if wanted is not None:
            found = [question for question in found if question.entry in wanted]
        name = leases.name_of(self.registry, holder)
        had = await leases.noted(self.registry, found, name, now=now)

        def may(lease: Lease) -> bool:
            return not lease.spent and (wanted is not None or lease.until_ms <= now * 1000)

        again = [q for q in found if q.entry in had and may(had[q.entry])]
        fresh = [question for question in found if question.entry not in had]
        fresh += await unanswered(self.registry, again, by=self.inputs.source(holder))
        self.rng.shuffle(fresh)
        return fresh


def _is_free(lease: Lease | None) -> bool:
    return lease is None


async def _first(found: AsyncIterator[Noted], count: int) -> list[Noted]:
    """Return the next few, and leave the rest where they are."""
    taken: list[Noted] = []
    async for item in found:
        taken.append(item)
        if len(taken) >= count:
            break
    return taken
