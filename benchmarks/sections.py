"""Benchmarks in sections: each gives its tables and its bars, and they make one page."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks import report
from benchmarks.report import Bar

Found = tuple[str, list[Bar]]
Section = Callable[[bool], Found]


def run(
    name: str,
    title: str,
    sections: Mapping[str, Section],
    arguments: Sequence[str] | None,
    *,
    at_once: int = 2,
) -> None:
    """Run the sections, each in a process of its own, print them, and keep the page.

    Where only some are run, they take their places in the page, and the others stay.

    Parameters
    ----------
    name, title
        The file in `results/`, and what stands above it.
    sections
        By what they are about; each is told whether as many runs are wanted as the bars ask for.
    at_once
        Sections that run side by side.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=title)
    parser.add_argument("--quick", action="store_true", help="print only, keep no table")
    parser.add_argument("--full", action="store_true", help="as many runs as the bars ask for")
    parser.add_argument(
        "--only", metavar="TEXT", type=str.lower, default="", help="sections like it"
    )
    chosen = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes: each has one core
    wanted = {title: work for title, work in sections.items() if chosen.only in title.lower()}
    with ProcessPoolExecutor(
        at_once, mp_context=get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        waiting = {title: pool.submit(_told, work, chosen.full) for title, work in wanted.items()}
        found = {title: future.result() for title, future in waiting.items()}
    kept = report.sections(name) if chosen.only else {}
    parts = {title: {**kept, **found}.get(title) for title in sections}
    shown = found if chosen.quick else {title: text for title, text in parts.items() if text}
    text = "\n\n".join(f"## {title}\n\n{text}" for title, text in shown.items())
    command = f"python -m benchmarks {name}" + " --full" * chosen.full
    report.publish(name, title, text, command=command, keep=not chosen.quick)


def _told(work: Section, full: bool) -> str:
    """Return what was aimed at in a section, its tables, and how long it took."""
    start = time.monotonic()
    text, bars = work(full)
    took = f"Took {time.monotonic() - start:.0f} s."
    return "\n\n".join([report.bars(bars), text, took])
