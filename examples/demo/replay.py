"""Plays a stream against the running system over HTTP, and keeps score of all that could have been.

Beside what was served, on the same rows: the frozen start, the same learner ungated (it learns each
signal the moment it is sent), the majority so far and the last label seen.
"""

from __future__ import annotations

import asyncio
import bisect
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from examples.demo.crowd import Crowd, Opinion
from examples.demo.streams import Stream
from online_learner.client import ApiError, AsyncClient
from online_learner.schema import Label

RACERS = ("served", "ungated", "frozen", "majority", "no change")
BROKEN_EVERY = 97  # now and then somebody sends nonsense, and must be refused


@dataclass
class Ledger:
    """What one client knows that it sent, and what it was told.

    A receipt for a signal not seen before counts as accepted, also where it says `duplicate`: then
    the reply to the first attempt was lost, and the client tried again with the same key.
    """

    sent: int = 0
    accepted: set[str] = field(default_factory=set)
    duplicates: int = 0
    refused: int = 0

    def note(self, feedback_id: str | None) -> None:
        """Note a receipt."""
        assert feedback_id is not None
        self.duplicates += feedback_id in self.accepted
        self.accepted.add(feedback_id)


@dataclass
class Score:
    """Hits of one stream, by row."""

    hits: dict[str, list[bool]] = field(default_factory=lambda: {name: [] for name in RACERS})
    versions: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def accuracy(self, name: str, since: int = 0) -> float:
        """Return the share of hits from a row on."""
        found = self.hits[name][since:]
        return sum(found) / len(found) if found else 0.0


class Player:
    """One stream, its crowd, its ledger and its score."""

    def __init__(self, stream: Stream, client: AsyncClient, seed: int, rows_per_s: float) -> None:
        self.stream = stream
        self.ledger = Ledger()
        self.score = Score()
        self._client = client
        self._crowd = Crowd(stream.labels, seed)
        self._pace_s = 1.0 / rows_per_s
        self._frozen = stream.learner()
        self._ungated = stream.learner()
        self._seen: Counter[Label] = Counter()
        self._last: Label | None = None

    @property
    def done(self) -> int:
        """How many rows have been answered."""
        return len(self.score.versions)

    def row_at(self, at: float) -> int:
        """Return the row that was asked at a time, in seconds since the epoch."""
        return bisect.bisect(self.score.times, at)

    async def play(self, on_row: Callable[[Player], None]) -> None:
        """Play all rows at a steady pace, then send what is still to be said."""
        started = time.monotonic()
        for row, (features, truth) in enumerate(self.stream.rows):
            await asyncio.sleep(max(0.0, started + row * self._pace_s - time.monotonic()))
            async with asyncio.TaskGroup() as group:
                for opinion in self._crowd.speak(row):
                    group.create_task(self._send(opinion))
                group.create_task(self._ask(row, features, truth))
            if row % BROKEN_EVERY == 0:
                await self._send_nonsense(row)
            on_row(self)
        for opinion in self._crowd.finish():
            await self._send(opinion)

    async def _ask(self, row: int, features: dict[str, Any], truth: Label) -> None:
        answer = await self._client.predict(self.stream.name, features)
        majority = self._seen.most_common(1)[0][0] if self._seen else None
        for name, output in (
            ("served", answer.output),
            ("ungated", self._ungated.predict_one(features)),
            ("frozen", self._frozen.predict_one(features)),
            ("majority", majority),
            ("no change", self._last),
        ):
            self.score.hits[name].append(output == truth)
        self.score.versions.append(answer.version)
        self.score.steps.append(answer.step)
        self.score.times.append(time.time())
        assert answer.prediction_id is not None
        self._crowd.see(row, answer.prediction_id, answer.output, truth)

    async def _send(self, opinion: Opinion) -> None:
        self._teach_ungated(opinion)
        key = f"{opinion.rater}-{opinion.row}"
        for _ in range(1 + opinion.twice):
            self.ledger.sent += 1
            receipt = await self._client.feedback(
                opinion.prediction_id,
                opinion.kind,
                opinion.value,
                user_id=opinion.rater,
                idempotency_key=key,
            )
            self.ledger.note(receipt.feedback_id)

    def _teach_ungated(self, opinion: Opinion) -> None:
        """Let the rival learn what is said, at once."""
        self._seen[opinion.believed] += 1
        self._last = opinion.believed
        if opinion.kind == "correction" or opinion.value or len(self.stream.labels) == 2:
            features = self.stream.rows[opinion.row][0]
            self._ungated.learn_one(features, opinion.believed)

    async def _send_nonsense(self, row: int) -> None:
        self.ledger.sent += 1
        try:
            await self._client.feedback(f"forged-{row}", "correction", self.stream.labels[0])
        except ApiError as error:
            assert error.status == 404, error
            self.ledger.refused += 1
