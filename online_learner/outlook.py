"""What is under test, why nothing was decided yet, and how long still."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

from online_learner.errors import StateError
from online_learner.evidence import Case, Duel, Trial, numbers
from online_learner.evidence import outlook as in_words
from online_learner.registry import Registry
from online_learner.schema import Aliases


class Goals(Protocol):
    """The part of a promotion policy that says what is compared, and what it takes."""

    def duels(self, aliases: Aliases) -> list[Duel]:
        """Return the comparisons to make."""

    def goal(self, case: Case, trial: Trial) -> float:
        """Return the log e-value at which the challenger of a trial wins."""


async def outlook(registry: Registry, policy: Goals) -> list[dict[str, Any]]:
    """Return each test under way: in words, in numbers, and what it is expected to take still.

    `expected_to_decision` has `audited_labels` and `requests`; both are None where the challenger
    is not ahead, or where the test is a watch that is hoped never to decide.
    """
    aliases = await registry.aliases()
    state = None
    with contextlib.suppress(StateError):  # the gatekeeper says so, and begins anew
        state = await registry.gate()
    if aliases is None or state is None:
        return []
    trials = {key: Trial.unpack(trial) for key, trial in state.trials.items()}
    case = Case(aliases, trials, (), state.promotions)
    pairs = ((duel, case.trial(duel)) for duel in policy.duels(aliases))
    return [_told(case, trial, policy) for _, trial in pairs if trial is not None]


def _told(case: Case, trial: Trial, policy: Goals) -> dict[str, Any]:
    goal = policy.goal(case, trial)
    found = numbers(trial, goal)
    return {
        "test": trial.name(case.aliases.generation),
        "challenger": trial.duel.challenger,
        "reference": trial.duel.reference,
        "sentence": in_words(trial, goal),
        "expected_to_decision": {
            "audited_labels": found["labels_to_go"],
            "requests": found["requests_to_go"],
        },
        "numbers": found,
    }
