"""Answers as the client gets them."""

from __future__ import annotations

import functools
import time
from typing import Any

from online_learner.explore import softmax
from online_learner.ids import Address
from online_learner.schema import Ask, Prediction


def render(
    record: Prediction,
    prediction_id: str | None,
    address: Address | None,
    *,
    window_s: float,
    reader: bool = True,
) -> dict[str, Any]:
    """Return an answer of ours; of a blocked one only the fallback.

    Parameters
    ----------
    reader
        Whether the caller may know why a label is asked for. Who knew that the answer is evidence
        could answer otherwise.
    """
    found = {
        "prediction_id": prediction_id,
        "model": record.model,
        "version": record.version,
        "step": record.step,
        "role": record.role,
        "output": record.fallback if record.blocked else record.output,
        "scores": {} if record.blocked else _scores(record),
        "uncertainty": record.uncertainty,
        "propensity": record.exposure * record.propensity,
        "ask": None if record.ask is None else _ask(record.ask, reader),
        "flags": [flag.model_dump() for flag in record.flags],
        "blocked": record.blocked,
        "feedback_expires_at": None if address is None else rfc3339(address.ms / 1000 + window_s),
    }
    if record.options and not record.blocked:
        found["ranking"] = _ranking(record)
    if record.model_version is not None:
        found["model_version"] = record.model_version
    return found


def _ask(ask: Ask, reader: bool) -> dict[str, Any]:
    return ask.model_dump() if reader else {"reason": "label", "probability": None}


def _scores(record: Prediction) -> dict[str, float]:
    if record.top_k is None:
        return record.scores
    return {name: record.scores[name] for name in record.shown() if name in record.scores}


def _ranking(record: Prediction) -> list[dict[str, Any]]:
    """Return the options in the order shown; of an answer made elsewhere, the best first."""
    best = softmax(record.scores)
    order = record.shown()
    if record.role == "external":
        order = sorted(order, key=lambda name: -record.scores.get(name, 0.0))
    places = dict(zip(record.shown(), record.propensities, strict=False))
    return [
        {
            "id": name,
            "score": record.scores[name],
            "probability": best[name],
            "propensity": places.get(name, 1.0),
        }
        for name in order
        if name in record.scores
    ]


def rfc3339(seconds: float) -> str:
    """Return a time, in seconds since the epoch, as replies tell it: to the millisecond, in UTC."""
    whole = int(seconds)
    return f"{_stamp(whole)}.{int((seconds - whole) * 1000):03d}Z"


@functools.lru_cache(maxsize=8)
def _stamp(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
