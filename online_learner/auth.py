"""API keys: 256 random bits, of which only the SHA-256 is stored, with the scopes they carry."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from online_learner.errors import ConfigError, Forbidden, Unauthorized
from online_learner.store import Store
from online_learner.store.keys import AUTH

Scope: TypeAlias = Literal["predict", "feedback", "audit", "system", "read", "operate"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
OWN: tuple[Scope, ...] = tuple(scope for scope in SCOPES if scope != "audit")
AUDITOR: tuple[Scope, ...] = ("feedback", "audit", "read")

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


async def allow(store: Store, key: str, *, name: str, scopes: tuple[Scope, ...] = OWN) -> None:
    """Let a key in; it may do everything but `audit`, where nothing else is said.

    What an application sends are the words of its users. An auditor's word weighs more: it is taken
    as drawn without bias, and no share caps it. So auditors have a key that nobody else holds.
    """
    value = json.dumps({"name": name, "scopes": sorted(scopes)})
    await store.call("HSET", AUTH, _digest(key), value)


async def allow_ours(store: Store, key: str | None, *, name: str) -> None:
    """Let in the application's own key, and the auditors' that `OL_AUDIT_KEY` names.

    Raises
    ------
    ConfigError
        They are one and the same.
    """
    auditors = os.environ.get("OL_AUDIT_KEY")
    if auditors and auditors == key:
        raise ConfigError(
            "OL_AUDIT_KEY is the application's own key, whose words are those of its users: give "
            "auditors another one"
        )
    if key:
        await allow(store, key, name=name)
    if auditors:
        await allow(store, auditors, name="auditor", scopes=AUDITOR)


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
