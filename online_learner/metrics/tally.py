"""What one process saw of one model since it last told: counts, times and levels.

Tallies add up: of several processes, of a second, of a minute. Times are kept in buckets whose
limits grow by 2**(1/4), so that a quantile is right within 9 %, at some 20 bytes a bucket.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, log
from typing import TypeAlias

from online_learner.metrics.names import METRICS

Series: TypeAlias = tuple[str, ...]  # a name, and the values of its labels in the table's order

PER_OCTAVE = 4
LEAST, MOST = -80, 100  # buckets: a microsecond, and a year
_SCALE = PER_OCTAVE / math.log(2)
_ALONE: dict[str, Series] = {name: (name,) for name, m in METRICS.items() if not m.labels}


def _counts() -> defaultdict[int, int]:
    return defaultdict(int)  # a Counter takes three times as long


@dataclass(slots=True)
class Times:
    """A distribution of seconds.

    Attributes
    ----------
    buckets
        How many fell into each bucket; bucket `i` goes up to `2**(i / 4)` seconds.
    total
        Their sum, in seconds.
    """

    buckets: defaultdict[int, int] = field(default_factory=_counts)
    total: float = 0.0

    @property
    def n(self) -> int:
        """How many there are."""
        return sum(self.buckets.values())

    def see(self, seconds: float, n: int = 1) -> None:
        """Add one time, or `n` equal ones."""
        place = ceil(log(seconds) * _SCALE) if seconds > 0 else LEAST
        if not LEAST <= place <= MOST:
            place = max(LEAST, min(MOST, place))
        self.buckets[place] += n
        self.total += seconds * n

    def add(self, other: Times) -> None:
        """Add all times of another."""
        for place, n in other.buckets.items():
            self.buckets[place] += n
        self.total += other.total

    def quantile(self, q: float) -> float:
        """Return the time that a share `q` does not exceed, in seconds.

        It is the middle of its bucket: off by at most a factor of 2**(1/8), 9 %.
        """
        rank, passed = max(1, math.ceil(q * self.n)), 0
        for place in sorted(self.buckets):
            passed += self.buckets[place]
            if passed >= rank:
                return float(2.0 ** ((place - 0.5) / PER_OCTAVE))
        return math.nan


class Tally:
    """Adds up what was seen.

    Attributes
    ----------
    counts, times, levels
        By series: a name, and the values of its labels in the order of `METRICS`.

    Examples
    --------
    >>> tally = Tally()
    >>> tally.count("feedback_total", kind="thumbs", outcome="accepted")
    >>> dict(tally.counts)
    {('feedback_total', 'thumbs', 'accepted'): 1}
    """

    __slots__ = ("counts", "levels", "times")

    def __init__(self) -> None:
        self.counts: defaultdict[Series, int] = defaultdict(int)
        self.times: dict[Series, Times] = {}
        self.levels: dict[Series, float] = {}

    def count(self, name: str, n: int = 1, **labels: str) -> None:
        """Count something; raises `KeyError` where the table has no such name or label."""
        self.counts[_series(name, labels)] += n

    def time(self, name: str, seconds: float, n: int = 1, **labels: str) -> None:
        """Take in how long something took, `n` times; raises `KeyError` as `count` does."""
        series = _series(name, labels) if labels else _ALONE[name]
        found = self.times.get(series)
        if found is None:
            found = self.times[series] = Times()
        found.see(seconds, n)

    def level(self, name: str, value: float, **labels: str) -> None:
        """Take in how something is now; raises `KeyError` as `count` does."""
        self.levels[_series(name, labels)] = value

    def add(self, other: Tally) -> None:
        """Add another tally to this one; its levels are the newer ones."""
        for series, n in other.counts.items():
            self.counts[series] += n
        for series, times in other.times.items():
            self.times.setdefault(series, Times()).add(times)
        self.levels.update(other.levels)

    def total(self, name: str, **labels: str) -> int:
        """Return a count, summed over the labels that are not given."""
        wanted = _places(name, labels)
        return sum(n for series, n in self.counts.items() if _is(series, name, wanted))

    def by(self, name: str, label: str, **labels: str) -> dict[str, int]:
        """Return a count by the values of one label, summed over those that are not given."""
        place, wanted = _place(name, label), _places(name, labels)
        found: defaultdict[str, int] = defaultdict(int)
        for series, n in self.counts.items():
            if _is(series, name, wanted):
                found[series[place]] += n
        return dict(found)

    def distribution(self, name: str) -> Times:
        """Return all times of a name, whatever their labels."""
        found = Times()
        for series, times in self.times.items():
            if series[0] == name:
                found.add(times)
        return found

    def quantile(self, name: str, q: float) -> float:
        """Return the time that a share `q` does not exceed, in seconds; NaN where there is none."""
        return self.distribution(name).quantile(q)

    def __bool__(self) -> bool:
        """Tell whether anything was seen."""
        return bool(self.counts or self.times or self.levels)

    def pack(self) -> bytes:
        """Return it as compact JSON."""
        times = [
            [*series, found.total, {str(k): n for k, n in found.buckets.items()}]
            for series, found in self.times.items()
        ]
        document = {
            "counts": [[*series, n] for series, n in self.counts.items()],
            "times": times,
            "levels": [[*series, value] for series, value in self.levels.items()],
        }
        kept = {name: rows for name, rows in document.items() if rows}
        return json.dumps(kept, separators=(",", ":")).encode()

    @classmethod
    def unpack(cls, packed: bytes) -> Tally:
        """Return the tally that `pack` wrote."""
        document, found = json.loads(packed), cls()
        for *series, n in document.get("counts", ()):
            found.counts[tuple(series)] = n
        for *series, total, buckets in document.get("times", ()):
            times = found.times[tuple(series)] = Times(total=total)
            times.buckets.update((int(place), n) for place, n in buckets.items())
        for *series, value in document.get("levels", ()):
            found.levels[tuple(series)] = value
        return found


def _series(name: str, labels: Mapping[str, str]) -> Series:
    wanted = METRICS[name].labels
    if len(labels) != len(wanted):
        raise KeyError(f"{name} has the labels {', '.join(wanted) or 'none'}")
    if len(wanted) == 1:  # most have, and it is on the way of every answer
        return (name, labels[wanted[0]])
    return (name, *[labels[label] for label in wanted])


def _places(name: str, labels: Mapping[str, str]) -> dict[int, str]:
    return {_place(name, label): value for label, value in labels.items()}


def _place(name: str, label: str) -> int:
    if label not in METRICS[name].labels:
        raise KeyError(label)
    return 1 + METRICS[name].labels.index(label)


def _is(series: Series, name: str, wanted: Mapping[int, str]) -> bool:
    return series[0] == name and all(series[place] == value for place, value in wanted.items())
