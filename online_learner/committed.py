"""What the learner commits, as records: where it stands, what it cut, what it set aside."""

from __future__ import annotations

import json
import os

from online_learner.interpret import NOTHING
from online_learner.replay.position import Position
from online_learner.schema import Checkpoint, Step, Version


def checkpoint_of(
    at: Position, state_digest: str, *, differs: int | None, now: float
) -> Checkpoint:
    """Return what is known of the full state at a position."""
    return Checkpoint(
        lineage=at.lineage,
        step=at.step,
        offset=at.offset,
        digest=at.digest,
        state_digest=state_digest,
        learned=at.learned,
        since_cut=at.since_cut,
        differs=differs,
        tainted=at.tainted,
        pid=os.getpid(),
        at=now,
    )


def version_of(at: Position, state_digest: str, *, number: int, parent: int, now: float) -> Version:
    """Return what is known of a version that is cut at a position."""
    return Version(
        version=number,
        lineage=at.lineage,
        step=at.step,
        offset=at.offset,
        digest=at.digest,
        state_digest=state_digest,
        parent=parent,
        learned=at.learned,
        cut_at=now,
        tainted=at.tainted,
    )


def quarantined(step: Step) -> list[dict[str, str]]:
    """Return what a step set aside as the script takes it; what was released is there already."""
    return [
        {"entry": entry, "record": json.dumps({"reason": reason})}
        for entry, reason in step.set_aside.items()
        if not step.released and not reason.startswith(NOTHING)
    ]
