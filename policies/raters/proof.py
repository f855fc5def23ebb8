"""Has it helped to believe some raters more than others? A paired test on what is known to be true.

The score of a vote is 1 where its winner is true; of several winners each has its share. The score
of a single word is 1 where it is true, and that of the weighed one differs by how much more it
weighs than words usually do, times how much truer it is than usual: on average, by how far those
who weigh more are right more often. Numbers score 1 less their distance. Weights are those known
before. Differences are bet on (`evidence.BettingTest`) until 1 / alpha is reached: then weighing is
switched on, or off again by the reverse test, and both begin anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from online_learner.evidence import BettingTest

Weigh: TypeAlias = Literal["auto", "on", "off"]
MODES = ("auto", "on", "off")
YAML: dict[bool, Weigh] = {True: "on", False: "off"}  # as which it reads the bare words
LEAST_GAP = 0.02  # of two numbers; smaller ones count as parts of it
MOST_WEIGHT = 2.0  # that a single word may have: differences are told as parts of it
TIED = 1e-9


class Proof:
    """Whether raters are weighed: on with evidence that it helps, off with the reverse.

    Parameters
    ----------
    mode
        `auto`; or `on` and `off`, whatever the evidence.
    alpha
        The probability with which weights that do not help are ever switched on.
    """

    def __init__(self, mode: Weigh | bool = "auto", *, alpha: float = 0.05) -> None:
        mode = YAML[mode] if isinstance(mode, bool) else mode
        if mode not in MODES:
            raise ValueError(f"weigh is {' or '.join(MODES)}, not {mode!r}")
        if not 0.0 < alpha < 1.0:
            raise ValueError("alpha is a probability between 0 and 1")
        self.mode = mode
        self.n = 0
        self._goal = math.log(1.0 / alpha)
        self._on = False
        self._test = BettingTest.fresh(0.0)
        self._raw = self._corrected = 0.0
        self._usual_weight, self._usual_right = [1.0, 1.0], [0.5, 1.0]  # sums, and counts

    @property
    def on(self) -> bool:
        """Whether to weigh now."""
        return self._on if self.mode == "auto" else self.mode == "on"

    def vote(self, words: Iterable[tuple[str, float]], truth: str) -> None:
        """Take in what several said, each with their weight, and what is true."""
        raw: dict[str, float] = {}
        weighed: dict[str, float] = {}
        for label, weight in words:
            raw[label] = raw.get(label, 0.0) + 1.0
            weighed[label] = weighed.get(label, 0.0) + weight
        before, after = _score(raw, truth), _score(weighed, truth)
        self._take(before, after, after - before)

    def word(self, weight: float, *, right: bool) -> None:
        """Take in whether a single word is right."""
        weights, rights = self._usual_weight, self._usual_right
        over = weight - weights[0] / weights[1]
        d = over * (right - rights[0] / rights[1])
        weights[:] = weights[0] + weight, weights[1] + 1.0
        rights[:] = rights[0] + right, rights[1] + 1.0
        self._take(float(right), right + d, d / MOST_WEIGHT)

    def number(self, values: Iterable[tuple[float, float]], truth: float) -> None:
        """Take in what several gave, from 0 to 1, each with their weight, and what is true."""
        found = list(values)
        raw = sum(value for value, _ in found) / len(found)
        weighed = sum(v * w for v, w in found) / sum(w for _, w in found)
        before, after = 1.0 - abs(raw - truth), 1.0 - abs(weighed - truth)
        self._take(before, after, (after - before) / max(abs(raw - weighed), LEAST_GAP))

    def _take(self, raw: float, corrected: float, d: float) -> None:
        d = max(-1.0, min(1.0, d))
        self.n += 1
        self._raw += raw
        self._corrected += corrected
        self._test.update(-d if self._on else d)
        if self._test.log_e >= self._goal:
            self._on = not self._on
            self._test = BettingTest.fresh(0.0)

    def report(self) -> dict[str, Any]:
        """Return whether it is on, and why, as plain JSON."""
        n = self.n
        return {
            "mode": self.mode,
            "on": self.on,
            "n": n,
            "raw": self._raw / n if n else None,
            "corrected": self._corrected / n if n else None,
            "log10_e": self._test.log_e / math.log(10.0),
            "needed_log10_e": self._goal / math.log(10.0),
            "sentence": self._sentence(),
        }

    def _sentence(self) -> str:
        if self.mode != "auto":
            return f"Raters are {'' if self.on else 'not '}weighed: so it is configured."
        if not self.n:
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
        sums = [self.n, self._raw, self._corrected]
        usual = [self._usual_weight, self._usual_right]
        return {"on": self._on, "test": self._test.pack(), "sums": sums, "usual": usual}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `pack` returned."""
        self._on, self._test = bool(state["on"]), BettingTest.unpack(state["test"])
        self.n, self._raw, self._corrected = state["sums"]
        self._usual_weight, self._usual_right = (list(pair) for pair in state["usual"])


def _score(votes: Mapping[str, float], truth: str) -> float:
    most = max(votes.values())
    winners = [label for label, votes_ in votes.items() if votes_ >= most - TIED]
    return (truth in winners) / len(winners)
