"""Has the correction won? A paired test on audits, by what was known before each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from online_learner.evidence import Floats
from policies.switch import ALPHA, Mode, Switch

LEAST_GAP = 0.1  # of two scores; smaller ones count as parts of it: they are worth little
PART = 0.5  # of the way from what is raw to what is corrected that has to help
RARE = 0.05  # of all answers: what is rarer weighs no more than that


class Proof(Switch):
    """Whether to weigh lessons: on with evidence that the correction is better, off with less.

    Before each audit both say where its answer will stand, and how good it will be: the raw
    estimate, r, as those do of whom people spoke unasked, the corrected one, c, as all should. Who
    forgets faster, or has seen more, foretells better in a world that changes; that proves nothing
    of who speaks. So an audit is held against what was said unasked of answers of the same time,
    which neither side has counted yet. With g = w (c - r), the gain is

        g(audit) - mean g(spoken of) - sum w (c - r)^2 / 4.

    Where speaking does not depend on the answer, audits and others differ by chance alone, and the
    last term is a loss, whatever became of c and r meanwhile. Where r is how those are spread that
    are spoken of, it says by how much the middle of c and r is nearer to all answers than r is, in
    the distance of Pearson's chi-squared: w is 1 / ((c + r) / 2 + `RARE`). The middle, since c has
    more noise in it than the weights that follow have. It is bet on as a share of the largest that
    it could have been, which is known before.
    """

    def __init__(self, mode: Mode | bool = "auto", *, alpha: float = ALPHA) -> None:
        super().__init__(mode, alpha=alpha)

    def compare(
        self,
        raw: Floats,
        corrected: Floats,
        at: tuple[int, int],
        spoken: Sequence[tuple[int, int]],
    ) -> None:
        """Take in an audit, what was said unasked at its time, and what was expected of both.

        Parameters
        ----------
        raw, corrected
            The probability of each stratum and class, shape `(STRATA, classes)`.
        at
            The stratum and class of the audit.
        spoken
            Those of the others, one at least.
        """
        gap = corrected - raw
        weight = 1.0 / (0.5 * (corrected + raw) + RARE)
        told = 0.5 + float(raw[at]) - 0.5 * float((raw**2).sum())  # as Brier scores are
        gain, scale = _gain(gap, weight, at, spoken, part=PART)
        better, _ = _gain(gap, np.ones_like(gap), at, spoken, part=1.0)
        self.take(told, told + better, gain / max(scale, LEAST_GAP))

    def told(self, *, missing: str = "") -> dict[str, Any]:
        """Return whether it is on, and why; `raw` and `corrected` are scores as Brier's.

        Parameters
        ----------
        missing
            What is needed to find out, and not there.
        """
        return self.report(self._sentence(missing))

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
            f"Lessons are not weighed: on {self.n:,} audits the correction has not won yet over "
            "those who speak unasked."
        )


def _gain(
    gap: Floats,
    weight: Floats,
    at: tuple[int, int],
    spoken: Sequence[tuple[int, int]],
    *,
    part: float,
) -> tuple[float, float]:
    """Return the gain, and the largest size that it could have."""
    worth = weight * gap
    cost = part / 2.0 * float((worth * gap).sum())
    others = sum(float(worth[one]) for one in spoken) / len(spoken)
    return float(worth[at]) - others - cost, float(worth.max() - worth.min()) + cost
