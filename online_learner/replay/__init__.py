"""The weights rebuilt from the record: a published state, and the steps after it, bit for bit.

    bases       with which states one can begin
    ahead       the steps, and the entries that they cover, read by the page
    position    where one stands; what was learned is chained there
    forgotten   what was learned, and is in the weights no more
    retrace     from a version to now, and what there is to say of it

The same bits need the same configuration, which is not part of the record. Under another one a
replay leads to other weights than the steps recorded. It goes on, since a learner that stopped
there would stop for ever; it says so, once, and each state that it publishes names the first such
step, until a reset. Steps that were not published recorded no digest.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from online_learner.archive.log import Log
from online_learner.errors import StateError
from online_learner.ids import entry_order
from online_learner.interpret import ERASED, RENAMED, Batch, Interpreter, Signals, Validation
from online_learner.learners import Model
from online_learner.learners.undo import Undo
from online_learner.registry import Registry
from online_learner.replay.ahead import Ahead
from online_learner.replay.bases import Bases, on_record
from online_learner.replay.forgotten import RETRACTED, Gaps, Unlearned
from online_learner.replay.position import Position
from online_learner.schema import Checkpoint, Control, Step, Version
from online_learner.store import Entry
from online_learner.weigh import Corrections

log = logging.getLogger(__name__)


class Replay:
    """One model's weights at one position of its record.

    Parameters
    ----------
    learner
        Any learner of the model's kind; `load_newest` or `rewind` gives it its state. Where it is
        as its factory made it, it can stand for a first version that cannot be read any more.
    validation
        Whom to believe; None believes everybody.
    corrections
        By what observers found; None corrects nothing.
    log
        Archive and store; left out, the record is what the store holds.
    """

    def __init__(
        self,
        registry: Registry,
        signals: Signals,
        learner: Model,
        validation: Validation | None = None,
        corrections: Corrections | None = None,
        *,
        log: Log | None = None,
    ) -> None:
        self.registry = registry
        self.store = registry.store
        self.keys = registry.keys
        self.log = log or Log(registry)
        self.learner = learner
        self.at = Position()
        self.differs: int | None = None  # the first step with other weights than it recorded
        self.compared = 0  # states that are those recorded, bit for bit
        self.interpreter = Interpreter(signals, validation, corrections)
        self.alive: Callable[[], Awaitable[None]] | None = None  # awaited as a long replay goes on
        self.unlearned = Unlearned()
        self.forgotten = frozenset()
        self._held: frozenset[str] = frozenset()  # of these, what the weights have learned
        self._fresh = learner
        self._bases = Bases(registry, self.log, learner)
        self._ahead = Ahead(self.log)
        self._undo: Undo | None = None

    # --- what is forgotten --------------------------------------------------------------------

    @property
    def forgotten(self) -> frozenset[str]:
        """The signals by which a replay goes as though they had never been said.

        They stay part of the chain, and of their steps. All that was ever unlearned is among them
        as soon as a state is loaded.
        """
        return self._forgotten

    @forgotten.setter
    def forgotten(self, entries: frozenset[str]) -> None:
        """Forget these, and no others."""
        self._forgotten = entries
        self._gaps = Gaps(entries, self.unlearned)

    async def _remember_forgotten(self) -> None:
        """Read anew what has been unlearned."""
        self._ahead.clear()
        self._undo = None
        self.unlearned = await Unlearned.read(self.log)
        self.forgotten |= frozenset(self.unlearned.at)

    # --- where to begin -----------------------------------------------------------------------

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
        self.forgotten = frozenset()  # that has learned what else was to be forgotten
        await self._remember_forgotten()
        state = await self.registry.load_newest(self.learner)
        if state is not None:
            self._take(*state)
        return state is not None

    async def rewind(self) -> None:
        """Take the oldest kept version from which the record is whole: the first, until one trims.

        Raises
        ------
        StateError
            No version that is kept goes as far back as the record.
        """
        await self._remember_forgotten()
        await self._load_kept(newest=False)

    async def load_version(self, number: int) -> None:
        """Take a version that the learner cut, to go on from there.

        Raises
        ------
        NotFound
            There is no such version.
        StateError
            It cannot be read, was trained elsewhere, or is older than the record.
        """
        await self._remember_forgotten()
        base = await self._bases.version(number)
        self._take(*await base.load(self.learner))

    async def clean_before(self, entry: str) -> None:
        """Take the newest kept state that had not learned an entry, nor anything forgotten.

        Raises
        ------
        StateError
            The record does not reach back as far: it was trimmed, and there is no archive of it.
        """
        await self._remember_forgotten()
        await self._load_kept(newest=True, before=entry)

    async def _load_kept(self, *, newest: bool, before: str | None = None) -> None:
        refused: StateError | None = None
        for base in await self._bases.of(self.unlearned, newest=newest, before=before):
            try:
                self._take(*await base.load(self.learner))
            except StateError as error:
                refused = error
                log.warning("the state as of %s is passed over: %s", base.offset, error)
            else:
                return
        raise await self._bases.none_left(before, refused)

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
        self.at = replace(at, tainted=meta.tainted)
        self.differs, self.learner, self._undo = None, learner, None
        clean = isinstance(meta, Version) and not meta.tainted
        self._held = frozenset() if clean else self.unlearned.held(meta.offset)
        if isinstance(meta, Checkpoint):
            self.at, self.differs = replace(self.at, since_cut=meta.since_cut), meta.differs

    # --- along the record ---------------------------------------------------------------------

    async def follow(self, until: str = "+") -> None:
        """Learn the recorded steps up to an entry, or to the end; raises as `replay_step` does."""
        while await self.replay_step(until):
            if self.alive is not None:
                await self.alive()

    async def replay_step(self, until: str = "+") -> Step | None:
        """Learn the next recorded step, and return it; None where the record ends.

        Parameters
        ----------
        until
            An entry beyond which it does not go; a step that covers it and more is left, too.

        Raises
        ------
        StateError
            The feedback stream is not what the step had learned.
        DataError
            It cannot be read from the archive.
        """
        found = await self._ahead.next(self.at.offset)
        if found is None or (until != "+" and entry_order(found[0]) > entry_order(until)):
            return None
        entry, step = found
        covered = await self._ahead.covered(step)
        if step.reset_to is not None:
            await self._reset_again(entry, step.reset_to, step.lineage)
        elif step.tables:
            self._tell_again(entry, covered)
        elif step.unlearned:
            await self._unlearn_again(entry, step)
        elif step.retracted:
            self.at = self.at.told(entry, "retract")
        else:
            await self._learn_again(step, covered)
        self._compare(step)
        return step

    def _compare(self, step: Step) -> None:
        """Note, once, where the weights after a step are not those that it recorded."""
        known = self.differs is None and step.state_digest is not None
        if not known or not self._gaps.comparable(step.to):
            return
        if self.learner.digest() == step.state_digest:
            self.compared += 1
            return
        self.differs = step.step
        log.error(
            "the weights of '%s' are not those recorded at step %d: they were learned again "
            "under another configuration or release, and it goes on with them",
            self.registry.model,
            step.step,
        )

    async def _learn_again(self, step: Step, covered: Sequence[Entry]) -> None:
        if step.released:
            batch = await self.recall(step.to, step.released)
        else:
            batch = self.interpret(covered)
        gone = {entry: RETRACTED for entry, _ in batch.entries if entry in self.forgotten}
        batch.set_aside = step.set_aside | gone
        at = self.at.after(batch) if batch.entries else self.at
        if any(ERASED in fields or RENAMED in fields for _, fields in batch.entries):
            at = replace(at, digest=step.digest)  # its bytes are gone, and with them their chain
        if at.digest != step.digest:
            raise StateError(
                f"replay of step {step.step} of '{self.registry.model}' met other feedback than "
                "the step had learned: the feedback stream was changed"
            )
        self.at = at
        if not self.forgotten:
            self.learner.learn(batch.keep())
            return
        # What others had prepared it for may be missing now.
        if self._undo is None or self._undo.learner is not self.learner:
            self._undo = Undo(self.learner)
        self._undo.learn(batch.keep())
        self.learner = self._undo.learner

    def _tell_again(self, entry: str, covered: Sequence[Entry]) -> None:
        """Take in what observers had told at an entry."""
        if not covered or covered[-1][0] != entry or b"c" not in covered[-1][1]:
            raise StateError(f"what the learner of '{self.registry.model}' was told is gone")
        self.heed(entry, Control.model_validate_json(covered[-1][1][b"c"]).tables)

    def heed(self, entry: str, tables: Mapping[str, dict[str, Any]]) -> None:
        """Weigh by what observers tell by control entry `entry`, from there on."""
        self.interpreter.heed(tables)
        self.at = self.at.told(entry)

    def interpret(self, entries: Sequence[Entry], *, released: bool = False) -> Batch:
        """Turn signals into lessons for the learner as it is; no policy sees what is forgotten."""
        if not self._forgotten or self._forgotten.isdisjoint(entry for entry, _ in entries):
            return self.interpreter.read(entries, self.learner, released=released)
        kept = [item for item in entries if item[0] not in self._forgotten]
        batch = self.interpreter.read(kept, self.learner, released=released)
        batch.entries = list(entries)
        for entry, _ in entries:
            if entry in self._forgotten:
                batch.set_aside[entry] = RETRACTED
        return batch

    def memory(self) -> dict[str, Any]:
        """Return what is known of the raters, as plain JSON: it travels with the weights."""
        return self.interpreter.memory()

    async def recall(self, control: str, entries: Sequence[str]) -> Batch:
        """Read again the signals that control entry `control` released, and interpret them now."""
        found = await self.log.entries([("feedback", entry) for entry in entries])
        known = zip(entries, found, strict=True)
        signals = [(entry, fields or {}) for entry, fields in known]
        batch = self.interpret(signals, released=True)
        batch.release = control
        return batch

    # --- back to a version --------------------------------------------------------------------

    async def reset(self, entry: str, number: int, lineage: int) -> Version:
        """Go back to a version, as control entry `entry` says; what it knew of raters comes back.

        Raises `NotFound` or `StateError` where there is no such version, or it is not sound.
        """
        version, learner, memory = await self.registry.load_state(number, self.learner)
        before = self.at
        told = self.interpreter.corrections.state()  # that is of now, not of then
        self._take(version, learner, {**memory, "told": told})
        self.at = before.reset(entry, version, lineage)
        return version

    async def _reset_again(self, entry: str, number: int, lineage: int) -> None:
        """Go back to a version as the record did; where it cannot be read, it is learned again."""
        try:
            await self.reset(entry, number, lineage)
        except StateError:
            version = await self.registry.version(number)
            if not on_record(version) or version.status == "rejected":
                raise
            told = self.interpreter.corrections.state()
            again = self._again()
            await again.rewind()
            await again.follow(version.offset)
            self.interpreter.remember({**again.memory(), "told": told})
            self._take_over(again)
            self.at = self.at.reset(entry, version, lineage)

    # --- what was unlearned -------------------------------------------------------------------

    async def _unlearn_again(self, entry: str, step: Step) -> None:
        """Go on with weights that never learned what a step unlearned."""
        if self._held:
            again = self._again()
            await again.clean_before(min(self._held, key=entry_order))
            await again.follow(step.after)
            self.take_over(entry, again)
        else:
            self.at = self.at.told(entry, "unlearn")

    def take_over(self, entry: str, rebuilt: Replay) -> None:
        """Go on with what was learned without what control entry `entry` unlearns.

        Parameters
        ----------
        rebuilt
            A replay that stands where this one does, and has forgotten these signals.

        Raises
        ------
        StateError
            It stands somewhere else.
        """
        if rebuilt.at.offset != self.at.offset:
            raise StateError(
                f"the weights of '{self.registry.model}' were learned again up to "
                f"{rebuilt.at.offset}, and not to {self.at.offset}"
            )
        self.interpreter.remember(rebuilt.memory())
        self._take_over(rebuilt)
        learned, tainted = rebuilt.at.learned, rebuilt.at.tainted
        self.at = replace(self.at.told(entry, "unlearn"), learned=learned, tainted=tainted)

    def _take_over(self, rebuilt: Replay) -> None:
        self.learner, self._undo, self._held = rebuilt.learner, None, frozenset()
        self.unlearned, self.forgotten = rebuilt.unlearned, self.forgotten | rebuilt.forgotten
        self.differs = rebuilt.differs

    def _again(self) -> Replay:
        """Return another replay of the same record, which uses the same policies meanwhile."""
        again = Replay(self.registry, self.interpreter.signals, self._fresh, log=self.log)
        again.interpreter, again.alive = self.interpreter, self.alive
        again.unlearned, again.forgotten = self.unlearned, self.forgotten
        return again
