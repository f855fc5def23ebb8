"""Laws about the worst that can be asked and taught: all of it passes the service's own door."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from online_learner.checks.subject import (
    Change,
    Subject,
    answered,
    asked,
    check_finite,
    has_labels,
    options_of,
    rewritten,
)
from online_learner.requests import MAX_MAGNITUDE, Features
from online_learner.requests.values import MAX_OPTIONS, MAX_TEXT
from online_learner.schema import Example, Lesson, Ranked

NAME_BYTES = 256
TOGETHER = 8  # new names in one lesson
MANY = 3000  # features at once
ODD_TEXT = "\0 \u202etxet \u200d e\u0301 \ufdd0 \U0001f469\u200d\U0001f680"
VALUES: tuple[Any, ...] = (
    MAX_MAGNITUDE,
    -MAX_MAGNITUDE,
    int(MAX_MAGNITUDE),
    5e-324,
    True,
    "",
    ODD_TEXT,
    "x" * MAX_TEXT,
    "so it goes " * (MAX_TEXT // 11),
    [MAX_MAGNITUDE],
    [MAX_MAGNITUDE, -MAX_MAGNITUDE] * 64,
)


def check_bounded_by_names(subject: Subject) -> None:
    """Check that new names and words, twice `max_bytes` of each, leave the state below that."""
    for lessons in (_new_names(subject), _new_words(subject)):
        _check_bounded(subject, lessons)


def check_bounded_by_labels(subject: Subject) -> None:
    """Check that new labels, twice `max_bytes` of them, leave the state below that."""
    if has_labels(subject):
        _check_bounded(subject, _new_labels(subject))


def _check_bounded(subject: Subject, lessons: Iterable[Lesson]) -> None:
    model = subject.learned()
    state, stream, refused = model.to_bytes(), iter(lessons), 0
    while refused < 3 and (batch := list(itertools.islice(stream, 64))):
        try:
            model.learn(batch)
        except Exception:  # it may refuse what it cannot hold
            model, refused = subject.make().from_bytes(state), refused + 1
        else:
            state, refused = model.to_bytes(), 0
        assert len(state) <= subject.max_bytes, f"{len(state)} bytes, over {subject.max_bytes}"


def _new_names(subject: Subject) -> Iterator[Lesson]:
    """Yield lessons in which every set of features has some names that are new."""
    names = map(_name, itertools.count())

    def named(features: Features) -> Features:
        return features | dict.fromkeys(itertools.islice(names, TOGETHER), 1.0)

    for lesson in _turns(subject, TOGETHER):
        yield rewritten(lesson, named)


def _new_words(subject: Subject) -> Iterator[Lesson]:
    """Yield the lessons that have texts, with new words in them."""
    names = map(_name, itertools.count())

    def worded(features: Features) -> Features:
        texts = (name for name, value in features.items() if isinstance(value, str))
        return features | {name: " ".join(itertools.islice(names, TOGETHER)) for name in texts}

    for lesson in _turns(subject, TOGETHER):
        if _has_text(lesson):
            yield rewritten(lesson, worded)


def _new_labels(subject: Subject) -> Iterator[Lesson]:
    for number, lesson in enumerate(_turns(subject, 1)):
        yield Example(features=lesson.features, target=_name(number))


def _turns(subject: Subject, names: int) -> Iterator[Lesson]:
    """Yield the lessons over and over, until `names` new ones in each are enough."""
    count = 2 * subject.max_bytes // (names * NAME_BYTES)
    return itertools.islice(itertools.cycle(subject.lessons), count)


def _has_text(lesson: Lesson) -> bool:
    described = (lesson.features, *options_of(lesson))
    return any(isinstance(value, str) for features in described for value in features.values())


def _name(number: int) -> str:
    return f"{number:0{NAME_BYTES}d}"


def check_finite_after_hostile_input(subject: Subject) -> None:
    """Check that no answer is other than finite, whatever was asked and taught before.

    A question or a lesson may be refused. After a lesson that was, the state of before goes on.
    """
    model = subject.learned()
    state = model.to_bytes()
    for lesson in _hostile_lessons(subject):
        check_finite(answered(model, [lesson]))
        try:
            model.learn([lesson])
        except Exception:
            model = subject.make().from_bytes(state)
        else:
            state = model.to_bytes()
        check_finite([*asked(model, subject.lessons), *answered(model, [lesson])])
    model.learn(subject.lessons)
    check_finite(asked(model, subject.lessons))


def _hostile_lessons(subject: Subject) -> Iterator[Lesson]:
    targets = ("", ODD_TEXT) if has_labels(subject) else (MAX_MAGNITUDE, -MAX_MAGNITUDE)
    several = (subject.lessons[0], subject.lessons[-1])
    for lesson in several:
        if isinstance(lesson, Example):
            yield from (replace(lesson, target=target) for target in targets)
        if isinstance(lesson, Ranked):
            yield replace(lesson, options=(lesson.options * MAX_OPTIONS)[:MAX_OPTIONS])
    for change in _hostile_changes():
        yield from (rewritten(lesson, change) for lesson in several)


def _hostile_changes() -> Iterator[Change]:
    yield _of_its_kinds
    for value in VALUES:
        yield functools.partial(_filled, value=value)
    for features in _hostile_features():
        yield functools.partial(_replaced, new=features)
        yield functools.partial(_joined, new=features)


def _hostile_features() -> Iterator[Features]:
    yield {"": 1.0, "\0": "x", ODD_TEXT: -1.0, "x" * MAX_TEXT: True}
    yield {f"value {place}": value for place, value in enumerate(VALUES)}
    yield {f"name {number}": 1.0 for number in range(MANY)}
    yield {f"word {number}": "word" for number in range(MANY)}


def _replaced(features: Features, new: Features) -> Features:
    return dict(new)


def _joined(features: Features, new: Features) -> Features:
    return features | new


def _filled(features: Features, value: Any) -> Features:
    return dict.fromkeys(features, value)


def _of_its_kinds(features: Features) -> Features:
    """Return the extreme value of the kind that each feature has."""
    return {name: _extreme(value) for name, value in features.items()}


def _extreme(value: Any) -> Any:
    if isinstance(value, list):
        return [-MAX_MAGNITUDE] * len(value)
    return "x" * MAX_TEXT if isinstance(value, str) else MAX_MAGNITUDE
