"""Begins training jobs when they are due, as tasks of the cluster.

What a job needs is imported where it runs, so that whoever looks on stays small.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from online_learner.retrain.due import due

if TYPE_CHECKING:
    from online_learner.retrain.records import Job
    from online_learner.stages import Stages

log = logging.getLogger(__name__)

REST_S = 60.0  # after a task that failed, before another is begun
CPUS = 0.5  # of a task that compiles, and then waits for those that train


class Retraining:
    """Begins the training jobs of one service when they are due; one at a time for each model.

    `await retraining.trained(stages)` is called again and again.

    Parameters
    ----------
    store_url, data_dir
        As the jobs are to open them.
    """

    def __init__(self, store_url: str, data_dir: Path) -> None:
        self._place = store_url, str(data_dir)
        self._begun: dict[str, Any] = {}  # by model, the task that was begun last
        self._rests: dict[str, float] = {}  # by model, until when none is begun

    async def trained(self, stages: Stages) -> object:
        """Begin a job where one is due; returns why, where it did."""
        model = stages.model
        if not self._is_free(model):
            return None
        because = await due(stages.registry, stages.spec, now=stages.clock())
        if because is None:
            return None
        log.info("'%s' is trained anew: %s", model, because)
        task = ray.remote(run_job).options(num_cpus=CPUS, max_retries=0)
        self._begun[model] = task.remote(*self._place, model, because)
        return because

    def _is_free(self, model: str) -> bool:
        """Tell whether no task of a model waits or runs; how one ended is said once."""
        reference = self._begun.get(model)
        if reference is None:
            return time.monotonic() >= self._rests.get(model, 0.0)
        ready, _ = ray.wait([reference], timeout=0)
        if not ready:
            return False
        del self._begun[model]
        try:
            job: Job = ray.get(reference)
        except Exception as error:  # whatever ended it; its record tells that it died
            log.error("a training job of '%s' failed: %s", model, type(error).__name__)  # noqa: TRY400
            self._rests[model] = time.monotonic() + REST_S
            return False
        log.info("the training job %s of '%s': %s", job.id, model, job.sentence or job.why)
        return True


def run_job(store_url: str, data_dir: str, model: str, because: str) -> Job:
    """Do one training job, in a process of its own."""
    from serve_app.jobs import retraining

    return retraining.run(store_url, data_dir, model, because)
