"""What those who look on have found: who speaks, whom to believe, what has moved."""

from __future__ import annotations

import math
from typing import Any

from pydantic import ValidationError

from online_learner.registry import Registry
from online_learner.schema import Observed, Raised
from online_learner.settings import ModelSpec

SECTIONS = ("response", "raters", "implicit", "drift", "scores")


async def observed(registry: Registry) -> tuple[Observed, dict[str, Any]]:
    """Return how far the observers came, and what each reports, by its name.

    Reports are plain JSON; where one has a number that is not finite, it is null here.

    Raises
    ------
    StateError
        What they had kept is damaged.
    """
    found = await registry.observations()
    if found is None:
        return Observed(), {}
    at, reports = found
    return at, {name: told for name, told in _plain(reports).items() if told}


async def bias(registry: Registry, spec: ModelSpec) -> dict[str, Any]:
    """Return what is known of those who speak and those who are silent.

    Returns
    -------
    `response`, `raters`, `implicit`, `drift` and `scores`, null where nobody looks for that, or
    nothing was found yet; `weighs`, by whose tables the learner weighs now; `ask`, by which the
    budget of questions is multiplied; `at`, when that was written, and `seen`, how many answers
    were looked at by then, each `window_s` after it was given.

    Raises
    ------
    StateError
        What observers had kept is damaged.
    """
    at, reports = await observed(registry)
    looked_for = spec.observe.lenses()
    return {
        "model": registry.model,
        "at": at.at or None,
        "window_s": spec.observe.window_s if at.window_s is None else at.window_s,
        "seen": at.seen,
        "weighs": sorted(at.tables),
        "ask": at.advice.ask,
        **{name: reports.get(name) if name in looked_for else None for name in SECTIONS},
    }


async def alarms(
    registry: Registry, *, count: int = 100, after: str | None = None
) -> list[dict[str, Any]]:
    """Return alarms, each with its `id`: the newest first, or all after an id, oldest first."""
    stream = registry.keys.alarms
    if after is None:
        found = await registry.store.latest(stream, count)
    else:
        found = await registry.store.range(stream, f"({after}", count=count)
    told = []
    for entry, fields in found:
        try:
            raised = Raised.model_validate_json(fields[b"a"])
        except (KeyError, ValidationError):  # of another release: the others are told all the same
            continue
        told.append({"id": entry, **_plain(raised.model_dump())})
    return told


def _plain(value: Any) -> Any:
    """Return JSON that everybody can read: without NaN and infinities."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
