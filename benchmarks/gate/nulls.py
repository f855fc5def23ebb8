"""Whether a candidate that is not better is ever promoted more often than alpha allows.

Each null is a way in which real feedback deceives. All are looked at after every label, for the
whole length of the run; the promise is about the one look that is best for the candidate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import report
from benchmarks.gate.kernel import Bools, Rng, Signs, Stream, chunks, draw, ever, log_es
from benchmarks.report import Bar
from online_learner.evidence import BettingTest, raised_null
from online_learner.evidence.betting import Floats

ALPHAS = (0.05, 0.01)
SEED = 11
M = raised_null(1.5)
Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Null:
    """One way of not being better: how audits come, and the raise that the gate is given."""

    title: str
    make: Callable[[Rng, Shape], Stream]
    m: float = 0.0


# --- the nulls ----------------------------------------------------------------------------------


def equal(rng: Rng, shape: Shape) -> Stream:
    """Draw a candidate that wins as often as it loses; one label in five tells them apart."""
    return Stream(draw(rng, 0.1, 0.1, shape))


def worse(rng: Rng, shape: Shape) -> Stream:
    """Draw a candidate that is two points worse."""
    return Stream(draw(rng, 0.09, 0.11, shape))


def drifting(rng: Rng, shape: Shape, *, period: int = 200, first: float = -0.1) -> Stream:
    """Draw a candidate that is `first` for half a period, and makes up for it in the other half.

    A promotion is an error while the true mean so far is at most 0.
    """
    means = np.where(np.arange(shape[1]) % period < period // 2, first, -first)
    so_far = np.cumsum(means) <= 1e-9
    return Stream(draw(rng, 0.1 + means / 2, 0.1 - means / 2, shape), error=so_far)


def fading(rng: Rng, shape: Shape) -> Stream:
    """Draw a candidate that starts 20 points better, is 10 points worse then, and ends equal."""
    looks = np.arange(shape[1])
    means = np.where(looks < 50, 0.2, np.where(looks < 150, -0.1, 0.0))
    so_far = np.cumsum(means) <= 1e-9
    return Stream(draw(rng, 0.1 + means / 2, 0.1 - means / 2, shape), error=so_far)


def bursts(rng: Rng, shape: Shape, *, length: int = 50) -> Stream:
    """Draw raters in bursts, loud after a lost burst and quiet after a won one; each point fair."""
    d = draw(rng, 0.5, 0.5, shape)
    heard = rng.random(shape, dtype=np.float32)
    for start in range(length, shape[1], length):
        lost = d[:, start - length : start].sum(axis=1, dtype=np.int32) < 0
        loud = np.where(lost, 1.0, 0.02)[:, None]
        d[:, start : start + length] *= heard[:, start : start + length] < loud
    return Stream(d)


def reordered(rng: Rng, shape: Shape) -> Stream:
    """Draw an equal candidate whose labels come up to 500 predictions late, in any order."""
    delay = rng.integers(0, 501, shape, dtype=np.int32)
    return Stream(draw(rng, 0.1, 0.1, shape), arrival=np.arange(shape[1], dtype=np.int32) + delay)


def delayed_by_outcome(rng: Rng, shape: Shape) -> Stream:
    """Draw an equal candidate: errors are labelled at once, right answers 50-500 later."""
    d, right = _with_champion(rng, shape)
    delay = np.where(right, rng.integers(50, 501, shape, dtype=np.int32), 0)
    return Stream(d, arrival=np.arange(shape[1], dtype=np.int32) + delay)


def answered_by_outcome(
    rng: Rng, shape: Shape, *, wrong: float = 0.6, right: float = 0.5
) -> Stream:
    """Draw an equal candidate whose audits are answered more often where the champion was wrong."""
    d, was_right = _with_champion(rng, shape)
    answered = rng.random(shape, dtype=np.float32) < np.where(was_right, right, wrong)
    return Stream(d, answered=answered)


def at_gamma(rng: Rng, shape: Shape) -> Stream:
    """Draw the worst that G = 1.5 allows: 60 % answered where it was wrong, 40 % where right."""
    return answered_by_outcome(rng, shape, wrong=0.6, right=0.4)


def exploring(rng: Rng, shape: Shape) -> Stream:
    """Draw an identical candidate: unexplored, both always say the same."""
    return Stream(np.zeros(shape, dtype=np.int8))


def explored(rng: Rng, shape: Shape) -> Stream:
    """Draw the mistake: the champion scored on what it showed, one answer in ten explored.

    The model is right four times out of five, and then what was explored is wrong; where the model
    is wrong, it is right.
    """
    return Stream(draw(rng, 0.1 * 0.8, 0.1 * 0.2, shape))


def _with_champion(rng: Rng, shape: Shape) -> tuple[Signs, Bools]:
    """Draw differences of equal models, and whether the champion was right; four times in five."""
    u = rng.random(shape, dtype=np.float32)
    d = (u < 0.1).astype(np.int8) - ((u >= 0.1) & (u < 0.2)).astype(np.int8)
    return d, (u >= 0.1) & (u < 0.9)


NULLS = (
    Null("equal", equal),
    Null("worse by 2 points", worse),
    Null("drifting: worse, then as much better", drifting),
    Null("drifting: better, then worse, then equal", fading),
    Null("bursty raters, each point fair", bursts),
    Null("labels delayed and reordered", reordered),
    Null("labels delayed by outcome", delayed_by_outcome),
    Null("answered 60 / 50 % by outcome", answered_by_outcome, M),
    Null("answered 60 / 40 %: all that G = 1.5 allows", at_gamma, M),
    Null("identical to an exploring champion", exploring),
)
MISTAKES = (
    Null("labels delayed by outcome, taken by arrival", delayed_by_outcome),
    Null("answered 60 / 50 % by outcome, null not raised", answered_by_outcome),
    Null("identical to an exploring champion, what was shown scored", explored),
)


# --- how often they are promoted ----------------------------------------------------------------


def promoted(null: Null, runs: int, looks: int, *, by_arrival: bool = False) -> list[float]:
    """Return the share of runs ever promoted in error, for each alpha."""
    found = np.zeros(len(ALPHAS))
    for rng, shape in chunks(runs, looks, SEED):
        stream = null.make(rng, shape)
        stream = stream.by_arrival() if by_arrival else stream
        log_e = log_es(stream.settled(), null.m)
        counts = stream.in_time() & np.asarray(stream.error)
        found += [ever(log_e, -math.log(alpha), counts).sum() for alpha in ALPHAS]
    return [float(share) for share in found / runs]


def opposed(runs: int, looks: int) -> list[float]:
    """Return the same for an adversary who sees the e-value and chooses the next fair point.

    Coins while far from the goal; close to it ten small wins to one large loss, so that nothing is
    lost by overshooting; and no more points once it is there.
    """
    found = []
    for alpha in ALPHAS:
        rng, test = np.random.default_rng(SEED), BettingTest.fresh(0.0, (runs,))
        reached = np.zeros(runs, dtype=bool)
        for _ in range(looks):
            test.update(np.where(reached, 0.0, _fair(rng, test.log_es + math.log(alpha))))
            reached |= test.log_es >= -math.log(alpha)
        found.append(float(reached.mean()))
    return found


def _fair(rng: Rng, to_goal: Floats) -> Floats:
    u = rng.random(len(to_goal))
    close = np.where(u < 10 / 11, 0.1, -1.0)
    return np.where(to_goal > -0.7, close, np.where(u < 0.5, 1.0, -1.0))


# --- what is told -------------------------------------------------------------------------------


def bound(alpha: float, runs: int) -> float:
    """Return alpha and three standard errors of a share of so many runs."""
    return alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return the table of the nulls, that of the mistakes, and the bars."""
    runs, looks = (10_000, 20_000) if full else (2_000, 5_000)
    shares = {null: promoted(null, runs, looks) for null in NULLS}
    shares[Null("adversarial stopping and points", equal)] = opposed(runs, looks)
    wrong = {n: promoted(n, runs, looks, by_arrival="arrival" in n.title) for n in MISTAKES}
    bars = [
        Bar(f"alpha {alpha}, {null.title}: ever promoted", found, bound(alpha, runs), at_most=True)
        for null, of_null in shares.items()
        for alpha, found in zip(ALPHAS, of_null, strict=True)
    ]
    text = (
        f"{runs:,} runs of {looks:,} looks, seed {SEED}: share ever promoted in error.\n\n"
        f"{_table(shares)}\n\n"
        f"The same with one rule left out; here the promise does not hold.\n\n{_table(wrong)}"
    )
    return text, bars


def _table(shares: dict[Null, list[float]]) -> str:
    head = ["candidate", "m", *(f"alpha {alpha}" for alpha in ALPHAS)]
    rows: Sequence[Sequence[str]] = [
        [null.title, f"{null.m:.1f}", *(f"{share:.4f}" for share in found)]
        for null, found in shares.items()
    ]
    return report.table(head, rows)
