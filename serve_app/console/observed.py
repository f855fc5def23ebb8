"""What the panels on observers show, out of what these report; whatever is missing is left out.

A report may be of a team's own making. What of it is of our form is shown as such, and a section of
another form altogether is shown as it is, in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from serve_app.api.bias import REPORTS, read_report

Shown: TypeAlias = dict[str, Any]

MOST_VALUES = 12  # of one kind, in the panel on who answers
MOST_RATERS, MOST_EVENTS, MOST_WATCHED, MOST_PLACES = 20, 12, 20, 8
MOST_SEGMENTS = 30  # values of segments
MOST_JSON = 4000  # characters of a report of another form
GROUPS = {
    "score": "Score of the answer",
    "output": "Answer given",
    "asked": "Asked for a label",
    "interface": "Interface",
    "position": "Place on the page",
}
TELLERS = {
    "volunteered": "those who speak up",
    "corrected": "the same, corrected",
    "audited": "audits",
}
BASELINES = {"no_change": "the label before", "majority": "the most frequent label"}
NUMBERS = ("log_loss", "calibration_error", "macro_f1")


def section(reports: Mapping[str, Any], name: str) -> tuple[Shown | None, str]:
    """Return a report with all its fields, and as JSON where it is of another form."""
    found = reports.get(name)
    if not found:
        return None, ""
    if (told := read_report(REPORTS[name], found)) is not None:
        return told, ""
    return None, json.dumps(found, indent=1, ensure_ascii=False)[:MOST_JSON]


# --- who answers ------------------------------------------------------------------------------


def response(reports: Mapping[str, Any]) -> Shown:
    """Return what the panel on who answers shows.

    Returns
    -------
    `response`, the report; `groups`, titles with rows; `top`, the highest bound of a rate, which
    all bars end at; `estimates`, by who tells; `odd`, JSON of another form.
    """
    told, odd = section(reports, "response")
    if told is None:
        return {"response": None, "odd": odd}
    groups = [(GROUPS[name], told["by"][name]) for name in GROUPS]
    groups += [(name, rows) for name, rows in told["by"]["segment"].items()]
    shown = [(title, [_named(row) for row in rows[:MOST_VALUES]]) for title, rows in groups if rows]
    rates = [told["rate"], *(row for _, rows in shown for row in rows)]
    top = max((rate["high"] or rate["share"] or 0.0 for rate in rates), default=0.0)
    estimates = [
        (title, told["estimates"][name])
        for name, title in TELLERS.items()
        if told["estimates"][name]
    ]
    return {
        "response": told,
        "groups": shown,
        "top": min(1.0, top) or 1.0,
        "estimates": estimates,
        "odd": "",
    }


def _named(row: Mapping[str, Any]) -> Shown:
    """Return a rate with the words for what it is of."""
    if "score_low" in row:
        return {**row, "name": _between(row["score_low"], row["score_high"])}
    return {**row, "name": row.get("value")}


def _between(low: float | None, high: float | None) -> str:
    """Return a range of scores; a share is told in percent.

    >>> _between(0.5, 0.75), _between(0.99, 1), _between(None, -1.5), _between(None, None)
    ('50 % to 75 %', '99 % to 100 %', 'up to -1.5', 'without a score')
    """
    if low is None and high is None:
        return "without a score"
    shares = low is not None and high is not None and 0 <= low <= high <= 1
    lower, upper = (
        "" if bound is None else f"{100 * bound:.0f} %" if shares else f"{bound:g}"
        for bound in (low, high)
    )
    if not lower or not upper:
        return f"up to {upper}" if upper else f"{lower} and more"
    return f"{lower} to {upper}"


# --- whom to believe --------------------------------------------------------------------------


def raters(reports: Mapping[str, Any]) -> Shown:
    """Return what the panel on raters shows, and with it what users do."""
    told, odd = section(reports, "raters")
    implicit, strange = section(reports, "implicit")
    rows = [] if told is None else told["raters"]
    return {
        "told": told,
        "raters": rows[:MOST_RATERS],
        "hidden": 0 if told is None else told["others"] + max(0, len(rows) - MOST_RATERS),
        "implicit": implicit,
        "events": [] if implicit is None else implicit["events"][:MOST_EVENTS],
        "odd": "\n".join(filter(None, (odd, strange))),
    }


# --- what has moved ---------------------------------------------------------------------------


def drift(reports: Mapping[str, Any]) -> Shown:
    """Return what is watched for change, and what is in force since it did."""
    told, odd = section(reports, "drift")
    watched = [] if told is None else told["watched"]
    watched = sorted(watched, key=lambda row: -(row["last_at_ms"] or 0))
    effects = {} if told is None else dict(told["effects"])
    until_ms = _number(effects.pop("until_ms", None))
    return {
        "watched": watched[:MOST_WATCHED],
        "effects": effects,
        "until": None if until_ms is None else until_ms / 1000,
        "by_chance": None if told is None else told["false_alarms_per_100000"],
        "odd": odd,
    }


def reliability(reports: Mapping[str, Any]) -> Shown:
    """Return how scores are scaled, and whether those that are served mean what they say."""
    told, _ = section(reports, "scores")
    if told is None:
        return {"places": [], "served": None, "weighing": None}
    served = told["served"]
    return {
        "places": told["places"][:MOST_PLACES],
        "served": served if served and served["n"] else None,
        "weighing": told["weighing"],
    }


# --- how good the answers are -----------------------------------------------------------------


def quality(reports: Mapping[str, Any], roles: Sequence[str]) -> Shown:
    """Return what the panel on quality shows.

    Parameters
    ----------
    roles
        Those that come first, in this order.

    Returns
    -------
    `metric`, what is measured; `rows`, one a role or baseline, with scores (or None) and numbers;
    `corrected`, how often the champion is right by those who speak, raw, corrected and audited;
    `segments`; `said`.
    """
    found = reports.get("quality")
    told: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    known = _mapping(told, "roles")
    order = [name for name in roles if name in known]
    order += [name for name in known if name not in roles]
    rows = [_quality(name, "", known[name]) for name in order]
    baselines = _mapping(told, "baselines")
    rows += [_quality(name, BASELINES.get(name, name), baselines[name]) for name in baselines]
    estimates, _ = section(reports, "response")
    by_those = {} if estimates is None else estimates["estimates"]
    metric = told.get("metric")
    return {
        "metric": metric if isinstance(metric, str) else "",
        "rows": [row for row in rows if row["any"]],
        "corrected": [(TELLERS[name], by_those[name]) for name in TELLERS if by_those.get(name)],
        "segments": list(_segments(_mapping(told, "segments")))[:MOST_SEGMENTS],
        "said": [
            (name.replace("_", " "), score(_part(of, "raw")), score(_part(of, "corrected")))
            for name, of in _mapping(told, "said").items()
            if score(_part(of, "raw", "corrected")) is not None
        ],
    }


def _quality(name: str, title: str, told: Any) -> Shown:
    whole = score(_part(told, "accuracy", "closeness")) or score(told)
    row: Shown = {
        "role": name,
        "title": title,
        "whole": whole,
        "recent": score(_part(told, "recent")),
        "decayed": score(_part(told, "decayed")),
        **{number: _number(_part(told, number)) for number in NUMBERS},
    }
    return row | {"any": any(row[part] is not None for part in ("whole", "recent", "decayed"))}


def _segments(segments: Mapping[str, Any]) -> Iterator[tuple[str, str, Shown]]:
    for name, values in segments.items():
        for value in values if isinstance(values, Mapping) else ():
            of = values[value]
            found = score(of) or score(_part(of, "accuracy", "champion"))
            if found is not None:
                yield name, value, found


def score(told: Any) -> Shown | None:
    """Return a score with its bounds and how many labels it rests on; None where it is none.

    >>> score(0.5)["score"], score({"score": 0.5, "low": 0.4})["high"], score({"n": 0})
    (0.5, None, None)
    """
    if isinstance(told, Mapping):
        found = {name: _number(told.get(name)) for name in ("n", "score", "low", "high")}
        return None if found["score"] is None else found
    number = _number(told)
    return None if number is None else {"n": None, "score": number, "low": None, "high": None}


def _part(told: Any, *names: str) -> Any:
    parts: Iterable[Any] = (told.get(name) for name in names) if isinstance(told, Mapping) else ()
    return next((part for part in parts if part is not None), None)


def _mapping(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = told.get(name)
    return found if isinstance(found, Mapping) else {}


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None
