"""What leads to a person beside the log: marks, names under which answers are found, leases."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from online_learner.forget.finding import Theirs
from online_learner.queue.leases import name_of
from online_learner.registry import Registry
from online_learner.store.keys import said_place

PAGE = 500
_PLACE = re.compile(r"\d+-\d+")


async def sweep(registry: Registry, theirs: Theirs) -> int:
    """Remove marks and names that lead to what was erased; returns how many."""
    gone = await unstage(registry)
    gone += await _unsay(registry, theirs)
    gone += await _unname(registry, theirs)
    gone += await _unlease(registry, theirs)
    return gone + await _unsee(registry, theirs)


async def unstage(registry: Registry) -> int:
    """Remove weights and memories that wait for learners that died; returns how many."""
    keys, store, gone = registry.keys, registry.store, 0
    mark, alive = await store.many(
        [("GET", keys.fence("learner")), ("EXISTS", keys.heartbeat("learner"))]
    )
    async for names in scan(registry, "version:*:without:*"):
        left = [name for name in names if not alive or name.rpartition(b":")[2] != mark]
        gone += await store.call("DEL", *left) if left else 0
    return gone


async def _unsay(registry: Registry, theirs: Theirs) -> int:
    """Remove what leads from an answer to the latest that somebody said of it."""
    keys, store, gone = registry.keys, registry.store, 0
    for part in _parts(sorted(_both(theirs.predictions))):
        gone += await store.call("DEL", *map(keys.said, part))
    erased = theirs.feedback | theirs.late
    for part in _parts(sorted(_both(theirs.others))):
        found = await store.many([("HGETALL", keys.said(entry)) for entry in part])
        for entry, pairs in zip(part, found, strict=True):
            marks = pairs if isinstance(pairs, dict) else dict(zip(*[iter(pairs)] * 2, strict=True))
            fields = [
                f for f, mark in marks.items() if said_place(mark).removeprefix("L") in erased
            ]
            if fields:
                gone += await store.call("HDEL", keys.said(entry), *fields)
    return gone


def _both(answers: Iterable[str]) -> set[str]:
    """Return the names by which what is said of answers is remembered: in time, and late."""
    return {name for answer in answers for name in (answer, f"late:{answer}")}


async def _unname(registry: Registry, theirs: Theirs) -> int:
    """Remove the lists that lead from their sessions and own ids to answers."""
    keys, store, gone = registry.keys, registry.store, 0
    names = [keys.ref("session_id", name) for name in theirs.sessions]
    names += [keys.ref("external_id", name) for name in theirs.externals]
    for part in _parts(sorted(names)):
        lists = await store.many([("LRANGE", name, 0, -1) for name in part])
        for name, items in zip(part, lists, strict=True):
            for item in items:
                if item.partition(b"|")[0].decode() in theirs.predictions:
                    gone += await store.call("LREM", name, 0, item)
    limits = [keys.rate("source", source) for source in theirs.sources]
    return gone + (await store.call("DEL", *limits) if limits else 0)


async def _unlease(registry: Registry, theirs: Theirs) -> int:
    keys, store = registry.keys, registry.store
    holders = {name_of(registry, source) for source in theirs.sources}
    fields = []
    for name, value in (await store.hash(keys.leases)).items():
        entry, _, holder = name.decode().partition(" ")
        held = value.decode().partition(" ")[2]
        if entry in theirs.predictions or holder in holders or (not holder and held in holders):
            fields.append(name)
    gone = await store.call("HDEL", keys.leases, *fields) if fields else 0
    planted = [name for name in await store.hash(keys.gold) if name.decode() in theirs.predictions]
    return int(gone) + (await store.call("HDEL", keys.gold, *planted) if planted else 0)


async def _unsee(registry: Registry, theirs: Theirs) -> int:
    """Remove what idempotency keys remember: digests of what was sent, and where it went."""
    erased, gone = theirs.predictions | theirs.feedback | theirs.late, 0
    async for names in scan(registry, "seen:*"):
        values = await registry.store.call("MGET", *names)
        told = [
            name
            for name, value in zip(names, values, strict=True)
            if value and not erased.isdisjoint(_PLACE.findall(value.decode()))
        ]
        gone += await registry.store.call("DEL", *told) if told else 0
    return gone


async def scan(registry: Registry, pattern: str = "*") -> AsyncIterator[list[bytes]]:
    """Yield the keys of a model, a page at a time; some may come twice."""
    glob = re.sub(r"([*?\[\]\\])", r"\\\1", registry.keys.prefix) + pattern
    cursor: Any = b"0"
    while True:
        cursor, names = await registry.store.call("SCAN", cursor, "MATCH", glob, "COUNT", 1000)
        if names:
            yield names
        if int(cursor) == 0:
            return


def _parts(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[at : at + PAGE] for at in range(0, len(names), PAGE))
