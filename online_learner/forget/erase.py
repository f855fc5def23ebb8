"""Erase a person: from the log, in the store and on file, and from the weights.

    find -> note -> rebuild -> unname -> retract -> archive -> disk -> proof

What is erased keeps its place in the log: its id stays, so that it can be told later that it was
erased, and nothing of what was in it. It can be done while the service runs, and again where it was
cut short. The weights follow in the background, see `unlearn`; where no learner runs, the proof
says that this is pending. What the person sends meanwhile, or later, is new.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, cast

from online_learner.archive.log import Log
from online_learner.errors import NotFound
from online_learner.forget import filing, memories, observers, proof
from online_learner.forget.compiled import Datasets, erased_before, versions_with
from online_learner.forget.disk import Disk, rewrite
from online_learner.forget.finding import Finder, Theirs
from online_learner.forget.labels import RECORDS, Labels
from online_learner.forget.mentions import in_alarms, in_steps
from online_learner.forget.person import Person
from online_learner.forget.proof import Intent, Kept, Proof
from online_learner.forget.rebuild import still_in
from online_learner.forget.retract import LATE, retract
from online_learner.forget.streams import Lock, Rebuilder, locked
from online_learner.forget.traces import sweep, unstage
from online_learner.ids import entry_order
from online_learner.naming import Names, label_names
from online_learner.registry import Registry

if TYPE_CHECKING:
    from online_learner.stages import Stages

ROUNDS = 3  # of looking again for what came meanwhile
STREAMS = ("predictions", "feedback", "late", "steps", "quarantine", "audits", "asked")
LOOK_S = 0.2
SWAP_S = 2.0  # within which whoever answers takes new weights
AGAIN = (
    "once `--status` says that the weights are done, run it again: the store's log has those of "
    "before until then"
)
RETRAIN = (
    "the record no longer goes back to before some of the signals were learned: weights keep them. "
    "`online-learner retrain` makes weights without them; promote those"
)
LEFT_OVER = (
    "files that nobody lists are in the archive: an archiver may have been writing them. See that "
    "`--check` finds none"
)


@dataclass(slots=True)
class Wish:
    """What is wanted.

    Parameters
    ----------
    by
        Who wants it, for the record; no name of the person themselves.
    wait_s
        For how long to wait for the weights.
    drop_datasets
        Whether datasets that hold their signals are removed.
    """

    by: str = "operator"
    wait_s: float = 60.0
    drop_datasets: bool = False


@dataclass(slots=True)
class _Done:
    erased: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    marks: int = 0
    segments: int = 0
    unlisted: int = 0
    anew: set[str] = field(default_factory=set)


class Eraser:
    """Erases one person from one model.

    Parameters
    ----------
    log
        The record, and the archive where there is one.
    datasets
        None where there are none here.
    names
        What stands for labels, where they are learned; None where they are declared.
    alive
        Called with the number of entries of each page that was read.
    """

    def __init__(
        self,
        log: Log,
        person: Person,
        *,
        datasets: Datasets | None = None,
        names: Names | None = None,
        clock: Callable[[], float] = time.time,
        alive: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.log = log
        self.registry: Registry = log.registry
        self.person = person
        self._datasets = datasets
        self._names = names
        self._clock = clock
        self._seen = alive
        self._done = _Done()
        self._lock: Lock | None = None

    @classmethod
    def of(
        cls,
        stages: Stages,
        user: str,
        *,
        datasets: Datasets | None = None,
        alive: Callable[[int], None] = lambda _: None,
    ) -> Self:
        """Return what erases the user with this id from a model."""
        spec, learns = stages.spec, stages.spec.labels is None
        return cls(
            stages.log,
            Person.named(stages.keyring, stages.model, user),
            datasets=datasets,
            names=label_names(spec, stages.keyring, stages.model) if learns else None,
            clock=stages.clock,
            alive=alive,
        )

    async def find(self) -> Theirs:
        """Return what is theirs, and change nothing.

        Raises
        ------
        NotFound
            Nothing here is, and nothing was.
        DataError
            There is an archive, and the configuration no longer says where.
        """
        await filing.check_reached(self.log)
        found = await Finder(self.log, self.person, self._read).find(await self._known())
        if not found.any and not await self._was_here():
            raise NotFound(
                f"'{self.registry.model}' has nothing of this user: look at how it is spelt. "
                "Nothing was touched",
                code="unknown_user",
            )
        return found

    async def erase(self, wish: Wish) -> Kept:
        """Erase them, and return the proof.

        Raises
        ------
        NotFound
            Nothing here is theirs. Nothing was touched.
        Conflict
            Another erasure is under way.
        DataError
            A file of the archive is damaged, or cannot be written.
        Unavailable
            The store does not answer, or has no room for the copy of a stream. Run it again: it
            goes on where it stopped.
        """
        async with locked(self.registry) as lock:
            self._lock = lock
            try:
                return await self._erase(wish, lock)
            finally:
                self._lock = None

    async def _read(self, entries: int) -> None:
        self._seen(entries)
        if self._lock is not None:
            await self._lock.keep()

    async def _known(self) -> Theirs:
        before = await proof.begun(self.registry, self.person.pseudonyms)
        if before is None:
            return Theirs()
        return Theirs(set(before.predictions), set(before.feedback), set(before.late))

    async def _was_here(self) -> bool:
        return bool(await proof.proofs(self.registry, self.person.pseudonyms))

    async def _erase(self, wish: Wish, lock: Lock) -> Kept:
        began_at, before = self._clock(), await self.registry.published()
        earlier = await proof.proofs(self.registry, self.person.pseudonyms)
        theirs = await self.find()
        labels = await self._labels(theirs, earlier)
        signals, late = await erased_before(self.registry, earlier)
        finder, rebuilder = (
            Finder(self.log, self.person, self._read),
            Rebuilder(self.registry, lock),
        )
        for _ in range(ROUNDS):
            await self._note(theirs, labels, began_at)
            await self._rebuild(rebuilder, theirs, labels)
            places = theirs.counts(), len(theirs.controls)
            theirs = await finder.find(theirs)
            if (theirs.counts(), len(theirs.controls)) == places:
                break
        else:  # they send all the while: what comes from now on is new
            await self._note(theirs, labels, began_at)
            await self._rebuild(rebuilder, theirs, labels)
        self._done.marks = await sweep(self.registry, theirs)
        await self._archive(theirs, labels)  # first: weights are rebuilt from it
        await self._retract(theirs, wish)
        signals, late = signals | theirs.feedback, late | theirs.late
        unlearned = await self._wait(sorted(signals), wish.wait_s)
        await self._told_since(rebuilder, theirs)
        await unstage(self.registry)  # a learner may have died meanwhile
        self._done.marks += await memories.forget(self.registry, self.person)
        if unlearned == "done" and labels is not None:
            await self._relabel(rebuilder, labels)
            await self._archive(theirs, labels)
        self._done.unlisted = await filing.left_over(self.log, remove=True)
        disk = await rewrite(self.registry.store, self._read)
        holding = await versions_with(self._datasets, self.person, signals, late)
        removed = await self._drop(holding) if wish.drop_datasets else []
        await proof.end(self.registry, self.person.pseudonyms)
        found = self._proof(theirs, disk, unlearned)
        after = await self.registry.published()
        versions = await self.registry.versions()
        return await proof.keep(
            self.registry,
            found.model_copy(
                update={
                    "by": wish.by,
                    "began_at": began_at,
                    "controls": await proof.controls_of(self.registry, sorted(signals)),
                    "late": sorted(late, key=entry_order),
                    "labels": sorted(labels.own) if labels is not None else [],
                    "state_before": "" if before is None else before.state_digest,
                    "state_after": after.state_digest if after and unlearned == "done" else "",
                    "rebuilt": [v.version for v in versions if v.unlearned],
                    "tainted": [v.version for v in versions if v.tainted],
                    "datasets": [name for name in holding if name not in removed],
                    "removed": removed,
                    "first": earlier[0].id if earlier else "",
                }
            ),
        )

    async def _labels(self, theirs: Theirs, earlier: Sequence[Kept]) -> Labels | None:
        """Return what becomes of labels that only this person gave; None where none are learned."""
        if self._names is None:
            return None
        before = await proof.begun(self.registry, self.person.pseudonyms)
        known = {name for kept in earlier for name in kept.proof.labels}
        labels = Labels(self._names, known | set(before.labels if before else ()))
        await labels.find(self.log, theirs, self._read)
        return labels

    async def _archive(self, theirs: Theirs, labels: Labels | None) -> None:
        self._done.segments += await filing.rewrite(
            self.log, self.person, theirs, labels, self._read
        )

    async def _relabel(self, rebuilder: Rebuilder, labels: Labels) -> None:
        """Rename labels in what was answered until the new weights had come to everybody."""
        for _ in range(ROUNDS):
            changed = 0
            for stream in RECORDS:
                if (judge := labels.judge(stream)) is not None:
                    changed += await rebuilder.rebuild(stream, judge)
            if not changed:
                return
            await asyncio.sleep(SWAP_S)

    async def _note(self, theirs: Theirs, labels: Labels | None, began_at: float) -> None:
        intent = Intent(
            predictions=sorted(theirs.predictions),
            feedback=sorted(theirs.feedback),
            late=sorted(theirs.late),
            labels=sorted(labels.own) if labels is not None else [],
            began_at=began_at,
        )
        await proof.begin(self.registry, self.person.pseudonyms, intent)

    # --- in the store -------------------------------------------------------------------------

    async def _rebuild(self, rebuilder: Rebuilder, theirs: Theirs, labels: Labels | None) -> None:
        """Rebuild the streams; predictions first, since nothing joins what is erased there."""
        for stream in STREAMS:
            await self._stream(rebuilder, stream, theirs, labels)
        self._count("alarms", await rebuilder.rebuild("alarms", in_alarms(self.person)))
        words = await observers.own_words(self.registry, theirs)
        self._done.anew |= set(await observers.forget(self.registry, self.person, words))

    async def _told_since(self, rebuilder: Rebuilder, theirs: Theirs) -> None:
        """Look again at what a learner tells that had read the signals before they were erased."""
        await self._stream(rebuilder, "quarantine", theirs, None)
        self._count("steps", await rebuilder.rebuild("steps", in_steps(theirs.feedback)))

    async def _stream(
        self, rebuilder: Rebuilder, stream: str, theirs: Theirs, labels: Labels | None
    ) -> None:
        judge, drops = filing.judge_of(stream, theirs, self.person, labels)
        if judge is not None:
            self._count(stream, await rebuilder.rebuild(stream, judge, drops=drops))

    def _count(self, stream: str, changed: int) -> None:
        into = self._done.changed if stream in {"steps", "alarms"} else self._done.erased
        if changed:
            into[stream] = into.get(stream, 0) + changed

    async def _retract(self, theirs: Theirs, wish: Wish) -> None:
        entries = sorted(theirs.feedback, key=entry_order)
        entries += [f"{LATE}{entry}" for entry in sorted(theirs.late, key=entry_order)]
        if entries:
            await retract(self.registry, entries, by=wish.by, reason="erased", log=self.log)

    async def _wait(self, entries: list[str], wait_s: float) -> proof.Unlearned:
        """Wait for the weights, where a learner is at work and can do it."""
        if not entries:
            return "nothing"
        deadline = time.monotonic() + wait_s
        heartbeat = self.registry.keys.heartbeat("learner")
        found = await proof.standing(self.log, entries)
        while found == "pending" and await still_in(self.registry, entries):
            alive = await self.registry.store.call("GET", heartbeat) is not None
            if time.monotonic() >= deadline or not alive:
                break
            await self._read(0)
            await asyncio.sleep(LOOK_S)
        return await proof.standing(self.log, entries)

    # --- on file ------------------------------------------------------------------------------

    async def _drop(self, versions: list[str]) -> list[str]:
        for version in versions:
            await asyncio.to_thread(cast("Datasets", self._datasets).remove, version)
        return versions

    def _proof(self, theirs: Theirs, disk: Disk, unlearned: proof.Unlearned) -> Proof:
        done = self._done
        erased = done.erased | {name: n for name, n in theirs.counts().items() if n}
        todo = [
            disk.todo,
            LEFT_OVER if done.unlisted else "",
            AGAIN if unlearned == "pending" else "",
            RETRAIN if unlearned == "impossible" else "",
        ]
        return Proof(
            pseudonyms=list(self.person.pseudonyms),
            by="",
            began_at=0.0,
            at=self._clock(),
            erased=erased,
            changed=done.changed,
            marks=done.marks,
            segments=done.segments,
            aof=disk.aof,
            rdb=disk.rdb,
            todo="; ".join(filter(None, todo)),
            anew=sorted(done.anew),
            unlearned=unlearned,
        )
