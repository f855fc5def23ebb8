"""What it costs to ask for evidence first, where the world changes, and what it saves from lies.

The whole loop on the bundled store: predict, feedback after `delay` predictions, and a turn of all
stages every `EVERY` predictions. All start from the first 5 % of the rows, and are scored on the
others.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks import report
from benchmarks.drift import burst, served
from benchmarks.drift.world import EVERY, Size


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases, two at a time, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks drift", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few streams, 3,000 rows, no table")
    parser.add_argument("--full", action="store_true", help="trees, and more bursts")
    chosen = parser.parse_args(arguments)
    size = Size(3_000 if chosen.quick else 12_000, quick=chosen.quick, full=chosen.full)
    start = time.monotonic()
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes: each has one core
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        parts = [pool.map(section.run, section.cases(size)) for section in (served, burst)]
        text = "\n\n".join([served.render(list(parts[0])), burst.render(list(parts[1]))])
    title = f"Drift: a turn every {EVERY} predictions"
    command = "python -m benchmarks drift" + " --full" * chosen.full
    took = f"Took {time.monotonic() - start:.0f} s."
    report.publish("drift", title, f"{text}\n\n{took}", command=command, keep=not chosen.quick)
