"""What liars cost, and what the defence costs where nobody lies.

12,000 labels from 500 raters teach a logistic regression that starts from 600 true ones; honest
raters err in 5 %. Each label goes through the real policy, table and learner; the accuracy is that
of the answers, on the truth, before anything is said of them. What is lost is told in points, over
a window of 1,000 answers that slides: the most, and at the end. Two such runs of one stream differ
by half a point somewhere with nobody lying. The policy's numbers are its defaults everywhere.
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
from benchmarks.hostile import doubting
from benchmarks.hostile.raters import (
    FIXED,
    SOURCE,
    WARM,
    Crowd,
    Said,
    rows_of,
    said_of,
    there,
    there_are_people,
)
from benchmarks.hostile.world import (
    BELIEVED,
    BLOCK,
    DELAY,
    Cost,
    Costs,
    World,
    cost_of_defence,
    learner_of,
    play,
    rights_of_group,
)
from benchmarks.report import Bar
from benchmarks.sections import Found
from benchmarks.streams import Row
from online_learner.evidence import Floats
from online_learner.ids import entry_order
from online_learner.learners import Learner
from online_learner.learners.river import RiverLearner
from online_learner.loop import Loop
from online_learner.schema import Example, Feedback, Prediction, Signal
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import open_store
from policies.validation import Validation

LOUD = "10 % of raters lie, 10 times as active"
SLEEPERS = "20 % lie from half-way on, 5 times as active"
ATTACKS = {
    LOUD: Crowd(liars=0.1, activity=10.0),
    SLEEPERS: Crowd(liars=0.2, activity=5.0, from_=0.5),
    "a third of the labels are lies, each by a new name": Crowd(liars=0.1, activity=5, names=True),
    "10 % lie about half of the inputs, 10 times as active": Crowd(
        liars=0.1, activity=10.0, region=True
    ),
    "10 % deny whatever is true, 10 times as active": Crowd(liars=0.1, activity=10.0, deny=True),
    "10 % lie in a quarter of their labels, 10 times as active": Crowd(
        liars=0.1, activity=10.0, careful=0.25
    ),
    "40 % lie, no more active than others": Crowd(liars=0.4),
}
HONEST = {
    "500 raters": Crowd(),
    "one of them gives a fifth of the labels": Crowd(keen=0.2),
    "the n-th gives 1/n as many as the first": Crowd(skewed=True),
    "a fifth of them only speak where the answer was wrong": Crowd(critics=0.2),
    "24 raters": Crowd(raters=24),
    "3 raters": Crowd(raters=3),
}
PEOPLE = {"as active, and as often wrong, as AdultContent2's": Crowd(raters=825, real=True)}
DRIFTING = ("SEA, abrupt", "Sine, abrupt", "Agrawal, abrupt")
IN_DRIFT = ("500 raters", "the n-th gives 1/n as many as the first", "24 raters", *PEOPLE)
GROUPS = {
    f"{100 * share:.0f} % of raters, {100 * apart:.0f} % of inputs": Crowd(group=share, apart=apart)
    for share in (0.1, 0.3)
    for apart in (0.15, 0.5, 1.0)
}
GROUPED = ("Phishing", "Hyperplane")
MOST_HONEST = 0.5
MEASURE = (
    "The median of {} runs, and the worst of them in brackets. Measured against the same stream "
    "without the liars' labels; *were they honest*: with true ones in their place."
)
FAIRNESS = (
    "Honest raters may differ: to a group that the features tell, the truth is the opposite for "
    "some inputs, and the learner starts from labels of the others. How often the answer is right "
    "to who asks, in per cent, over all and in the last quarter; medians:"
)


def section(full: bool) -> Found:
    """Return the tables, and what was aimed at."""
    seeds = range(1, 11 if full else 4)
    fixed = [stream for stream in FIXED if there(stream)]
    attacks = {
        (name, stream): [Costs.of(stream, crowd, seed) for seed in seeds]
        for name, crowd in ATTACKS.items()
        for stream in fixed
    }
    honest = {
        (name, stream): [cost_of_defence(stream, crowd, seed) for seed in seeds]
        for name, crowd in (HONEST | (PEOPLE if there_are_people() else {})).items()
        for stream in (*fixed, *(DRIFTING if name in IN_DRIFT else ()))
    }
    groups = {
        (name, stream): np.median([rights_of_group(stream, crowd, seed) for seed in seeds], axis=0)
        for name, crowd in GROUPS.items()
        for stream in GROUPED
    }
    parts = [
        str(__doc__).partition("\n\n")[2].strip(),
        MEASURE.format(len(seeds)),
        _attacks(attacks),
        "Where nobody lies, what the defence costs, everybody believed being the measure:",
        _honest(honest),
        FAIRNESS,
        _groups(groups),
        _real(),
        doubting.told(30_000 if full else 10_000),
    ]
    return "\n\n".join(parts), _bars(attacks, honest)


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


def _groups(found: dict[tuple[str, str], Floats]) -> str:
    head = ["group", "stream", "group, believed", "late", "group, defended", "late"]
    rows = [[*names, *(f"{right:.1f}" for right in rights)] for names, rights in found.items()]
    return report.table([*head, "others, believed", "late", "others, defended", "late"], rows)


def _told(points: Sequence[float]) -> str:
    return f"{statistics.median(points):.1f} ({max(points):.1f})"


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
        (f"{LOUD}: lost at the end", loud, "end", 1.0),
        (f"{LOUD}: lost at worst", loud, "worst", 3.0),
        (f"{SLEEPERS}: lost at worst", sleepers, "worst", 5.0),
        ("honest raters, the world stays: lost all in all", fixed, "mean", MOST_HONEST),
        ("honest raters, it drifts: lost all in all", drifting, "mean", MOST_HONEST),
    ]
    which = {"median run of the worst stream": statistics.median, "worst run of all": max}
    return [
        Bar(f"{what}, {run}", _most(found, part, summary), aim, " points", at_most=True)
        for what, found, part, aim in told
        for run, summary in which.items()
    ]


def _most(found: Iterable[Sequence[Cost]], part: str, summary: Any) -> float:
    return max(float(summary([getattr(cost, part) for cost in costs])) for costs in found)


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
    learner = learner_of("SEA")
    learner.learn([Example(features=x, target=y) for x, y in rows[:WARM]])
    _start.append(learner)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        right, same = asyncio.run(through_loop(rows, said, Path(folder)))
    without, _ = play(rows, said, BELIEVED, silent=True)
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
    assert trainer.interpreter.validation is not None
    found = (world.learner.digest(), world.policy.state())
    return found == (trainer.learner.digest(), trainer.interpreter.validation.state())


def _fresh() -> RiverLearner:
    learner = started()
    assert isinstance(learner, RiverLearner)
    return learner


def _signal(world: World, entry: str, fields: dict[bytes, Any]) -> Signal:
    feedback = Feedback.model_validate_json(fields[b"f"])
    prediction = Prediction.model_validate_json(fields[b"r"])
    said = world.signals.said(feedback, prediction)
    return Signal(feedback, prediction, said, fields[b"p"].decode(), entry_order(entry)[0])
