"""Training by Ray: configurations side by side, and a job that the archivist begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from the_rows import signs, write_version

from online_learner import config
from online_learner.archive.place import Place
from online_learner.dataset.query import Query
from online_learner.learners.factory import make_learner
from online_learner.learners.state import unpack_state
from online_learner.loop import Loop
from online_learner.retrain.fitting import Fitted, Here, Work
from online_learner.retrain.records import jobs
from online_learner.retrain.search import configurations
from online_learner.settings import Settings
from serve_app.archivist import Work as Archiving
from serve_app.jobs.due import Retraining
from serve_app.jobs.retraining import RayFits
from serve_app.jobs.runner import RayRunner

pytestmark = pytest.mark.ray

PIPELINE = "river:preprocessing.StandardScaler | linear_model.LogisticRegression"


async def test_tasks_of_ray_train_the_same_and_the_archivist_begins_jobs(
    open_loop: Callable[..., Awaitable[Loop]],
    make_settings: Callable[..., Settings],
    eventually: Callable[..., Awaitable[None]],
    tmp_path: Path,
) -> None:
    """The weights are those that this process makes; a job that is due ends in a candidate."""
    changes: dict[str, Any] = {"archive": str(tmp_path), "learner": PIPELINE}
    changes |= {"retrain": {"after_signals": 200, "search": {"optimizer__lr": [0.1]}}}
    settings = make_settings(web=changes)
    loop = await open_loop(settings)
    stages, place = loop.stages("web"), Place.open(tmp_path).at("datasets", "web")
    rows = signs(400)
    splits = {"train": rows[:300], "validation": rows[300:]}
    found = write_version(place, Query(model="web", format="supervised"), splits, pa.bool_())
    tries = configurations(stages.spec)
    works = [Work(stages.spec, one, place.url, found.id) for one in tries]
    told: list[Fitted] = []
    with RayRunner(2) as runner:
        by_ray = await RayFits(runner).all(works, told.append)
        here = await Here().all(works)
        like = make_learner(stages.spec)
        for one, other in zip(by_ray, here, strict=True):
            assert (
                unpack_state(one.state, like).digest() == unpack_state(other.state, like).digest()
            )
            assert replace(one, state=b"", took_s=0.0) == replace(other, state=b"", took_s=0.0)
        assert len(told) == len(tries) == 2

        for row in signs(200):
            answer = await loop.predict("web", row["features"])
            await loop.feedback(answer["prediction_id"], "correction", row["target"])
        await loop.turn("web")
        await config.publish(loop.store, loop.keyring, settings)
        retraining = Retraining(settings.store, settings.data_dir)
        archiving = Archiving(settings.store, settings.data_dir, [retraining.trained])
        try:

            async def ended() -> bool:
                archiving.check()
                return any(job.ended_at for job in await jobs(stages.registry))

            await eventually(ended, within_s=120)
        finally:
            await archiving.stop()
    [job] = await jobs(stages.registry)
    assert job.state == "done", job.why
    assert job.because == "200 signals have come since the beginning"
    version = await stages.registry.version(job.version or 0)
    assert version.trained is not None
    assert (version.trained.job, version.trained.dataset) == (job.id, job.dataset)
