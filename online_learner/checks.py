"""Laws that every learner and every promotion policy has to keep: run them over your own.

    check_learner(make, examples, expected_failed_checks={"check_feature_order": "reads by place"})
    check_policy(MyPolicy())

`LEARNER_LAWS` and `POLICY_LAWS` hold the laws one by one, for a parametrized test.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, TypeAlias

from online_learner.evidence import Case, Duel, Trial
from online_learner.learners import Answer, Learner
from online_learner.promote import Policy
from online_learner.schema import Aliases, Example, Move, label_key

Factory: TypeAlias = Callable[[], Learner]
Examples: TypeAlias = Sequence[Example]
Expected: TypeAlias = Mapping[str, str]  # name of a law -> why it is broken
STRANGE = {"a feature that nobody has seen": 1.0}


def check_learner(
    factory: Factory, examples: Examples, *, expected_failed_checks: Expected | None = None
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


def check_policy(policy: Policy, *, expected_failed_checks: Expected | None = None) -> None:
    """Run every law over a promotion policy; raises as `check_learner` does."""
    _run(POLICY_LAWS, expected_failed_checks or {}, policy)


def _run(laws: Sequence[Callable[..., None]], expected: Expected, *given: Any) -> None:
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
    if found := [*kept, *(error for name, error in broken.items() if name not in expected)]:
        raise ExceptionGroup(f"{len(found)} of {len(laws)} laws are not as expected", found)


def check_input_is_not_mutated(factory: Factory, examples: Examples) -> None:
    """Check that learning and predicting leave the examples as they were."""
    before = copy.deepcopy(list(examples))
    _learned(factory, examples).predict([example.features for example in examples])
    assert list(examples) == before


def check_predict_before_learn(factory: Factory, examples: Examples) -> None:
    """Check that a learner answers before it has learned, and learns nothing from no example."""
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
    turns = [dict(reversed(e.features.items())) for e in examples]
    turned = [replace(e, features=x) for e, x in zip(examples, turns, strict=True)]
    answers = _learned(factory, examples).predict([e.features for e in examples])
    others = _learned(factory, turned).predict(turns)
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
    twin = reader.from_bytes(learner.to_bytes())
    assert (twin.digest(), reader.digest()) == (learner.digest(), factory().digest())
    batch = [{}, *(example.features for example in examples)]
    assert twin.predict(batch) == learner.predict(batch)


def check_learning_after_round_trip(factory: Factory, examples: Examples) -> None:
    """Check that a round trip halfway changes no digest later, and that the two share no state."""
    learner = _learned(factory, examples[: (half := len(examples) // 2)])
    twin = factory().from_bytes(learner.to_bytes())
    before = learner.digest()
    twin.learn(examples[half:])
    assert learner.digest() == before, "the two share state"
    learner.learn(examples[half:])
    assert twin.digest() == learner.digest()


def check_same_stream_same_state(factory: Factory, examples: Examples) -> None:
    """Check that the same examples in the same batches give the same digest, and others do not."""
    once = _learned(factory, examples).digest()
    assert _learned(factory, examples).digest() == once
    assert _learned(factory, examples[1:]).digest() != once


def _learned(factory: Factory, examples: Examples) -> Learner:
    learner = factory()
    for start in range(0, len(examples), 7):
        learner.learn(examples[start : start + 7])
    return learner


def _numbers(answer: Answer) -> dict[str, float]:
    return answer.scores | ({"": answer.output} if isinstance(answer.output, float) else {})


def _check_finite(answer: Answer) -> None:
    assert all(map(math.isfinite, _numbers(answer).values())), f"not finite: {answer}"


SITUATIONS = (
    Aliases(champion=0),
    Aliases(champion=1, challengers=(2, 3), trusted=True),
    Aliases(champion=1, following=True, anchor=1, challengers=(4,), trusted=True, generation=2),
)


def check_frozen_never_moves(policy: Policy) -> None:
    """Check that nothing moves while the model is frozen, whatever the evidence."""
    assert all(policy.decide(case) is None for case in _cases(policy, frozen=True))


def check_no_promotion_without_evidence(policy: Policy) -> None:
    """Check that a challenger that has won nothing does not come to answer."""
    for case in _cases(policy, paces=(0.0, -1.0)):
        after = (policy.decide(case) or Move(case.aliases)).aliases
        assert after.champion == case.aliases.champion
        assert after.following <= case.aliases.following


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
