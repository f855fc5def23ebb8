"""Where the points of small pictures lie. The templates draw them, in SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MOST_POINTS = 80  # of one curve in a table


def spark(values: Sequence[float], width: float = 120, height: float = 28) -> str:
    """Return a line through values, from zero to the highest, as the points of a polyline.

    >>> spark([0, 1, 2], width=10, height=4)
    '0.0,3.0 5.0,2.0 10.0,1.0'
    """
    if len(values) < 2:
        return ""
    top, step = max(values) or 1.0, width / (len(values) - 1)
    return " ".join(
        f"{i * step:.1f},{height - 1 - v / top * (height - 2):.1f}" for i, v in enumerate(values)
    )


def thin(values: Sequence[Any], most: int = MOST_POINTS) -> list[Any]:
    """Return at most so many of the values, evenly, the last one among them.

    >>> thin(range(10), 4)
    [0, 3, 6, 9]
    """
    step = max(1, -(-len(values) // most))
    return list(values[::-step][::-1])


def curves(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the points of each role thinned, in the order of time."""
    roles: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        roles.setdefault(point["role"], []).append(point)
    found = [point for of_role in roles.values() for point in thin(of_role)]
    return sorted(found, key=lambda point: float(point["at"]))


def highest(items: Sequence[Mapping[str, Any]], *names: str) -> float:
    """Return the highest of some numbers of all items, at least a little more than nothing.

    >>> highest([{"count": 3}, {"count": 5}], "count"), highest([], "count")
    (5, 1)
    """
    return max((item[name] or 0 for item in items for name in names), default=0) or 1
