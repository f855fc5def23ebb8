"""How often each rater spoke, agreed with others, and was right; the least recent are forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from online_learner.evidence import RunningMean
from policies.lately import Lately

RECENT = 300  # comparisons of one rater that count as of late, up to twice as many


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
    lately
        The same of late: who reads a scale upside down may learn better.
    gold
        With auditors.
    """

    signals: int = 0
    agreement: RunningMean = field(default_factory=RunningMean)
    lately: Lately = field(default_factory=lambda: Lately(RECENT))
    gold: RunningMean = field(default_factory=RunningMean)

    def pack(self) -> list[Any]:
        """Return it as plain JSON."""
        return [self.signals, self.agreement.pack(), self.lately.pack(), self.gold.pack()]

    @classmethod
    def unpack(cls, state: Sequence[Any]) -> Record:
        """Return what `pack` wrote."""
        signals, agreement, lately, gold = state
        of_late = Lately.unpack(lately, RECENT)
        return cls(signals, RunningMean.unpack(agreement), of_late, RunningMean.unpack(gold))


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
                record.lately.add(float(agreed))

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
        self.records = {source: Record.unpack(packed) for source, packed in state.items()}
