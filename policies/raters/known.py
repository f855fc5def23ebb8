"""How often each rater spoke, agreed with others, and was right; the least recent are forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from online_learner.evidence import RunningMean


@dataclass(slots=True)
class Record:
    """Of one rater. Bounds hold at every look at once (`RunningMean`), each pair being a trial.

    Parameters
    ----------
    signals
        How many there were.
    agreement
        With each other rater of an answer; where the others agree among themselves, trials depend
        on one another, and the bounds are too narrow.
    gold
        With auditors.
    """

    signals: int = 0
    agreement: RunningMean = field(default_factory=RunningMean)
    gold: RunningMean = field(default_factory=RunningMean)

    def pack(self) -> list[Any]:
        """Return it as plain JSON."""
        return [self.signals, self.agreement.pack(), self.gold.pack()]


@dataclass(slots=True)
class Known:
    """All raters that are remembered, the latest last.

    Parameters
    ----------
    most
        How many are.
    """

    most: int
    records: dict[str, Record] = field(default_factory=dict)

    def meet(self, source: str) -> Record:
        """Return a rater, who is the latest now."""
        record = self.records.pop(source, None) or Record()
        self.records[source] = record
        if len(self.records) > self.most:
            del self.records[next(iter(self.records))]
        return record

    def agree(self, one: str, other: str, *, agreed: bool) -> None:
        """Count whether two raters agree, for both."""
        for source in (one, other):
            if (record := self.records.get(source)) is not None:
                record.agreement.add(float(agreed))

    def judge(self, source: str, *, right: bool) -> None:
        """Count whether a rater is right."""
        if (record := self.records.get(source)) is not None:
            record.gold.add(float(right))

    def busiest(self, count: int) -> list[tuple[str, Record]]:
        """Return those who said most, first."""
        found = sorted(self.records.items(), key=lambda known: -known[1].signals)
        return found[:count]

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {source: record.pack() for source, record in self.records.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `pack` returned."""
        self.records = {
            source: Record(signals, RunningMean.unpack(agreement), RunningMean.unpack(gold))
            for source, (signals, agreement, gold) in state.items()
        }
