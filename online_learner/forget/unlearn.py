"""Rebuild the weights without what was taken back, beside the learner, which goes on meanwhile.

Many retractions take one rebuild: those that come while one is under way wait for the next. Once it
has caught up with the record, an `unlearn` entry of the feedback stream tells the learner; in its
turn, in order with all else, it learns the last steps again and puts all in place (`replace`). So
the weights are, from that entry on, those of a replay in which these signals had never been said.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from online_learner.archive.log import Log
from online_learner.errors import DataError, StateError, Unavailable
from online_learner.forget.handover import Handover
from online_learner.forget.rebuild import Rebuild, pending
from online_learner.ids import entry_order
from online_learner.registry import Registry
from online_learner.replay import Replay
from online_learner.replay.bases import Bases
from online_learner.replay.forgotten import Unlearned
from online_learner.replay.position import Position
from online_learner.schema import Control

log = logging.getLogger(__name__)

GATHER_S = 2.0  # for which more retractions are waited for
REST = 3.0  # times as long as a rebuild took, before the next
MOST_REST_S = 300.0
AWAY_S = 30.0  # before it is tried again where the archive cannot be read
NEAR = 200  # steps: what the learner can learn again without being held up
ROUNDS = 5  # in which a rebuild comes near the learner
NEVER = "999999999999999-0"
WORKS_S, PAUSES_S = 0.02, 0.004  # so that a learner in the same process gets its share


class Learner(Protocol):
    """The part of the learner that is looked at; see `learn.Trainer`."""

    at: Position
    handover: Handover | None

    @property
    def fence(self) -> str | None:
        """None while it does not know where it stands."""


class Unlearning:
    """Rebuilds a learner's weights when signals of the record have been taken back.

    Parameters
    ----------
    registry, afresh
        Its own, on another connection than the learner's where it runs on another thread; see
        `Handover` for the latter.
    gather_s
        For how long retractions are gathered.
    paces
        Whether it pauses now and then, for a learner in the same process.
    """

    def __init__(
        self,
        registry: Registry,
        learner: Learner,
        afresh: Callable[[], Replay],
        *,
        gather_s: float = GATHER_S,
        paces: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._learner = learner
        self._afresh = afresh
        self._gather_s = gather_s
        self._paces = paces
        self._clock = clock
        self._since: float | None = None  # when something was first found to be pending
        self._rests_until = 0.0
        self._out_of_reach: frozenset[str] = frozenset()
        self.rebuilds = 0

    async def turn(self) -> bool:
        """Rebuild, where that is due, and tell the learner; says whether there was anything."""
        learner = self._learner
        if learner.fence is None or learner.handover is None or learner.handover.ready is not None:
            return False
        wanted = await self._due()
        if not wanted:
            return False
        started = time.monotonic()
        try:
            await self._rebuild(wanted, learner.fence)
        except StateError as error:  # another attempt would meet it, too
            self._pass_over(wanted, error)
            return False
        except DataError as error:  # the archive may be back in a while
            log.error("what was taken back waits to be unlearned: %s", error)  # noqa: TRY400
            self._rests_until = time.monotonic() + AWAY_S
            return False
        self.rebuilds += 1
        took_s = time.monotonic() - started
        self._rests_until = time.monotonic() + min(MOST_REST_S, REST * took_s)
        log.info(
            "'%s' was learned again in %.1f s without %d signals that were taken back",
            self._registry.model,
            took_s,
            len(wanted),
        )
        return True

    async def _rebuild(self, wanted: list[str], mark: str) -> None:
        rebuild = Rebuild(self._afresh(), mark)
        try:
            await rebuild.begin(wanted)
            await self._approach(rebuild)
            await self._hand_over(rebuild)
        except Exception:
            with contextlib.suppress(Unavailable):
                await rebuild.drop()
            raise

    async def _due(self) -> list[str]:
        """Return the signals to unlearn now: all that the learner knows to be taken back."""
        known = entry_order(self._learner.at.offset)
        found = await pending(self._registry, but=self._out_of_reach)
        told = [entry for entry, control in found.items() if entry_order(control) <= known]
        if not told:
            self._since = None
            return []
        now = self._clock()
        self._since = now if self._since is None else self._since
        if now - self._since < self._gather_s or time.monotonic() < self._rests_until:
            return []
        self._since, replay = None, self._afresh()
        reach = await reaches_back(replay.registry, replay.log)
        within = [entry for entry in told if reach is not None and _is_after(entry, reach)]
        self._pass_over([e for e in told if e not in set(within)], "the record begins after them")
        return within

    def _pass_over(self, entries: list[str], why: object) -> None:
        if entries:
            self._out_of_reach |= {*entries}
            log.error("%d signals that were taken back stay in the weights: %s", len(entries), why)

    async def _approach(self, rebuild: Rebuild) -> None:
        """Learn the recorded steps until the learner is near: it goes on meanwhile."""
        pace = _Pace() if self._paces else None
        for _ in range(ROUNDS):
            [newest] = await rebuild.registry.store.latest(rebuild.keys.steps)
            await rebuild.run(newest[0], pace)
            if self._learner.at.step - rebuild.replay.at.step <= NEAR:
                return

    async def _hand_over(self, rebuild: Rebuild) -> None:
        handover, registry = self._learner.handover, rebuild.registry
        assert handover is not None  # as `turn` has seen
        control = Control(action="unlearn", entries=sorted(rebuild.without, key=entry_order))
        handover.ready = rebuild.state()
        try:
            await registry.store.call("XADD", registry.keys.feedback, "*", "c", control.pack())
        except BaseException:  # it may be there: then the learner does all of it
            handover.ready = None
            raise


class _Pace:
    """Gives way to others in the same process now and then."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    async def __call__(self) -> None:
        if time.monotonic() - self._since > WORKS_S:
            await asyncio.sleep(PAUSES_S)
            self._since = time.monotonic()


async def reaches_back(registry: Registry, record: Log) -> str | None:
    """Return the entry after which signals can be unlearned; None where none can be."""
    bases = Bases(registry, record, None)
    found = await bases.of(Unlearned(), newest=False, before=NEVER)
    return min((base.offset for base in found), key=entry_order, default=None)


async def within_reach(record: Log, entries: Iterable[str]) -> bool:
    """Tell whether all of these signals can be unlearned: the record reaches back to before them.

    Where the archive cannot be read from here, the learner knows.
    """
    first = min(entries, key=entry_order, default=None)
    try:
        reach = await reaches_back(record.registry, record)
    except DataError:
        return True
    return first is None or (reach is not None and _is_after(first, reach))


def _is_after(entry: str, other: str) -> bool:
    return entry_order(entry) > entry_order(other)
