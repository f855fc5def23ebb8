"""What people chose to say, held back until an audit of the same time can be compared with it."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

MOST = 500  # words that wait


class Spoken(NamedTuple):
    """A word that somebody chose to say: on an answer of when, where it stands, and how good.

    Parameters
    ----------
    at_ms
        When the answer was given, in milliseconds since the epoch.
    weight
        In inverse proportion to the chance that somebody would speak of it; 1 on average.
    """

    at_ms: int
    stratum: int
    number: int
    goodness: float
    weight: float


class Waiting:
    """Joins words with the next audit in the order of the answers, whenever that is settled.

    Memory is bounded: of very many words some do not wait, whatever they say.
    """

    def __init__(self) -> None:
        self._words: list[Spoken] = []  # by time
        self._at_ms = 0  # the latest audit that words were taken for

    def add(self, word: Spoken) -> bool:
        """Hold a word back; tells whether it waits now."""
        waits = word.at_ms >= self._at_ms and len(self._words) < MOST
        if waits:
            bisect.insort(self._words, word)
        return waits

    def take(self, at_ms: int) -> list[Spoken]:
        """Return the words on answers up to this time, which wait no longer."""
        self._at_ms = max(self._at_ms, at_ms)
        place = bisect.bisect_right(self._words, at_ms, key=lambda word: word.at_ms)
        found, self._words = self._words[:place], self._words[place:]
        return found

    def pack(self) -> list[Any]:
        """Return the state as plain JSON."""
        return [self._at_ms, [list(word) for word in self._words]]

    @classmethod
    def unpack(cls, state: Sequence[Any]) -> Waiting:
        """Return what `pack` wrote."""
        found = cls()
        found._at_ms, words = state
        found._words = [Spoken(*word) for word in words]
        return found
