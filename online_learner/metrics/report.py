"""One model at a glance: how much, how fast, how good, and what was lost on the way."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from online_learner.errors import StateError
from online_learner.evidence import Case, Trial
from online_learner.metrics import outputs, prequential, series
from online_learner.metrics.series import Points
from online_learner.metrics.tally import Tally, Times
from online_learner.observe.quality import estimates
from online_learner.registry import Registry
from online_learner.schema import Aliases, Observed, Verdict
from online_learner.settings import ModelSpec
from online_learner.stages import make_policy

POINTS = 200
STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600)  # of a series
MARKS, LOOK_AT = 50, 500
MOVES = {"promote", "follow", "bless", "pull", "rollback", "register", "freeze", "thaw", "reject"}
LATENCIES = {
    "predict": "prediction_seconds",
    "join": "join_delay_seconds",
    "learn": "learn_delay_seconds",
    "loop": "loop_seconds",
}
# What is refused with these codes was never joined to an answer.
UNJOINED = {
    "feedback_window_closed",
    "malformed",
    "request_timeout",
    "store_full",
    "store_unavailable",
    "too_large",
    "unknown_prediction",
    "unsupported_media_type",
}
ROLLED_BACK = "rolled_back"
UNTOLD = ("metric", "point", "sums")  # of quality: said already, or not for people


async def report(
    registry: Registry, spec: ModelSpec, *, window_s: float, now: float
) -> dict[str, Any]:
    """Return the figures of one model; where there is nothing yet, zeros, nulls and empty lists.

    Counts and times are of the window. Curves show the newest `prequential.MOST` settled audits,
    and go on from those before; what is answered is of the newest `outputs.MOST` audited ones,
    whatever the window. `quality` is what the observer of it found: see `observe.quality`. Its
    `estimates` are of the champion too, and say what is missed where only those who speak count.

    Parameters
    ----------
    window_s
        Seconds up to `now`, a day at most.
    now
        Seconds since 1970.
    """
    points = await series.read(registry.store, registry.keys, window_s=window_s, now=now)
    tally, aliases = series.total(points), await _aliases(registry)
    scored = await prequential.settled(registry)
    at, reports = await _reports(registry)
    quality = reports.get("quality", {})
    labels = await outputs.given(registry) if spec.task == "classification" else []
    began = max(now - window_s, points[0][0]) if points else now
    before = prequential.Before.of(at, quality)
    curves = prequential.curves(scored, aliases, spec.task, before)
    return {
        "model": registry.model,
        "at": now,
        "window_s": window_s,
        "rates": _rates(tally, max(1.0, now - began)),
        "latency_ms": {name: _times(tally, metric) for name, metric in LATENCIES.items()},
        "funnel": funnel(tally),
        "kinds": tally.by("feedback_total", "kind", outcome="accepted"),
        "implicit": tally.by("implicit_total", "event"),
        "score": {**curves, "marks": await _marks(registry)},
        "quality": {**_told(quality), "estimates": estimates(reports)} if quality else None,
        "calibration": prequential.calibration(scored, aliases),
        "scores": outputs.histogram(labels),
        "drift": await _drift(registry, spec, aliases, scored, labels),
        "series": _series(points, window_s, now),
    }


async def _reports(registry: Registry) -> tuple[Observed, dict[str, Any]]:
    """Return what observers tell, by name, and up to where; nothing where it is damaged."""
    with contextlib.suppress(StateError):
        found = await registry.observations()
        if found is not None:
            return found
    return Observed(), {}


def _told(quality: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in quality.items() if name not in UNTOLD}


async def _aliases(registry: Registry) -> Aliases | None:
    with contextlib.suppress(StateError):
        return await registry.aliases()
    return None


# --- how much, and how fast -------------------------------------------------------------------


def _rates(tally: Tally, seconds: float) -> dict[str, float]:
    return {
        "predictions_per_s": _answered(tally) / seconds,
        "feedback_per_min": 60 * _accepted(tally) / seconds,
    }


def _answered(tally: Tally) -> int:
    found = tally.by("predictions_total", "outcome")
    return found.get("ok", 0) + found.get("unlogged", 0)


def _accepted(tally: Tally) -> int:
    return tally.total("feedback_total", outcome="accepted")


def _learned(tally: Tally) -> int:
    return tally.total("learned_total")


COUNTED = {"predictions": _answered, "feedback": _accepted, "learned": _learned}  # of a series


def _times(tally: Tally, metric: str) -> dict[str, Any] | None:
    found = tally.distribution(metric)
    return {**_quantiles(found), "count": found.n} if found.n else None


def _quantiles(times: Times) -> dict[str, float]:
    return {name: 1000 * times.quantile(q) for name, q in (("p50", 0.5), ("p99", 0.99))}


def funnel(tally: Tally) -> list[dict[str, Any]]:
    """Return how many signals came how far, and what became of the others.

    Each stage has its `count`, what was `lost` before it by reason, and the `delay_ms` to it: from
    the answer to what is said of it, from there to the commit, and from there to the first answer
    by weights that learned it.
    """
    outcomes = Counter(tally.by("feedback_total", "outcome"))
    accepted = outcomes.pop("accepted", 0)
    unjoined = {code: n for code, n in outcomes.items() if code in UNJOINED}
    refused = {code: n for code, n in outcomes.items() if code not in UNJOINED}
    aside = tally.by("set_aside_total", "reason")
    undone = {ROLLED_BACK: aside.pop(ROLLED_BACK)} if ROLLED_BACK in aside else {}
    joined = accepted + sum(refused.values())
    learned, served = tally.total("learned_total"), tally.total("served_total")
    return [
        _stage("received", joined + sum(unjoined.values()), {}, Times()),
        _stage("joined", joined, unjoined, tally.distribution("join_delay_seconds")),
        _stage("accepted", accepted, refused, Times()),
        _stage("learned", learned, aside, tally.distribution("learn_delay_seconds")),
        _stage("served", served, undone, tally.distribution("loop_seconds")),
    ]


def _stage(name: str, count: int, lost: Mapping[str, int], delay: Times) -> dict[str, Any]:
    delay_ms = _quantiles(delay) if delay.n else None
    return {"stage": name, "count": count, "lost": dict(lost), "delay_ms": delay_ms}


def _series(points: Points, window_s: float, now: float) -> dict[str, Any]:
    """Return counts over time, in steps so wide that there are few of them."""
    least = series.step_s(window_s)
    step_s = next((s for s in STEPS_S if s >= max(least, window_s / POINTS)), STEPS_S[-1])
    places = range(int((now - window_s) // step_s), int(now // step_s) + 1) if points else ()
    sums = {name: Counter[int]() for name in COUNTED}
    for at, tally in points:
        for name, count in COUNTED.items():
            sums[name][int(at // step_s)] += count(tally)
    curves = {name: [found[place] for place in places] for name, found in sums.items()}
    return {"step_s": step_s, "at": [float(place * step_s) for place in places], **curves}


# --- what was decided, and whether it still holds ---------------------------------------------


async def _marks(registry: Registry) -> list[dict[str, Any]]:
    """Return the newest decisions that moved something, oldest first."""
    found = []
    for _, fields in await registry.store.latest(registry.keys.verdicts, LOOK_AT):
        with contextlib.suppress(KeyError, ValidationError):
            verdict = Verdict.model_validate_json(fields[b"v"])
            if verdict.action in MOVES:
                found.append(verdict.model_dump(include={"at", "action", "version", "sentence"}))
    return found[:MARKS][::-1]


async def _drift(
    registry: Registry,
    spec: ModelSpec,
    aliases: Aliases | None,
    scored: list[prequential.Scored],
    labels: list[outputs.Given],
) -> dict[str, Any] | None:
    scores = prequential.champion_scores(scored)
    detector = await _detector(registry, spec, aliases)
    if not scores and not labels and detector is None:
        return None
    return {
        "recent": prequential.interval(scores[-prequential.RECENT :]),
        "long_run": prequential.interval(scores),
        "detector": detector,
        "outputs": outputs.shares(labels),
    }


async def _detector(
    registry: Registry, spec: ModelSpec, aliases: Aliases | None
) -> dict[str, float | None] | None:
    """Return how far the detector is that would pull the champion back, and its limit."""
    state = None
    with contextlib.suppress(StateError):
        state = await registry.gate()
    if state is None or aliases is None:
        return None
    trials = {key: Trial.unpack(trial) for key, trial in state.trials.items()}
    case = Case(aliases, trials, (), state.promotions)
    for key, trial in trials.items():
        if trial.duel.detector and trial.duel.key(aliases.generation) == key:
            limit = make_policy(spec).goal(case, trial) / math.log(10)
            now = trial.log_e / math.log(10) if math.isfinite(trial.log_e) else None
            return {"log10": now, "limit_log10": limit}
    return None
