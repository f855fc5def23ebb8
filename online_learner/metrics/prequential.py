"""How good the answers are: predicted first, scored when the label comes, in prediction order.

Only audited, settled answers count: a coin drew them before anybody knew the label. Volunteered
labels would flatter or slander, since people speak up where an answer is wrong.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
from pydantic import ValidationError

from online_learner.evidence import confidence_sequence
from online_learner.ids import entry_order
from online_learner.registry import Registry
from online_learner.schema import Aliases, Settled

MOST = 2000  # settled audits that are looked at; of more, the newest
POINTS = 200  # of a curve
RECENT = 200
BINS = 10
SCORED_BY = {"classification": "accuracy", "regression": "closeness"}
KEPT_ROLES = ("champion", "anchor", "latest")

Interval: TypeAlias = dict[str, Any]  # n, score, low, high


@dataclass(frozen=True, slots=True)
class Scored:
    """One settled audit that was answered.

    Parameters
    ----------
    at
        When the answer was given, in seconds since 1970.
    """

    at: float
    generation: int
    scores: dict[str, float]
    confidence: float | None


async def settled(registry: Registry) -> list[Scored]:
    """Return the newest settled audits of which each role's score is known, oldest first."""
    found: list[Scored] = []
    async for entry, fields in registry.store.backwards(registry.keys.evidence, MOST):
        try:
            record = Settled.model_validate_json(fields[b"e"])
        except (KeyError, ValidationError):
            continue
        if record.scores:
            at = entry_order(entry)[0] / 1000
            found.append(Scored(at, record.generation, record.scores, record.confidence))
    return found[::-1]


def interval(scores: Sequence[float]) -> Interval | None:
    """Return the mean of scores, and bounds for it; None of none.

    The bounds hold together with those after each score before, so that who looks at each is not
    misled. Of scores that begin later, as of a window that moves, they hold for one look.
    """
    if not scores:
        return None
    low, high = confidence_sequence(scores)
    mean = float(np.mean(scores))
    return {"n": len(scores), "score": mean, "low": float(low[-1]), "high": float(high[-1])}


def curves(found: Sequence[Scored], aliases: Aliases | None, task: str) -> dict[str, Any]:
    """Return each role's running score: how it is now, and how it came about.

    Whenever the reference of the tests changes, all curves begin anew. The bounds of a curve hold
    at all its points at once, and at those that are to come, until more than `MOST` audits have
    settled: from then on it begins with a later answer whenever one looks.
    """
    roles: dict[str, Interval] = {}
    points: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for generation, part in groupby(found, key=lambda scored: scored.generation):
        named = _named(list(part), aliases, generation)
        for name, (role, sequence) in named.items():
            points[name] += _curve(name, sequence)
            if aliases is not None and generation == aliases.generation:
                now = interval([score for _, score in sequence])
                roles[name] = {"version": _version(role, aliases), **(now or {})}
    kept = [point for curve in points.values() for point in _thinned(curve, POINTS)]
    return {
        "metric": SCORED_BY.get(task, "agreement"),
        "roles": roles,
        "points": sorted(kept, key=lambda point: (point["at"], point["role"])),
    }


def _named(
    part: Sequence[Scored], aliases: Aliases | None, generation: int
) -> dict[str, tuple[str, list[tuple[float, float]]]]:
    """Return role and scores by the name under which they are shown.

    Of the challengers, the one that has been tested for longest is called just that; the others
    that are open keep their numbers, and of earlier ones there is no more than it.
    """
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for scored in part:
        for role, score in scored.scores.items():
            found[role].append((scored.at, score))
    named = {role: (role, found[role]) for role in KEPT_ROLES if role in found}
    tested = [role for role in found if role.startswith("challenger:")]
    if aliases is not None and generation == aliases.generation:
        tested = [role for role in tested if _number(role) in aliases.challengers]
        named |= {role: (role, found[role]) for role in tested}
    if tested:
        first = max(tested, key=lambda role: (len(found[role]), -_number(role)))
        named.pop(first, None)
        named["challenger"] = (first, found[first])
    return named


def _number(role: str) -> int:
    number = role.partition(":")[2]
    return int(number) if number.isdecimal() else 0


def _version(role: str, aliases: Aliases) -> int | None:
    known = {"champion": aliases.champion, "anchor": aliases.anchor, "latest": None}
    return known[role] if role in known else _number(role)


def _curve(name: str, sequence: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    scores = np.array([score for _, score in sequence])
    low, high = confidence_sequence(scores)
    means = scores.cumsum() / np.arange(1, len(scores) + 1)
    return [
        {
            "at": at,
            "role": name,
            "n": place + 1,
            "score": float(means[place]),
            "low": float(low[place]),
            "high": float(high[place]),
        }
        for place, (at, _) in enumerate(sequence)
    ]


def _thinned(curve: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Return at most so many points of a curve, its first and its last among them."""
    places = np.unique(np.linspace(0, len(curve) - 1, most).astype(int))
    return [curve[place] for place in places] if len(curve) > most else curve


def calibration(found: Iterable[Scored], aliases: Aliases | None) -> dict[str, Any] | None:
    """Return how often the champion is right when it is so sure, of the generation that is.

    `error` is the expected calibration error over ten bins of equal width (Guo et al., ICML 2017).
    """
    pairs = [
        (scored.confidence, scored.scores["champion"])
        for scored in found
        if scored.confidence is not None
        and "champion" in scored.scores
        and aliases is not None
        and scored.generation == aliases.generation
    ]
    if not pairs:
        return None
    sure, right = np.clip(np.array(pairs).T, 0.0, 1.0)
    places = np.minimum((sure * BINS).astype(int), BINS - 1)
    bins = [
        {
            "low": place / BINS,
            "high": (place + 1) / BINS,
            "count": int(count),
            "mean_score": float(sure[places == place].mean()),
            "share_right": float(right[places == place].mean()),
        }
        for place, count in sorted(Counter(places.tolist()).items())
    ]
    gaps = [b["count"] * abs(b["mean_score"] - b["share_right"]) for b in bins]
    return {"n": len(pairs), "error": sum(gaps) / len(pairs), "bins": bins}


def champion_scores(found: Iterable[Scored]) -> list[float]:
    """Return the champion's scores, oldest first."""
    return [scored.scores["champion"] for scored in found if "champion" in scored.scores]
