"""Laws about promotion policies, on constructed evidence."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from itertools import product

from online_learner.evidence import Case, Duel, Terms, Trial
from online_learner.promote import Policy
from online_learner.schema import Aliases, Move, Settled

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
    trial = Trial.fresh(duel, k=1, terms=Terms(gamma=1.5))
    name = trial.name(0)
    settled = Settled(answered=True, asked={name: pace != 0.0}, points={name: pace})
    for _ in range(1500):
        trial.fold(name, settled)
    return trial


POLICY_LAWS: tuple[Callable[[Policy], None], ...] = (
    check_frozen_never_moves,
    check_no_promotion_without_evidence,
    check_moves_are_recorded,
)
