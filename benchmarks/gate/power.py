"""How many labels a better candidate takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks import report
from benchmarks.gate.kernel import Ints, Signs, chunks, draw, first_crossing, log_es
from benchmarks.report import Bar
from online_learner.evidence import BettingTest, Influence, labels_to_go, raised_null
from online_learner.evidence.betting import Floats

GOAL = -math.log(0.01)
SEED = 13
RATERS = 30
ACTIVITY = 1 / np.arange(1, RATERS + 1)  # the busiest of them gives a quarter of all labels


@dataclass(frozen=True, slots=True)
class Effect:
    """A better candidate, and in how many labels it should be found."""

    title: str
    win: float
    loss: float
    median: int
    p90: int

    @property
    def most(self) -> int:
        """Labels after which nobody waits any longer."""
        return 5 * self.p90


EFFECTS = (
    Effect("+10 points at 20 % discordance", 0.15, 0.05, 200, 400),
    Effect("+5 points at 10 %", 0.075, 0.025, 400, 850),
    Effect("+2 points at 10 %", 0.06, 0.04, 2750, 5800),
)


def labels(effect: Effect, runs: int, m: float = 0.0, share: float | None = None) -> Floats:
    """Return after how many labels each run promotes, shape `(runs,)`; infinity for not in time."""
    found = []
    for rng, shape in chunks(runs, effect.most, SEED):
        d = draw(rng, effect.win, effect.loss, shape)
        if share is not None:
            raters = rng.choice(RATERS, shape, p=ACTIVITY / ACTIVITY.sum())
            d = np.stack([capped(*row, share) for row in zip(d, raters, strict=True)])
        first, reached = first_crossing(log_es(d, m), GOAL)
        found.append(np.where(reached, first + 1.0, math.inf))
    return np.concatenate(found)


def capped(d: Signs, raters: Ints, share: float) -> Signs:
    """Return the differences of one run without those of raters who had a full share."""
    influence, kept = Influence(share), np.zeros_like(d)
    for i in np.flatnonzero(d):
        rater = str(raters[i])
        if influence.admits(rater):
            influence.add(rater)
            kept[i] = d[i]
    return kept


def forecasts(effect: Effect, runs: int) -> Floats:
    """Return what was forecast half way to the promotion, over what it took from there."""
    ratios = []
    d = draw(np.random.default_rng(SEED), effect.win, effect.loss, (runs, effect.most))
    first, reached = first_crossing(log_es(d, 0.0), GOAL)
    for row, end in zip(d[reached], first[reached] + 1, strict=True):
        test = BettingTest.fresh(0.0)
        half = row[: end // 2]
        for point in half[half != 0]:
            test.update(point)
        ahead = labels_to_go(test.log_e, GOAL, len(half), test.log_best)
        ratios.append(math.inf if ahead is None else ahead / (end - len(half)))
    return np.array(ratios)


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return the tables of labels and of forecasts, and the bars."""
    runs = 10_000 if full else 1_000
    capped_runs = 1_000 if full else 150
    m = raised_null(1.5)
    rows, bars = [], []
    for effect in EFFECTS:
        bare = labels(effect, runs)
        columns = (bare, labels(effect, runs, m), labels(effect, capped_runs, m, 0.1))
        rows.append([effect.title, *(cell for found in columns for cell in _cells(found, effect))])
        bars += [
            Bar(f"{effect.title}: median labels", _at(bare, 0.5), effect.median, at_most=True),
            Bar(f"{effect.title}: p90 labels", _at(bare, 0.9), effect.p90, at_most=True),
        ]
    head = ["candidate", "m = 0", "p90", f"m = {m:.1f}", "p90", f"m = {m:.1f}, raters", "p90"]
    text = (
        f"Labels to a promotion at alpha .01, {runs:,} runs ({capped_runs:,} with raters), seed "
        f"{SEED}: median and p90. On the left the bare test, in the middle with the null raised "
        f"for G = 1.5, on the right with {RATERS} raters too, each capped at 10 % of the evidence, "
        "the busiest giving 25 %. A candidate that is 2 points better at 10 % discordance is on "
        f"the edge of what G = 1.5 could feign.\n\n{report.table(head, rows)}\n\n"
        f"What was forecast half way, over what it took from there.\n\n{_forecasts(capped_runs)}"
    )
    return text, bars


def _forecasts(runs: int) -> str:
    rows = []
    for effect in EFFECTS:
        found = forecasts(effect, runs)
        rows.append([effect.title, *(f"{_at(found, q):.2f}" for q in (0.1, 0.5, 0.9))])
    return report.table(["candidate", "p10", "median", "p90"], rows)


def _at(values: Floats, share: float) -> float:
    return float(np.quantile(values, share, method="higher"))


def _cells(found: Floats, effect: Effect) -> list[str]:
    ends = (_at(found, 0.5), _at(found, 0.9))
    return [f"> {effect.most:,}" if math.isinf(end) else f"{end:,.0f}" for end in ends]
