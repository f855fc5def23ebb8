"""A mean of late, with bounds that hold at every look at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from online_learner.evidence import RunningMean


@dataclass(slots=True)
class Lately:
    """A mean of late, of numbers in [0, 1].

    Two means run, of which the younger takes the older's place after `recent` numbers: what is told
    is the plain mean since the older began, over `recent` numbers or up to twice as many, with
    bounds that hold after every number at once (`RunningMean`).

    Parameters
    ----------
    recent
        Numbers after which older ones are left out.
    """

    recent: int
    older: RunningMean = field(default_factory=RunningMean)
    younger: RunningMean = field(default_factory=RunningMean)

    def add(self, value: float) -> None:
        """Take in one number."""
        self.older.add(value)
        self.younger.add(value)
        if self.younger.n >= self.recent:
            self.older, self.younger = self.younger, RunningMean()

    def pack(self) -> list[list[float]]:
        """Return the state as plain JSON."""
        return [self.older.pack(), self.younger.pack()]

    @classmethod
    def unpack(cls, state: Sequence[Any], recent: int) -> Lately:
        """Return what `pack` wrote."""
        older, younger = map(RunningMean.unpack, state)
        return cls(recent, older, younger)
