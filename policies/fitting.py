"""One scaling of scores, fitted label by label: temperature for many labels, Platt for two.

The scores p of an answer become p' ~ exp(a log p + b). Each label that is told moves a and b by one
step of Newton's method on the log loss, where the losses before are known by their curvature alone,
as in recursive least squares [1]. What is behind fades; the identity (a = 1, b = 0) comes in its
place, so that few labels, or old ones, change little: after each label

    precision = keep precision + (1 - keep) prior + curvature
    (a, b) += precision^-1 (gradient - (1 - keep) prior ((a, b) - (1, 0)))

A step has a largest length: one answer that was sure and wrong cannot throw the scaling far.

Where only a label is known *not* to be the right one, its loss is -log(1 - p'): to leave these out
would make whoever says "right" or "wrong" of many labels look as if all were right.

References
----------
[1] L. Ljung, T. Soderstrom. Theory and Practice of Recursive Identification. MIT Press (1983),
    section 2.6, with the logistic likelihood in place of the square.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from online_learner.schema import Scaling

PRIOR = 4.0  # precision of the identity, for a and for b: a standard deviation of a half
LEAST_SLOPE, MOST_SLOPE, MOST_SHIFT = 0.05, 10.0, 5.0
MOST_STEP = 0.2  # by one label: of the slope a share
SMALLEST = 1e-12  # probability, as in `schema.scaling`
LEAST_P = 1e-6  # of what happened, for a loss: no single one outweighs all others
SLOPE_STEP, SHIFT_STEP = 0.05, 0.1  # changes below these, of the slope a share, are not passed on
SLOPE_DIGITS, SHIFT_DIGITS = 3, 2

Scores: TypeAlias = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of the right label: which one it is, or which one it is not."""

    right: str | None = None
    wrong: str | None = None

    def chance(self, scores: Scores) -> float:
        """Return the probability that the scores give to what is known."""
        if self.right is not None:
            return scores.get(self.right, 0.0)
        return 1.0 - scores.get(self.wrong or "", 0.0)

    def loss(self, scores: Scores) -> float:
        """Return -log of the probability that the scores give to what is known."""
        return -math.log(min(1.0, max(LEAST_P, self.chance(scores))))

    def speaks_of(self, scores: Scores) -> bool:
        """Tell whether it is about one of these labels: no scaling helps with another one."""
        return (self.right or self.wrong or "") in scores


@dataclass(slots=True)
class Fit:
    """A scaling that is being fitted.

    Parameters
    ----------
    keep
        By how much what was learned is multiplied with each label, below 1.
    n
        Labels so far.
    slope, shift
        a, and b of the second of two labels, in the order of their names; that of the first is 0.
    precision
        The upper triangle of the 2x2 matrix: aa, ab, bb.
    offered
        The newest scaling that differed enough to be passed on.
    """

    keep: float
    n: int = 0
    slope: float = 1.0
    shift: float = 0.0
    precision: tuple[float, float, float] = (PRIOR, 0.0, PRIOR)
    offered: Scaling = field(default_factory=Scaling)

    def learn(self, scores: Scores, truth: Truth) -> None:
        """Take one step on the loss of what is known; the scores are those of the model."""
        if len(scores) < 2 or not truth.speaks_of(scores):
            return
        second = _second(scores)
        logs = {name: math.log(max(SMALLEST, p)) for name, p in scores.items()}
        scaled = self._apply(logs, second)
        given = _given(scaled, truth)
        up = sum((given[name] - p) * logs[name] for name, p in scaled.items())
        mean = sum(p * logs[name] for name, p in scaled.items())
        spread = sum(p * (logs[name] - mean) ** 2 for name, p in scaled.items())
        if second is None:
            self._step((up, 0.0), (spread, 0.0, 0.0))
        else:
            p = scaled[second]
            both = p * (logs[second] - mean)
            self._step((up, given[second] - p), (spread, both, p * (1.0 - p)))
        self.n += 1
        self._offer(second)

    def _apply(self, logs: Scores, second: str | None) -> dict[str, float]:
        """Return what `Scaling.apply` would, of the logs of the scores."""
        moved = {name: self.slope * value for name, value in logs.items()}
        if second is not None:
            moved[second] += self.shift
        top = max(moved.values())
        weights = {name: math.exp(value - top) for name, value in moved.items()}
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    def _step(self, up: tuple[float, float], curved: tuple[float, float, float]) -> None:
        fade, keep = (1.0 - self.keep) * PRIOR, self.keep
        aa, ab, bb = (keep * old + new for old, new in zip(self.precision, curved, strict=True))
        aa, bb = aa + fade, bb + fade
        self.precision = aa, ab, bb
        first, last = up[0] - fade * (self.slope - 1.0), up[1] - fade * self.shift
        whole = aa * bb - ab * ab
        slope, shift = (bb * first - ab * last) / whole, (aa * last - ab * first) / whole
        far = max(1.0, abs(slope) / (MOST_STEP * self.slope), abs(shift) / MOST_STEP)
        self.slope = min(MOST_SLOPE, max(LEAST_SLOPE, self.slope + slope / far))
        self.shift = min(MOST_SHIFT, max(-MOST_SHIFT, self.shift + shift / far))

    def _offer(self, second: str | None) -> None:
        """Pass the scaling on where it differs enough from the one that was."""
        offered = self.offered
        shift = self.shift if second is not None else 0.0  # a third label may have been learned
        was = sum(offered.shifts.values())
        aa, _, bb = self.precision  # what is within one standard deviation may be chance
        near = abs(self.slope - offered.slope) < max(SLOPE_STEP * self.slope, aa**-0.5)
        same = offered.shifts.keys() <= {second}
        if near and same and abs(shift - was) < max(SHIFT_STEP, bb**-0.5):
            return
        digits = SLOPE_DIGITS - 1 - math.floor(math.log10(self.slope))
        shifts = _shifts(second, round(shift, SHIFT_DIGITS))
        self.offered = Scaling(slope=round(self.slope, digits), shifts=shifts)

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {
            "keep": self.keep,
            "n": self.n,
            "at": [self.slope, self.shift, *self.precision],
            "offered": self.offered.model_dump(),
        }

    @classmethod
    def unpack(cls, state: Mapping[str, Any]) -> Fit:
        """Return the fit that `pack` wrote."""
        slope, shift, aa, ab, bb = _floats(state["at"])
        offered = Scaling.model_validate(state["offered"])
        return cls(state["keep"], state["n"], slope, shift, (aa, ab, bb), offered)


def _second(scores: Scores) -> str | None:
    """Return the label that is shifted: of two the second; of more none."""
    return max(scores) if len(scores) == 2 else None


def _shifts(second: str | None, shift: float) -> dict[str, float]:
    return {second: shift} if second is not None and shift else {}


def _given(scaled: Scores, truth: Truth) -> dict[str, float]:
    """Return how likely each label is, given what is known."""
    if truth.right is not None:
        return {name: float(name == truth.right) for name in scaled}
    left = max(LEAST_P, 1.0 - scaled[truth.wrong or ""])
    return {name: 0.0 if name == truth.wrong else p / left for name, p in scaled.items()}


def _floats(values: Sequence[Any]) -> list[float]:
    return [float(value) for value in values]
