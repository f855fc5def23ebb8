"""A dataset of a log of a million answers: how long, how much memory, and is it the same again.

Each compile is a process of its own, with a Ray of its own where it has workers. Memory is the sum
of the proportional set sizes of it and of all that it starts, looked at four times a second.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import logs, report
from benchmarks.compiled import stages_of
from benchmarks.report import Bar
from online_learner.archive.place import Place
from online_learner.store import open_store

SIZES = (20_000, 50_000, 100_000)
FULL_SIZES = (100_000, 250_000, 500_000, 1_000_000)
LIMIT_S, LIMIT_BYTES = 180.0, 2 << 30
LINEAR = 1.5  # times what a signal takes in the smallest log
_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Run:
    """One compile: its wall time in seconds, most memory in bytes, and what came of it."""

    predictions: int
    workers: int
    took_s: float
    most_bytes: int
    found: dict[str, Any]


def section(full: bool) -> tuple[str, list[Bar]]:
    """Compile logs of several sizes, the largest with several numbers of workers, and twice."""
    sizes = FULL_SIZES if full else SIZES
    runs = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            written = asyncio.run(_write(folder, size))
            ways = (2, 2, 1, 0) if size == sizes[-1] else (2, 0)
            runs += [_run(folder, size, workers) for workers in ways]
            print(f"{size:,} answers, {written:,} signals: {len(ways)} compiled", flush=True)
    last = [run for run in runs if run.predictions == sizes[-1]]
    slowest = max(run.took_s for run in last if run.workers)
    bars = [
        Bar(f"{sizes[-1]:,} answers: time", slowest, LIMIT_S, " s", at_most=True),
        Bar(
            "memory of all processes",
            max(run.most_bytes for run in runs) / (1 << 30),
            LIMIT_BYTES / (1 << 30),
            " GiB",
            at_most=True,
        ),
        Bar("hashes of four compiles", len({r.found["id"] for r in last}), 1, at_most=True),
        Bar("a signal, against the smallest log", _growth(runs), LINEAR, "x", at_most=True),
    ]
    return f"{_table(runs)}\n\n{_left_out(last[0])}", bars


def _growth(runs: list[Run]) -> float:
    """Return what a signal takes in the largest log, over what it takes in the smallest.

    Without workers, so that the time in which Ray starts hides nothing.
    """
    alone = [run for run in runs if not run.workers]
    each = [run.found["took_s"] / run.found["counts"]["signals"] for run in alone]
    return float(each[-1] / each[0])


def _table(runs: list[Run]) -> str:
    head = ["answers", "signals", "rows", "workers", "time", "memory", "signals/s", "hash"]
    rows = [
        [
            f"{run.predictions:,}",
            f"{run.found['counts']['signals']:,}",
            f"{run.found['counts']['rows']:,}",
            str(run.workers or "none"),
            f"{run.took_s:.1f} s",
            f"{run.most_bytes / (1 << 20):,.0f} MiB",
            f"{run.found['counts']['signals'] / run.took_s:,.0f}",
            run.found["id"],
        ]
        for run in runs
    ]
    return report.table(head, rows)


def _left_out(run: Run) -> str:
    found = sorted(run.found["excluded"].items(), key=lambda item: -item[1])
    told = ", ".join(f"{reason} {count:,}" for reason, count in found)
    return f"Left out of the largest: {told}."


async def _write(folder: Path, size: int) -> int:
    """Write a log, and return how many signals it has."""
    async with await open_store("auto", data_dir=folder) as store:
        stages = stages_of(store, folder)
        world = logs.World(size)
        await logs.write(stages.registry, Place.open(folder).at("archive"), world)
        await store.call("SAVE")
        return world.signals


def _run(folder: Path, size: int, workers: int) -> Run:
    """Compile in a process of its own, into a folder of its own, and watch it."""
    start = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.compiled", str(folder), str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        most = 0
        while process.poll() is None:
            most = max(most, _memory(process.pid))
            time.sleep(_EVERY_S)
        took_s = time.monotonic() - start
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    if process.returncode:
        raise RuntimeError(f"a compile with {workers} workers failed")
    return Run(size, workers, took_s, most, json.loads(lines[-1]))


def _memory(pid: int) -> int:
    """Return the memory of a process and of all below it, in bytes, each page counted once."""
    total = 0
    for one in _below(pid):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:")
    return total << 10


def _below(pid: int) -> list[int]:
    found, at = [pid], 0
    while at < len(found):
        try:
            tasks = Path(f"/proc/{found[at]}/task").iterdir()
            found += [int(c) for task in tasks for c in (task / "children").read_text().split()]
        except OSError:
            pass
        at += 1
    return found
