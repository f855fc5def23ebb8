"""Has it helped to believe some raters more than others? A paired test on what is known to be true.

The score of a vote is 1 where its winner is true; of several winners each has its share. Single
words are compared two by two, each with the next one: the score of a pair is the share that is
true, and that of the weighed one differs by half of how much more the one weighs, times how much
truer it is. On average, that is by how far those who weigh more are right more often; that words
become truer with time, while weights change, is no merit of these. Numbers score 1 less their
distance. Weights are those known before. Differences are bet on (`policies.switch`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from policies.switch import ALPHA, Mode, Switch

LEAST_GAP = 0.02  # of two numbers; smaller ones count as parts of it
MOST_WEIGHT = 2.0  # that a single word may have: differences are told as parts of it
TIED = 1e-9


class Proof(Switch):
    """Whether raters are weighed: on with evidence that it helps, off with the reverse."""

    def __init__(self, mode: Mode | bool = "auto", *, alpha: float = ALPHA) -> None:
        super().__init__(mode, alpha=alpha)
        self._before: tuple[float, bool] | None = None  # a single word, until the next one

    def vote(self, words: Iterable[tuple[str, float]], truth: str) -> None:
        """Take in what several said, each with their weight, and what is true."""
        raw: dict[str, float] = {}
        weighed: dict[str, float] = {}
        for label, weight in words:
            raw[label] = raw.get(label, 0.0) + 1.0
            weighed[label] = weighed.get(label, 0.0) + weight
        before, after = _score(raw, truth), _score(weighed, truth)
        self.take(before, after, after - before)

    def word(self, weight: float, *, right: bool) -> None:
        """Take in whether a single word is right; every second one ends a pair."""
        if self._before is None:
            self._before = weight, right
            return
        (other, was_right), self._before = self._before, None
        gap, raw = (weight - other) * (right - was_right), (right + was_right) / 2.0
        self.take(raw, raw + gap / 2.0, gap / MOST_WEIGHT)

    def number(self, values: Iterable[tuple[float, float]], truth: float) -> None:
        """Take in what several gave, from 0 to 1, each with their weight, and what is true."""
        found = list(values)
        raw = sum(value for value, _ in found) / len(found)
        weighed = sum(v * w for v, w in found) / sum(w for _, w in found)
        before, after = 1.0 - abs(raw - truth), 1.0 - abs(weighed - truth)
        self.take(before, after, (after - before) / max(abs(raw - weighed), LEAST_GAP))

    def told(self) -> dict[str, Any]:
        """Return whether it is on, and why, as plain JSON."""
        return self.report(self._sentence())

    def _sentence(self) -> str:
        if self.mode != "auto":
            return f"Raters are {'' if self.on else 'not '}weighed: so it is configured."
        if not (self.n or self.switches):
            return (
                "Raters are not weighed: nothing they spoke of has an auditor's word. Plant gold "
                "questions, or have audited answers corrected with a key that may audit."
            )
        if self._on:
            return "Raters are weighed: those who weigh more were right more often."
        return (
            f"Raters are not weighed: on {self.n:,} answers with an auditor's word, to believe "
            "some more than others has not won yet."
        )

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {**super().pack(), "before": self._before}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `pack` returned."""
        super().restore(state)
        self._before = None if state["before"] is None else tuple(state["before"])


def _score(votes: Mapping[str, float], truth: str) -> float:
    most = max(votes.values())
    winners = [label for label, votes_ in votes.items() if votes_ >= most - TIED]
    return (truth in winners) / len(winners)
