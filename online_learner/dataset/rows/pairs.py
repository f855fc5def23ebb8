"""Rows of two answers, one better than the other: `preference` and `reward`, as TRL takes them.

From comparisons: a preference, an order (all pairs that it decides), one that was taken (over each
other that was shown), and an edit (over what it edits). A judgement of one answer compares nothing,
and of answers to two questions neither is the better answer to one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from online_learner.dataset.columns import json_field
from online_learner.dataset.heard import Heard
from online_learner.dataset.rows.common import (
    Said,
    Shape,
    dialogue,
    prompt_of,
    reply_of,
    text_of,
)
from online_learner.schema import Ranked
from online_learner.schema.values import Task, canonical

COMPARES = frozenset({"preference", "ranking", "selection", "correction"})
APART = "\n\n"  # a prompt and its answer, as one text


class Preference:
    """A prompt, the answer chosen and the one rejected; and what a ranker sees of them."""

    tasks: frozenset[Task] = frozenset({"ranking", "generation"})
    balance: str | None = None

    def payload(self, heard: Heard) -> Any:
        """Return the context, the options from the best on, and how many places are decided."""
        lesson = heard.lesson
        if heard.feedback.kind not in COMPARES or not isinstance(lesson, Ranked):
            return None
        other = heard.other or heard.prediction
        if lesson.worst_first or other.features != heard.prediction.features:
            return None
        return [lesson.features, lesson.options, lesson.places]

    def columns(self, shape: Shape) -> list[pa.Field]:
        """Return prompt, chosen, rejected, and the features of all three."""
        texts = [pa.field(n, dialogue(shape)) for n in ("prompt", "chosen", "rejected")]
        names = ("features", "chosen_features", "rejected_features")
        return texts + [json_field(name) for name in names]

    def rows(self, payload: Any, said: Said, shape: Shape) -> Iterator[Sequence[Any]]:
        """Yield one row for each pair that is decided."""
        prompt = prompt_of(said.record.get("features", {}), shape)
        context, options, places = payload
        whole = canonical(context)
        texts = [reply_of(text_of(option), shape) for option in options]
        features = [canonical(option) for option in options]
        for better, worse in _decided(len(options), places):
            yield prompt, texts[better], texts[worse], whole, features[better], features[worse]


class Reward(Preference):
    """Whole texts or conversations, prompt included, and by how much one is better."""

    def columns(self, shape: Shape) -> list[pa.Field]:
        """Return chosen, rejected and margin."""
        texts = [pa.field(name, dialogue(shape)) for name in ("chosen", "rejected")]
        return [*texts, pa.field("margin", pa.float64())]

    def rows(self, payload: Any, said: Said, shape: Shape) -> Iterator[Sequence[Any]]:
        """Yield one row for each pair; the margin is how many places they are apart in an order."""
        prompt = prompt_of(said.record.get("features", {}), shape)
        _, options, places = payload
        texts = [_whole(prompt, reply_of(text_of(option), shape)) for option in options]
        ordered = said.feedback["kind"] == "ranking"
        for better, worse in _decided(len(options), places):
            yield texts[better], texts[worse], float(worse - better) if ordered else 1.0


def _decided(options: int, places: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs that an order decides: those behind its last place are tied."""
    for better in range(min(places, options)):
        for worse in range(better + 1, options):
            yield better, worse


def _whole(prompt: Any, reply: Any) -> Any:
    return f"{prompt}{APART}{reply}" if isinstance(prompt, str) else [*prompt, *reply]
