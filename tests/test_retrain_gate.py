"""The gate decides about what was trained anew: on evidence, and on nothing else."""

from __future__ import annotations

import asyncio
import math
import pickle
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from river import linear_model, preprocessing
from the_rows import write_version

from online_learner.archive.place import Place
from online_learner.bring import bring
from online_learner.dataset.query import Query
from online_learner.explain.models import verdicts
from online_learner.loop import Loop
from online_learner.retrain.job import Request, retrain
from online_learner.settings import Settings

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

BLOCK, MOST = 50, 2500
TURNED = math.radians(45)
FEATURES = 24  # of which two tell something: a plane learned from noise is as good as a coin


@dataclass
class Plane:
    """Rows on both sides of a plane that turns, and a model that has learned where it was."""

    loop: Loop
    rng: random.Random
    angle: float = 0.0

    def rows(self, count: int) -> Iterator[tuple[dict[str, float], bool]]:
        """Yield rows, one in twenty of which is mislabelled."""
        for _ in range(count):
            row = {f"x{n}": self.rng.gauss(0, 1) for n in range(FEATURES)}
            above = row["x0"] * math.cos(self.angle) + row["x1"] * math.sin(self.angle) > 0
            yield row, above != (self.rng.random() < 0.05)

    async def start(self) -> None:
        """Register weights that have learned the plane as it is."""
        model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
        for x, y in self.rows(1000):
            model.learn_one(x, y)
        stages = self.loop.stages("web")
        blob, now = pickle.dumps(model), stages.clock()
        await bring(stages.registry, stages.learner, blob, by="key:ada", now=now)
        await self.loop.turn("web")

    async def answer(self, count: int) -> None:
        """Answer rows, and have each of them corrected."""
        rows = list(self.rows(count))
        for start in range(0, count, BLOCK):
            await asyncio.gather(*(self._one(x, y) for x, y in rows[start : start + BLOCK]))
            await self.loop.turn("web")

    async def _one(self, x: dict[str, float], y: bool) -> None:
        answer = await self.loop.predict("web", x)
        user = f"rater {self.rng.randrange(40)}"
        await self.loop.feedback(answer["prediction_id"], "correction", y, user_id=user)

    async def verdict(self, version: int) -> dict[str, Any] | None:
        """Answer until the gate has decided about a version."""
        for _ in range(0, MOST, BLOCK):
            for verdict in await verdicts(self.loop.stages("web").registry, count=20):
                decided = verdict["action"] in ("promote", "reject")
                if decided and verdict["version"] == version:
                    return verdict
            await self.answer(BLOCK)
        return None


@pytest.fixture
async def plane(open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path) -> Plane:
    """Return the plane after it has turned: the champion is stale, and no snapshot is cut."""
    policy = {"policy": "policies.promotion:Sequential", "snapshot_every": 10**9, "patience": 400}
    learner = "river:preprocessing.StandardScaler | linear_model.LogisticRegression"
    changes = {"archive": str(tmp_path), "learner": learner, "promotion": policy}
    found = Plane(await open_loop(make_settings(web=changes)), random.Random(1))
    await found.start()
    await found.answer(300)
    found.angle = TURNED
    await found.answer(700)
    return found


async def test_a_candidate_of_the_log_is_promoted_on_evidence(plane: Plane) -> None:
    """The world has moved: what was trained on the log beats who answers, and says its lineage."""
    stages = plane.loop.stages("web")
    job = await retrain(stages, Request(search={"optimizer__lr": [0.1]}, because="an alarm"))
    assert job.state == "done", job.why
    assert job.version is not None
    assert job.tried[job.chosen or 0].scores["accuracy"] > job.champion["accuracy"] + 0.1
    verdict = await plane.verdict(job.version)
    assert verdict is not None
    assert (verdict["action"], verdict["reference"]) == ("promote", 1)
    assert verdict["test"] is not None
    version = await stages.registry.version(job.version)
    assert (version.status, version.trained is not None) == ("blessed", True)
    assert version.trained is not None
    found = (version.trained.dataset, version.trained.job, version.trained.parent)
    assert found == (job.dataset, job.id, 1)
    answer = await plane.loop.predict("web", {"x0": 1.0, "x1": 1.0})
    assert answer["version"] == job.version


async def test_one_of_shuffled_labels_is_rejected(plane: Plane) -> None:
    """The same job, on rows whose labels say nothing, makes a candidate that does not win."""
    stages = plane.loop.stages("web")
    rows = [{"features": x, "target": y} for x, y in plane.rows(1000)]
    labels = [row["target"] for row in rows]
    plane.rng.shuffle(labels)
    rows = [{**row, "target": label} for row, label in zip(rows, labels, strict=True)]
    where = stages.spec.archive
    assert where is not None
    place = Place.open(where).at("datasets", "web")
    splits = {"train": rows[:800], "validation": rows[800:]}
    found = write_version(place, Query(model="web", format="supervised"), splits, pa.bool_())
    job = await retrain(stages, Request(dataset=found.id, search={"optimizer__lr": [0.1]}))
    assert job.state == "done", job.why
    assert job.version is not None
    verdict = await plane.verdict(job.version)
    assert verdict is not None
    assert verdict["action"] == "reject"
    assert (await stages.registry.version(job.version)).status == "rejected"
    assert (await plane.loop.predict("web", {"x0": 1.0, "x1": 1.0}))["version"] == 1
