"""What was learned, and is in the weights no more: signals that were taken back, and unlearned.

Each was learned at its own entry, and unlearned at a control entry later on; a replay goes by it as
though it had never been said. In between the record is of weights that had it: there is nothing to
compare with.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from online_learner.archive.log import Log
from online_learner.ids import entry_order
from online_learner.schema import Step

RETRACTED = "retracted"  # why such an entry is set aside

Order = tuple[int, int]


@dataclass(frozen=True)
class Unlearned:
    """By entry, the control entry from which on it is in no weights any more."""

    at: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    async def read(cls, log: Log) -> Unlearned:
        """Return what has been unlearned so far, by the steps that say so.

        What was taken back before anybody had learned it is none of it: no step unlearned it.
        """
        registry = log.registry
        found = await registry.store.hash(registry.keys.unlearned)
        if not found:
            return cls()
        controls = sorted({control.decode() for control in found.values()})
        steps = await log.entries([("steps", control) for control in controls])
        at: dict[str, str] = {}
        for control, fields in zip(controls, steps, strict=True):
            if fields is not None:
                unlearned = Step.model_validate_json(fields[b"s"]).unlearned
                at |= dict.fromkeys(unlearned, control)
        return cls(at)

    def held(self, offset: str) -> frozenset[str]:
        """Return what the weights of the record as of an entry had learned, and unlearned later."""
        order = entry_order(offset)
        return frozenset(
            entry
            for entry, until in self.at.items()
            if entry_order(entry) <= order < entry_order(until)
        )


class Gaps:
    """Where the record is of weights that had learned what is forgotten."""

    def __init__(self, forgotten: Iterable[str], unlearned: Unlearned) -> None:
        self._starts: list[Order] = []
        self._ends: list[Order | None] = []  # None: for good
        for start, end in _spans(forgotten, unlearned):
            if self._ends and (self._ends[-1] is None or start < self._ends[-1]):
                if self._ends[-1] is not None and (end is None or end > self._ends[-1]):
                    self._ends[-1] = end
            else:
                self._starts.append(start)
                self._ends.append(end)

    def comparable(self, entry: str) -> bool:
        """Tell whether the weights recorded at an entry are those without what is forgotten."""
        order = entry_order(entry)
        place = bisect_right(self._starts, order) - 1
        if place < 0:
            return True
        end = self._ends[place]
        return end is not None and order >= end


def _spans(forgotten: Iterable[str], unlearned: Unlearned) -> list[tuple[Order, Order | None]]:
    spans: list[tuple[Order, Order | None]] = []
    for entry in forgotten:
        until = unlearned.at.get(entry)
        spans.append((entry_order(entry), None if until is None else entry_order(until)))
    return sorted(spans, key=lambda span: span[0])
