"""Served accuracy on drifting streams: what it costs to ask for evidence first.

The whole loop on the bundled store: predict, feedback after `delay` predictions, and a turn of all
stages every `EVERY` predictions. Beside it the same learner ungated (every step is served, same
delay, same cadence), frozen as it started, and the no-change and majority baselines. All start from
the first 5 % of the rows, and are scored on the others.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import from_json

from benchmarks import models, report, streams
from benchmarks.report import Bar
from benchmarks.streams import Row
from online_learner.learners import Learner
from online_learner.learners.river import RiverLearner
from online_learner.loop import Loop
from online_learner.schema import Example
from online_learner.settings import Settings
from online_learner.store import open_store

EVERY = 10
WARM = 0.05
DELAYS = (0, 100)
SEED = 7
LEARNERS: dict[str, Callable[[], Any]] = {"LR": models.logistic, "tree": models.hoeffding}
POLICIES: dict[str, dict[str, Any]] = {
    "Leash, audit .05": {"policy": "Leash", "audit": 0.05},
    "Leash, audit .2": {"policy": "Leash", "audit": 0.2},
    "Sequential, audit .2": {"policy": "Sequential", "audit": 0.2},
}


@dataclass(frozen=True, slots=True)
class Case:
    """One stream, one learner, one delay."""

    stream: str
    learner: str
    delay: int
    n: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Served accuracy of everything that was run on a case, and what the gate decided."""

    case: Case
    accuracy: dict[str, float]
    decisions: dict[str, str]


# --- the learner where it starts ----------------------------------------------------------------

_start: list[Learner] = []


def started() -> Learner:
    """Return the learner as it was after the first rows: the factory that the loop calls."""
    return _start[-1].from_bytes(_start[-1].to_bytes())


def _warm(kind: str, rows: Sequence[Row]) -> None:
    learner = RiverLearner(LEARNERS[kind](), task="classification", labels=models.LABELS)
    learner.learn(_examples(rows))
    _start.append(learner)


def _examples(rows: Iterable[Row]) -> list[Example]:
    return [Example(features=x, target=y) for x, y in rows]


# --- what is compared ---------------------------------------------------------------------------


def ungated(rows: Sequence[Row], delay: int) -> float:
    """Return the accuracy where every step is served at once."""
    learner, right, known = started(), 0, 0
    for i in range(0, len(rows), EVERY):
        block = rows[i : i + EVERY]
        answers = learner.predict([x for x, _ in block])
        right += sum(answer.output == y for answer, (_, y) in zip(answers, block, strict=True))
        due = max(0, i + len(block) - delay)
        learner.learn(_examples(rows[known:due]))
        known = due
    return right / len(rows)


def frozen(rows: Sequence[Row]) -> float:
    """Return the accuracy of the start, unchanged."""
    answers = started().predict([x for x, _ in rows])
    return float(np.mean([a.output == y for a, (_, y) in zip(answers, rows, strict=True)]))


def no_change(labels: Sequence[bool], delay: int) -> float:
    """Return the accuracy of repeating the last label that is known."""
    gap = delay + 1
    return float(np.mean(np.array(labels[gap:]) == np.array(labels[:-gap])))


def majority(labels: Sequence[bool], delay: int) -> float:
    """Return the accuracy of the label seen most often so far."""
    seen: Counter[bool] = Counter()
    right = 0
    for i, label in enumerate(labels):
        if i > delay:
            seen[labels[i - delay - 1]] += 1
        right += label == (seen.most_common(1)[0][0] if seen else False)
    return right / len(labels)


async def gated(
    rows: Sequence[Row], delay: int, settings: Settings, model: str
) -> tuple[float, str]:
    """Return the accuracy under a promotion policy, and its decisions by row."""
    waiting: deque[tuple[str, bool]] = deque()
    right, decisions, seen = 0, [], 0
    async with await Loop.open(settings, rng=random.Random(SEED)) as loop:
        stream = loop.stages(model).registry.keys.verdicts
        for i in range(0, len(rows), EVERY):
            block = rows[i : i + EVERY]
            answers = await asyncio.gather(*(loop.predict(model, x) for x, _ in block))
            right += sum(a["output"] == y for a, (_, y) in zip(answers, block, strict=True))
            waiting.extend(
                (a["prediction_id"], y) for a, (_, y) in zip(answers, block, strict=True)
            )
            due = [waiting.popleft() for _ in range(max(0, len(waiting) - delay))]
            await asyncio.gather(*(loop.feedback(name, "correction", y) for name, y in due))
            await loop.turn(model)
            count = int(await loop.store.call("XLEN", stream))
            for _, fields in reversed(await loop.store.latest(stream, count - seen or 1)):
                if count > seen:
                    decisions.append((i + EVERY, fields[b"v"]))
            seen = count
    return right / len(rows), _summary(decisions)


