"""How far a rater's word is trusted: by how they agree with what answered, against the crowd.

Each rater has a cumulative sum [1] of (agreement - the crowd's agreement + `MARGIN`) that never
rises above 0: a good record is no credit to spend later, so that one who turns is found as soon as
a newcomer. Their word weighs 1 at 0, and falls with the sum along a logistic curve, to `floor`.

The crowd's agreement is a mean over raters, not over signals, of the last `FAST` signals of a kind:
who corrects errors only is compared with the others who correct. When the world changes, everybody
disagrees with the model at once. So raters are judged against the crowd of that moment, by their
lessons to come; and where the crowd itself falls by more than `AMNESTY` below what was usual, all
is forgiven, and nobody is judged until it has recovered or become usual.

A rater with fewer than `NEW` lessons also carries the record that all newcomers share: otherwise a
liar could shed a bad record by changing names.

An auditor knows better: who has contradicted one on the same answer is doubted whatever the crowd
says, and who has agreed is not. Where several raters speak of one answer, they are compared
with one another, each as far as the other is believed.

References
----------
[1] E. S. Page. Continuous inspection schemes. Biometrika 41 (1954).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policies.validation.raters import Rater

FAST, SLOW = 40.0, 1000.0  # signals that the crowd of the moment, and the usual one, is made of
KEEP_FAST, KEEP_SLOW = math.exp(-1.0 / FAST), math.exp(-1.0 / SLOW)
MARGIN = 0.2  # by which one may agree less than the crowd for ever
WORST = -4.0  # doubt stops here, so that whoever comes to their senses is heard again
STEEP, LENIENT = 4.0, 2.0  # of the logistic curve
FULL = 1.0 + math.exp(-LENIENT)
AMNESTY = 0.55
ENOUGH = 100  # signals before the crowd's usual agreement is known
CONTRADICTED = -2.0  # by an auditor
NEW = 3  # lessons after which a rater is known


@dataclass(slots=True)
class Crowd:
    """How the crowd agrees, in signals of one kind: sums over the moment, and over the usual."""

    signals: int = 0
    agreed: float = 0.0
    spoke: float = 0.0
    usually_agreed: float = 0.0
    usually_spoke: float = 0.0

    @property
    def agreement(self) -> float | None:
        """The share of raters who agree at the moment, or None where nobody has spoken."""
        return self.agreed / self.spoke if self.spoke > 0.0 else None

    @property
    def fallen(self) -> bool:
        """Whether the crowd agrees much less than is usual."""
        if self.signals < ENOUGH or not self.spoke or not self.usually_spoke:
            return False
        usual = self.usually_agreed / self.usually_spoke
        return self.agreed / self.spoke < usual - AMNESTY

    def hear(self, agreement: float, weight: float) -> None:
        """Take in one signal."""
        self.signals += 1
        self.agreed = self.agreed * KEEP_FAST + agreement * weight
        self.spoke = self.spoke * KEEP_FAST + weight
        self.usually_agreed = self.usually_agreed * KEEP_SLOW + agreement * weight
        self.usually_spoke = self.usually_spoke * KEEP_SLOW + weight

    def pack(self) -> list[float]:
        """Return the numbers in the order of the fields."""
        return [
            self.signals,
            self.agreed,
            self.spoke,
            self.usually_agreed,
            self.usually_spoke,
        ]


@dataclass(slots=True)
class Reputation:
    """What each rater's word is worth.

    Parameters
    ----------
    floor
        The least that a word may weigh, above 0.
    amnesties
        How often all was forgiven.
    crowds
        How the crowd agrees, by what is compared.
    """

    floor: float
    amnesties: int = 0
    crowds: dict[str, Crowd] = field(default_factory=dict)
    newcomers: Rater = field(default_factory=Rater)

    def worth(self, rater: Rater) -> float:
        """Return what a rater's word weighs, from `floor` to 1.

        >>> from policies.validation.raters import Rater
        >>> reputation = Reputation(0.03)
        >>> [round(reputation.worth(Rater(doubt=doubt)), 2) for doubt in (0.0, -0.5, -1.0, -4.0)]
        [1.0, 0.57, 0.14, 0.03]
        """
        own = self._worth(rater)
        return own if rater.lessons >= NEW else min(own, self._worth(self.newcomers))

    def _worth(self, rater: Rater) -> float:
        doubt = rater.doubt if rater.amnesty == self.amnesties else 0.0
        if doubt == 0.0:  # most raters, most of the time
            return 1.0
        return max(self.floor, FULL / (1.0 + math.exp(-LENIENT - STEEP * doubt)))

    def compare(
        self, rater: Rater, kind: str, agreement: float, weight: float, credence: float = 1.0
    ) -> None:
        """Compare a rater with the crowd, then count them as part of it.

        Parameters
        ----------
        kind
            What was compared: a kind of feedback, or peers.
        agreement
            From 0 to 1.
        weight
            How much more than before the crowd has of this rater (see `Raters.news`).
        credence
            How far they are believed with whom the rater is compared, from 0 to 1.
        """
        crowd = self._crowd(kind)
        fallen = crowd.fallen
        if not fallen:
            self._judge(rater, crowd, agreement, credence)
        if rater.lessons < NEW:
            weight *= self._worth(self.newcomers)
        crowd.hear(agreement, weight * credence)
        if crowd.fallen and not fallen:
            self.forgive()

    def compare_peers(
        self, rater: Rater, peers: Sequence[tuple[Rater, bool]], weight: float
    ) -> None:
        """Compare a rater with those who spoke of the same answer before, and them with the rater.

        Each word counts as far as it is believed. So who is first to speak is judged as well, and
        who comes after a liar is not doubted for it.

        Parameters
        ----------
        peers
            Each with whether they agree with the rater; at least one.
        """
        own, believed = self.worth(rater), [self.worth(peer) for peer, _ in peers]
        crowd = self._crowd("peers")
        for peer, agreed in peers if not crowd.fallen else ():
            self._judge(peer, crowd, float(agreed), own / len(peers))
        total = sum(believed)
        agreeing = sum(worth for worth, (_, agreed) in zip(believed, peers, strict=True) if agreed)
        self.compare(rater, "peers", agreeing / total, weight, min(1.0, total))

    def audited(self, rater: Rater, *, agreed: bool) -> None:
        """Compare a rater with an auditor who spoke of the same answer."""
        self._step(rater, 1.0 if agreed else CONTRADICTED)

    def forgive(self) -> None:
        """Hold nothing against anybody of what was so far."""
        self.amnesties += 1

    def _crowd(self, kind: str) -> Crowd:
        crowd = self.crowds.get(kind)
        if crowd is None:
            crowd = self.crowds[kind] = Crowd()
        return crowd

    def _judge(self, rater: Rater, crowd: Crowd, agreement: float, credence: float) -> None:
        usual = crowd.agreement
        if usual is None:
            return
        step = credence * (agreement - usual + MARGIN)
        self._step(rater, step)
        if rater.lessons < NEW:
            self._step(self.newcomers, step)

    def _step(self, rater: Rater, step: float) -> None:
        before = rater.doubt if rater.amnesty == self.amnesties else 0.0
        rater.doubt = max(WORST, min(0.0, before + step))
        rater.amnesty = self.amnesties

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        crowds = {kind: crowd.pack() for kind, crowd in self.crowds.items()}
        newcomers = [self.newcomers.doubt, self.newcomers.amnesty]
        return {"amnesties": self.amnesties, "crowds": crowds, "newcomers": newcomers}

    @classmethod
    def unpack(cls, state: Mapping[str, Any], *, floor: float) -> Reputation:
        """Return what `pack` wrote."""
        crowds = {kind: Crowd(*numbers) for kind, numbers in state["crowds"].items()}
        doubt, amnesty = state["newcomers"]
        newcomers = Rater(doubt=doubt, amnesty=amnesty)
        return cls(floor, state["amnesties"], crowds, newcomers)
