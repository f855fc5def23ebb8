"""One dataset compiled, in a process that does nothing else: what `benchmarks.data` measures.

    python -m benchmarks.compiled FOLDER WORKERS

Prints the manifest as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from online_learner.archive.place import Place
from online_learner.dataset.compiling import compile_dataset
from online_learner.dataset.query import Query
from online_learner.dataset.running import Here, Runner
from online_learner.ids import Keyring
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import Store, open_store
from serve_app.jobs.runner import RayRunner

LABELS = ["ham", "news", "spam"]
SPEC = {
    "task": "classification",
    "labels": LABELS,
    "learner": "river:naive_bayes.GaussianNB",
    "audit": 0.1,
}


def stages_of(store: Store, folder: Path) -> Stages:
    """Return the stages of the model whose log is in a folder."""
    settings = Settings.parse({"data_dir": folder, "models": {"web": SPEC}})
    keyring = Keyring.load(folder)
    return Stages(store, keyring, "web", settings.models["web"], data_dir=folder)


async def compile_once(folder: Path, workers: int) -> dict[str, Any]:
    """Compile the log of a folder, and return the manifest."""
    async with await open_store("auto", data_dir=folder) as store:
        stages = stages_of(store, folder)
        with tempfile.TemporaryDirectory(prefix="bench-") as out:
            query = Query(model="web", format="supervised", split_by="time", validation=0.2)

            async def work(runner: Runner) -> dict[str, Any]:
                manifest = await compile_dataset(
                    stages.log,
                    stages.spec,
                    stages.keyring,
                    query,
                    datasets=Place.open(out),
                    runner=runner,
                    now=time.time(),
                )
                return manifest.model_dump(mode="json")

            if not workers:
                return await work(Here())
            with RayRunner(workers) as runner:
                return await work(runner)


if __name__ == "__main__":
    found = asyncio.run(compile_once(Path(sys.argv[1]), int(sys.argv[2])))
    print(json.dumps(found), flush=True)
