"""What asking and observing cost those who are answered: the same model with and without them.

Both models are served by one gateway, at one time, and asked in turn, round by round: one with the
defaults, observers looking at answers a second after they were given, and one that asks nothing and
observes nothing. Durable answers over the whole ingress; policy `Always`, 10 % audited.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import models, report
from benchmarks.load import Load, apart, drive, post
from benchmarks.report import Bar
from benchmarks.stack import free_port
from online_learner.settings import Settings
from serve_app import local

CONNECTIONS = 64
SECONDS, ROUNDS, MANY_ROUNDS = 2.5, 9, 21
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
    off = runs["off"]
    shares = {
        name: [run.per_s / beside.per_s for run, beside in zip(found, off, strict=True)]
        for name, found in runs.items()
    }
    rows = [
        [
            name,
            report.number(statistics.median(run.per_s for run in found)),
            f"{statistics.median(run.percentile(99) for run in found):.1f}",
            f"{statistics.median(shares[name]):.3f}",
            f"{statistics.stdev(shares[name]) / len(found) ** 0.5:.3f}",
            str(sum(run.failed for run in found)),
        ]
        for name, found in runs.items()
    ]
    head = ["model", "answers a second", "p99 ms", "against off", "s.e.", "failed"]
    cost = 100.0 * (1.0 - statistics.median(shares["on"]))
    bars = [Bar("throughput that asking and observing cost", cost, 5.0, " %", at_most=True)]
    return report.table(head, rows), bars


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
