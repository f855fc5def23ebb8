"""The keys that are let in, held in memory so that a request costs no round trip."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from online_learner.auth.credential import Credential
from online_learner.auth.records import fetch, parse
from online_learner.auth.tokens import digest, is_mistyped
from online_learner.errors import Unauthorized
from online_learner.store import Store

_MISTYPED = "this key is mistyped: its checksum is wrong. Copy it once more, the whole of it."
_UNKNOWN = (
    "send a key as 'Authorization: Bearer ol_...'. `online-learner up` prints one, and takes one "
    "from OL_API_KEY; `online-learner keys create` makes more."
)
_ENDED = {
    "expired": "this key has expired: `online-learner keys rotate` puts another in its place",
    "revoked": "this key was revoked: ask whoever runs the service for another",
}


@dataclass(slots=True)
class Keychain:
    """The keys of the store, as they were a moment ago.

    The lookup is by SHA-256, so that its timing tells nothing about a key. Where the store is away,
    what is known goes on to hold; keys expire all the same.
    """

    clock: Callable[[], float] = time.time
    _read: Any = None
    _known: dict[str, Credential] = field(default_factory=dict)

    async def refresh(self, store: Store) -> None:
        """Read the keys from the store."""
        found = await fetch(store)
        if found != self._read:  # it is asked for often, and seldom changes
            self._known = {key.digest: key for key in parse(found)}
            self._read = found

    def open(self, header: str | None) -> Credential:
        """Return who an `Authorization` header stands for; raises `Unauthorized`."""
        scheme, _, key = (header or "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized(_UNKNOWN)
        key = key.strip()
        credential = self.find(digest(key))
        if credential is None:
            raise Unauthorized(_MISTYPED if is_mistyped(key) else _UNKNOWN)
        return credential

    def find(self, wanted: str) -> Credential | None:
        """Return who holds the key of a digest, None where nobody does.

        Raises
        ------
        Unauthorized
            The key was good once; says what ended it.
        """
        credential = self._known.get(wanted)
        if credential is None or not hmac.compare_digest(credential.digest, wanted):
            return None
        standing = credential.standing(self.clock())
        if standing != "live":
            raise Unauthorized(_ENDED[standing])
        return credential
