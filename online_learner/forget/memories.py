"""What is remembered of raters beside kept weights, without a person.

Weights that are learned anew bring a memory without them. But where all that somebody said was
taken back long before, nothing is learned anew; and what observers had told of them by then stays.
"""

from __future__ import annotations

from typing import Any

from online_learner.errors import StateError
from online_learner.forget.mentions import speaks_of, without
from online_learner.forget.person import Person
from online_learner.forget.traces import scan
from online_learner.learners.state import pack_memory, unpack_memory
from online_learner.registry import SEAL, Registry, digest_of
from online_learner.schema import Checkpoint, Control, Version

TRIES = 5  # the learner, or the gate, may write it anew meanwhile


async def mentioning(registry: Registry, person: Person) -> int:
    """Return in how many kept states what is remembered names a person, or cannot be read."""
    names = [*_checkpoints(registry), *await _versions(registry)]
    async for staged in scan(registry, "version:*:without:*"):
        names += [name.decode() for name in staged]
    count = 0
    for name in names:
        packed: bytes | None = await registry.store.call("HGET", name, "memory")
        try:
            count += bool(packed) and speaks_of(unpack_memory(packed or b""), person)
        except StateError:
            count += 1  # nobody can tell
    return count


async def forget(registry: Registry, person: Person) -> int:
    """Have nothing that is kept remember a person; returns in how many states that was so.

    A learner that runs is told what it was told before, without them.
    """
    told: dict[str, Any] = {}
    count = 0
    for key in (*_checkpoints(registry), *await _versions(registry)):
        memory = await _cleaned(registry, key, person)
        count += memory is not None
        if key == registry.keys.checkpoint("learner") and memory is not None:
            told = memory.get("told", {})
    if told:
        control = Control(action="tables", tables=told, reason="erased")
        await registry.store.call("XADD", registry.keys.feedback, "*", "c", control.pack())
    return count


def _checkpoints(registry: Registry) -> list[str]:
    return [registry.keys.checkpoint("learner"), registry.keys.before, registry.keys.pinned]


async def _versions(registry: Registry) -> list[str]:
    last = await registry.last_version()
    return [registry.keys.version(number) for number in range(last + 1)]


async def _cleaned(registry: Registry, key: str, person: Person) -> dict[str, Any] | None:
    """Return what a state remembers without a person; None where it does not name them."""
    store, number = registry.store, key.rpartition(":")[2]
    is_version = key == registry.keys.version(int(number)) if number.isdigit() else False
    purpose = f"version {number}" if is_version else "checkpoint"
    for _ in range(TRIES):
        names = (*SEAL, b"memory")
        values = await store.call("HMGET", key, *names)
        fields = {n: v for n, v in zip(names, values, strict=True) if v is not None}
        packed = fields.get(b"memory", b"")
        try:
            if not packed or not speaks_of(before := unpack_memory(packed), person):
                return None
            record: Version | Checkpoint
            if is_version:
                record, sha = registry.unseal(purpose, fields, Version)
            else:
                record, sha = registry.unseal(purpose, fields, Checkpoint)
        except StateError:  # it is refused by whoever reads it
            return None
        after: dict[str, Any] = without(before, person)
        weights, memory = sha.partition(" ")[0], pack_memory(after)
        sealed = registry.seal(purpose, record, sha=f"{weights} {digest_of(memory)}")
        parts = [fields[b"mac"], sealed.meta, sealed.sha, sealed.mac, memory]
        if await store.run("remember", [key], parts) == b"ok":
            return after
    return None
