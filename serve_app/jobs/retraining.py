"""Training by Ray: configurations side by side, and whole jobs.

A job is a task of the cluster. It compiles the dataset itself, and hands each configuration to a
task of its own; while it waits for those it takes no CPU.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from online_learner import config
from online_learner.dataset.running import Here
from online_learner.errors import ConfigError, OnlineLearnerError
from online_learner.ids import Keyring
from online_learner.retrain.fitting import Fitted, Work, fit
from online_learner.retrain.job import Request, refuse, retrain
from online_learner.retrain.records import Job
from online_learner.settings import ModelSpec
from online_learner.stages import Stages
from online_learner.store import open_store
from serve_app.jobs.runner import RayRunner

PATIENCE_S = 60.0  # for a store that does not answer when a job begins


class RayFits:
    """Trains each configuration in a task of Ray, on a GPU where the model asks for one.

    Where none is free, since the learner itself has it, say, they are trained without.

    Parameters
    ----------
    runner
        Starts a Ray where there is none; None: this process is in one.
    """

    def __init__(self, runner: RayRunner | None = None) -> None:
        self._runner = runner

    async def all(
        self, works: Sequence[Work], done: Callable[[Fitted], None] = lambda _: None
    ) -> list[Fitted]:
        """Return what came of each, in their order; those that have no room wait for it.

        Raises
        ------
        OnlineLearnerError
            What the work raises.
        """
        if self._runner is not None:
            await asyncio.to_thread(self._runner.start)
        gpus = await asyncio.to_thread(_gpus)
        return list(await asyncio.gather(*(_fitted(work, gpus, done) for work in works)))


async def _fitted(work: Work, gpus: float, done: Callable[[Fitted], None]) -> Fitted:
    reference = _submit(work, gpus)
    try:
        found: Fitted = await asyncio.wrap_future(reference.future())
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, OnlineLearnerError):
            raise cause from None
        raise
    except asyncio.CancelledError:
        ray.cancel(reference)
        raise
    done(found)
    return found


def _submit(work: Work, gpus: float) -> Any:
    wanted = work.spec.resources
    on_gpu = bool(wanted.num_gpus) and wanted.num_gpus <= gpus
    options: dict[str, Any] = {"num_cpus": 1, "max_retries": 2}
    options |= {"num_gpus": wanted.num_gpus} if on_gpu else {}
    sent = work if on_gpu else replace(work, spec=work.spec.on_cpu())
    return ray.remote(fit).options(**options).remote(sent)


def _gpus() -> float:
    """Return how many GPUs nobody has: whoever serves keeps its own for good."""
    return float(ray.available_resources().get("GPU", 0.0))  # type: ignore[no-untyped-call]


# --- whole jobs -------------------------------------------------------------------------------


def run(store_url: str, data_dir: str, model: str, because: str) -> Job:
    """Do one training job, in a task of the cluster."""
    return asyncio.run(_run(store_url, Path(data_dir), model, because))


async def _run(store_url: str, data_dir: Path, model: str, because: str) -> Job:
    opening = open_store(store_url, data_dir=data_dir, patience_s=PATIENCE_S)
    async with await opening as store:
        keyring = Keyring.load(data_dir)
        settings = await config.fetch(store, keyring)
        spec: ModelSpec = settings.model(model)
        stages = Stages(
            store,
            keyring,
            model,
            spec,
            window_s=settings.window_s,
            trains=False,
            data_dir=data_dir,
        )
        request = Request(because=because, by=f"the cluster, process {os.getpid()}")
        try:
            return await retrain(stages, request, fits=RayFits(), runner=Here())
        except ConfigError as error:
            return await refuse(stages, request, str(error))
