"""Has the correction won? A paired test on audits, by what was known before each of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from online_learner.evidence import BettingTest, ChangeDetector, Floats

Weigh: TypeAlias = Literal["auto", "on", "off"]
LEAST_GAP = 0.1  # of two scores; smaller ones count as parts of it: they are worth little
BETWEEN = 2000  # audits between two false alarms of the detector, on average or more
MODES = ("auto", "on", "off")


class Proof:
    """Whether to weigh: on with evidence that the correction is better, off with the reverse.

    Before each audit both say where its answer will stand, and how good it will be: the raw
    estimate as those do of whom people spoke unasked, the corrected one as all should. The score of
    each is 1 less half its squared distance (Brier). Their difference is bet on as a share of the
    largest that it could have been, which is known before: so rare errors count as well
    (`evidence.BettingTest`). While it is on, a detector asks whether the raw one has become better
    (`evidence.ChangeDetector`): a good past is no credit. Both begin anew with each switch.

    Parameters
    ----------
    mode
        `auto`; or `on` and `off`, whatever the evidence.
    alpha
        The probability with which a correction that is no better is ever switched on.
    """

    def __init__(self, mode: Weigh = "auto", *, alpha: float = 0.05) -> None:
        if mode not in MODES:
            raise ValueError(f"weigh is {' or '.join(MODES)}, not {mode!r}")
        if not 0.0 < alpha < 1.0:
            raise ValueError("alpha is a probability between 0 and 1")
        self.mode = mode
        self._goal = math.log(1.0 / alpha)
        self._on = False
        self._test = BettingTest.fresh(0.0)
        self._detector = ChangeDetector.fresh(0.0)
        self._n = 0
        self._raw = self._corrected = 0.0

    @property
    def on(self) -> bool:
        """Whether to weigh now."""
        return self._on if self.mode == "auto" else self.mode == "on"

    def take(
        self,
        raw: Floats,
        corrected: Floats,
        at: tuple[int, int],
        spoken: Sequence[tuple[int, int]],
    ) -> None:
        """Take in an audit with what was said unasked at the same time, and what was expected.

        Parameters
        ----------
        raw, corrected
            The probability of each stratum and class, shape `(STRATA, classes)`.
        at
            The stratum and class of the audit.
        spoken
            Those of answers that were spoken of, one at least: neither side has counted them yet.
        """
        gap = corrected - raw
        half = 0.5 * float((gap**2).sum())
        gain = float(gap[at]) - sum(float(gap[one]) for one in spoken) / len(spoken) - half
        before = 0.5 + float(raw[at]) - 0.5 * float((raw**2).sum())
        self._n += 1
        self._raw += before
        self._corrected += before + gain
        d = gain / max(float(gap.max() - gap.min()) + half, LEAST_GAP)
        if self._on:
            self._detector.update(-d)
            over = self._detector.alarm(math.log(BETWEEN))
        else:
            self._test.update(d)
            over = self._test.log_e >= self._goal
        if over:
            self._on = not self._on
            self._test = BettingTest.fresh(0.0)
            self._detector = ChangeDetector.fresh(0.0)

    def report(self, *, missing: str = "") -> dict[str, Any]:
        """Return whether it is on, and why.

        `log10_e` is the evidence that it should be switched: on, or, while it is on, off.

        Parameters
        ----------
        missing
            What is needed to find out, and not there.
        """
        n = self._n
        log_e = self._detector.log_e if self._on else self._test.log_e
        goal = math.log(BETWEEN) if self._on else self._goal
        return {
            "mode": self.mode,
            "on": self.on,
            "n": n,
            "raw": self._raw / n if n else None,
            "corrected": self._corrected / n if n else None,
            "log10_e": log_e / math.log(10.0) if math.isfinite(log_e) else None,
            "needed_log10_e": goal / math.log(10.0),
            "sentence": self._sentence(missing),
        }

    def _sentence(self, missing: str) -> str:
        if self.mode != "auto":
            return f"Lessons are {'' if self.on else 'not '}weighed: so it is configured."
        if self._on:
            return (
                "Lessons are weighed: on audits the correction has foretold which answers there "
                "are, and how good, better than those who speak unasked."
            )
        if missing:
            return f"Lessons are not weighed: {missing}"
        return (
            f"Lessons are not weighed: on {self._n:,} audits the correction has not won yet over "
            "those who speak unasked."
        )

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        sums = [self._n, self._raw, self._corrected]
        tests = [self._test.pack(), self._detector.pack()]
        return {"on": self._on, "tests": tests, "sums": sums}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `pack` returned."""
        test, detector = state["tests"]
        self._on, self._test = bool(state["on"]), BettingTest.unpack(test)
        self._detector = ChangeDetector.unpack(detector)
        self._n, self._raw, self._corrected = state["sums"]


def _scores(told: Floats) -> Floats:
    """Return the score of a forecast in each case that may come: 1 - |forecast - case|^2 / 2."""
    found: Floats = 0.5 + told - 0.5 * float((told**2).sum())
    return found
