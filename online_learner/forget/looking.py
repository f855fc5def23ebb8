"""Look for a person everywhere: what is theirs in the log, and their names in all that is kept."""

from __future__ import annotations

import asyncio
import mmap
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from online_learner.archive.log import Log
from online_learner.forget.compiled import Datasets, erased_before, versions_with
from online_learner.forget.disk import files
from online_learner.forget.filing import left_over
from online_learner.forget.finding import Finder
from online_learner.forget.memories import mentioning
from online_learner.forget.person import Person
from online_learner.forget.proof import proofs
from online_learner.forget.traces import scan
from online_learner.registry import Registry
from online_learner.store import Fields

PAGE = 500


async def look(
    log: Log,
    person: Person,
    alive: Callable[[int], Awaitable[None]],
    datasets: Datasets | None = None,
) -> dict[str, int]:
    """Return how often a person is found, by where; empty where they are found nowhere.

    Records of the log are read in the store and in the archive. What else is kept of the model is
    searched for their names: keys, lists, hashes, what learner and observers remember, and the
    server's files, as far as they can be read here and are not compressed. With pseudonyms alone,
    as a proof has them, the log and what is remembered are searched. Datasets are searched for
    their signals, be these erased since or not.

    Raises
    ------
    DataError
        A file of the archive is damaged.
    """
    found = await Finder(log, person, alive).find()
    counts = {**found.counts(), "control entries": len(found.controls)}
    counts["unlisted files of the archive"] = await left_over(log)
    counts["learner's memory"] = await mentioning(log.registry, person)
    earlier = await proofs(log.registry, person.pseudonyms)
    signals, late = await erased_before(log.registry, earlier)
    held = await versions_with(datasets, person, signals | found.feedback, late | found.late)
    counts["datasets"] = len(held)
    if person.names:
        counts |= await _keys(log.registry, person, alive)
        for path in await files(log.registry.store):
            counts[path.name] = await asyncio.to_thread(_in_file, path, person)
    return {where: count for where, count in counts.items() if count}


# --- by their names ---------------------------------------------------------------------------


def _pattern(person: Person) -> re.Pattern[bytes]:
    """Return what only a record that names them has: their source, or their id as a value."""
    parts = []
    for name in person.names:
        text = re.escape(to_json(name)[1:-1])
        parts += [rb"human:" + text + rb"(?![\w-])", rb'"user_id": ?"' + text + rb'"']
    return re.compile(b"|".join(parts))


async def _keys(
    registry: Registry, person: Person, alive: Callable[[int], Awaitable[None]]
) -> dict[str, int]:
    """Return how many values of each key have their names."""
    pattern, counts = _pattern(person), dict[str, int]()
    async for names in scan(registry):
        for name in names:
            key = name.decode()
            count = sum([1 async for part in _values(registry, key) if pattern.search(part)])
            if count:
                counts[key.removeprefix(registry.keys.prefix)] = count
            await alive(0)
    return counts


async def _values(registry: Registry, key: str) -> Any:
    store = registry.store
    kind = await store.call("TYPE", key)
    match kind.decode() if isinstance(kind, bytes) else kind:
        case "string":
            yield await store.call("GET", key) or b""
        case "list":
            for item in await store.call("LRANGE", key, 0, -1):
                yield item
        case "hash":
            for name, value in (await store.hash(key)).items():
                yield name + b"\0" + value
        case "stream":
            after = "-"
            while page := await store.range(key, after, count=PAGE):
                for _, fields in page:
                    yield b"\0".join(_flat(fields))
                after = f"({page[-1][0]}"


def _flat(fields: Fields) -> Iterator[bytes]:
    for name, value in fields.items():
        yield name
        yield value


def _in_file(path: Path, person: Person) -> int:
    """Return how often a file has their names; one that cannot be read has nothing to tell."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return sum(1 for _ in _pattern(person).finditer(text))
    except (OSError, ValueError):  # gone meanwhile, or empty
        return 0
