"""Who is meant, by all the names under which records may have them.

A log that keeps everything has a person's own id; one that is hashed has a keyed hash of it. The
configuration may have changed in between, so both are looked for. Where only a pseudonym is known,
as from a proof, each name that is met is compared by its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any

from pydantic_core import from_json, to_json

from online_learner.ids import Keyring
from online_learner.inputs import Inputs
from online_learner.interpret import ERASED
from online_learner.store import Fields

KNOWN = 1 << 16  # names whose pseudonyms are remembered while records are read
HUMAN, SESSION, ANSWER = "human:", "session:", "prediction:"


class Person:
    """One person in the records of one model.

    Parameters
    ----------
    pseudonyms
        What stands for their names in a proof.
    names
        Their names themselves, where they are known: then what cannot be theirs is passed over
        without being parsed.
    """

    def __init__(
        self, keyring: Keyring, model: str, pseudonyms: Iterable[str], names: Iterable[str] = ()
    ) -> None:
        self.model = model
        self.names = frozenset(names)
        self.pseudonyms = tuple(sorted(pseudonyms))
        self._pseudonym = lru_cache(KNOWN)(partial(pseudonym, keyring, model))
        self._needles = tuple(to_json(name)[1:-1] for name in self.names)

    @classmethod
    def named(cls, keyring: Keyring, model: str, user: str) -> Person:
        """Return the person with this user id."""
        hashed = Inputs("hashed", partial(keyring.pseudonym, model.encode())).name(user)
        names = [user, str(hashed)]
        return cls(keyring, model, {pseudonym(keyring, model, name) for name in names}, names)

    @property
    def sources(self) -> frozenset[str]:
        """What signals name as their source where this person spoke with a key."""
        return frozenset(f"{HUMAN}{name}" for name in self.names)

    def is_named(self, name: Any) -> bool:
        """Tell whether a name in a record is theirs."""
        if not isinstance(name, str):
            return False
        return name in self.names if self.names else self._pseudonym(name) in self.pseudonyms

    def speaks(self, source: str) -> bool:
        """Tell whether a source of feedback is this person."""
        return source.startswith(HUMAN) and self.is_named(source.removeprefix(HUMAN))

    def may_be_in(self, record: bytes) -> bool:
        """Tell whether their name may be in a packed record; False is certain."""
        return not self._needles or any(needle in record for needle in self._needles)


def pseudonym(keyring: Keyring, model: str, name: str) -> str:
    """Return what stands for a name in a proof: a keyed hash, and no name follows from it."""
    return keyring.pseudonym(b"erased", model.encode(), name.encode()).hex()


def parsed(record: bytes) -> dict[str, Any]:
    """Return a packed record as plain JSON; empty where it is none, since it is not ours."""
    try:
        found = from_json(record)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_erased(fields: Fields) -> bool:
    """Tell whether nothing is kept of an entry but its place."""
    return ERASED in fields
