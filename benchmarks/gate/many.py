"""Whether the promise is kept over an endless stream of candidates."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from benchmarks import report
from benchmarks.gate.kernel import Bools, chunks, draw, log_es
from benchmarks.report import Bar
from online_learner.evidence import log_threshold, log_threshold_spent
from online_learner.evidence.betting import Floats

CANDIDATES, PATIENCE = 1_000, 1_000
NULL_SHARE = 0.8
FDR = 0.05
SEED = 12
Goal = Callable[[int, int], float]  # candidate, promotions so far


@lru_cache
def by_default(k: int, promotions: int) -> float:
    """Return the goal of candidate `k`: 1/0.01 and e-LOND's level together."""
    return log_threshold(0.01, k=k, promotions=promotions, fdr=FDR)


@lru_cache
def strict(k: int, promotions: int) -> float:
    """Return the goal where an alpha of 0.05 is spent over all candidates."""
    return log_threshold_spent(FDR, k=k)


def each_alone(k: int, promotions: int) -> float:
    """Return the mistake: every candidate is tested as if it were the only one."""
    return -math.log(0.05)


def candidates(streams: int) -> tuple[Floats, Bools]:
    """Return the largest log e-value that each candidate reaches, and whether it is better.

    One label in five tells the models apart. A better candidate is ten points better, every other
    is equal. Both have shape `(streams, CANDIDATES)`.
    """
    best, better = [], []
    for rng, (size, _) in chunks(streams * CANDIDATES, PATIENCE, SEED):
        is_better = rng.random(size) >= NULL_SHARE
        win = np.where(is_better, 0.15, 0.1)[:, None]
        d = draw(rng, win, 0.2 - win, (size, PATIENCE))
        best.append(log_es(d, 0.0).max(axis=1))
        better.append(is_better)
    shape = (streams, CANDIDATES)
    return np.concatenate(best).reshape(shape), np.concatenate(better).reshape(shape)


def promote(best: Floats, goal: Goal) -> Bools:
    """Return which candidates of each stream are promoted, one after the other."""
    promoted = np.zeros(best.shape, dtype=bool)
    so_far = np.zeros(len(best), dtype=np.int64)
    for k in range(best.shape[1]):
        promoted[:, k] = best[:, k] >= [goal(k + 1, int(n)) for n in so_far]
        so_far += promoted[:, k]
    return promoted


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return the table of the rules, and the bars."""
    streams = 500 if full else 50
    best, better = candidates(streams)
    rules: dict[str, Goal] = {
        "1/alpha and e-LOND (default)": by_default,
        "alpha spent (strict)": strict,
        "each candidate alone at .05": each_alone,
    }
    found = {name: promote(best, goal) for name, goal in rules.items()}
    rows = [[name, *_cells(promoted, better)] for name, promoted in found.items()]
    head = ["rule", "promotions", "bad", "share bad", "streams with a bad one", "better ones found"]
    default, spent = (found[name] for name in list(rules)[:2])
    bars = [
        Bar("1,000 candidates: bad promotions", _bad(default, better), FDR, at_most=True),
        Bar(
            "1,000 candidates, strict: streams with a bad promotion",
            float((spent & ~better).any(axis=1).mean()),
            FDR,
            at_most=True,
        ),
    ]
    text = (
        f"{streams} streams of {CANDIDATES:,} candidates, {NULL_SHARE:.0%} of them equal, the "
        f"others +10 points at 20 % discordance; each is retired after {PATIENCE:,} labels. "
        f"m = 0, seed {SEED}.\n\n{report.table(head, rows)}"
    )
    return text, bars


def _bad(promoted: Bools, better: Bools) -> float:
    """Return the mean over the streams of the share of bad promotions."""
    bad = (promoted & ~better).sum(axis=1)
    return float((bad / np.maximum(1, promoted.sum(axis=1))).mean())


def _cells(promoted: Bools, better: Bools) -> list[str]:
    bad = promoted & ~better
    return [
        f"{promoted.sum(axis=1).mean():.1f}",
        f"{bad.sum(axis=1).mean():.2f}",
        f"{_bad(promoted, better):.4f}",
        f"{bad.any(axis=1).mean():.3f}",
        f"{(promoted & better).sum() / better.sum():.1%}",
    ]
