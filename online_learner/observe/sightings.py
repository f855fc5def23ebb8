"""Answers once their window is over, and what was said of them by then; of very many a sample."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress

from pydantic import ValidationError

from online_learner.ids import entry_order
from online_learner.registry import Registry
from online_learner.schema import Feedback, Prediction, Sighting
from online_learner.store import Entry
from online_learner.store.keys import said_place


async def sightings(
    registry: Registry,
    *,
    after: str,
    due_ms: int,
    open_ms: int,
    window_ms: int,
    count: int,
    rng: random.Random,
) -> tuple[list[Sighting], str]:
    """Return answers whose window is over, in order, and the entry up to which they were looked at.

    Imported ones are left out: they tell neither of this model nor of what it is asked now.

    Where more than `count` are due, those that follow a random moment are taken, and the others are
    left out: when an answer was given says nothing of what it was.

    Parameters
    ----------
    after
        The entry up to which was looked before.
    due_ms
        Answers up to then are due, in milliseconds since the epoch.
    open_ms
        Answers before it are left out: what was said of them is not found any more, so that they
        would look as if nobody had spoken.
    window_ms
        For how long after an answer what is said of it counts.
    """
    first = max(after, f"{max(0, open_ms)}-0", key=entry_order)
    begins = entry_order(first)[0]
    if due_ms < begins:
        return [], after
    stream, until = registry.keys.predictions, str(due_ms)
    found = await registry.store.range(stream, f"({first}", until, count=count + 1)
    if len(found) <= count:
        place = found[-1][0] if found else after
        return await _joined(registry, found, window_ms), place
    newest = await registry.store.latest(stream, until=until)
    place = newest[0][0] if newest else found[-1][0]
    start = rng.randint(entry_order(found[0][0])[0], entry_order(place)[0])
    low = str(start) if start > begins else f"({first}"
    found = await registry.store.range(stream, low, until, count=count)
    return await _joined(registry, found, window_ms), place


async def _joined(registry: Registry, answers: Sequence[Entry], window_ms: int) -> list[Sighting]:
    names = [("HVALS", registry.keys.said(entry)) for entry, _ in answers]
    replies = await registry.store.many(names) if names else []
    places = [
        (number, said_place(value))
        for number, ((entry, _), values) in enumerate(zip(answers, replies, strict=True))
        for value in values
        if entry_order(said_place(value))[0] <= entry_order(entry)[0] + window_ms
    ]
    feedback = registry.keys.feedback
    said: dict[int, list[Feedback]] = {}
    entries = await registry.store.entries([(feedback, place) for _, place in places])
    for (number, _), fields in zip(places, entries, strict=True):
        if fields is None:
            continue
        with suppress(KeyError, ValidationError):
            said.setdefault(number, []).append(Feedback.model_validate_json(fields[b"f"]))
    found = []
    for number, (entry, fields) in enumerate(answers):
        with suppress(KeyError, ValidationError):
            prediction = Prediction.model_validate_json(fields[b"r"])
            if prediction.imported:
                continue
            signals = tuple(said.get(number, ()))
            found.append(Sighting(entry, entry_order(entry)[0], prediction, signals))
    return found
