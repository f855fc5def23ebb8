"""Whom to believe, and how far: each signal through the same policies as in the learner.

From the beginning of the log and in its order, with the tables that observers told in between. So
a lesson weighs here what it weighs in the learner, but where this went back to a version, and took
back what it knew of raters then; or where it was given a signal after all, and read it later than
in its place. What cannot be learned by the one learner that there is (it ruined it, say) counts.

What teaches that learner nothing may make a row all the same. It weighs what the table of signals
and the observers say, and is not among a rater's lessons.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Mapping
from typing import Any

from online_learner.dataset.heard import JUDGEMENTS, Heard
from online_learner.errors import OnlineLearnerError
from online_learner.evidence import same
from online_learner.ids import entry_order
from online_learner.interpret import DIGITS, ERASED, MAX_WEIGHT
from online_learner.learners.factory import make_learner
from online_learner.schema import (
    Control,
    Example,
    Feedback,
    Lesson,
    Prediction,
    Ranked,
    Rated,
    Said,
    Signal,
    label_key,
)
from online_learner.settings import ModelSpec
from online_learner.stages import make_lenses, make_signals, make_validation
from online_learner.store import Fields
from online_learner.weigh import Corrections

log = logging.getLogger(__name__)

MIDDLE = 0.125  # of a scale from 0 to 1, around a rater's own mean: neither good nor bad
VALIDATION = "validation"
_NAMING = frozenset({"selection", "preference", "ranking"})  # kinds that name what was shown


class Aside(Exception):
    """Why a signal does not count."""

    def __init__(self, reason: str, heard: Heard | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.heard = heard


class Policies:
    """The policies of one model, with their memory of all that was said so far."""

    def __init__(self, spec: ModelSpec) -> None:
        self.signals = make_signals(spec)
        self.validation = make_validation(spec)
        lenses = make_lenses(spec)
        self.corrections = Corrections(lenses)
        told = sorted(name for name in spec.observe.lenses() if _weighs(lenses[name]))
        self.factors = (*told, VALIDATION)
        self._learns_wrong = _learns_wrong(spec)

    def heed(self, fields: Fields) -> None:
        """Take in a control entry: of these, tables alone matter here."""
        with contextlib.suppress(ValueError):
            control = Control.model_validate_json(fields[b"c"])
            if control.action == "tables":
                self.corrections.take(control.tables)
                until_ms = self.corrections.number("drift", "suspend_until_ms")
                suspend = getattr(self.validation, "suspend", None)
                if until_ms is not None and suspend is not None:
                    suspend(until_ms)

    def hear(
        self, entry: str, fields: Mapping[bytes, bytes], *, released: bool, late: bool
    ) -> Heard:
        """Return what a signal teaches, and what it weighs.

        Parameters
        ----------
        released
            Whether an operator said that it is to be believed.
        late
            Whether it came too late to be checked against what had been shown.

        Raises
        ------
        Aside
            It does not count.
        """
        if ERASED in fields:
            raise Aside("erased")
        try:
            return self._hear(entry, fields, released=released, late=late)
        except Aside:
            raise
        except Exception as error:  # a policy of a team's own may raise anything
            raise Aside("unreadable") from error

    def _hear(
        self, entry: str, fields: Mapping[bytes, bytes], *, released: bool, late: bool
    ) -> Heard:
        feedback = Feedback.model_validate_json(fields[b"f"])
        prediction = Prediction.model_validate_json(fields[b"r"])
        other = Prediction.model_validate_json(fields[b"o"]) if b"o" in fields else None
        heard = Heard(entry, fields[b"p"].decode(), feedback, prediction, other)
        if late and other is None and not _was_shown(feedback, prediction):
            raise Aside("not_served", heard)
        said = self.signals.said(feedback, prediction)
        signal = Signal(feedback, prediction, said, heard.answer, entry_order(entry)[0])
        doubt = self.validation.look(signal)
        if doubt is not None and not released:
            raise Aside(doubt.partition(":")[0], heard)
        self._learn(heard, signal, believed=doubt is not None)
        return heard

    def _learn(self, heard: Heard, signal: Signal, *, believed: bool) -> None:
        """Find what a signal teaches, and let it weigh; raises `Aside`."""
        feedback, prediction = heard.feedback, heard.prediction
        planted = prediction.ask is not None and prediction.ask.reason == "gold"
        if planted and not feedback.auditor:
            raise Aside("gold", heard)
        if any(r is not None and r.inputs == "none" for r in (prediction, heard.other)):
            raise Aside("inputs_not_kept", heard)
        lesson = heard.lesson = self.signals.lesson(feedback, prediction, heard.other)
        heard.up = _verdict(heard, signal.said)
        if lesson is not None and not 0.0 < lesson.weight <= MAX_WEIGHT:
            heard.lesson = lesson = None
        heard.raw = heard.weight = 1.0 if lesson is None else lesson.weight
        if not believed:
            self._weigh(heard, signal, lesson)
        if feedback.kind == "implicit":
            raise Aside("implicit", heard)

    def _weigh(self, heard: Heard, signal: Signal, lesson: Lesson | None) -> None:
        """Let a signal weigh what it would in the learner."""
        factors = self.corrections.factors(signal)
        wanted = min(MAX_WEIGHT, math.prod(factors.values(), start=heard.raw))
        given = wanted
        if lesson is not None and self._learned(lesson):
            given = self.validation.weigh(signal, wanted)
            if not 0.0 < given <= MAX_WEIGHT:
                raise Aside("unreadable", heard)
        heard.factors = factors
        if given != wanted:
            heard.factors = {**factors, VALIDATION: round(given / wanted, DIGITS)}
        heard.weight = round(given, DIGITS) if given != heard.raw else given

    def _learned(self, lesson: Lesson) -> bool:
        """Tell whether the learner takes such a lesson; others are not counted among its own."""
        wrong = isinstance(lesson, Example) and lesson.complementary
        return not wrong or self._learns_wrong


def _learns_wrong(spec: ModelSpec) -> bool:
    """Tell whether the learner can be told which label is wrong; asked where that may happen."""
    if spec.task != "classification" or (spec.labels is not None and len(spec.labels) == 2):
        return False
    try:
        return bool(getattr(make_learner(spec.on_cpu()), "complementary", False))
    except OnlineLearnerError as error:
        log.warning("the learner cannot be made here, and is taken for a usual one: %s", error)
        return False


def _weighs(lens: Any) -> bool:
    """Tell whether an observer says more of a lesson's weight than the base class, which is 1."""
    owner = next((kind for kind in type(lens).__mro__ if "factor" in vars(kind)), None)
    return owner is not None and owner.__name__ != "Lens"


def _verdict(heard: Heard, said: Said) -> bool | None:
    """Return whether a judgement finds good what was shown; None where it lies in the middle."""
    lesson, reward = heard.lesson, said.reward
    if heard.feedback.kind not in JUDGEMENTS:
        return None
    if isinstance(lesson, Ranked):
        return not lesson.worst_first
    if isinstance(lesson, Example):
        rated = heard.feedback.kind == "rating"
        if rated and lesson.weight < 2 * MIDDLE:  # of a scale from -1 to 1
            return None
        return not lesson.complementary and same(lesson.target, heard.prediction.output)
    if isinstance(lesson, Rated):
        reward = lesson.reward
    return None if reward is None or abs(reward - 0.5) < MIDDLE else reward > 0.5


def _was_shown(feedback: Feedback, prediction: Prediction) -> bool:
    """Tell whether the user could choose what is said to have been chosen."""
    value = feedback.value
    if feedback.kind not in _NAMING or value is None:
        return True
    shown = set() if prediction.withheld else set(prediction.shown())
    if feedback.kind == "preference":
        return {value["chosen"], value["rejected"]} <= shown
    if feedback.kind == "ranking":
        return set(value) <= shown
    return label_key(value) in shown
