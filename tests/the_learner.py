"""A learner by itself: other processes of it, stores that fail, and what it left behind."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Awaitable, Sequence
from typing import Any

from online_learner.learn import Trainer
from online_learner.learners import Answer
from online_learner.loop import Loop
from online_learner.registry import Registry
from online_learner.schema import Aliases, Example, Step
from online_learner.stages import Stages
from online_learner.store import Store


def process(loop: Loop, model: str = "web", *, store: Store | None = None) -> Trainer:
    """Return the learner of another process of the same service."""
    spec = loop.settings.models[model]
    clock = loop.ingest.clock
    return Stages(store or loop.store, loop.keyring, model, spec, clock=clock).trainer


async def run(trainer: Trainer) -> None:
    """Learn all there is, and publish it."""
    while await trainer.turn():
        pass
    await trainer.publish()


def heir(loop: Loop, *, store: Store | None = None) -> Trainer:
    """Return the learner of another process, with a version for every third signal."""
    found = process(loop, store=store)
    found._snapshots = Every(3)
    return found


async def say(loop: Loop, count: int = 1, *, seed: int = 0, **features: Any) -> list[str]:
    """Have answers corrected, each in a millisecond of its own; returns the corrections' ids."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        answer = await loop.predict("web", {"a": rng.gauss(0, 1), **features})
        receipt = await loop.feedback(answer["prediction_id"], "correction", rng.random() < 0.5)
        found.append(str(receipt.feedback_id))
        address = loop.keyring.open("feedback", found[-1])[1]
        while int(time.time() * 1000) <= address.ms:
            pass
    return found


def entry_of(loop: Loop, feedback_id: str) -> str:
    """Return where a signal is in the stream."""
    return loop.keyring.open("feedback", feedback_id)[1].entry


async def steps_of(registry: Registry) -> list[tuple[str, Step]]:
    """Return the recorded steps."""
    found = await registry.store.range(registry.keys.steps)
    return [(entry, Step.model_validate_json(fields[b"s"])) for entry, fields in found]


async def quarantine_of(registry: Registry) -> dict[str, str]:
    """Return the reasons by entry."""
    found = await registry.store.range(registry.keys.quarantine)
    return {entry: json.loads(fields[b"q"])["reason"] for entry, fields in found}


class Faulty(Store):
    """A store that fails once, at one of its commands: before the server has seen it, or after."""

    def __init__(self, url: str, at: int, *, done: bool, error: BaseException) -> None:
        super().__init__(url)
        self.commands = 0
        self._at, self._done, self._error = at, done, error

    async def _pass(self, command: Awaitable[Any]) -> Any:
        here, self.commands = self.commands == self._at, self.commands + 1
        reply = None
        if not here or self._done:
            reply = await command
        else:
            command.close()  # type: ignore[attr-defined]
        if here:
            raise self._error
        return reply

    async def run(self, *args: Any, **options: Any) -> Any:
        """Run a script, or fail."""
        return await self._pass(super().run(*args, **options))

    async def read(self, *args: Any, **options: Any) -> Any:
        """Read streams, or fail."""
        return await self._pass(super().read(*args, **options))

    async def range(self, *args: Any, **options: Any) -> Any:
        """Read a stretch, or fail."""
        return await self._pass(super().range(*args, **options))

    async def entries(self, *args: Any, **options: Any) -> Any:
        """Read entries, or fail."""
        return await self._pass(super().entries(*args, **options))

    async def hash(self, *args: Any, **options: Any) -> Any:
        """Read a hash, or fail."""
        return await self._pass(super().hash(*args, **options))

    async def call(self, *args: Any, **options: Any) -> Any:
        """Send a command, or fail."""
        return await self._pass(super().call(*args, **options))


class Killed(BaseException):
    """What no handler may catch and survive."""


WARY_OF = 6  # examples that a wary learner wants to have seen before it takes a word


class Wary:
    """A learner that chokes on words halfway through them, until it has seen enough numbers."""

    family = "wary"

    def __init__(self, count: int = 0, total: float = 0.0) -> None:
        self.count = count
        self.total = total

    @property
    def fitted(self) -> bool:
        """Whether it has learned anything."""
        return self.count > 0

    def predict(self, batch: Sequence[dict[str, Any]]) -> list[Answer]:
        """Answer the same to everything."""
        return [Answer(output=self.total > 0.0, scores={"true": 0.5, "false": 0.5}) for _ in batch]

    def learn(self, examples: Sequence[Example]) -> None:
        """Learn one by one; the order and every weight can be seen in the bits."""
        for example in examples:
            self.count += 1
            self.total = 0.9 * self.total + 1e-3 * self.count
            if "word" in example.features and self.count <= WARY_OF:
                raise ValueError("a word, so early")
            sign = 1.0 if example.target else -1.0
            self.total += sign * example.weight * float(example.features["a"])

    def to_bytes(self) -> bytes:
        """Return both numbers."""
        return f"{self.count} {self.total.hex()}".encode()

    def from_bytes(self, blob: bytes) -> Wary:
        """Return a learner with those numbers."""
        count, total = blob.decode().split()
        return Wary(int(count), float.fromhex(total))

    def digest(self) -> str:
        """Return the numbers' bits."""
        return self.to_bytes().decode()


class Every:
    """Asks for a snapshot every few signals, whoever answers."""

    def __init__(self, signals: int) -> None:
        self._signals = signals

    def snapshot_due(self, aliases: Aliases, since_cut: int) -> bool:
        """Tell whether a version should be cut."""
        return since_cut >= self._signals
