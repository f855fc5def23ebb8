"""What a test says, in numbers and in words."""

from __future__ import annotations

import math
from typing import TypeAlias

from online_learner.evidence.betting import BettingTest
from online_learner.evidence.detector import ChangeDetector
from online_learner.evidence.forecast import labels_to_go, requests_to_go
from online_learner.evidence.trial import NAMED_RATERS, Trial

Numbers: TypeAlias = dict[str, float | int | str | None]


def numbers(trial: Trial, log_goal: float) -> Numbers:
    """Return the numbers behind a decision, or behind there being none yet."""
    found: Numbers = {
        "n": trial.n,
        "wins": trial.wins,
        "losses": trial.losses,
        "mean": trial.mean,
        "log_e": trial.log_e if trial.log_e > -math.inf else None,  # JSON knows no infinity
        "log_e_needed": log_goal,
        "candidate": trial.k,
        "m": trial.terms.m,
        "gamma": trial.terms.gamma,
        "break_even_gamma": _break_even(trial, log_goal),
        "margin": trial.duel.margin,
        "raters": len(trial.raters),
        "audited": trial.audited,
        "capped": trial.capped,
    }
    return found | trial.responses.numbers() | _exposure(trial) | still(trial, log_goal)


def _break_even(trial: Trial, log_goal: float) -> float | None:
    if isinstance(trial.test, ChangeDetector):
        return None  # it depends on the order of the labels, which is not kept
    return trial.sensitivity.break_even(log_goal)


def _exposure(trial: Trial) -> Numbers:
    if trial.exposed is None or trial.exposed.n == 0:
        return {}
    low, high = trial.exposed.interval(0.05)
    estimate = trial.exposed.estimate
    return {"rewards": trial.exposed.n, "reward_gain": estimate, "gain_low": low, "gain_high": high}


def still(trial: Trial, log_goal: float) -> Numbers:
    """Return about how many more labels, and requests, the decision takes; None: not in sight."""
    labels = _labels_to_go(trial, log_goal)
    response = trial.answered / trial.audited if trial.audited else 0.0
    requests = None if labels is None else requests_to_go(labels, trial.terms.audit, response)
    return {"labels_to_go": labels, "requests_to_go": requests}


def _labels_to_go(trial: Trial, log_goal: float) -> int | None:
    """Return the sooner of what either test takes, alone."""
    if isinstance(trial.test, ChangeDetector):
        return None
    found = [labels_to_go(trial.log_e, log_goal, trial.n, trial.test.log_best)]
    if trial.exposed is not None and isinstance(trial.exposed.test, BettingTest):
        best = trial.exposed.test.log_best
        found.append(labels_to_go(trial.log_e, log_goal, trial.exposed.n, best))
    return min((labels for labels in found if labels is not None), default=None)


def account(trial: Trial, log_goal: float) -> str:
    """Return in words what a test rests on."""
    said = (
        f"{trial.wins} wins to {trial.losses} losses in {trial.n} audited answers "
        f"({100 * trial.mean:+.1f} points; e-value {e(trial.log_e)}, needed {e(log_goal)})"
    )
    return f"{said}, from {_raters(trial)}"


def caveat(trial: Trial, log_goal: float) -> str:
    """Return in words how far a decision depends on who answered."""
    said = f"It holds if no outcome was over {trial.terms.gamma:.3g} times as likely"
    said += " to be answered as another"
    even = _break_even(trial, log_goal)
    said += "" if even is None else f", and would hold up to {even:.3g} times"
    rates = trial.responses.numbers()
    agreed, differed = rates["response_where_agreed"], rates["response_where_differed"]
    if isinstance(agreed, float) and isinstance(differed, float):
        said += f"; answered were {agreed:.0%} where they agreed and {differed:.0%} where not"
    return said + "."


def outlook(trial: Trial, log_goal: float) -> str:
    """Return in words why there is no decision yet, and roughly how much longer it takes."""
    found = still(trial, log_goal)
    said = f"So far {account(trial, log_goal)}."
    if trial.terms.rater_share < 1 and trial.capped > max(10, trial.wins + trial.losses):
        few = f"{trial.capped} answers did not count: each rater may give "
        said += f" {few}{trial.terms.rater_share:.0%} of the evidence. Send `user_id` with feedback"
        said += ", or give trusted raters a key with the scope `audit`."
    if trial.log_e >= log_goal and len(trial.raters) < trial.terms.min_raters:
        return f"{said} It waits for {trial.terms.min_raters} raters."
    if found["labels_to_go"] is None:
        return f"{said} It is not ahead by enough to say when."
    return f"{said} About {found['labels_to_go']:,} more labels" + (
        "." if found["requests_to_go"] is None else f", or {found['requests_to_go']:,} requests."
    )


def missed(trial: Trial, log_goal: float) -> str:
    """Return in words how far away a decision was."""
    labels = still(trial, log_goal)["labels_to_go"]
    return "" if labels is None else f" About {labels:,} more labels would have decided it."


def _raters(trial: Trial) -> str:
    count = len(trial.raters)
    if count >= NAMED_RATERS:
        return f"{NAMED_RATERS} raters or more"
    return "one rater" if count == 1 else f"{count} raters"


def e(log_e: float) -> str:
    """Return an e-value as people read it.

    >>> e(4.61), e(-2.0)
    ('100', '0.135')
    """
    return f"{math.exp(min(log_e, 700.0)):.3g}"
