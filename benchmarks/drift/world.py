"""A stream, a learner that starts warm, and who answers: the loop under a policy, or any step."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import from_json

from benchmarks import models, streams
from benchmarks.streams import Row
from online_learner.evidence import Floats
from online_learner.learners import Learner
from online_learner.learners.river import RiverLearner
from online_learner.loop import Loop
from online_learner.schema import Example
from online_learner.settings import Settings
from online_learner.store import open_store

EVERY = 10
WARM = 0.05
SEED = 7
RATERS = 40
LEARNERS: dict[str, Callable[[], Any]] = {"LR": models.logistic, "tree": models.hoeffding}
MODEL = "web"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run."""

    n: int
    quick: bool = False
    full: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One stream, drawn with one seed, one learner, one delay of the labels."""

    stream: str
    learner: str
    delay: int
    n: int
    seed: int = SEED

    def rows(self) -> list[Row]:
        """Return the rows to be answered, and leave the learner as it starts on them."""
        rows = streams.rows(self.stream, self.n, self.seed)
        cut = int(WARM * self.n)
        learner = RiverLearner(
            LEARNERS[self.learner](), task="classification", labels=models.LABELS
        )
        learner.learn([Example(features=x, target=y) for x, y in rows[:cut]])
        _start.append(learner)
        return rows[cut:]


@dataclass(frozen=True, slots=True)
class Gate:
    """A policy, and what its evidence is subject to."""

    name: str
    audit: float
    policy: str = "Leash"
    gamma: float = 1.5
    auditors: bool = False

    def spec(self) -> dict[str, Any]:
        """Return the configuration of the model."""
        promotion = {"policy": f"policies.promotion:{self.policy}"}
        changes = {"audit": self.audit, "gamma": self.gamma, "promotion": promotion}
        return models.spec("started", module=__name__, publish_s=0.0, **changes)


@dataclass(slots=True)
class Course:
    """What came of a stream: which answers were right, what was told, and what was decided."""

    right: list[bool] = field(default_factory=list)
    told: list[bool] = field(default_factory=list)
    decisions: list[tuple[int, str]] = field(default_factory=list)

    def accuracy(self, start: int = 0, end: int | None = None) -> float:
        """Return the accuracy on some of the rows, in percent."""
        return 100.0 * float(np.mean(self.right[start:end]))


_start: list[Learner] = []


def started() -> Learner:
    """Return the learner as it was after the first rows: the factory that the loop calls."""
    return _start[-1].from_bytes(_start[-1].to_bytes())


def right(learner: Learner, rows: Sequence[Row]) -> list[bool]:
    """Return which rows a learner answers rightly."""
    answers = learner.predict([x for x, _ in rows])
    return [a.output == y for a, (_, y) in zip(answers, rows, strict=True)]


# --- who answers --------------------------------------------------------------------------------


def frozen(rows: Sequence[Row]) -> Course:
    """Let the start answer, unchanged."""
    return Course(right(started(), rows))


def ungated(rows: Sequence[Row], delay: int, told: Sequence[bool] | None = None) -> Course:
    """Let every step answer at once; it learns what was told, by default the truth."""
    learner, course, known = started(), Course(), 0
    labels = [y for _, y in rows] if told is None else told
    for i in range(0, len(rows), EVERY):
        block = rows[i : i + EVERY]
        course.right += right(learner, block)
        due = max(0, i + len(block) - delay)
        pairs = zip(rows[known:due], labels[known:due], strict=True)
        learner.learn([Example(features=x, target=label) for (x, _), label in pairs])
        known = due
    return course


def gated(
    rows: Sequence[Row], delay: int, gate: Gate, told: Sequence[bool] | None = None
) -> Course:
    """Let the loop answer under a policy; what is audited is told the truth in any case."""
    labels = [y for _, y in rows] if told is None else told
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        return asyncio.run(_gated(rows, delay, gate, labels, Path(folder)))


async def _gated(
    rows: Sequence[Row], delay: int, gate: Gate, labels: Sequence[bool], folder: Path
) -> Course:
    async with await open_store("auto", data_dir=folder) as store:
        await store.call("CONFIG", "SET", "appendonly", "no")  # nothing has to outlive the run
        settings = Settings(store=store.url, data_dir=folder, models={MODEL: gate.spec()})
        async with await Loop.open(settings, rng=random.Random(SEED)) as loop:
            walk = _Walk(loop, gate, delay)
            for i in range(0, len(rows), EVERY):
                await walk.block(rows[i : i + EVERY], labels[i : i + EVERY])
            return walk.course


@dataclass(slots=True)
class _Walk:
    """A walk along the rows, block by block."""

    loop: Loop
    gate: Gate
    delay: int
    course: Course = field(default_factory=Course)
    waiting: deque[tuple[str, bool]] = field(default_factory=deque)
    raters: random.Random = field(default_factory=lambda: random.Random(SEED))
    verdicts: int = 0

    async def block(self, block: Sequence[Row], labels: Sequence[bool]) -> None:
        """Answer some rows, tell the labels that are due, and take a turn."""
        answers = await asyncio.gather(*(self.loop.predict(MODEL, x) for x, _ in block))
        for answer, (_, y), label in zip(answers, block, labels, strict=True):
            told = y if answer["ask"] is not None else label
            self.course.right.append(answer["output"] == y)
            self.course.told.append(told)
            self.waiting.append((answer["prediction_id"], told))
        count = max(0, len(self.waiting) - self.delay)
        due = [self.waiting.popleft() for _ in range(count)]
        await asyncio.gather(*(self._tell(name, label) for name, label in due))
        await self.loop.turn(MODEL)
        await self._note()

    async def _tell(self, name: str, label: bool) -> None:
        user, auditor = f"rater {self.raters.randrange(RATERS)}", self.gate.auditors
        await self.loop.feedback(name, "correction", label, auditor=auditor, user_id=user)

    async def _note(self) -> None:
        """Take down the verdicts that are new; what was only admitted or retired is left out."""
        stream = self.loop.stages(MODEL).registry.keys.verdicts
        count = int(await self.loop.store.call("XLEN", stream)) - self.verdicts
        self.verdicts += count
        for _, fields in reversed(await self.loop.store.latest(stream, count) if count else []):
            action = from_json(fields[b"v"])["action"]
            if action not in ("admit", "reject"):
                self.course.decisions.append((len(self.course.right), action))


# --- baselines ----------------------------------------------------------------------------------


def no_change(labels: Sequence[bool], delay: int) -> float:
    """Return the accuracy of repeating the last label that is known, in percent."""
    gap = delay + 1
    return 100.0 * float(np.mean(np.array(labels[gap:]) == np.array(labels[:-gap])))


def majority(labels: Sequence[bool], delay: int) -> float:
    """Return the accuracy of the label seen most often so far, in percent; at first, False."""
    y = np.array(labels)
    seen = np.arange(len(y)) - delay
    before: Floats = np.concatenate([[0.0], np.cumsum(np.where(y, 1.0, -1.0))])
    guess = before[np.maximum(seen, 0)] > 0
    return 100.0 * float(np.mean(guess == y))
