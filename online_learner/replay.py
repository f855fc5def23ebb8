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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from online_learner.errors import StateError
from online_learner.ids import entry_order
from online_learner.interpret import Batch, Interpreter, Signals, Validation
from online_learner.learners import Model
from online_learner.registry import Registry
from online_learner.retain import trimmed_to
from online_learner.schema import (
    Checkpoint,
    Control,
    Step,
    Version,
)
from online_learner.store import Entry
from online_learner.weigh import Corrections

log = logging.getLogger(__name__)

PAGE = 500


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

    def told(self, entry: str) -> Position:
        """Return the position after control entry `entry` brought tables."""
        digest = hashlib.blake2b(f"{self.digest} tables {entry}".encode(), digest_size=16)
        return replace(self, step=self.step + 1, offset=entry, digest=digest.hexdigest())


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
        self.interpreter = Interpreter(signals, validation, corrections)

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
            self.interpreter.remember(memory)
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
        """Weigh by what observers tell by control entry `entry`, from there on."""
        self.interpreter.heed(tables)
        self.at = self.at.told(entry)

    def interpret(self, entries: Sequence[Entry], *, released: bool = False) -> Batch:
        """Turn signals into lessons for the learner as it is."""
        return self.interpreter.read(entries, self.learner, released=released)

    def memory(self) -> dict[str, Any]:
        """Return what is known of the raters, as plain JSON: it travels with the weights."""
        return self.interpreter.memory()

    async def recall(self, control: str, entries: Sequence[str]) -> Batch:
        """Read again the signals that control entry `control` released, and interpret them now."""
        found = await self.store.entries([(self.keys.feedback, entry) for entry in entries])
        known = zip(entries, found, strict=True)
        signals = [(entry, fields or {}) for entry, fields in known]
        batch = self.interpret(signals, released=True)
        batch.release = control
        return batch

    async def reset(self, entry: str, number: int, lineage: int) -> Version:
        """Go back to a version, as control entry `entry` says; what it knew of raters comes back.

        Raises `NotFound` or `StateError` where there is no such version, or it is not sound.
        """
        before, told = self.at, self.interpreter.corrections.state()
        version, learner, memory = await self.registry.load_state(number, self.learner)
        self._take(version, learner, {**memory, "told": told})  # that is of now, not of then
        self.at = before.reset(entry, version, lineage)
        return version
