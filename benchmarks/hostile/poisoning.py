"""What liars cost, and what the defence costs where nobody lies.

12,000 labels from 500 raters teach a logistic regression that starts from 600 true ones; honest
raters err in 5 %. Each label goes through the real policy, table and learner; the accuracy is that
of the answers, on the truth, before anything is said of them. What is lost is told in points, over
a window of 1,000 answers that slides: the most, and at the end.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import models, report
from benchmarks.hostile.raters import (
    BLOCK,
    DELAY,
    FIXED,
    SOURCE,
    WARM,
    Cost,
    Costs,
    Crowd,
    Said,
    World,
    play,
    rows_of,
    said_of,
)
from benchmarks.report import Bar
from benchmarks.sections import Found
from benchmarks.streams import Row
from online_learner.evidence import Floats
from online_learner.judge import entry_order
from online_learner.learners import Learner
from online_learner.learners.river import RiverLearner
from online_learner.loop import Loop
from online_learner.schema import Example, Feedback, Prediction, Signal
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import open_store
from policies.validation import Accept, Validation

LOUD = "10 % of raters lie, 10 times as active"
SLEEPERS = "20 % lie from half-way on, 5 times as active"
ATTACKS = {
    LOUD: Crowd(liars=0.1, activity=10.0),
    SLEEPERS: Crowd(liars=0.2, activity=5.0, from_=0.5),
    "a third of the labels are lies, each by a new name": Crowd(liars=0.1, activity=5, names=True),
    "10 % lie about half of the inputs, 10 times as active": Crowd(
        liars=0.1, activity=10.0, region=True
    ),
}
HONEST = {
    "500 raters": Crowd(),
    "one of them gives a fifth of the labels": Crowd(keen=0.2),
    "the n-th gives 1/n as many as the first": Crowd(skewed=True),
    "a fifth of them only speak where the answer was wrong": Crowd(critics=0.2),
    "24 raters": Crowd(raters=24),
    "3 raters": Crowd(raters=3),
}
DRIFTING = ("SEA, abrupt", "Sine, abrupt", "Agrawal, abrupt")
MOST_HONEST = 0.5
MEASURE = (
    "The mean of {} runs, and the worst of them in brackets. Measured against the same stream "
    "without the liars' labels; *were they honest*: with true ones in their place."
)


def section(full: bool) -> Found:
    """Return the tables, and what was aimed at."""
    seeds = range(1, 11 if full else 4)
    attacks = {
        (name, stream): [Costs.of(stream, crowd, seed) for seed in seeds]
        for name, crowd in ATTACKS.items()
        for stream in FIXED
    }
    honest = {
        (name, stream): [Costs.of(stream, crowd, seed).defended for seed in seeds]
        for name, crowd in HONEST.items()
        for stream in (*FIXED, *DRIFTING)
        if stream in FIXED or name in ("500 raters", "24 raters")
    }
    text = "\n\n".join(
        [
            str(__doc__).partition("\n\n")[2].strip(),
            MEASURE.format(len(seeds)),
            _attacks(attacks),
            "Where nobody lies, what the defence costs, everybody believed being the measure:",
            _honest(honest),
            _real(),
        ]
    )
    return text, _bars(attacks, honest)


# --- what is told -------------------------------------------------------------------------------


def _attacks(found: dict[tuple[str, str], list[Costs]]) -> str:
    head = ["attack", "stream", "believed, worst", "end", "defended, worst", "end"]
    rows = [
        [
            *names,
            *(_told([getattr(c.believed, part) for c in costs]) for part in ("worst", "end")),
            *(_told([getattr(c.defended, part) for c in costs]) for part in ("worst", "end")),
            *(_told([getattr(c.strictly, part) for c in costs]) for part in ("worst", "end")),
        ]
        for names, costs in found.items()
    ]
    return report.table([*head, "were they honest, worst", "end"], rows)


def _honest(found: dict[tuple[str, str], list[Cost]]) -> str:
    rows = [
        [*names, *(_told([getattr(c, part) for c in costs]) for part in ("mean", "worst", "end"))]
        for names, costs in found.items()
    ]
    return report.table(["crowd", "stream", "all in all", "worst", "end"], rows)


def _told(points: Sequence[float]) -> str:
    return f"{statistics.mean(points):.1f} ({max(points):.1f})"


def _bars(
    attacks: dict[tuple[str, str], list[Costs]], honest: dict[tuple[str, str], list[Cost]]
) -> list[Bar]:
    loud, sleepers = (
        [[c.defended for c in costs] for (of, _), costs in attacks.items() if of == name]
        for name in (LOUD, SLEEPERS)
    )
    fixed = [costs for (_, stream), costs in honest.items() if stream in FIXED]
    drifting = [costs for (_, stream), costs in honest.items() if stream not in FIXED]
    told = [
        (f"{LOUD}: lost at the end", _most(loud, "end"), 1.0),
        (f"{LOUD}: lost at worst", _most(loud, "worst"), 3.0),
        (f"{SLEEPERS}: lost at worst", _most(sleepers, "worst"), 5.0),
        ("honest raters, the world stays: lost all in all", _most(fixed, "mean"), MOST_HONEST),
        ("honest raters, it drifts: lost all in all", _most(drifting, "mean"), MOST_HONEST),
    ]
    return [
        Bar(f"{what}, mean of the worst stream", points, aim, " points", at_most=True)
        for what, points, aim in told
    ]


def _most(found: Iterable[Sequence[Cost]], part: str) -> float:
    return max(float(np.mean([getattr(cost, part) for cost in costs])) for costs in found)


# --- the whole loop -----------------------------------------------------------------------------

MODEL = "web"
SEED = 1
_start: list[Learner] = []


def started() -> Learner:
    """Return the learner as it was after the first rows: the factory that the loop calls."""
    return _start[-1].from_bytes(_start[-1].to_bytes())


def _real() -> str:
    """Play one attack through the whole loop, and its own log through the policy alone."""
    rows = rows_of("SEA", SEED)
    said = said_of(rows, ATTACKS[LOUD], SEED, honest=False)
    learner = RiverLearner(models.logistic(), task="classification", labels=models.LABELS)
    learner.learn([Example(features=x, target=y) for x, y in rows[:WARM]])
    _start.append(learner)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        right, same = asyncio.run(through_loop(rows, said, Path(folder)))
    without, _ = play(rows, said, Accept("classification"), silent=True)
    cost = Cost.of(right, without)
    return (
        f"The first attack on SEA through the whole loop (store, door, learner): {cost.worst:.1f} "
        f"points at worst, {cost.end:.1f} at the end. Policy, table and learner alone, called with "
        f"the signals of its log, come to {'the same' if same else 'OTHER'} weights, bit for bit."
    )


async def through_loop(
    rows: Sequence[Row], said: Sequence[Said], folder: Path
) -> tuple[Floats, bool]:
    """Have the loop answer the rows after the first `WARM`, and learn what is said of them.

    Returns
    -------
    Which answers were right, and whether the policy by itself comes to the same weights and memory
    from the loop's log.
    """
    promotion = {"policy": "policies.promotion:Always"}
    spec = models.spec("started", module=__name__, promotion=promotion, publish_s=0.0)
    async with await open_store("auto", data_dir=folder) as store:
        await store.call("CONFIG", "SET", "appendonly", "no")  # nothing has to outlive the run
        settings = Settings(store=store.url, data_dir=folder, models={MODEL: spec})
        async with await Loop.open(settings, rng=random.Random(SEED), live=True) as loop:
            right = await _play(loop, rows, said)
            return right, await _same(loop.stages(MODEL))


async def _play(loop: Loop, rows: Sequence[Row], said: Sequence[Said]) -> Floats:
    right: list[bool] = []
    waiting: list[tuple[str, Said]] = []
    for start in range(WARM, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        answers = [await loop.predict(MODEL, x) for x, _ in block]
        right += [a["output"] == y for a, (_, y) in zip(answers, block, strict=True)]
        waiting += zip(
            [a["prediction_id"] for a in answers], said[start : start + BLOCK], strict=True
        )
        for name, one in waiting[:-DELAY]:
            user = one.rater.removeprefix(SOURCE)
            await loop.feedback(name, "correction", one.label, user_id=user)
        waiting = waiting[-DELAY:]
        await loop.turn(MODEL)
    return np.array(right, float)


async def _same(stages: Stages) -> bool:
    world = World(Validation("classification"), learner=_fresh())
    for entry, fields in await stages.store.range(stages.registry.keys.feedback):
        world.take(_signal(world, entry, fields))
    trainer = stages.trainer
    assert trainer.validation is not None
    found = (world.learner.digest(), world.policy.state())
    return found == (trainer.learner.digest(), trainer.validation.state())


def _fresh() -> RiverLearner:
    learner = started()
    assert isinstance(learner, RiverLearner)
    return learner


def _signal(world: World, entry: str, fields: dict[bytes, Any]) -> Signal:
    feedback = Feedback.model_validate_json(fields[b"f"])
    prediction = Prediction.model_validate_json(fields[b"r"])
    said = world.signals.said(feedback, prediction)
    return Signal(feedback, prediction, said, fields[b"p"].decode(), entry_order(entry)[0])
