"""How it stands now: who answers, how far the learner is, what the tests say, how the store is."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import get_args

from online_learner import explain
from online_learner.errors import StateError
from online_learner.evidence import Trial
from online_learner.metrics.tally import Series, Tally
from online_learner.registry import Registry
from online_learner.schema import Aliases
from online_learner.store import Durability

LOOK_S = 5.0  # how old may be what is known of the store
QUIET_S = 60.0  # after which levels are told though nothing has changed
DIGITS = 3


class Gauges:
    """Reads the levels of one model.

    Parameters
    ----------
    clock
        Seconds since the epoch.
    """

    def __init__(self, registry: Registry, clock: Callable[[], float]) -> None:
        self._registry = registry
        self._clock = clock
        self._looked_at = self._told_at = -math.inf
        self._told: dict[Series, float] = {}

    async def aliases(self) -> Aliases | None:
        """Return who answers; None before the model is founded, or where that is damaged."""
        with contextlib.suppress(StateError):
            return await self._registry.aliases()
        return None

    async def read(
        self, tally: Tally, aliases: Aliases | None, *, waiting: int, learned: str
    ) -> None:
        """Take all levels into a tally.

        Parameters
        ----------
        waiting
            Audits that have not settled.
        learned
            A feedback entry up to which all is known to be learned.
        """
        if aliases is not None:
            tally.level("champion_version", aliases.champion)
            tally.level("following", float(aliases.following))
        tally.level("queue_length", waiting, lane="audit")
        lag_s = await explain.lag_s(self._registry, now=self._clock(), learned=learned)
        tally.level("learner_lag_seconds", lag_s)
        keys, store = self._registry.keys, self._registry.store
        tally.level("quarantined", int(await store.call("XLEN", keys.quarantine)))
        await self._evidence(tally, aliases)
        await self._store(tally)

    async def _evidence(self, tally: Tally, aliases: Aliases | None) -> None:
        with contextlib.suppress(StateError, ArithmeticError, LookupError, TypeError, ValueError):
            state = await self._registry.gate()
            if state is None or aliases is None:
                return
            for key, packed in state.trials.items():
                trial = Trial.unpack(packed)
                if trial.duel.key(aliases.generation) == key and trial.log_e > -math.inf:
                    self._raise(tally, test_of(trial), trial.log_e / math.log(10))

    @staticmethod
    def _raise(tally: Tally, test: str, log10: float) -> None:
        known = tally.levels.get(("e_value_log10", test), -math.inf)
        tally.level("e_value_log10", max(known, log10), test=test)

    async def _store(self, tally: Tally) -> None:
        store, now = self._registry.store, self._clock()
        if not 0 <= now - self._looked_at < LOOK_S:
            self._looked_at = now
            await store.look()
        for durability in get_args(Durability):
            in_force = float(durability == store.health.durability)
            tally.level("durability", in_force, **{"class": durability})
        memory = store.health.memory
        if memory is not None and memory.limit_bytes:
            tally.level("store_memory_ratio", memory.used_bytes / memory.limit_bytes)

    def news(self, tally: Tally) -> bool:
        """Tell whether a tally says anything new, and is to be written down."""
        now = self._clock()
        levels = {series: float(f"{v:.{DIGITS}g}") for series, v in tally.levels.items()}
        quiet = not (tally.counts or tally.times) and levels == self._told
        if quiet and 0 <= now - self._told_at < QUIET_S:
            return False
        self._told, self._told_at = levels, now
        return True


def test_of(trial: Trial) -> str:
    """Return which kind of test it is: of a challenger, of the lineage, or the detector."""
    if trial.duel.detector:
        return "detector"
    return "lineage" if trial.duel.version is None else "challenger"
