"""Rewards of a logged share: whether the estimate is right, and the promise kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks import report
from benchmarks.gate.kernel import Exposed, Rng, chunks, ever, expose, first_crossing
from benchmarks.gate.nulls import ALPHAS, bound
from benchmarks.report import Bar
from online_learner.evidence import Floats

SHARE = 0.05  # of the requests, that the challenger answers
SEED = 14
RUNS = 200  # over which the bias is taken


@dataclass(frozen=True, slots=True)
class Arms:
    """Mean rewards of challenger and champion, and how often each reward is given at all.

    Parameters
    ----------
    answered
        The share of answers where the reward is 0, and where it is above.
    swing
        By how much the challenger gets worse and better again, every 1,000 requests.
    graded
        Whether rewards are ratings from one to five, instead of thumbs.
    """

    title: str
    challenger: float
    champion: float
    answered: tuple[float, float] = (1.0, 1.0)
    swing: float = 0.0
    graded: bool = False

    def means(self, looks: int) -> Floats:
        """Return the challenger's mean reward at each request."""
        down = np.arange(looks) % 1000 < 500
        return np.asarray(self.challenger + np.where(down, -self.swing, self.swing))

    def difference(self, looks: int) -> Floats:
        """Return the mean difference so far, at each request: what is to be estimated."""
        gaps = self.means(looks) - self.champion
        return np.asarray(np.cumsum(gaps) / np.arange(1, looks + 1))


EQUAL = (
    Arms("equal, thumbs", 0.7, 0.7),
    Arms("equal, ratings", 0.7, 0.7, graded=True),
    Arms("equal on average, thumbs, drifting by 20 points", 0.7, 0.7, swing=0.2),
    Arms("equal, thumbs, answered 60 / 50 % by outcome", 0.7, 0.7, answered=(0.6, 0.5)),
    Arms("5 points worse, answered 60 / 50 % by outcome", 0.65, 0.7, answered=(0.6, 0.5)),
)
UNEQUAL = (Arms("+20 points, thumbs", 0.8, 0.6), Arms("-10 points, thumbs", 0.65, 0.75))
BETTER = (
    Arms("+20 points", 0.8, 0.6),
    Arms("+10 points", 0.75, 0.65),
    Arms("+5 points", 0.725, 0.675),
)


def play(arms: Arms, rng: Rng, shape: tuple[int, int], share: float = SHARE) -> Exposed:
    """Let a coin choose who answers, and draw the rewards."""
    challenger = rng.random(shape, dtype=np.float32) < share
    mean = np.where(challenger, arms.means(shape[1]), arms.champion)
    votes = 4 if arms.graded else 1  # each up with probability `mean`: a rating from one to five
    ups = sum((rng.random(shape, dtype=np.float32) < mean).astype(np.int8) for _ in range(votes))
    reward = np.asarray(ups / votes)
    low, high = arms.answered
    heard = rng.random(shape, dtype=np.float32) < np.where(reward > 0, high, low)
    shown = np.where(challenger, np.int8(1), np.int8(-1))
    return expose(shown, reward, np.where(challenger, share, 1.0 - share), heard)


def bias(arms: Arms, requests: int) -> tuple[float, float]:
    """Return how far the estimates are off on average, and the standard error of that."""
    ends = [play(arms, rng, shape).estimate[:, -1] for rng, shape in chunks(RUNS, requests, SEED)]
    off = np.concatenate(ends) - arms.difference(requests)[-1]
    return float(off.mean()), float(off.std() / math.sqrt(RUNS))


def missed(arms: Arms, runs: int, requests: int) -> list[float]:
    """Return the share of runs in which the interval is ever wrong, for each alpha."""
    found, truth = np.zeros(len(ALPHAS)), arms.difference(requests)
    for rng, shape in chunks(runs, requests, SEED + 1):
        path = play(arms, rng, shape)
        off = np.abs(path.estimate - truth)
        found += [(off > path.radius(alpha)).any(axis=1).sum() for alpha in ALPHAS]
    return [float(share) for share in found / runs]


