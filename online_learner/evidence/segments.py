"""Declared segments: where a role got significantly worse, though it did not on the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from online_learner.evidence.betting import BettingTest
from online_learner.evidence.levels import log_threshold_spent

ALPHA = 0.01  # over all segments together
MOST = 50  # segments; those that come later are not watched


@dataclass(slots=True)
class Segments:
    """One e-process a segment, for the other direction: the role on trial is worse there.

    The j-th segment to appear is tested at the j-th level of alpha spending, so that over all of
    them a false alarm has probability at most `ALPHA`.

    Parameters
    ----------
    reverse
        Whether it is the challenger that is on trial (d < 0 counts against it), not the reference.
    worse
        The first segment that got significantly worse.
    """

    m: float
    reverse: bool
    tests: dict[str, BettingTest] = field(default_factory=dict)
    worse: str | None = None

    @classmethod
    def fresh(cls, m: float, *, reverse: bool) -> Segments:
        """Start with no segment seen."""
        return cls(m, reverse)

    def fold(self, d: float, raised: float, segments: Mapping[str, str]) -> None:
        """Add one difference to the segments that its question belongs to."""
        for name, value in segments.items():
            key = f"{name} = {value}"
            if key not in self.tests and len(self.tests) < MOST:
                self.tests[key] = BettingTest.fresh(self.m)
            if key in self.tests and d != 0.0:
                self.tests[key].update(-d if self.reverse else d, raised)
                self._look(key)

    def _look(self, key: str) -> None:
        if self.worse is None and self.tests[key].log_e >= self._goal(key):
            self.worse = key

    def _goal(self, key: str) -> float:
        return log_threshold_spent(ALPHA, k=list(self.tests).index(key) + 1)

    def worst(self) -> tuple[str, dict[str, float | int | str | None]] | None:
        """Return the first segment that got significantly worse, and its numbers."""
        key = self.worse
        if key is None:
            return None
        goal, log_e = self._goal(key), self.tests[key].log_e
        return key, {"segment": key, "log_e": log_e, "log_e_needed": goal}

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        tests = {key: test.pack() for key, test in self.tests.items()}
        return {"m": self.m, "reverse": self.reverse, "tests": tests, "worse": self.worse}

    @classmethod
    def unpack(cls, state: Mapping[str, Any]) -> Segments:
        """Return what `pack` wrote."""
        tests = {key: BettingTest.unpack(test) for key, test in state["tests"].items()}
        return cls(state["m"], state["reverse"], tests, state["worse"])
