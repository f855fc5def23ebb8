"""A training job: from the log to a dataset, to fresh learners, to a candidate.

    job = await retrain(stages, Request())      # what `online-learner retrain` does

It reads the store and the archive alone, so that it runs beside the service, or without one. What
it makes is a candidate: whether it answers is for the promotion policy to decide, on evidence.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from online_learner.archive.place import Place
from online_learner.bring import Brought, bring_trained
from online_learner.dataset.compiling import compile_dataset
from online_learner.dataset.lessons import FORMATS, check_format
from online_learner.dataset.manifest import Manifest
from online_learner.dataset.query import Query, SplitBy
from online_learner.dataset.reading import has
from online_learner.dataset.running import Here as RunHere
from online_learner.dataset.running import Runner
from online_learner.dataset.versions import Versions
from online_learner.errors import (
    ConfigError,
    Conflict,
    DataError,
    NotFound,
    OnlineLearnerError,
    StateError,
    Unavailable,
)
from online_learner.evaluate.answering import answering, learned_rows
from online_learner.evaluate.measures import PRIMARY, better
from online_learner.learners import Learner, Ranker
from online_learner.learners.factory import make_learner
from online_learner.learners.state import unpack_state
from online_learner.retrain.fitting import TRAIN, VALIDATION, Fits, Fitted, Here, Work, constant
from online_learner.retrain.records import Job, Tried, late_signals, locked
from online_learner.retrain.search import Configuration, configurations, make, state_for
from online_learner.schema import Trained
from online_learner.settings import ModelSpec
from online_learner.stages import Stages, data_place

ID_BYTES = 5

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted of a job.

    Parameters
    ----------
    dataset
        The version to train on, or how its id begins, or `latest`; None: what the log holds now.
    search
        Values to try by argument; None: as the configuration says.
    split_by, since, until, where
        Of the dataset that is compiled; see `dataset.query`.
    because, by
        Why it is done, and who wants it.
    dry_run
        Train and score, and hand nothing over; no record is kept.
    """

    dataset: str | None = None
    search: Mapping[str, Sequence[Any]] | None = None
    split_by: SplitBy = "time"
    since: float | None = None
    until: float | None = None
    where: str | None = None
    because: str = "by hand"
    by: str = ""
    dry_run: bool = False


async def retrain(
    stages: Stages,
    request: Request,
    *,
    fits: Fits | None = None,
    runner: Runner | None = None,
    told: Told = lambda _: None,
) -> Job:
    """Train fresh learners on a dataset, and hand the best to the gatekeeper as a candidate.

    Parameters
    ----------
    fits, runner
        Where configurations are trained, and where the log is worked on; by default in this
        process.
    told
        Told in words how far it is.

    Returns
    -------
    The job as it is recorded: `done`, or `refused`, with why. The configured learner comes first,
    and wins where none is better than it.

    Raises
    ------
    ConfigError
        The search names what the learner does not have. No job was begun.
    Conflict
        Another job of this model is under way. No job was begun.
    """
    tries = configurations(stages.spec.on_cpu(), request.search)
    work = _Job(stages, request, tries, fits or Here(), runner or RunHere(), told)
    if request.dry_run:
        return await work.through(await work.begin())
    begun = await work.begin()
    async with locked(stages.registry, begun) as lock:
        try:
            done = await work.through(begun, lost=lambda: lock.lost)
        except BaseException as error:
            why = str(error) if isinstance(error, OnlineLearnerError) else type(error).__name__
            await lock.write("end", work.ended(work.so_far or begun, "refused", why=why))
            raise
        await lock.write("end", done)
        return done


async def refuse(stages: Stages, request: Request, why: str) -> Job:
    """Write down that a job could not be begun, so that it is not begun again at once.

    Raises
    ------
    Conflict
        Another job of this model is under way.
    """
    work = _Job(stages, request, (), Here(), RunHere(), lambda _: None)
    begun = await work.begin()
    async with locked(stages.registry, begun) as lock:
        job = work.ended(begun, "refused", why=why)
        await lock.write("end", job)
        return job


