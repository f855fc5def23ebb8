"""Where a learner stands in the feedback stream; what it has learned is chained there, in order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from online_learner.interpret import Batch
from online_learner.schema import Version


@dataclass(frozen=True, slots=True)
class Position:
    """Where the learner stands in the feedback stream, and what it has learned so far."""

    lineage: int = 1
    step: int = 0
    offset: str = "0-0"
    digest: str = ""
    learned: int = 0
    since_cut: int = 0
    tainted: bool = False  # learned on from a version that holds what cannot be taken out of it

    def after(self, batch: Batch) -> Position:
        """Return the position after a batch; `digest` chains what has been learned, in order."""
        digest = hashlib.blake2b(self.digest.encode(), digest_size=16)
        for entry, fields in batch.entries:
            digest.update(entry.encode())
            digest.update(fields.get(b"f", b""))
            digest.update(fields.get(b"r", b""))
        learned = len(batch.entries) - len(batch.set_aside)
        return Position(
            lineage=self.lineage,
            step=self.step + 1,
            offset=batch.to,
            digest=digest.hexdigest(),
            learned=self.learned + learned,
            since_cut=self.since_cut + learned,
            tainted=self.tainted,
        )

    def reset(self, entry: str, version: Version, lineage: int) -> Position:
        """Return the position after control entry `entry` went back to a version."""
        digest = hashlib.blake2b(f"{version.digest} reset {entry}".encode(), digest_size=16)
        return replace(
            self,
            lineage=lineage,
            step=self.step + 1,
            offset=entry,
            digest=digest.hexdigest(),
            learned=version.learned,
            since_cut=0,
            tainted=version.tainted,
        )

    def told(self, entry: str, what: str = "tables") -> Position:
        """Return the position after a control entry by which nothing is learned.

        Parameters
        ----------
        what
            What it brought: `tables`, `retract` or `unlearn`.
        """
        digest = hashlib.blake2b(f"{self.digest} {what} {entry}".encode(), digest_size=16)
        return replace(self, step=self.step + 1, offset=entry, digest=digest.hexdigest())
