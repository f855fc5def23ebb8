"""Moments as they are typed: a time, a date, or how long ago."""

from __future__ import annotations

import datetime as dt
import math
import re

import typer

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_MOMENT = (
    "a moment is a date (2026-01-31), a time (2026-01-31T12:00:00Z), or how long ago "
    "(30m, 12h, 7d, 4w)"
)
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])(?: ago)?")


def moment(text: str | None, now: float) -> float | None:
    """Return seconds since the epoch. Times without a zone, and dates, are UTC.

    >>> moment("2026-01-02", 0.0), moment("2026-01-02T03:04:05+01:00", 0.0)
    (1767312000.0, 1767319445.0)
    >>> moment("7d", 1_000_000.0), moment("90m ago", 10_000.0), moment(None, 0.0)
    (395200.0, 4600.0, None)
    """
    if text is None:
        return None
    if found := _AGO.fullmatch(text.strip()):
        ago_s = float(found[1]) * _UNITS[found[2]]
        if math.isfinite(ago_s):
            return now - ago_s
        raise typer.BadParameter(_MOMENT)
    try:
        moment = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(_MOMENT) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
