"""How fast the learner learns from the stream, and the gate judges: one process, the real store.

The feedback stream is filled with joined records first, as the door writes them; then the trainer
takes turns until it is empty: read, check, learn, commit, publish.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from river import datasets

from benchmarks import models, report
from benchmarks.load import apart
from benchmarks.report import Bar
from online_learner.loop import Loop
from online_learner.settings import Settings

KINDS = {"River LR": "phishing", "Hoeffding tree": "hoeffding"}


def examples_per_s(learner: str, n: int) -> float:
    """Return how many examples a second go from the stream into committed weights."""
    return asyncio.run(_timed(learner, n, _learn, policy="policies.promotion:Always"))


def ms_per_audit(learner: str, n: int) -> float:
    """Return the time that the gate takes for one settled audit, in ms."""
    return 1000 / asyncio.run(_timed(learner, n, _judge, policy="policies.promotion:Leash"))


async def _timed(learner: str, n: int, stage: Callable[..., object], *, policy: str) -> float:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        web = models.spec(learner, promotion={"policy": policy})
        settings = Settings(data_dir=Path(folder), models={"web": web})
        async with await Loop.open(settings, rng=random.Random(0)) as loop:
            await _fill(loop, n)
            return n / await stage(loop)


async def _fill(loop: Loop, n: int) -> None:
    """Predict and correct `n` times, many at once."""
    rows = list(datasets.Phishing())
    for start in range(0, n, 250):
        block = [rows[i % len(rows)] for i in range(start, min(n, start + 250))]
        answers = await asyncio.gather(*(loop.predict("web", x) for x, _ in block))
        names = [str(answer["prediction_id"]) for answer in answers]
        truths = [bool(y) for _, y in block]
        await asyncio.gather(
            *(loop.feedback(*said) for said in zip(names, ["correction"] * n, truths, strict=False))
        )


async def _learn(loop: Loop) -> float:
    trainer = loop.stages("web").trainer
    started = time.perf_counter()
    while await trainer.turn():
        pass
    await trainer.publish()
    return time.perf_counter() - started


async def _judge(loop: Loop) -> float:
    await _learn(loop)
    gatekeeper = loop.stages("web").gatekeeper
    started = time.perf_counter()
    while await gatekeeper.turn():
        pass
    return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks learning", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    quick = parser.parse_args(arguments).quick
    n, rounds = (5_000, 1) if quick else (30_000, 3)

    def median(measure: Callable[[str, int], float], learner: str, n: int) -> float:
        return statistics.median(apart(measure, learner, n) for _ in range(rounds))

    rates = {name: median(examples_per_s, learner, n) for name, learner in KINDS.items()}
    audit_ms = median(ms_per_audit, "phishing", n // 5)
    cells = [[f"{name}, examples a second", report.number(rate)] for name, rate in rates.items()]
    cells.append(["the gate, ms a settled audit", f"{audit_ms:.3f}"])
    text = report.table(["from the stream to committed state", "measured"], cells)
    text += "\n\n" + report.bars([Bar("River LR", rates["River LR"], 20_000, "/s")])
    command = "python -m benchmarks learning"
    report.publish("learning", "Learning and judging", text, command=command, keep=not quick)
