"""What is remembered of each rater; the least recent are forgotten.

Time is told in two ways: by lessons, of which a decaying window counts the last `WINDOW`, and by
the milliseconds of the feedback stream's own ids.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WINDOW = 1000.0  # lessons that the shares are counted over
KEEP = math.exp(-1.0 / WINDOW)


@dataclass(slots=True)
class Rater:
    """One source of feedback.

    Parameters
    ----------
    seen, lessons
        The number of the last lesson that came from them, 0 where none has yet; how many did.
    weight
        What they have taught, decayed to that lesson.
    doubt
        How much speaks against their word, 0 or less (see `reputation`).
    amnesty
        The amnesty after which it was counted.
    at_ms, burst, usual
        When they last spoke, and how many signals were theirs in a short and a long window.
    """

    seen: int = 0
    lessons: int = 0
    weight: float = 0.0
    doubt: float = 0.0
    amnesty: int = 0
    at_ms: int = 0
    burst: float = 0.0
    usual: float = 0.0

    def pack(self) -> list[float]:
        """Return the numbers in the order of the fields."""
        return [
            self.seen,
            self.lessons,
            self.weight,
            self.doubt,
            self.amnesty,
            self.at_ms,
            self.burst,
            self.usual,
        ]


@dataclass(slots=True)
class Raters:
    """All raters that are remembered, the latest last, and the window of their lessons.

    Parameters
    ----------
    most
        How many are remembered.
    lessons
        How many there have been.
    active
        How many raters the window has, each counted by how recently they taught.
    weight, wanted
        What all of them have taught in the window, and what that would be if no share were cut.
    """

    most: int = 1000
    lessons: int = 0
    active: float = 0.0
    weight: float = 0.0
    wanted: float = 0.0
    known: OrderedDict[str, Rater] = field(default_factory=OrderedDict)

    def meet(self, source: str) -> Rater:
        """Return a rater, who is the latest now."""
        known = self.known
        rater = known.get(source)
        if rater is not None:
            known.move_to_end(source)
            return rater
        rater = known[source] = Rater()
        if len(known) > self.most:
            _, oldest = known.popitem(last=False)
            if oldest.seen:
                self.active = max(0.0, self.active - self._recency(oldest))
        return rater

    def news(self, rater: Rater) -> float:
        """Return how much more of a rater than before the window would have with another lesson.

        It is 1 where they have not taught in it. Summed over all lessons it is the same for each
        rater who teaches all along, whatever their activity.
        """
        seen = rater.seen
        return 1.0 - math.exp(-(self.lessons + 1 - seen) / WINDOW) if seen else 1.0

    def taught(self, rater: Rater) -> float:
        """Return what they have taught, as the window has it now."""
        seen = rater.seen
        return rater.weight * math.exp(-(self.lessons - seen) / WINDOW) if seen else 0.0

    @property
    def lift(self) -> float:
        """By how much all lessons have to weigh more to make up for what was cut from some."""
        return self.wanted / self.weight if self.weight else 1.0

    def teach(self, rater: Rater, weight: float, wanted: float, news: float, taught: float) -> None:
        """Count a lesson, its weight, and what that would be if no share were cut.

        Parameters
        ----------
        news, taught
            As `news` and `taught` tell of the rater before it.
        """
        self.active = self.active * KEEP + news
        self.weight = self.weight * KEEP + weight
        self.wanted = self.wanted * KEEP + wanted
        self.lessons += 1
        rater.weight = taught * KEEP + weight
        rater.seen = self.lessons
        rater.lessons += 1

    def _recency(self, rater: Rater) -> float:
        return math.exp(-(self.lessons - rater.seen) / WINDOW)

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {
            "window": [self.lessons, self.active, self.weight, self.wanted],
            "known": {source: rater.pack() for source, rater in self.known.items()},
        }

    @classmethod
    def unpack(cls, state: Mapping[str, Any], *, most: int) -> Raters:
        """Return what `pack` wrote."""
        known = OrderedDict((name, Rater(*numbers)) for name, numbers in state["known"].items())
        lessons, active, weight, wanted = state["window"]
        return cls(most, lessons, active, weight, wanted, known)
