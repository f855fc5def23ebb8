"""The weights learned once more along the recorded steps, without some signals.

Kept versions that were cut on the way are met at the very position at which they were cut. What
they are without these signals waits in the store, beside them, until the learner puts all of it in
place at once (see `replace`). Where the recorded steps go back to one of them, the rebuild goes
back to what waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from online_learner.errors import StateError
from online_learner.ids import entry_order
from online_learner.learners import Model
from online_learner.learners.state import M, pack_memory, pack_state, unpack_memory, unpack_state
from online_learner.registry import Registry, digest_of
from online_learner.replay import Replay
from online_learner.replay.bases import on_record
from online_learner.replay.position import Position
from online_learner.schema import Checkpoint, Version
from online_learner.store.keys import Keys

WAITS_S = 86_400  # for how long what waits is kept, where nobody comes for it
SKEW_S = 60.0  # by which clocks may differ
PAGE = 1000  # names in one command
PINNED = -1  # stands for the pinned state, where versions have their number

Kept = Version | Checkpoint
Pace = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A kept state as it is without the signals, in the store under `key`.

    Parameters
    ----------
    sha
        Of its bytes, as the seal names them.
    tainted
        Whether it was learned on from a version that holds them and cannot be learned anew.
    """

    key: str
    state_digest: str
    sha: str
    learned: int
    tainted: bool


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """How far a rebuild has come: everything that it takes to go on from there elsewhere."""

    without: frozenset[str]
    learner: Model
    memory: dict[str, Any]
    at: Position
    differs: int | None
    waiting: dict[int, Waiting]


class _Registry(Registry):
    """Reads what waits in the place of what is kept, and knows what will be tainted."""

    waiting: Mapping[int, Waiting]
    brought: Collection[int] = ()

    async def load_state(self, number: int, like: M) -> tuple[Version, M, dict[str, Any]]:
        found = self.waiting.get(number)
        if found is None:
            version, learner, memory = await super().load_state(number, like)
            tainted = version.tainted or number in self.brought
            return version.model_copy(update={"tainted": tainted}), learner, memory
        blob, memory = await self.store.call("HMGET", found.key, "blob", "memory")
        if digest_of(blob or b"", memory or b"") != found.sha:
            raise StateError(f"what version {number} of '{self.model}' becomes is damaged or gone")
        version = await self.version(number)
        changed: dict[str, Any] = {"state_digest": found.state_digest, "learned": found.learned}
        changed |= {"tainted": found.tainted}
        learner = unpack_state(blob, like)
        return version.model_copy(update=changed), learner, unpack_memory(memory or b"")


@dataclass
class Rebuild:
    """Learns a model's record once more, without some signals.

    Parameters
    ----------
    replay
        Of fresh parts: a learner as its factory makes it, and policies that remember nothing.
    mark
        Tells what waits of this learner from what another has left.
    """

    replay: Replay
    mark: str
    without: frozenset[str] = frozenset()
    first: str = "0-0"
    waiting: dict[int, Waiting] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = self.replay.registry
        registry = _Registry(found.store, found.keyring, found.model)
        registry.waiting = self.waiting
        self.replay.registry = registry
        self.registry, self.keys = registry, Keys(found.model)

    async def begin(self, without: Collection[str]) -> None:
        """Take the newest state that is kept from before the first of these signals.

        Raises
        ------
        StateError
            None is, or the record is not whole from there on.
        """
        self.without = frozenset(without)
        self.first = min(self.without, key=entry_order)
        self.registry.brought = await brought(self.registry, self.first)
        self.replay.forgotten = self.without
        await self.replay.clean_before(self.first)

    async def resume(self, found: Rebuilt) -> None:
        """Go on where another rebuild came to; raises what `begin` does."""
        await self.begin(found.without)
        self.waiting.update(found.waiting)
        self.replay.at, self.replay.differs = found.at, found.differs
        self.replay.learner = found.learner
        self.replay.interpreter.remember(found.memory)

    def state(self) -> Rebuilt:
        """Return how far it has come."""
        replay = self.replay
        return Rebuilt(
            without=self.without,
            learner=replay.learner,
            memory=replay.memory(),
            at=replay.at,
            differs=replay.differs,
            waiting=dict(self.waiting),
        )

    async def run(self, until: str, pace: Pace | None = None) -> None:
        """Learn the recorded steps up to an entry, and keep what kept versions are without it all.

        Parameters
        ----------
        until
            The entry of a step that is recorded.
        pace
            Awaited after each step.
        """
        kept = _by_step(await touched(self.registry, self.first))
        while entry_order(self.replay.at.offset) < entry_order(until):
            if not await self.replay.replay_step():
                raise StateError(f"the recorded steps of '{self.registry.model}' end too early")
            for number, state in kept.get(self.replay.at.step, {}).items():
                if state.offset == self.replay.at.offset:
                    await self._keep(number)
            if pace is not None:
                await pace()

    async def _keep(self, number: int) -> None:
        replay = self.replay
        blob, memory = pack_state(replay.learner), pack_memory(replay.memory())
        key = f"{self.keys.version(number)}:without:{self.mark}"
        await self.registry.store.many(
            [
                ("DEL", key),
                ("HSET", key, "blob", blob, "memory", memory),
                ("EXPIRE", key, WAITS_S),
            ]
        )
        self.waiting[number] = Waiting(
            key=key,
            state_digest=replay.learner.digest(),
            sha=digest_of(blob, memory),
            learned=replay.at.learned,
            tainted=replay.at.tainted,
        )

    async def drop(self) -> None:
        """Let go of what waits still: nobody will come for it."""
        await drop(self.registry, self.waiting)
        self.waiting.clear()


