"""How far the log is looked at, in which parts, and what is known before anything is read."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from online_learner.archive.log import Log
from online_learner.archive.parts import Part, read_part
from online_learner.archive.place import Place
from online_learner.dataset.cleaning import LATE, Facts
from online_learner.dataset.query import Query
from online_learner.errors import DataError
from online_learner.forget.proof import Intent, begun
from online_learner.ids import entry_order
from online_learner.registry import Registry
from online_learner.schema import Control

STREAMS = ("predictions", "feedback", "late")
_LAST_SEQ = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Erasures:
    """Which people have been erased so far, and what is being erased.

    Parameters
    ----------
    last
        The last proof of one that has ended.
    begun
        Those that have not, as the store notes them.
    under_way
        The signals that these are about; late ones with `L` before their entry.
    """

    last: str
    begun: frozenset[bytes]
    under_way: frozenset[str]

    @classmethod
    async def look(cls, registry: Registry) -> Erasures:
        """Return how things stand; raises `StateError` where that was changed by somebody else."""
        store, keys = registry.store, registry.keys
        noted = await store.hash(keys.erasing)
        intents = [await begun(registry, [name.decode()]) for name in noted]
        ended = await store.latest(keys.erasures)
        signals = {name for intent in intents if intent is not None for name in _signals(intent)}
        return cls(ended[0][0] if ended else "0-0", frozenset(noted), frozenset(signals))

    async def check(self, registry: Registry) -> None:
        """Raise `DataError` where somebody was erased since: what was read may still be theirs."""
        now = await Erasures.look(registry)
        if now.last != self.last or now.begun != self.begun:
            raise DataError(
                "a person was erased while this was compiled, and it may hold what was theirs. "
                "Nothing was written: compile again",
                code="changed",
            )


def _signals(intent: Intent) -> list[str]:
    return [*intent.feedback, *(f"{LATE}{entry.removeprefix(LATE)}" for entry in intent.late)]


@dataclass(frozen=True, slots=True)
class Sources:
    """The log up to its watermarks, by stream."""

    watermarks: dict[str, str]
    parts: dict[str, list[Part]]
    facts: Facts
    erasures: Erasures


async def gather(
    log: Log, query: Query, scratch: Place, watermarks: Mapping[str, str] | None
) -> Sources:
    """Return the log as far as it is to be looked at.

    Parameters
    ----------
    scratch
        Where to put what only the store has.
    watermarks
        By stream, the last entry to look at; None: what is there now.

    Raises
    ------
    DataError
        A file of the archive is gone, damaged, or of another form.
    """
    seconds, micros = await log.registry.store.call("TIME")
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    marks = {name: _bounded(await log.last(name), query, now_ms) for name in STREAMS}
    if watermarks is not None:
        marks = {
            name: min(mark, watermarks.get(name, "0-0"), key=entry_order)
            for name, mark in marks.items()
        }
    parts = {name: await log.parts(name, "0-0", mark, scratch) for name, mark in marks.items()}
    # After the parts: what is taken back meanwhile is left out as well.
    erased = await Erasures.look(log.registry)
    store, keys = log.registry.store, log.registry.keys
    facts = Facts(
        retracted=frozenset(entry.decode() for entry in await store.hash(keys.retracted)),
        erased=erased.under_way,
        released=await asyncio.to_thread(_released, parts["feedback"]),
        late_answers=await asyncio.to_thread(_answers, parts["late"]),
    )
    return Sources(marks, parts, facts, erased)


def _bounded(last: str, query: Query, now_ms: int) -> str:
    """Return the last entry before `until`; a name for it, that need not be there.

    The store counts entries by its clock. Once that is past `until`, the name stays the same,
    whatever comes later.
    """
    if query.until is None:
        return last
    until_ms = max(0, math.ceil(query.until * 1000))
    bound = f"{until_ms - 1}-{_LAST_SEQ}" if until_ms else "0-0"
    return bound if until_ms <= now_ms else min(last, bound, key=entry_order)


def _released(feedback: Sequence[Part]) -> dict[str, str]:
    """Return which signals operators said are to be believed, with the entries that say so.

    As the log has it: what the store notes of them beside it goes when they are trimmed.
    """
    found: dict[str, str] = {}
    for part in feedback:
        table = read_part(part, ["id", "action", "control"])
        said = table.filter(pc.equal(table["action"], "release"))
        for row in said.to_pylist():
            try:
                control = Control.model_validate_json(row["control"])
            except ValidationError:  # it is as nothing to the learner too
                continue
            for entry in control.entries:
                found[entry] = f"{found.get(entry, '')} {row['id']}".strip()
    return found


def _answers(late: Sequence[Part]) -> frozenset[str]:
    """Return which answers are spoken of late."""
    found: set[str] = set()
    for part in late:
        found |= {
            entry for entry in read_part(part, ["prediction"])["prediction"].to_pylist() if entry
        }
    return frozenset(found)


def records_of(late: Part, predictions: Sequence[Part]) -> dict[tuple[str, str], bytes]:
    """Return the answers that one part of the late signals speaks of, by entry and nonce."""
    table = read_part(late, ["prediction", "other"])
    wanted = {entry for column in table.columns for entry in column.to_pylist() if entry}
    found: dict[tuple[str, str], bytes] = {}
    orders = sorted(map(entry_order, wanted))
    for part in predictions:
        low, high = entry_order(part.after), entry_order(part.until)
        begin, end = bisect_right(orders, low), bisect_right(orders, high)
        here = [f"{ms}-{seq}" for ms, seq in orders[begin:end]]
        if here:
            rows = read_part(part, ["id", "nonce", "record"])
            rows = rows.filter(pc.is_in(rows["id"], value_set=pa.array(here, pa.string())))
            for row in rows.to_pylist():
                if row["record"] is not None:
                    found[row["id"], row["nonce"] or ""] = row["record"].encode()
    return found