@dataclass(slots=True)
class _Job:
    stages: Stages
    request: Request
    tries: Sequence[Configuration]
    fits: Fits
    runner: Runner
    told: Told
    so_far: Job | None = field(default=None)

    async def begin(self) -> Job:
        registry = self.stages.registry
        aliases = await registry.aliases()
        if aliases is None:
            raise Unavailable(
                f"'{registry.model}' has no weights yet: start the service first", code="not_ready"
            )
        published = await registry.published()
        return Job(
            id=secrets.token_hex(ID_BYTES),
            because=self.request.because,
            by=self.request.by,
            parent=aliases.champion,
            learned=0 if published is None else published.learned,
            late=await late_signals(registry),
            started_at=self.stages.clock(),
        )

    def ended(self, job: Job, state: str, *, why: str = "") -> Job:
        return job.model_copy(update={"state": state, "why": why, "ended_at": self.stages.clock()})

    async def through(self, job: Job, *, lost: Callable[[], bool] = lambda: False) -> Job:
        """Do all of it; why nothing came of it is in the job that is returned."""
        self.so_far = job
        try:
            place = self._datasets()
            manifest = await self._dataset(place)
            rows = dict(manifest.splits)
            job = self.so_far = job.model_copy(update={"dataset": manifest.id, "rows": rows})
            self._check_rows(manifest)
            await self._check_taken_back(place, manifest)
            job, best = await self._train(job, place, manifest)
            if lost():
                raise Conflict("another job of this model has begun meanwhile; nothing was done")
            await self._check_taken_back(place, manifest)
            return self._done(job, await self._hand_over(job, best))
        except Unavailable:
            raise
        except OnlineLearnerError as error:
            return self.ended(self.so_far, "refused", why=str(error))

    # --- the dataset --------------------------------------------------------------------------

    def _datasets(self) -> Place:
        spec, registry = self.stages.spec, self.stages.registry
        place = data_place(spec, self.stages.data_dir)
        if place is None:
            raise ConfigError("datasets need a place: set `data_dir`, or the model's `archive`")
        return place.at("datasets", registry.model)

    async def _dataset(self, place: Place) -> Manifest:
        spec, request = self.stages.spec, self.request
        if request.dataset is not None:
            manifest = await asyncio.to_thread(Versions(place).get, request.dataset)
            check_format(spec, manifest.query.format)
            return manifest
        self.told("compiling a dataset")
        query = Query(
            model=self.stages.registry.model,
            format=FORMATS[spec.task],
            since=request.since,
            until=request.until,
            where=request.where,
            split_by=request.split_by,
            validation=spec.retrain.validation,
            seed=spec.seed,
        )
        return await compile_dataset(
            self.stages.log,
            spec,
            self.stages.keyring,
            query,
            datasets=place,
            runner=self.runner,
            now=self.stages.clock(),
        )

    def _check_rows(self, manifest: Manifest) -> None:
        least, there = self.stages.spec.retrain.least_rows, manifest.splits.get(TRAIN, 0)
        if there < least:
            raise DataError(
                f"the dataset has {there} rows to train on, and `retrain.least_rows` asks for "
                f"{least}: wait for more, or ask for less",
                code="empty",
            )
        if not manifest.splits.get(VALIDATION, 0):
            raise DataError(
                "the dataset holds out no rows to choose by: compile one with `--validation 0.2`",
                code="empty",
            )

    async def _check_taken_back(self, place: Place, manifest: Manifest) -> None:
        """Raise `DataError` where rows were taken back since: weights would bring them back."""
        registry = self.stages.registry
        gone = frozenset(
            name.decode() for name in await registry.store.hash(registry.keys.retracted)
        )
        if not gone:
            return
        held = await asyncio.to_thread(has, Versions(place), manifest.id, gone)
        if held:
            raise DataError(
                f"what the dataset {manifest.id} holds was taken back in part since it was "
                "compiled: train on what the log holds now",
                code="taken_back",
            )

    # --- training -----------------------------------------------------------------------------

    async def _train(self, job: Job, place: Place, manifest: Manifest) -> tuple[Job, Fitted]:
        """Train all configurations; returns the best, that has then learned what was held out."""
        base = Work(self.stages.spec, self.tries[0], place.url, manifest.id)
        works = [replace(base, configuration=one) for one in self.tries]
        champion, known = await self._champion(base)
        found = await self._fit([*works, *champion])
        tried, stands = found[: len(works)], found[len(works) :]
        update = {
            "tried": [_tried(one) for one in tried],
            "champion": stands[0].scores if stands else {},
            "champion_learned": known,
            "constant": await asyncio.to_thread(constant, base),
        }
        job = self.so_far = job.model_copy(update=update)
        chosen = self._best(tried)
        best = replace(works[chosen], state=tried[chosen].state, learn=(VALIDATION,), score=None)
        self.told("learning what was held out")
        [last] = await self.fits.all([best])
        if last.failed:
            raise DataError(last.failed, code="not_fillable")
        return job.model_copy(update={"chosen": chosen}), last

    async def _fit(self, works: Sequence[Work]) -> list[Fitted]:
        count = 0

        def done(fitted: Fitted) -> None:
            nonlocal count
            count += 1
            self.told(f"trained {count} of {len(works)}: {fitted.configuration.name}")

        self.told(f"training {len(works)} learners")
        return await self.fits.all(works, done)

    async def _champion(self, base: Work) -> tuple[list[Work], int]:
        """Return what scores who answers now, and how many of the rows that has learned.

        Where it cannot be loaded, nothing.
        """
        registry, versions = self.stages.registry, Versions(Place.open(base.datasets))
        aliases = await registry.aliases()
        if aliases is None:
            return [], 0
        try:
            now = await answering(registry, aliases, versions)
        except (StateError, NotFound):
            return [], 0
        known = await asyncio.to_thread(learned_rows, now, versions, base.dataset, VALIDATION)
        as_it_is = Configuration(epochs=1)
        return [replace(base, configuration=as_it_is, state=now.blob, learn=())], known

    def _best(self, tried: Sequence[Fitted]) -> int:
        task = self.stages.spec.task
        best: int | None = None
        for number, one in enumerate(tried):
            if one.failed or PRIMARY[task][0] not in one.scores:
                continue
            if best is None or better(task, one.scores, tried[best].scores):
                best = number
        if best is None:
            why = next((one.failed for one in tried if one.failed), "no row could be scored")
            raise DataError(f"no configuration has learned anything: {why}", code="not_fillable")
        return best

    # --- handing over -------------------------------------------------------------------------

    async def _hand_over(self, job: Job, best: Fitted) -> Brought:
        tried, spec = job.tried[cast("int", job.chosen)], self.stages.spec.on_cpu()
        learner = await asyncio.to_thread(_as_configured, spec, best)
        trained = Trained(
            dataset=job.dataset,
            job=job.id,
            parent=job.parent,
            configuration=tried.configuration,
            scores=tried.scores,
            because=job.because,
        )
        now, registry = self.stages.clock(), self.stages.registry
        return await bring_trained(
            registry, learner, trained, now=now, dry_run=self.request.dry_run
        )

    def _done(self, job: Job, taken: Brought) -> Job:
        update: dict[str, Any] = {"version": taken.version.version, "sentence": taken.sentence}
        return self.ended(job.model_copy(update=update), "done")


def _as_configured(spec: ModelSpec, best: Fitted) -> Learner | Ranker:
    """Return what was trained, as those who answer will read it."""
    like = make_learner(spec)
    made = unpack_state(best.state, make(spec, best.configuration))
    return unpack_state(state_for(made, like), like)


def _tried(one: Fitted) -> Tried:
    return Tried(
        configuration=one.configuration.told(),
        scores=one.scores,
        learned=one.learned,
        left_out=one.left_out,
        failed=one.failed,
        took_s=round(one.took_s, 3),
    )