def _summary(decisions: Sequence[tuple[int, bytes]]) -> str:
    return " ".join(
        f"{verdict['action']}@{row}"
        for row, verdict in ((row, from_json(raw)) for row, raw in decisions)
        if verdict["action"] != "reject"
    )


def run(case: Case) -> Outcome:
    """Run everything on one case."""
    rows = streams.rows(case.stream, case.n, SEED)
    cut = int(WARM * case.n)
    _warm(case.learner, rows[:cut])
    rows = rows[cut:]
    labels = [y for _, y in rows]
    accuracy = {
        "ungated": ungated(rows, case.delay),
        "frozen": frozen(rows),
        "no change": no_change(labels, case.delay),
        "majority": majority(labels, case.delay),
    }
    decisions = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name, options in POLICIES.items():
            found = asyncio.run(_gated(rows, case, options, Path(folder)))
            accuracy[name], decisions[name] = found
    return Outcome(case, accuracy, decisions)


async def _gated(
    rows: Sequence[Row], case: Case, options: dict[str, Any], folder: Path
) -> tuple[float, str]:
    spec = {
        "task": "classification",
        "labels": models.LABELS,
        "learner": f"{__name__}:started",
        "audit": options["audit"],
        "promotion": {"policy": f"policies.promotion:{options['policy']}"},
        "publish_s": 0.0,
    }
    async with await open_store("auto", data_dir=folder) as store:
        await store.call("FLUSHALL")
        settings = Settings(store=store.url, data_dir=folder, models={"web": spec})
        return await gated(rows, case.delay, settings, "web")


# --- what is told -------------------------------------------------------------------------------


def render(outcomes: Sequence[Outcome]) -> str:
    """Return the tables: accuracies, shares of ungated, and decisions."""
    names = list(outcomes[0].accuracy)
    head = ["stream", "learner", "delay", *names]
    cells = [[*_title(o.case), *(f"{100 * o.accuracy[n]:.1f}" for n in names)] for o in outcomes]
    gates = list(POLICIES)
    shares = [
        [*_title(o.case), *(f"{o.accuracy[n] / o.accuracy['ungated']:.3f}" for n in gates)]
        for o in outcomes
    ]
    bars = [
        Bar(f"{gate}: worst share of ungated", min(_shares(outcomes, gate)), 0.98) for gate in gates
    ]
    bars += [
        Bar(f"{gate}: worst points above frozen", min(_gains(outcomes, gate)), 0.0)
        for gate in gates
    ]
    said = [
        f"- {', '.join(_title(o.case))}, {name}: {o.decisions[name] or 'nothing moved'}"
        for o in outcomes
        for name in gates
    ]
    return "\n\n".join(
        [
            "Served accuracy, %",
            report.table(head, cells),
            "Share of ungated",
            report.table(["stream", "learner", "delay", *gates], shares),
            report.bars(bars),
            "What the gate decided, after which row (rejections left out)",
            "\n".join(said),
        ]
    )


def _shares(outcomes: Sequence[Outcome], gate: str) -> list[float]:
    return [o.accuracy[gate] / o.accuracy["ungated"] for o in outcomes]


def _gains(outcomes: Sequence[Outcome], gate: str) -> list[float]:
    return [100 * (o.accuracy[gate] - o.accuracy["frozen"]) for o in outcomes]


def _title(case: Case) -> list[str]:
    return [case.stream, case.learner, str(case.delay)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases, two at a time, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks drift", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two streams, 3,000 rows")
    parser.add_argument("--full", action="store_true", help="the Hoeffding tree as well")
    chosen = parser.parse_args(arguments)
    n = 3_000 if chosen.quick else 12_000
    learners = list(LEARNERS) if chosen.full else ["LR"]
    names = list(streams.STREAMS)[: 2 if chosen.quick else None]
    cases = [Case(s, learner, d, n) for learner in learners for s in names for d in DELAYS]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        outcomes = list(pool.map(run, cases))
    title = f"Drift: {n:,} rows a stream, a turn every {EVERY} predictions, seed {SEED}"
    command = "python -m benchmarks drift" + " --full" * chosen.full
    report.publish("drift", title, render(outcomes), command=command, keep=not chosen.quick)
