"""Verdicts in words, with the numbers behind them."""

from __future__ import annotations

from collections.abc import Sequence

from online_learner.evidence import Trial, account, caveat, missed, numbers
from online_learner.schema import Action, Alarm, Aliases, Verdict


def verdict(
    aliases: Aliases, trial: Trial, goal: float, action: Action, *, version: int, by: str
) -> Verdict:
    """Return the verdict that rests on a test."""
    reference = aliases.reference
    sentence = {
        "promote": f"Version {version} answers from now on: it beat version {reference} by",
        "bless": f"Version {version} is blessed as the new anchor: it beat version {reference} by",
        "follow": f"The champion follows the learner from now on: it beat version {reference} by",
        "reject": f"Version {version} is retired: against version {reference} it had",
        "restart": f"The learner's test starts anew: against version {reference} it had",
        "pull": f"The leash is pulled: version {version} answers again and the learner starts anew "
        "from it. Against what was served it had",
    }[action]
    tail = f" {account(trial, goal)}."
    more = missed(trial, goal) if action in ("reject", "restart") else ""
    trust = "" if action in ("reject", "restart") else f" {caveat(trial, goal)}"
    return Verdict(
        action=action,
        by=by,
        sentence=sentence + tail + more + trust,
        test=trial.identity(aliases.generation),
        version=version,
        reference=reference,
        numbers=numbers(trial, goal),
    )


def guarded(alarm: Alarm, action: Action, version: int) -> Verdict:
    """Return the verdict that a guard calls for."""
    sentence = {
        "reject": f"Version {version} is retired by a guard",
        "pull": f"Version {version} answers again, and the learner starts anew from it: by a guard",
        "doubt": "Every answer is audited for a while, to find out whether there is harm",
        "freeze": "Frozen by a guard: what answers now goes on answering, until `thaw`",
    }[action]
    return Verdict(
        action=action,
        by=f"guard:{alarm.guard}",
        sentence=f"{sentence}. {alarm.sentence.rstrip('.')}.",
        guard=alarm.guard,
        version=version,
        numbers=dict(alarm.numbers),
    )


def admitted(taken: Sequence[int], refused: Sequence[int], reference: int) -> Verdict:
    """Return the verdict on new snapshots: which of them are tested from now on."""
    parts = []
    if taken:
        parts.append(f"{_versions(taken)} tested against version {reference} from now on.")
    if refused:
        parts.append(f"{_versions(refused)} dropped: enough are under test.")
    return Verdict(
        action="admit" if taken else "reject",
        by="ladder",
        sentence=" ".join(parts),
        version=(*taken, *refused)[0],
        reference=reference,
    )


def unleashed(version: int, by: str) -> Verdict:
    """Return the verdict that ends a leash which the policy does not know."""
    sentence = (
        f"Version {version} answers again and the learner starts anew from it: {by} keeps no leash."
    )
    return Verdict(action="pull", by=by, sentence=sentence, version=version, reference=version)


def trusted_again(aliases: Aliases, audits: int, by: str) -> Verdict:
    """Return the verdict that ends a doubt."""
    sentence = f"No harm was found in {audits} audits of all answers: trust is back."
    return Verdict(action="trust", by=by, sentence=sentence, version=aliases.champion)


def _versions(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"Version {numbers[0]} is"
    return f"Versions {', '.join(map(str, numbers))} are"
