"""Counts what the streams say: how many, how fast, and how it stands. One meter a model.

The truth is in the streams, and the place up to which they have been counted is written together
with the count, in one script. So a meter that dies is followed by another that goes on where it
stood: nothing is counted twice or left out. What is under way, accepted and not yet learned, or
learned and not yet served, is read again. Where two count at once, one of them is too late, drops
what it counted, and goes on from where the other stood.

What cannot be known: signals beyond `ledger.MOST` that are under way at once lose their delays; a
model that is met for the first time is counted from a quarter of an hour before; what was trimmed
while no meter ran is not counted; and what is made up for after an outage is taken as followed, or
not, as the learner is by then.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from pydantic import ValidationError

from online_learner.explain.fates import Course, Reset
from online_learner.ids import entry_order
from online_learner.interpret import ERASED
from online_learner.metrics.gauges import Gauges
from online_learner.metrics.ledger import MOST, Ledger
from online_learner.metrics.names import ASKED, about, known
from online_learner.metrics.series import SECONDS_S, roll_up
from online_learner.metrics.tally import Tally
from online_learner.registry import Registry
from online_learner.schema import Raised, Record, Served, Settled, Step, Verdict
from online_learner.store import Entry, Fields

R = TypeVar("R", bound=Record)

Place: TypeAlias = dict[str, str]  # stream -> the last entry that was counted

READ_MAX = 500
PAGES = 10  # in one turn
EVERY_S, BEHIND_S = 0.9, 0.3  # between two turns; where there is more to count
STREAMS = ("feedback", "steps", "served", "verdicts", "evidence", "alarms", "asked")
NO_SIGNAL = {b"c", ERASED}  # fields of what is none: a control entry, or one that was erased
UNDER_WAY = "begins"  # after this feedback entry are the signals under way
UNDONE_MOST = 200  # pages of steps that one reset is looked for in


class Meter:
    """Counts what happens to one model.

    Parameters
    ----------
    clock
        Seconds since the epoch.
    """

    def __init__(self, registry: Registry, *, clock: Callable[[], float] = time.time) -> None:
        self._registry = registry
        self._store = registry.store
        self._keys = registry.keys
        self._clock = clock
        self._gauges = Gauges(registry, clock)
        self._name = f"meter:{os.getpid()}"
        self._place: Place = {}
        self._committed = ""
        self._ledger = Ledger()
        self._turned_at = 0.0
        self._rolled_up = 0
        self._behind = False

    async def turn_when_due(self, *, waiting: int = 0) -> Tally:
        """Count, unless that was done a moment ago; returns what `turn` does."""
        wait_s = BEHIND_S if self._behind else EVERY_S
        if 0 <= self._clock() - self._turned_at < wait_s:
            return Tally()
        return await self.turn(waiting=waiting)

    async def turn(self, *, waiting: int = 0) -> Tally:
        """Count what has come since, and write it down.

        Parameters
        ----------
        waiting
            Audits that have not settled.

        Returns
        -------
        What was counted and written; nothing where another process was faster.

        Raises
        ------
        Unavailable
            The store does not answer. The next turn asks it how far it came; what it wrote all the
            same is not returned again.
        """
        self._turned_at = self._clock()
        tally, place = Tally(), self._place
        self._place = {}  # whatever goes wrong from here on: memory may be ahead of what is written
        if not place:
            place = await self._restore()
        aliases = await self._gauges.aliases()
        following = aliases is not None and aliases.following and not aliases.pinned
        for _ in range(PAGES):
            self._behind = await self._count(place, tally, following=following)
            if not self._behind:
                break
        await self._gauges.read(tally, aliases, waiting=waiting, learned=place["steps"])
        if not await self._commit(place, tally):
            return Tally()
        self._place = place
        return tally

    async def roll_up_when_due(self) -> None:
        """Sum up what is over, where another ten seconds are."""
        ten = int(self._clock() // 10)
        if ten != self._rolled_up:
            await roll_up(self._store, self._keys)
            self._rolled_up = ten

    async def _commit(self, place: Place, tally: Tally) -> bool:
        """Write a count down; False where another process has."""
        place[UNDER_WAY] = self._ledger.begins(place["steps"])
        told = self._gauges.news(tally)
        now, packed = json.dumps(place, sort_keys=True), tally.pack() if told else b""
        if now == self._committed and not packed:
            return True
        oldest = max(0, int((self._clock() - SECONDS_S) * 1000))
        arguments = [self._committed, now, packed, self._name, oldest]
        written = await self._store.run("meter", [self._keys.metrics, self._keys.meter], arguments)
        self._committed = now if written else ""
        return bool(written)

    # --- counting -----------------------------------------------------------------------------

    async def _count(self, place: Place, tally: Tally, *, following: bool) -> bool:
        """Count one page of every stream; False where that was all.

        One read shows all streams at one moment: whatever answers by then has its steps there, and
        each step its signals. So signals are counted first, then steps, and last who answered.
        """
        names = {getattr(self._keys, stream): stream for stream in STREAMS}
        offsets = {key: place[stream] for key, stream in names.items()}
        read = await self._store.read(offsets, count=READ_MAX)
        found: dict[str, Sequence[Entry]] = dict.fromkeys(STREAMS, ())
        found |= {names[key]: entries for key, entries in read.items()}
        more = any(len(entries) == READ_MAX for entries in found.values())
        for entry, fields in found["feedback"]:
            self._ledger.hear(entry, fields, tally)
        self._move(place, "feedback", found["feedback"])
        heard_all = len(found["feedback"]) < READ_MAX
        ready = [
            step
            for step in found["steps"]
            if heard_all or entry_order(step[0]) <= entry_order(place["feedback"])
        ]
        await self._steps(ready, found["served"], place, tally, following=following)
        if len(ready) == len(found["steps"]) < READ_MAX:
            self._serve(found["served"], place, tally)
        for _, fields in found["verdicts"]:
            if verdict := _read(Verdict, fields, b"v"):
                tally.count("verdicts_total", action=verdict.action)
        self._move(place, "verdicts", found["verdicts"])
        for _, fields in found["evidence"]:
            if settled := _read(Settled, fields, b"e"):
                tally.count("settled_total", answered=str(settled.answered).lower())
        self._move(place, "evidence", found["evidence"])
        for _, fields in found["alarms"]:
            if raised := _read(Raised, fields, b"a"):
                tally.count("alarms_total", about=about(raised))
        self._move(place, "alarms", found["alarms"])
        for _, fields in found["asked"]:
            tally.count("asked_total", reason=known(_reason(fields), ASKED))
        self._move(place, "asked", found["asked"])
        return more

    @staticmethod
    def _move(place: Place, stream: str, counted: Sequence[Entry]) -> None:
        if counted:
            place[stream] = counted[-1][0]

    async def _steps(
        self,
        steps: Sequence[Entry],
        served: Sequence[Entry],
        place: Place,
        tally: Tally,
        *,
        following: bool,
    ) -> None:
        """Count steps; before each reset, who had answered by then."""
        for entry, fields in steps:
            place["steps"] = entry
            step = _read(Step, fields, b"s")
            if step is not None and step.reset_to is None:
                self._ledger.learn(step, tally, following=following)
            elif step is not None:
                self._serve([e for e in served if _ms(e[0]) <= _ms(entry)], place, tally)
                await self._undo(entry, step, tally)

    def _serve(self, served: Sequence[Entry], place: Place, tally: Tally) -> None:
        for entry, fields in served:
            if entry_order(entry) <= entry_order(place["served"]):
                continue
            place["served"] = entry
            if weights := _read(Served, fields, b"w"):
                self._ledger.serve(entry, weights, tally)

    async def _undo(self, entry: str, step: Step, tally: Tally) -> None:
        kept = await self._kept(entry)
        self._ledger.undo(entry, kept, step.lineage)
        undone = await self._undone(entry, kept, step.lineage)
        if undone:
            tally.count("set_aside_total", undone, reason="rolled_back")

    async def _kept(self, reset: str) -> str:
        """Return the last feedback entry that a reset left learned."""
        [(_, fields)] = await self._store.range(self._keys.resets, reset, reset)
        return str(json.loads(fields[b"r"])["kept"])

    async def _undone(self, reset: str, kept: str, lineage: int) -> int:
        """Return how many signals a reset undid that none had undone before."""
        before = await self._store.range(self._keys.resets, end=f"({reset}")
        resets = tuple(Reset(entry, **json.loads(fields[b"r"])) for entry, fields in before)
        course, undone, at = Course(lineage - 1, resets), 0, kept
        for _ in range(UNDONE_MOST):
            page = await self._store.range(self._keys.steps, f"({at}", f"({reset}", count=READ_MAX)
            for at, fields in page:
                step = _read(Step, fields, b"s")
                if step is not None and course.undone_by(at, step.lineage) is None:
                    undone += step.signals - len(step.set_aside)
            if len(page) < READ_MAX:
                break
        return undone

    # --- after a restart ----------------------------------------------------------------------

    async def _restore(self) -> Place:
        """Return the place up to which was counted, and read again what is under way there."""
        found: bytes | None = await self._store.call("GET", self._keys.meter)
        self._committed, self._ledger = (found or b"").decode(), Ledger()
        start = f"{max(0, int((self._clock() - SECONDS_S) * 1000))}-0"
        if found is None:
            return dict.fromkeys((*STREAMS, UNDER_WAY), start)
        place: Place = dict.fromkeys(STREAMS, start) | json.loads(found)  # older ones knew fewer
        self._ledger.unlearned.extend(await self._heard(place))
        scratch = Tally()
        aliases = await self._gauges.aliases()
        following = aliases is not None and aliases.following
        at = place[UNDER_WAY]
        while page := await self._store.range(
            self._keys.steps, f"({at}", place["steps"], count=READ_MAX
        ):
            for at, fields in page:
                step = _read(Step, fields, b"s")
                if step is not None and step.reset_to is None:
                    self._ledger.learn(step, scratch, following=following)
                elif step is not None:
                    self._ledger.undo(at, await self._kept(at), step.lineage)
        for entry, fields in await self._store.latest(self._keys.served, 20, until=place["served"]):
            if weights := _read(Served, fields, b"w"):
                self._ledger.meet(entry_order(entry)[0], weights)
        return place

    async def _heard(self, place: Place) -> list[tuple[int, int]]:
        """Return the newest signals that were under way, oldest first."""
        begins, until = entry_order(place[UNDER_WAY]), place["feedback"]
        found: list[tuple[int, int]] = []
        while len(found) < MOST:
            page = await self._store.latest(self._keys.feedback, READ_MAX, until=until)
            found += [entry_order(entry) for entry, fields in page if not fields.keys() & NO_SIGNAL]
            if len(page) < READ_MAX or entry_order(page[-1][0]) <= begins:
                break
            until = f"({page[-1][0]}"
        return [entry for entry in reversed(found) if entry > begins]


def _ms(entry: str) -> int:
    return entry_order(entry)[0]


def _reason(fields: Fields) -> object:
    """Return why a label was asked for, where that can be read."""
    try:
        return json.loads(fields[b"q"])["reason"]
    except (KeyError, TypeError, ValueError):
        return None


def _read(kind: type[R], fields: Fields, name: bytes) -> R | None:
    """Return a record, or None where it is none of ours: it is passed over, as others do."""
    try:
        return kind.model_validate_json(fields[name])
    except (KeyError, ValidationError):
        return None
