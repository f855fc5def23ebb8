"""The report of each model, made seldom enough that those who look at it slow nobody down."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from online_learner.metrics.report import report
from online_learner.stages import Stages

WINDOW_S = 900.0
LEAST_S = 1.0
SHARE = 20.0  # times as long as making one took, the next one waits


@dataclass(slots=True)
class _Kept:
    room: Stages | None = None
    good_until: float = 0.0
    body: dict[str, Any] = field(default_factory=dict)
    making: asyncio.Lock = field(default_factory=asyncio.Lock)


class Reports:
    """The newest reports, shared by all pages and panels."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    async def of(self, room: Stages) -> dict[str, Any]:
        """Return the report of a model: a second old at most, or a little more where it is slow."""
        kept = self._kept.setdefault(room.model, _Kept())
        async with kept.making:
            started = time.monotonic()
            if kept.room is not room or started >= kept.good_until:
                kept.body = await report(
                    room.registry, room.spec, window_s=WINDOW_S, now=time.time()
                )
                took = time.monotonic() - started
                kept.room, kept.good_until = room, started + max(LEAST_S, SHARE * took)
        return kept.body
