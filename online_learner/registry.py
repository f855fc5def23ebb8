"""Versions, aliases and checkpoints: what is kept, who answers, and the seals that guard it.

Every piece of state is sealed with an HMAC over {what it is, its metadata, SHA-256 of its bytes}.
The seal is verified before a byte of state is parsed. Weights, and what is remembered of the raters
by then, are two fields with a digest each, so that who answers fetches the weights alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from online_learner.errors import NotFound, StateError
from online_learner.ids import Keyring
from online_learner.learners import Model
from online_learner.learners.state import M, pack_state, unpack_memory, unpack_state
from online_learner.schema import Advice, Aliases, Checkpoint, GateState, Observed, Record, Version
from online_learner.store import Fields, Store
from online_learner.store.keys import Keys

R = TypeVar("R", bound=Record)

SEAL = (b"meta", b"sha", b"mac")
WEIGHTS = (*SEAL, b"blob")


@dataclass(frozen=True, slots=True)
class Sealed:
    """Metadata and the proof that it belongs to these bytes, ready to be stored."""

    meta: str
    sha: str
    mac: str

    def fields(self) -> dict[str, str]:
        """Return the fields as the scripts take them."""
        return {"meta": self.meta, "sha": self.sha, "mac": self.mac}


class Registry:
    """Reads and seals what is kept of one model."""

    def __init__(self, store: Store, keyring: Keyring, model: str) -> None:
        self.store = store
        self.keyring = keyring
        self.model = model
        self.keys = Keys(model)

    # --- seals --------------------------------------------------------------------------------

    def seal(
        self,
        purpose: str,
        record: Record,
        *,
        blob: bytes = b"",
        memory: bytes = b"",
        sha: str = "",
    ) -> Sealed:
        """Seal a record, and the bytes (or the SHA-256 of bytes already stored) beside it."""
        meta = record.pack()
        sha = sha or digest_of(blob, memory)
        mac = self.keyring.mac(purpose, self.model.encode(), meta, sha.encode())
        return Sealed(meta.decode(), sha, mac.hex())

    def unseal(self, purpose: str, fields: Fields, kind: type[R]) -> tuple[R, str]:
        """Verify a seal, then parse the record. Returns it with the SHA-256 of its bytes."""
        meta, sha = self._verified(purpose, fields)
        return self._parsed(purpose, meta, kind), sha

    def _unseal_weights(self, purpose: str, fields: Fields, kind: type[R]) -> tuple[R, bytes]:
        """Verify a seal and the weights under it, and only then parse the record."""
        meta, sha = self._verified(purpose, fields)
        blob = fields.get(b"blob", b"")
        if digest_of(blob) != sha.partition(" ")[0]:
            raise StateError(f"the bytes of {purpose} of '{self.model}' are damaged or gone")
        return self._parsed(purpose, meta, kind), blob

    def _unseal_all(self, purpose: str, fields: Fields, kind: type[R]) -> tuple[R, bytes, bytes]:
        """Verify a seal, the weights and the memory under it, and only then parse the record."""
        meta, sha = self._verified(purpose, fields)
        blob, memory = fields.get(b"blob", b""), fields.get(b"memory", b"")
        if digest_of(blob, memory) != sha:
            raise StateError(f"the bytes of {purpose} of '{self.model}' are damaged or gone")
        return self._parsed(purpose, meta, kind), blob, memory

    def _verified(self, purpose: str, fields: Fields) -> tuple[bytes, str]:
        try:
            meta, sha, written = fields[b"meta"], fields[b"sha"], fields[b"mac"].decode()
            mac = bytes.fromhex(written)
        except (KeyError, ValueError) as error:
            raise StateError(f"{purpose} of '{self.model}' is incomplete") from error
        if mac.hex() != written or not self.keyring.verify(
            mac, purpose, self.model.encode(), meta, sha
        ):
            raise StateError(
                f"{purpose} of '{self.model}' carries no valid seal: it was changed, or written "
                "with another secret (OL_SECRET, or the file 'secret' in data_dir)"
            )
        return meta, sha.decode()

    def _parsed(self, purpose: str, meta: bytes, kind: type[R]) -> R:
        try:
            return kind.model_validate_json(meta)
        except ValidationError as error:
            raise StateError(
                f"{purpose} of '{self.model}' is ours, and not of this release's form: it was "
                "written by another release of online-learner"
            ) from error

    # --- reading ------------------------------------------------------------------------------

    async def aliases(self) -> Aliases | None:
        """Return the aliases, or None before the model is founded."""
        found = await self.store.hash(self.keys.aliases)
        if b"doc" not in found:
            return None
        aliases, _ = self.unseal(
            "aliases", {b"meta": found[b"doc"], b"sha": b"-", b"mac": found[b"mac"]}, Aliases
        )
        return aliases

    def seal_aliases(self, aliases: Aliases) -> dict[str, str]:
        """Return the aliases as the scripts take them."""
        sealed = self.seal("aliases", aliases, sha="-")
        return {"doc": sealed.meta, "mac": sealed.mac, "epoch": str(aliases.epoch)}

    async def last_version(self) -> int:
        """Return the number of the newest version."""
        return int(await self.store.call("HGET", self.keys.aliases, "versions") or 0)

    async def version(self, number: int) -> Version:
        """Return what is known of a version; raises `NotFound`."""
        return self._version(number, await self._sealed(number))[0]

    async def _sealed(self, number: int) -> Fields:
        """Return what is known of a version, and its seal, without its bytes."""
        return await self._fields(self.keys.version(number), SEAL)

    async def _fields(self, key: str, names: Sequence[bytes]) -> Fields:
        """Return those of some fields of a hash that are there."""
        return _known(names, await self.store.call("HMGET", key, *names))

    def _version(self, number: int, fields: Fields) -> tuple[Version, str]:
        self._there(number, fields)
        return self.unseal(f"version {number}", fields, Version)

    def _there(self, number: int, fields: Fields) -> None:
        if not fields:
            raise NotFound(
                f"'{self.model}' has no version {number}: see `online-learner versions`",
                code="unknown_version",
            )

    async def versions(self) -> list[Version]:
        """Return every version whose seal is good, oldest first; the others are left out."""
        numbers = range(await self.last_version() + 1)
        found = await self.store.many([("HMGET", self.keys.version(n), *SEAL) for n in numbers])
        versions = []
        for number, values in zip(numbers, found, strict=True):
            with contextlib.suppress(StateError, NotFound):
                versions.append(self._version(number, _known(SEAL, values))[0])
        return versions

    async def blessed(self) -> list[int]:
        """Return the versions that were champion once, the newest first."""
        found = await self.versions()
        return [version.version for version in reversed(found) if version.status == "blessed"]

    async def load_version(self, number: int, like: M) -> tuple[Version, M]:
        """Return a version and its weights, as a learner like `like`."""
        fields = await self._fields(self.keys.version(number), WEIGHTS)
        self._there(number, fields)
        meta, blob = self._unseal_weights(f"version {number}", fields, Version)
        return meta, await asyncio.to_thread(unpack_state, blob, like)

    async def load_state(self, number: int, like: M) -> tuple[Version, M, dict[str, Any]]:
        """Return a version, its weights, and what was remembered of the raters by then."""
        meta, blob, memory = await self.whole(number)
        return meta, await asyncio.to_thread(unpack_state, blob, like), unpack_memory(memory)

    async def whole(self, number: int) -> tuple[Version, bytes, bytes]:
        """Return a version, its weights and its memory as they are kept.

        Raises
        ------
        NotFound
            There is no such version.
        StateError
            It was damaged, or its weights are gone.
        """
        fields = await self.store.hash(self.keys.version(number))
        self._there(number, fields)
        return self._unseal_all(f"version {number}", fields, Version)

    async def check_whole(self, number: int) -> None:
        """Raise `StateError` where nobody could go back to a version."""
        try:
            await self.whole(number)
        except (StateError, NotFound) as error:
            raise StateError(
                f"version {number} of '{self.model}' cannot be loaded, choose another by hand "
                f"(`online-learner versions`): {error}"
            ) from error

    async def load_newest(self, like: M) -> tuple[Checkpoint, M, dict[str, Any]] | None:
        """Return the learner's newest full state, or None before its first."""
        return await self._load(self.keys.checkpoint("learner"), like)

    async def load_before(self, like: M) -> tuple[Checkpoint, M, dict[str, Any]] | None:
        """Return the full state that the learner keeps beside its newest, or None."""
        return await self._load(self.keys.before, like)

    async def _load(self, key: str, like: M) -> tuple[Checkpoint, M, dict[str, Any]] | None:
        fields = await self.store.hash(key)
        if not fields:
            return None
        meta, blob, memory = self._unseal_all("checkpoint", fields, Checkpoint)
        return meta, await asyncio.to_thread(unpack_state, blob, like), unpack_memory(memory)

    async def checkpoint_meta(self) -> bytes | None:
        """Return the metadata of the learner's newest state, without its bytes."""
        found: bytes | None = await self.store.call("HGET", self.keys.checkpoint("learner"), "meta")
        return found

    async def published(self) -> Checkpoint | None:
        """Return what is known of the learner's newest state, or None where that is not sound."""
        return await self._known(self.keys.checkpoint("learner"))

    async def before(self) -> Checkpoint | None:
        """Return what is known of the state kept beside it, or None where that is not sound."""
        return await self._known(self.keys.before)

    async def pinned_known(self) -> Checkpoint | None:
        """Return what is known of the step that a freeze keeps in service; None for none."""
        return await self._known(self.keys.pinned)

    async def seal_of(self, key: str) -> str:
        """Return the seal of a kept state as it is now, so that a change can be found out."""
        found: bytes | None = await self.store.call("HGET", key, "mac")
        return "" if found is None else found.decode()

    async def bytes_of(self, key: str) -> str:
        """Return the SHA-256 of the bytes of a kept state, as its seal names it."""
        found: bytes | None = await self.store.call("HGET", key, "sha")
        return "" if found is None else found.decode()

    async def _known(self, key: str) -> Checkpoint | None:
        found = await self._fields(key, SEAL)
        with contextlib.suppress(StateError):
            return self.unseal("checkpoint", found, Checkpoint)[0]
        return None

    async def gate(self) -> GateState | None:
        """Return the gatekeeper's newest state, or None before its first."""
        fields = await self.store.hash(self.keys.checkpoint("gatekeeper"))
        return self.unseal("gate", fields, GateState)[0] if fields else None

    async def advice(self) -> Advice:
        """Return what gateways heed; what was never given is as if nothing had been observed."""
        fields = await self._fields(self.keys.advice, SEAL)
        return self.unseal("advice", fields, Advice)[0] if fields else Advice()

    async def observed(self) -> tuple[Observed, dict[str, Any]] | None:
        """Return how far the observers came, and what each knows; None before their first commit.

        Raises
        ------
        StateError
            It was damaged.
        """
        fields = await self.store.hash(self.keys.observer)
        if not fields:
            return None
        meta, blob, _ = self._unseal_all("observer", fields, Observed)
        return meta, json.loads(blob)

    async def observations(self) -> tuple[Observed, dict[str, Any]] | None:
        """Return how far the observers came, and what each reports; None before their first commit.

        Raises
        ------
        StateError
            It was damaged.
        """
        fields = await self._fields(self.keys.observer, (*SEAL, b"memory"))
        if not fields:
            return None
        meta, sha = self._verified("observer", fields)
        told = fields.get(b"memory", b"")
        if sha.partition(" ")[2] != digest_of(told):
            raise StateError(f"what observers report of '{self.model}' is damaged or gone")
        return self._parsed("observer", meta, Observed), json.loads(told)

    async def checkpoint(self) -> tuple[Checkpoint, bytes] | None:
        """Return the learner's newest weights, packed, or None before its first."""
        return await self._weights(self.keys.checkpoint("learner"))

    async def pinned(self) -> tuple[Checkpoint, bytes] | None:
        """Return the weights, packed, of the step that a freeze keeps in service."""
        return await self._weights(self.keys.pinned)

    async def _weights(self, key: str) -> tuple[Checkpoint, bytes] | None:
        fields = await self._fields(key, WEIGHTS)
        return self._unseal_weights("checkpoint", fields, Checkpoint) if fields else None

    # --- writing ------------------------------------------------------------------------------

    async def restatus(self, number: int, status: str) -> tuple[str, dict[str, Any]]:
        """Return the key and the script argument that give a version another status."""
        change = await self.retold(number, status=status)
        if status == "rejected":
            change["drop"] = True
        return self.keys.version(number), change

    async def retold(self, number: int, *, sha: str = "", **changes: Any) -> dict[str, Any]:
        """Return the script argument by which other things are known of a version.

        `was` is its seal so far: the script refuses where that has changed since.

        Parameters
        ----------
        sha
            Of the bytes that it has from then on; by default it keeps its own.
        """
        fields = await self._sealed(number)
        meta, own = self._version(number, fields)
        changed = Version.model_validate({**meta.model_dump(), **changes})
        sealed = self.seal(f"version {number}", changed, sha=sha or own)
        return {**sealed.fields(), "was": fields[b"mac"].decode()}

    async def found(self, learner: Model, *, now: float, trusted: bool = False) -> bool:
        """Store the first version and the first aliases, unless that has been done.

        A fitted learner is version 1. An untrained one is version 0, and says so.
        """
        blob, digest = pack_state(learner), learner.digest()
        number = 1 if learner.fitted else 0
        version = Version(
            version=number,
            lineage=1,
            step=0,
            offset="0-0",
            digest="",
            state_digest=digest,
            status="blessed",
            cut_at=now,
            untrained=not learner.fitted,
        )
        sealed = self.seal(f"version {number}", version, blob=blob)
        aliases = self.seal_aliases(Aliases(champion=number, trusted=trusted))
        founded = await self.store.run(
            "found",
            [self.keys.aliases, self.keys.version(number)],
            [
                str(number),
                sealed.meta,
                sealed.sha,
                sealed.mac,
                blob,
                aliases["doc"],
                aliases["mac"],
                aliases["epoch"],
            ],
        )
        return bool(founded)


def digest_of(blob: bytes, memory: bytes = b"") -> str:
    """Return the SHA-256 of the weights, and of the memory where there is one, as seals name it."""
    parts = (blob, memory) if memory else (blob,)
    return " ".join(hashlib.sha256(part).hexdigest() for part in parts)


def _known(names: Sequence[bytes], values: Sequence[bytes | None]) -> Fields:
    pairs = zip(names, values, strict=True)
    return {name: value for name, value in pairs if value is not None}
