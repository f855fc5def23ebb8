"""Archiver and store are killed under load: every record is there, once."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from benchmarks.chaos.servers import built
from benchmarks.data import archiving
from online_learner import store as store_module

LOAD_S = 5.0
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


async def test_nothing_is_lost_or_twice_when_archiver_and_store_are_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was acknowledged is in the record, and the record has what the store was ever given."""
    monkeypatch.setattr(store_module, "TIMEOUT_S", 5.0)
    monkeypatch.setattr(archiving, "STORE_S", (1.0, 2.0))
    with tempfile.TemporaryDirectory(prefix="ol-") as folder, built() as library:
        text, bars = await archiving.measure(Path(folder), library, LOAD_S)
    assert all(bar.reached for bar in bars), text
    assert "\n\n0 kills" not in text, "the archiver was killed"
    assert " 0 of the store" not in text, "so was the store"
