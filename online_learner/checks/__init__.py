"""Laws that every learner, ranker and promotion policy has to keep: run them over your own.

    check_learner(partial(make_learner, ModelSpec(...)), examples, max_bytes=1 << 20)
    check_ranker(MyRanker, comparisons, expected_failed_checks={"check_fitted": "has no memory"})
    check_policy(MyPolicy())

`LEARNER_LAWS`, `RANKER_LAWS` and `POLICY_LAWS` hold the laws one by one, for a parametrized test;
those of models take a `Subject`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from online_learner.checks.answers import check_answers, check_option_order
from online_learner.checks.direction import (
    check_complementary,
    check_lessons_pull,
    check_no_weight_teaches_nothing,
    check_weights_scale,
)
from online_learner.checks.fresh import digests_elsewhere
from online_learner.checks.hostile import (
    check_bounded_by_labels,
    check_bounded_by_names,
    check_finite_after_hostile_input,
)
from online_learner.checks.policies import (
    POLICY_LAWS,
    check_frozen_never_moves,
    check_moves_are_recorded,
    check_no_promotion_without_evidence,
)
from online_learner.checks.state import (
    check_asking_changes_nothing,
    check_copies_are_independent,
    check_feature_order,
    check_fitted,
    check_input_is_not_mutated,
    check_learning_after_round_trip,
    check_new_and_missing_features,
    check_predict_before_learn,
    check_reloads_change_nothing,
    check_round_trip,
    check_same_state_in_another_process,
    check_same_stream_same_state,
)
from online_learner.checks.subject import MAX_BYTES, Law, Subject
from online_learner.checks.threads import check_concurrent_asking
from online_learner.learners import Learner, Ranker
from online_learner.promote import Policy
from online_learner.schema import Example, Ranked, Rated

__all__ = [
    "LEARNER_LAWS",
    "MAX_BYTES",
    "MODEL_LAWS",
    "POLICY_LAWS",
    "RANKER_LAWS",
    "Law",
    "Subject",
    "check_answers",
    "check_asking_changes_nothing",
    "check_bounded_by_labels",
    "check_bounded_by_names",
    "check_complementary",
    "check_concurrent_asking",
    "check_copies_are_independent",
    "check_feature_order",
    "check_finite_after_hostile_input",
    "check_fitted",
    "check_frozen_never_moves",
    "check_input_is_not_mutated",
    "check_learner",
    "check_learning_after_round_trip",
    "check_lessons_pull",
    "check_moves_are_recorded",
    "check_new_and_missing_features",
    "check_no_promotion_without_evidence",
    "check_no_weight_teaches_nothing",
    "check_option_order",
    "check_policy",
    "check_predict_before_learn",
    "check_ranker",
    "check_reloads_change_nothing",
    "check_round_trip",
    "check_same_state_in_another_process",
    "check_same_stream_same_state",
    "check_weights_scale",
    "digests_elsewhere",
]

Expected: TypeAlias = Mapping[str, str]  # name of a law -> why it is broken

MODEL_LAWS: tuple[Law, ...] = (
    check_input_is_not_mutated,
    check_predict_before_learn,
    check_new_and_missing_features,
    check_feature_order,
    check_asking_changes_nothing,
    check_fitted,
    check_round_trip,
    check_learning_after_round_trip,
    check_reloads_change_nothing,
    check_copies_are_independent,
    check_same_stream_same_state,
    check_same_state_in_another_process,
    check_lessons_pull,
    check_weights_scale,
    check_no_weight_teaches_nothing,
    check_bounded_by_names,
    check_finite_after_hostile_input,
    check_concurrent_asking,
)
LEARNER_LAWS: tuple[Law, ...] = (
    *MODEL_LAWS,
    check_answers,
    check_complementary,
    check_bounded_by_labels,
)
RANKER_LAWS: tuple[Law, ...] = (*MODEL_LAWS, check_option_order)


def check_learner(
    factory: Callable[[], Learner],
    examples: Sequence[Example],
    *,
    max_bytes: int = MAX_BYTES,
    expected_failed_checks: Expected | None = None,
) -> None:
    """Run every law over a learner; raises an `ExceptionGroup` of all that is not as expected.

    Parameters
    ----------
    factory
        Makes a fresh learner, the same each time. One law has it made by another process: it has to
        be a function of a module, or `functools.partial(make_learner, ModelSpec(...))`.
    examples
        Some 50 examples as the model would meet them, of every label.
    max_bytes
        What its state may weigh, however much it is asked and taught.
    expected_failed_checks
        Names of laws that this learner is known to break, with the reason. One that is kept all the
        same is an error.
    """
    subject = Subject(factory, examples, max_bytes)
    _run(LEARNER_LAWS, expected_failed_checks or {}, subject)


def check_ranker(
    factory: Callable[[], Ranker],
    lessons: Sequence[Ranked | Rated],
    *,
    max_bytes: int = MAX_BYTES,
    expected_failed_checks: Expected | None = None,
) -> None:
    """Run every law over a ranker, as `check_learner` does, by comparisons and judgements."""
    subject = Subject(factory, lessons, max_bytes)
    _run(RANKER_LAWS, expected_failed_checks or {}, subject)


def check_policy(policy: Policy, *, expected_failed_checks: Expected | None = None) -> None:
    """Run every law over a promotion policy; raises as `check_learner` does."""
    _run(POLICY_LAWS, expected_failed_checks or {}, policy)


def _run(laws: Sequence[Callable[[Any], None]], expected: Expected, subject: Any) -> None:
    broken: dict[str, Exception] = {}
    for law in laws:
        try:
            law(subject)
        except Exception as error:
            error.add_note(f"{law.__name__}: {law.__doc__}")
            broken[law.__name__] = error
    kept = [
        AssertionError(f"'{name}' is kept, or is no law, although: {expected[name]}")
        for name in expected.keys() - broken.keys()
    ]
    if found := [*kept, *(error for name, error in broken.items() if name not in expected)]:
        raise ExceptionGroup(f"{len(found)} of {len(laws)} laws are not as expected", found)
