"""Trained anew on a drifted stream: the candidate is promoted, and one of shuffled labels is not.

The rows lie on both sides of a plane. Weights that have learned it answer, and nobody cuts a
snapshot; then the plane turns. A job on the log makes a candidate, and the real gate decides about
it. The same job on the same dataset with its labels shuffled is the counterpart.

There are many features, so that a plane learned from noise, which has any direction, is as good as
tossing a coin. With two, one in five is better by chance than the stale weights, and is promoted
for that.
"""

from __future__ import annotations

import asyncio
import math
import pickle
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from river import linear_model, preprocessing

from benchmarks import models, report
from benchmarks.report import Bar
from benchmarks.sections import Found
from online_learner.archive.place import Place
from online_learner.bring import bring
from online_learner.dataset.columns import schema_of
from online_learner.dataset.manifest import Manifest
from online_learner.dataset.reading import tables
from online_learner.dataset.versions import Draft, Versions
from online_learner.explain.models import verdicts
from online_learner.loop import Loop
from online_learner.retrain.job import Request, retrain
from online_learner.retrain.records import Job
from online_learner.schema import Version
from online_learner.settings import Settings
from online_learner.store import open_store

MODEL = "plane"
LEARNED, BEFORE, AFTER, MOST = 1000, 800, 1600, 3000  # rows of each part of the stream
BLOCK = 50
FEATURES = 24  # of which two tell something
TURN = math.radians(45)
NOISE = 0.05
RATERS = 40
SEARCH = {"optimizer__lr": [0.03, 0.1], "l2": [0.0, 0.001]}
LEARNER = "river:preprocessing.StandardScaler | linear_model.LogisticRegression"

Row = tuple[dict[str, float], bool]


@dataclass(slots=True)
class Outcome:
    """What came of one job."""

    job: Job
    version: Version
    action: str  # the verdict on its candidate
    labels: int  # audited ones, until then
    stale: float  # accuracy of who answered before and after the turn, and after the verdict
    before: float
    after: float | None = None
    lineage: bool = False  # whether the version tells dataset, job and parent
    took_s: float = 0.0


def section(full: bool) -> Found:
    """Run both jobs with several seeds, and print."""
    seeds = range(20 if full else 5)
    honest = [run(seed, shuffled=False) for seed in seeds]
    shuffled = [run(seed, shuffled=True) for seed in seeds]
    rows = [_line("as it is", honest), _line("labels shuffled", shuffled)]
    head = ("dataset", "jobs", "promoted", "rejected", "labels", "held out", "served", "then", "s")
    promoted = sum(one.action == "promote" for one in honest) / len(honest)
    rejected = sum(one.action == "reject" for one in shuffled) / len(shuffled)
    told = sum(one.lineage for one in honest) / len(honest)
    bars = [
        Bar("candidates of the job promoted", 100 * promoted, 100, " %"),
        Bar("candidates of shuffled labels rejected", 100 * rejected, 100, " %"),
        Bar("versions that tell dataset, job and parent", 100 * told, 100, " %"),
    ]
    text = (
        f"{report.table(head, rows)}\n\nMedians. `labels` are audits until the verdict, `held out` "
        "the accuracy on the rows that chose the configuration, `served` that of who answered "
        "after the turn, in percent, and `then` that of the promoted version. The job takes "
        "`s` seconds: it compiles the log, and trains and scores five configurations."
    )
    return text, bars


def _line(name: str, found: list[Outcome]) -> list[str]:
    then = [one.after for one in found if one.after is not None]
    actions = [one.action for one in found]
    held = [one.job.tried[one.job.chosen or 0].scores["accuracy"] for one in found]
    return [
        name,
        str(len(found)),
        str(actions.count("promote")),
        str(actions.count("reject")),
        f"{median(one.labels for one in found):.0f}",
        f"{100 * median(held):.1f}",
        f"{100 * median(one.stale for one in found):.1f}",
        f"{100 * median(then):.1f}" if then else "-",
        f"{median(one.took_s for one in found):.1f}",
    ]


