"""Does a correction of scores help? It is applied once that is proved, and no longer than it holds.

A `Switch` on losses. These have long tails: where scores are too sure, a correction costs a little
in most cases, and saves much in a few. So two tests run side by side, on the saving in units of 1
and of 4 nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from policies.switch import ALPHA, Mode, Switch

UNITS = (1.0, 4.0)  # nats: by simulation, scores too sure and not sure enough


class Contest(Switch):
    """A correction against what is raw, by their losses; see `Switch` for the parameters."""

    def __init__(self, mode: Mode | bool = "auto", alpha: float = ALPHA) -> None:
        super().__init__(mode, alpha=alpha, units=UNITS)

    def compare(self, raw: float, corrected: float) -> None:
        """Take in the losses of both on one truth, in nats."""
        self.take(raw, corrected, raw - corrected)

    def told(self, what: str) -> dict[str, Any]:
        """Return how it stands, as plain JSON: what is `raw`, and what is `corrected`.

        Both are exp(-mean loss), from 0 to 1, since the last switch: of a log loss, the
        probability given to what was true, in the geometric mean.

        Parameters
        ----------
        what
            Of what the sentence speaks: `scaling`, say.
        """
        found = self.report(self._sentence(what))
        if (means := self.means()) is not None:
            found["raw"], found["corrected"] = (math.exp(-loss) for loss in means)
        return found

    def _sentence(self, what: str) -> str:
        if self.mode != "auto":
            return f"The {what} is {self.mode} by configuration."
        e = math.exp(min(700.0, self.log_e))
        if self.on:
            return f"The {what} is on: it has won. That it does harm has a stake of {e:.3g} so far."
        return (
            f"The {what} is off until it has won: that it helps has a stake of {e:.3g} after "
            f"{self.n} comparisons, and {math.exp(self._goal):.3g} is needed."
        )

    @classmethod
    def unpack(cls, state: Mapping[str, Any], mode: Mode | bool, alpha: float) -> Contest:
        """Return the contest that `pack` wrote, in this mode."""
        found = cls(mode, alpha)
        found.restore(state)
        return found
