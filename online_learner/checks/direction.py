"""Laws about which way a lesson moves the answers, and how far for its weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TypeAlias

from online_learner.checks.subject import Subject, asked
from online_learner.learners import Model
from online_learner.schema import Example, Lesson, Output, Ranked, label_key

SAMPLE = 12
WEIGHTS = (0.0, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Opposites:
    """Two lessons on one question that pull its answer opposite ways."""

    one: Lesson
    other: Lesson


Chosen: TypeAlias = Callable[[Opposites], Lesson]


def check_lessons_pull(subject: Subject) -> None:
    """Check that lessons move answers the way that they say, and their opposites the other way."""
    one = _pull(subject, lambda pair: pair.one)
    neither = _pull(subject, lambda pair: replace(pair.one, weight=0.0))
    other = _pull(subject, lambda pair: pair.other)
    assert other < neither < one


def check_weights_scale(subject: Subject) -> None:
    """Check that the larger its weight, the further a lesson moves the answer."""
    far = [_pull(subject, _weighing(weight)) for weight in WEIGHTS]
    assert far == sorted(set(far)), f"moved by {far} for weights of {WEIGHTS}"


def _weighing(weight: float) -> Chosen:
    return lambda pair: replace(pair.one, weight=weight)


def check_no_weight_teaches_nothing(subject: Subject) -> None:
    """Check that with a weight of 0, it makes no difference what a lesson says."""
    state, pairs = _opposites(subject)
    for pair in pairs:
        one, other = (
            _after(subject, state, replace(lesson, weight=0.0)) for lesson in (pair.one, pair.other)
        )
        assert asked(one, subject.lessons) == asked(other, subject.lessons)


def check_complementary(subject: Subject) -> None:
    """Check that "not this label" lowers its score, or is refused by who is not `complementary`."""
    if getattr(subject.make(), "complementary", False):
        away = _pull(subject, lambda pair: _not(pair.one))
        assert away < _pull(subject, lambda pair: replace(pair.one, weight=0.0))
        return
    for lesson in subject.lessons[:SAMPLE]:
        try:
            subject.make().learn([_not(lesson)])
        except Exception:  # noqa: S112 (as it should)
            continue
        raise AssertionError("a complementary example is neither learned as one nor refused")


def _not(lesson: Lesson) -> Example:
    assert isinstance(lesson, Example)
    return replace(lesson, complementary=True)


def _pull(subject: Subject, chosen: Chosen) -> float:
    """Return how far answers are on the side of `one`, after the lessons that are chosen."""
    state, pairs = _opposites(subject)
    return sum(_leaning(_after(subject, state, chosen(pair)), pair) for pair in pairs)


def _after(subject: Subject, state: bytes, lesson: Lesson) -> Model:
    model = subject.make().from_bytes(state)
    model.learn([lesson])
    return model


def _leaning(model: Model, pair: Opposites) -> float:
    one, other = pair.one, pair.other
    [answer] = asked(model, [one])
    if isinstance(one, Ranked):
        first, *rest = answer.scores.values()
        return (first - fmean(rest)) * (-1.0 if one.worst_first else 1.0)
    if not isinstance(one, Example):
        return answer.scores["0"]
    assert isinstance(other, Example)
    if answer.scores:
        return answer.scores[label_key(one.target)] - answer.scores[label_key(other.target)]
    return _number(answer.output) * (1.0 if _number(one.target) > _number(other.target) else -1.0)


def _opposites(subject: Subject) -> tuple[bytes, list[Opposites]]:
    """Return the state after half of the lessons, and some of the other half with opposites."""
    model, known, new = subject.halved()
    return model.to_bytes(), [_turned(lesson, model, known) for lesson in new[:SAMPLE]]


def _turned(lesson: Lesson, model: Model, known: Sequence[Lesson]) -> Opposites:
    if isinstance(lesson, Ranked):
        lesson = replace(lesson, places=1)
        return Opposites(lesson, replace(lesson, worst_first=not lesson.worst_first))
    if not isinstance(lesson, Example):
        return Opposites(replace(lesson, reward=1.0), replace(lesson, reward=0.0))
    [answer] = asked(model, [lesson])
    if not answer.scores:
        beyond = 2.0 * _number(answer.output) - _number(lesson.target)
        return Opposites(lesson, replace(lesson, target=beyond))
    targets = [example.target for example in known if isinstance(example, Example)]
    other = next(y for y in targets if label_key(y) != label_key(lesson.target))
    return Opposites(lesson, replace(lesson, target=other))


def _number(output: Output) -> float:
    assert isinstance(output, int | float)
    return float(output)
