"""Each rule of the gate is needed: with one left out, candidates are promoted that were not."""

from __future__ import annotations

import pytest

from benchmarks.gate.mutations import MUTATIONS, Mutation
from benchmarks.gate.traps import BETTER
from benchmarks.gate.world import World, lives, promoted

LIVES = 10


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.title)
def test_no_rule_can_be_left_out(mutation: Mutation) -> None:
    """The gate as it is promotes in none of some lives, and with a mistake in it in several."""
    assert promoted(lives(mutation.world, LIVES)) == 0.0
    assert promoted(lives(mutation.world, LIVES, mutation.gate)) >= 0.2


def test_a_better_candidate_is_promoted() -> None:
    """That the worse ones are not is no accident: one that is ten points better is, every time."""
    found = lives(World(BETTER, audits=2_000), LIVES)
    assert promoted(found) == 1.0
    assert {outcome.verdict.action for outcome in found if outcome.verdict} == {"follow"}
