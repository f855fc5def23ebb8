"""The gate's arithmetic on whole arrays: many runs side by side, looked at after every label."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from online_learner.evidence import bets, log_factors, log_mixture
from online_learner.evidence.betting import BETS, PRIOR, Floats
from online_learner.evidence.detector import ALARM_PRIOR, LOG_FLOOR
from online_learner.evidence.exposure import RATES

Signs = NDArray[np.int8]
Ints = NDArray[np.signedinteger[Any]]
Bools = NDArray[np.bool_]
Rng = np.random.Generator

CELLS = 4_000_000  # of an array at a time


@dataclass(frozen=True, slots=True)
class Stream:
    """Audits of many runs side by side, in prediction order.

    Parameters
    ----------
    d
        Paired differences, shape `(runs, looks)`: -1, 0 or 1.
    answered
        Which audits are answered; None for all.
    arrival
        When each label comes, in predictions since the start; None for at once.
    error
        Whether a promotion at that look would be wrong, shape `(looks,)` or `()`.
    """

    d: Signs
    answered: Bools | None = None
    arrival: Ints | None = None
    error: Bools | bool = True

    def settled(self) -> Signs:
        """Return the points that count, in prediction order; those unanswered are 0."""
        return self.d if self.answered is None else np.where(self.answered, self.d, np.int8(0))

    def in_time(self) -> Bools | bool:
        """Tell which points settle before the run ends: all before them must have settled."""
        if self.arrival is None:
            return True
        return np.asarray(np.maximum.accumulate(self.arrival, axis=1) < self.d.shape[1])

    def by_arrival(self) -> Stream:
        """Return the mistake: the same labels, counted as they come."""
        assert self.arrival is not None, "labels that come at once come in prediction order"
        order = np.argsort(self.arrival, axis=1, kind="stable")
        arrival = np.take_along_axis(self.arrival, order, axis=1)
        return Stream(np.take_along_axis(self.settled(), order, axis=1), None, arrival)


def draw(rng: Rng, win: float | Floats, loss: float | Floats, shape: tuple[int, int]) -> Signs:
    """Draw differences: +1 with probability `win`, -1 with probability `loss`, else 0."""
    u = rng.random(shape, dtype=np.float32)
    return (u < win).astype(np.int8) - (u > 1.0 - np.asarray(loss)).astype(np.int8)


def chunks(runs: int, looks: int, seed: int) -> Iterator[tuple[Rng, tuple[int, int]]]:
    """Yield a generator and a shape for each part of the runs that fits in memory."""
    size = max(1, CELLS // looks)
    for number, start in enumerate(range(0, runs, size)):
        yield np.random.default_rng([seed, number]), (min(size, runs - start), looks)


# --- the e-process ------------------------------------------------------------------------------


def log_es(d: Signs | Floats, m: float) -> Floats:
    """Return the log e-value after each label, shape `(runs, looks)`.

    Of whole points (-1, 0, 1) the e-value is a function of wins and losses alone.
    """
    if d.dtype == np.int8:
        wins = np.cumsum(d > 0, axis=1, dtype=np.int32)
        losses = np.cumsum(d < 0, axis=1, dtype=np.int32)
        table = of_counts(m, _round(wins[:, -1].max()), _round(losses[:, -1].max()))
        return table.ravel().take(wins * np.int32(table.shape[1]) + losses)
    points = np.asarray(d, dtype=np.float64)[..., None]
    return log_mixture(np.cumsum(log_factors(points, m, bets(m)), axis=1))


def _round(count: int) -> int:
    return 512 * (int(count) // 512 + 1)


@lru_cache(maxsize=2)
def of_counts(m: float, wins: int, losses: int) -> Floats:
    """Return the log e-value for each number of wins and of losses below these."""
    won = np.arange(wins)[:, None, None] * log_factors(1.0, m, bets(m))
    lost = np.arange(losses)[:, None] * log_factors(-1.0, m, bets(m))
    return np.concatenate([log_mixture(part + lost) for part in np.array_split(won, wins // 128)])


def ever(log_e: Floats, log_goal: float, counts: Bools | bool) -> Bools:
    """Tell which runs reach the goal for the first time where it `counts`, shape `(runs,)`."""
    first, reached = first_crossing(log_e, log_goal)
    counting = np.broadcast_to(np.asarray(counts), log_e.shape)
    return np.asarray(reached & np.take_along_axis(counting, first[:, None], axis=1)[:, 0])


def first_crossing(log_e: Floats, log_goal: float) -> tuple[Ints, Bools]:
    """Return at which look each run reaches the goal first, from 0, and whether it does."""
    hit = log_e >= log_goal
    return np.asarray(hit.argmax(axis=1)), np.asarray(hit.any(axis=1))


# --- the detector -------------------------------------------------------------------------------


def alarm_times(draws: Callable[[int], Signs], m: float, goal: float, most: int) -> Ints:
    """Return after how many labels each of the detectors alarms, at most `most`.

    `draws(t)` gives the differences of all runs at label t. R and C are kept as they are, not as
    their logs.
    """
    factors = np.exp(log_factors(np.array([-1.0, 0.0, 1.0])[:, None], m, bets(m)))
    runs, floor = len(draws(0)), np.exp(LOG_FLOOR)
    r, c = np.zeros((runs, BETS)), np.ones((runs, BETS))
    alarm = np.full(runs, most)
    for t in range(most):
        factor = factors[draws(t) + 1]
        r, c = (r + 1.0) * factor, np.maximum(c, 1.0) * factor
        found = (r @ ALARM_PRIOR >= goal) & (c @ ALARM_PRIOR >= floor) & (alarm == most)
        alarm[found] = t + 1
        if (alarm < most).all():
            break
    return alarm


# --- exposure -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exposed:
    """What `ExposureTest` would say after each point, shape `(runs, looks)` each.

    Parameters
    ----------
    z
        The points that are bet on, in [-1, 1].
    n
        How many of them there were.
    """

    z: Floats
    n: Floats
    smallest: float

    @property
    def log_e(self) -> Floats:
        """The log e-value, one bet after the other."""
        wealth = np.zeros_like(self.z)
        for prior, bet in zip(PRIOR, bets(0.0), strict=True):
            wealth += prior * np.exp(np.cumsum(np.log1p(bet * self.z), axis=1))
        return np.log(wealth)

    @property
    def estimate(self) -> Floats:
        """The estimate of the mean difference."""
        return np.cumsum(self.z, axis=1) / (np.maximum(1, self.n) * self.smallest)

    def radius(self, alpha: float) -> Floats:
        """Return half the width of the confidence sequence, before it is clipped."""
        fixed, squares = np.log(2 * len(RATES) / alpha), np.cumsum(self.z**2, axis=1)
        costs = [(fixed + (-np.log1p(-rate) - rate) * squares) / rate for rate in RATES]
        return np.asarray(np.minimum.reduce(costs)) / (np.maximum(1, self.n) * self.smallest)


def expose(shown: Signs, reward: Floats, propensity: Floats, answered: Bools) -> Exposed:
    """Return the course of the exposure test; points that are not `answered` do not exist."""
    n = np.cumsum(answered, axis=1, dtype=np.float64)
    sums = np.cumsum(np.where(answered, reward, 0.0), axis=1)
    before = (0.5 + np.pad(sums, ((0, 0), (1, 0)))[:, :-1]) / (n - answered + 1)
    smallest = float(propensity.min())
    z = np.where(answered, shown * (reward - before) * smallest / propensity, 0.0)
    return Exposed(z, n, smallest)
