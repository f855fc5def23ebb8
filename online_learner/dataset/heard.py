"""One signal, as a compiler of datasets has heard it: what it says, what it teaches, its weight."""

from __future__ import annotations

from dataclasses import dataclass, field

from online_learner.schema import Feedback, Lesson, Prediction

JUDGEMENTS = frozenset({"thumbs", "rating", "category", "flag"})


@dataclass(slots=True)
class Heard:
    """One signal that may be believed.

    Parameters
    ----------
    entry, answer
        Its place in its stream, and that of the answer in the log.
    other
        The second answer of a preference between two.
    lesson
        What it teaches by the table of signals, or None.
    up
        For a judgement: whether what was shown is good, or None where it lies in the middle.
    raw, weight
        What it weighs by the table of signals, and what it weighs in the end.
    factors
        What lies between the two, by name; `validation` is what is left when all others are known.
    """

    entry: str
    answer: str
    feedback: Feedback
    prediction: Prediction
    other: Prediction | None = None
    lesson: Lesson | None = None
    up: bool | None = None
    raw: float = 1.0
    weight: float = 1.0
    factors: dict[str, float] = field(default_factory=dict)
