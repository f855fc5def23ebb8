"""What has left the store, read from the archive: an answer, a signal, and what was said late."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pyarrow.compute as pc

from online_learner.archive.files import read
from online_learner.archive.log import Log
from online_learner.archive.place import Place
from online_learner.errors import DataError, Erased, NotFound
from online_learner.ids import Address, Kind, entry_order
from online_learner.interpret import ERASED
from online_learner.retain import why_gone
from online_learner.schema import Segment
from online_learner.store import Entry, Fields

CLOCKS_MS = 60_000  # by which the clocks of who serves and of the store may differ
PAGE = 500
MOST_FILES = 500  # that are searched for what was said of one answer
MOST_ENTRIES = 100_000  # of the store that are


async def find_entry(log: Log, stream: str, address: Address, kind: Kind) -> tuple[Fields, bool]:
    """Return the entry at an address, and whether it came from the archive.

    Raises
    ------
    NotFound
        Nothing is there, or another entry is; or it is in the archive, which cannot be read here.
    Erased
        Nothing of it is kept but its place.
    """
    keys, store = log.registry.keys, log.registry.store
    place, archived = address.entry, False
    [fields] = await store.entries([(getattr(keys, stream), place)])
    if fields is None and log.place is not None:
        archived = True
        try:
            [fields] = await log.entries([(stream, place)])
        except DataError as error:
            raise unreadable(kind, error) from error
    if fields is not None and ERASED in fields:
        raise Erased(Erased.TOLD)
    if fields is None or fields.get(b"n", b"").decode() != address.nonce:
        of = "predictions" if kind == "prediction" else "feedback"
        raise _gone(kind, await why_gone(store, keys, of, place))
    return fields, archived


def unreadable(kind: Kind, error: DataError) -> NotFound:
    """Return what a client is told where the archive cannot be read: no name of a file."""
    why = "a file is not there" if error.code == "missing" else "a file is damaged"
    return _gone(
        kind,
        f"it is in the archive, which cannot be read here ({why}): see `online-learner doctor`",
    )


def _gone(kind: Kind, why: str) -> NotFound:
    done = "issued" if kind == "prediction" else "accepted"
    return NotFound(
        f"this {kind} was {done} here, and is no longer in the log: {why}", code=f"unknown_{kind}"
    )


async def said_on_file(log: Log, prediction: str, stream: str, until_ms: int | None) -> list[Entry]:
    """Return the signals of one answer that the archive has, in order.

    Parameters
    ----------
    stream
        `feedback` or `late`.
    until_ms
        Up to when they were said, in milliseconds since the epoch; None: ever.

    Raises
    ------
    DataError
        They cannot be read, or are in too many files to read them all.
    """
    if log.place is None:
        return []
    after = f"{max(1, entry_order(prediction)[0]) - 1}-0"  # a flag is as old as the answer
    until = "+" if until_ms is None else f"{until_ms + CLOCKS_MS}-0"
    files = await log.files(stream, after, until)
    if len(files) > MOST_FILES:
        raise DataError("what was said of this answer is in more files than are read at once")
    found = []
    for file in files:
        found += await asyncio.to_thread(_of_answer, log.place, file, prediction)
    entries = await log.entries([(stream, entry) for entry in found])
    known = zip(found, entries, strict=True)
    return [(entry, fields) for entry, fields in known if fields and ERASED not in fields]


def _of_answer(place: Place, file: Segment, prediction: str) -> list[str]:
    """Return which entries of a file speak of an answer: two columns of it tell that."""
    table = read(place, file, range(len(file.cuts)), ["id", "prediction"])
    rows = table.filter(pc.equal(table.column("prediction"), prediction))
    return [str(entry) for entry in rows.column("id").to_pylist()]


async def late_not_on_file(log: Log, prediction: str, closed_ms: int) -> list[Entry]:
    """Return what was said of an answer once its window had closed, and is not in the archive yet.

    Raises
    ------
    DataError
        As `said_not_on_file`.
    """
    return await _not_on_file(log, "late", prediction, f"{max(0, closed_ms - CLOCKS_MS)}-0", "+")


async def said_not_on_file(log: Log, prediction: str, closed_ms: int) -> list[Entry]:
    """Return the signals of one answer, within its window, that are not in the archive yet.

    Raises
    ------
    DataError
        Too much was said meanwhile to look through it.
    """
    after = f"{max(1, entry_order(prediction)[0]) - 1}-0"
    return await _not_on_file(log, "feedback", prediction, after, f"{closed_ms + CLOCKS_MS}")


async def _not_on_file(
    log: Log, stream: str, prediction: str, after: str, until: str
) -> list[Entry]:
    mark = b"0-0"
    if log.place is not None:
        mark = await log.registry.store.call("HGET", log.registry.keys.archive, stream) or mark
    after = max(mark.decode(), after, key=entry_order)
    return await _in_store(log, stream, prediction, after, until)


async def _in_store(log: Log, stream: str, prediction: str, after: str, until: str) -> list[Entry]:
    """Return what the store has that was said of an answer after one entry, up to another."""
    store, key, found = log.registry.store, getattr(log.registry.keys, stream), list[Entry]()
    seen = 0
    while page := await store.range(key, f"({after}", until, count=PAGE):
        found += [item for item in page if item[1].get(b"p", b"").decode() == prediction]
        after, seen = page[-1][0], seen + len(page)
        if seen > MOST_ENTRIES:
            raise DataError("too much was said meanwhile to look through it")
    return [item for item in found if ERASED not in item[1]]


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries in order, each once."""
    return sorted(dict(entries).items(), key=lambda item: entry_order(item[0]))
