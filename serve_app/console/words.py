"""How numbers, times and values are written on the page."""

from __future__ import annotations

import json
import math
import time
from typing import Any

from markupsafe import Markup

from online_learner.render import rfc3339

NOTHING = "\u2013"  # an en dash stands where there is no number
_SPANS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
DAY_S = 86_400.0
LONG = 80  # characters of a value that a line shows


def span(seconds: float | None) -> str:
    """Return a duration in its largest unit.

    >>> span(0.25), span(59), span(4000), span(None) == NOTHING
    ('0.2 s', '59 s', '1.1 h', True)
    """
    if seconds is None:
        return NOTHING
    unit, name = next((s for s in _SPANS if abs(seconds) >= s[0]), _SPANS[-1])
    value = seconds / unit
    return f"{value:.0f} {name}" if value >= 10 else f"{value:.1f} {name}"


def ms(milliseconds: float | None) -> str:
    """Return a latency.

    >>> ms(0.42), ms(13.4), ms(2500), ms(None) == NOTHING
    ('0.42 ms', '13 ms', '2.5 s', True)
    """
    if milliseconds is None:
        return NOTHING
    if milliseconds >= 1000:
        return span(milliseconds / 1000)
    return f"{milliseconds:.2g} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


def count(number: float | None) -> str:
    """Return a count, or a rate, with its thousands apart.

    >>> count(48211), count(0.25), count(12.0), count(None) == NOTHING
    ('48,211', '0.25', '12', True)
    """
    if number is None:
        return NOTHING
    if float(number).is_integer() or abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.2g}" if abs(number) < 10 else f"{number:.1f}"


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share.

    >>> percent(0.9127), percent(None) == NOTHING
    ('91.3 %', True)
    """
    return NOTHING if share is None else f"{100 * share:.{digits}f} %"


def value(thing: Any) -> str:
    """Return a value that a user or a model gave: text as it is, the rest as JSON.

    >>> value("spam"), value(True), value([1, 2]), value(0.1 + 0.2)
    ('spam', 'true', '[1, 2]', '0.3')
    """
    if isinstance(thing, str):
        return thing
    if isinstance(thing, float) and math.isfinite(thing):
        return f"{thing:.6g}"
    return json.dumps(thing, ensure_ascii=False)


def short(thing: Any) -> str:
    """Return a value in a line.

    >>> short("x" * 100)[-3:], len(short("x" * 100))
    ('xx…', 80)
    """
    text = " ".join(value(thing).split())
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"


def when(seconds: float | None) -> Markup:
    """Return a time, in seconds since 1970, for people and for scripts."""
    if not seconds:
        return Markup("&ndash;")
    stamp = rfc3339(seconds)
    recent = abs(time.time() - seconds) < DAY_S
    text = f"{stamp[11:19]} UTC" if recent else f"{stamp[:10]} {stamp[11:16]} UTC"
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(stamp, text)


def role(name: str) -> str:
    """Return what a role of a test is called.

    >>> role("challenger:7"), role("latest"), role("anchor")
    ('version 7', 'the learner', 'the anchor')
    """
    kind, _, version = name.partition(":")
    if version:
        return f"version {version}"
    return "the learner" if kind == "latest" else f"the {kind}"


def e_value(log10: float | None) -> str:
    """Return an e-value by its logarithm.

    >>> e_value(0.5), e_value(7.0), e_value(None) == NOTHING
    ('3.2', '1e+07', True)
    """
    return NOTHING if log10 is None else f"{10 ** min(log10, 300.0):.2g}"
