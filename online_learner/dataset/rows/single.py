"""Rows of one answer each: `unpaired`, with whether it is good, and `sft`: corrections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from online_learner.dataset.heard import Heard
from online_learner.dataset.rows.common import (
    Said,
    Shape,
    dialogue,
    option_text,
    prompt_of,
    reply_of,
    shown_first,
    text_of,
    value_text,
)
from online_learner.schema.values import Task

RANKS = ("ranking", "generation")
ALL: frozenset[Task] = frozenset({"classification", "regression", "ranking", "generation"})


class Unpaired:
    """A prompt, an answer, and whether it is good, as TRL's KTO takes them.

    From judgements and flags of what was shown (of several options, the first, or the one that a
    flag names), and from corrections: what was shown is not good, what stands in its place is.
    Where a fallback was shown, it is that which was corrected, and nothing is known of the answer.
    """

    tasks = ALL
    balance: str | None = "label"

    def payload(self, heard: Heard) -> Any:
        """Return whether what was shown is good, if that is known, and if something is better."""
        feedback, prediction = heard.feedback, heard.prediction
        if prediction.output is None or prediction.output == []:
            return None
        if _corrects(heard):
            return [None if prediction.withheld else False, True]
        if heard.up is None or (prediction.withheld and feedback.kind != "flag"):
            return None
        return [heard.up, False]

    def columns(self, shape: Shape) -> list[pa.Field]:
        """Return prompt, completion and label."""
        texts = [pa.field(name, dialogue(shape)) for name in ("prompt", "completion")]
        return [*texts, pa.field("label", pa.bool_())]

    def rows(self, payload: Any, said: Said, shape: Shape) -> Iterator[Sequence[Any]]:
        """Yield a row for what was shown, and one for what it was corrected to."""
        up, corrected = payload
        prompt = prompt_of(said.record.get("features", {}), shape)
        shown = None if up is None else _shown(said, shape)
        better = _corrected(said, shape) if corrected else None
        if shown is not None and shown != better:
            yield prompt, reply_of(shown, shape), up
        if better is not None:
            yield prompt, reply_of(better, shape), True


class Sft:
    """A prompt, and the answer that somebody put in the place of the one given."""

    tasks = ALL
    balance: str | None = None

    def payload(self, heard: Heard) -> Any:
        """Return a mark for a correction."""
        return True if _corrects(heard) else None

    def columns(self, shape: Shape) -> list[pa.Field]:
        """Return prompt and completion."""
        return [pa.field(name, dialogue(shape)) for name in ("prompt", "completion")]

    def rows(self, payload: Any, said: Said, shape: Shape) -> Iterator[Sequence[Any]]:
        """Yield one row."""
        better = _corrected(said, shape)
        if better is not None:
            yield prompt_of(said.record.get("features", {}), shape), reply_of(better, shape)


def _corrects(heard: Heard) -> bool:
    """Tell whether a signal puts another answer in the place of the one given."""
    kinds = {"correction", "selection"} if _labels(heard) else {"correction"}
    return heard.feedback.kind in kinds and heard.feedback.value is not None


def _labels(heard: Heard) -> bool:
    return not isinstance(heard.prediction.output, list) and not heard.prediction.options


def _shown(said: Said, shape: Shape) -> str | None:
    if shape.task not in RANKS:
        return value_text(said.record["output"])
    value = said.feedback["value"]
    named = value.get("option") if said.feedback["kind"] == "flag" else None
    return option_text(said.record, named or shown_first(said.record))


def _corrected(said: Said, shape: Shape) -> str | None:
    value = said.feedback["value"]
    if shape.task != "ranking":
        return value_text(value)
    if isinstance(value, str):  # one of those shown
        return option_text(said.record, value)
    return text_of(value["features"])
