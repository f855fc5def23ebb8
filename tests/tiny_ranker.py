"""A ranker of one weight a word: small enough to be computed by hand, and without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from online_learner.errors import Unfit
from online_learner.learners.digest import state_digest
from online_learner.schema import Lesson, Ranked, Rated

RATE = 0.5


class WordRanker:
    """Scores an option by the words in its texts, and by the number of its vector's entries."""

    family = "words"

    def __init__(self, weights: dict[str, float] | None = None, length: int | None = None) -> None:
        self.weights = weights or {}
        self.length = length  # of the vectors seen so far

    @property
    def fitted(self) -> bool:
        """Whether it has learned anything yet."""
        return bool(self.weights)

    def score(self, features: dict[str, Any], options: Sequence[dict[str, Any]]) -> list[float]:
        """Return the sum of the weights of each option's words."""
        return [math.fsum(self.weights.get(word, 0.0) for word in self._words(o)) for o in options]

    def _words(self, option: dict[str, Any]) -> list[str]:
        vector = option.get("vector", [])
        if vector and self.length not in {None, len(vector)}:
            raise Unfit(f"`vector` had {self.length} numbers before, and has {len(vector)} now")
        texts = [value for value in option.values() if isinstance(value, str)]
        if any("\0" in text for text in texts):
            raise ValueError("a text holds a zero character")
        return " ".join(texts).lower().split()

    def learn(self, lessons: Sequence[Lesson]) -> None:
        """Learn from comparisons and judgements, one after the other."""
        for lesson in lessons:
            if isinstance(lesson, Ranked):
                self._compare(lesson)
            elif isinstance(lesson, Rated):
                [score] = self.score({}, [lesson.option])
                gap = lesson.reward - 1.0 / (1.0 + math.exp(-score))
                self._move(lesson.option, RATE * lesson.weight * gap)

    def _compare(self, lesson: Ranked) -> None:
        """Let each of the decided places gain on all that are behind it."""
        sign = -1.0 if lesson.worst_first else 1.0
        for place in range(lesson.places):
            for behind in lesson.options[place + 1 :]:
                self._move(lesson.options[place], sign * RATE * lesson.weight)
                self._move(behind, -sign * RATE * lesson.weight)

    def _move(self, option: dict[str, Any], step: float) -> None:
        words = self._words(option)
        self.length = len(option.get("vector", [])) or self.length
        for word in words:
            self.weights[word] = self.weights.get(word, 0.0) + step / len(words)

    def to_bytes(self) -> bytes:
        """Return the weights as JSON."""
        return json.dumps([self.weights, self.length]).encode()

    def from_bytes(self, blob: bytes) -> WordRanker:
        """Return a ranker with those weights."""
        return WordRanker(*json.loads(blob))

    def digest(self) -> str:
        """Return the digest of the weights."""
        return state_digest([self.weights, self.length])


def ranker() -> WordRanker:
    """Make one that has learned nothing."""
    return WordRanker()
