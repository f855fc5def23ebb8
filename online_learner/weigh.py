"""By how much a lesson is corrected: what observers found, as the learner was told of it.

The learner does not observe. It is told by an entry of the feedback stream (`tables`), so that it
weighs the same in a replay. A correction is recorded beside the raw weight, in the step.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Protocol

from online_learner.errors import trace
from online_learner.schema import Signal

log = logging.getLogger(__name__)

LEAST, MOST = 0.01, 100.0  # of one factor
SAME = 1e-9
DIGITS = 6


class Weigher(Protocol):
    """The part of an observer that is in the learner; see `policies.lens`."""

    def adopt(self, table: Mapping[str, Any], /) -> None:
        """Weigh by this table from here on."""

    def factor(self, signal: Signal, /) -> float:
        """Return by how much the weight of a signal's lesson should be multiplied."""


class Corrections:
    """What the learner was told by observers.

    Parameters
    ----------
    lenses
        By name, instances that nothing is observed by.
    """

    def __init__(self, lenses: Mapping[str, Weigher]) -> None:
        self._lenses = lenses
        self.tables: dict[str, dict[str, Any]] = {}

    def take(self, tables: Mapping[str, dict[str, Any]]) -> None:
        """Weigh by these tables from here on; an empty one takes an observer's correction back.

        One that its observer cannot take, since it was another's, or another release's, corrects
        nothing: a learner that stopped there would stop for ever.
        """
        taken = {name: table for name, table in tables.items() if self._adopt(name, table)}
        kept = {name: table for name, table in self.tables.items() if name not in tables}
        self.tables = {name: table for name, table in {**kept, **taken}.items() if table}

    def _adopt(self, name: str, table: Mapping[str, Any]) -> bool:
        try:
            if name in self._lenses:
                self._lenses[name].adopt(table)
        except Exception as error:
            log.error("the observer '%s' corrects nothing from here on\n%s", name, trace(error))  # noqa: TRY400
            return False
        return True

    def number(self, name: str, what: str) -> float | None:
        """Return a finite number of a table, or None where there is none."""
        found = self.tables.get(name, {}).get(what)
        if isinstance(found, bool) or not isinstance(found, int | float):
            return None
        return found if math.isfinite(found) else None

    def factors(self, signal: Signal) -> dict[str, float]:
        """Return the factors by which a lesson's weight is multiplied, where they are not 1."""
        found = {}
        for name in self.tables:
            if name in self._lenses:
                factor = self._lenses[name].factor(signal)
                if not math.isfinite(factor) or factor <= 0:
                    raise ValueError(f"the observer '{name}' gave it a factor of {factor:g}")
                if abs(factor - 1.0) > SAME:
                    found[name] = round(min(MOST, max(LEAST, factor)), DIGITS)
        return found

    def state(self) -> dict[str, Any]:
        """Return what was told, as plain JSON."""
        return self.tables

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        gone = self.tables.keys() - state.keys()
        self.take({**{name: {} for name in gone}, **state})
