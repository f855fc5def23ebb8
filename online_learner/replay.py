"""The weights rebuilt from the record: a published state, and the steps after it, bit for bit.

Used by the learner after a crash, and by anyone who wants to see what the weights were at a step.

The same bits need the same configuration: signals table, validation and learner are not part of the
record. Under another one a replay leads to other weights than the steps recorded. It goes on, since
a learner that stopped there would stop for ever; it says so in the log, once, and each state that
it publishes names the first such step, until a reset to a version. Steps that were not published
recorded no digest: nobody was served their weights.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from online_learner.errors import StateError
from online_learner.ids import entry_order
from online_learner.learners import Model
from online_learner.registry import Registry
from online_learner.retain import trimmed_to
from online_learner.schema import (
    Checkpoint,
    Control,
    Example,
    Feedback,
    Lesson,
    Prediction,
    Said,
    Signal,
    Step,
    Version,
    Weighed,
)
from online_learner.store import Entry
from online_learner.weigh import Corrections

log = logging.getLogger(__name__)

MAX_WEIGHT = 10.0
PAGE = 500
DIGITS = 6
NOTHING = "nothing_to_learn"  # how the reason begins for a signal that is kept, and not learned


class Signals(Protocol):
    """What a signal means for learning; see `policies.signals`."""

    def lesson(
        self, feedback: Feedback, prediction: Prediction, other: Prediction | None = None
    ) -> Lesson | None:
        """Return what to learn from a signal, or None where it teaches nothing."""

    def said(self, feedback: Feedback, prediction: Prediction) -> Said:
        """Return what a signal tells of the answer; it takes nothing in."""

    def state(self) -> dict[str, Any]:
        """Return what it remembers of earlier signals, as plain JSON."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""