def promoted(arms: Arms, runs: int, requests: int) -> list[float]:
    """Return the share of runs in which it is ever promoted in error, for each alpha."""
    found, error = np.zeros(len(ALPHAS)), arms.difference(requests) <= 1e-9
    for rng, shape in chunks(runs, requests, SEED + 2):
        log_e = play(arms, rng, shape).log_e
        found += [ever(log_e, -math.log(alpha), error).sum() for alpha in ALPHAS]
    return [float(share) for share in found / runs]


def requests_to_promotion(arms: Arms, runs: int, requests: int, share: float) -> Floats:
    """Return after how many requests it is promoted at alpha .01; infinity for not in time."""
    found = []
    for rng, shape in chunks(runs, requests, SEED + 3):
        first, reached = first_crossing(play(arms, rng, shape, share).log_e, math.log(100))
        found.append(np.where(reached, first + 1.0, math.inf))
    return np.concatenate(found)


# --- what is told -------------------------------------------------------------------------------


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return the tables of estimates, intervals, errors and power, and the bars."""
    runs, requests = (2_000, 20_000) if full else (400, 10_000)
    parts = [f"The challenger answers {SHARE:.0%} of the requests. Seed {SEED}."]
    bars: list[Bar] = []
    for told in (_biases(20_000), _intervals(runs, requests), _errors(runs, requests)):
        parts.append(told[0])
        bars += told[1]
    return "\n\n".join([*parts, _power(runs // 4, 2 * requests)]), bars


def _biases(requests: int) -> tuple[str, list[Bar]]:
    found = {arms: bias(arms, requests) for arms in (*EQUAL[:3], *UNEQUAL)}
    rows = [[arms.title, f"{off:+.4f}", f"{error:.4f}"] for arms, (off, error) in found.items()]
    bars = [
        Bar(f"exposure, {arms.title}: bias", abs(off), 0.002, at_most=True)
        for arms, (off, _) in found.items()
    ]
    head = ["rewards", f"bias over {RUNS} runs", "standard error"]
    return f"The estimate after {requests:,} requests.\n\n{report.table(head, rows)}", bars


def _intervals(runs: int, requests: int) -> tuple[str, list[Bar]]:
    found = {arms: missed(arms, runs, requests) for arms in (*EQUAL[:3], *UNEQUAL)}
    bars = [
        Bar(f"exposure, {arms.title}: {1 - a:.0%} interval ever wrong", share, a, at_most=True)
        for arms, shares in found.items()
        for a, share in zip(ALPHAS, shares, strict=True)
    ]
    title = f"Share of {runs:,} runs in which the interval is wrong at any of {requests:,} requests"
    return f"{title}.\n\n{_table(found)}", bars


def _errors(runs: int, requests: int) -> tuple[str, list[Bar]]:
    found = {arms: promoted(arms, runs, requests) for arms in EQUAL}
    bars = [
        Bar(f"exposure, {arms.title}: ever promoted at {a}", share, bound(a, runs), at_most=True)
        for arms, shares in found.items()
        for a, share in zip(ALPHAS, shares, strict=True)
    ]
    title = f"Share of {runs:,} runs ever promoted in error, looking after each of {requests:,}"
    return f"{title} requests.\n\n{_table(found)}", bars


def _power(runs: int, requests: int) -> str:
    rows = []
    for arms in BETTER:
        row = [arms.title]
        for share in (SHARE, 0.2):
            found = requests_to_promotion(arms, runs, requests, share)
            ends = [float(np.quantile(found, q, method="higher")) for q in (0.5, 0.9)]
            row += [f"> {requests:,}" if math.isinf(end) else f"{end:,.0f}" for end in ends]
        rows.append(row)
    head = ["thumbs", f"{SHARE:.0%} exposed", "p90", "20 % exposed", "p90"]
    return f"Requests to a promotion at alpha .01, {runs} runs.\n\n{report.table(head, rows)}"


def _table(found: dict[Arms, list[float]]) -> str:
    rows = [[arms.title, *(f"{share:.4f}" for share in shares)] for arms, shares in found.items()]
    return report.table(["rewards", *(f"alpha {alpha}" for alpha in ALPHAS)], rows)
