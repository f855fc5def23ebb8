"""Every key name, in one place. The braces keep all keys of a model in one cluster slot."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

CONFIG = "ol:config"
AUTH = "ol:auth"
REVOKED = "ol:auth:revoked"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one model."""

    model: str

    @property
    def prefix(self) -> str:
        """How all of them begin."""
        return self._key("")

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
    def asked(self) -> str:
        """Stream: answers that a label is asked for, but audits; ids are those of predictions."""
        return self._key("asked")

    @property
    def leases(self) -> str:
        """Hash: by prediction, who is to label it, and until when; see `lease.lua`."""
        return self._key("leases")

    @property
    def gold(self) -> str:
        """Hash: by prediction, until when a planted question is asked."""
        return self._key("gold")

    @property
    def observer(self) -> str:
        """Hash: what the observers know, how far they came, and what they report."""
        return self._key("observer")

    @property
    def alarms(self) -> str:
        """Stream: what observers raised."""
        return self._key("alarms")

    @property
    def quality(self) -> str:
        """Stream: how good the answers are, from time to time."""
        return self._key("quality")

    @property
    def advice(self) -> str:
        """Hash: what gateways heed, sealed."""
        return self._key("advice")

    @property
    def feedback(self) -> str:
        """Stream: all that alters learning, in order, joined to what was answered."""
        return self._key("feedback")

    @property
    def served(self) -> str:
        """Stream: the first answer that each set of weights gave; ids are those of predictions."""
        return self._key("served")

    @property
    def steps(self) -> str:
        """Stream: the learner's commits; ids are those of the last feedback entry covered."""
        return self._key("steps")

    @property
    def quarantine(self) -> str:
        """Stream: signals that could not be learned, with the reason; ids are those of feedback."""
        return self._key("quarantine")

    @property
    def resets(self) -> str:
        """Stream: how far each reset went back; ids are those of the control entries."""
        return self._key("resets")

    @property
    def released(self) -> str:
        """Hash: feedback entries that operators released, with the control entries that did it."""
        return self._key("released")

    @property
    def retracted(self) -> str:
        """Hash: feedback entries that were taken back, with the control entry that says so."""
        return self._key("retracted")

    @property
    def unlearned(self) -> str:
        """Hash: of these, those that are in no weights any more, with the control entry."""
        return self._key("unlearned")

    @property
    def late(self) -> str:
        """Stream: what was said of answers that the store holds no more; it only goes on file."""
        return self._key("late")

    @property
    def archive(self) -> str:
        """Hash: by stream, the last entry that has been archived.

        Beside them `begins:<stream>`, where its record begins if it is not whole; `era`, which
        moves when a stream is rebuilt, or files go that no list has; `rewritten`, which does when
        a file of the archive is.
        """
        return self._key("archive")

    @property
    def segments(self) -> str:
        """Hash: the files of the archive, by stream and by the entry after which they begin."""
        return self._key("segments")

    @property
    def erasures(self) -> str:
        """Stream: proofs of what was erased, without what that was."""
        return self._key("erasures")

    @property
    def erasing(self) -> str:
        """Hash: by pseudonym, what an erasure that has not ended is about."""
        return self._key("erasing")

    @property
    def jobs(self) -> str:
        """Stream: training jobs, and what came of them."""
        return self._key("jobs")

    @property
    def trimmed(self) -> str:
        """Hash: how far the log has been trimmed; see `retain.trimmed_to`."""
        return self._key("trimmed")

    @property
    def evidence(self) -> str:
        """Stream: settled audits as scalars; ids are those of the predictions."""
        return self._key("evidence")

    @property
    def metrics(self) -> str:
        """Stream: what each process counted, once a second; entries add up."""
        return self._key("metrics")

    @property
    def tens(self) -> str:
        """Stream: what all processes counted in ten seconds; ids are when these began."""
        return self._key("metrics:tens")

    @property
    def minutes(self) -> str:
        """Stream: what all processes counted in a minute; ids are when these began."""
        return self._key("metrics:minutes")

    @property
    def meter(self) -> str:
        """Value: how far the streams have been counted."""
        return self._key("meter")

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

    @property
    def before(self) -> str:
        """Hash: a second state of the learner, as old as the published one or a little older."""
        return self._key("checkpoint:learner:before")

    def fence(self, writer: str) -> str:
        """Integer: the epoch of a single writer; only the newest may commit."""
        return self._key(f"fence:{writer}")

    def heartbeat(self, writer: str) -> str:
        """Value that expires: a single writer is alive, and which process it is."""
        return self._key(f"heartbeat:{writer}")

    def lock(self, what: str) -> str:
        """Value that expires: the token of who does what only one may do at a time."""
        return self._key(f"lock:{what}")

    def copy(self, stream: str) -> str:
        """Stream that expires: the copy of another one, until it takes its place."""
        return self._key(f"copy:{stream}")

    def version(self, number: int) -> str:
        """Hash: a kept snapshot and its lineage."""
        return self._key(f"version:{number}")

    def seen(self, credential: str, idempotency_key: str) -> str:
        """Value: what was accepted under an idempotency key."""
        return self._key(f"seen:{_digest(credential, idempotency_key)}")

    def rate(self, of: str, name: str) -> str:
        """Value that expires: how much an API key (`key`) or a source has sent of late, by GCRA."""
        return self._key(f"rate:{_digest(of, name)}")

    def said(self, entry: str) -> str:
        """Hash: the latest signal of each source, kind and subject on one prediction."""
        return self._key(f"said:{entry}")

    def ref(self, kind: str, name: str) -> str:
        """List: the latest predictions of a session, or under a caller's own id."""
        return self._key(f"ref:{_digest(kind, name)}")


def said_field(source: str, kind: str, subject: str = "") -> str:
    """Return the field of `said` for a source, a kind, and what it speaks of: a pair, a rule."""
    return _digest(source, kind, subject)


def said_place(value: bytes) -> str:
    """Return the feedback entry that a value of `said` leads to.

    >>> said_place(b"8f14e45f|1700000000000-3|00ff00ff")
    '1700000000000-3'
    """
    return value.decode().split("|")[1]


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
