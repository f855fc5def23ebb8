"""Entries that others took the place of: many, in little memory."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from online_learner.ids import entry_order

Places: TypeAlias = npt.NDArray[np.uint64]  # (n, 2): milliseconds and numbers of entries


class Entries:
    """Entries of one stream, in 16 bytes each."""

    def __init__(self) -> None:
        self._found = array("Q")

    def add(self, entry: str) -> None:
        """Take one in."""
        self._found.extend(entry_order(entry))

    def sorted(self) -> Places:
        """Return all of them in the order of their stream, as rows of two numbers."""
        found = np.array(self._found, dtype=np.uint64).reshape(-1, 2)
        return found[np.lexsort((found[:, 1], found[:, 0]))]


def between(found: Places, after: str, until: str) -> frozenset[str]:
    """Return those of `Entries.sorted` after one entry, up to and with another."""
    low, high = entry_order(after), entry_order(until)
    first = bisect_left(found, low[0], key=_ms)
    last = bisect_left(found, high[0] + 1, key=_ms)
    pairs = ((int(ms), int(seq)) for ms, seq in found[first:last].tolist())
    return frozenset(f"{ms}-{seq}" for ms, seq in pairs if low < (ms, seq) <= high)


def _ms(row: Any) -> int:
    return int(row[0])
