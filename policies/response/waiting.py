"""What people chose to say, and audits, held back until those of one time can be compared."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

MOST_WORDS, MOST_AUDITS = 500, 100  # that wait


class Spoken(NamedTuple):
    """What was said of an answer: of when, where it stands, and how good it was.

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
    weight: float = 1.0


class Waiting:
    """Joins words with the next audit, in the order of the answers, whichever is known first.

    What comes too late for that does not wait, nor do some where there are very many.
    """

    def __init__(self) -> None:
        self._words: list[Spoken] = []  # both by time
        self._audits: list[Spoken] = []
        self._spoken_ms = self._drawn_ms = 0  # of the latest of each that has come

    def speak(self, word: Spoken) -> tuple[list[Spoken], bool]:
        """Take in a word.

        Returns
        -------
        The audits that wait no longer, and whether the word does: where it does not, and the last
        of the audits is of its time or later, these two are to be compared.
        """
        if word.at_ms < self._spoken_ms:
            return [], False
        self._spoken_ms = word.at_ms
        place = bisect.bisect_left(self._audits, (word.at_ms,))
        later = self._audits[place : place + 1]
        found, self._audits = self._audits[: place + len(later)], self._audits[place + len(later) :]
        waits = not later and word.at_ms >= self._drawn_ms and len(self._words) < MOST_WORDS
        if waits:
            self._words.append(word)
        return found, waits

    def draw(self, audit: Spoken) -> tuple[list[Spoken], bool]:
        """Take in an audit.

        Returns
        -------
        The words on answers up to its time, which wait no longer, and whether the audit does.
        """
        self._drawn_ms = max(self._drawn_ms, audit.at_ms)
        place = bisect.bisect_right(self._words, audit.at_ms, key=lambda word: word.at_ms)
        found, self._words = self._words[:place], self._words[place:]
        ahead = audit.at_ms > self._spoken_ms
        waits = ahead and not found and len(self._audits) < MOST_AUDITS
        if waits:
            bisect.insort(self._audits, audit)
        return found, waits

    def pack(self) -> list[Any]:
        """Return the state as plain JSON."""
        words, audits = ([list(one) for one in held] for held in (self._words, self._audits))
        return [self._spoken_ms, self._drawn_ms, words, audits]

    @classmethod
    def unpack(cls, state: Sequence[Any]) -> Waiting:
        """Return what `pack` wrote."""
        found = cls()
        found._spoken_ms, found._drawn_ms, words, audits = state
        found._words = [Spoken(*word) for word in words]
        found._audits = [Spoken(*audit) for audit in audits]
        return found
