"""No learner at all: a model whose answers are made elsewhere, and only recorded."""

from __future__ import annotations

from collections.abc import Sequence

from online_learner.learners.digest import state_digest
from online_learner.requests import Features
from online_learner.schema import Lesson


class Recorder:
    """Keeps the order in which options come, and learns nothing."""

    family = "none"
    fitted = False

    def score(self, features: Features, options: Sequence[Features]) -> list[float]:
        """Return 0 for each option."""
        return [0.0] * len(options)

    def learn(self, lessons: Sequence[Lesson]) -> None:
        """Do nothing."""

    def to_bytes(self) -> bytes:
        """Return no bytes."""
        return b""

    def from_bytes(self, blob: bytes) -> Recorder:
        """Return another one."""
        return Recorder()

    def digest(self) -> str:
        """Return the digest of nothing."""
        return state_digest(None)
