"""The people: two dozen raters who answer late, sometimes twice, and are wrong 5 % of the time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass

from online_learner.schema import Label, Output

RATERS = 24
SILENT = 0.05  # answers on which nobody says anything
WRONG = 0.05
TWICE = 0.10
THUMBS = 0.25  # the others correct
QUICKEST, SLOWEST = 5, 40  # how many answers later somebody speaks


@dataclass(frozen=True)
class Opinion:
    """One signal that somebody is going to send."""

    prediction_id: str
    rater: str
    kind: str
    value: Label
    row: int
    believed: Label
    twice: bool


class Crowd:
    """Decides who says what, and when. Everything follows from the seed."""

    def __init__(self, labels: list[Label], seed: int) -> None:
        self._labels = labels
        self._rng = random.Random(seed)
        self._due: list[tuple[int, int, Opinion]] = []

    def see(self, row: int, prediction_id: str, output: Output, truth: Label) -> None:
        """Show an answer to somebody."""
        rng = self._rng
        if rng.random() < SILENT:
            return
        believed = truth
        if rng.random() < WRONG:
            believed = rng.choice([label for label in self._labels if label != truth])
        kind = "thumbs" if rng.random() < THUMBS else "correction"
        opinion = Opinion(
            prediction_id=prediction_id,
            rater=f"rater-{rng.randrange(RATERS):02d}",
            kind=kind,
            value=(output == believed) if kind == "thumbs" else believed,
            row=row,
            believed=believed,
            twice=rng.random() < TWICE,
        )
        heapq.heappush(self._due, (row + rng.randint(QUICKEST, SLOWEST), row, opinion))

    def speak(self, row: int) -> Iterator[Opinion]:
        """Yield what is said by the time that `row` is asked."""
        while self._due and self._due[0][0] <= row:
            yield heapq.heappop(self._due)[2]

    def finish(self) -> Iterator[Opinion]:
        """Yield what is still to be said when the stream has ended."""
        yield from self.speak(1 << 62)
