"""How good the answers are: predicted first, scored when the label comes, in prediction order.

Only audited, settled answers count: a coin drew them before anybody knew the label. Volunteered
labels would flatter or slander, since people speak up where an answer is wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
from pydantic import ValidationError

from online_learner.evidence import Reliability, RunningMean
from online_learner.ids import entry_order
from online_learner.registry import Registry
from online_learner.schema import Aliases, Observed, Settled

MOST = 2000  # settled audits that are looked at; of more, the newest
POINTS = 200  # of a curve
RECENT = 200
SCORED_BY = {"classification": "accuracy", "regression": "closeness"}
KEPT_ROLES = ("champion", "anchor", "latest")

Interval: TypeAlias = dict[str, Any]  # n, score, low, high


@dataclass(frozen=True, slots=True)
class Before:
    """What was summed up of a generation: each role's mean, up to an entry of the evidence."""

    generation: int = 0
    entry: str = "0-0"
    means: Mapping[str, RunningMean] = field(default_factory=dict)

    @classmethod
    def of(cls, observed: Observed, report: Mapping[str, Any]) -> Before:
        """Return what the observer of quality tells; see `observe.quality`."""
        sums = report.get("sums", {}).items()
        means = {role: RunningMean.unpack(values) for role, values in sums}
        place = observed.places.get("evidence", "0-0")
        return cls(report.get("generation", 0), place, means)

    def start(self, role: str, sequence: Sequence[Scored]) -> RunningMean:
        """Return the mean of a role before these answers, of its generation; or a fresh one.

        The sums are taken apart again: of all that the observer has counted, less what is here.
        """
        known = self.means.get(role)
        if known is None or not sequence or sequence[0].generation != self.generation:
            return RunningMean()
        until = entry_order(self.entry)
        counted = [s.scores[role] for s in sequence if entry_order(s.entry) <= until]
        if known.n <= len(counted):
            return RunningMean()
        before = known.n - len(counted)
        start = RunningMean(n=before, weight=float(before), total=known.total - sum(counted))
        trial = replace(start)
        for score in counted:
            trial.add(score)
        start.surprise = max(0.0, known.surprise - trial.surprise)
        return start


@dataclass(frozen=True, slots=True)
class Scored:
    """One settled audit that was answered.

    Parameters
    ----------
    entry
        Its place in the log.
    at
        When the answer was given, in seconds since 1970.
    """

    entry: str
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
            kept = record.generation, record.scores, record.confidence
            found.append(Scored(entry, at, *kept))
    return found[::-1]


def interval(scores: Sequence[float]) -> Interval | None:
    """Return the mean of scores, and bounds for it; None of none.

    The bounds hold together with those after each score before, so that who looks at each is not
    misled. Of scores that begin later, as of a window that moves, they hold for one look.
    """
    mean = RunningMean()
    for score in scores:
        mean.add(score)
    return mean.interval()


def curves(
    found: Sequence[Scored], aliases: Aliases | None, task: str, before: Before | None = None
) -> dict[str, Any]:
    """Return each role's running score: how it is now, and how it came about.

    Whenever the reference of the tests changes, all curves begin anew. The bounds of a curve hold
    at all its points at once, and at those that are to come. Once more than `MOST` audits have
    settled, that rests on the sums of those that are not looked at any more (`before`): without
    them a curve begins with a later answer whenever one looks.
    """
    before = before or Before()
    roles: dict[str, Interval] = {}
    points: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for generation, part in groupby(_in_order(found), key=lambda scored: scored.generation):
        named = _named(list(part), aliases, generation)
        for name, (role, sequence) in named.items():
            curve = _curve(name, role, sequence, before.start(role, sequence))
            points[name] += curve
            if aliases is not None and generation == aliases.generation:
                now = {key: curve[-1][key] for key in ("n", "score", "low", "high")}
                roles[name] = {"version": _version(role, aliases), **now}
    kept = [point for curve in points.values() for point in _thinned(curve, POINTS)]
    return {
        "metric": SCORED_BY.get(task, "agreement"),
        "roles": roles,
        "points": sorted(kept, key=lambda point: (point["at"], point["role"])),
    }


def _in_order(found: Iterable[Scored]) -> Iterator[Scored]:
    """Yield what is of the newest generation so far: a gateway may swap a moment after another."""
    newest = 0
    for scored in found:
        if scored.generation >= newest:
            newest = scored.generation
            yield scored


def _named(
    part: Sequence[Scored], aliases: Aliases | None, generation: int
) -> dict[str, tuple[str, list[Scored]]]:
    """Return role and answers by the name under which they are shown.

    Of the challengers, the one that has been tested for longest is called just that; the others
    that are open keep their numbers, and of earlier ones there is no more than it.
    """
    found: dict[str, list[Scored]] = defaultdict(list)
    for scored in part:
        for role in scored.scores:
            found[role].append(scored)
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


def _curve(
    name: str, role: str, sequence: Sequence[Scored], mean: RunningMean
) -> list[dict[str, Any]]:
    """Return the running score of a role after each answer; it goes on from a mean."""
    means, low, high = mean.along([scored.scores[role] for scored in sequence])
    return [
        {
            "at": scored.at,
            "role": name,
            "n": mean.n + place + 1,
            "score": float(means[place]),
            "low": float(low[place]),
            "high": float(high[place]),
        }
        for place, scored in enumerate(sequence)
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
    known = Reliability()
    for sure, right in pairs:
        known.add(sure, right)
    return known.report() if pairs else None


def champion_scores(found: Iterable[Scored]) -> list[float]:
    """Return the champion's scores, oldest first."""
    return [scored.scores["champion"] for scored in found if "champion" in scored.scores]
