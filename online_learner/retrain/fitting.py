"""One configuration: a fresh learner learns rows in their order, and is scored on those held out.

It needs nothing but what is in its `Work`, so that it can be done in any process.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from online_learner.archive.place import Place
from online_learner.dataset.lessons import Reader, Row
from online_learner.dataset.reading import rows
from online_learner.dataset.versions import Versions
from online_learner.errors import OnlineLearnerError
from online_learner.evaluate.asking import Model, ask, batches, measure_for, take
from online_learner.evaluate.baselines import Constant
from online_learner.evaluate.measures import flat
from online_learner.learners.state import pack_state, unpack_state
from online_learner.retrain.search import Configuration, make
from online_learner.schema import Lesson
from online_learner.settings import ModelSpec

M = TypeVar("M", bound=Model)

TRAIN, VALIDATION = "train", "validation"
BATCHES_KEPT = 64  # after so many the state is taken down, to which a lesson that fails goes back
MOST_FAILED = 100  # lessons, before a configuration is given up


class CannotLearn(OnlineLearnerError):
    """A configuration cannot learn these rows."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done with one configuration.

    Parameters
    ----------
    spec
        The model, as it is configured.
    datasets, dataset
        The place of the model's datasets, and the version.
    state
        Where it begins, packed; None: fresh.
    learn, score
        Which splits are learned, in this order, and which one is scored, after that.
    """

    spec: ModelSpec
    configuration: Configuration
    datasets: str
    dataset: str
    state: bytes | None = None
    learn: tuple[str, ...] = (TRAIN,)
    score: str | None = VALIDATION


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of it.

    Parameters
    ----------
    state
        The weights, packed; empty where it failed.
    left_out
        Rows that were not learned, by reason.
    failed
        Why there are no weights.
    """

    configuration: Configuration
    state: bytes = b""
    scores: dict[str, float] = field(default_factory=dict)
    learned: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    failed: str = ""
    took_s: float = 0.0


class Fits(Protocol):
    """Does the work of several configurations, side by side where it can."""

    async def all(
        self, works: Sequence[Work], done: Callable[[Fitted], None] = ...
    ) -> list[Fitted]:
        """Return what came of each, in their order; `done` is told of each as it is."""


class Here:
    """Does the work in this process, one after the other."""

    async def all(
        self, works: Sequence[Work], done: Callable[[Fitted], None] = lambda _: None
    ) -> list[Fitted]:
        """Return what came of each, in their order."""
        found = []
        for work in works:
            here = replace(work, spec=work.spec.on_cpu())
            found.append(await asyncio.to_thread(fit, here))
            done(found[-1])
        return found


def fit(work: Work) -> Fitted:
    """Do the work. That a learner fails is told in `failed`; a damaged dataset raises.

    Raises
    ------
    DataError
        The dataset cannot be read.
    """
    started, reader = time.monotonic(), Reader.of(work.spec)
    pupil = Pupil(_begin(work), reader.left_out)
    try:
        for _ in range(work.configuration.epochs if work.learn else 0):
            reader.left_out.clear()
            for split in work.learn:
                taught = reader.lessons(read(work, split))
                for batch in batches(lesson for _, lesson in taught):
                    pupil.learn(batch)
        scores = {} if work.score is None else score(pupil.model, work, work.score)
    except CannotLearn as error:
        return Fitted(work.configuration, failed=str(error), took_s=time.monotonic() - started)
    return Fitted(
        work.configuration,
        state=pack_state(pupil.model),
        scores=scores,
        learned=pupil.learned,
        left_out=dict(reader.left_out),
        took_s=time.monotonic() - started,
    )


def _begin(work: Work) -> Model:
    made = make(work.spec, work.configuration)
    return made if work.state is None else unpack_state(work.state, made)


def read(work: Work, split: str) -> Iterator[Row]:
    """Yield the rows of a split, in order; they are verified as they are read."""
    return rows(Versions(Place.open(work.datasets)), work.dataset, split)


def score(model: Model, work: Work, split: str) -> dict[str, float]:
    """Return how good the answers to a split are, as plain numbers."""
    measure = measure_for(work.spec.task)
    for batch in batches(Reader.of(work.spec).lessons(read(work, split))):
        truths = [truth for _, truth in batch]
        for truth, given in zip(truths, ask(model, truths), strict=True):
            take(measure, truth, given)
    return flat(measure.report())


def constant(work: Work) -> dict[str, float]:
    """Return the scores of the answer that fits the rows to learn best, and heeds no feature.

    For pairs there is none: whoever heeds nothing is right in half of them.
    """
    task, reader = work.spec.task, Reader.of(work.spec)
    answer = Constant.of(task, (one for _, one in reader.lessons(read(work, TRAIN)))).answer()
    if answer is None:
        return {}
    measure = measure_for(task)
    for _, truth in reader.lessons(read(work, VALIDATION)):
        take(measure, truth, answer)
    return flat(measure.report())


class Pupil:
    """A learner that goes on where a lesson fails: it goes back, and leaves that one out."""

    def __init__(self, model: Model, left_out: Counter[str]) -> None:
        self.model = model
        self.learned = 0
        self._left_out = left_out
        self._failed = 0
        self._base = model.to_bytes()
        self._since: list[Sequence[Lesson]] = []

    def learn(self, batch: Sequence[Lesson]) -> None:
        """Learn some lessons, in order.

        Raises
        ------
        CannotLearn
            Too many of them fail.
        """
        if len(self._since) >= BATCHES_KEPT:
            self._base, self._since = self.model.to_bytes(), []
        try:
            self.model.learn(batch)
        except Exception:  # whatever a learner raises of a lesson, or of a state that it has ruined
            self._go_back()
            self._one_by_one(batch)
        else:
            self._since.append(batch)
            self.learned += len(batch)

    def _go_back(self) -> None:
        self.model = self.model.from_bytes(self._base)
        for batch in self._since:
            self.model.learn(batch)

    def _one_by_one(self, batch: Iterable[Lesson]) -> None:
        for lesson in batch:
            try:
                self.model.learn([lesson])
            except Exception as error:  # as above
                self._count(error)
                self._go_back()
            else:
                self._since.append([lesson])
                self.learned += 1

    def _count(self, error: Exception) -> None:
        self._failed += 1
        self._left_out[f"the learner failed ({type(error).__name__})"] += 1
        if self._failed > MOST_FAILED:
            raise CannotLearn(
                f"the learner fails on more than {MOST_FAILED} rows ({type(error).__name__})"
            ) from error
