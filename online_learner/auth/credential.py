"""What is known of a key: whose it is, what it may do, and how long."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias, get_args

from online_learner.errors import Forbidden

Scope: TypeAlias = Literal["predict", "feedback", "label", "audit", "system", "read", "operate"]
Standing: TypeAlias = Literal["live", "expired", "revoked"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
OWN: tuple[Scope, ...] = tuple(scope for scope in SCOPES if scope != "audit")
AUDITOR: tuple[Scope, ...] = ("feedback", "label", "audit", "read")

_ID_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Credential:
    """Who a key stands for, and what it may do.

    Parameters
    ----------
    digest
        The SHA-256 of the key, in hex.
    name
        The holder. Idempotency keys are theirs: a key that takes the place of another has the name
        of the other, so that what is sent again after the change is still a duplicate.
    created_at, expires_at, revoked_at
        Seconds since the epoch; no `expires_at` is no end.
    replaced_by
        The id of the key that took its place; it ends soon.
    given
        It comes from the environment, or from the data directory, and not from `keys create`.
    """

    digest: str
    name: str
    scopes: frozenset[str]
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None
    replaced_by: str | None = None
    given: bool = False

    @property
    def id(self) -> str:
        """What the key is called in public; the key does not follow from it."""
        return self.digest[:_ID_LENGTH]

    def standing(self, now: float) -> Standing:
        """Tell whether the key is good at a time, in seconds since the epoch."""
        if self.revoked_at is not None:
            return "revoked"
        return "live" if self.expires_at is None or now < self.expires_at else "expired"

    def require(self, scope: Scope) -> None:
        """Raise `Forbidden` unless the key carries the scope."""
        if scope not in self.scopes:
            raise Forbidden(
                f"this needs a key with scope '{scope}'; this one has "
                f"{', '.join(sorted(self.scopes))}"
            )

    def dump(self) -> str:
        """Return the record, as it is stored under the digest."""
        return json.dumps(
            {
                "id": self.id,
                "name": self.name,
                "scopes": sorted(self.scopes),
                "created_at": self.created_at,
                "expires_at": self.expires_at,
                "replaced_by": self.replaced_by,
                "given": self.given,
            }
        )

    @classmethod
    def read(cls, digest: bytes, record: bytes, revoked_at: bytes | None) -> Self:
        """Return what a record says."""
        item = json.loads(record)
        return cls(
            digest.decode(),
            item["name"],
            frozenset(item["scopes"]),
            created_at=item.get("created_at", 0.0),
            expires_at=item.get("expires_at"),
            revoked_at=None if revoked_at is None else float(revoked_at),
            replaced_by=item.get("replaced_by"),
            given=item.get("given", False),
        )
