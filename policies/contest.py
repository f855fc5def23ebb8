"""Does a correction help? It is applied once that is proved, and no longer than it holds.

An e-process looks on (see `online_learner.evidence.BettingTest`): that what is corrected has less
loss than what is raw, both as they were before the truth was known. At 1 / alpha the correction is
switched on, and another one begins: that it has more loss. At 1 / alpha that switches it off, and
so on: each switch is wrong with probability alpha at most, however often one looks.

Losses have long tails: where scores are too sure, a correction costs a little in most cases, and
saves much in a few. So two tests run side by side, on the saving in units of 1 and of 4 nats, and
the mean of both stakes counts (a mean of e-values is one). A test breaks where more than a unit is
lost at once; so what is lost in one case counts as a unit at most, and the promise is about that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from online_learner.evidence import BettingTest, log_mean_exp

Mode: TypeAlias = Literal["auto", "on", "off"]
ALPHA = 0.05  # of a switch
UNITS = np.array([1.0, 4.0])  # nats: by simulation, scores too sure and not sure enough


def _fresh() -> BettingTest:
    return BettingTest.fresh(0.0, UNITS.shape)


@dataclass(slots=True)
class Contest:
    """A correction against what is raw.

    Parameters
    ----------
    mode
        `on` and `off` are an operator's word; `auto` leaves it to the evidence.
    alpha
        The probability with which a switch may be wrong.
    on
        Whether the correction is applied.
    n, raw, corrected
        How often both were compared since the last switch, and the sums of their losses.
    test
        Those that would switch it, one a unit.

    Raises
    ------
    ValueError
        There is no such mode.
    """

    mode: Mode = "auto"
    alpha: float = ALPHA
    on: bool = False
    n: int = 0
    raw: float = 0.0
    corrected: float = 0.0
    test: BettingTest = field(default_factory=_fresh)

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"it is applied 'auto', 'on' or 'off', not {self.mode!r}")
        if not 0.0 < self.alpha < 1.0:
            raise ValueError(f"alpha is a probability between 0 and 1, not {self.alpha!r}")
        self.on = self.mode == "on" or (self.mode == "auto" and self.on)

    def compare(self, raw: float, corrected: float) -> None:
        """Take in the losses of both on one truth, in nats."""
        saved = corrected - raw if self.on else raw - corrected
        self.n += 1
        self.raw += raw
        self.corrected += corrected
        self.test.update(np.maximum(saved / UNITS, -1.0))
        # A mean is no larger than the best, and that is known sooner.
        reached = self.test.log_best >= self._goal and self.log_e >= self._goal
        if self.mode == "auto" and reached:
            self.on = not self.on
            self.n, self.raw, self.corrected, self.test = 0, 0.0, 0.0, _fresh()

    @property
    def log_e(self) -> float:
        """Log of the stake on a switch now."""
        return log_mean_exp(self.test.log_es)

    @property
    def _goal(self) -> float:
        return -math.log(self.alpha)

    def report(self, what: str) -> dict[str, Any]:
        """Return how it stands, as plain JSON: what is `raw`, and what is `corrected`.

        Both are exp(-mean loss), from 0 to 1, since the last switch: of a log loss, the
        probability given to what was true, in the geometric mean.

        Parameters
        ----------
        what
            Of what the sentence speaks: `scaling`, say.
        """
        log10_e = self.log_e / math.log(10)
        return {
            "mode": self.mode,
            "on": self.on,
            "n": self.n,
            "raw": math.exp(-self.raw / self.n) if self.n else None,
            "corrected": math.exp(-self.corrected / self.n) if self.n else None,
            "log10_e": log10_e,
            "needed_log10_e": self._goal / math.log(10),
            "sentence": self._sentence(what),
        }

    def _sentence(self, what: str) -> str:
        if self.mode != "auto":
            return f"The {what} is {self.mode} by configuration."
        e = math.exp(min(700.0, self.log_e))
        if self.on:
            return f"The {what} is on: it has won. That it does harm has a stake of {e:.3g} so far."
        return (
            f"The {what} is off until it has won: that it helps has a stake of {e:.3g} after "
            f"{self.n} comparisons, and {1 / self.alpha:.3g} is needed."
        )

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON; mode and level are of the configuration."""
        sums = {"on": self.on, "n": self.n, "raw": self.raw, "corrected": self.corrected}
        return {**sums, "test": self.test.pack()}

    @classmethod
    def unpack(cls, state: Mapping[str, Any], mode: Mode, alpha: float) -> Contest:
        """Return the contest that `pack` wrote, in this mode."""
        sums, test = (state["n"], state["raw"], state["corrected"]), state["test"]
        found = cls(mode, alpha, state["on"], *sums, BettingTest.unpack(test))
        return found if found.on == state["on"] else cls(mode, alpha)  # by configuration
