"""Stage 4: learn from the feedback stream. Each micro-batch is committed as one entry of `steps`.

That entry *is* the commit: its id is the last feedback entry it covers, so it is the index from a
signal to the step that learned it too. Full state is published now and then; after a crash the
newest published state is replayed along the recorded steps, and the weights are the same bits.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from online_learner.archive.log import Log
from online_learner.committed import checkpoint_of, quarantined, version_of
from online_learner.errors import Fenced, NotFound, StateError, Unavailable, trace
from online_learner.forget.handover import Handover
from online_learner.forget.replace import put_in_place
from online_learner.ids import entry_order
from online_learner.interpret import Batch, Signals, Validation, runs
from online_learner.learners import Model
from online_learner.learners.state import State, pack_memory, pack_state, unpack_state
from online_learner.registry import Registry
from online_learner.replay import Replay
from online_learner.replay.position import Position
from online_learner.schema import Aliases, Checkpoint, Control, Lesson, Step, Version
from online_learner.settings import ModelSpec
from online_learner.store import Entry, Fields
from online_learner.weigh import Corrections

log = logging.getLogger(__name__)

PUBLISH_COST_RATIO = 20  # publishing may take a twentieth of the learner's time
KEPT_MS, KEPT_STEPS = 60_000, 1000  # by which the second state may be older than the published one


class Snapshots(Protocol):
    """The part of a promotion policy that asks for snapshots; see `policies.promotion`."""

    def snapshot_due(self, aliases: Aliases, since_cut: int) -> bool:
        """Tell whether a version should be cut after `since_cut` learned signals."""


class Trainer(Replay):
    """The single writer of one model's weights: it replays, and goes on where the record ends.

    Parameters
    ----------
    fresh
        The learner as its factory made it: the first version, where there is none yet.
    handover
        From where weights come that were learned without what was taken back; None: they stay.
    trusted
        Whether a new model is trusted at once (policies that need no evidence).
    """

    def __init__(
        self,
        registry: Registry,
        spec: ModelSpec,
        fresh: Model,
        signals: Signals,
        snapshots: Snapshots,
        *,
        validation: Validation | None = None,
        corrections: Corrections | None = None,
        log: Log | None = None,
        handover: Handover | None = None,
        trusted: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(registry, signals, fresh, validation, corrections, log=log)
        self.handover = handover
        self._spec = spec
        self._snapshots = snapshots
        self._trusted = trusted
        self._clock = clock
        self.heard: Callable[[Sequence[Entry]], None] = lambda _entries: None  # told what was read
        self._fence: str | None = None
        self._base: bytes = b""  # the published state, and what was learned since, to undo a batch
        self._since_base: list[list[Lesson]] = []
        self._kept: Position | None = None  # of the second state
        self._published_at = 0.0
        self._publish_cost_s = 0.0
        self._unpublished = False

    @property
    def fence(self) -> str | None:
        """What tells this writer from the others; None while it does not know where it stands."""
        return self._fence

    # --- recovery -----------------------------------------------------------------------------

    async def restore(self) -> None:
        """Take the fence, load the newest published state and replay the steps after it."""
        self._fence = self._kept = None
        await self.registry.found(self.learner, now=self._clock(), trusted=self._trusted)
        fence = str(await self.store.essential("INCR", self.keys.fence("learner")))
        await self.load_newest()
        while await self.replay_step():
            if self.alive is not None:
                await self.alive()
        self._fence = fence
        with self._surely():
            await self._commit(publish=True)

    @contextlib.contextmanager
    def _surely(self) -> Iterator[None]:
        """After any failure, start anew from the store: memory may be ahead of what is there."""
        try:
            yield
        except BaseException:
            self._fence = None
            raise

    # --- one turn -----------------------------------------------------------------------------

    async def turn(self, *, block_ms: int | None = None) -> int:
        """Learn what has arrived, commit it, and publish where that is due.

        Parameters
        ----------
        block_ms
            How long to wait for feedback, in milliseconds; None does not wait.

        Returns
        -------
        The number of feedback entries that were consumed.

        Raises
        ------
        Fenced
            Another learner of this model has started; this one must stop.
        Unavailable
            The store does not answer. The next turn starts from the last commit.
        """
        if self._fence is None:
            await self.restore()
        if block_ms is not None and self._unpublished:
            block_ms = max(1, min(block_ms, int(self._due_in_s() * 1000)))
        found = await self.store.read(
            {self.keys.feedback: self.at.offset}, count=self._spec.batch_max, block_ms=block_ms
        )
        entries = found.get(self.keys.feedback, [])
        self.heard(entries)
        with self._surely():
            await self._consume(entries)
        return len(entries)

    async def _consume(self, entries: Sequence[Entry]) -> None:
        for is_control, run in runs(entries):
            if is_control:
                for entry, fields in run:
                    await self._obey(entry, fields)
            else:
                await self._learn(self.interpret(run))
        if not entries and self._unpublished and self._due_in_s() <= 0:
            await self._commit(publish=True)

    async def _learn(self, batch: Batch) -> None:
        lessons = batch.keep()
        try:
            self.learner.learn(lessons)
        except Exception as error:
            log.warning("a batch of %d could not be learned: %s", len(lessons), trace(error))
            lessons = self._isolate(batch)
        self._since_base.append(lessons)
        before = self.at
        self.at = self.at.after(batch)
        entries, aside = [entry for entry, _ in batch.entries], batch.set_aside
        step = self._step(
            before,
            signals=len(entries),
            set_aside={entry: aside[entry] for entry in entries if entry in aside},
            weighed={e: batch.weighed[e] for e in batch.weighed if e not in aside},
            released=entries if batch.release else [],
        )
        await self._commit(step, publish=self._due_in_s() <= 0)

    def _step(self, before: Position, **facts: Any) -> Step:
        """Return the record of what led from a position to where the learner is now."""
        at = self.at
        return Step(
            lineage=at.lineage,
            step=at.step,
            after=before.offset,
            to=at.offset,
            digest=at.digest,
            at=self._clock(),
            **facts,
        )

    def _isolate(self, batch: Batch) -> list[Lesson]:
        """Find the lessons that ruin the model, set them aside, and learn the others.

        The state is rebuilt from the published one, so that no trace of the ruin remains. Where
        each alone is learned and all together ruin the model, the whole batch is set aside.
        """
        self._rebuild()
        for entry, lesson in batch.lessons:
            try:
                self.learner.learn([lesson])
            except Exception as error:
                batch.set_aside[entry] = f"poison: {type(error).__name__}: {error}"
                self._rebuild()
                for before in batch.before(entry):
                    self.learner.learn([before])
        self._rebuild()
        kept = batch.keep()
        try:
            self.learner.learn(kept)
        except Exception as error:
            together = f"poison: with others of its batch: {type(error).__name__}: {error}"
            batch.set_aside = {entry: together for entry, _ in batch.lessons} | batch.set_aside
            self._rebuild()
            self.learner.learn([])  # as in a replay
        return batch.keep()

    def _rebuild(self) -> None:
        self.learner = unpack_state(self._base, self.learner)
        for lessons in self._since_base:
            self.learner.learn(lessons)

    async def publish(self) -> None:
        """Publish the newest step now, unless it has been."""
        if self._unpublished:
            with self._surely():
                await self._commit(publish=True)

    # --- control ------------------------------------------------------------------------------

    async def _obey(self, entry: str, fields: Fields) -> None:
        try:
            control = Control.model_validate_json(fields[b"c"])
        except ValueError as error:
            await self._learn(Batch([(entry, fields)], set_aside={entry: f"unreadable: {error}"}))
            return
        if control.action in ("retract", "unlearn"):
            await self._forget(entry, control)
            return
        if control.action == "release":
            await self._learn(await self.recall(entry, control.entries))
            return
        before = self.at
        if control.action == "tables":
            self.heed(entry, control.tables)
            step = self._step(before, signals=0, tables=True)
            await self._commit(step, publish=self._due_in_s() <= 0)
            return
        version, reason = await self._go_back(entry, control)
        step = self._step(before, signals=0, reset_to=version.version)
        mark = {"lineage": control.lineage, "kept": version.offset, "reason": reason}
        await self._commit(step, publish=True, reset=mark)

    async def _forget(self, entry: str, control: Control) -> None:
        """Note what was taken back; once that has been rebuilt, go on without it."""
        before, rebuild, started = self.at, None, self._clock()
        if control.action == "unlearn" and self.handover is not None:
            how: dict[str, Any] = {"until": before.offset, "mark": self._fence, "pace": self.alive}
            rebuild = await self.handover.take(self.registry, control.entries, **how)
        if rebuild is None:
            self.at = self.at.told(entry, "retract")
            step = self._step(before, signals=0, retracted=control.entries)
            await self._commit(step, publish=self._due_in_s() <= 0)
            return
        self.take_over(entry, rebuild.replay)
        state, state_digest = self._state()
        step = self._step(before, signals=0, unlearned=control.entries, state_digest=state_digest)
        checkpoint = self._checkpoint(state_digest)
        now = self._clock()
        await put_in_place(rebuild, step, checkpoint, state, fence=self._fence, now=now)
        self._is_published(state, kept=True, started=started)

    async def _go_back(self, entry: str, control: Control) -> tuple[Version, str]:
        """Go back to a version, or to the nearest that can be loaded; returns it, and why.

        Those before it come first, and of them those that were champion once: what was cut after it
        may be what the weights go back from. The step says which it was, and a replay follows that.
        """
        wanted = control.to_version
        try:
            return await self.reset(entry, wanted, control.lineage), control.reason
        except (StateError, NotFound) as error:
            refused = error
        kept = [v for v in await self.registry.versions() if v.status != "rejected"]
        kept.sort(key=lambda v: (v.version < wanted, v.status == "blessed", v.version))
        for found in reversed(kept):
            with contextlib.suppress(StateError, NotFound):
                version = await self.reset(entry, found.version, control.lineage)
                instead = f"Version {wanted} cannot be loaded; the learner took {version.version}."
                log.error("'%s' goes back. %s %s", self.registry.model, instead, refused)
                return version, f"{control.reason} {instead}".strip()
        raise StateError(
            f"'{self.registry.model}' has to go back to version {wanted}, and neither it nor any "
            f"other can be loaded; bring back a backup of the store: {refused}"
        ) from refused

    # --- committing ---------------------------------------------------------------------------

    def _due_in_s(self) -> float:
        interval_s = max(self._spec.publish_s, PUBLISH_COST_RATIO * self._publish_cost_s)
        return self._published_at + interval_s - self._clock()

    async def _commit(
        self,
        step: Step | None = None,
        *,
        publish: bool,
        reset: dict[str, Any] | None = None,
    ) -> None:
        head: dict[str, Any] = {
            "fence": self._fence,
            "lineage": self.at.lineage,
            "steps": [],
            "quarantine": [] if step is None else quarantined(step),
        }
        keys = [
            self.keys.fence("learner"),
            self.keys.steps,
            self.keys.quarantine,
            self.keys.checkpoint("learner"),
            self.keys.aliases,
            self.keys.resets,
            self.keys.before,
        ]
        state, started = State(blob=b"", memory=b""), self._clock()
        if publish:
            state, state_digest = self._state()
            step = step and step.model_copy(update={"state_digest": state_digest})
            await self._seal(head, keys, state, state_digest)
        if step is not None:
            head["steps"].append({"id": step.to, "record": step.pack().decode()})
            if reset is not None:
                head["reset"] = {"id": step.to, "record": json.dumps(reset)}
        parts = [json.dumps(head), state["blob"], state["memory"]]
        reply = await self.store.run("commit_step", keys, parts)
        if reply == b"fenced":
            raise Fenced(f"another learner of '{self.registry.model}' has taken over")
        if reply == b"conflict":
            raise Unavailable("another process registered a version meanwhile", code="conflict")
        self._unpublished = True
        if publish:
            self._is_published(state, kept=head["keep"], started=started)

    async def _seal(
        self, head: dict[str, Any], keys: list[str], state: State, state_digest: str
    ) -> None:
        """Add the checkpoint to a commit, and a version where the policy asks for one."""
        parent = await self._cut_due()
        if parent is not None:
            number = await self.registry.last_version() + 1
            head["version"] = {"after": str(number - 1), "number": str(number)}
            at, now = self.at, self._clock()
            version = version_of(at, state_digest, number=number, parent=parent, now=now)
            head["version"] |= self.registry.seal(f"version {number}", version, **state).fields()
            keys.append(self.keys.version(number))
            self.at = replace(self.at, since_cut=0)
        checkpoint = self._checkpoint(state_digest)
        head["checkpoint"] = self.registry.seal("checkpoint", checkpoint, **state).fields()
        head["keep"] = self._keep_due()
        head["publish"] = self.keys.swap

    def _checkpoint(self, state_digest: str) -> Checkpoint:
        return checkpoint_of(self.at, state_digest, differs=self.differs, now=self._clock())

    def _state(self) -> tuple[State, str]:
        """Return the full state as it is stored, and the digest of the weights."""
        state = State(blob=pack_state(self.learner), memory=pack_memory(self.memory()))
        return state, self.learner.digest()

    def _is_published(self, state: State, *, kept: bool, started: float) -> None:
        self._unpublished = False
        self._base, self._since_base = state["blob"], []
        self._kept = self.at if kept else self._kept
        self._published_at = self._clock()
        self._publish_cost_s = self._published_at - started

    def _keep_due(self) -> bool:
        """Tell whether the second state has to be written anew, too.

        By the stream's time. It is of this lineage, and of what this learner learned itself: so
        nothing has to be learned again under another configuration where the newest is damaged.
        """
        kept, at = self._kept, self.at
        if kept is None or kept.lineage != at.lineage or at.step - kept.step >= KEPT_STEPS:
            return True
        return entry_order(at.offset)[0] - entry_order(kept.offset)[0] >= KEPT_MS

    async def _cut_due(self) -> int | None:
        """Return the blessed version that a snapshot has to beat, where one is due; else None."""
        aliases = await self.registry.aliases()
        if aliases is None or aliases.lineage != self.at.lineage:
            return None
        since_cut = int(self.at.since_cut * self.interpreter.haste)
        due = self._snapshots.snapshot_due(aliases, since_cut)
        return aliases.reference if due else None
