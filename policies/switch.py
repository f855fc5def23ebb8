"""Is a correction applied? On once it has won, off once it loses; or as an operator says.

What is raw and what is corrected, both as they were before the truth was known, are compared with
each truth, and the difference is bet on (`online_learner.evidence.BettingTest`): where the
correction is no better, it is ever switched on with probability alpha at most, however often one
looks. While it is on, a detector asks whether what is raw has become better
(`online_learner.evidence.ChangeDetector`): a good past is no credit. Both begin anew with each
switch.

A correction says how it is compared: `Contest` by losses, `policies.response.proof` by what audits
are, `policies.raters.proof` by what auditors know.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from online_learner.evidence import BettingTest, ChangeDetector, log_mean_exp

Mode: TypeAlias = Literal["auto", "on", "off"]
YAML: dict[bool, Mode] = {True: "on", False: "off"}  # as which it reads the bare words
ALPHA = 0.05
BETWEEN = 2000  # comparisons between two false alarms of the detector, on average or more


def mode_of(value: Mode | bool, name: str = "weigh") -> Mode:
    """Return when a correction is applied, as configured.

    Parameters
    ----------
    name
        Of the argument.

    Raises
    ------
    ValueError
        It is none of the modes.
    """
    mode = YAML[value] if isinstance(value, bool) else value
    if not isinstance(mode, str) or mode not in get_args(Mode):
        raise ValueError(f"{name} is auto, on or off, not {value!r}")
    return mode


class Switch:
    """Whether a correction is applied.

    Parameters
    ----------
    mode
        `auto` leaves it to the evidence; `on` and `off` are an operator's word.
    alpha
        The probability with which a correction that is no better is ever switched on.
    units
        In which differences are told, each by a test of its own; the mean of their stakes counts (a
        mean of e-values is one).

    Raises
    ------
    ValueError
        An argument is out of its range.
    """

    def __init__(
        self, mode: Mode | bool = "auto", *, alpha: float = ALPHA, units: Sequence[float] = (1.0,)
    ) -> None:
        if not (isinstance(alpha, float) and 0.0 < alpha < 1.0):
            raise ValueError(f"alpha is a probability between 0 and 1, not {alpha!r}")
        self.mode = mode_of(mode)
        self._goal = math.log(1.0 / alpha)
        self._units = np.array(units)
        self._on = False
        self.switches = 0
        self._begin()

    def _begin(self) -> None:
        self.n = 0
        self._raw = self._corrected = 0.0
        self._test = BettingTest.fresh(0.0, self._units.shape)
        self._detectors = [ChangeDetector.fresh(0.0) for _ in self._units]

    @property
    def on(self) -> bool:
        """Whether to apply it now."""
        return self._on if self.mode == "auto" else self.mode == "on"

    def take(self, raw: float, corrected: float, gain: float) -> None:
        """Take in what both were worth in one case, and by how much the correction was better.

        Parameters
        ----------
        raw, corrected
            Of which a mean is told.
        gain
            What is bet on. A bet breaks where more than a unit is lost at once: so that counts as a
            unit, and the promise is about that.
        """
        self.n += 1
        self._raw += raw
        self._corrected += corrected
        d = gain / self._units
        if self._on:
            for detector, lost in zip(self._detectors, np.maximum(-d, -1.0), strict=True):
                detector.update(lost)
            reached = any(x.alarm(self._needed) for x in self._detectors)
        else:
            self._test.update(np.maximum(d, -1.0))
            reached = self._test.log_best >= self._needed  # a mixture is no larger: known sooner
        if reached and self.log_e >= self._needed:
            self._on = not self._on
            self.switches += 1
            self._begin()

    @property
    def log_e(self) -> float:
        """Log of the stake on a switch now: on, or, while evidence has it on, off."""
        if self._on:
            return log_mean_exp([detector.log_e for detector in self._detectors])
        return log_mean_exp(self._test.log_es)

    @property
    def _needed(self) -> float:
        return math.log(BETWEEN) if self._on else self._goal

    def means(self) -> tuple[float, float] | None:
        """Return what both were worth since the last switch; None before the first case."""
        return (self._raw / self.n, self._corrected / self.n) if self.n else None

    def report(self, sentence: str) -> dict[str, Any]:
        """Return how it stands, as plain JSON; all is counted from the last switch."""
        raw, corrected = self.means() or (None, None)
        log_e = self.log_e
        return {
            "mode": self.mode,
            "on": self.on,
            "n": self.n,
            "raw": raw,
            "corrected": corrected,
            "log10_e": log_e / math.log(10.0) if math.isfinite(log_e) else None,
            "needed_log10_e": self._needed / math.log(10.0),
            "sentence": sentence,
        }

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON; mode, alpha and units are of the configuration."""
        return {
            "on": self._on,
            "sums": [self.switches, self.n, self._raw, self._corrected],
            "test": self._test.pack(),
            "detectors": [detector.pack() for detector in self._detectors],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `pack` returned."""
        self._on = bool(state["on"])
        self.switches, self.n, self._raw, self._corrected = state["sums"]
        self._test = BettingTest.unpack(state["test"])
        self._detectors = [ChangeDetector.unpack(packed) for packed in state["detectors"]]
