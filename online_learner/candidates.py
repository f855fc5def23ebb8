"""Which versions wait to be tested."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from online_learner.errors import NotFound, StateError
from online_learner.registry import Registry
from online_learner.schema import Aliases, Move


class Tests(Protocol):
    """How many versions a promotion policy tests at once; see `policies.promotion`.

    One that says `waits_for_room` has those that were brought wait until a test has ended.
    """

    @property
    def max_open(self) -> int:
        """How many may be under test at once."""


async def waiting(
    registry: Registry,
    aliases: Aliases,
    policy: Tests,
    *,
    after: int,
    damaged: Callable[[str, Exception], None],
) -> list[int]:
    """Return the candidates of the lineage that came after a version, in order.

    The learner cuts more of them when there is room. What was brought comes once: where there is no
    room it waits, and those behind it with it.

    Parameters
    ----------
    damaged
        Told of each version that cannot be read, and is left out.
    """
    waits = getattr(policy, "waits_for_room", False)
    room = policy.max_open - len(aliases.challengers) if waits else math.inf
    found: list[int] = []
    for number in range(after + 1, await registry.last_version() + 1):
        try:
            version = await registry.version(number)
        except (StateError, NotFound) as error:
            damaged(f"version {number}", error)
            continue
        if version.status == "candidate" and version.lineage == aliases.lineage:
            if version.brought and len(found) >= room:
                break
            found.append(number)
    return found


def decided(move: Move, before: Aliases, candidates: Sequence[int]) -> list[int]:
    """Return the candidates about which a move decides; the others are to be looked at again.

    A move that ends their lineage decides about all of them.
    """
    after = move.aliases
    if after.lineage != before.lineage:
        return list(candidates)
    told = {after.champion, *after.challengers, *move.statuses}
    return [number for number in candidates if number in told]
