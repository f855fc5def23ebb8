"""By what name a label is kept where nothing may be kept of what users sent."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

from online_learner.ids import Keyring
from online_learner.schema import Label, label_key
from online_learner.settings import ModelSpec

NAME_CHARS = 12  # of a keyed hash
MOST = 4096  # names that are remembered, since the hash is the same for as long as the key is

Names: TypeAlias = Callable[[Label], str]


def label_names(spec: ModelSpec, keyring: Keyring, model: str) -> Names | None:
    """Return how labels are named; None for a model that does not answer with labels.

    A declared label goes by its own name. One that was learned is somebody's text: a keyed hash
    stands for it, the same for as long as the oldest signing key is kept.
    """
    if spec.task != "classification":
        return None
    declared = frozenset(map(label_key, spec.labels or ()))

    @lru_cache(MOST)
    def hashed(key: str) -> str:
        found = keyring.pseudonym(b"label", model.encode(), key.encode())
        return found.hex()[:NAME_CHARS]

    def name(label: Label) -> str:
        key = label_key(label)
        return key if key in declared else hashed(key)

    return name
