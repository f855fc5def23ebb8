"""Arguments of policies, which come from a configuration: what is none is refused in a sentence."""

from __future__ import annotations

from math import inf

YEAR_S = 366.0 * 86_400.0  # seconds: the longest time that means anything here


def check_number(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    """Refuse what is no number from `low` to `high`; true and false are none.

    Raises
    ------
    TypeError
        It is no number, or has to be a `whole` one.
    ValueError
        It is out of range, or not a number at all (`.nan`).
    """
    kind, what = (int, "a whole number") if whole else (int | float, "a number")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name}: is {what}, not {value!r}")
    assert isinstance(value, int | float)
    if not low <= value <= high:
        most = f"to {high:g}" if high < inf else "on"
        raise ValueError(f"{name}: is {value!r}, and has to be from {low:g} {most}")
