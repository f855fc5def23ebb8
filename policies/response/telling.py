"""What operators are told of those who speak, and of those who do not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from policies.response.audits import ENOUGH, Audits
from policies.response.covariates import Covariates
from policies.response.rates import Rates
from policies.response.silence import Silence, Z

NO_AUDITS = (
    "there are no audits without bias to prove it on: that takes answers drawn by a coin "
    "(`audit`), and a key with the scope `audit` for those who answer them."
)


def by_dimension(
    rates: Rates, covariates: Covariates, segments: Sequence[str]
) -> dict[str, list[dict[str, Any]] | dict[str, list[dict[str, Any]]]]:
    """Return response rates by what answers are, those of the most answers first."""
    return {
        "score": [_between(row, covariates) for row in sorted(rates.told("score"), key=_number)],
        "output": rates.told("output"),
        "asked": rates.told("asked"),
        "segment": {name: rates.told(f"segment {name}") for name in segments},
        "interface": rates.told("interface"),
        "position": sorted(rates.told("position"), key=_number),
    }


def silence_told(silence: Silence, audits: Audits) -> dict[str, Any]:
    """Return what is known of those who stay silent for how good an answer was.

    `odds` says how much more readily people speak of the worst answers than of the best ones, with
    bounds by a normal approximation; null where it cannot be seen. `bounds` are those of the mean
    goodness, whatever the audits would say that nobody answers.
    """
    found = {
        "odds": None,
        "audits": round(audits.decayed),
        "answered": audits.by_anybody / audits.decayed if audits.decayed else None,
        "by_auditors": audits.by_auditors / audits.decayed if audits.decayed else None,
        "bounds": audits.bounds(),
        "sentence": _unseen(audits),
    }
    if not audits.usable or not silence.drawn.any() or not silence.spoken.any():
        return found
    heard = silence.heard(audited=True)
    theta, error = float(heard.pooled[-1]), float(heard.errors[-1])
    odds = math.exp(-theta)
    low, high = math.exp(-theta - Z * error), math.exp(-theta + Z * error)
    return {
        **found,
        "odds": {"value": odds, "low": low, "high": high},
        "sentence": (
            f"People speak {odds:.2g} times as readily of the worst answers as of the best ones "
            f"that are like them otherwise (95 % between {low:.2g} and {high:.2g})."
        ),
    }


def _unseen(audits: Audits) -> str:
    if not audits.n:
        return (
            "Whether people are silent for how good an answer was cannot be seen: there are no "
            "audits."
        )
    if audits.usable:
        return "Too few have spoken to see whether they do for how good an answer was."
    found = audits.bounds()
    between = f" Answers are good in between {found[0]:.1%} and {found[1]:.1%}." if found else ""
    return (
        f"Of the audits {audits.by_anybody / audits.decayed:.0%} are answered, by ordinary people: "
        "who is silent may be silent for how good the answer was. It can be seen where auditors "
        f"answer them, or {ENOUGH:.0%} are answered.{between}"
    )


def _between(row: dict[str, Any], covariates: Covariates) -> dict[str, Any]:
    """Return the share of a bucket, and between which scores it lies; of no score both are null."""
    low, high = covariates.bounds(int(row.pop("value")))
    return {"score_low": low, "score_high": high, **row}


def _number(row: dict[str, Any]) -> float:
    return float(row["value"]) if row["value"].isdecimal() else math.inf
