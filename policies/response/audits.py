"""Answers drawn by a coin: may one rest on what was said of them? And what they say so far."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from online_learner.schema import Settled
from policies.lately import Lately

MOST = 2000  # audits that wait, for a word or to be settled
ENOUGH = 0.9  # of the audits answered by ordinary people, at which their silence hides little
KEEP = 1.0 - 1.0 / 500  # of the shares, with each audit
FEW = 20  # audits before their shares are known
SOME = 0.1  # of the audits answered by auditors, at which those may be rested on
RECENT = 2000  # audits that a mean of late is made of, at most twice as many


class Word(NamedTuple):
    """What was said of an audited answer: where it stands, how good it was, and who says so."""

    stratum: int
    number: int
    goodness: float
    chance: float
    auditor: bool


class Audits:
    """Joins what was said of audits with how they settled, in the order in which they settle.

    An auditor is asked of all that is drawn. Where ordinary people are, who is silent may be silent
    for what the answer was: so theirs count only while `ENOUGH` of the audits are answered.
    """

    def __init__(self) -> None:
        self._words: OrderedDict[str, Word] = OrderedDict()
        self._settled: OrderedDict[str, bool] = OrderedDict()  # without a word: answered by auditor
        self.n = 0
        self.decayed = self.by_anybody = self.by_auditors = 0.0
        self.good = Lately(RECENT)  # goodness of those drawn without bias
        self.told = Lately(RECENT)  # of all that were answered

    def hear(self, entry: str, word: Word) -> tuple[Word, bool] | None:
        """Take in what was said of an audit: the first word stands, but for an auditor's.

        Returns
        -------
        As `settle`, where the audit had settled before the word was seen.
        """
        if entry in self._settled:
            auditor = self._settled.pop(entry)
            return self._found(word, auditor=auditor)
        before = self._words.get(entry)
        if before is None or (word.auditor and not before.auditor):
            self._words[entry] = word
            if len(self._words) > MOST:
                self._words.popitem(last=False)
        return None

    def settle(self, entry: str, settled: Settled) -> tuple[Word, bool] | None:
        """Take in how an audit has settled.

        Returns
        -------
        What was said of it, and whether that is a draw without bias; None where nothing was said
        that tells how good the answer was, or nobody has seen it yet.
        """
        auditor = settled.answered and settled.auditor
        self.n += 1
        self.decayed = KEEP * self.decayed + 1.0
        self.by_anybody = KEEP * self.by_anybody + settled.answered
        self.by_auditors = KEEP * self.by_auditors + auditor
        word = self._words.pop(entry, None)
        if word is not None:
            return self._found(word, auditor=auditor)
        if settled.answered:
            self._settled[entry] = auditor
            if len(self._settled) > MOST:
                self._settled.popitem(last=False)
        return None

    def _found(self, word: Word, *, auditor: bool) -> tuple[Word, bool]:
        drawn = (auditor and word.auditor) or self.by_all
        self.told.add(word.goodness)
        if drawn:
            self.good.add(word.goodness)
        return word, drawn

    @property
    def by_all(self) -> bool:
        """Whether nearly all audits are answered, by whomever."""
        return self.n >= FEW and self.by_anybody >= ENOUGH * self.decayed

    @property
    def usable(self) -> bool:
        """Whether there are audits without bias."""
        return self.by_all or (self.n >= FEW and self.by_auditors >= SOME * self.decayed)

    @property
    def share(self) -> float:
        """The share of audits that is answered without bias."""
        if not self.decayed:
            return 0.0
        return (self.by_anybody if self.by_all else self.by_auditors) / self.decayed

    def bounds(self) -> tuple[float, float] | None:
        """Return between which bounds the mean goodness is, whatever those would say who do not."""
        mean = self.told.older.mean
        if not self.decayed or mean is None:
            return None
        answered = self.by_anybody / self.decayed
        return answered * mean, answered * mean + 1.0 - answered

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {
            "words": {entry: list(word) for entry, word in self._words.items()},
            "settled": dict(self._settled),
            "shares": [self.n, self.decayed, self.by_anybody, self.by_auditors],
            "good": self.good.pack(),
            "told": self.told.pack(),
        }

    @classmethod
    def unpack(cls, state: Mapping[str, Any]) -> Audits:
        """Return what `pack` wrote."""
        found = cls()
        found._words.update({entry: Word(*word) for entry, word in state["words"].items()})
        found._settled.update(state["settled"])
        found.n, found.decayed, found.by_anybody, found.by_auditors = state["shares"]
        found.good = Lately.unpack(state["good"], RECENT)
        found.told = Lately.unpack(state["told"], RECENT)
        return found
