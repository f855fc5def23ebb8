"""Laws about the form of answers: scores that are probabilities, options in any order."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

from online_learner.checks.subject import Subject, asked, check_close, check_finite
from online_learner.learners import Answer, Ranker
from online_learner.schema import Example, Ranked, label_key


def check_answers(subject: Subject) -> None:
    """Check that scores sum to one over known labels, and the answer has the largest of them."""
    assert asked(subject.make(), []) == []
    examples = [lesson for lesson in subject.lessons if isinstance(lesson, Example)]
    known = {label_key(example.target): example.target for example in examples}
    names = known.keys() | asked(subject.make(), subject.lessons[:1])[0].scores.keys()
    answers = asked(subject.learned(), subject.lessons)
    check_finite(answers)
    for answer in answers:
        if not answer.scores:
            assert type(answer.output) is float, f"{answer.output!r} is no number, and has no score"
            continue
        assert answer.scores.keys() <= names
        assert all(0.0 <= score <= 1.0 for score in answer.scores.values())
        assert math.isclose(sum(answer.scores.values()), 1.0, abs_tol=1e-6)
        name = label_key(answer.output)
        assert answer.scores[name] == max(answer.scores.values())
        assert type(answer.output) is type(known.get(name, answer.output)), "a label changed type"


def check_option_order(subject: Subject) -> None:
    """Check that an option's reward does not depend on its place among the options."""
    ranker = cast("Ranker", subject.learned())
    assert ranker.score(subject.lessons[0].features, []) == []
    for lesson in subject.lessons:
        if isinstance(lesson, Ranked):
            turned = replace(lesson, options=lesson.options[::-1])
            [found], [other] = asked(ranker, [lesson]), asked(ranker, [turned])
            rewards = dict(zip(found.scores, reversed(other.scores.values()), strict=True))
            check_close([found], [Answer(None, rewards)])
