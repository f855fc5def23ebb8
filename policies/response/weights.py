"""What a lesson counts: in inverse proportion to the chance that it was given at all.

A label comes in one of two ways: a coin draws the answer for an audit, which is answered with a
known share whatever it is; or somebody speaks unasked, or because active learning asked. An answer
x of class c is spoken of with the probability

    q(x, c) = a p_a + (1 - a) P(speaks | x) v_c / pi_c

where a is the share that is audited, and p_a the share of audits that is answered. A lesson counts
m / q(x, c), whichever way it came: the balance heuristic [1], which keeps weights smaller than any
other way to put both kinds together. The audits that there are bound them. m makes the mean weight
of the latest lessons 1, with all weights within [1 / clip, clip]: so learning is no faster, and no
slower (a stabilised weight [2]).

References
----------
[1] E. Veach, L. Guibas. Optimally combining sampling techniques for Monte Carlo rendering. SIGGRAPH
    1995.
[2] J. Robins, M. Hernan, B. Brumback. Marginal structural models and causal inference in
    epidemiology. Epidemiology 11 (2000).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from online_learner.evidence import Floats
from online_learner.schema import Signal, Task
from policies.response.covariates import Covariates
from policies.response.outcomes import Outcomes, explicit
from policies.response.propensity import Propensity

LEAST = 1e-4  # chance of being spoken of
ROUNDS = 20  # in which the mean weight comes to 1
DIGITS = 5


@dataclass(frozen=True, slots=True)
class Lesson:
    """One word of late: how likely it was by what was known before, and how good the answer was.

    Parameters
    ----------
    chance
        P(speaks | x).
    number
        The class of the answer's goodness.
    """

    stratum: int
    number: int
    chance: float


@dataclass(frozen=True, slots=True)
class Lane:
    """What audits do: `share` of all answers is audited, `answered` of those is answered."""

    share: float
    answered: float

    def chance(self, spontaneous: float) -> float:
        """Return the probability that an answer is spoken of in either way."""
        found = self.share * self.answered + (1.0 - self.share) * min(1.0, spontaneous)
        return max(LEAST, found)


def mean_chance(lessons: Iterable[Lesson], lane: Lane, ratios: Floats, clip: float) -> float:
    """Return the m with which lessons weigh 1 on average, when clipped; 1 where there are none."""
    q = np.array([lane.chance(x.chance * ratios[x.stratum, x.number]) for x in lessons])
    if not len(q):
        return 1.0
    m = float(len(q) / (1.0 / q).sum())
    for _ in range(ROUNDS):
        m /= float(np.clip(m / q, 1.0 / clip, clip).mean())
    return m


class Weights:
    """What the learner was told, and what follows for a signal. See `table`."""

    def __init__(
        self, task: Task, segments: tuple[str, ...], clip: float, table: Mapping[str, Any]
    ) -> None:
        self._clip = clip
        self._covariates = Covariates(task, segments).unpack(table["covariates"])
        self._propensity = Propensity.unpack(table["propensity"])
        self._outcomes = Outcomes(task, float(table["mean_error"]))
        self._ratios: Floats = np.array(table["ratios"], dtype=float)
        self._lane = Lane(*table["lane"])
        self._mean = float(table["mean"])

    def factor(self, signal: Signal) -> float:
        """Return by how much a lesson's weight is multiplied; 1 for what nobody has said.

        An operator's own question says nothing of who speaks, nor does an answer that was brought
        along with what was said of it; their lessons count as they are.
        """
        prediction = signal.prediction
        gold = prediction.ask is not None and prediction.ask.reason == "gold"
        if gold or prediction.imported or not explicit(signal.feedback):
            return 1.0
        place = self._covariates.place(prediction)
        spontaneous = self._propensity.chance(place)
        goodness = self._outcomes.goodness(signal)
        if goodness is not None:
            spontaneous *= float(self._ratios[place.stratum, self._outcomes.number(goodness)])
        found = self._mean / self._lane.chance(spontaneous)
        return max(1.0 / self._clip, min(self._clip, found))


def table(
    covariates: Covariates,
    propensity: Propensity,
    outcomes: Outcomes,
    *,
    ratios: Floats,
    lane: Lane,
    mean: float,
) -> dict[str, Any]:
    """Return what the learner is told, as plain JSON: all that `Weights` rests on."""
    return {
        "covariates": rounded(covariates.pack()),
        "propensity": propensity.told(),
        "mean_error": outcomes.mean_error,
        "ratios": np.round(ratios, DIGITS).tolist(),
        "lane": [round(lane.share, DIGITS), round(lane.answered, DIGITS)],
        "mean": mean,
    }


def rounded(value: Any) -> Any:
    """Return plain JSON with numbers of six digits that matter: it goes to the learner as text."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value
