"""Has it helped to believe some raters more than others? A paired test on what is known to be true.

The score of a vote is 1 where its winner is true; of several winners each has its share. The score
of a single word is 1 where it is true, and that of the weighed one differs by how much more it
weighs than words usually do, times how much truer it is than usual: on average, by how far those
who weigh more are right more often. Numbers score 1 less their distance. Weights are those known
before. Differences are bet on (`policies.switch`).
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
        self._usual_weight, self._usual_right = [1.0, 1.0], [0.5, 1.0]  # sums, and counts

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
        """Take in whether a single word is right."""
        weights, rights = self._usual_weight, self._usual_right
        over = weight - weights[0] / weights[1]
        d = over * (right - rights[0] / rights[1])
        weights[:] = weights[0] + weight, weights[1] + 1.0
        rights[:] = rights[0] + right, rights[1] + 1.0
        self.take(float(right), right + d, d / MOST_WEIGHT)

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
        return {**super().pack(), "usual": [self._usual_weight, self._usual_right]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `pack` returned."""
        super().restore(state)
        self._usual_weight, self._usual_right = (list(pair) for pair in state["usual"])


def _score(votes: Mapping[str, float], truth: str) -> float:
    most = max(votes.values())
    winners = [label for label, votes_ in votes.items() if votes_ >= most - TIED]
    return (truth in winners) / len(winners)
