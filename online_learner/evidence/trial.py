"""A comparison under way: the state of its test, and the counts that explain it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from online_learner.evidence.betting import BettingTest
from online_learner.evidence.detector import ChangeDetector
from online_learner.evidence.scores import agreement, paired_loss, paired_score
from online_learner.schema import Aliases


@dataclass(frozen=True, slots=True)
class Duel:
    """Two roles to be compared: whether `challenger` is better than `reference`.

    Parameters
    ----------
    challenger, reference
        Roles of the audit record: `champion`, `anchor`, `latest`, `challenger:<version>`.
    detector
        Look for the moment at which it became better, instead of the average so far.
    restart_after
        Settled labels after which the test starts anew, as another candidate.
    """

    challenger: str
    reference: str
    version: int | None = None
    detector: bool = False
    restart_after: int | None = None

    def key(self, generation: int) -> str:
        """Return the name under which evidence counts."""
        return f"{self.challenger}>{self.reference}@{generation}"


@dataclass(slots=True)
class Trial:
    """A duel under way: the test's state and the counts that explain it.

    Parameters
    ----------
    k
        Number of the candidate in the stream of all candidates, from 1.
    scale
        Running mean absolute error of the reference, for numbers; shape of the bounded loss.
    """

    duel: Duel
    k: int
    test: BettingTest | ChangeDetector
    n: int = 0
    wins: int = 0
    losses: int = 0
    total: float = 0.0
    scale: float = 0.0
    seen: int = 0

    @classmethod
    def fresh(cls, duel: Duel, *, k: int, m: float) -> Trial:
        """Start a duel without evidence."""
        return cls(duel, k, (ChangeDetector if duel.detector else BettingTest).fresh(m))

    @property
    def log_e(self) -> float:
        """Log of the e-value, or of the detector's value."""
        return self.test.log_e

    @property
    def mean(self) -> float:
        """Mean difference so far, in [-1, 1]."""
        return self.total / self.n if self.n else 0.0

    def score(self, truth: object, challenger: object, reference: object) -> float:
        """Return d for one settled prediction, before it is counted."""
        if (
            isinstance(truth, float)
            and isinstance(challenger, float)
            and isinstance(reference, float)
        ):
            d = paired_loss(truth, challenger, reference, 2 * self.scale)
            self.seen += 1
            self.scale += (abs(truth - reference) - self.scale) / self.seen
            return d
        if isinstance(truth, list):
            return agreement(truth, challenger) - agreement(truth, reference)
        return paired_score(truth, challenger, reference)

    def count(self, d: float) -> None:
        """Add one settled difference."""
        self.n += 1
        self.wins += d > 0
        self.losses += d < 0
        self.total += d
        self.test.update(d)

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        logs = self.test.log_r if isinstance(self.test, ChangeDetector) else self.test.log_wealth
        state = asdict(self)
        state["test"] = {
            "m": self.test.m,
            "logs": [None if v == -np.inf else v for v in logs.tolist()],
        }
        return state

    @classmethod
    def unpack(cls, state: dict[str, Any]) -> Trial:
        """Return the trial that `pack` wrote."""
        duel = Duel(**state["duel"])
        logs = np.array([-np.inf if v is None else v for v in state["test"]["logs"]])
        kind = ChangeDetector if duel.detector else BettingTest
        return cls(**{**state, "duel": duel, "test": kind(state["test"]["m"], logs)})


@dataclass(frozen=True, slots=True)
class Case:
    """All that a promotion may rest on."""

    aliases: Aliases
    trials: Mapping[str, Trial]
    candidates: Sequence[int]  # versions that were cut and have not been looked at
    promotions: int

    def trial(self, duel: Duel) -> Trial | None:
        """Return the state of a duel under the aliases as they are."""
        return self.trials.get(duel.key(self.aliases.generation))
