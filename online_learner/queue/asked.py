"""The ask lane: answers that active learning wants a label of, most valuable first.

What a label is worth is how unsure the model was, discounted by age: a question is about what it
did not know then. Over the time for which a question is open its value falls to 1/e.
"""

from __future__ import annotations

import contextlib
import json
import math

from online_learner.ids import entry_order
from online_learner.queue.items import ASK, Question
from online_learner.registry import Registry

LOOK_AT = 2000  # questions that one call looks at; of more, the newest


async def asked(
    registry: Registry, *, now: float, open_s: float, ask_for_s: float
) -> list[Question]:
    """Return the questions that are open, most valuable first; planted ones are not among them.

    Parameters
    ----------
    open_s
        For how many seconds a question can be answered.
    ask_for_s
        In how many seconds the value of a label falls to 1/e.
    """
    least, found = (now - open_s) * 1000, []
    async for entry, fields in registry.store.backwards(registry.keys.asked, LOOK_AT):
        asked_ms = entry_order(entry)[0]
        if asked_ms <= least:
            break
        value = _value(fields[b"q"])
        if value is not None:
            age_s = max(0.0, now - asked_ms / 1000)
            found.append((value * math.exp(-age_s / ask_for_s), entry_order(entry), entry))
    return [Question.of(entry, ASK, open_s) for _, _, entry in sorted(found, reverse=True)]


def _value(question: bytes) -> float | None:
    """Return what a label is worth by the question; None where it is planted, or is none."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        read = json.loads(question)
        value = float(read["value"])
        return value if read["reason"] != "gold" and math.isfinite(value) else None
    return None
