"""Datasets that were compiled before: which of them still have something of a person."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from online_learner.forget import proof
from online_learner.forget.person import Person
from online_learner.forget.retract import LATE
from online_learner.registry import Registry


class Datasets(Protocol):
    """The versions of datasets of one model."""

    def holding(self, signals: set[str]) -> Sequence[str]:
        """Return the versions that hold any of these signals, as rows name them."""

    def naming(self, names: Collection[str]) -> Sequence[str]:
        """Return the versions whose filter has one of these names."""

    def remove(self, version: str) -> None:
        """Remove a version."""


async def erased_before(
    registry: Registry, earlier: Iterable[proof.Kept]
) -> tuple[set[str], set[str]]:
    """Return the signals that earlier runs have erased: those learned, and those on file."""
    signals, late = set[str](), set[str]()
    for kept in earlier:
        signals |= await proof.signals_of(registry, kept.proof)
        late |= set(kept.proof.late)
    return signals, late


async def versions_with(
    datasets: Datasets | None, person: Person, signals: Collection[str], late: Collection[str]
) -> list[str]:
    """Return the versions that hold any of a person's signals, or have been filtered by a name.

    Parameters
    ----------
    late
        Entries of signals that only went on file.
    """
    if datasets is None:
        return []
    rows = {*signals, *(f"{LATE}{entry}" for entry in late)}
    found = [
        *await asyncio.to_thread(datasets.holding, rows),
        *await asyncio.to_thread(datasets.naming, person.names),
    ]
    return list(dict.fromkeys(found))
