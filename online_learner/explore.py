"""What is varied on purpose, with its probability: who answers, and in which order options stand.

What is shown must be drawn with known probabilities, else nothing can be said about what was not
shown. The propensity of a place is the probability with which it was filled as it was, given the
places before it; the product over the places is that of the whole order.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from online_learner.bundle import CHAMPION, Bundle, Panel, best_first
from online_learner.settings import ExplorationSpec


@dataclass(frozen=True, slots=True)
class Order:
    """The options as they are shown, and the propensity of each place."""

    ids: list[str]
    propensities: list[float]
    explored: bool


def draw(
    scores: Mapping[str, float], spec: ExplorationSpec | None, rng: random.Random, *, top: int
) -> Order:
    """Return the first `top` places of an order.

    Parameters
    ----------
    scores
        Reward by option id.
    spec
        How to explore; None shows the best first, with propensities of 1.
    """
    best = best_first(scores)
    if spec is None:
        return Order(best[:top], [1.0] * min(top, len(best)), explored=False)
    if spec.kind == "softmax":
        return _softmax(scores, best, spec.temperature, rng, top)
    return _epsilon(best, spec.epsilon, rng, top)


def _softmax(
    scores: Mapping[str, float], best: list[str], temperature: float, rng: random.Random, top: int
) -> Order:
    """Draw from the Plackett-Luce model, by the Gumbel-max trick (Yellott 1977)."""
    keys = {name: scores[name] / temperature for name in best}
    noisy = {name: key - math.log(-math.log(_inside(rng))) for name, key in keys.items()}
    ids = best_first(noisy)
    return Order(ids[:top], _luce(keys, ids, top), explored=ids[:top] != best[:top])


def _luce(keys: Mapping[str, float], ids: list[str], top: int) -> list[float]:
    """Return the Plackett-Luce probability of each of the first places."""
    propensities, left = [], -math.inf  # log of the weight of all that is still there at a place
    for name in reversed(ids):
        left = _log_add(left, keys[name])
        propensities.append(math.exp(keys[name] - left))
    return propensities[::-1][:top]


def _log_add(a: float, b: float) -> float:
    """Return log(exp(a) + exp(b)), without leaving logarithms: far scores underflow otherwise."""
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


def _epsilon(best: list[str], epsilon: float, rng: random.Random, top: int) -> Order:
    """Show the best first, or with probability epsilon any order."""
    ids = list(best)
    if rng.random() < epsilon:
        rng.shuffle(ids)
    propensities, greedy, by_chance = [], 1.0 - epsilon, epsilon  # given the places so far
    for place, name in enumerate(ids[:top]):
        greedy = greedy if name == best[place] else 0.0
        by_chance /= len(ids) - place
        here = greedy + by_chance
        propensities.append(here)
        greedy, by_chance = greedy / here, by_chance / here
    return Order(ids[:top], propensities, explored=ids[:top] != best[:top])


def _inside(rng: random.Random) -> float:
    """Return a number in (0, 1), both ends excluded."""
    return max(rng.random(), 1e-300)


def softmax(scores: Mapping[str, float]) -> dict[str, float]:
    """Return for each option the probability, by the model, that it is the best of all.

    >>> softmax({"a": 0.0, "b": 0.0})
    {'a': 0.5, 'b': 0.5}
    """
    top = max(scores.values(), default=0.0)
    weights = {name: math.exp(score - top) for name, score in scores.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


# --- who answers ------------------------------------------------------------------------------


def draw_role(bundle: Bundle, exposure: float, rng: random.Random) -> str:
    """Return who is to answer: with probability `exposure` one of the roles under test."""
    if rng.random() < exposure:
        return rng.choice(bundle.shadows)[0]
    return CHAMPION


@dataclass(frozen=True, slots=True)
class Chances:
    """With which probability each role is shown and audited, known before anything is drawn.

    Parameters
    ----------
    shown
        P(shown), by role.
    audited
        P(shown | audited), by role: those under which rewards are compared.
    asked
        P(audited | shown), by role.
    """

    shown: dict[str, float]
    audited: dict[str, float]
    asked: dict[str, float]


def chances(panel: Panel, *, exposure: float, audit: float) -> Chances:
    """Return the chances of the roles that can answer a question.

    A role also answers in the place of those that failed, and so as often as they were drawn. Each
    of the k roles under test is drawn with probability e / k, and then audited for sure; so is what
    stands in for the champion. The champion is drawn with 1 - e, and audited by a coin.

    Parameters
    ----------
    exposure, audit
        e, and the coin's probability.
    """
    under_test = [name for name in panel.shadows if name != CHAMPION] if exposure else []
    drawn = {CHAMPION: 1.0 - exposure if under_test else 1.0}
    drawn |= {name: exposure / len(under_test) for name in under_test}
    coin = 1.0 if CHAMPION in panel.errors else audit
    shown: dict[str, float] = {}
    both: dict[str, float] = {}
    for name, probability in drawn.items():
        role = panel.who(name)
        if role is not None:
            shown[role] = shown.get(role, 0.0) + probability
            both[role] = both.get(role, 0.0) + probability * (coin if name == CHAMPION else 1.0)
    total = sum(both.values())
    return Chances(
        shown,
        {role: p / total for role, p in both.items()} if total else {},
        {role: p / shown[role] for role, p in both.items()},
    )