class Validation(Protocol):
    """Whom to believe, and how far; see `policies.validation`."""

    def look(self, signal: Signal, /) -> str | None:
        """Return why a signal is to be set aside, or None where it may be learned."""

    def weigh(self, signal: Signal, weight: float, /) -> float:
        """Return what a lesson is to weigh, and count it."""

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
    weighed: dict[str, Weighed] = field(default_factory=dict)  # entry -> how, where corrected
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
    validation
        Whom to believe; None believes everybody.
    corrections
        By what observers found; None corrects nothing.
    """

    def __init__(
        self,
        registry: Registry,
        signals: Signals,
        learner: Model,
        validation: Validation | None = None,
        corrections: Corrections | None = None,
    ) -> None:
        self.registry = registry
        self.store = registry.store
        self.keys = registry.keys
        self.learner = learner
        self.at = Position()
        self.differs: int | None = None  # the first step with other weights than it recorded
        self.signals = signals
        self.validation = validation
        self.corrections = corrections or Corrections({})

    async def load_newest(self) -> None:
        """Take the newest state that is sound: the first version where nothing was published.

        Where the newest is refused, the steps after the youngest that is kept lead to the same
        weights: after a version, or the second state that the learner keeps.

        Raises
        ------
        StateError
            No state can be loaded from which the record is whole.
        """
        try:
            if await self.load_published():
                return
        except StateError as error:
            log.error(  # noqa: TRY400 (said once, in words)
                "the newest state of '%s' is refused, and what it held is learned again from one "
                "before it: %s",
                self.registry.model,
                error,
            )
        await self._load_kept(newest=True)

    async def load_published(self) -> bool:
        """Take the learner's newest full state; False where there is none."""
        state = await self.registry.load_newest(self.learner)
        if state is not None:
            self._take(*state)
        return state is not None

    def _take(self, meta: Checkpoint | Version, learner: Model, memory: Mapping[str, Any]) -> None:
        """Take a state that was read, once it is found to be what was written."""
        try:
            found = learner.digest()
            self.remember(memory)
        except Exception as error:  # whatever a learner, or a policy, finds wrong with it
            raise StateError(f"the state of '{self.registry.model}' is damaged") from error
        if found != meta.state_digest:
            raise StateError(f"the state of '{self.registry.model}' differs from its digest")
        at = Position(meta.lineage, meta.step, meta.offset, meta.digest, meta.learned)
        self.at, self.differs, self.learner = at, None, learner
        if isinstance(meta, Checkpoint):
            self.at, self.differs = replace(at, since_cut=meta.since_cut), meta.differs

    async def rewind(self) -> None:
        """Take the oldest kept version from which the record is whole: the first, until one trims.

        Raises
        ------
        StateError
            No version that is kept goes as far back as the record.
        """
        await self._load_kept(newest=False)

    async def _load_kept(self, *, newest: bool) -> None:
        begins = await self._begins()
        kept: list[tuple[str, Callable[[Model], Awaitable[Any]]]] = [
            (version.offset, functools.partial(self.registry.load_state, version.version))
            for version in await self.registry.versions()
            if version.status != "rejected" and version.registered is None  # not on the record
        ]
        if newest and (before := await self.registry.before()) is not None:
            kept.append((before.offset, self.registry.load_before))
        kept = [state for state in kept if entry_order(state[0]) >= entry_order(begins)]
        for offset, load in sorted(kept, key=lambda s: entry_order(s[0]), reverse=newest):
            try:
                self._take(*await load(self.learner))
            except StateError as error:
                log.warning("the state as of %s is passed over: %s", offset, error)
            else:
                return
        raise StateError(
            f"the record of '{self.registry.model}' begins at {begins}, and no version that is "
            "kept is as young as that, and sound: only the learner's newest state can be replayed"
        )

    async def _begins(self) -> str:
        """Return the entry up to which something has been trimmed that a replay would read.

        A step that learned released signals reads again what came long before it.
        """
        trimmed = await trimmed_to(self.store, self.keys, "feedback")
        begins, at = trimmed, "0-0"
        while found := await self.store.range(self.keys.steps, f"({at}", count=PAGE):
            for at, fields in found:
                released = Step.model_validate_json(fields[b"s"]).released
                if any(entry_order(entry) < entry_order(trimmed) for entry in released):
                    begins = at
        return begins

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
        elif step.tables:
            await self._tell_again(entry)
        else:
            await self._learn_again(step)
        self._compare(step)
        return True

    def _compare(self, step: Step) -> None:
        """Note, once, where the weights after a step are not those that it recorded."""
        told = self.differs is not None or step.state_digest is None
        if not told and self.learner.digest() != step.state_digest:
            self.differs = step.step
            log.error(
                "the weights of '%s' are not those recorded at step %d: they were learned again "
                "under another configuration or release, and it goes on with them",
                self.registry.model,
                step.step,
            )

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

    async def _tell_again(self, entry: str) -> None:
        """Take in what observers had told at an entry."""
        found = await self.store.range(self.keys.feedback, entry, entry)
        if not found:
            raise StateError(f"what the learner of '{self.registry.model}' was told is gone")
        self.heed(entry, Control.model_validate_json(found[0][1][b"c"]).tables)

    def heed(self, entry: str, tables: Mapping[str, dict[str, Any]]) -> None:
        """Take in what observers tell by control entry `entry`."""
        self.corrections.take(tables)
        until_ms = tables.get("drift", {}).get("suspend_until_ms")
        suspend = getattr(self.validation, "suspend", None)
        if until_ms is not None and suspend is not None:
            suspend(until_ms)
        digest = hashlib.blake2b(f"{self.at.digest} tables {entry}".encode(), digest_size=16)
        self.at = replace(self.at, step=self.at.step + 1, offset=entry, digest=digest.hexdigest())

    async def recall(self, control: str, entries: Sequence[str]) -> Batch:
        """Read again the signals that control entry `control` released, and interpret them now."""
        found = await self.store.entries([(self.keys.feedback, entry) for entry in entries])
        known = zip(entries, found, strict=True)
        signals = [(entry, fields or {}) for entry, fields in known]
        batch = self.interpret(signals, released=True)
        batch.release = control
        return batch

    def interpret(self, entries: Sequence[Entry], *, released: bool = False) -> Batch:
        """Turn signals into examples; what cannot be learned is set aside with its reason.

        What an operator has `released` is believed.
        """
        batch = Batch(list(entries))
        validation = None if released else self.validation
        for entry, fields in entries:
            if not fields:
                batch.set_aside[entry] = "gone: it is no longer in the log"
                continue
            try:
                found = self._lesson(entry, fields, validation, batch.weighed)
            except Exception as error:  # a table of a team's own may raise anything
                found = f"unreadable: {error}"
            if isinstance(found, str):
                batch.set_aside[entry] = found
            else:
                batch.lessons.append((entry, found))
        return batch

    def _lesson(
        self,
        entry: str,
        fields: Mapping[bytes, bytes],
        validation: Validation | None,
        weighed: dict[str, Weighed],
    ) -> Lesson | str:
        """Return what a signal teaches, or why it is set aside."""
        feedback = Feedback.model_validate_json(fields[b"f"])
        prediction = Prediction.model_validate_json(fields[b"r"])
        other = Prediction.model_validate_json(fields[b"o"]) if b"o" in fields else None
        if validation is not None:
            said = self.signals.said(feedback, prediction)
            answer, at_ms = fields[b"p"].decode(), entry_order(entry)[0]
            signal = Signal(feedback, prediction, said, answer, at_ms)
            doubt = validation.look(signal)
            if doubt is not None:
                return doubt
        if prediction.ask is not None and prediction.ask.reason == "gold" and not feedback.auditor:
            return f"{NOTHING}: a planted question tells of its rater; it is kept"
        if any(record.inputs == "none" for record in (prediction, other or prediction)):
            return f"{NOTHING}: what was asked is not in the log (log_inputs: none); it is kept"
        lesson = self.signals.lesson(feedback, prediction, other)
        reason = self._nothing_in(feedback, lesson)
        if lesson is None or reason is not None:
            return f"{NOTHING}: {reason}"
        if validation is None:
            return lesson
        factors = self.corrections.factors(signal)
        wanted = min(MAX_WEIGHT, math.prod(factors.values(), start=lesson.weight))
        weight = validation.weigh(signal, wanted)
        if not 0.0 < weight <= MAX_WEIGHT:
            return f"unreadable: the validation policy gave it a weight of {weight:g}"
        if weight == lesson.weight:
            return lesson
        given = round(weight, DIGITS)
        weighed[entry] = Weighed(raw=lesson.weight, given=given, factors=factors)
        return replace(lesson, weight=weight)

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

    def memory(self) -> dict[str, Any]:
        """Return what is known of the raters, as plain JSON: it travels with the weights."""
        validation = {} if self.validation is None else self.validation.state()
        told = {"told": self.corrections.state()} if self.corrections.tables else {}
        return {"signals": self.signals.state(), "validation": validation, **told}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take back what `memory` returned; an empty one knows nobody."""
        self.corrections.restore(memory.get("told", {}))
        self.signals.restore(memory.get("signals", {}))
        if self.validation is not None:
            self.validation.restore(memory.get("validation", {}))

    async def reset(self, entry: str, number: int, lineage: int) -> Version:
        """Go back to a version, as control entry `entry` says; what it knew of raters comes back.

        Raises `NotFound` or `StateError` where there is no such version, or it is not sound.
        """
        before, told = self.at, self.corrections.state()
        version, learner, memory = await self.registry.load_state(number, self.learner)
        self._take(version, learner, {**memory, "told": told})  # that is of now, not of then
        self.at = before.reset(entry, version, lineage)
        return version