async def drop(registry: Registry, waiting: Mapping[int, Waiting]) -> None:
    """Remove what waits of a rebuild that nobody goes on with."""
    if waiting:
        await registry.store.call("DEL", *(kept.key for kept in waiting.values()))


async def touched(registry: Registry, first: str) -> dict[int, Kept]:
    """Return the kept states on the record that were cut once an entry had been read, by number.

    What was rejected has no weights any more. Some of them may not have learned from it, since they
    are of another lineage: they come out as they were.
    """
    at = entry_order(first)
    found: dict[int, Kept] = {
        version.version: version
        for version in await registry.versions()
        if version.status != "rejected" and on_record(version) and entry_order(version.offset) >= at
    }
    pinned = await registry.pinned_known()
    if pinned is not None and entry_order(pinned.offset) >= at:
        found[PINNED] = pinned
    return found


async def brought(registry: Registry, first: str) -> list[int]:
    """Return the versions that were made elsewhere once an entry was there: they may hold it."""
    return [
        version.version
        for version in await registry.versions()
        if version.brought and version.status != "rejected" and was_there(version, first)
    ]


def was_there(version: Version, entry: str) -> bool:
    """Tell whether a signal had been said when a version was made.

    Of a file, or of a dataset, nobody can tell here what it was made of.
    """
    if not version.brought:
        return entry_order(version.offset) >= entry_order(entry)
    return version.cut_at + SKEW_S >= entry_order(entry)[0] / 1000


def _by_step(kept: Mapping[int, Kept]) -> dict[int, dict[int, Kept]]:
    found: dict[int, dict[int, Kept]] = {}
    for number, state in kept.items():
        found.setdefault(state.step, {})[number] = state
    return found


async def pending(registry: Registry, *, but: Collection[str] = ()) -> dict[str, str]:
    """Return the signals that were taken back and are still in the weights, with who says so.

    The value is the control entry of the feedback stream by which the learner is told.

    Parameters
    ----------
    but
        Some of them that are known, and left out.
    """
    store, keys = registry.store, registry.keys
    retracted, unlearned = await store.many([("HLEN", keys.retracted), ("HLEN", keys.unlearned)])
    if retracted == unlearned + len(but):
        return {}
    marked, done = await store.hash(keys.retracted), await store.hash(keys.unlearned)
    found = {entry.decode(): told.decode() for entry, told in marked.items() if entry not in done}
    return {entry: told for entry, told in found.items() if entry not in but}


async def still_in(registry: Registry, entries: Iterable[str]) -> list[str]:
    """Return those of some signals that have not been unlearned, in their order."""
    wanted, left = list(entries), list[str]()
    for at in range(0, len(wanted), PAGE):
        part = wanted[at : at + PAGE]
        found = await registry.store.call("HMGET", registry.keys.unlearned, *part)
        left += [entry for entry, done in zip(part, found, strict=True) if done is None]
    return left
