"""Weights as they answer, and which rows they have learned: scores on these say little."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from online_learner.dataset.reading import tables
from online_learner.dataset.versions import Versions
from online_learner.errors import DataError
from online_learner.ids import entry_order
from online_learner.registry import Registry
from online_learner.schema import Aliases

LATE = "L"  # before the entry of a signal that went on file alone
NOTHING = "0-0"


@dataclass(frozen=True, slots=True)
class Kept:
    """Weights as they are kept.

    Parameters
    ----------
    heard
        By stream, the last signal that they may have learned.
    """

    version: int
    blob: bytes
    heard: Mapping[str, str] = field(default_factory=dict)


async def answering(registry: Registry, aliases: Aliases, versions: Versions) -> Kept:
    """Return what answers now: the champion, or the step of the learner that stands for it.

    Raises
    ------
    StateError
        It was damaged, or its weights are gone.
    """
    number = aliases.champion
    if aliases.following:
        step = await (registry.pinned() if aliases.pinned else registry.checkpoint())
        if step is not None and step[0].lineage == aliases.lineage:
            return Kept(number, step[1], {"feedback": step[0].offset})
    return await kept(registry, number, versions)


async def kept(registry: Registry, number: int, versions: Versions) -> Kept:
    """Return a version; one that was trained anew has heard what its dataset looked at.

    Raises
    ------
    NotFound
        There is no such version.
    StateError
        It was damaged, or its weights are gone.
    """
    meta, blob, _ = await registry.whole(number)
    heard: Mapping[str, str] = {"feedback": meta.offset}
    if meta.trained is not None:
        try:
            manifest = await asyncio.to_thread(versions.read, meta.trained.dataset)
        except DataError:  # it was removed
            return Kept(number, blob)
        heard = manifest.watermarks
    return Kept(number, blob, heard)


def learned_rows(one: Kept, versions: Versions, name: str, split: str) -> int:
    """Return of how many rows of a dataset the weights may have learned the very signals."""
    marks = {stream: entry_order(one.heard.get(stream, NOTHING)) for stream in ("feedback", "late")}
    count = 0
    for table in tables(versions, name, split, columns=["signal"]):
        for signal in table["signal"].to_pylist():
            late = signal.startswith(LATE)
            mark = marks["late" if late else "feedback"]
            count += entry_order(signal.removeprefix(LATE)) <= mark
    return count
