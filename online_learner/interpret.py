"""From signals to lessons: what each teaches, whether to believe it, and what it weighs.

The same signals, told in the same order, with the same tables of observers in between, give the
same lessons: of all that is remembered here nothing comes from a clock or a connection.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from online_learner.ids import entry_order
from online_learner.learners import Model
from online_learner.schema import Example, Feedback, Lesson, Prediction, Said, Signal, Weighed
from online_learner.store import Entry
from online_learner.weigh import Corrections

MAX_WEIGHT = 10.0
DIGITS = 6  # of a weight as it is recorded
MOST_HASTE = 100.0
ERASED = b"x"  # the only field of an entry whose contents were erased
RENAMED = b"w"  # a field of one in which an erased label was renamed
_read_feedback = Feedback.__pydantic_validator__.validate_json  # without what wraps it
_read_prediction = Prediction.__pydantic_validator__.validate_json
NOTHING = "nothing_to_learn"  # how the reason begins for a signal that is kept, and not learned


class Signals(Protocol):
    """What a signal means for learning; see `policies.signals`."""

    def lesson(
        self, feedback: Feedback, prediction: Prediction, other: Prediction | None = None
    ) -> Lesson | None:
        """Return what to learn from a signal, or None where it teaches nothing."""

    def said(self, feedback: Feedback, prediction: Prediction) -> Said:
        """Return what a signal tells of the answer; it takes nothing in."""

    def state(self) -> dict[str, Any]:
        """Return what it remembers of earlier signals, as plain JSON."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""


