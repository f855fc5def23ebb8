"""What a change means, in words."""

from __future__ import annotations

from policies.drift.window import Change

GROUPS = ("loss", "answers", "features")
RISING = {"loss": True, "volunteered loss": True, "score": False}  # which change is an alarm


def group_of(what: str) -> str:
    """Return what an alarm is about: one change is one alarm.

    >>> group_of("volunteered loss"), group_of("output spam"), group_of("length of feature text")
    ('loss', 'answers', 'features')
    """
    if what in {"loss", "volunteered loss"}:
        return "loss"
    return "answers" if what == "score" or what.startswith("output") else "features"


def sentence(what: str, change: Change) -> str:
    """Return what has changed, by how much, and what that says.

    >>> sentence("loss", Change(0.1, 0.4, 1000, 64))
    'The loss has risen from 0.10 to 0.40 (of the last 64 audits): the answers have become worse.'
    """
    moved = f"from {change.before:.2f} to {change.after:.2f}"
    way = "risen" if change.after > change.before else "fallen"
    if what == "loss":
        told = f"of the last {change.n} audits"
        return f"The loss has {way} {moved} ({told}): the answers have become worse."
    if what == "volunteered loss":
        told = f"of the last {change.n} of which people spoke unasked"
        meaning = "the answers have become worse, or others speak"
        return f"The loss has {way} {moved} ({told}): {meaning}."
    told = f"in the last {change.n} answers"
    if what == "score":
        return f"The answers are less sure: their mean score has {way} {moved} ({told})."
    kind, _, name = what.partition(" ")
    if kind == "output" and name:
        return f"The share of answers that are '{name}' has {way} {moved} ({told})."
    if kind == "unknown":
        return f"The share of {what} has {way} {moved} ({told})."
    place = "larger, or rarer" if change.after > change.before else "smaller, or commoner"
    ranks = f"from place {100 * change.before:.0f} to {100 * change.after:.0f} of 100 usual ones"
    return f"The {what} is {place} than it was, {ranks} ({told})."
