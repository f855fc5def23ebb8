"""Ways in which feedback flatters a candidate; a worse one must not be promoted by any of them.

Each trap is lived through on the gate's own code. So that a zero means something, a candidate that
is ten points better is put to the same test where the trap is taken away.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks import report
from benchmarks.gate.world import Crowd, Outcome, Pair, World, lives, promoted
from benchmarks.report import Bar
from online_learner.evidence import Terms

BETTER, EQUAL, WORSE = Pair(0.10), Pair(0.0), Pair(-0.04)
FIVE_LABELS = replace(BETTER, labels=5), replace(WORSE, labels=5)
HONEST = World(BETTER)
PATIENCE = 2_000  # audits for the better candidate
WARY = Terms(gamma=1.5, malice=0.125, rater_share=0.1)  # m = 0.3
SAMPLED = Crowd(audit=0.2)
THUMBS = Crowd(kind="thumbs")
SILENCE = (1.0, 1.5, 2.0, 3.0, 5.0, math.inf)


@dataclass(frozen=True, slots=True)
class Trap:
    """What flatters the candidate, and what is left of it when that is taken away.

    Parameters
    ----------
    most
        The share of lives in which the candidate may be promoted.
    """

    title: str
    trap: World
    honest: World = HONEST
    most: float = 0.01


TRAPS = (
    Trap(
        "corrections volunteered where the champion was wrong",
        World(WORSE, replace(SAMPLED, volunteered=(1.0, 0.0))),
        World(BETTER, SAMPLED),
    ),
    Trap(
        "uncertain answers labelled through the queue",
        World(WORSE, replace(SAMPLED, queued=(0.9, 0.05))),
        World(BETTER, SAMPLED),
    ),
    Trap("five raters on one answer", World(WORSE, Crowd(opinions=5))),
    Trap(
        "thumbs, 5 labels, no exposure", World(FIVE_LABELS[1], THUMBS), World(FIVE_LABELS[0]), 0.0
    ),
    Trap(
        "thumbs, 5 labels, no exposure", World(FIVE_LABELS[0], THUMBS), World(FIVE_LABELS[0]), 0.0
    ),
    Trap(
        "10 % of the raters seek disagreement, m = 0.3",
        World(WORSE, Crowd(malice=0.1), audits=2_000, terms=WARY),
        World(BETTER, terms=WARY),
    ),
    Trap("one loud rater among 40 seeks disagreement", World(WORSE, Crowd(malice=0.3, eves=1))),
    Trap(
        "one rater alone, who is no auditor",
        World(BETTER, Crowd(raters=1)),
        World(BETTER, Crowd(raters=1, auditor=True)),
        0.0,
    ),
)


def silent(pair: Pair, gamma: float) -> World:
    """Return a world in which errors are answered `gamma` times as often as right answers."""
    return World(pair, Crowd(audited=(1.0, 1.0 / gamma)))


# --- what is told -------------------------------------------------------------------------------


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return the tables of the traps and of silence, and the bars."""
    runs = 1_000 if full else 100
    rows, bars = [], []
    for trap in TRAPS:
        share, audits = promoted(lives(trap.trap, runs)), trap.trap.audits
        honest = lives(replace(trap.honest, audits=PATIENCE), runs // 5)
        points = f"{100 * trap.trap.pair.gain:+.0f}"
        rows.append([trap.title, points, f"{audits:,}", f"{share:.3f}", *_cells(honest)])
        bars.append(Bar(f"{trap.title} ({points}): promoted", share, trap.most, at_most=True))
    head = ["trap", "points", "audits", "promoted", "+10, without it: promoted", "median audits"]
    text = (
        f"{runs:,} lives each, just one model right on 20 % of the questions; {runs // 5} lives of "
        f"the better candidate, of {PATIENCE:,} audits.\n\n{report.table(head, rows)}\n\n"
        "Who is content keeps silent, in the audits too: errors are answered G times as often as "
        "right answers. The promise is made for G = 1.5: an equal candidate breaks even there, and "
        "one that loses three times for two wins where G is half as much again, at 2.25. Share "
        f"promoted in 1,000 audits:\n\n{_silence(50 if full else 20)}"
    )
    return text, bars


def _silence(runs: int) -> str:
    pairs = (WORSE, EQUAL, BETTER)
    shares = {
        gamma: [promoted(lives(silent(pair, gamma), runs)) for pair in pairs] for gamma in SILENCE
    }
    rows = [[f"{gamma:g}", *(f"{share:.2f}" for share in of)] for gamma, of in shares.items()]
    return report.table(["G", "-4 points", "equal", "+10 points"], rows)


def _cells(outcomes: Sequence[Outcome]) -> list[str]:
    after = [outcome.after for outcome in outcomes if outcome.after is not None]
    median = f"{statistics.median(after):,.0f}" if after else "never"
    return [f"{promoted(outcomes):.3f}", median]
