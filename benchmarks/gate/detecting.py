"""How soon the leash is pulled when it should be, and how seldom when it should not.

An anchor that is right in 80 of 100 answers walks behind a champion that was as good, until it
falls. Where both err on the same questions there is less noise: the errors of the two are
`independent`, `nested` (the champion is wrong wherever the anchor is), or half way between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks import report
from benchmarks.gate.kernel import Ints, Signs, alarm_times, draw
from benchmarks.report import Bar
from online_learner.evidence import Floats, gamma_of

GOAL = 10_000.0
ANCHOR = 0.8
RAISED = (0.0, 0.2)
QUIET = 1_000  # labels before the fall
SEED = 15
BARS = {0.3: (40, 90), 0.6: (105, 260)}  # right after the fall: labels, median and p99
SHARED = {"independent": 0.0, "half shared": 0.5, "nested": 1.0}  # errors


@dataclass(frozen=True, slots=True)
class Fall:
    """A champion that fell to `right`, and how far its errors cover those of the anchor."""

    right: float
    shared: str
    quiet: int
    m: float

    def chances(self) -> tuple[float, float]:
        """Return the probabilities that only the anchor is right, and only the champion."""
        lost = (1 - SHARED[self.shared]) * self.right * (1 - ANCHOR)
        return ANCHOR - self.right + lost, lost

    @property
    def title(self) -> str:
        """Return what it is called."""
        points = f"-{100 * (ANCHOR - self.right):.0f} points"
        return f"{points}, errors {self.shared}, {self.when}, m = {self.m:.1f}"

    @property
    def when(self) -> str:
        """Return when the fall comes."""
        return f"after {self.quiet:,} quiet labels" if self.quiet else "at once"


def labels_to_alarm(fall: Fall, runs: int) -> Ints:
    """Return how many labels after the fall each run alarms; early alarms are left out."""
    rng, shape = np.random.default_rng(SEED), (1, runs)
    win, loss = fall.chances()

    def draws(t: int) -> Signs:
        return np.ravel(draw(rng, *((0.1, 0.1) if t < fall.quiet else (win, loss)), shape))

    found = alarm_times(draws, fall.m, GOAL, fall.quiet + 5_000) - fall.quiet
    return found[found > 0]


def labels_between(m: float, discordance: float, runs: int, most: int) -> Ints:
    """Return how long each run lasts without an alarm, at the edge of the null."""
    rng = np.random.default_rng(SEED)
    win = discordance * gamma_of(m) / (1 + gamma_of(m))

    def draws(_: int) -> Signs:
        return np.ravel(draw(rng, win, discordance - win, (1, runs)))

    return alarm_times(draws, m, GOAL, most)


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return the tables of false and of true alarms, and the bars."""
    seldom, often = _false_alarms(*((1_000, 200_000) if full else (100, 60_000)))
    tables = [_falls(quiet, 10_000 if full else 1_000) for quiet in (QUIET, 0)]
    text = "\n\n".join([seldom, *(table for table, _ in tables)])
    return text, [*often, *(bar for _, bars in tables for bar in bars)]


def _false_alarms(runs: int, most: int) -> tuple[str, list[Bar]]:
    rows, bars = [], []
    for m in RAISED:
        for discordance in (0.05, 0.1, 0.2):
            found = labels_between(m, discordance, runs, most)
            title = f"{discordance:.0%} discordance, m = {m:.1f}"
            error = found.std() / runs**0.5
            rows.append([title, f"{found.mean():,.0f}", f"{error:,.0f}"])
            bars.append(Bar(f"false pulls, {title}: mean labels between", found.mean(), GOAL))
    text = (
        "Settled labels between false pulls, where the anchor wins as often as the null allows at "
        f"most. {runs:,} runs of {most:,} labels (those without an alarm count as so many), at a "
        f"level of {GOAL:,.0f}; seed {SEED}."
    )
    head = ["edge of the null", "mean", "standard error"]
    return f"{text}\n\n{report.table(head, rows)}", bars


def _falls(quiet: int, runs: int) -> tuple[str, list[Bar]]:
    rows, bars = [], []
    for right, aims in BARS.items():
        for shared in SHARED:
            cells = [f"{100 * (right - ANCHOR):+.0f} points, errors {shared}"]
            for m in RAISED:
                fall = Fall(right, shared, quiet, m)
                ends = np.quantile(labels_to_alarm(fall, runs), (0.5, 0.99), method="higher")
                cells += [f"{end:,.0f}" for end in ends]
                bars += _bars(fall, ends, aims) if quiet else []
            rows.append([*cells, f"{aims[0]} / {aims[1]}"])
    when = Fall(0.3, "nested", quiet, 0.0).when
    head = ["the champion falls", "m = 0.0", "p99", "m = 0.2", "p99", "aim"]
    return f"Labels to a pull, falling {when}.\n\n{report.table(head, rows)}", bars


def _bars(fall: Fall, ends: Floats, aims: tuple[int, int]) -> list[Bar]:
    return [
        Bar(f"{fall.title}: {name}", float(end), aim, at_most=True)
        for name, end, aim in zip(("median", "p99"), ends, aims, strict=True)
    ]
