"""Two versions side by side: what they learned, what was decided between them, what differs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping
from typing import Any

from online_learner.errors import StateError
from online_learner.explain.models import verdicts
from online_learner.learners import Model
from online_learner.registry import Registry
from online_learner.schema import Version

LOOK_AT = 1000  # verdicts that are searched for those between the two
TOP = 20  # weights that are named, those that changed most


async def versus(registry: Registry, like: Model, first: int, second: int) -> dict[str, Any]:
    """Return how the second of two versions differs from the first.

    Parameters
    ----------
    like
        The model's learner, to read the weights with.

    Returns
    -------
    `first` and `second`, the versions; `same` tells whether their weights are the same to the bit;
    `steps`, `learned` and `seconds` from the first to the second; `decisions` between the two,
    newest first; `weights`, or None, and `why_not`.

    Raises
    ------
    NotFound
        There is no such version.
    """
    a, b = await registry.version(first), await registry.version(second)
    weights, why_not = await _weights(registry, like, a, b)
    return {
        "first": a.model_dump(),
        "second": b.model_dump(),
        "same": a.state_digest == b.state_digest,
        "steps": b.step - a.step,
        "learned": b.learned - a.learned,
        "seconds": b.cut_at - a.cut_at,
        "decisions": await _decisions(registry, {first, second}),
        "weights": weights,
        "why_not": why_not,
    }


async def _decisions(registry: Registry, pair: set[int]) -> list[dict[str, Any]]:
    """Return what was decided between two versions."""
    found = await verdicts(registry, count=LOOK_AT)
    return [one for one in found if {one["version"], one["reference"]} == pair]


async def _weights(
    registry: Registry, like: Model, a: Version, b: Version
) -> tuple[dict[str, Any] | None, str]:
    try:
        models = [(await registry.load_version(v.version, like))[1] for v in (a, b)]
    except StateError as error:
        gone = [v.version for v in (a, b) if v.status == "rejected"]
        if gone:
            return None, f"the weights of version {gone[0]} were dropped when it was rejected"
        return None, str(error)
    found = await asyncio.to_thread(difference, *models)
    return (found, "") if found else (None, "this learner does not tell its weights apart by name")


def difference(a: Model, b: Model) -> dict[str, Any] | None:
    """Return what differs between two models, or None where their weights have no names.

    Returns
    -------
    `unit` is `coefficients` or `tensors`; of `of` numbers, or parts, `changed` differ. `top` has
    those that changed most, with their values (of a tensor: the norms) and the size of the change.
    """
    if a.family == "torch":
        return _summary("tensors", list(_tensors(a, b)))
    was, now = dict(_named(a)), dict(_named(b))
    if not was and not now:
        return None
    names = sorted({*was, *now})
    pairs = ((name, was.get(name, 0.0), now.get(name, 0.0)) for name in names)
    return _summary("coefficients", [(name, x, y, y - x) for name, x, y in pairs])


def _summary(unit: str, rows: list[tuple[str, float, float, float]]) -> dict[str, Any]:
    changed = [row for row in rows if row[3]]
    changed.sort(key=lambda row: -abs(row[3]))
    keys = ("name", "first", "second", "change")
    top = [dict(zip(keys, row, strict=True)) for row in changed[:TOP]]
    return {"unit": unit, "of": len(rows), "changed": len(changed), "top": top}


def _tensors(a: Model, b: Model) -> Iterator[tuple[str, float, float, float]]:
    """Yield the norms of each tensor, and of its change; one that grew is padded with zeros."""
    from online_learner.learners.torch import tensors

    was, now = (tensors.unpack(model.to_bytes())[0] for model in (a, b))
    for name in sorted({*was, *now}):
        x, y = (found.get(name) for found in (was, now))
        norms = [0.0 if t is None else float(t.double().norm()) for t in (x, y)]
        yield name, norms[0], norms[1], _distance(x, y, norms)


def _distance(x: Any, y: Any, norms: list[float]) -> float:
    if x is None or y is None:
        return max(norms)
    if x.shape == y.shape:
        return float((y.double() - x.double()).norm())
    return abs(norms[1] - norms[0])


def _named(model: Any) -> Iterator[tuple[str, float]]:
    """Yield the weights of a linear model by name: its own, or those of its last step."""
    found = getattr(model, "model", model)
    steps = getattr(found, "steps", None)
    found = list(steps.values())[-1] if steps else found
    for label, part in getattr(found, "classifiers", {}).items():
        yield from ((f"{label}: {name}", weight) for name, weight in _coefficients(part))
    yield from _coefficients(found)


def _coefficients(part: Any) -> Iterator[tuple[str, float]]:
    weights = getattr(part, "weights", None)
    if not isinstance(weights, Mapping):
        return
    intercept = getattr(part, "intercept", None)
    if isinstance(intercept, int | float):
        yield "(intercept)", float(intercept)
    for name, weight in weights.items():
        if isinstance(weight, Mapping):  # softmax: one set of weights a label
            yield from ((f"{name}: {key}", float(w)) for key, w in weight.items())
        elif isinstance(weight, int | float) and math.isfinite(weight):
            yield str(name), float(weight)
