"""Stage 3, in the end: what is told to who sent feedback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from online_learner.ingest import limits
from online_learner.ingest.limits import Standing
from online_learner.store import Durability


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one payload at the door.

    `status` is `accepted`, `duplicate`, or `archived_only`: the window of the answer has passed,
    and what is said of it goes into datasets, but alters no weights. `signals` has the kind, id and
    status of each, where the payload carried several; `standings` tells how much of each limit is
    used up.
    """

    feedback_id: str | None
    prediction_id: str
    model: str
    status: str
    durability: Durability
    signals: tuple[dict[str, str | None], ...] = ()
    standings: tuple[Standing, ...] = ()

    @property
    def headers(self) -> dict[str, str]:
        """The header fields that go with it."""
        return limits.headers(self.standings)

    def render(self) -> dict[str, Any]:
        """Return the receipt as the client gets it."""
        found: dict[str, Any] = {
            "feedback_id": self.feedback_id,
            "prediction_id": self.prediction_id,
            "model": self.model,
            "status": self.status,
            "durability": self.durability,
        }
        return found | ({"signals": list(self.signals)} if self.signals else {})