class Validation(Protocol):
    """Whom to believe, and how far; see `policies.validation`."""

    def look(self, signal: Signal, /) -> str | None:
        """Return why a signal is to be set aside, or None where it may be learned."""

    def weigh(self, signal: Signal, weight: float, /) -> float:
        """Return what a lesson is to weigh, and count it."""

    def state(self) -> dict[str, Any]:
        """Return what it remembers of earlier signals, as plain JSON."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""


@dataclass(slots=True)
class Batch:
    """Signals on their way into one step: consecutive ones, or those that `release` brings back."""

    entries: list[Entry] = field(default_factory=list)
    lessons: list[tuple[str, Lesson]] = field(default_factory=list)
    set_aside: dict[str, str] = field(default_factory=dict)  # entry -> reason
    weighed: dict[str, Weighed] = field(default_factory=dict)  # entry -> how, where corrected
    release: str | None = None  # the control entry that released them

    @property
    def to(self) -> str:
        """The last entry of the feedback stream that it covers."""
        return self.release or self.entries[-1][0]

    def keep(self) -> list[Lesson]:
        """Return the lessons that were not set aside."""
        return [lesson for entry, lesson in self.lessons if entry not in self.set_aside]

    def before(self, entry: str) -> list[Lesson]:
        """Return the lessons before an entry that were not set aside."""
        entries = [found for found, _ in self.lessons]
        head = self.lessons[: entries.index(entry)]
        return [lesson for found, lesson in head if found not in self.set_aside]


def runs(entries: Sequence[Entry]) -> Iterator[tuple[bool, list[Entry]]]:
    """Yield runs of signals and runs of control entries, in order; True for the latter."""
    for is_control, run in itertools.groupby(entries, key=lambda entry: b"c" in entry[1]):
        yield is_control, list(run)


class Interpreter:
    """Turns signals into lessons for one learner.

    Parameters
    ----------
    validation
        Whom to believe; None believes everybody.
    corrections
        By what observers found; None corrects nothing.
    """

    def __init__(
        self,
        signals: Signals,
        validation: Validation | None = None,
        corrections: Corrections | None = None,
    ) -> None:
        self.signals = signals
        self.validation = validation
        self.corrections = corrections or Corrections({})

    def read(self, entries: Sequence[Entry], learner: Model, *, released: bool = False) -> Batch:
        """Turn signals into lessons; what `learner` cannot learn is set aside with its reason.

        What an operator has `released` is believed.
        """
        batch = Batch(list(entries))
        for entry, fields in entries:
            try:
                lesson, weighed = self._read(entry, fields, learner, released=released)
            except _Aside as aside:
                batch.set_aside[entry] = str(aside)
            except Exception as error:  # a table of a team's own may raise anything
                batch.set_aside[entry] = f"unreadable: {error}"
            else:
                batch.lessons.append((entry, lesson))
                if weighed is not None:
                    batch.weighed[entry] = weighed
        return batch

    def _read(
        self, entry: str, fields: Mapping[bytes, bytes], learner: Model, *, released: bool
    ) -> tuple[Lesson, Weighed | None]:
        """Return what a signal teaches, and how it was weighed; raises `_Aside`."""
        if not fields:
            raise _Aside("gone: it is no longer in the log")
        if ERASED in fields:
            raise _Aside("erased: nothing of it is kept")
        feedback, prediction = _read_feedback(fields[b"f"]), _read_prediction(fields[b"r"])
        other = _read_prediction(fields[b"o"]) if b"o" in fields else None
        if self.validation is None or released:
            return self._lesson(feedback, prediction, other, learner), None
        said = self.signals.said(feedback, prediction)
        answer, at_ms = fields[b"p"].decode(), entry_order(entry)[0]
        signal = Signal(feedback, prediction, said, answer, at_ms)
        doubt = self.validation.look(signal)
        if doubt is not None:
            raise _Aside(doubt)
        lesson = self._lesson(feedback, prediction, other, learner)
        return self._weighed(self.validation, signal, lesson)

    def _lesson(
        self, feedback: Feedback, prediction: Prediction, other: Prediction | None, learner: Model
    ) -> Lesson:
        """Return what a signal teaches this learner; raises `_Aside` where that is nothing."""
        if prediction.ask is not None and prediction.ask.reason == "gold" and not feedback.auditor:
            raise _nothing("a planted question tells of its rater; it is kept")
        if prediction.inputs == "none" or (other is not None and other.inputs == "none"):
            raise _nothing("what was asked is not in the log (log_inputs: none); it is kept")
        lesson = self.signals.lesson(feedback, prediction, other)
        if learner.family == "none":
            raise _nothing("this model has no learner; the signal is kept")
        if lesson is None:
            raise _nothing(f"this {feedback.kind} teaches nothing on this task; it is kept")
        if not 0.0 < lesson.weight <= MAX_WEIGHT:
            raise _nothing(f"the signals policy gave it a weight of {lesson.weight:g}; it is kept")
        complementary = isinstance(lesson, Example) and lesson.complementary
        if complementary and not getattr(learner, "complementary", False):
            raise _nothing("this learner cannot learn which label is wrong; the signal is kept")
        return lesson

    def _weighed(
        self, validation: Validation, signal: Signal, lesson: Lesson
    ) -> tuple[Lesson, Weighed | None]:
        """Return a lesson with the weight that it has in the end, and how that came about."""
        factors = self.corrections.factors(signal)
        wanted = lesson.weight
        if factors:
            wanted = min(MAX_WEIGHT, math.prod(factors.values(), start=wanted))
        weight = validation.weigh(signal, wanted)
        if not 0.0 < weight <= MAX_WEIGHT:
            raise _Aside(f"unreadable: the validation policy gave it a weight of {weight:g}")
        if weight == lesson.weight:
            return lesson, None
        how = Weighed(raw=lesson.weight, given=round(weight, DIGITS), factors=factors)
        return _of_weight(lesson, weight), how

    # --- memory -------------------------------------------------------------------------------

    def heed(self, tables: Mapping[str, dict[str, Any]]) -> None:
        """Weigh by what observers tell, from here on."""
        self.corrections.take(tables)
        self._suspend()

    def _suspend(self) -> None:
        until_ms = self.corrections.number("drift", "suspend_until_ms")
        suspend = getattr(self.validation, "suspend", None)
        if until_ms is not None and suspend is not None:
            suspend(until_ms)

    @property
    def haste(self) -> float:
        """By how much faster snapshots are wanted, since the world has moved."""
        wanted = self.corrections.number("drift", "haste")
        return 1.0 if wanted is None else min(MOST_HASTE, max(1.0, wanted))

    def memory(self) -> dict[str, Any]:
        """Return what is known of the raters, and what was told: it travels with the weights."""
        validation = {} if self.validation is None else self.validation.state()
        told = {"told": self.corrections.state()} if self.corrections.tables else {}
        return {"signals": self.signals.state(), "validation": validation, **told}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take back what `memory` returned; an empty one knows nobody."""
        self.corrections.restore(memory.get("told", {}))
        self.signals.restore(memory.get("signals", {}))
        if self.validation is not None:
            self.validation.restore(memory.get("validation", {}))
            self._suspend()  # older weights may come with newer tables


def _of_weight(lesson: Lesson, weight: float) -> Lesson:
    """Return a lesson with another weight; `replace` takes as long as learning it."""
    if isinstance(lesson, Example):
        return Example(lesson.features, lesson.target, weight, lesson.complementary)
    return replace(lesson, weight=weight)


class _Aside(Exception):
    """Why a signal is not learned."""


def _nothing(why: str) -> _Aside:
    return _Aside(f"{NOTHING}: {why}")
