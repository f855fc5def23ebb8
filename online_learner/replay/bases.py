"""With which states a replay can begin: versions that the learner cut, and its second state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from online_learner.archive.log import Log
from online_learner.errors import StateError
from online_learner.ids import entry_order
from online_learner.learners import Model
from online_learner.registry import Registry
from online_learner.replay.forgotten import Unlearned
from online_learner.schema import Checkpoint, Step, Version

State: TypeAlias = tuple[Checkpoint | Version, Model, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Base:
    """A state that a replay can begin with.

    Parameters
    ----------
    clean
        Whether it has learned nothing that was unlearned later.
    load
        Returns it, as a learner like the one it is given; raises `StateError`.
    """

    offset: str
    clean: bool
    load: Callable[[Model], Awaitable[State]]


class Bases:
    """Finds them.

    Parameters
    ----------
    fresh
        The learner as its factory made it, where it is known; see `_load`.
    """

    def __init__(self, registry: Registry, log: Log, fresh: Model | None) -> None:
        self.registry = registry
        self.log = log
        self._fresh = fresh

    async def of(
        self, unlearned: Unlearned, *, newest: bool, before: str | None = None
    ) -> list[Base]:
        """Return the states from which the record is whole, the best first.

        Those come last that have learned what was unlearned.

        Parameters
        ----------
        newest
            The newest are the best; else the oldest.
        before
            Only clean ones of before this entry.
        """
        begins = entry_order(await self.begins())
        kept = await self._kept(unlearned) if newest else await self._versions()
        found = [base for base in kept if entry_order(base.offset) >= begins]
        if before is not None:
            end = entry_order(before)
            found = [base for base in found if base.clean and entry_order(base.offset) < end]
        found.sort(key=lambda base: entry_order(base.offset), reverse=newest)
        return sorted(found, key=lambda base: not base.clean)

    async def _versions(self) -> list[Base]:
        return [
            self._base(version)
            for version in await self.registry.versions()
            if version.status != "rejected" and on_record(version)
        ]

    async def _kept(self, unlearned: Unlearned) -> list[Base]:
        kept = await self._versions()
        if (before := await self.registry.before()) is not None:
            clean = not before.tainted and not unlearned.held(before.offset)
            kept.append(Base(before.offset, clean, self._load_before))
        return kept

    async def version(self, number: int) -> Base:
        """Return a version as a base.

        Raises
        ------
        NotFound
            There is no such version.
        StateError
            It was trained elsewhere, is older than the record, or has no weights any more.
        """
        version, model = await self.registry.version(number), self.registry.model
        if not on_record(version):
            raise StateError(
                f"version {number} of '{model}' was trained elsewhere: it is at no place of the "
                "record. Begin with another one"
            )
        if version.status == "rejected":
            raise StateError(
                f"version {number} of '{model}' was rejected, and its weights are gone: begin with "
                "another one"
            )
        begins = await self.begins()
        if entry_order(version.offset) < entry_order(begins):
            raise StateError(
                f"the record of '{model}' begins at {begins}, after version {number}: begin with a "
                "younger one"
            )
        return self._base(version)

    def _base(self, version: Version) -> Base:
        return Base(version.offset, not version.tainted, partial(self._load, version))

    async def _load(self, version: Version, like: Model) -> State:
        """Return a version's state; an untrained one is made afresh where it cannot be read.

        It is the same one, by its digest. So the record can be replayed by another release of a
        library, which cannot read what the one before had written.
        """
        try:
            return await self.registry.load_state(version.version, like)
        except StateError:
            if self._fresh is None or not version.untrained or version.offset != "0-0":
                raise
            await self.registry.whole(version.version)  # raises where it is damaged
            fresh = self._fresh.from_bytes(self._fresh.to_bytes())
            if fresh.digest() != version.state_digest:
                raise
            return version, fresh, {}

    async def _load_before(self, like: Model) -> State:
        state = await self.registry.load_before(like)
        if state is None:
            raise StateError("there is none any more")
        return state

    async def none_left(self, before: str | None, refused: StateError | None) -> StateError:
        """Return the error that there is no state to begin with, and what can be done.

        Parameters
        ----------
        refused
            Why the last one of those that there were cannot be read.
        """
        model, begins = self.registry.model, await self.begins()
        wanted = "" if before is None else f", and of before {before}"
        told = (
            f"the record of '{model}' begins at {begins}, and no version that is kept is as young "
            f"as that{wanted}, and sound: only the learner's newest state can be replayed"
        )
        if refused is not None and begins == "0-0":
            told += (
                f" ({refused}). The record is whole: `online-learner replay {model} --learner ... "
                "--register` has the configured learner learn it from nothing"
            )
        return StateError(told)

    async def begins(self) -> str:
        """Return the entry before which something is gone that a replay would read.

        A step that learned released signals reads again what came long before it.
        """
        found = [await self.log.begins(stream) for stream in ("feedback", "steps")]
        begins = max(found, key=entry_order)
        if begins == "0-0":
            return begins
        least, at = entry_order(begins), begins
        async for page in self.log.pages("steps"):
            for entry, fields in page:
                if b'"released"' in fields[b"s"]:
                    released = Step.model_validate_json(fields[b"s"]).released
                    if any(entry_order(earlier) < least for earlier in released):
                        at = max(at, entry, key=entry_order)
        return at


def on_record(version: Version) -> bool:
    """Tell whether a version was cut from the record, and not trained elsewhere."""
    return not version.brought
