"""API keys: 256 random bits, of which only the SHA-256 is stored, with the scopes they carry."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from online_learner.errors import Forbidden, Unauthorized
from online_learner.store import Store
from online_learner.store.keys import AUTH

Scope: TypeAlias = Literal["predict", "feedback", "audit", "system", "read", "operate"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

PREFIX = "ol_"


@dataclass(frozen=True, slots=True)
class Credential:
    """Who a key stands for, and what it may do."""

    name: str
    scopes: frozenset[str]

    def require(self, scope: Scope) -> None:
        """Raise `Forbidden` unless the key carries the scope."""
        if scope not in self.scopes:
            raise Forbidden(
                f"this needs a key with scope '{scope}'; this one has "
                f"{', '.join(sorted(self.scopes))}"
            )


def new_key() -> str:
    """Return a fresh key; it is shown once and stored nowhere."""
    return PREFIX + secrets.token_urlsafe(32)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


async def allow(store: Store, key: str, *, name: str, scopes: tuple[Scope, ...] = SCOPES) -> None:
    """Let a key in."""
    value = json.dumps({"name": name, "scopes": sorted(scopes)})
    await store.call("HSET", AUTH, _digest(key), value)


@dataclass(slots=True)
class Keychain:
    """The keys that are let in, held in memory so that a request costs no round trip.

    The lookup is by SHA-256, so that its timing tells nothing about a key.
    """

    _known: dict[str, Credential] = field(default_factory=dict)

    async def refresh(self, store: Store) -> None:
        """Read the keys from the store."""
        found = await store.hash(AUTH)
        known = {}
        for digest, value in found.items():
            item = json.loads(value)
            known[digest.decode()] = Credential(item["name"], frozenset(item["scopes"]))
        self._known = known

    def open(self, header: str | None) -> Credential:
        """Return who an `Authorization` header stands for; raises `Unauthorized`."""
        scheme, _, key = (header or "").partition(" ")
        if scheme.lower() == "bearer" and key:
            credential = self._known.get(_digest(key.strip()))
            if credential is not None:
                return credential
        raise Unauthorized(
            "send a key as 'Authorization: Bearer ol_...'. `online-learner up` prints one, and "
            "takes one from OL_API_KEY."
        )
