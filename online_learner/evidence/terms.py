"""What is to be compared, and what the evidence is subject to."""

from __future__ import annotations

from dataclasses import dataclass

from online_learner.evidence.betting import raised_null


@dataclass(frozen=True, slots=True)
class Terms:
    """What evidence is subject to; from a model's configuration.

    Parameters
    ----------
    gamma
        How unequally outcomes may be answered: wrong ones up to so many times as often, or right.
    malice
        The share of the answers that differ that an adversary may label.
    rater_share
        The share of the recent evidence that one rater may give.
    min_raters
        Raters that have to be heard before anything moves.
    least_propensity
        The smallest probability with which a role is shown and audited; 0 without exposure.
    audit
        The share of answers that is audited once trust is earned.
    """

    gamma: float = 1.0
    malice: float = 0.0
    rater_share: float = 1.0
    min_raters: int = 0
    least_propensity: float = 0.0
    audit: float = 1.0

    @property
    def m(self) -> float:
        """The raised null."""
        return raised_null(self.gamma, self.malice)


@dataclass(frozen=True, slots=True)
class Duel:
    """Two roles to be compared: whether `challenger` is better than `reference`.

    Parameters
    ----------
    challenger, reference
        Roles of the audit record: `champion`, `anchor`, `latest`, `challenger:<version>`.
    detector
        Look for the moment at which it became better, instead of the average so far.
    margin
        How much worse, in points of d, the challenger may be and still win (non-inferiority).
    """

    challenger: str
    reference: str
    version: int | None = None
    detector: bool = False
    margin: float = 0.0

    def key(self, generation: int) -> str:
        """Return the name under which evidence counts."""
        return f"{self.challenger}>{self.reference}@{generation}"