def run(seed: int, *, shuffled: bool) -> Outcome:
    """Run one stream with one job, and return what the gate made of its candidate."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        return asyncio.run(_run(seed, Path(folder), shuffled=shuffled))


async def _run(seed: int, folder: Path, *, shuffled: bool) -> Outcome:
    async with await open_store("auto", data_dir=folder) as store:
        await store.call("CONFIG", "SET", "appendonly", "no")  # nothing has to outlive the run
        spec = models.spec() | {"learner": LEARNER, "archive": str(folder / "data")}
        spec |= {"promotion": {"policy": "policies.promotion:Sequential", "snapshot_every": 10**9}}
        settings = Settings.parse({"store": store.url, "data_dir": folder, "models": {MODEL: spec}})
        async with await Loop.open(settings, rng=random.Random(seed)) as loop:
            return await _Walk(loop, random.Random(seed)).through(shuffled=shuffled)


@dataclass(slots=True)
class _Walk:
    """A walk along one stream."""

    loop: Loop
    rng: random.Random
    angle: float = 0.0
    right: list[bool] = field(default_factory=list)

    async def through(self, *, shuffled: bool) -> Outcome:
        stages = self.loop.stages(MODEL)
        await self._start()
        await self._answer(BEFORE)
        before = float(np.mean(self.right))
        self.angle = TURN
        await self._answer(AFTER)
        stale = float(np.mean(self.right[BEFORE:]))
        began = time.monotonic()
        job = await retrain(stages, Request(search=SEARCH, dry_run=shuffled))
        took_s = time.monotonic() - began
        if shuffled:
            other = shuffle(_datasets(self.loop), job.dataset, self.rng.randrange(1 << 30))
            job = await retrain(stages, Request(search=SEARCH, dataset=other.id))
        assert job.version is not None, job.why
        action, labels = await self._verdict(job.version)
        version = await stages.registry.version(job.version)
        after = await self._afterwards() if action == "promote" else None
        told = version.trained
        lineage = told is not None and (told.dataset, told.job) == (job.dataset, job.id)
        lineage = lineage and told is not None and told.parent == job.parent == 1
        return Outcome(job, version, action, labels, stale, before, after, lineage, took_s)

    async def _start(self) -> None:
        """Register weights that have learned the plane as it is."""
        model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
        for x, y in self._rows(LEARNED):
            model.learn_one(x, y)
        stages = self.loop.stages(MODEL)
        blob, now = pickle.dumps(model), time.time()
        await bring(stages.registry, stages.learner, blob, by="key:bench", now=now)
        await self.loop.turn(MODEL)

    def _rows(self, count: int) -> Iterator[Row]:
        for _ in range(count):
            row = {f"x{n}": self.rng.gauss(0, 1) for n in range(FEATURES)}
            above = row["x0"] * math.cos(self.angle) + row["x1"] * math.sin(self.angle) > 0
            yield row, above != (self.rng.random() < NOISE)

    async def _answer(self, count: int) -> None:
        """Answer some rows, have all of them corrected, and take a turn now and then."""
        rows = list(self._rows(count))
        for start in range(0, count, BLOCK):
            await asyncio.gather(*(self._one(x, y) for x, y in rows[start : start + BLOCK]))
            await self.loop.turn(MODEL)

    async def _one(self, x: dict[str, float], y: bool) -> None:
        answer = await self.loop.predict(MODEL, x)
        self.right.append(answer["output"] == y)
        user = f"rater {self.rng.randrange(RATERS)}"
        await self.loop.feedback(answer["prediction_id"], "correction", y, user_id=user)

    async def _verdict(self, version: int) -> tuple[str, int]:
        """Answer until the gate has decided about a version; returns how, and after how many."""
        registry = self.loop.stages(MODEL).registry
        for told in range(0, MOST, BLOCK):
            for verdict in await verdicts(registry, count=20):
                if verdict["version"] == version and verdict["action"] in ("promote", "reject"):
                    return verdict["action"], told
            await self._answer(BLOCK)
        return "none", MOST

    async def _afterwards(self) -> float:
        known = len(self.right)
        await self._answer(500)
        return float(np.mean(self.right[known:]))


def _datasets(loop: Loop) -> Place:
    where = loop.settings.model(MODEL).archive
    assert where is not None
    return Place.open(where).at("datasets", MODEL)


def shuffle(datasets: Place, name: str, seed: int) -> Manifest:
    """Write another version of a dataset, in which each split's labels are in another order."""
    versions, draft = Versions(datasets), Draft(datasets)
    known = versions.get(name)
    schema, files = schema_of(known.columns), []
    rng = np.random.default_rng(seed)
    for split in known.splits:
        whole = pa.concat_tables(tables(versions, known.id, split))
        place = whole.schema.get_field_index("target")
        mixed = whole["target"].take(pa.array(rng.permutation(whole.num_rows)))
        sink = draft.sink(split, schema, known.query.file_format)
        sink.write(whole.set_column(place, schema.field("target"), mixed))
        files += sink.close()
    update: dict[str, Any] = {"id": "", "parents": [known.id], "files": files}
    return draft.publish(known.model_copy(update=update))
