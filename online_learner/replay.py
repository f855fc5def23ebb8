"""The weights rebuilt from the record: a published state, and the steps after it, bit for bit.

Used by the learner after a crash, and by anyone who wants to see what the weights were at a step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from pydantic import ValidationError

from online_learner.errors import StateError
from online_learner.learners import Learner
from online_learner.registry import Registry
from online_learner.schema import Example, Feedback, Prediction, Step, Version
from online_learner.store import Entry


class Signals(Protocol):
    """What a signal means for learning; see `policies.signals`."""

    def example(self, feedback: Feedback, prediction: Prediction) -> Example | None:
        """Return what to learn from a signal, or None where it teaches nothing."""


@dataclass(slots=True)
class Batch:
    """Consecutive signals of the feedback stream, on their way into one step."""

    entries: list[Entry] = field(default_factory=list)
    examples: list[tuple[str, Example]] = field(default_factory=list)
    set_aside: dict[str, str] = field(default_factory=dict)  # entry -> reason

    def keep(self) -> list[Example]:
        """Return the examples that were not set aside."""
        return [example for entry, example in self.examples if entry not in self.set_aside]


@dataclass(frozen=True, slots=True)
class Position:
    """Where the learner stands in the feedback stream, and what it has learned so far."""

    lineage: int = 1
    step: int = 0
    offset: str = "0-0"
    digest: str = ""
    learned: int = 0
    since_cut: int = 0

    def after(self, batch: Batch) -> Position:
        """Return the position after a batch; `digest` chains what has been learned, in order."""
        digest = hashlib.blake2b(self.digest.encode(), digest_size=16)
        for entry, fields in batch.entries:
            digest.update(entry.encode())
            digest.update(fields.get(b"f", b""))
            digest.update(fields.get(b"r", b""))
        learned = len(batch.entries) - len(batch.set_aside)
        return Position(
            lineage=self.lineage,
            step=self.step + 1,
            offset=batch.entries[-1][0],
            digest=digest.hexdigest(),
            learned=self.learned + learned,
            since_cut=self.since_cut + learned,
        )

    def reset(self, entry: str, version: Version, lineage: int) -> Position:
        """Return the position after control entry `entry` went back to a version."""
        digest = hashlib.blake2b(f"{version.digest} reset {entry}".encode(), digest_size=16)
        return replace(
            self,
            lineage=lineage,
            step=self.step + 1,
            offset=entry,
            digest=digest.hexdigest(),
            learned=version.learned,
            since_cut=0,
        )


class Replay:
    """One model's weights at one position of its record.

    Parameters
    ----------
    learner
        Any learner of the model's kind; `load_newest` or `rewind` gives it its state.
    """

    def __init__(self, registry: Registry, signals: Signals, learner: Learner) -> None:
        self.registry = registry
        self.store = registry.store
        self.keys = registry.keys
        self.learner = learner
        self.at = Position()
        self._signals = signals

    async def load_newest(self) -> None:
        """Take the newest published state, or the first version where nothing was published."""
        state = await self.registry.checkpoint()
        if state is None:
            await self.rewind()
            return
        meta, blob = state
        self.learner = self.learner.from_bytes(blob)
        if self.learner.digest() != meta.state_digest:
            raise StateError(f"the state of '{self.registry.model}' differs from its digest")
        self.at = Position(
            meta.lineage, meta.step, meta.offset, meta.digest, meta.learned, meta.since_cut
        )

    async def rewind(self) -> None:
        """Take the first version: where the record begins."""
        first = (await self.registry.versions())[0]
        _, self.learner = await self.registry.load_version(first.version, self.learner)
        self.at = Position(lineage=first.lineage, step=first.step, offset=first.offset)

    async def replay_step(self) -> bool:
        """Learn the next recorded step; False where the record ends.

        Raises
        ------
        StateError
            The feedback stream is not what the step had learned.
        """
        found = await self.store.range(self.keys.steps, f"({self.at.offset}", count=1)
        if not found:
            return False
        entry, step = found[0][0], Step.model_validate_json(found[0][1][b"s"])
        if step.reset_to is not None:
            await self.reset(entry, step.reset_to, step.lineage)
        else:
            await self._learn_again(step)
        return True

    async def _learn_again(self, step: Step) -> None:
        entries = await self.store.range(self.keys.feedback, f"({step.after}", step.to)
        batch = self.interpret(entries)
        batch.set_aside = dict(step.set_aside)
        if entries:
            self.at = self.at.after(batch)
        if self.at.digest != step.digest:
            raise StateError(
                f"replay of step {step.step} of '{self.registry.model}' met other feedback than "
                "the step had learned: the feedback stream was changed"
            )
        self.learner.learn(batch.keep())

    def interpret(self, entries: Sequence[Entry]) -> Batch:
        """Turn signals into examples; what cannot be learned is set aside with its reason."""
        batch = Batch(list(entries))
        for entry, fields in entries:
            try:
                feedback = Feedback.model_validate_json(fields[b"f"])
                prediction = Prediction.model_validate_json(fields[b"r"])
                example = self._signals.example(feedback, prediction)
            except (KeyError, ValidationError) as error:
                batch.set_aside[entry] = f"unreadable: {error}"
                continue
            if example is None:
                batch.set_aside[entry] = f"nothing_to_learn: {feedback.kind} on this task"
            else:
                batch.examples.append((entry, example))
        return batch

    async def reset(self, entry: str, number: int, lineage: int) -> None:
        """Go back to a version, as control entry `entry` says."""
        version, self.learner = await self.registry.load_version(number, self.learner)
        self.at = self.at.reset(entry, version, lineage)
