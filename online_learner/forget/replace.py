"""Weights without what was taken back, put in the place of those that had learned it: all at once.

The learner's newest state and the one beside it, every kept version that had learned from these
signals, and the step that a freeze keeps in service change in one script, together with the step
that says so. Versions keep their number; `unlearned` counts the signals that they are without.
Those that are not on the record and may hold them are marked as tainted.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from online_learner.errors import Conflict, Fenced
from online_learner.forget.rebuild import PINNED, Rebuild, brought, touched
from online_learner.ids import entry_order
from online_learner.learners.state import State
from online_learner.promote import decide_keys
from online_learner.registry import Registry
from online_learner.schema import Aliases, Checkpoint, Step, Verdict, Version

TRIES = 5  # the gate may move the aliases, or a version, meanwhile


@dataclass(slots=True)
class Changes:
    """What becomes of the kept states.

    Parameters
    ----------
    keys, states
        What the script takes: two keys a state, and what it is from then on.
    replaced, tainted
        Versions that were learned anew, and those that cannot be.
    pinned
        Whether the step that a freeze keeps in service was learned anew.
    learner
        Whether the learner goes on from one that is tainted.
    """

    keys: list[str] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)
    replaced: list[int] = field(default_factory=list)
    tainted: list[int] = field(default_factory=list)
    pinned: bool = False
    learner: bool = False

    def add(self, key: str, waiting: str | None, state: dict[str, Any]) -> None:
        """Have a state changed; `waiting` is where its bytes are, None where they stay."""
        self.keys += [key, key if waiting is None else waiting]
        self.states.append({**state, "waits": waiting is not None})

    @property
    def told(self) -> bool:
        """Whether there is anything to say in a verdict."""
        return bool(self.replaced or self.tainted or self.pinned)


async def put_in_place(
    rebuild: Rebuild,
    step: Step,
    checkpoint: Checkpoint,
    state: State,
    *,
    fence: str | None,
    now: float,
) -> None:
    """Commit an `unlearn` step with all that follows from it.

    Parameters
    ----------
    rebuild
        It stands where the learner does, before the step.
    checkpoint, state
        The learner's, as of the step.

    Raises
    ------
    Fenced
        Another learner has taken over. Nothing was written.
    Conflict
        The aliases or kept versions were moved all the while. Nothing was written.
    """
    registry, keys = rebuild.registry, rebuild.keys
    head: dict[str, Any] = {
        "fence": fence,
        "step": {"id": step.to, "record": step.pack().decode()},
        "checkpoint": registry.seal("checkpoint", checkpoint, **state).fields(),
        "publish": keys.swap,
    }
    names = [keys.fence("learner"), keys.steps, keys.checkpoint("learner"), keys.before]
    names += [keys.aliases, keys.verdicts, keys.unlearned]
    for _ in range(TRIES):
        changes = await _changes(rebuild)
        head |= {"states": changes.states}
        head |= await _announced(registry, changes, rebuild.without, now=now)
        reply = await registry.store.run(
            "unlearn",
            [*names, *changes.keys],
            [json.dumps(head), state["blob"], state["memory"], *sorted(rebuild.without)],
        )
        if reply == b"fenced":
            raise Fenced(f"another learner of '{registry.model}' has taken over")
        if reply == b"ok":
            await rebuild.drop()  # what came out as it was
            return
    raise Conflict("the aliases, or kept versions, are being moved all the while: try again")


async def taint_brought(registry: Registry, signals: Collection[str], *, now: float) -> None:
    """Mark the versions that were made elsewhere and may hold some signals that only went on file.

    No learner ever heard of these; a dataset may have had them.

    Raises
    ------
    Conflict
        The aliases or versions were moved all the while. Nothing was written.
    """
    keys, first = registry.keys, min(signals, key=entry_order)
    for _ in range(TRIES):
        found = Changes()
        await _taint_all(registry, first, found)
        told = await _announced(registry, found, signals, now=now)
        if told["aliases"] is None:
            return
        head = told | {"verdicts": [told["verdict"]], "versions": found.states}
        names = [*decide_keys(keys), *found.keys[::2]]
        arguments = [json.dumps(head | {"publish": keys.swap})]
        if await registry.store.run("decide", names, arguments) == b"ok":
            return
    raise Conflict("the aliases, or kept versions, are being moved all the while: try again")


async def _changes(rebuild: Rebuild) -> Changes:
    """Return what becomes of the kept states, as they are now."""
    registry, keys = rebuild.registry, rebuild.keys
    found = Changes(learner=rebuild.replay.at.tainted)
    for number, kept in (await touched(registry, rebuild.first)).items():
        if isinstance(kept, Checkpoint):
            await _change_pinned(rebuild, kept, found)
            continue
        waiting, key = rebuild.waiting.get(number), keys.version(number)
        if waiting is None:
            await _taint(registry, number, found)
        elif waiting.sha != await registry.bytes_of(key):
            state = await registry.retold(
                number,
                sha=waiting.sha,
                state_digest=waiting.state_digest,
                learned=waiting.learned,
                unlearned=kept.unlearned + _held(kept, rebuild.without),
                tainted=waiting.tainted,
            )
            found.add(key, waiting.key, state)
            found.replaced.append(number)
            found.tainted += [number] if waiting.tainted else []
        elif waiting.tainted and not kept.tainted:
            await _taint(registry, number, found)
    await _taint_all(registry, rebuild.first, found)
    return found


async def _change_pinned(rebuild: Rebuild, kept: Checkpoint, found: Changes) -> None:
    registry, key, waiting = rebuild.registry, rebuild.keys.pinned, rebuild.waiting.get(PINNED)
    if waiting is None or waiting.sha == await registry.bytes_of(key):
        return
    was = await registry.seal_of(key)
    changed = kept.model_copy(
        update={
            "state_digest": waiting.state_digest,
            "learned": waiting.learned,
            "tainted": waiting.tainted,
        }
    )
    sealed = registry.seal("checkpoint", changed, sha=waiting.sha).fields()
    found.add(key, waiting.key, {**sealed, "was": was})
    found.pinned = True


async def _taint_all(registry: Registry, first: str, found: Changes) -> None:
    for number in await brought(registry, first):
        if not (await registry.version(number)).tainted:
            await _taint(registry, number, found)


async def _taint(registry: Registry, number: int, found: Changes) -> None:
    found.add(registry.keys.version(number), None, await registry.retold(number, tainted=True))
    found.tainted.append(number)


def _held(version: Version, entries: Collection[str]) -> int:
    """Return how many of some signals a version had been cut after."""
    at = entry_order(version.offset)
    return sum(entry_order(entry) <= at for entry in entries)


async def _announced(
    registry: Registry, changes: Changes, without: Collection[str], *, now: float
) -> dict[str, Any]:
    """Return the aliases by which replicas load anew what was replaced, and the verdict."""
    before = await registry.aliases()
    if before is None or not changes.told:
        return {"aliases": None}
    used = {before.champion, before.anchor, *before.challengers}
    moved = changes.pinned or bool(used & {*changes.replaced})
    after = before.model_copy(
        update={
            "epoch": before.epoch + 1,
            "rebuilt": before.rebuilt + 1,
            "generation": before.generation + moved,
        }
    )
    verdict = Verdict(
        action="forget",
        by="unlearn",
        sentence=sentence(before, changes, len(without), moved=moved),
        version=before.champion,
        numbers={
            "signals": len(without),
            "replaced": _numbers(changes.replaced),
            "tainted": _numbers(changes.tainted),
        },
        epoch=after.epoch,
        at=now,
    )
    return {
        "epoch": str(before.epoch),
        "aliases": registry.seal_aliases(after),
        "verdict": verdict.pack().decode(),
    }


def sentence(before: Aliases, changes: Changes, signals: int, *, moved: bool) -> str:
    """Say how many signals are in no weights any more, and which versions are others now."""
    subject, be = ("1 signal", "is") if signals == 1 else (f"{signals} signals", "are")
    parts = [f"{subject}, taken back, {be} in the learner's weights no more."]
    if changes.replaced:
        were = "was" if len(changes.replaced) == 1 else "were"
        parts.append(f"{_versions(changes.replaced)} {were} learned anew without them.")
    if changes.pinned:
        parts.append("What the freeze keeps in service was learned anew.")
    if changes.tainted:
        used = [n for n in changes.tainted if n in (before.champion, *before.challengers)]
        parts.append(f"{_versions(changes.tainted)} may hold them and cannot be learned anew.")
        if changes.learner:
            parts.append("The learner goes on from there.")
        if used:
            parts.append(f"{_versions(used)} {_are(used)} in use: retrain, or promote another one.")
    if moved:
        parts.append("Tests under way begin anew.")
    return " ".join(parts)


def _versions(numbers: Sequence[int]) -> str:
    return f"Version{'' if len(numbers) == 1 else 's'} {_numbers(numbers)}"


def _are(numbers: Sequence[int]) -> str:
    return "is" if len(numbers) == 1 else "are"


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
