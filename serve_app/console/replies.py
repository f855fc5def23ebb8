"""What the diff of two versions replies, as `/openapi.json` tells it."""

from __future__ import annotations

from pydantic import BaseModel

from online_learner.schema import Version
from serve_app.api.replies import VerdictEntry


class WeightChange(BaseModel):
    """One coefficient, or the norms of one tensor, and the size of the change."""

    name: str
    first: float
    second: float
    change: float


class WeightsDiff(BaseModel):
    """What differs between the weights of two versions; `top` is what changed most."""

    unit: str
    of: int
    changed: int
    top: list[WeightChange]


class VersionDiff(BaseModel):
    """Two versions side by side: from the first to the second."""

    first: Version
    second: Version
    same: bool  # their weights, to the bit
    steps: int
    learned: int
    seconds: float
    decisions: list[VerdictEntry]
    weights: WeightsDiff | None
    why_not: str
