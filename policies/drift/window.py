"""One number that is watched: has its mean changed? ADWIN, and the values to rebuild it from.

River's detectors cannot be kept as they are: pickles break between its releases. So a window keeps
the values themselves, one character each, and gives a new detector the same values again. What is
fed has the precision of what is kept, so that a restart changes nothing.

References
----------
A. Bifet and R. Gavalda. Learning from time-changing data with adaptive windowing. SDM 2007.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from river.drift import ADWIN

ALPHABET = (string.digits + string.ascii_letters + "+-").encode()  # one character a value
PLACES = {code: place for place, code in enumerate(ALPHABET)}
TOP = len(ALPHABET) - 1
CLOCK = (
    8  # values between two looks; every value found changes 4 earlier, and costs 8 times as much
)
LEAST = 5  # values before a change, and after it, as ADWIN wants them
MOST = 1500  # values that are kept where nothing changes, and up to twice as many


@dataclass(frozen=True, slots=True)
class Change:
    """What a window found: its mean before, and after, from how many values each."""

    before: float
    after: float
    n_before: int
    n: int


@dataclass(slots=True)
class Window:
    """The latest values of one number, back to the last change.

    Parameters
    ----------
    delta
        ADWIN's confidence: about 20 to 40 times as many false alarms come in 100,000 values.
    values
        Each as a character of `ALPHABET`, from 0 to 1.
    n
        How many there ever were.
    """

    delta: float
    values: bytearray = field(default_factory=bytearray)
    n: int = 0
    _adwin: ADWIN = field(init=False)

    def __post_init__(self) -> None:
        self._feed()

    def add(self, value: float) -> Change | None:
        """Take in one value in [0, 1]; returns what has changed, where that is found now."""
        place = round(TOP * min(1.0, max(0.0, value)))
        self.n += 1
        self.values.append(ALPHABET[place])
        self._adwin.update(place / TOP)
        if self._adwin.drift_detected:
            return self._cut()
        if len(self.values) >= 2 * MOST:
            self.values = self.values[-MOST:]
            self._feed()
        return None

    @property
    def mean(self) -> float | None:
        """The mean since the last change; None where nothing has come since."""
        return self._adwin.estimation if self.width else None

    @property
    def width(self) -> int:
        """How many values that mean is of."""
        return int(self._adwin.width)

    def state(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {"n": self.n, "values": self.values.decode()}

    @classmethod
    def restored(cls, state: Mapping[str, Any], delta: float) -> Window:
        """Return the window that `state` wrote."""
        return cls(delta, bytearray(state["values"].encode()), state["n"])

    def _cut(self) -> Change:
        """Forget what was before the likeliest moment of the change; the rest is the new usual.

        ADWIN itself drops the oldest until it finds no change any more, which leaves much of what
        was before. The likeliest moment is where n_0 n_1 (mean_1 - mean_0)^2 is largest.
        """
        places = np.array([PLACES[code] for code in self.values]) / TOP
        totals, n = places.cumsum()[:-1], len(places)
        first = np.arange(1, n)
        gap = (totals[-1] + places[-1] - totals) / (n - first) - totals / first
        worth = first * (n - first) * gap * gap
        worth[: LEAST - 1] = worth[n - LEAST :] = 0.0
        at = int(worth.argmax()) + 1
        self.values = self.values[at:]
        self._feed()
        return Change(float(places[:at].mean()), float(places[at:].mean()), at, n - at)

    def _feed(self) -> None:
        self._adwin = ADWIN(delta=self.delta, clock=CLOCK)
        for code in self.values:
            self._adwin.update(PLACES[code] / TOP)
