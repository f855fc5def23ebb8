"""Gateways by load: more of them while many ask at once, fewer after, and no request fails."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from benchmarks import load, models, report, stack
from benchmarks.load import Load
from benchmarks.report import Bar
from online_learner.cli.network import family
from online_learner.settings import GatewaysSpec

BOUNDS = GatewaysSpec(min=1, max=3, target_ongoing_requests=4)
MANY, FEW = 24, 1
BUSY_S, CALM_S = 40.0, 90.0
GATEWAY = "ray::ServeReplica:gateway:Gateway"


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it: when there were how many gateways, and what was answered."""

    up_s: float
    down_s: float
    busy: Load
    calm: Load


def measure() -> Found:
    """Ask with many connections until all gateways are there, then with one until one is left."""
    with (
        stack.running("fast", gateways=BOUNDS, **models.spec()) as running,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        body = b'{"features": {"a": 1.0}}'
        request = load.post(f"{running.url}/v1/models/web/predict", body, key=running.key)

        def ask(connections: int, seconds: float) -> Future[Load]:
            return pool.submit(
                load.drive, running.url, [request], connections=connections, seconds=seconds
            )

        busy = ask(MANY, BUSY_S)
        up_s = _until(lambda: _gateways() >= BOUNDS.max, busy)
        busy.result()
        calm = ask(FEW, CALM_S)
        down_s = _until(lambda: _gateways() <= BOUNDS.min, calm)
        return Found(up_s, down_s, busy.result(), calm.result())


def _gateways() -> int:
    titles = (title_of(pid) for pid in family(os.getpid()))
    return sum(title.startswith(GATEWAY) for title in titles)


def title_of(pid: int) -> str:
    """Return what a process calls itself."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""


def _until(condition: Callable[[], bool], running: Future[Load]) -> float:
    """Return after how long it was true; not a number where the load ended before."""
    started = time.monotonic()
    while not condition():
        if running.done():
            return float("nan")
        time.sleep(0.1)
    return time.monotonic() - started


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it, and keep the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scaling", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="print only, keep no table")
    chosen = parser.parse_args(arguments)
    found = load.apart(measure)
    failed = found.busy.failed + found.calm.failed
    bars = [
        Bar("1 gateway to 3, after the load began", found.up_s, 30.0, " s", at_most=True),
        Bar("3 gateways to 1, after it ended", found.down_s, 75.0, " s", at_most=True),
        Bar("requests that failed", failed, 0, "", at_most=True),
    ]
    rows = [
        [f"{n} connections", f"{run.per_s:,.0f}", f"{run.percentile(99):.1f}", str(run.failed)]
        for n, run in ((MANY, found.busy), (FEW, found.calm))
    ]
    table = report.table(["load", "a second", "p99 ms", "failed"], rows)
    text = f"{report.bars(bars)}\n\n`gateways: {BOUNDS.model_dump()}`\n\n{table}"
    report.publish(
        "scaling",
        "Gateways by load",
        text,
        command="python -m benchmarks scaling",
        keep=not chosen.quick,
    )


if __name__ == "__main__":
    main()
