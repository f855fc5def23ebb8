"""Backup and restore as the docs say: their own commands are run, and digests are equal after."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from the_service import unused_port

from online_learner.loop import Loop
from online_learner.settings import Settings
from online_learner.store.embedded import EmbeddedServer

PAGE = (Path(__file__).parent.parent / "docs" / "operating.md").read_text()
END = """
```sh
# end: it was started as a daemon
redis-cli -p "$PORT" shutdown nosave
```
"""
MODEL = {
    "task": "classification",
    "labels": [False, True],
    "learner": "river.linear_model:LogisticRegression",
}

pytestmark = pytest.mark.skipif(
    not (shutil.which("redis-cli") and shutil.which("redis-server")),
    reason="Debian's redis-cli and redis-server are not installed",
)


def do(name: str, cwd: Path, **variables: str) -> None:
    """Run the commands that the page gives under a name."""
    [block] = re.findall(rf"```sh\n# {name}:.*?\n(.*?)```", PAGE + END, re.DOTALL)
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=cwd,
        env=os.environ | variables,
        check=True,
        capture_output=True,
        timeout=30,
    )


def settings(data_dir: Path, store: str) -> Settings:
    """Return the settings of one model on a store."""
    return Settings.parse({"store": store, "data_dir": data_dir, "models": {"web": MODEL}})


async def teach(loop: Loop, count: int) -> str:
    """Give corrections, learn them, and return the digest of the weights."""
    rng = random.Random(count)
    for _ in range(count):
        features = {"a": rng.uniform(-1, 1)}
        answer = await loop.predict("web", features)
        await loop.feedback(answer["prediction_id"], "correction", features["a"] > 0)
    await loop.turn("web")
    return loop.stages("web").trainer.learner.digest()


async def same(data_dir: Path, store: str, digest: str, signals: int) -> None:
    """Check that a store holds all signals and the weights, and that a replay gives these."""
    async with await Loop.open(settings(data_dir, store)) as loop:
        stages = loop.stages("web")
        assert await loop.store.call("XLEN", stages.registry.keys.feedback) == signals
        assert stages.trainer.learner.digest() == digest
        await stages.trainer.rewind()
        for _ in range(int(await loop.store.call("XLEN", stages.registry.keys.steps))):
            await stages.trainer.replay_step()
        assert stages.trainer.learner.digest() == digest
        assert await teach(loop, 3) != digest


@pytest.fixture
def home() -> Iterator[Path]:
    """Return a folder whose path is short enough for the store's socket to be in it."""
    with tempfile.TemporaryDirectory(prefix="ol-backup-") as folder:
        yield Path(folder)


@pytest.fixture
async def running(home: Path, patient: None) -> AsyncIterator[EmbeddedServer]:
    """Run the bundled store where `up` has it."""
    server = EmbeddedServer.ensure(home / ".online_learner")
    yield server
    server.stop()


async def test_a_copy_of_the_log_is_a_backup(running: EmbeddedServer, home: Path) -> None:
    """Copied while it is in use, it holds all acknowledged before, and the same weights."""
    data_dir = home / ".online_learner"
    async with await Loop.open(settings(data_dir, running.url)) as loop:
        digest = await teach(loop, 30)
        do("backup", home)
        await teach(loop, 10)
    do("restore", home)
    restored = EmbeddedServer.ensure(home / "restored")
    try:
        await same(home / "restored", restored.url, digest, 30)
    finally:
        restored.stop()


async def test_a_snapshot_is_loaded_by_a_new_server(
    start_server: Callable[..., Any], tmp_path: Path, patient: None
) -> None:
    """Taken over the network, it gives the same weights, on a server that is durable after."""
    binary = str(shutil.which("redis-server"))
    server = start_server(binary, appendonly="yes", appendfsync="always")
    async with await Loop.open(settings(tmp_path, server.url)) as loop:
        digest = await teach(loop, 30)
    do("snapshot", tmp_path, REDIS_URL=server.url)
    port = str(unused_port())
    do("load", tmp_path, PORT=port)
    url = f"redis://127.0.0.1:{port}"
    try:
        async with await Loop.open(settings(tmp_path, url)) as loop:
            assert loop.store.health.durability == "fsynced"
        await same(tmp_path, url, digest, 30)
    finally:
        do("end", tmp_path, PORT=port)
