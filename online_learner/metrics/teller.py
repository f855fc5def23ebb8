"""Writes down, once a second, what one process counted; for what never reaches a stream.

A process that is killed takes its last second with it.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import count

from online_learner.ids import new_nonce
from online_learner.metrics.series import SECONDS_S
from online_learner.metrics.tally import Tally
from online_learner.store import Store
from online_learner.store.keys import Keys

LOOK_BACK = 200  # entries among which one is looked for that may have been written


class Teller:
    """Holds the tallies of one process, one a model, and tells them.

    Parameters
    ----------
    export
        Told each tally, too, whatever becomes of it in the store.
    """

    def __init__(
        self, store: Store, export: Callable[[str, Tally], None] = lambda _model, _tally: None
    ) -> None:
        self._store = store
        self._export = export
        self._name = f"{os.getpid()}:{new_nonce()}"
        self._numbers = count()
        self._open: defaultdict[str, Tally] = defaultdict(Tally)
        self._unwritten: defaultdict[str, Tally] = defaultdict(Tally)  # and told already
        self._unsure: dict[str, tuple[str, Tally]] = {}  # written or not, who knows

    def of(self, model: str) -> Tally:
        """Return what to count into now; the next time it may be another."""
        return self._open[model]

    async def tell(self) -> None:
        """Write down what was counted since; what the store does not take is told the next time.

        Raises
        ------
        Unavailable
            The store does not answer.
        """
        seen, self._open = self._open, defaultdict(Tally)
        for model, tally in seen.items():
            if tally:
                self._export(model, tally)
                self._unwritten[model].add(tally)
        for model in {*self._unwritten, *self._unsure}:
            await self._write(model)

    async def _write(self, model: str) -> None:
        key = Keys(model).metrics
        if model in self._unsure:
            mark, before = self._unsure[model]
            latest = await self._store.latest(key, LOOK_BACK)
            del self._unsure[model]
            if all(fields.get(b"by") != mark.encode() for _, fields in latest):
                before.add(self._unwritten.pop(model, Tally()))
                self._unwritten[model] = before
        tally = self._unwritten.pop(model, None)
        if not tally:
            return
        mark = f"{self._name}:{next(self._numbers)}"
        self._unsure[model] = (mark, tally)
        oldest = max(0, int((time.time() - SECONDS_S) * 1000))
        fields = ("t", tally.pack(), "by", mark)
        await self._store.call("XADD", key, "MINID", "~", oldest, "*", *fields)
        del self._unsure[model]
