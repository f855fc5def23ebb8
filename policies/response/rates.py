"""Of how many answers does somebody speak, by what they are? With bounds, and alarms on change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from online_learner.schema import Raised
from policies.lately import Lately

RECENT = 10_000  # answers after which older ones are left out: what is told covers up to twice it
MOST = 50  # values of one dimension that are told apart
BLOCK = 500  # answers between two tests of one share
LONG = 5000  # answers that a block is compared with, at most twice as many
ALPHA = 1e-5  # chance of a false alarm in one test
WATCHED = frozenset({"all", "output", "interface"})


@dataclass(slots=True)
class Cell:
    """A share of late, and whether it has changed.

    Each `BLOCK` of answers is compared with those before it, by Fisher's exact test; where they
    differ, what was before is forgotten.
    """

    share: Lately = field(default_factory=lambda: Lately(RECENT))
    block: list[int] = field(default_factory=lambda: [0, 0])
    before: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, *, yes: bool) -> None:
        """Take in one answer."""
        self.share.add(float(yes))
        self.block[0] += 1
        self.block[1] += yes

    def changed(self) -> tuple[list[int], list[int]] | None:
        """Return the block that is over and those before, where their shares differ; else None."""
        if self.block[0] < BLOCK:
            return None
        block, before = self.block, self.before
        self.block = [0, 0]
        if before[0] and chance(*block, *before) < ALPHA:
            self.before = block
            return block, before
        self.before = [before[0] + block[0], before[1] + block[1]]
        if self.before[0] > 2 * LONG:
            self.before = [n // 2 for n in self.before]
        return None

    def rate(self) -> dict[str, Any]:
        """Return the share as `n`, `k`, `share`, `low` and `high`."""
        return self.share.older.rate() or {"n": 0, "k": 0, "share": None, "low": 0.0, "high": 1.0}

    def pack(self) -> list[Any]:
        """Return the state as plain JSON."""
        return [self.share.pack(), self.block, self.before]

    @classmethod
    def unpack(cls, state: Sequence[Any]) -> Cell:
        """Return what `pack` wrote."""
        share, block, before = state
        return cls(Lately.unpack(share, RECENT), [*block], [*before])


def chance(n: int, k: int, others: int, hits: int) -> float:
    """Return the probability of a difference as large, or larger, where two shares are the same.

    Fisher's exact test, two-sided by doubling: given all counts but k, which is hypergeometric.

    >>> round(chance(10, 9, 10, 2), 4), chance(10, 5, 20, 10)
    (0.0055, 1.0)
    """
    total = k + hits
    least, most = max(0, total - others), min(n, total)
    mean = total * n / (n + others)
    tail = range(k, most + 1) if k >= mean else range(least, k + 1)
    whole = _log_choose(n + others, total)
    logs = (_log_choose(n, i) + _log_choose(others, total - i) - whole for i in tail)
    return min(1.0, 2.0 * math.fsum(map(math.exp, logs)))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


class Rates:
    """Shares by dimension and value. Of more than `MOST` values, those that come late are one."""

    def __init__(self) -> None:
        self.cells: dict[str, dict[str, Cell]] = {}
        self._raised: list[Raised] = []

    def count(self, dimension: str, value: str, *, spoke: bool) -> None:
        """Count one answer."""
        cells = self.cells.setdefault(dimension, {})
        if value not in cells and len(cells) >= MOST:
            value = OTHERS
        cell = cells.setdefault(value, Cell())
        cell.add(yes=spoke)
        if dimension in WATCHED and (change := cell.changed()) is not None:
            self._raised.append(_raised(dimension, value, *change))

    def rate(self, dimension: str, value: str) -> dict[str, Any]:
        """Return one share."""
        return self.cells.get(dimension, {}).get(value, Cell()).rate()

    def told(self, dimension: str) -> list[dict[str, Any]]:
        """Return the shares of all values, those of the most answers first."""
        cells = self.cells.get(dimension, {})
        found = [{"value": value, **cell.rate()} for value, cell in cells.items()]
        return sorted(found, key=lambda row: -row["n"])

    def alarms(self) -> list[Raised]:
        """Return what has changed since this was last asked."""
        found, self._raised = self._raised, []
        return found

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {
            dimension: {value: cell.pack() for value, cell in cells.items()}
            for dimension, cells in self.cells.items()
        }

    @classmethod
    def unpack(cls, state: Mapping[str, Any]) -> Rates:
        """Return what `pack` wrote."""
        found = cls()
        found.cells = {
            dimension: {value: Cell.unpack(cell) for value, cell in cells.items()}
            for dimension, cells in state.items()
        }
        return found


OTHERS = "(others)"


def _raised(dimension: str, value: str, block: Sequence[int], before: Sequence[int]) -> Raised:
    of = "answers" if dimension == "all" else f"answers of {dimension} {value}"
    now, then = block[1] / block[0], before[1] / before[0]
    return Raised(
        by="response",
        about="response" if dimension == "all" else f"response {dimension} {value}",
        sentence=(
            f"People speak {'more' if now > then else 'less'} than before: of {now:.1%} of the "
            f"last {block[0]:,} {of}, and of {then:.1%} of the {before[0]:,} before."
        ),
        numbers={"before": then, "after": now, "n": block[0], "n_before": before[0]},
    )
