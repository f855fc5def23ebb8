"""A learner under test: how it is made, what it learns, and how it is asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

from online_learner.bundle import CANNOT_TAKE
from online_learner.learners import Answer, Learner, Model, Ranker
from online_learner.requests import Features
from online_learner.schema import Example, Lesson, Ranked

BATCH = 7
MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Subject:
    """A learner under test.

    Parameters
    ----------
    make
        Makes a fresh learner, the same each time. One law makes it in another process, so it has to
        be picklable: `functools.partial(make_learner, ModelSpec(...))`, or a function of a module.
    lessons
        Some 50 lessons as the model would meet them: examples of every label, or comparisons and
        judgements of options.
    max_bytes
        What its state may weigh, however much it is asked and taught.
    """

    make: Callable[[], Model]
    lessons: Sequence[Lesson]
    max_bytes: int = MAX_BYTES

    def batches(self) -> Iterator[Sequence[Lesson]]:
        """Yield the lessons in the batches in which they are learned."""
        for start in range(0, len(self.lessons), BATCH):
            yield self.lessons[start : start + BATCH]

    def learned(self) -> Model:
        """Return a learner that has learned all lessons."""
        model = self.make()
        for batch in self.batches():
            model.learn(batch)
        return model

    def halved(self) -> tuple[Model, Sequence[Lesson], Sequence[Lesson]]:
        """Return a model that has learned half of the lessons, that half, and the other half."""
        half = len(self.lessons) // 2
        known, new = self.lessons[:half], self.lessons[half:]
        return replace(self, lessons=known).learned(), known, new


Law: TypeAlias = Callable[[Subject], None]
Change: TypeAlias = Callable[[Features], Features]


def asked(model: Model, lessons: Sequence[Lesson]) -> list[Answer]:
    """Return what the model says to the questions that the lessons are about.

    The answer of a ranker has the reward of each option by its place.
    """
    if all(isinstance(lesson, Example) for lesson in lessons):
        return cast("Learner", model).predict([lesson.features for lesson in lessons])
    return [_ranking(cast("Ranker", model), lesson) for lesson in lessons]


def answered(model: Model, lessons: Sequence[Lesson]) -> list[Answer | None]:
    """Return what the model says to each question, and None where it refuses one."""
    return [_answered(model, lesson) for lesson in lessons]


def _answered(model: Model, lesson: Lesson) -> Answer | None:
    try:
        return asked(model, [lesson])[0]
    except CANNOT_TAKE:
        return None


def _ranking(ranker: Ranker, lesson: Lesson) -> Answer:
    options = options_of(lesson)
    rewards = ranker.score(lesson.features, options)
    assert len(rewards) == len(options), f"{len(rewards)} rewards for {len(options)} options"
    scores = {str(place): reward for place, reward in enumerate(rewards)}
    return Answer(sorted(scores, key=scores.__getitem__, reverse=True), scores)


def options_of(lesson: Lesson) -> tuple[Features, ...]:
    """Return the options that a lesson is about; none for an example."""
    if isinstance(lesson, Example):
        return ()
    return lesson.options if isinstance(lesson, Ranked) else (lesson.option,)


def rewritten(lesson: Lesson, change: Change) -> Lesson:
    """Return a lesson with its features, and those of each option, changed."""
    features = change(lesson.features)
    if isinstance(lesson, Example):
        return replace(lesson, features=features)
    if isinstance(lesson, Ranked):
        return replace(lesson, features=features, options=tuple(map(change, lesson.options)))
    return replace(lesson, features=features, option=change(lesson.option))


def has_labels(subject: Subject) -> bool:
    """Tell whether it is a classifier."""
    [answer] = asked(subject.learned(), subject.lessons[:1])
    return bool(answer.scores) and isinstance(subject.lessons[0], Example)


def numbers(answer: Answer) -> dict[str, float]:
    """Return all numbers of an answer by name."""
    return answer.scores | ({"": answer.output} if isinstance(answer.output, float) else {})


def check_finite(answers: Iterable[Answer | None]) -> None:
    """Check that every number in the answers is finite."""
    for answer in filter(None, answers):
        assert all(map(math.isfinite, numbers(answer).values())), f"not finite: {answer}"


def check_close(found: Sequence[Answer], wanted: Sequence[Answer]) -> None:
    """Check that answers are equal but for the last bits."""
    for answer, other in zip(map(numbers, found), map(numbers, wanted), strict=True):
        assert answer.keys() == other.keys()
        for name, value in answer.items():
            assert math.isclose(value, other[name], rel_tol=1e-6, abs_tol=1e-6), (answer, other)
