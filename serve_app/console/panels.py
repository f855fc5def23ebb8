"""What each panel says, out of what was read; the templates only set it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from online_learner.explain.answers import WHO_ANSWERS
from online_learner.metrics.report import MOVES
from serve_app.console import answers, charts, observed
from serve_app.console.page import render
from serve_app.console.scene import Scene, read

Shown: TypeAlias = dict[str, Any]

LISTED = 20  # verdicts
MARKED = 12  # of them in the chart: those that moved something
KEPT = 40  # versions
STALE_S = 5.0  # since a writer last showed that it is alive
ROLES = ("champion", "challenger", "latest", "anchor")


async def draw(scene: Scene, names: Iterable[str]) -> dict[str, str]:
    """Return panels as HTML, by name.

    Raises
    ------
    Unavailable, StateError
        The store does not answer, or what it keeps is damaged.
    """
    wanted = list(dict.fromkeys(names))
    found = await read(scene, wanted)
    shared = {"scene": scene, "model": scene.model, "now": time.time(), **found}
    parts = {name: _PANELS[name](scene, shared) for name in wanted}
    return {name: render(f"panels/{name}", **shared, **parts[name]) for name in wanted}


def _tiles(scene: Scene, found: Shown) -> Shown:
    aliases = found["status"].get("aliases") or {}
    return {
        "since": since(found),
        "challengers": list(aliases.get("challengers", ())),
        "troubles": list(troubles(found["status"])),
    }


def since(found: Mapping[str, Any]) -> float | None:
    """Return when the one that answers now began to, in seconds since 1970."""
    moved = (v["at"] for v in found["verdicts"] if v["action"] in WHO_ANSWERS - {"freeze", "thaw"})
    at: float | None = next(moved, found["status"].get("cut_at"))
    return at


def troubles(status: Mapping[str, Any]) -> Iterable[str]:
    """Yield what is wrong with those that learn and decide, and with the store, and the cure."""
    for writer, does in (("learner", "learned"), ("gatekeeper", "decided")):
        beat = status.get(writer)
        if status["ready"] and (beat is None or beat["age_s"] > STALE_S):
            yield f"The {writer} does not run, so nothing is {does}: see `online-learner doctor`."
        elif beat and beat.get("trouble"):
            yield f"The {writer} cannot go on: {beat['trouble']}"
    memory = status.get("memory") or {}
    if memory.get("state") in {"tight", "full"}:
        used = memory["used_bytes"] / max(1, memory["limit_bytes"])
        yield f"The store is {memory['state']}: {used:.0%} of its memory is used."
    if status["ready"] and status.get("differs") is not None:
        yield f"From step {status['differs']} on, the weights are not those that were recorded."


def _score(scene: Scene, found: Shown) -> Shown:
    score = found["report"]["score"]
    found_roles = score["roles"]
    names = [*(r for r in ROLES if r in found_roles), *(r for r in found_roles if r not in ROLES)]
    roles = [(name, found_roles[name]) for name in names]
    points = [point for point in score["points"] if point["role"] in ROLES]
    marks = [one for one in found["verdicts"] if one["action"] in MOVES - {"reject"}]
    return {
        "score": score,
        "roles": roles,
        "points": charts.curves(points),
        "marks": marks[:MARKED],
    }


def _verdicts(scene: Scene, found: Shown) -> Shown:
    gate = found["status"].get("gate") or {"tests": []}
    tests = [test | {"share": _share(test["numbers"])} for test in gate["tests"]]
    return {"tests": tests, "gate": gate, "decided": found["verdicts"][:LISTED]}


def _share(numbers: Mapping[str, Any]) -> float:
    """Return how much of the evidence that is needed is there, from 0 to 1."""
    log_e, needed = numbers.get("log_e"), numbers.get("log_e_needed")
    if log_e is None or not needed or needed <= 0:
        return 0.0
    return float(min(1.0, max(0.0, log_e / needed)))


def _funnel(scene: Scene, found: Shown) -> Shown:
    stages = found["report"]["funnel"]
    return {"stages": stages, "top": charts.highest(stages, "count")}


def _drift(scene: Scene, found: Shown) -> Shown:
    return {"drift": found["report"]["drift"]}


def _calibration(scene: Scene, found: Shown) -> Shown:
    shown = {name: found["report"][name] for name in ("calibration", "scores")}
    return shown | observed.reliability(found["observed"]["reports"])


def _quality(scene: Scene, found: Shown) -> Shown:
    return observed.quality(found["observed"]["reports"], ROLES)


def _alarms(scene: Scene, found: Shown) -> Shown:
    return observed.drift(found["observed"]["reports"])


def _bias(scene: Scene, found: Shown) -> Shown:
    return observed.response(found["observed"]["reports"])


def _raters(scene: Scene, found: Shown) -> Shown:
    return observed.raters(found["observed"]["reports"])


def _queue(scene: Scene, found: Shown) -> Shown:
    return {"labels": answers.labels(scene.room), "task": scene.room.spec.task}


def _versions(scene: Scene, found: Shown) -> Shown:
    aliases = found["status"].get("aliases") or {}
    roles: dict[int, list[str]] = {}
    for role in ("champion", "anchor", "previous"):
        if aliases.get(role) is not None:
            roles.setdefault(aliases[role], []).append(role)
    for number in aliases.get("challengers", ()):
        roles.setdefault(number, []).append("challenger")
    versions = found["versions"]
    kept = versions[-KEPT:] + [v for v in versions[:-KEPT] if v["version"] in roles]
    kept.sort(key=lambda version: -version["version"])
    depths = _depths(versions)
    rows = [
        version | {"roles": roles.get(version["version"], []), "depth": depths[version["version"]]}
        for version in kept
    ]
    return {"rows": rows, "aliases": aliases, "hidden": len(versions) - len(kept)}


def _depths(versions: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    """Return how many blessed versions each descends from; parents come before their children."""
    depths: dict[int, int] = {}
    for version in versions:
        parent = version["parent"]
        depths[version["version"]] = 0 if parent is None else depths.get(parent, -1) + 1
    return depths


def _playground(scene: Scene, found: Shown) -> Shown:
    asked, room = found["asked"], scene.room
    ranks = room.spec.task in {"ranking", "generation"}
    return {
        "task": room.spec.task,
        "fields": [] if ranks else answers.fields(asked),
        "example": answers.example(room, asked),
        "kept": room.spec.log_inputs,
    }


_PANELS: dict[str, Callable[[Scene, Shown], Shown]] = {
    "tiles": _tiles,
    "score": _score,
    "verdicts": _verdicts,
    "funnel": _funnel,
    "calibration": _calibration,
    "drift": _drift,
    "quality": _quality,
    "alarms": _alarms,
    "bias": _bias,
    "raters": _raters,
    "queue": _queue,
    "versions": _versions,
    "playground": _playground,
}
