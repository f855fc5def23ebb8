"""What observers know, without a person: their rows go; who knows their words begins anew."""

from __future__ import annotations

import json
from collections.abc import Set as AbstractSet
from typing import Any

from online_learner.errors import Conflict, StateError
from online_learner.forget.finding import Theirs, words_of
from online_learner.forget.mentions import without, words_left
from online_learner.forget.person import Person
from online_learner.observe.findings import joined
from online_learner.observe.observer import KEYS, UNKNOWN, UNKNOWN_ADVICE
from online_learner.registry import Registry
from online_learner.schema import Observed

TRIES = 5  # against an observer that commits every few seconds
ALARMS, POINTS = 1000, 5000
OTHERS = 5000  # of their newest answers and signals, whose words are everybody's


async def own_words(registry: Registry, theirs: Theirs) -> set[str]:
    """Return the names of features and labels that, of late, only this person has sent."""
    words = set(theirs.words)
    for stream, places in (
        (registry.keys.predictions, theirs.predictions),
        (registry.keys.feedback, theirs.feedback),
    ):
        async for entry, fields in registry.store.backwards(stream, OTHERS):
            if not words:
                return words
            if entry not in places:
                words -= words_of(fields)
    return words


async def forget(registry: Registry, person: Person, words: AbstractSet[str]) -> list[str]:
    """Rewrite what the observers of a model have kept; the running one takes up from there.

    Parameters
    ----------
    words
        Names of features and labels that only this person sent. An observer that has one of them
        begins anew: what it knows of them cannot be told from what it knows of others.

    Returns
    -------
    The observers that begin anew.

    Raises
    ------
    Conflict
        The running observer was faster, again and again.
    """
    for _ in range(TRIES):
        try:
            kept = await registry.observed()
        except StateError:  # it is refused, and begun anew by the observer itself
            await registry.store.call("DEL", registry.keys.observer)
            return []
        if kept is None:
            return []
        told = await registry.observations()
        at, states, reports = kept[0], kept[1], told[1] if told else {}
        cleaned = {name: without(state, person) for name, state in states.items()}
        anew = [name for name, state in cleaned.items() if words_left(state, words)]
        anew += [n for n, r in reports.items() if n not in anew and words_left(r, words)]
        cleaned = {name: state for name, state in cleaned.items() if name not in anew}
        reports = {n: without(r, person) for n, r in reports.items() if n not in anew}
        tables: dict[str, Any] = without(at.tables, person)
        tables |= {name: UNKNOWN for name in anew if name in tables}
        if not anew and (cleaned, tables) == (states, at.tables) and told and reports == told[1]:
            return []
        update: dict[str, Any] = {"tables": tables, "n": at.n + 1}
        if words_left(at.advice.model_dump(), words):
            update["advice"] = UNKNOWN_ADVICE.model_dump()
            await registry.store.call("DEL", registry.keys.advice)  # as if nothing were advised
        after = Observed.model_validate(at.model_dump() | update)
        if await _keep(registry, at.n, after, cleaned, reports):
            return sorted(anew)
    raise Conflict("what observers know was written again and again meanwhile: run it again")


async def _keep(
    registry: Registry, n: int, after: Observed, states: dict[str, Any], reports: dict[str, Any]
) -> bool:
    """Write it, unless the observer has committed meanwhile; it then takes up from what is here."""
    blob = joined({name: json.dumps(state) for name, state in states.items()})
    told = joined({name: json.dumps(report) for name, report in reports.items()})
    head = {
        "after": str(n),
        "n": str(after.n),
        "state": registry.seal("observer", after, blob=blob, memory=told).fields(),
        "alarms": [],
        "most_alarms": ALARMS,
        "most_points": POINTS,
        "publish": registry.keys.swap,
    }
    keys = [getattr(registry.keys, name) for name in KEYS]
    return bool(await registry.store.run("observe", keys, [json.dumps(head), blob, told]))
