"""The counts over time: seconds and tens of them for a quarter of an hour, minutes for a day.

Every process adds its own second to one stream, and entries add up. The sums of ten seconds, and of
a minute, are written by the meter, so that who looks at an hour need not read 10,000 entries. While
no meter runs nothing is summed up, and of what gateways counted then, a quarter of an hour stays.

A second of one gateway takes some 400 bytes, one of the meter up to 1.5 kB, a sum up to 2.5 kB. So
a model takes at most 2 MB for its seconds, 0.4 MB more for each further gateway, 0.3 MB for tens of
seconds, and 4 MB for minutes; one that nobody asks, a few kB.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TypeAlias

from redis.exceptions import ResponseError

from online_learner.ids import entry_order
from online_learner.metrics.tally import Tally
from online_learner.store import Entry, Store
from online_learner.store.keys import Keys

Points: TypeAlias = list[tuple[float, Tally]]  # when each began, in seconds since 1970
Sums: TypeAlias = dict[int, Tally]  # by when they began, in milliseconds

SHORT_S, SECONDS_S, MINUTES_S = 120, 900, 86_400  # windows by the second, by ten, by the minute
PAGE = 100  # some 5 ms to unpack, in which a gateway answers nobody


def step_s(window_s: float) -> int:
    """Return how many seconds one point of a window is about."""
    return 1 if window_s <= SHORT_S else 10 if window_s <= SECONDS_S else 60


async def read(store: Store, keys: Keys, *, window_s: float, now: float) -> Points:
    """Return what was counted in a window up to now, oldest first, a point each `step_s`.

    What is not summed up yet, or will not be, is summed here.
    """
    width = 1000 * step_s(window_s)
    start = max(0, int((now - window_s) * 1000)) // width * width
    sums: Sums = {}
    for stream, of_ms in ((keys.minutes, 60_000), (keys.tens, 10_000), (keys.metrics, 1)):
        if of_ms <= width:
            newest = await _add(store, stream, sums, start=start, width=width)
            start = max(start, newest + of_ms)
    return [(ms / 1000, tally) for ms, tally in sorted(sums.items())]


async def roll_up(store: Store, keys: Keys) -> None:
    """Sum up what is over, tens of seconds and minutes; each is written once, whoever does it."""
    now_s, _ = await store.call("TIME")
    for source, target, width, kept_s in (
        (keys.metrics, keys.tens, 10_000, SECONDS_S),
        (keys.tens, keys.minutes, 60_000, MINUTES_S),
    ):
        now = int(now_s) * 1000
        oldest = max(0, now - kept_s * 1000)
        await _roll_up(store, source, target, width=width, now=now, oldest=oldest)


async def _roll_up(
    store: Store, source: str, target: str, *, width: int, now: int, oldest: int
) -> None:
    over = now // width * width
    last = await store.latest(target)
    start = entry_order(last[0][0])[0] + width if last else 0
    sums: Sums = {}
    if start < over:
        await _add(store, source, sums, start=start, width=width, end=over - 1)
    for ms, tally in sorted(sums.items()):
        with contextlib.suppress(ResponseError):  # it is there
            parts = ("MINID", "~", oldest, f"{ms}-1", "t", tally.pack())
            await store.call("XADD", target, *parts)


async def _add(
    store: Store, stream: str, sums: Sums, *, start: int, width: int, end: int | None = None
) -> int:
    """Add the entries of a stream to the slices of time that they are of; returns the last's."""
    at, until, newest = str(start), "+" if end is None else str(end), -width
    while page := await store.range(stream, at, until, count=PAGE):
        for entry, tally in _tallies(page):
            newest = entry_order(entry)[0]
            place = newest // width * width
            if place in sums:
                sums[place].add(tally)
            else:
                sums[place] = tally
        if len(page) < PAGE:
            break
        at = f"({page[-1][0]}"
    return newest


def _tallies(entries: Iterable[Entry]) -> Iterable[tuple[str, Tally]]:
    """Yield what each entry counted; one that is none of ours is left out."""
    for entry, fields in entries:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            yield entry, Tally.unpack(fields[b"t"])


def total(points: Points) -> Tally:
    """Return the sum of all points."""
    found = Tally()
    for _, tally in points:
        found.add(tally)
    return found
