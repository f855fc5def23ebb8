"""What asking and observing cost those who are answered: the same model with and without them.

Both models are served by one gateway, at one time, and asked in turn, round by round: one with the
defaults, observers looking at answers a second after they were given, and one that asks nothing and
observes nothing. Durable answers over the whole ingress; policy `Always`, 10 % audited. A machine
has moods that are larger than what is looked for; so each part alone is timed as well.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from river import datasets

from benchmarks import models, report
from benchmarks.load import Load, apart, drive, post
from benchmarks.report import Bar
from benchmarks.stack import free_port
from online_learner.loop import Loop
from online_learner.requests import PredictRequest
from online_learner.settings import Settings
from serve_app import local

CONNECTIONS = 64
SECONDS, ROUNDS, MANY_ROUNDS = 1.5, 24, 60
BLOCKS, SEEN = 40, 400
ALWAYS = {"policy": "policies.promotion:Always"}
NOBODY: dict[str, Any] = dict.fromkeys(("response", "raters", "drift", "implicit", "scores"))
VARIANTS: dict[str, dict[str, Any]] = {
    "on": {"observe": {"window_s": 1.0}},
    "off": {"ask_budget": 0.0, "observe": NOBODY},
    "off-again": {"ask_budget": 0.0, "observe": NOBODY},  # how far two equal ones are apart
}


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return the table, and what was aimed at."""
    runs = apart(measure, MANY_ROUNDS if full else ROUNDS)
    off = [run.per_s for run in runs["off"]]
    usual = [statistics.fmean(pair) for pair in zip(off, _rates(runs["off-again"]), strict=True)]
    shares = {
        name: [rate / beside for rate, beside in zip(_rates(found), usual, strict=True)]
        for name, found in runs.items()
    }
    rows = [
        [
            name,
            report.number(statistics.median(run.per_s for run in found)),
            f"{statistics.median(run.percentile(99) for run in found):.1f}",
            f"{statistics.fmean(shares[name]):.3f}",
            f"{statistics.stdev(shares[name]) / len(found) ** 0.5:.3f}",
            str(sum(run.failed for run in found)),
        ]
        for name, found in runs.items()
    ]
    head = ["model", "answers a second", "p99 ms", "against both off", "s.e.", "failed"]
    cost = 100.0 * (1.0 - statistics.fmean(shares["on"]))
    parts = apart(_parts)
    own = parts["on"] - parts["off"]
    alone = [
        ["answering, without its log, us", f"{1e6 * parts['on']:.1f}", f"{1e6 * parts['off']:.1f}"],
        ["observing, us an answer looked at", f"{1e6 * parts['seen']:.0f}", "-"],
    ]
    off_per_s = statistics.median(off)
    most_per_s = Settings(models={"m": models.spec()}).models["m"].observe.most_per_s
    summed = 100.0 * (own * off_per_s + parts["seen"] * most_per_s)
    bars = [
        Bar("throughput that asking and observing cost", cost, 5.0, " %", at_most=True),
        Bar("the same by its parts, all on one core", summed, 5.0, " %", at_most=True),
    ]
    parts_told = report.table(["each part alone", "on", "off"], alone)
    return f"{report.table(head, rows)}\n\n{parts_told}", bars


def _rates(runs: Sequence[Load]) -> list[float]:
    return [run.per_s for run in runs]


def _parts() -> dict[str, float]:
    """Return seconds of one process: for an answer, on and off, and for one that is looked at."""
    return asyncio.run(_timed())


async def _timed() -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        found: dict[str, list[float]] = {"on": [], "off": []}
        specs = {n: models.spec(promotion=ALWAYS, **VARIANTS[n]) for n in found}
        settings = Settings(data_dir=Path(folder), models=specs)
        async with await Loop.open(settings, rng=random.Random(0)) as loop:
            asked = [PredictRequest(features=x, tags={}) for x, _ in datasets.Phishing()]
            for number in range(BLOCKS):
                for name in sorted(found, reverse=bool(number % 2)):
                    predictor = loop.stages(name).predictor
                    started = time.perf_counter()
                    for request in asked:
                        predictor.answer(request)
                    found[name].append((time.perf_counter() - started) / len(asked))
            return {**{n: min(t) for n, t in found.items()}, "seen": await _seen(loop, asked)}


async def _seen(loop: Loop, asked: Sequence[PredictRequest]) -> float:
    """Return the processor time of an answer that is looked at; every tenth is labelled."""
    observer = loop.stages("on").observer
    await observer.turn()
    for number, request in enumerate(asked[:SEEN]):
        answer = await loop.predict("on", dict(request.features))
        if number % 10 == 0:
            await loop.feedback(str(answer["prediction_id"]), "correction", value=True)
    await asyncio.sleep(1.1)  # the window
    started = time.process_time()
    await observer.turn()
    return (time.process_time() - started) / SEEN


def measure(rounds: int) -> dict[str, list[Load]]:
    """Return the runs of each model, in turn."""
    found: dict[str, list[Load]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        specs = {
            name: models.spec(promotion=ALWAYS, **changes) for name, changes in VARIANTS.items()
        }
        settings = Settings(profile="fast", data_dir=Path(folder), models=specs)
        with local.running(settings, port=free_port()) as endpoint:
            loads = {}
            for name in VARIANTS:
                url = f"{endpoint.url}/v1/models/{name}/predict"
                loads[name] = url, [post(url, b, key=endpoint.key) for b in models.questions()]
            for load in loads.values():
                apart(drive, *load, connections=CONNECTIONS, seconds=SECONDS)
            for number in range(rounds):
                order = list(VARIANTS)
                for name in order if number % 2 else reversed(order):
                    run = apart(drive, *loads[name], connections=CONNECTIONS, seconds=SECONDS)
                    found[name].append(run)
    return found
