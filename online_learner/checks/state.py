"""Laws about what a model is made of: its state, its copies, and that it can be replayed."""

from __future__ import annotations

import copy
from dataclasses import replace

from online_learner.checks.fresh import digests_elsewhere
from online_learner.checks.subject import (
    Change,
    Subject,
    answered,
    asked,
    check_close,
    check_finite,
    rewritten,
)
from online_learner.requests import Features

STRANGE: Features = {"a feature that nobody has seen": 1.0}


def check_input_is_not_mutated(subject: Subject) -> None:
    """Check that learning and answering leave the lessons as they were."""
    before = copy.deepcopy(list(subject.lessons))
    asked(subject.learned(), subject.lessons)
    assert list(subject.lessons) == before


def check_predict_before_learn(subject: Subject) -> None:
    """Check that a model answers before it has learned, and learns nothing from no lesson."""
    model, fresh = subject.make(), subject.make().digest()
    model.learn([])
    assert model.digest() == fresh
    first = subject.lessons[0]
    check_finite(asked(model, [rewritten(first, _nothing), first]))


def check_new_and_missing_features(subject: Subject) -> None:
    """Check that features may come and go, in questions and in lessons."""
    model, first = subject.learned(), subject.lessons[0]
    for change in (_nothing, lambda _: dict(STRANGE), _with(STRANGE)):
        changed = rewritten(first, change)
        check_finite(asked(model, [changed]))
        model.learn([changed])
        check_finite(asked(model, [changed, first]))


def check_feature_order(subject: Subject) -> None:
    """Check that the order of features in a lesson changes nothing but the last bits."""
    lessons = [rewritten(x, _reversed) if n % 2 else x for n, x in enumerate(subject.lessons)]
    turned = replace(subject, lessons=lessons).learned()
    check_close(asked(turned, lessons), asked(subject.learned(), subject.lessons))


def check_asking_changes_nothing(subject: Subject) -> None:
    """Check that no question changes the state, be its features known, new or missing."""
    model, first = subject.learned(), subject.lessons[0]
    before = model.digest(), len(model.to_bytes())
    new = (rewritten(first, _with({f"name {number}": 1.0})) for number in range(500))
    answered(model, [*subject.lessons, rewritten(first, _nothing), *new])
    assert (model.digest(), len(model.to_bytes())) == before


def check_fitted(subject: Subject) -> None:
    """Check that `fitted` turns true with the first lessons, and survives a round trip."""
    fresh, model = subject.make(), subject.learned()
    asked(fresh, subject.lessons)
    assert (fresh.fitted, subject.make().from_bytes(fresh.to_bytes()).fitted) == (False, False)
    assert (model.fitted, subject.make().from_bytes(model.to_bytes()).fitted) == (True, True)


def check_round_trip(subject: Subject) -> None:
    """Check that state travels as bytes: equal digest, equal answers, the reader untouched."""
    model, reader = subject.learned(), subject.make()
    twin = reader.from_bytes(model.to_bytes())
    assert (twin.digest(), reader.digest()) == (model.digest(), subject.make().digest())
    questions = [rewritten(subject.lessons[0], _nothing), *subject.lessons]
    assert asked(twin, questions) == asked(model, questions)


def check_learning_after_round_trip(subject: Subject) -> None:
    """Check that a copy and its original, taught the same, never differ in digest or answer."""
    model, *_ = subject.halved()
    twin = subject.make().from_bytes(model.to_bytes())
    for batch in subject.batches():
        model.learn(batch)
        twin.learn(batch)
        assert asked(twin, subject.lessons) == asked(model, subject.lessons)
    assert twin.digest() == model.digest()


def check_reloads_change_nothing(subject: Subject) -> None:
    """Check that reloading the model after every batch makes no difference to its digest."""
    model = subject.make()
    for batch in subject.batches():
        model.learn(batch)
        model = subject.make().from_bytes(model.to_bytes())
    assert model.digest() == subject.learned().digest()


def check_copies_are_independent(subject: Subject) -> None:
    """Check that copies share no state: what one learns, the others do not see."""
    first, _, new = subject.halved()
    state = first.to_bytes()
    models = [first, first.from_bytes(state), subject.make().from_bytes(state)]
    for teaching in models:
        others = [model for model in models if model is not teaching]
        before = [(model.digest(), asked(model, subject.lessons)) for model in others]
        teaching.learn(new)
        assert [(model.digest(), asked(model, subject.lessons)) for model in others] == before


def check_same_stream_same_state(subject: Subject) -> None:
    """Check that the same lessons in the same batches give the same digest, and others do not."""
    once = subject.learned().digest()
    assert subject.learned().digest() == once
    assert replace(subject, lessons=subject.lessons[1:]).learned().digest() != once


def check_same_state_in_another_process(subject: Subject) -> None:
    """Check that a fresh process, where strings hash otherwise, comes to the same digest."""
    assert digests_elsewhere([subject]) == [subject.learned().digest()]


def _nothing(features: Features) -> Features:
    return {}


def _with(new: Features) -> Change:
    return lambda features: features | new


def _reversed(features: Features) -> Features:
    return dict(reversed(features.items()))
