"""Clients who ask, and say what was right, and try again until each signal is acknowledged."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

import httpx2

from benchmarks.chaos.ledger import MARK, Ledger
from online_learner.errors import Unavailable
from online_learner.loop import Loop

MODEL = "web"
NOISE = 0.1
RATERS = 400
AGAIN_S = 0.1
PROBE_S = 0.04
PROBLEM = "application/problem+json"

T = TypeVar("T")

Features: TypeAlias = dict[str, float]
Signal: TypeAlias = dict[str, Any]


class Door(Protocol):
    """A way into the system."""

    async def ask(self, batch: Sequence[Features]) -> list[str | None]:
        """Return the ids of the answers; None where there is none."""

    async def tell(self, batch: Sequence[Signal]) -> list[str | None]:
        """Return the ids of the signals; None for each that is in doubt and to be sent again."""


class InProcess:
    """The door of a loop in this process."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    async def ask(self, batch: Sequence[Features]) -> list[str | None]:
        """Ask all at once."""
        asked = [self._loop.predict(MODEL, features) for features in batch]
        found = await asyncio.gather(*asked, return_exceptions=True)
        answers = map(_unless_in_doubt, found)
        return [None if answer is None else answer["prediction_id"] for answer in answers]

    async def tell(self, batch: Sequence[Signal]) -> list[str | None]:
        """Send all at once."""
        sent = [self._loop.feedback(**signal) for signal in batch]
        found = await asyncio.gather(*sent, return_exceptions=True)
        receipts = map(_unless_in_doubt, found)
        return [None if receipt is None else receipt.feedback_id for receipt in receipts]


def _unless_in_doubt(found: T | BaseException) -> T | None:
    """Return what was found, or None where nobody can know; raises what is no doubt, but wrong."""
    if isinstance(found, Unavailable):
        return None
    if isinstance(found, BaseException):
        raise found
    return found


class OverHttp:
    """The door of a running service.

    Attributes
    ----------
    strange
        Replies that were not the service's own, by status: who stands before it gave them.
    """

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.strange: Counter[int] = Counter()
        self._http = http

    async def ask(self, batch: Sequence[Features]) -> list[str | None]:
        """Ask in one request."""
        body = {"instances": [{"features": features} for features in batch]}
        reply = await self._post(f"/v1/models/{MODEL}/predict_batch", body)
        found = reply["predictions"] if reply else [{}] * len(batch)
        return [answer.get("prediction_id") for answer in found]

    async def tell(self, batch: Sequence[Signal]) -> list[str | None]:
        """Send in one request."""
        reply = await self._post("/v1/feedback_batch", {"items": list(batch)})
        found: list[Any] = reply["results"] if reply else [{"retryable": True}] * len(batch)
        for result in found:
            if "feedback_id" not in result and not result["retryable"]:
                raise RuntimeError(f"a signal was refused: {result}")
        return [result.get("feedback_id") for result in found]

    async def _post(self, path: str, body: Any) -> dict[str, Any] | None:
        try:
            reply = await self._http.post(path, json=body)
        except httpx2.HTTPError:
            return None
        if reply.status_code < 300:
            found: dict[str, Any] = reply.json()
            return found
        if reply.headers.get("content-type") != PROBLEM:
            self.strange[reply.status_code] += 1
        elif reply.status_code != 503:
            raise RuntimeError(f"{path} was refused: {reply.status_code} {reply.text}")
        return None


@dataclass(slots=True)
class Clients:
    """Clients of one model, all of whom write into one ledger.

    Attributes
    ----------
    in_doubt
        Signals of which their sender could not know, at least once, what had become of them.
    """

    ledger: Ledger = field(default_factory=Ledger)
    rng: random.Random = field(default_factory=lambda: random.Random(5))
    in_doubt: int = 0
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def enter(self, door: Door, *, size: int, pause_s: float = 0.0) -> None:
        """Let one more client ask and tell, in batches of a size, with a pause behind each."""
        self._tasks.append(asyncio.create_task(self._talk(door, size, pause_s)))

    async def leave(self) -> None:
        """Let all clients go; nobody leaves with a signal in doubt."""
        self.leaving.set()
        await asyncio.gather(*self._tasks)

    def check(self) -> None:
        """Raise what a client met with that is no doubt, but wrong."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def _talk(self, door: Door, size: int, pause_s: float) -> None:
        while not self.leaving.is_set():
            batch = [self._features() for _ in range(size)]
            ids = await door.ask(batch)
            pairs = [(id_, f) for id_, f in zip(ids, batch, strict=True) if id_ is not None]
            self.ledger.predictions += [id_ for id_, _ in pairs]
            if pairs:
                await self._insist(door, [self._signal(*pair) for pair in pairs])
            await asyncio.sleep(pause_s if pairs else AGAIN_S)

    async def _insist(self, door: Door, signals: list[Signal]) -> None:
        """Send signals until all are acknowledged."""
        left = await self._send(door, signals)
        self.in_doubt += len(left)
        while left:
            await asyncio.sleep(AGAIN_S)
            left = await self._send(door, left)

    async def _send(self, door: Door, signals: list[Signal]) -> list[Signal]:
        """Send signals once; returns those that were not acknowledged."""
        found = await door.tell(signals)
        left = []
        for signal, feedback_id in zip(signals, found, strict=True):
            if feedback_id is None:
                left.append(signal)
            else:
                self.ledger.acknowledge(signal["idempotency_key"], feedback_id)
        return left

    def _features(self) -> Features:
        return {"a": self.rng.uniform(-1, 1), "b": self.rng.uniform(-1, 1)}

    def _signal(self, prediction_id: str, features: Features) -> Signal:
        number = next(self._numbers)
        right = (features["a"] + features["b"] > 0) != (self.rng.random() < NOISE)
        mark = f"signal {number}"
        return {
            "prediction_id": prediction_id,
            "kind": "correction",
            "value": right,
            "user_id": f"rater {number % RATERS}",
            "idempotency_key": mark,
            "tags": {MARK: mark},
        }


@dataclass(slots=True)
class Prober:
    """Asks for single answers, all the time, and notes when one did not come, and why not."""

    asked: list[tuple[float, str]] = field(default_factory=list)

    async def probe(self, http: httpx2.AsyncClient, leaving: asyncio.Event) -> None:
        """Ask until it is time to leave."""
        while not leaving.is_set():
            at = time.monotonic()
            try:
                reply = await http.post(
                    f"/v1/models/{MODEL}/predict", json={"features": {"a": 0.1, "b": 0.2}}
                )
                why = "" if reply.is_success else f"{reply.status_code} {reply.text[:200]}"
            except httpx2.HTTPError as error:
                why = type(error).__name__
            self.asked.append((at, why))
            await asyncio.sleep(PROBE_S)

    def between(self, start: float, end: float) -> tuple[int, list[str]]:
        """Return how many were asked for in a stretch of time, and why some did not come."""
        found = [why for at, why in self.asked if start <= at < end]
        return len(found), [why for why in found if why]
