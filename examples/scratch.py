"""A loop on a store of its own, for the examples: both are gone afterwards."""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import yaml

from online_learner.loop import Loop
from online_learner.settings import Settings


@contextlib.asynccontextmanager
async def scratch_loop(config: str) -> AsyncIterator[Loop]:
    """Open a loop on a configuration, with the bundled store in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="example-", ignore_cleanup_errors=True) as folder:
        settings = Settings.parse(yaml.safe_load(config))
        scratch = {"store": "auto", "data_dir": Path(folder)}
        settings = settings.model_copy(update=scratch)
        async with await Loop.open(settings, rng=random.Random(1)) as loop:
            yield loop
