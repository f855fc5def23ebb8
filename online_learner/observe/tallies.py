"""How good one role is: over all of a generation, of late, and fading; and which labels it takes.

All of it in constant memory: sums, and the last `WINDOW` scores.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from online_learner.evidence import Reliability, RunningMean

WINDOW = 500  # scores
SCORE_DIGITS = 4  # of those that are kept one by one
HALF_LIFE = 500.0  # scores
MOST_LABELS = 100  # in a confusion; what comes later counts as one other label
OTHER = "\0other"
LEAST_SHARE = 0.001  # of a label among the right ones, for it to count in the macro-F1
LARGEST_LOSS = -math.log(1e-6)  # as the judge cuts it
MEANS = ("all", "decayed", "losses")
VOICE = 5.0  # sayings at which a rater counts for half of one who has said very much
MOST_RATERS, MOST_SAID = 300, 64  # the least recent raters are forgotten, and what they once said
Z = 1.96  # standard deviations, for 95 %

Interval = dict[str, Any]  # n, score, low, high


@dataclass(slots=True)
class Confusion:
    """Which label was right, which was said, and how often it was both; it fades.

    The macro-F1 is the mean over labels of 2 both / (right + said).
    """

    keep: float = 0.5 ** (1.0 / HALF_LIFE)
    scale: float = 1.0  # of what is added next: it grows, in place of all else shrinking
    right: dict[str, float] = field(default_factory=dict)
    said: dict[str, float] = field(default_factory=dict)
    both: dict[str, float] = field(default_factory=dict)

    def add(self, right: str, said: str | None) -> None:
        """Take in the right label, and the one that was said; None: there was none."""
        self.scale /= self.keep
        right = self._name(right)
        self._count(self.right, right)
        if said is not None:
            said = self._name(said)
            self._count(self.said, said)
            if said == right and said != OTHER:
                self._count(self.both, said)
        if self.scale > 1e100:
            self._rescale()

    def _name(self, label: str) -> str:
        known = label in self.right or label in self.said
        full = len(self.right.keys() | self.said.keys()) >= MOST_LABELS
        return label if known or not full else OTHER

    def _count(self, counts: dict[str, float], label: str) -> None:
        counts[label] = counts.get(label, 0.0) + self.scale

    def _rescale(self) -> None:
        """Bring all sums back to size; a label of which next to nothing is left is forgotten."""
        for counts in (self.right, self.said, self.both):
            kept = {name: value / self.scale for name, value in counts.items()}
            counts.clear()
            counts.update({name: value for name, value in kept.items() if value > 1e-6})
        self.scale = 1.0

    @property
    def macro_f1(self) -> float | None:
        """The mean F1 over the labels that are right or said now and then; None of nothing."""
        least = LEAST_SHARE * sum(self.right.values())
        names = self.right.keys() | self.said.keys()
        sums = [(self.both.get(n, 0.0), self._of(n)) for n in names if self._of(n) > least]
        return sum(2.0 * both / of for both, of in sums) / len(sums) if sums else None

    def _of(self, name: str) -> float:
        return self.right.get(name, 0.0) + self.said.get(name, 0.0)

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        counts = {name: dict(getattr(self, name)) for name in ("right", "said", "both")}
        return {"keep": self.keep, "scale": self.scale, **counts}

    @classmethod
    def unpack(cls, state: Mapping[str, Any]) -> Confusion:
        """Return the confusion that `pack` wrote."""
        counts = [dict(state[name]) for name in ("right", "said", "both")]
        return cls(state["keep"], state["scale"], *counts)


@dataclass(slots=True)
class Tally:
    """How good one role is, on audits that settled since the tests began anew.

    Parameters
    ----------
    all
        The mean so far; its bounds hold at every look at once.
    decayed
        One in which a score counts half after `HALF_LIFE` others; its bounds hold for one look.
    last
        The newest scores.
    losses
        The decayed mean log loss, as a mean of what is divided by the largest loss.
    """

    all: RunningMean = field(default_factory=RunningMean)
    decayed: RunningMean = field(default_factory=lambda: RunningMean.decayed(HALF_LIFE))
    last: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    losses: RunningMean = field(default_factory=lambda: RunningMean.decayed(HALF_LIFE))
    reliability: Reliability = field(default_factory=lambda: Reliability.decayed(HALF_LIFE))
    confusion: Confusion = field(default_factory=Confusion)

    def score(self, score: float) -> None:
        """Take in how good an answer was, from 0 to 1."""
        self.all.add(score)
        self.decayed.add(score)
        self.last.append(round(score, SCORE_DIGITS))

    def report(self) -> dict[str, Any]:
        """Return all of it as plain JSON; what is not known is null."""
        loss, said = self.losses.mean, self.confusion.right
        return {
            "accuracy": self.all.interval(),
            "recent": self.recent(),
            "decayed": self.decayed.interval(),
            "log_loss": None if loss is None else loss * LARGEST_LOSS,
            "calibration_error": self.reliability.error,
            "macro_f1": self.confusion.macro_f1 if said else None,
        }

    def recent(self) -> Interval | None:
        """Return the mean of the last scores, and bounds for it that hold for one look."""
        mean = RunningMean()
        for score in self.last:
            mean.add(score)
        return mean.interval()

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        means = {name: getattr(self, name).pack() for name in MEANS}
        more = {"reliability": self.reliability.pack(), "confusion": self.confusion.pack()}
        return {**means, **more, "last": [_short(score) for score in self.last]}

    @classmethod
    def unpack(cls, state: Mapping[str, Any]) -> Tally:
        """Return the tally that `pack` wrote."""
        means = {name: RunningMean.unpack(state[name]) for name in MEANS}
        reliability = Reliability.unpack(state["reliability"])
        confusion = Confusion.unpack(state["confusion"])
        last = deque(map(float, state["last"]), maxlen=WINDOW)
        return cls(**means, reliability=reliability, confusion=confusion, last=last)


def _short(score: float) -> float | int:
    """Return a score as it takes the least room in JSON."""
    return int(score) if score in (0.0, 1.0) else score


@dataclass(slots=True)
class Opinions:
    """What people say of answers, from 0 (bad) to 1; each saying counts, also a second one.

    Who speaks often would speak for all. So beside the plain mean there is one over raters, in
    which nobody counts for more than one: each by n / (n + `VOICE`), n of late, since the mean of a
    few sayings tells little of a rater (a random effect; see Searle et al., Variance Components).
    Whether one is lenient, or was asked about better answers, it cannot tell.
    """

    decayed: RunningMean = field(default_factory=lambda: RunningMean.decayed(HALF_LIFE))
    raters: dict[str, list[float]] = field(default_factory=dict)  # count, sum; least recent first

    def add(self, rater: str, value: float) -> None:
        """Take in what a rater said."""
        self.decayed.add(value)
        count, total = self.raters.pop(rater, (0.0, 0.0))
        count, total = count + 1.0, total + value
        if count > MOST_SAID:
            count, total = count / 2.0, total / 2.0
        self.raters[rater] = [count, total]
        if len(self.raters) > MOST_RATERS:
            del self.raters[next(iter(self.raters))]

    def report(self) -> dict[str, Interval | None]:
        """Return `raw` and `corrected` means, null where there is none; for one look."""
        return {"raw": self.decayed.interval(), "corrected": self._corrected()}

    def _corrected(self) -> Interval | None:
        """Return the mean over raters, and bounds by how much they differ; None of fewer than 2."""
        if len(self.raters) < 2:
            return None
        found = [(n / (n + VOICE), total / n) for n, total in self.raters.values()]
        whole = sum(weight for weight, _ in found)
        mean = sum(weight * own for weight, own in found) / whole
        squares = sum((weight * (own - mean)) ** 2 for weight, own in found)
        n = len(found)
        radius = Z * math.sqrt(squares * n / (n - 1)) / whole
        return {
            "n": n,
            "score": mean,
            "low": max(0.0, mean - radius),
            "high": min(1.0, mean + radius),
        }

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {"decayed": self.decayed.pack(), "raters": dict(self.raters)}

    @classmethod
    def unpack(cls, state: Mapping[str, Any]) -> Opinions:
        """Return the opinions that `pack` wrote; of an empty state, none."""
        if not state:
            return cls()
        raters = {name: [float(x) for x in sums] for name, sums in state["raters"].items()}
        return cls(RunningMean.unpack(state["decayed"]), raters)
