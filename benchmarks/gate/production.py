"""The same draws through the whole loop: it has to come to the same e-values, and fast.

Every label is a prediction, an answer in the log, a correction by one of 40 raters and a settled
audit, on the bundled store. The champion answers what a question says under `a`, and what it learns
into says `b`: so the records carry the very differences that `kernel` was given.
"""

from __future__ import annotations

import asyncio
import math
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import report
from benchmarks.gate import kernel
from benchmarks.gate.kernel import Bools, Ints, Signs
from benchmarks.gate.power import capped
from benchmarks.gate.world import START_S, TERMS, Drawn, Gate, Pair, World, entry
from benchmarks.report import Bar
from online_learner.evidence import Case, Floats, log_threshold
from online_learner.learners import Answer
from online_learner.loop import Loop
from online_learner.schema import Audit, Lesson, Move, Said
from online_learner.settings import Settings
from online_learner.store import Store, open_store
from policies.promotion import Leash

SEED = 17
RATERS = 40
BLOCK = 250  # questions between two turns of the gate
GOAL = log_threshold(0.01, k=1, promotions=0)


# --- the script ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Scripted:
    """A learner that answers what the question says: under `a`, and after a lesson under `b`."""

    key: str = "a"
    family: str = "scripted"

    @property
    def fitted(self) -> bool:
        """Whether it has learned anything."""
        return self.key == "b"

    def predict(self, batch: Sequence[dict[str, Any]]) -> list[Answer]:
        """Answer as the questions say."""
        return [Answer(features[self.key]) for features in batch]

    def learn(self, lessons: Sequence[Lesson]) -> None:
        """Turn the page."""
        self.key = "b"

    def to_bytes(self) -> bytes:
        """Return the page."""
        return self.key.encode()

    def from_bytes(self, blob: bytes) -> Scripted:
        """Return a learner at that page."""
        return Scripted(blob.decode())

    def digest(self) -> str:
        """Return the page."""
        return self.key


@dataclass(frozen=True)
class Noted(Leash):
    """The default policy, which notes the e-value after each settled audit."""

    log_e: dict[int, float] = field(default_factory=dict)

    def decide(self, case: Case) -> Move | None:
        """Note it, and decide."""
        trial = case.trial(self.duels(case.aliases)[0])
        if trial is not None and not case.aliases.following:
            self.log_e[trial.audited] = trial.log_e
        return super().decide(case)


SPEC = {
    "task": "classification",
    "labels": [False, True],
    "learner": f"{__name__}:Scripted",
    "promotion": {"policy": f"{__name__}:Noted", "restart_after": 1_000_000},
    "publish_s": 0.0,
}


class Row(NamedTuple):
    """A question, what is right, and who says so."""

    question: dict[str, bool]
    right: bool
    rater: str


@dataclass(frozen=True, slots=True)
class Draws:
    """What every run is given: differences, truths, and who says so, shape `(runs, labels)`."""

    d: Signs
    truth: Bools
    rater: Ints

    @classmethod
    def of(cls, runs: int, labels: int) -> Draws:
        """Draw them; every other run has a candidate that is ten points better, or else equal."""
        rng = np.random.default_rng(SEED)
        win = np.where(np.arange(runs) % 2, 0.15, 0.1)[:, None]
        d = kernel.draw(rng, win, 0.2 - win, (runs, labels))
        return cls(d, rng.random(d.shape) < 0.5, rng.integers(RATERS, size=d.shape))

    def log_es(self) -> Floats:
        """Return what the arithmetic makes of them, after each label."""
        kept = [capped(*row, TERMS.rater_share) for row in zip(self.d, self.rater, strict=True)]
        return kernel.log_es(np.stack(kept), TERMS.m)

    def run(self, number: int) -> list[Row]:
        """Return one run as questions with their answers."""
        d, truth = self.d[number], self.truth[number]
        columns = (truth ^ (d > 0), truth ^ (d < 0), truth, self.rater[number])
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [Row({"a": a, "b": b}, right, f"rater {n}") for a, b, right, n in rows]


# --- the whole loop -----------------------------------------------------------------------------


class Lived(NamedTuple):
    """What came of one run: the e-value after each label, and the seconds of loop and gate."""

    log_e: list[float]
    promoted: bool
    loop_s: Floats
    gate_s: Floats


