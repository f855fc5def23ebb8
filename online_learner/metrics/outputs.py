"""What the champion answers of late, and how sure it is: it takes no label. No user's data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from online_learner.registry import Registry
from online_learner.schema import label_key

MOST, RECENT = 1000, 200  # audited answers: those of the long run, and the newest of them
BINS = 20
LABELS = 20  # that are told; the others are one
LABEL_CHARACTERS = 64
OTHERS = "(others)"


@dataclass(frozen=True, slots=True)
class Given:
    """One audited answer of the champion: its label, and the score of that."""

    label: str
    score: float | None


async def given(registry: Registry) -> list[Given]:
    """Return the champion's newest audited labels, newest first."""
    audits = registry.store.backwards(registry.keys.audits, MOST)
    answers = [_answer(fields.get(b"a", b"")) async for _, fields in audits]
    return [answer for answer in answers if answer is not None]


def _answer(audit: bytes) -> Given | None:
    try:
        champion = json.loads(audit)["roles"]["champion"]
        label = label_key(champion["output"])
        return Given(label[:LABEL_CHARACTERS], champion.get("scores", {}).get(label))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None  # it failed, or is none of ours


def histogram(answers: Sequence[Given]) -> list[dict[str, Any]] | None:
    """Return how sure the champion was of its labels, in bins of equal width; None of none."""
    sure = [answer.score for answer in answers if answer.score is not None]
    if not sure:
        return None
    counts = Counter(min(BINS - 1, max(0, int(score * BINS))) for score in sure)
    return [
        {"low": place / BINS, "high": (place + 1) / BINS, "count": counts[place]}
        for place in range(BINS)
    ]


def shares(answers: Sequence[Given]) -> dict[str, dict[str, float]]:
    """Return each label's share of the newest answers, and of all."""
    recent, long_run = _shares(answers[:RECENT]), _shares(answers)
    most = sorted(long_run, key=lambda label: (-long_run[label], label))
    found = {
        label: {"recent": recent.get(label, 0.0), "long_run": long_run[label]}
        for label in most[:LABELS]
    }
    if len(most) > LABELS:
        found[OTHERS] = {
            "recent": sum(recent.get(label, 0.0) for label in most[LABELS:]),
            "long_run": sum(long_run[label] for label in most[LABELS:]),
        }
    return found


def _shares(answers: Sequence[Given]) -> dict[str, float]:
    counts = Counter(answer.label for answer in answers)
    return {label: n / len(answers) for label, n in counts.items()}
