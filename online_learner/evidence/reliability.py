"""Whether what is sure to 90 % is right nine times in ten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BINS = 10  # of equal width
LEAST_COUNT = 0.5  # of a bin, to be shown


@dataclass(slots=True)
class Reliability:
    """How often answers are right that are so sure, in bins of equal width.

    The expected calibration error is the mean distance, over all answers, between how sure those of
    a bin are on average and the share of them that is right (Guo et al., ICML 2017, equation 3).
    It is above 0 by chance alone: for n answers by about sqrt(bins p (1 - p) / n) at most.

    Parameters
    ----------
    keep
        By how much what was counted is multiplied with each further answer; 1 forgets nothing.
    n
        Answers in all, those that are forgotten among them.
    counts, sure, right
        By bin: the weight of its answers, of how sure they were, and of those that were right.

    Examples
    --------
    >>> found = Reliability()
    >>> for right in (1.0, 1.0, 0.0, 0.0):
    ...     found.add(0.75, right)
    >>> found.error
    0.25
    """

    keep: float = 1.0
    n: int = 0
    counts: list[float] = field(default_factory=lambda: [0.0] * BINS)
    sure: list[float] = field(default_factory=lambda: [0.0] * BINS)
    right: list[float] = field(default_factory=lambda: [0.0] * BINS)

    @classmethod
    def decayed(cls, half_life: float) -> Reliability:
        """Start one in which an answer counts half after `half_life` further ones."""
        return cls(keep=0.5 ** (1.0 / half_life))

    def add(self, sure: float, right: float) -> None:
        """Take in how sure an answer was, and how right it was, both from 0 to 1."""
        sure = min(1.0, max(0.0, sure))
        if self.keep < 1.0:
            for sums in (self.counts, self.sure, self.right):
                sums[:] = [self.keep * value for value in sums]
        place = min(BINS - 1, int(sure * BINS))
        self.n += 1
        self.counts[place] += 1.0
        self.sure[place] += sure
        self.right[place] += right

    @property
    def error(self) -> float | None:
        """The expected calibration error; None of nothing."""
        if not self.n:
            return None
        gaps = sum(abs(sure - right) for sure, right in zip(self.sure, self.right, strict=True))
        return gaps / sum(self.counts)

    def report(self) -> dict[str, Any]:
        """Return `n`, `error` and the `bins` that have answers, as plain JSON.

        Of each bin: `low`, `high`, `count` (of those not forgotten), `mean_score`, `share_right`.
        """
        bins = [
            {
                "low": place / BINS,
                "high": (place + 1) / BINS,
                "count": round(count),
                "mean_score": sure / count,
                "share_right": min(1.0, right / count),
            }
            for place, (count, sure, right) in enumerate(
                zip(self.counts, self.sure, self.right, strict=True)
            )
            if count >= LEAST_COUNT
        ]
        return {"n": self.n, "error": self.error, "bins": bins}

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        sums = {"counts": list(self.counts), "sure": list(self.sure), "right": list(self.right)}
        return {"keep": self.keep, "n": self.n, **sums}

    @classmethod
    def unpack(cls, state: Mapping[str, Any]) -> Reliability:
        """Return what `pack` wrote."""
        sums = [[float(x) for x in state[name]] for name in ("counts", "sure", "right")]
        return cls(float(state["keep"]), int(state["n"]), *sums)