async def live(store: Store, folder: Path, rows: Sequence[Row], block: int) -> Lived:
    """Send a run through a loop that knows nothing yet, until it promotes."""
    await store.call("FLUSHALL")
    settings = Settings(store=store.url, data_dir=folder, models={"web": SPEC})
    async with await Loop.open(settings, rng=random.Random(SEED)) as loop:
        await _say(loop, [Row({"a": True, "b": True}, right=True, rater="teacher")])
        await loop.turn("web")
        started, gate_s, following = _now(), np.zeros(2), False
        for start in range(0, len(rows), block):
            await _say(loop, rows[start : start + block])
            gate_s += await _judged(loop)
            aliases = await loop.stages("web").registry.aliases()
            following = aliases is not None and aliases.following
            if following:
                break
        loop_s, noted = _now() - started, loop.stages("web").policy.log_e
    return Lived([noted[n] for n in sorted(noted) if n > 1], following, loop_s, gate_s)


def _now() -> Floats:
    """Return the time by the clock, and the processor time that this process has taken."""
    return np.array([time.perf_counter(), time.process_time()])


async def _say(loop: Loop, rows: Sequence[Row]) -> None:
    """Ask, and correct."""
    answers = await asyncio.gather(*(loop.predict("web", row.question) for row in rows))
    names = [answer["prediction_id"] for answer in answers]
    said = zip(names, rows, strict=True)
    await asyncio.gather(
        *(loop.feedback(name, "correction", x.right, user_id=x.rater) for name, x in said)
    )


async def _judged(loop: Loop) -> Floats:
    """Settle everything; returns the seconds that it took."""
    started = _now()
    while await loop.stages("web").gatekeeper.turn():
        pass
    return _now() - started


async def lived(draws: Draws, block: int = BLOCK) -> list[Lived]:
    """Send all runs through the loop, one after the other."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with await open_store("auto", data_dir=Path(folder)) as store:
            runs = map(draws.run, range(len(draws.d)))
            return [await live(store, Path(folder), run, block) for run in runs]


def bare_ms(audits: int) -> Floats:
    """Return what judge and policy cost without records and store, in ms a settled audit."""
    place, rng = World(Pair(0.0), audits=audits), np.random.default_rng(SEED)
    gate, drawn = Gate(place), Drawn.of(place, rng)
    questions = drawn.questions("latest")
    records = [Audit(generation=1, roles=question.shadows) for question in questions]
    raters = [f"rater {n}" for n in rng.integers(RATERS, size=audits)]
    said = [Said(right=right) for right in drawn.truth.tolist()]
    started = _now()
    for n, (record, right, rater) in enumerate(zip(records, said, raters, strict=True)):
        gate.judge.see_audit(entry(n), record)
        gate.judge.see_signal(entry(n), right, rater=rater)
        gate.settle(START_S + n)
    return 1000 * (_now() - started) / audits


# --- what is told -------------------------------------------------------------------------------


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return what was compared and the table of what it cost, and the bars."""
    draws = Draws.of(200, 2_000) if full else Draws.of(10, 500)
    found = asyncio.run(lived(draws))
    apart = [_apart(one, path) for one, path in zip(found, draws.log_es(), strict=True)]
    costs = {
        "judge and policy alone": bare_ms(10_000),
        f"with the store, {BLOCK} in a turn": _gate_ms(found),
        "with the store, one in a turn": _gate_ms(asyncio.run(lived(Draws.of(1, 200), block=1))),
    }
    busy = [(name, ms[1]) for name, ms in costs.items()][:2]
    bars = [
        Bar("production: largest gap of the log e-value", max(apart), 1e-9, at_most=True),
        Bar("production: runs that end otherwise", sum(map(math.isinf, apart)), 0, at_most=True),
        *(Bar(f"an audit, {name}", ms, 0.2, " ms", at_most=True) for name, ms in busy),
    ]
    rate = sum(len(one.log_e) for one in found) / sum(one.loop_s[0] for one in found)
    rows = [[name, f"{clock:.3f}", f"{work:.3f}"] for name, (clock, work) in costs.items()]
    text = (
        f"{len(found)} runs of up to {draws.d.shape[1]:,} labels, every other one of a candidate "
        f"that is ten points better; {sum(one.promoted for one in found)} end in a promotion. The "
        f"loop predicts, logs, takes the correction and judges {rate:,.0f} times a second.\n\n"
        "What the gate costs for a settled audit, in ms: its question, its label, and a decision. "
        "By the clock it includes the disk, and what else this machine does.\n\n"
        f"{report.table(['the gate', 'by the clock', 'processor'], rows)}"
    )
    return text, bars


def _gate_ms(found: Sequence[Lived]) -> Floats:
    gate_s: Floats = np.sum([one.gate_s for one in found], axis=0)
    return 1000 * gate_s / sum(len(one.log_e) for one in found)


def _apart(one: Lived, path: Floats) -> float:
    """Return how far the log e-values are from their path; infinity where another label decides."""
    reached = np.flatnonzero(path >= GOAL)
    expected = path[: reached[0] + 1] if reached.size else path
    if one.promoted != bool(reached.size) or len(one.log_e) != len(expected):
        return math.inf
    return float(np.abs(expected - one.log_e).max())
