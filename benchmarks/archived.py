"""A process that learns, archives and trims, for `benchmarks.data.archiving` to kill.

Files are small, and nothing waits long, so that a kill meets it at every place.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from online_learner import retain
from online_learner.archive import archiver, files
from online_learner.errors import Fenced, Unavailable
from online_learner.ids import Keyring
from online_learner.loop import Loop
from online_learner.settings import Settings
from online_learner.store import open_store

WINDOW_S = 1.0


def settings(url: str, data_dir: str) -> Settings:
    """Return a model with an archive on a server."""
    web = {
        "task": "classification",
        "labels": [False, True],
        "learner": "river.linear_model:LogisticRegression",
        "audit": 0.2,
        "audit_deadline_s": 1.0,
        "publish_s": 0.1,
    }
    document = {
        "store": url,
        "data_dir": Path(data_dir),
        "window_s": WINDOW_S,
        "models": {"web": web},
    }
    return Settings.parse(document)


async def main(url: str, data_dir: str) -> None:
    """Work until it is killed."""
    archiver.MOST_ROWS, files.GROUP_ROWS = 500, 100
    archiver.EVERY_S = archiver.NIGHT_S = 0.05
    retain.MARGIN_S, retain.EVERY_S = 0.0, 0.1
    while True:
        with contextlib.suppress(Unavailable, Fenced):
            await _work(settings(url, data_dir))
        await asyncio.sleep(0.05)


async def _work(known: Settings) -> None:
    """Learn, and beside it archive and trim, until something fails."""
    async with await open_store(known.store) as store:
        loop = Loop(known, store, Keyring.load(known.data_dir))
        learning = asyncio.create_task(_learn(loop))
        try:
            await loop.tend("web")
            print("at work", flush=True)
            while not learning.done():
                await loop.tend("web")
                await asyncio.sleep(0.02)
        finally:
            while not learning.done():  # redis-py may swallow a cancellation
                learning.cancel()
                await asyncio.wait([learning], timeout=0.5)
            if not learning.cancelled():
                learning.result()


async def _learn(loop: Loop) -> None:
    while True:
        await loop.turn("web")
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
