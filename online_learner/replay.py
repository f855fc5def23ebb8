"""The weights rebuilt from the record: a published state, and the steps after it, bit for bit.

Used by the learner after a crash, and by anyone who wants to see what the weights were at a step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from online_learner.errors import StateError
from online_learner.learners import Model
from online_learner.learners.state import unpack_state
from online_learner.registry import Registry
from online_learner.schema import Example, Feedback, Lesson, Prediction, Step, Version
from online_learner.store import Entry

MAX_WEIGHT = 10.0
NOTHING = "nothing_to_learn"  # how the reason begins for a signal that is kept, and not learned


class Signals(Protocol):
    """What a signal means for learning; see `policies.signals`."""

    def lesson(
        self, feedback: Feedback, prediction: Prediction, other: Prediction | None = None
    ) -> Lesson | None:
        """Return what to learn from a signal, or None where it teaches nothing."""

    def state(self) -> dict[str, Any]:
        """Return what it remembers of earlier signals, as plain JSON."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""


@dataclass(slots=True)
class Batch:
    """Signals on their way into one step: consecutive ones, or those that `release` brings back."""

    entries: list[Entry] = field(default_factory=list)
    lessons: list[tuple[str, Lesson]] = field(default_factory=list)
    set_aside: dict[str, str] = field(default_factory=dict)  # entry -> reason
    release: str | None = None  # the control entry that released them

    @property
    def to(self) -> str:
        """The last entry of the feedback stream that it covers."""
        return self.release or self.entries[-1][0]

    def keep(self) -> list[Lesson]:
        """Return the lessons that were not set aside."""
        return [lesson for entry, lesson in self.lessons if entry not in self.set_aside]


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
            offset=batch.to,
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

    def __init__(self, registry: Registry, signals: Signals, learner: Model) -> None:
        self.registry = registry
        self.store = registry.store
        self.keys = registry.keys
        self.learner = learner
        self.at = Position()
        self.signals = signals

    async def load_newest(self) -> None:
        """Take the newest published state, or the first version where nothing was published."""
        state = await self.registry.checkpoint()
        if state is None:
            await self.rewind()
            return
        meta, blob = state
        self.learner, memory = unpack_state(blob, self.learner)
        self.signals.restore(memory)
        if self.learner.digest() != meta.state_digest:
            raise StateError(f"the state of '{self.registry.model}' differs from its digest")
        self.at = Position(
            meta.lineage, meta.step, meta.offset, meta.digest, meta.learned, meta.since_cut
        )

    async def rewind(self) -> None:
        """Take the first version: where the record begins."""
        first = (await self.registry.versions())[0]
        self.signals.restore({})
        _, self.learner, _ = await self.registry.load_state(first.version, self.learner)
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
        if step.released:
            batch = await self.recall(step.to, step.released)
        else:
            between = await self.store.range(self.keys.feedback, f"({step.after}", step.to)
            batch = self.interpret(between)
        batch.set_aside = dict(step.set_aside)
        if batch.entries:
            self.at = self.at.after(batch)
        if self.at.digest != step.digest:
            raise StateError(
                f"replay of step {step.step} of '{self.registry.model}' met other feedback than "
                "the step had learned: the feedback stream was changed"
            )
        self.learner.learn(batch.keep())

    async def recall(self, control: str, entries: Sequence[str]) -> Batch:
        """Read again the signals that control entry `control` released, and interpret them now."""
        found = await self.store.entries([(self.keys.feedback, entry) for entry in entries])
        known = zip(entries, found, strict=True)
        batch = self.interpret([(entry, fields or {}) for entry, fields in known])
        batch.release = control
        return batch

    def interpret(self, entries: Sequence[Entry]) -> Batch:
        """Turn signals into examples; what cannot be learned is set aside with its reason."""
        batch = Batch(list(entries))
        for entry, fields in entries:
            if not fields:
                batch.set_aside[entry] = "gone: it is no longer in the log"
                continue
            try:
                feedback = Feedback.model_validate_json(fields[b"f"])
                prediction = Prediction.model_validate_json(fields[b"r"])
                other = Prediction.model_validate_json(fields[b"o"]) if b"o" in fields else None
                lesson = self.signals.lesson(feedback, prediction, other)
                reason = self._nothing_in(feedback, lesson)
            except Exception as error:  # a table of a team's own may raise anything
                batch.set_aside[entry] = f"unreadable: {error}"
                continue
            if lesson is None or reason is not None:
                batch.set_aside[entry] = f"{NOTHING}: {reason}"
            else:
                batch.lessons.append((entry, lesson))
        return batch

    def _nothing_in(self, feedback: Feedback, lesson: Lesson | None) -> str | None:
        """Return why there is nothing to learn, or None where there is."""
        if self.learner.family == "none":
            return "this model has no learner; the signal is kept"
        if lesson is not None and not 0.0 < lesson.weight <= MAX_WEIGHT:
            return f"the signals policy gave it a weight of {lesson.weight:g}; it is kept"
        if lesson is None:
            return f"this {feedback.kind} teaches nothing on this task; it is kept"
        complementary = isinstance(lesson, Example) and lesson.complementary
        if complementary and not getattr(self.learner, "complementary", False):
            return "this learner cannot learn which label is wrong; the signal is kept"
        return None

    async def reset(self, entry: str, number: int, lineage: int) -> Version:
        """Go back to a version, as control entry `entry` says; what it knew of raters comes back.

        Returns
        -------
        The version.
        """
        version, self.learner, memory = await self.registry.load_state(number, self.learner)
        self.signals.restore(memory)
        self.at = self.at.reset(entry, version, lineage)
        return version
