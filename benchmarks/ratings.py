"""Stars from raters who each have their own idea of a good one: what calibration is worth.

Items of a true quality are rated by raters with planted offsets; a reward model learns from the
ratings, read by `policies.signals`, and orders the items. Without calibration, all raters are taken
for one. The loss is the share of pairs that are put in the wrong order because of the offsets.
"""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass

from benchmarks import report
from benchmarks.load import apart
from benchmarks.report import Bar
from online_learner.learners import Ranker
from online_learner.learners.factory import make_learner
from online_learner.schema import Feedback, Option, Prediction
from online_learner.settings import ModelSpec
from policies.signals import Signals

OFFSET_SD = 0.6  # stars
NOISE_SD = 0.5


@dataclass(frozen=True, slots=True)
class World:
    """So many items, each rated so often, by so many raters, some far busier than others."""

    items: int = 400
    each: int = 10
    raters: int = 40


def order(world: World, offset_sd: float, calibrated: bool, seed: int) -> float:
    """Return the share of pairs of items that the learned rewards put in the right order."""
    rng = random.Random(seed)
    quality = [rng.gauss(3.5, 0.8) for _ in range(world.items)]
    offset = [rng.gauss(0.0, offset_sd) for _ in range(world.raters)]
    busy = [1.0 / (i + 1) ** 0.7 for i in range(world.raters)]
    signals = Signals("generation")
    learner = make_learner(ModelSpec(task="generation", learner="torch:ranking"))
    assert isinstance(learner, Ranker)
    rated = [item for item in range(world.items) for _ in range(world.each)]
    rng.shuffle(rated)
    for item in rated:
        [rater] = rng.choices(range(world.raters), busy)
        stars = round(quality[item] + offset[rater] + rng.gauss(0.0, NOISE_SD))
        name = f"human:{rater}" if calibrated else "human:anybody"
        lesson = signals.lesson(_said(name, min(5, max(1, stars))), _shown(item))
        learner.learn([] if lesson is None else [lesson])
    rewards = learner.score({}, [_option(item).features for item in range(world.items)])
    pairs = [rng.sample(range(world.items), 2) for _ in range(20_000)]
    return statistics.mean((rewards[a] > rewards[b]) == (quality[a] > quality[b]) for a, b in pairs)


def _said(source: str, stars: int) -> Feedback:
    value = {"value": float(stars), "scale": [1.0, 5.0]}
    return Feedback(kind="rating", value=value, source=source, prediction_id="")


def _option(item: int) -> Option:
    return Option(id="0", features={"item": f"item{item}"})


def _shown(item: int) -> Prediction:
    return Prediction(
        model="m", features={}, options=[_option(item)], output=["0"], version=1, lineage=1, step=0
    )


def table(*, quick: bool) -> str:
    """Return what offsets cost, with calibration and without."""
    worlds = [World(), World(raters=100), World(each=3)]
    rounds = 2 if quick else 6
    rows, recovered, cost = [], 0.0, 0.0
    for world in worlds[: 1 if quick else None]:
        found = {
            (sd, calibrated): apart(mean_order, world, sd, calibrated, rounds)
            for sd in (0.0, OFFSET_SD)
            for calibrated in (False, True)
        }
        lost = found[0.0, False] - found[OFFSET_SD, False]
        regained = (found[OFFSET_SD, True] - found[OFFSET_SD, False]) / lost
        price = found[0.0, False] - found[0.0, True]
        if world == World():
            recovered, cost = regained, price
        name = f"{world.items} items, {world.each} ratings each, {world.raters} raters"
        rows.append([name, *(f"{value:.4f}" for value in found.values()), f"{regained:.0%}"])
    head = ["pairs in the right order", "clean", "calibrated", "offsets", "calibrated", "recovered"]
    bars = [
        Bar("share of the loss recovered", recovered, 0.8),
        Bar("cost on clean ratings", cost, 0.002, at_most=True),
    ]
    return report.table(head, rows) + "\n\n" + report.bars(bars)


def mean_order(world: World, offset_sd: float, calibrated: bool, rounds: int) -> float:
    """Return the mean over some seeds."""
    return statistics.mean(order(world, offset_sd, calibrated, seed) for seed in range(rounds))
