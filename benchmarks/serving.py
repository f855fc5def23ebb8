"""Predictions and feedback over HTTP, durable, beside the same application with parts left out.

Beside each other in one run: the `fast` ingress (HAProxy) and Ray's own proxy (`plain`), with and
without the log, and the same application on bare uvicorn. The store is the bundled server with its
log written out before every answer. Policy `Always`, 10 % audited: the state after trust. `/livez`
does nothing at all: it is the ceiling of the ingress on this machine, at this hour.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic_core import from_json, to_json

from benchmarks import models, report, stack
from benchmarks.load import Load, apart, drive, get, post
from benchmarks.report import Bar
from benchmarks.stack import Stack

WEB = models.spec(promotion={"policy": "policies.promotion:Always"})
CONNECTIONS = (1, 16, 64)
BATCH = 64
BATCH_CONNECTIONS = 8
IDS_A_SECOND = 40_000  # more than can be accepted


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure: `rounds` rounds of `seconds` for each number."""

    seconds: float = 3.0
    rounds: int = 3


@dataclass(slots=True)
class Measured:
    """One line of the table: the runs of one variant at one number of connections."""

    variant: str
    connections: int
    runs: list[Load] = field(default_factory=list)
    items: int = 1  # of a request

    @property
    def per_s(self) -> float:
        """Median over the rounds of items answered a second."""
        return self.items * statistics.median(run.per_s for run in self.runs)

    def row(self) -> list[str]:
        """Return the cells of the table."""
        p50, p99 = (statistics.median(r.percentile(p) for r in self.runs) for p in (50, 99))
        failed = str(sum(run.failed for run in self.runs))
        cells = [self.variant, str(self.connections), report.number(self.per_s)]
        return [*cells, f"{p50:.2f}", f"{p99:.2f}", failed]


# --- what is measured -------------------------------------------------------------------------


def measure(plan: Plan) -> list[Measured]:
    """Measure every variant in turn, round by round, while all of them run."""
    with (
        stack.beside("fast", **WEB) as (fast, sides),
        stack.beside("plain", **WEB) as (plain, more),
    ):
        loads = {side: _questions(url, fast.key) for side, url in sides.items()}
        loads |= {side: _questions(url, plain.key) for side, url in more.items()}
        loads["fast, /livez"] = fast.url, [get(f"{fast.url}/livez")]
        predictions = _side_by_side(loads, plan)
        return predictions + _batches(fast, plan) + _feedback(fast, plan)


def _questions(url: str, key: str) -> tuple[str, list[bytes]]:
    url += "/v1/models/web/predict"
    return url, [post(url, body, key=key) for body in models.questions()]


def _side_by_side(loads: dict[str, tuple[str, list[bytes]]], plan: Plan) -> list[Measured]:
    for load in loads.values():
        apart(drive, *load, connections=16, seconds=plan.seconds / 2)
    measured = [Measured(side, n) for n in CONNECTIONS for side in loads]
    for _ in range(plan.rounds):
        for line in measured:
            load, n = loads[line.variant], line.connections
            line.runs.append(apart(drive, *load, connections=n, seconds=plan.seconds))
    return measured


def _batches(running: Stack, plan: Plan) -> list[Measured]:
    url = f"{running.url}/v1/models/web/predict_batch"
    requests = [post(url, body, key=running.key) for body in models.batches(BATCH)]
    line = Measured(f"predict_batch of {BATCH}", BATCH_CONNECTIONS, items=BATCH)
    for _ in range(plan.rounds):
        line.runs.append(
            apart(drive, url, requests, connections=BATCH_CONNECTIONS, seconds=plan.seconds)
        )
    return [line]


def _feedback(running: Stack, plan: Plan) -> list[Measured]:
    """Measure feedback on predictions that had none: every signal is joined and appended."""
    single = Measured("feedback, single", 64)
    many = Measured(f"feedback_batch of {BATCH}", BATCH_CONNECTIONS, items=BATCH)
    for _ in range(plan.rounds):
        items = [
            {"prediction_id": name, "kind": "correction", "value": bool(i % 2)}
            for i, name in enumerate(_ids(running, int(IDS_A_SECOND * plan.seconds)))
        ]
        cut = len(items) // 4
        bodies = [to_json(item) for item in items[:cut]]
        single.runs.append(_once(running, "feedback", bodies, 64, plan))
        bodies = [to_json({"items": items[i : i + BATCH]}) for i in range(cut, len(items), BATCH)]
        many.runs.append(_once(running, "feedback_batch", bodies, BATCH_CONNECTIONS, plan))
    return [single, many]


def _once(
    running: Stack, route: str, bodies: Sequence[bytes], connections: int, plan: Plan
) -> Load:
    url = f"{running.url}/v1/{route}"
    requests = [post(url, body, key=running.key) for body in bodies]
    return apart(drive, url, requests, connections=connections, seconds=plan.seconds, repeat=False)


def _ids(running: Stack, count: int) -> list[str]:
    """Predict so many times, and return the ids."""
    url = f"{running.url}/v1/models/web/predict_batch"
    bodies = models.batches(BATCH)
    requests = [post(url, bodies[i % len(bodies)], key=running.key) for i in range(count // BATCH)]
    done = apart(drive, url, requests, connections=4, seconds=60, repeat=False, keep_bodies=True)
    return [answer["prediction_id"] for b in done.bodies for answer in from_json(b)["predictions"]]


# --- what is told -----------------------------------------------------------------------------


def render(measured: Sequence[Measured]) -> str:
    """Return both tables: what was measured, and how it stands against the bars."""
    head = ["variant", "connections", "a second", "p50 ms", "p99 ms", "failed"]
    rate = {(line.variant, line.connections): line.per_s for line in measured}
    logged = rate["fast", 64]
    bars = [
        Bar("fast / plain, 64 connections", logged / rate["plain", 64], 15, "x"),
        Bar("fast / without log, 64 connections", logged / rate["fast, no log", 64], 0.65, "x"),
        Bar(f"predict_batch of {BATCH}", _rate(measured, "predict_batch"), 25_000, "/s"),
        Bar("feedback, single posts", _rate(measured, "feedback, single"), 3_000, "/s"),
        Bar(f"feedback in batches of {BATCH}", _rate(measured, "feedback_batch"), 15_000, "/s"),
    ]
    return report.table(head, [line.row() for line in measured]) + "\n\n" + report.bars(bars)


def _rate(measured: Sequence[Measured], variant: str) -> float:
    return next(line.per_s for line in measured if line.variant.startswith(variant))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks serving", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    quick = parser.parse_args(arguments).quick
    plan = Plan(1.0, 1) if quick else Plan()
    measured = measure(plan)
    publish = report.publish
    publish(
        "serving",
        "Serving",
        render(measured),
        command="python -m benchmarks serving",
        keep=not quick,
    )
