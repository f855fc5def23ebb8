"""Laws that every learner and every promotion policy has to keep: run them over your own.

    check_learner(make, examples)
    check_policy(MyPolicy())

What is known to break is named with its reason, as in scikit-learn:

    check_learner(make, examples, expected_failed_checks={"check_feature_order": "reads by place"})

`LEARNER_LAWS` and `POLICY_LAWS` hold the laws one by one, for a parametrized test.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, TypeAlias

from online_learner.evidence import Case, Duel, Trial
from online_learner.learners import Answer, Learner
from online_learner.promote import Policy
from online_learner.schema import Aliases, Example, label_key

Factory: TypeAlias = Callable[[], Learner]
Examples: TypeAlias = Sequence[Example]
STRANGE = {"a feature that nobody has seen": 1.0}


def check_learner(
    factory: Factory,
    examples: Examples,
    *,
    expected_failed_checks: Mapping[str, str] | None = None,
) -> None:
    """Run every law over a learner; raises an `ExceptionGroup` of all that is not as expected.

    Parameters
    ----------
    factory
        Makes a fresh learner, the same each time.
    examples
        Some 50 examples as the model would meet them, of every label.
    expected_failed_checks
        Names of laws that this learner is known to break, with the reason. One that is kept all the
        same is an error.
    """
    _run(LEARNER_LAWS, expected_failed_checks or {}, factory, examples)


def check_policy(
    policy: Policy, *, expected_failed_checks: Mapping[str, str] | None = None
) -> None:
    """Run every law over a promotion policy; raises as `check_learner` does."""
    _run(POLICY_LAWS, expected_failed_checks or {}, policy)


def _run(laws: Sequence[Callable[..., None]], expected: Mapping[str, str], *given: Any) -> None:
    broken: dict[str, Exception] = {}
    for law in laws:
        try:
            law(*given)
        except Exception as error:
            error.add_note(f"{law.__name__}: {law.__doc__}")
            broken[law.__name__] = error
    kept = [
        AssertionError(f"'{name}' is kept, or is no law, although: {expected[name]}")
        for name in expected.keys() - broken.keys()
    ]
    found = [*kept, *(error for name, error in broken.items() if name not in expected)]
    if found:
        raise ExceptionGroup(f"{len(found)} of {len(laws)} laws are not as expected", found)


def check_input_is_not_mutated(factory: Factory, examples: Examples) -> None:
    """Check that learning and predicting leave the examples as they were."""
    before = copy.deepcopy(list(examples))
    _learned(factory, examples).predict([example.features for example in examples])
    assert list(examples) == before


def check_predict_before_learn(factory: Factory, examples: Examples) -> None:
    """Check that a learner answers before it has learned, also from an empty batch."""
    learner, fresh = factory(), factory().digest()
    learner.learn([])
    assert learner.digest() == fresh
    for answer in learner.predict([{}, examples[0].features]):
        _check_finite(answer)


def check_new_and_missing_features(factory: Factory, examples: Examples) -> None:
    """Check that features may come and go, in prediction and in learning."""
    learner = _learned(factory, examples)
    for features in ({}, STRANGE, {**examples[0].features, **STRANGE}):
        learner.learn([Example(features=features, target=examples[0].target)])
        for answer in learner.predict([features, examples[0].features]):
            _check_finite(answer)


def check_feature_order(factory: Factory, examples: Examples) -> None:
    """Check that the order of features in an example changes nothing but the last bits."""
    turned = [
        Example(features=dict(reversed(e.features.items())), target=e.target, weight=e.weight)
        for e in examples
    ]
    answers = _learned(factory, examples).predict([e.features for e in examples])
    others = _learned(factory, turned).predict([e.features for e in turned])
    for answer, other in zip(map(_numbers, answers), map(_numbers, others), strict=True):
        assert all(math.isclose(answer[k], other[k], rel_tol=1e-6, abs_tol=1e-6) for k in answer)


def check_answers(factory: Factory, examples: Examples) -> None:
    """Check that scores sum to one over known labels, and the answer has the largest of them."""
    known = {label_key(example.target): example.target for example in examples}
    names = known.keys() | factory().predict([{}])[0].scores.keys()
    for answer in _learned(factory, examples).predict([e.features for e in examples]):
        _check_finite(answer)
        if not answer.scores:
            assert type(answer.output) is float, f"{answer.output!r} is no number, and has no score"
            continue
        assert answer.scores.keys() <= names
        assert all(0.0 <= score <= 1.0 for score in answer.scores.values())
        assert math.isclose(sum(answer.scores.values()), 1.0, abs_tol=1e-6)
        name = label_key(answer.output)
        assert answer.scores[name] == max(answer.scores.values())
        assert type(answer.output) is type(known.get(name, answer.output)), "a label changed type"


def check_predicting_changes_nothing(factory: Factory, examples: Examples) -> None:
    """Check that predicting changes no digest, be the features known, new or missing."""
    learner = _learned(factory, examples)
    before = learner.digest()
    learner.predict([{}, STRANGE, *(example.features for example in examples)])
    assert learner.digest() == before


def check_fitted(factory: Factory, examples: Examples) -> None:
    """Check that `fitted` turns true with the first lessons, and survives a round trip."""
    fresh, learner = factory(), _learned(factory, examples)
    fresh.predict([example.features for example in examples])
    assert (fresh.fitted, factory().from_bytes(fresh.to_bytes()).fitted) == (False, False)
    assert (learner.fitted, factory().from_bytes(learner.to_bytes()).fitted) == (True, True)


def check_round_trip(factory: Factory, examples: Examples) -> None:
    """Check that state travels as bytes: equal digest, equal answers, the reader untouched."""
    learner, reader = _learned(factory, examples), factory()
    fresh = reader.digest()
    twin = reader.from_bytes(learner.to_bytes())
    assert twin.digest() == learner.digest()
    batch = [{}, *(example.features for example in examples)]
    assert twin.predict(batch) == learner.predict(batch)
    assert reader.digest() == fresh


def check_learning_after_round_trip(factory: Factory, examples: Examples) -> None:
    """Check that a round trip halfway changes no digest later, and that the two share no state."""
    half = len(examples) // 2
    learner = _learned(factory, examples[:half])
    twin = factory().from_bytes(learner.to_bytes())
    before = learner.digest()
    twin.learn(examples[half:])
    assert learner.digest() == before, "the two share state"
    learner.learn(examples[half:])
    assert twin.digest() == learner.digest()


def check_same_stream_same_state(factory: Factory, examples: Examples) -> None:
    """Check that the same examples in the same batches give the same digest, and others do not."""
    once, again = _learned(factory, examples), _learned(factory, examples)
    assert once.digest() == again.digest()
    assert _learned(factory, examples[1:]).digest() != once.digest()


def _learned(factory: Factory, examples: Examples) -> Learner:
    learner = factory()
    for start in range(0, len(examples), 7):
        learner.learn(examples[start : start + 7])
    return learner


def _numbers(answer: Answer) -> dict[str, float]:
    output = {"output": answer.output} if isinstance(answer.output, float) else {}
    return {**answer.scores, **output}


def _check_finite(answer: Answer) -> None:
    assert all(map(math.isfinite, _numbers(answer).values())), f"not finite: {answer}"


SITUATIONS = (
    Aliases(champion=0),
    Aliases(champion=1, challengers=(2, 3), trusted=True),
    Aliases(champion=1, following=True, anchor=1, challengers=(4,), trusted=True, generation=2),
)


def check_frozen_never_moves(policy: Policy) -> None:
    """Check that nothing moves while the model is frozen, whatever the evidence."""
    for case in _cases(policy, frozen=True):
        assert policy.decide(case) is None


def check_no_promotion_without_evidence(policy: Policy) -> None:
    """Check that a challenger that has won nothing does not come to answer."""
    for case in _cases(policy, paces=(0.0, -1.0)):
        move = policy.decide(case)
        after = case.aliases if move is None else move.aliases
        assert after.champion == case.aliases.champion, move
        assert after.following <= case.aliases.following, move


def check_moves_are_recorded(policy: Policy) -> None:
    """Check that roles change with a verdict in words, and a generation that voids old evidence."""
    for case in _cases(policy):
        move, before = policy.decide(case), case.aliases
        assert move == policy.decide(case), "deciding twice gives two decisions"
        if move is None:
            continue
        after = move.aliases
        assert (move.reset_to is not None) == (after.lineage != before.lineage)
        roles = ("champion", "following", "anchor", "lineage")
        if any(getattr(before, role) != getattr(after, role) for role in roles):
            assert after.generation > before.generation
            assert move.verdict is not None
            assert move.verdict.sentence


def _cases(
    policy: Policy, *, paces: Sequence[float] = (0.0, 1.0, -1.0), frozen: bool = False
) -> Iterator[Case]:
    for situation, pace, candidates in product(SITUATIONS, paces, ((), (7,))):
        aliases = situation.model_copy(update={"frozen": frozen})
        duels = policy.duels(aliases)
        trials = {duel.key(aliases.generation): _fought(duel, pace) for duel in duels}
        assert len(trials) == len(duels), "two duels of one name"
        yield Case(aliases, trials, candidates, promotions=0)


@functools.cache
def _fought(duel: Duel, pace: float) -> Trial:
    trial = Trial.fresh(duel, k=1, m=0.2)
    for _ in range(1500):
        trial.count(pace)
    return trial


LEARNER_LAWS: tuple[Callable[[Factory, Examples], None], ...] = (
    check_input_is_not_mutated,
    check_predict_before_learn,
    check_new_and_missing_features,
    check_feature_order,
    check_answers,
    check_predicting_changes_nothing,
    check_fitted,
    check_round_trip,
    check_learning_after_round_trip,
    check_same_stream_same_state,
)
POLICY_LAWS: tuple[Callable[[Policy], None], ...] = (
    check_frozen_never_moves,
    check_no_promotion_without_evidence,
    check_moves_are_recorded,
)
