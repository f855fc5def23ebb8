"""How much feedback is taken of one API key, and of one source; and how that is told.

The counting is done in the store, by the script that accepts feedback (`store/lua/ingest.lua`), so
that it is right across replicas.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from online_learner.errors import Invalid, RateLimited
from online_learner.settings import LimitsSpec, RateSpec

Of: TypeAlias = Literal["key", "source"]


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit that a payload falls under.

    Parameters
    ----------
    of
        What is limited: the API key, or the source.
    name
        Whose it is.
    spec
        How much is taken.
    """

    of: Of
    name: str
    spec: RateSpec

    @property
    def words(self) -> str:
        """What the script needs to know: `rate burst`."""
        return f"{self.spec.rate!r} {self.spec.burst}"


@dataclass(frozen=True, slots=True)
class Standing:
    """How many signals of a limit's burst are used up at the moment."""

    limit: Limit
    spent: float

    @property
    def left(self) -> int:
        """How many signals are taken now."""
        return max(0, math.floor(self.limit.spec.burst - self.spent))

    def wait_s(self, signals: int) -> int:
        """Return after how many seconds so many signals are taken; 0 where they are now."""
        over = self.spent + signals - self.limit.spec.burst
        return max(0, math.ceil(over / self.limit.spec.rate))


def standings(limits: Sequence[Limit], spent: bytes) -> tuple[Standing, ...]:
    """Return what the script has told of each limit, in words."""
    return tuple(map(Standing, limits, map(float, spent.split())))


def fullest(found: Iterable[Standing]) -> list[Standing]:
    """Return, of each sort of limit, the one that has the least left."""
    least: dict[Of, Standing] = {}
    for standing in found:
        of = standing.limit.of
        least[of] = min(standing, least.get(of, standing), key=lambda one: one.left)
    return list(least.values())


def limits_on(spec: LimitsSpec, *, key: str | None, source: str) -> list[Limit]:
    """Return the limits that what a source says by an API key falls under.

    Parameters
    ----------
    key
        The holder of the key; None where there is no key.
    """
    found = []
    if spec.per_key is not None and key is not None:
        found.append(Limit("key", key, spec.per_key))
    if spec.per_source is not None and not source.startswith("key:"):
        found.append(Limit("source", source, spec.per_source))
    return found


def check_size(limits: Sequence[Limit], signals: int) -> None:
    """Raise `Invalid` where a payload has more signals than are ever taken at once."""
    for limit in limits:
        if signals > limit.spec.burst:
            raise Invalid.at(
                "/signals",
                f"at most {limit.spec.burst} are taken of one {limit.of} at once "
                f"(limits.per_{limit.of}): send fewer in one payload",
            )


def refusal(found: Sequence[Standing], signals: int) -> RateLimited:
    """Return the error for a payload of so many signals that is over one of the limits."""
    worst = max(found, key=lambda standing: standing.wait_s(signals))
    limit, wait_s = worst.limit, max(1, worst.wait_s(signals))
    error = RateLimited(
        f"this {limit.of} may send {limit.spec.rate:g} signals a second, and {limit.spec.burst} "
        f"at once (limits.per_{limit.of}); nothing was taken. Send it again in {wait_s} s."
    )
    error.retry_after_s = wait_s
    return error


def headers(found: Sequence[Standing]) -> dict[str, str]:
    """Return the fields that tell a client where it stands; none where nothing is limited.

    `q` signals are taken in `w` seconds; `r` are left now, and in `t` seconds all will be again
    (draft-ietf-httpapi-ratelimit-headers-10).

    >>> limit = Limit("source", "human:ada", RateSpec(rate=100, burst=1000))
    >>> headers([Standing(limit, spent=250.5)])
    {'ratelimit-policy': '"source";q=1000;w=10', 'ratelimit': '"source";r=749;t=3'}
    """
    if not found:
        return {}
    return {
        "ratelimit-policy": ", ".join(_policy(s.limit.of, s.limit.spec) for s in found),
        "ratelimit": ", ".join(map(_left, found)),
    }


@functools.lru_cache
def _policy(of: Of, spec: RateSpec) -> str:
    return f'"{of}";q={spec.burst};w={math.ceil(spec.burst / spec.rate)}'


def _left(standing: Standing) -> str:
    spec = standing.limit.spec
    until_empty_s = math.ceil(standing.spent / spec.rate)
    return f'"{standing.limit.of}";r={standing.left};t={until_empty_s}'
