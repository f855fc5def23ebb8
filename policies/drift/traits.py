"""Features as numbers from 0 to 1 that can be watched, whatever they are.

A trait learns from the first `LEARN` values what is usual, and stays with that, so that what comes
later is measured by it. A number becomes its rank among those values: neither its unit nor a few
far-out ones matter. A category becomes its rank too, the commonest first, a new one last. Of a text
its length is ranked, and the share of its words that were unknown is taken as it is. Where a
feature is missing, that is the lowest rank, or a category of its own.

Of what was asked only numbers, lengths and short hashes are kept.
"""

from __future__ import annotations

import math
import re
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from online_learner.schema import canonical

Kind: TypeAlias = Literal["", "number", "category", "text"]

ASPECTS = ("length of", "unknown words in")  # of a text; anything else has one, without a name
LEARN = 100  # values that tell what is usual
MOST_CATEGORIES = 25  # among those: more different ones, or longer, are texts
MOST_LENGTH = 40  # characters, on average, of a category
MOST_WORDS, MOST_KNOWN = 30, 500  # words that are read of a text; that are known
MOST_READ = 1000  # characters of a text that words are read from
MISSING = -1e300  # below all numbers, and JSON
DIGITS = 6  # of a number that is kept
MIXER = 2654435761  # Knuth's multiplicative hash: the golden ratio of 2**32
WORD = re.compile(r"\w+")


@dataclass(slots=True)
class Trait:
    """One feature, as it usually is.

    Parameters
    ----------
    kind
        What it is, once that is known.
    seen
        How many values it has learned from, up to `LEARN`.
    numbers
        Those values, or the lengths of those texts; in order once the kind is known.
    counts
        How often each value that is no number came, by its hash.
    words
        Hashes of the words that are known.
    """

    kind: Kind = ""
    seen: int = 0
    numbers: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    words: set[int] = field(default_factory=set)

    def read(self, value: Any) -> Iterator[tuple[str, float]]:
        """Yield what a value comes to, by aspect; nothing while it is not known what is usual.

        Parameters
        ----------
        value
            Any JSON; None where it is missing.
        """
        if self.kind == "":
            self._learn(value)
        elif self.kind == "number":
            number = number_of(value)
            yield "", self._rank(MISSING if number is None else number)
        elif self.kind == "category":
            yield "", self._usual(_hash(_text(value)))
        else:
            text = _text(value)
            yield ASPECTS[0], self._rank(len(text))
            words = _words(text)
            unknown = sum(word not in self.words for word in words)
            yield ASPECTS[1], unknown / len(words) if words else 0.0

    def _learn(self, value: Any) -> None:
        self.seen += 1
        number = number_of(value)
        if number is not None or value is None:
            self.numbers.append(MISSING if number is None else _short(number))
        else:
            text = _text(value)
            self.numbers.append(len(text))
            name = _hash(text)
            self.counts[name] = self.counts.get(name, 0) + 1
            self.words.update(_words(text)[: max(0, MOST_KNOWN - len(self.words))])
        if self.seen >= LEARN:
            self._decide()

    def _decide(self) -> None:
        others = sum(self.counts.values())
        numbers = self.seen - others
        missing = self.numbers.count(MISSING)
        if others <= numbers - missing or not others:
            self.kind, self.counts, self.words = "number", {}, set()
        elif len(self.counts) <= MOST_CATEGORIES and self._mean_length() <= MOST_LENGTH:
            if missing:
                self.counts[_hash("")] = self.counts.get(_hash(""), 0) + missing
            self.kind, self.numbers, self.words = "category", [], set()
        else:
            self.kind, self.counts = "text", {}
            self.numbers = [0.0 if number == MISSING else number for number in self.numbers]
        self.numbers.sort()
        self.counts = dict(sorted(self.counts.items(), key=lambda found: (-found[1], found[0])))

    def _mean_length(self) -> float:
        lengths = [number for number in self.numbers if number != MISSING]
        return sum(lengths) / max(1, len(lengths))

    def _rank(self, number: float) -> float:
        """Return the share of usual values below a number; of those equal to it, half."""
        below = bisect_left(self.numbers, number) + bisect_right(self.numbers, number)
        return below / (2 * len(self.numbers))

    def _usual(self, name: str) -> float:
        """Return the share of usual values that are commoner; of those equal to it, half."""
        below, total = 0.0, sum(self.counts.values())
        for known, count in self.counts.items():
            if known == name:
                return (below + count / 2) / total
            below += count
        return 1.0

    def state(self) -> list[Any]:
        """Return it as plain JSON."""
        return [self.kind, self.seen, self.numbers, self.counts, sorted(self.words)]

    @classmethod
    def restored(cls, state: list[Any]) -> Trait:
        """Return the trait that `state` wrote."""
        kind, seen, numbers, counts, words = state
        return cls(kind, seen, list(numbers), dict(counts), set(words))


def number_of(value: Any) -> float | None:
    """Return a number, or a list of numbers as one: its sum, each place times a factor.

    >>> number_of(True), number_of("7"), round(number_of([1.0, 2.0]), 3)
    (1.0, None, -0.82)
    """
    if isinstance(value, bool | int | float):
        return max(-1e299, min(1e299, float(value))) if math.isfinite(value) else None
    if isinstance(value, list) and value and all(isinstance(x, int | float) for x in value):
        total = sum(_factor(place) * x for place, x in enumerate(value))
        return number_of(float(total))
    return None


def features_of(features: Mapping[str, Any]) -> dict[str, Any]:
    """Return those features that have a name that can be shown."""
    return {name: value for name, value in features.items() if len(name) <= MOST_LENGTH}


def _factor(place: int) -> float:
    return (place + 1) * MIXER % 2**32 / 2**31 - 1.0


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else canonical(value)


def _words(text: str) -> list[int]:
    found = WORD.findall(text[:MOST_READ].lower())[:MOST_WORDS]
    return [zlib.crc32(word.encode()) for word in found]


def _hash(text: str) -> str:
    return f"{zlib.crc32(text.encode()):x}"


def _short(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
