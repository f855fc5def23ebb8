"""One source far above its usual rate and the crowd's, by the stream's own time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from policies.validation.raters import Rater

SHORT_S, LONG_S = 10.0, 3600.0
SHORT_MS, LONG_MS = 1000.0 * SHORT_S, 1000.0 * LONG_S
FREE = 20.0  # signals at once that nobody minds


@dataclass(slots=True)
class Bursts:
    """Rates in a short window that decays, of all raters together.

    Parameters
    ----------
    times
        How many times the greater of both, a rater's usual rate and the crowd's mean, is too much.
    at_ms, signals, raters
        The moment, and how many signals and raters the short window has.
    """

    times: float
    at_ms: int = 0
    signals: float = 0.0
    raters: float = 0.0

    def too_much(self, rater: Rater, now_ms: int) -> bool:
        """Tell whether one more signal of a rater is too much, and count it.

        Where fewer than `times` raters speak nobody is ever too loud: each is the crowd.
        """
        keep = _decay(now_ms - self.at_ms, SHORT_MS)
        silent_ms = now_ms - rater.at_ms
        own = _decay(silent_ms, SHORT_MS)
        self.at_ms = now_ms
        self.signals = self.signals * keep + 1.0
        self.raters = self.raters * keep + (1.0 - own if rater.at_ms else 1.0)
        rater.burst = rater.burst * own + 1.0
        usual = rater.usual * _decay(silent_ms, LONG_MS)
        rater.at_ms = now_ms
        mean = self.signals / max(1.0, self.raters)
        loud = rater.burst > FREE + self.times * max(mean, usual * SHORT_S / LONG_S)
        rater.usual = usual + (not loud)  # what is too much does not become usual
        return loud

    def pack(self) -> list[float]:
        """Return the numbers in the order of the fields."""
        return [self.at_ms, self.signals, self.raters]


def _decay(past_ms: int, window_ms: float) -> float:
    return math.exp(-past_ms / window_ms) if past_ms > 0 else 1.0
