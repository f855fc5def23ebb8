"""The gate's promise, simulated: false promotions, power, exposure, and the leash.

Large runs use the gate's arithmetic on whole arrays (`kernel`); the tests show that it computes the
numbers of `online_learner.evidence`. Each section gives its tables, and what was aimed at.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks import report
from benchmarks.gate import detecting, exposed, many, mutations, nulls, power, production, traps
from benchmarks.report import Bar

Found = tuple[str, list[Bar]]
Section = Callable[[bool], Found]

SECTIONS: dict[str, Section] = {
    "False promotions of one candidate": nulls.section,
    "Many candidates": many.section,
    "Labels to a promotion": power.section,
    "Exposure": exposed.section,
    "The leash": detecting.section,
    "Traps": traps.section,
    "Rules left out": mutations.section,
    "The whole loop": production.section,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all sections, two at a time, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gate", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="print only, keep no table")
    parser.add_argument("--full", action="store_true", help="as many runs as the bars ask for")
    chosen = parser.parse_args(arguments)
    start = time.monotonic()
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes: each has one core
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        waiting = {title: pool.submit(run, chosen.full) for title, run in SECTIONS.items()}
        found = {title: future.result() for title, future in waiting.items()}
    text = f"{render(found)}\n\nTook {time.monotonic() - start:.0f} s."
    command = "python -m benchmarks gate" + " --full" * chosen.full
    report.publish("gate", "The gate", text, command=command, keep=not chosen.quick)


def render(found: dict[str, Found]) -> str:
    """Return what was aimed at in all sections, and then their tables."""
    bars = [bar for _, of_section in found.values() for bar in of_section]
    parts = [report.bars(bars)]
    parts += [f"## {title}\n\n{text}" for title, (text, _) in found.items()]
    return "\n\n".join(parts)
