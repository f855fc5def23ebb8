"""The main way of the log on real Ray: said, on file, compiled, trained on, replayed, forgotten."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pandas as pd
import pytest
from test_stack import FEATURES, correct, predict, some_features
from the_stack import Stack, start, stop

pytestmark = pytest.mark.ray

Poll = Callable[..., Awaitable[None]]
MODEL, ADA = "spam", "ada-Zanzibarquux"
WINDOW_S = 8.0  # so that what was said is on file two seconds later
SPAM = {
    "task": "classification",
    "labels": [False, True],
    "learner": "examples.phishing:learner",
    "archive": "auto",
    "retrain": {"after_signals": 60, "least_rows": 20},
}


@pytest.fixture(scope="module")
def filed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run `up` with one model whose log goes on file."""
    running = start(tmp_path_factory.mktemp("filed"), "fast", {MODEL: SPAM}, window_s=WINDOW_S)
    yield running
    stop(running)


async def command(stack: Stack, *arguments: str, fails: bool = False) -> Any:
    """Run a command as an operator does, and return the JSON that it printed."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("online-learner")),
        *arguments,
        "--config",
        str(stack.data_dir.parent / "loop.yaml"),
        "--json",
        env={"PATH": "/usr/bin:/bin", "OL_URL": stack.url, "OL_API_KEY": stack.key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == int(fails), (out.decode(), errors.decode())
    return json.loads(out)


async def teach(http: httpx2.AsyncClient, rng: random.Random, user: str) -> tuple[str, str]:
    """Ask and correct; returns the ids of the answer and of what was said."""
    features = some_features(rng)
    answer = await predict(http, MODEL, features)
    right = features["https"] + features["ip_in_url"] > 0
    said = await correct(http, answer, right, user_id=user)
    return str(answer["prediction_id"]), str(said["feedback_id"])


def files(stack: Stack, stream: str) -> list[Path]:
    """Return the files of a stream in the archive."""
    return list((stack.data_dir / "archive" / f"model={MODEL}" / stream).rglob("*.parquet"))


async def compiled(stack: Stack) -> pd.DataFrame:
    """Compile a dataset, and return all rows of it."""
    found = await command(stack, "dataset", "compile", MODEL, "--format", "supervised")
    return pd.concat(pd.read_parquet(file) for file in Path(found["path"]).rglob("*.parquet"))


async def test_what_was_said_becomes_a_dataset_and_a_version_and_is_forgotten(
    filed: Stack, eventually: Poll
) -> None:
    """From answers to a candidate that is trained on them; replayed, taken back, and erased."""
    rng = random.Random(8)
    async with filed.client() as http:

        async def get(path: str) -> Any:
            return (await http.get(path)).raise_for_status().json()

        first, _ = await teach(http, rng, "eve")
        begun = time.monotonic()
        for n in range(79):
            await teach(http, rng, ADA if n % 10 == 0 else f"user-{n % 7}")
        await eventually(lambda: time.monotonic() - begun > WINDOW_S + 1, within_s=30.0)
        late = await correct(http, {"prediction_id": first}, False, user_id="late-riser")
        assert late["status"] == "archived_only"
        assert [s["status"] for s in (await get(f"/v1/predictions/{first}"))["feedback"]] == [
            "learned",
            "archived_only",
        ]
        await eventually(lambda: files(filed, "feedback") and files(filed, "late"), within_s=30.0)

        async def trained() -> Any:
            versions = await get(f"/v1/models/{MODEL}/versions")
            return [one for one in versions["versions"] if one["trained"] is not None]

        await eventually(trained, within_s=60.0)
        [version] = await trained()
        assert "signals have come" in version["trained"]["because"]
        shown = await command(filed, "dataset", "show", MODEL, version["trained"]["dataset"])
        assert shown["counts"]["rows"] >= SPAM["retrain"]["after_signals"]  # type: ignore[index]

        rows = await compiled(filed)
        assert len(rows) == 81
        assert {f"human:{ADA}", "human:late-riser"} <= set(rows["source"])
        replayed = await command(filed, "replay", MODEL)
        assert (replayed["differs"], replayed["signals"]) == (None, 80)

        _, gone = await teach(http, rng, "eve")
        await http.delete(f"/v1/feedback/{gone}")

        async def unlearned() -> bool:
            return "unlearned_by" in await get(f"/v1/feedback/{gone}")

        await eventually(unlearned, within_s=30.0)
        receipt = await get(f"/v1/feedback/{gone}")
        # Made a moment ago, the version that was trained may hold it, as far as clocks can tell.
        assert (receipt["status"], receipt["unlearned"]) == ("retracted", "impossible")
        assert f"version {version['version']} may hold it" in receipt["unlearned_why"]
        erased = await command(filed, "erase", "--user", ADA, "--drop-datasets")
        assert erased[MODEL]["erased"]["feedback"] == 8
        assert erased[MODEL]["unlearned"] == "done"
        assert erased[MODEL]["removed"]
        assert await command(filed, "erase", "--user", ADA, "--check") == {"found": {}}
        replayed = await command(filed, "replay", MODEL)
        assert (replayed["differs"], replayed["forgotten"]) == (None, 9)
        rows = await compiled(filed)
        assert (len(rows), ADA in rows.to_csv()) == (73, False)
        await predict(http, MODEL, FEATURES)
        found = await command(filed, "verdicts", MODEL, "--recheck")
        assert found["wrong"] == []
