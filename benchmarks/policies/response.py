"""What those hide who do not speak: of how good answers are, and of what is learned.

6,000 answers a run, of which 200 labels come first. Somebody corrects an answer, or confirms it,
with a chance of 8 %; where it is wrong, or among the fifth that the model is surest of, with 40 %.
A coin draws 10 % for an auditor. All these labels are learned, weighed or not; the comparison is a
learner that is told as many labels of answers drawn by a coin. Accuracy is that of all answers,
before anything is said of them.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from benchmarks import report
from benchmarks.hostile import raters
from benchmarks.policies.speaking import SILENCES, Look, Run, World, play, rows_of
from benchmarks.report import Bar
from policies.switch import Mode

SEEDS, MANY_SEEDS = 4, 16
AUDIT = 0.1
WRONG, SUREST, ALIKE = SILENCES
JUDGED = ("SMS spam", "Phishing", "SEA, 25 % noise")
LOSING = {  # streams that a learner loses accuracy on
    WRONG: ("SEA, 25 % noise", "Hyperplane, 25 % noise", "Phishing, 20 % noise"),
    SUREST: ("Agrawal, tree", "RBF"),
}
GAINING = {WRONG: ("SMS spam", "Phishing", "Agrawal, tree")}  # whose learners learn from mistakes
WORTH_THE_NAME = 0.01  # by which a naive estimate is off


@dataclass(frozen=True, slots=True)
class Arm:
    """How a learner is told: whether labels are weighed, and whether there are audits."""

    weigh: Mode = "off"
    audit: float = AUDIT
    observe: bool = True


RAW, AUTO, ON = Arm(), Arm("auto"), Arm("on")
BLIND_RAW, BLIND_ON = Arm(audit=0.0, observe=False), Arm("on", audit=0.0)


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return the tables, and what was aimed at."""
    seeds = range(MANY_SEEDS if full else SEEDS)
    told, told_bars = estimated(
        [s for s in JUDGED if raters.there(s) or s not in raters.FIXED], seeds
    )
    taught, taught_bars = learned(seeds)
    return f"{told}\n\n{taught}", [*told_bars, *taught_bars]


# --- how good answers are -------------------------------------------------------------------------


def estimated(streams: Sequence[str], seeds: Sequence[int]) -> tuple[str, list[Bar]]:
    """Return how far estimates of the accuracy are off, half-way and at the end."""
    rows, ratios, costs = [], dict[str, list[float]](), list[float]()
    for silence in SILENCES:
        for stream in streams:
            runs = [_run(stream, silence, RAW, seed) for seed in seeds]
            looks = [look for run in runs for look in run.looks]
            naive = _off(looks, "volunteered")
            off = _off(looks, "corrected")
            rows.append(
                [
                    f"{silence}: {stream}",
                    f"{statistics.mean(look.accuracy for look in looks):.3f}",
                    *(
                        f"{_off(looks, name):.3f}"
                        for name in ("volunteered", "blind", "corrected", "audited")
                    ),
                    f"{_error(abs(x.corrected - x.accuracy) for x in looks):.3f}",
                ]
            )
            if silence == ALIKE:
                costs.append(off - naive)
            elif naive >= WORTH_THE_NAME:
                ratios.setdefault(silence, []).append(off / naive)
    head = [
        "spoken of more often",
        "accuracy",
        "unasked",
        "no audits",
        "corrected",
        "audits",
        "s.e.",
    ]
    text = (
        "Accuracy, and by how much estimates of it are off: by what is said unasked; corrected by "
        "what is known beforehand alone; corrected; by audits alone.\n\n"
    ) + report.table(head, rows)
    bars = [
        Bar(f"{silence}: error, corrected against naive, worst", max(found), 1 / 3, at_most=True)
        for silence, found in ratios.items()
    ]
    return text, bars


def _off(looks: Sequence[Look], name: str) -> float:
    return statistics.mean(abs(getattr(look, name) - look.accuracy) for look in looks)


# --- what is learned ------------------------------------------------------------------------------


def learned(seeds: Sequence[int]) -> tuple[str, list[Bar]]:
    """Return what a learner loses for who speaks, and what of it weights make good."""
    rows, bars = list[list[str]](), list[Bar]()
    for silence, streams in LOSING.items():
        lost, auto, on = [0.0] * 3
        for stream in streams:
            arms = _arms(stream, silence, seeds, RAW, AUTO, ON, BLIND_RAW, BLIND_ON)
            rows.append(_row(f"{silence}: {stream}", arms))
            lost += _lost(arms, RAW)
            auto += _lost(arms, AUTO)
            on += _lost(arms, ON)
        bars.append(Bar(f"{silence}: share of the loss made good, weighed", 1 - on / lost, 0.5))
        bars.append(Bar(f"{silence}: the same, from when it has won", 1 - auto / lost, 0.5))
    for silence, streams in GAINING.items():
        for stream in streams:
            arms = _arms(stream, silence, seeds, RAW, AUTO, ON)
            rows.append(_row(f"{silence}: {stream}", arms))
    costs = []
    for stream in (*JUDGED, "Hyperplane, 25 % noise"):
        arms = _arms(stream, ALIKE, seeds, RAW, ON)
        rows.append(_row(f"{ALIKE}: {stream}", arms))
        costs += [statistics.mean(_right(arms[RAW])) - statistics.mean(_right(arms[ON]))]
    cost = 100 * statistics.mean(costs)
    bars.append(Bar("all alike: what weighing costs, points, mean", cost, 0.2, at_most=True))
    head = ["spoken of more often", "by a coin", "raw", "from when won", "weighed", "s.e."]
    head += ["no audits: raw", "weighed"]
    text = (
        "Accuracy of learners: told as many labels by a coin; by who speaks and by audits, raw; "
        "weighed from when that has won on audits; weighed from the beginning. Then without any "
        "audits. The error is that of the gap between weighed and raw.\n\n"
    ) + report.table(head, rows)
    return text, bars


Found = dict[Arm | str, list[Run]]


def _arms(stream: str, silence: str, seeds: Sequence[int], *arms: Arm) -> Found:
    found: Found = {arm: [_run(stream, silence, arm, seed) for seed in seeds] for arm in arms}
    found["coin"] = [
        _run(stream, silence, Arm(observe=False), seed, share=raw.labels / len(raw.right))
        for seed, raw in zip(seeds, found[RAW], strict=True)
    ]
    return found


def _row(what: str, arms: Found) -> list[str]:
    gaps = [a - b for a, b in zip(_right(arms[ON]), _right(arms[RAW]), strict=True)]
    shown = [
        f"{statistics.mean(_right(arms[arm])):.3f}" if arm in arms else "-"
        for arm in ("coin", RAW, AUTO, ON, BLIND_RAW, BLIND_ON)
    ]
    shown.insert(4, f"{_error(gaps):.3f}")
    return [what, *shown]


def _lost(arms: Found, arm: Arm) -> float:
    return statistics.mean(_right(arms["coin"])) - statistics.mean(_right(arms[arm]))


def _right(runs: Sequence[Run]) -> list[float]:
    return [float(run.right.mean()) for run in runs]


def _error(values: Iterable[float]) -> float:
    found = list(values)
    return statistics.stdev(found) / len(found) ** 0.5


@cache
def _run(stream: str, silence: str, arm: Arm, seed: int, share: float | None = None) -> Run:
    rng = random.Random(f"{seed} speaks")
    world = World(stream, SILENCES[silence], arm.audit, rng, weigh=arm.weigh, share=share)
    return play(world, rows_of(stream, seed), observe=arm.observe)
