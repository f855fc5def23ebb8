"""Every key name, in one place. The braces keep all keys of a model in one cluster slot."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

CONFIG = "ol:config"
AUTH = "ol:auth"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one model."""

    model: str

    def _key(self, name: str) -> str:
        return f"ol:{{{self.model}}}:{name}"

    @property
    def predictions(self) -> str:
        """Stream: every answer."""
        return self._key("predictions")

    @property
    def audits(self) -> str:
        """Stream: what each role answered when audited; ids are those of the predictions."""
        return self._key("audits")

    @property
    def feedback(self) -> str:
        """Stream: all that alters learning, in order, joined to what was answered."""
        return self._key("feedback")

    @property
    def steps(self) -> str:
        """Stream: the learner's commits; ids are those of the last feedback entry covered."""
        return self._key("steps")

    @property
    def quarantine(self) -> str:
        """Stream: signals that were not learned, with the reason."""
        return self._key("quarantine")

    @property
    def evidence(self) -> str:
        """Stream: settled audits as scalars; ids are those of the predictions."""
        return self._key("evidence")

    @property
    def verdicts(self) -> str:
        """Stream: every decision."""
        return self._key("verdicts")

    @property
    def aliases(self) -> str:
        """Hash: the signed aliases, their epoch, and the number of the last version."""
        return self._key("aliases")

    @property
    def pinned(self) -> str:
        """Hash: the step that a freeze under the leash keeps in service."""
        return self._key("pinned")

    @property
    def swap(self) -> str:
        """Channel: a hint that aliases or weights have moved."""
        return self._key("swap")

    def checkpoint(self, writer: str) -> str:
        """Hash: the state of a single writer (`learner`, `gatekeeper`)."""
        return self._key(f"checkpoint:{writer}")

    def fence(self, writer: str) -> str:
        """Integer: the epoch of a single writer; only the newest may commit."""
        return self._key(f"fence:{writer}")

    def heartbeat(self, writer: str) -> str:
        """Value that expires: a single writer is alive, and which process it is."""
        return self._key(f"heartbeat:{writer}")

    def version(self, number: int) -> str:
        """Hash: a kept snapshot and its lineage."""
        return self._key(f"version:{number}")

    def seen(self, credential: str, idempotency_key: str) -> str:
        """Value: what was accepted under an idempotency key."""
        digest = hashlib.blake2b(f"{credential}\0{idempotency_key}".encode(), digest_size=16)
        return self._key(f"seen:{digest.hexdigest()}")

    def standing(self, source: str, entry: str, kind: str) -> str:
        """Value: the latest signal of one kind by one source on one prediction."""
        digest = hashlib.blake2b(f"{source}\0{entry}\0{kind}".encode(), digest_size=16)
        return self._key(f"standing:{digest.hexdigest()}")
