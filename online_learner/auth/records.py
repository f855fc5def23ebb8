"""The keys in the store: made, listed, rotated, revoked.

A record lies under the SHA-256 of its key. What was revoked is noted apart and for good: whatever
else is written about a key, and by whom, it stays revoked.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from online_learner.auth.credential import OWN, Credential, Scope
from online_learner.auth.tokens import digest, new_key
from online_learner.errors import ConfigError, did_you_mean
from online_learner.store import Store
from online_learner.store.keys import AUTH, REVOKED

Records: TypeAlias = Sequence[dict[bytes, bytes]]

RESERVED = ("up", "local", "auditor", "OL_API_KEY")  # those who hold what the environment gives
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


async def fetch(store: Store) -> Records:
    """Return the records as they are stored, and what was revoked."""
    return [await store.hash(AUTH), await store.hash(REVOKED)]


def parse(records: Records) -> Iterator[Credential]:
    """Yield what `fetch` found."""
    known, revoked = records
    for key, record in known.items():
        yield Credential.read(key, record, revoked.get(key))


async def keys(store: Store) -> list[Credential]:
    """Return every key that was ever made, oldest first."""
    return sorted(parse(await fetch(store)), key=lambda key: (key.created_at, key.id))


async def allow(
    store: Store,
    key: str,
    *,
    name: str,
    scopes: Sequence[Scope] = OWN,
    expires_at: float | None = None,
    given: bool = False,
) -> Credential:
    """Let a key in; it may do everything but `audit`, where nothing else is said.

    What an application sends are the words of its users. An auditor's word weighs more: it is taken
    as drawn without bias, and no share caps it. So auditors have a key that nobody else holds.
    """
    made = Credential(
        digest(key), name, frozenset(scopes), time.time(), expires_at=expires_at, given=given
    )
    await _keep(store, made)
    return made


async def create(
    store: Store, *, name: str, scopes: Sequence[Scope], lasts_s: float | None = None
) -> tuple[str, Credential]:
    """Make a key for a new holder. Returns it, this once, and what is known of it.

    Raises
    ------
    ConfigError
        The name cannot be used, or a living key has it.
    """
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise ConfigError(
            "this name cannot be used: take 1 to 64 letters, digits, '.', '_' or '-', and none of "
            f"{', '.join(RESERVED)}"
        )
    now = time.time()
    for known in await keys(store):
        if known.name == name and known.standing(now) == "live":
            raise ConfigError(
                f"'{name}' holds a key already ({known.id}): idempotency keys are the holder's, so "
                f"no two may share a name. `keys rotate {known.id}` makes another for the same."
            )
    key = new_key()
    expires_at = None if lasts_s is None else now + lasts_s
    made = Credential(digest(key), name, frozenset(scopes), now, expires_at=expires_at)
    await _keep(store, made)
    return key, made


async def rotate(store: Store, key_id: str, *, grace_s: float) -> tuple[str, Credential]:
    """Make a key that takes the place of another, which ends after the grace, in seconds.

    The new one has the holder's name and scopes, and lasts as long as the old one was made for.

    Raises
    ------
    ConfigError
        There is no such key, it was revoked or rotated before, or it is given from outside.
    """
    old = await _find(store, key_id)
    now = time.time()
    _check_rotation(old)
    lasts_s = None if old.expires_at is None else old.expires_at - old.created_at
    expires_at = None if lasts_s is None else now + lasts_s
    key = new_key()
    made = replace(old, digest=digest(key), created_at=now, expires_at=expires_at)
    ends_at = now + grace_s if old.expires_at is None else min(now + grace_s, old.expires_at)
    ended = replace(old, expires_at=ends_at, replaced_by=made.id)
    await _keep(store, made, ended)
    return key, made


def _check_rotation(old: Credential) -> None:
    if old.given:
        raise ConfigError(
            f"{old.id} is given by the environment or the data directory: change it there"
        )
    if old.revoked_at is not None:
        raise ConfigError(f"{old.id} was revoked: `keys create` makes another")
    if old.replaced_by is not None:
        raise ConfigError(f"{old.id} was rotated already: {old.replaced_by} is in its place")


async def revoke(store: Store, key_id: str) -> Credential:
    """End a key for good; it is felt everywhere within a second. Raises `ConfigError`."""
    found = await _find(store, key_id)
    await store.essential("HSETNX", REVOKED, found.digest, str(time.time()))
    return found


async def _keep(store: Store, *made: Credential) -> None:
    """Write records, all of them or none."""
    pairs = [part for key in made for part in (key.digest, key.dump())]
    await store.essential("HSET", AUTH, *pairs)


async def _find(store: Store, key_id: str) -> Credential:
    known = {key.id: key for key in await keys(store)}
    if key_id not in known:
        hint = did_you_mean(key_id, known)
        raise ConfigError(f"there is no key of that id.{hint} See `online-learner keys list`.")
    return known[key_id]
