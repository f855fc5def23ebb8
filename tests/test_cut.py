"""A power cut, in short: the log ends where the disk had it. More is in `benchmarks.chaos.cut`."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.chaos import cut
from benchmarks.chaos.cut import Acknowledged, Outcome
from benchmarks.chaos.servers import ALWAYS, NEVER, Setup, built

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture(scope="module")
def library() -> Iterator[Path]:
    """Build what notes how much of a file is on disk."""
    with built() as path:
        yield path


async def cuts(setup: Setup, each: int, library: Path, *, kills: int = 0) -> list[Outcome]:
    """Cut a server off."""
    return await asyncio.to_thread(cut.cuts, setup, each, library, kills=kills)


async def test_what_is_told_to_be_synced_survives_a_power_cut(library: Path) -> None:
    """Five cuts, some inside a record: nothing that was acknowledged is gone."""
    found = await cuts(ALWAYS, 5, library)
    assert all(len(outcome.acknowledged) > 20 for outcome in found)
    assert {a.told for outcome in found for a in outcome.acknowledged} == {"fsynced"}
    assert [outcome.lost for outcome in found] == [[]] * 5


async def test_a_cut_takes_what_was_not_synced(library: Path) -> None:
    """The same cut, of a server that does not sync: it loses, and has said so."""
    found = await cuts(NEVER, 2, library, kills=1)
    assert {a.told for outcome in found for a in outcome.acknowledged} == {"os"}
    lost = {outcome.how: len(outcome.lost) for outcome in found}
    assert lost["kill"] == 0
    assert lost["cut"] > 0
    assert lost["torn"] > 0
    assert not any(outcome.broken for outcome in found)


def test_a_class_that_is_not_true_is_found_out() -> None:
    """What was told to be synced, and is lost, breaks the word; what was at risk does not."""
    lost = [Acknowledged("s", "1-1", told, at=1.0) for told in ("fsynced", "os", "none")]
    late = [Acknowledged("s", "2-1", told, at=9.0) for told in ("fsynced", "os", "none")]
    assert Outcome("cut", late, lost).broken == 1
    assert Outcome("torn", late, lost).broken == 1
    assert Outcome("kill", late, lost).broken == 2
    assert Outcome("kill", late, late).broken == 1, "what was held back for a sync may go"
