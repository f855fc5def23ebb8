"""The log on file: every entry once, as it was, and read as one with the store."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs, parquet

from online_learner.archive import archiver as archiver_module
from online_learner.archive import files as files_module
from online_learner.archive import log as log_module
from online_learner.archive.archiver import Archiver
from online_learner.archive.form import FORMS, STREAMS, decode, encode
from online_learner.archive.log import Log, entries_of, read_part
from online_learner.archive.place import Place
from online_learner.archive.segments import Segments, replace
from online_learner.archive.sweep import sweep
from online_learner.errors import Conflict, DataError, Fenced
from online_learner.ids import Keyring, entry_order
from online_learner.registry import Registry
from online_learner.retain import MARGIN_S, Retention
from online_learner.schema import Feedback, Prediction
from online_learner.store import Entry, Store

DAY_MS = 86_400_000
NOON_MS = 19_700 * DAY_MS + DAY_MS // 2
WINDOW_S = 86_400.0


@pytest.fixture
def registry(store: Store, keyring: Keyring) -> Registry:
    """Return the registry of a model that nobody else has."""
    return Registry(store, keyring, "web")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return a folder for the archive."""
    return Place.open(tmp_path / "archive")


@pytest.fixture
def archiver(registry: Registry, place: Place, clock: Any) -> Archiver:
    """Return an archiver on the manual clock."""
    return Archiver(registry, place, window_s=WINDOW_S, clock=clock)


@pytest.fixture
def log(registry: Registry, place: Place) -> Log:
    """Return the record of archive and store."""
    return Log(registry, place)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files and their row groups be small."""
    monkeypatch.setattr(archiver_module, "MOST_ROWS", 70)
    monkeypatch.setattr(files_module, "GROUP_ROWS", 20)


def answer(n: int) -> bytes:
    """Return a packed prediction."""
    return Prediction(
        model="web",
        features={"n": n},
        output=bool(n % 2),
        version=n,
        lineage=1,
        step=n,
        user_id=f"u{n % 7}",
        session_id=f"s{n % 5}" if n % 3 else None,
    ).pack()


def fields_of(n: int) -> dict[str | bytes, bytes]:
    """Return the fields of a prediction."""
    return {b"n": f"{n:08x}".encode(), b"r": answer(n)}


async def write(registry: Registry, count: int, *, ms: int = NOON_MS, each_ms: int = 1) -> None:
    """Append predictions under ids of their own."""
    key = registry.keys.predictions
    commands = [
        ("XADD", key, f"{ms + n * each_ms}-0", *(p for pair in fields_of(n).items() for p in pair))
        for n in range(count)
    ]
    await registry.store.many(commands)


async def trim(registry: Registry, before_ms: int) -> None:
    """Trim as if what is older than that had reached the end of the window."""
    clock = lambda: before_ms / 1000 + WINDOW_S + MARGIN_S + 0.0005  # noqa: E731
    retention = Retention(registry.store, "web", window_s=WINDOW_S, archived=True, clock=clock)
    await retention.trim()


@pytest.fixture
async def exact(store: Store) -> Any:
    """Let the server keep one entry a node: trimming is exact."""
    await store.call("CONFIG", "SET", "stream-node-max-entries", "1")
    yield
    await store.call("CONFIG", "SET", "stream-node-max-entries", "100")


# --- the form -------------------------------------------------------------------------------------

names = st.sampled_from([b"n", b"f", b"p", b"r", b"o", b"s", b"c", b"x", b"e", b"q", b"v", b"zz"])
texts = st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace"))
values = st.one_of(texts, st.binary(max_size=20), st.just(answer(1)))
rows = st.lists(st.dictionaries(names, values, max_size=6), max_size=8)


@given(stream=st.sampled_from(STREAMS), found=rows)
def test_every_field_comes_back_byte_for_byte(stream: str, found: list[dict[bytes, bytes]]) -> None:
    """Whatever fields an entry has, known or not, text or not, and be it empty."""
    entries = [(f"{NOON_MS + n}-{n}", fields) for n, fields in enumerate(found)]
    table = encode(stream, entries)
    assert table.schema == FORMS[stream].schema
    assert decode(stream, table) == entries


def test_what_is_searched_for_has_columns_of_its_own() -> None:
    """Users, sessions and versions are read off predictions; kind and source off what was said."""
    row = encode("predictions", [(f"{NOON_MS}-0", fields_of(5))]).to_pylist()[0]
    assert (row["user"], row["session"], row["version"]) == ("u5", "s0", 5)
    assert (row["output"], row["audited"], row["role"]) == ("true", False, "champion")
    assert row["at"].isoformat() == "2023-12-09T12:00:00+00:00"
    signal = Feedback(kind="rating", value=3, source="human:ada", prediction_id="")
    said = {b"n": b"00", b"f": signal.pack(), b"p": b"1-0", b"r": answer(5)}
    row = encode("feedback", [(f"{NOON_MS}-0", said)]).to_pylist()[0]
    assert (row["kind"], row["source"], row["user"]) == ("rating", "human:ada", "u5")


@pytest.mark.parametrize("record", [b"", b"[]", b"{", b"\xff", b'{"user_id": 3, "version": "x"}'])
def test_a_record_that_is_none_of_ours_is_kept_all_the_same(record: bytes) -> None:
    """Nothing can be read off it, and it comes back as it was."""
    entries: list[Entry] = [(f"{NOON_MS}-0", {b"n": b"00", b"r": record})]
    table = encode("predictions", entries)
    assert table.column("user").to_pylist() == [None]
    assert decode("predictions", table) == entries


# --- what is due ----------------------------------------------------------------------------------


async def test_what_waits_is_archived_when_it_is_old_enough(
    registry: Registry, archiver: Archiver, log: Log, clock: Any
) -> None:
    """A quarter of the window, or an hour; before that a few entries are no reason."""
    await write(registry, 10, ms=int(clock() * 1000))
    assert await archiver.turn() == 0
    clock.advance(3599.0)
    assert await archiver.turn() == 0
    clock.advance(2.0)
    assert await archiver.turn() == 10
    assert await archiver.turn() == 0
    assert len(await log.range("predictions")) == 10


@pytest.mark.usefixtures("small")
async def test_many_are_reason_enough(registry: Registry, archiver: Archiver, clock: Any) -> None:
    """Whole files are written as soon as they are full; what is left waits."""
    ms = int(clock() * 1000)
    await write(registry, 60, ms=ms)
    assert await archiver.turn() == 0
    await write(registry, 100, ms=ms + 60)
    assert await archiver.turn() == 140
    await write(registry, 40, ms=ms + 160)
    assert await archiver.turn() == 0
    await write(registry, 10, ms=ms + 200)
    assert await archiver.turn() == 70
    found = await Segments(registry).all("predictions")
    assert [file.rows for file in found] == [70, 70, 70]
    assert [len(file.cuts) for file in found] == [4, 4, 4]


async def test_ids_that_are_older_than_their_entries_make_no_crumbs(
    registry: Registry, archiver: Archiver, clock: Any
) -> None:
    """Evidence carries the ids of predictions, an hour old: it waits all the same."""
    ms, key = int((clock() - 7200) * 1000), registry.keys.evidence
    await archiver.turn()
    for n in range(20):
        await registry.store.call("XADD", key, f"{ms + n}-0", "e", "{}")
        clock.advance(10.0)
        assert await archiver.turn() == 0
    clock.advance(3600.0)
    assert await archiver.turn() == 20


async def test_no_file_goes_over_midnight(
    registry: Registry, archiver: Archiver, place: Place, log: Log
) -> None:
    """Each day has its folder, in UTC."""
    await write(registry, 10, ms=20_000 * DAY_MS - 5)
    assert await archiver.flush() == 10
    found = await Segments(registry).all("predictions")
    assert [file.rows for file in found] == [5, 5]
    assert [file.path.split("/")[2] for file in found] == ["date=2024-10-03", "date=2024-10-04"]
    assert place.files() == [file.path for file in found]
    assert len(await log.range("predictions")) == 10


async def test_after_midnight_yesterday_is_closed(
    registry: Registry, archiver: Archiver, clock: Any
) -> None:
    """What is left of a day goes a minute after it, though there is little of it."""
    clock.now = 30_000 * 86_400 - 30.0
    await archiver.turn()
    await write(registry, 3, ms=int(clock() * 1000))
    assert await archiver.turn() == 0
    clock.advance(45.0)
    assert await archiver.turn() == 0
    clock.advance(45.0)
    assert await archiver.turn() == 3


async def test_every_stream_is_archived_and_other_programs_read_it(
    registry: Registry, archiver: Archiver, place: Place, log: Log, tmp_path: Path
) -> None:
    """What was written under any stream comes back; the folder is a data set for pyarrow."""
    for stream in STREAMS:
        for n in range(3):
            pairs = [part for name in (b"n", b"zz") for part in (name, b"%d" % n)]
            await registry.store.call("XADD", getattr(registry.keys, stream), f"{n + 1}-0", *pairs)
    kept = {stream: await log.range(stream) for stream in STREAMS}
    assert await archiver.flush() == 3 * len(STREAMS)
    for stream in STREAMS:
        await registry.store.call("DEL", getattr(registry.keys, stream))
        assert await log.range(stream) == kept[stream]
        assert await log.last(stream) == "3-0"
        table = parquet.read_table(tmp_path / "archive" / "model=web" / stream)
        assert table.column("id").to_pylist() == ["1-0", "2-0", "3-0"]


# --- archive and store as one ---------------------------------------------------------------------


@pytest.mark.usefixtures("small", "exact")
async def test_any_range_is_as_if_nothing_had_been_trimmed(
    registry: Registry, archiver: Archiver, log: Log
) -> None:
    """Wherever the archive ends, and wherever the store begins, each entry is there once."""
    rng = random.Random(1)
    await write(registry, 300)
    whole = await registry.store.range(registry.keys.predictions)
    await archiver.flush()
    await write(registry, 50, ms=NOON_MS + 300)
    whole = await registry.store.range(registry.keys.predictions)
    for before in (0, 1, 130, 299, 300, 340):
        await trim(registry, NOON_MS + before)
        left = await registry.store.call("XLEN", registry.keys.predictions)
        assert left == 350 - min(before, 300), "only what is on file goes"
        assert await log.range("predictions") == whole
        for _ in range(60):
            a, b = rng.randrange(-2, 355), rng.randrange(-2, 355)
            start = rng.choice(["-", f"{NOON_MS + a}-0", f"({NOON_MS + a}-0", f"{NOON_MS + a}"])
            end = rng.choice(["+", f"{NOON_MS + b}-0", f"({NOON_MS + b}-0", f"{NOON_MS + b}"])
            count = rng.choice([None, 1, 7, 100])
            expected = [entry for entry in whole if _within(entry[0], start, end)][:count]
            assert await log.range("predictions", start, end, count=count) == expected
        places = [("predictions", f"{NOON_MS + n}-0") for n in rng.sample(range(400), 20)]
        known = dict(whole)
        assert await log.entries(places) == [known.get(entry) for _, entry in places]
        paged = [entry async for page in log.pages("predictions", most=33) for entry in page]
        assert paged == whole
        assert await log.begins("predictions") == "0-0"


def _within(entry: str, start: str, end: str) -> bool:
    order = entry_order(entry)
    if start != "-":
        low = entry_order(start.removeprefix("("))
        if order < low or (start.startswith("(") and order == low):
            return False
    if end != "+":
        high = entry_order(end.removeprefix("("))
        if order > high or (end.startswith("(") and order == high):
            return False
    return True


@pytest.mark.usefixtures("small", "exact")
async def test_no_file_is_read_for_what_the_store_has(
    registry: Registry, archiver: Archiver, tmp_path: Path
) -> None:
    """A process that does not reach the archive reads what has not been trimmed all the same."""
    await write(registry, 30)
    await archiver.flush()
    away = Log(registry, Place.open(tmp_path / "elsewhere"))
    assert len(await away.range("predictions")) == 30
    assert len([entry async for page in away.pages("predictions") for entry in page]) == 30
    assert (await away.entries([("predictions", f"{NOON_MS}-0")]))[0] is not None
    await registry.store.call("XTRIM", registry.keys.predictions, "MINID", f"{NOON_MS + 5}-0")
    assert len(await away.range("predictions", f"{NOON_MS + 5}-0")) == 25
    with pytest.raises(DataError, match="on another node's disk"):
        await away.range("predictions")


async def test_readers_see_all_while_it_is_moved(
    registry: Registry, archiver: Archiver, log: Log
) -> None:
    """Writing, archiving, trimming and reading go on at once: no gap, and nothing twice."""
    done = asyncio.Event()

    async def move() -> None:
        for n in range(25):
            await write(registry, 40, ms=NOON_MS + 40 * n)
            await archiver.flush()
            await trim(registry, NOON_MS + 40 * n + 20)
        done.set()

    async def look() -> int:
        looks = 0
        while not done.is_set():
            found = [entry_order(entry)[0] async for entry in _each(log)]
            assert found == list(range(NOON_MS, NOON_MS + len(found)))
            start = NOON_MS + len(found) // 3
            some = await log.range("predictions", f"{start}-0", count=50)
            assert [entry_order(entry)[0] for entry, _ in some] == list(
                range(start, start + len(some))
            )
            looks += 1
        return looks

    _, first, second = await asyncio.gather(move(), look(), look())
    assert min(first, second) > 2
    assert len([entry async for entry in _each(log)]) == 1000


async def _each(log: Log) -> Any:
    async for page in log.pages("predictions", most=64):
        for entry, _ in page:
            yield entry


@pytest.mark.usefixtures("small", "exact")
async def test_parts_hold_the_record_once(
    registry: Registry, archiver: Archiver, log: Log, tmp_path: Path
) -> None:
    """Of archive and store, between any two entries, a bounded number of rows each."""
    await write(registry, 200)
    await archiver.flush()
    await write(registry, 90, ms=NOON_MS + 200)
    whole = await registry.store.range(registry.keys.predictions)
    await trim(registry, NOON_MS + 150)
    rng = random.Random(2)
    for n in range(30):
        low, high = sorted(rng.sample(range(-1, 290), 2))
        scratch = Place.open(tmp_path / f"scratch-{n}")
        after, until = f"{NOON_MS + low}-0", f"{NOON_MS + high}-0"
        parts = await log.parts("predictions", after, until, scratch, most_rows=40)
        assert [e for part in parts for e in entries_of(part)] == whole[low + 1 : high + 1]
        assert all(read_part(part).num_rows <= 40 for part in parts)
    everything = await log.parts("predictions", "0-0", "+", Place.open(tmp_path / "all"))
    assert [e for part in everything for e in entries_of(part)] == whole
    users = pa.concat_tables(read_part(part, ["user"]) for part in everything)
    assert users.column_names == ["user"]
    assert users.num_rows == len(whole)


@pytest.mark.usefixtures("exact")
async def test_without_an_archive_the_store_is_the_record(
    registry: Registry, tmp_path: Path
) -> None:
    """Parts are of it alone, and it begins where it was trimmed."""
    log = Log(registry)
    await write(registry, 30)
    assert await log.begins("predictions") == "0-0"
    clock = lambda: (NOON_MS + 10) / 1000 + WINDOW_S + MARGIN_S + 0.0005  # noqa: E731
    await Retention(registry.store, "web", window_s=WINDOW_S, clock=clock).trim()
    assert await log.begins("predictions") == f"{NOON_MS + 10}-0"
    parts = await log.parts("predictions", "0-0", "+", Place.open(tmp_path))
    assert [e for part in parts for e in entries_of(part)] == await log.range("predictions")
    assert len(await log.range("predictions")) == 20


@pytest.mark.usefixtures("exact")
async def test_a_record_that_was_trimmed_first_begins_there(
    registry: Registry, archiver: Archiver, log: Log
) -> None:
    """What went before there was an archive is missing, and that is told; so is a later gap."""
    await write(registry, 30)
    clock = lambda: (NOON_MS + 10) / 1000 + WINDOW_S + MARGIN_S + 0.0005  # noqa: E731
    off = Retention(registry.store, "web", window_s=WINDOW_S, clock=clock)
    await off.trim()
    assert await log.begins("predictions") == f"{NOON_MS + 10}-0"
    await archiver.flush()
    assert await log.begins("predictions") == f"{NOON_MS + 10}-0"
    assert await log.begins("verdicts") == "0-0"
    await trim(registry, NOON_MS + 20)
    assert await log.begins("predictions") == f"{NOON_MS + 10}-0"
    assert len(await log.range("predictions")) == 20
    await write(registry, 30, ms=NOON_MS + 30)
    later = lambda: (NOON_MS + 50) / 1000 + WINDOW_S + MARGIN_S + 0.0005  # noqa: E731
    await Retention(registry.store, "web", window_s=WINDOW_S, clock=later).trim()
    assert await log.begins("predictions") == f"{NOON_MS + 50}-0", "it was switched off meanwhile"


@pytest.mark.usefixtures("exact")
async def test_a_record_that_is_on_file_stays_whole_without_an_archiver(
    registry: Registry, archiver: Archiver, log: Log
) -> None:
    """Where it is switched off, what is there may go; what goes of the rest is missing."""
    await write(registry, 100)
    await archiver.flush()
    await write(registry, 50, ms=NOON_MS + 100)
    whole = await log.range("predictions")

    async def trim_alone(before_ms: int) -> None:
        clock = lambda: before_ms / 1000 + WINDOW_S + MARGIN_S + 0.0005  # noqa: E731
        assert await Retention(registry.store, "web", window_s=WINDOW_S, clock=clock).trim() > 0

    await trim_alone(NOON_MS + 90)
    assert await log.begins("predictions") == "0-0"
    await trim_alone(NOON_MS + 100)
    assert await log.begins("predictions") == "0-0"
    assert await log.range("predictions") == whole
    await trim_alone(NOON_MS + 101)
    assert await log.begins("predictions") == f"{NOON_MS + 101}-0"
    await archiver.flush()  # switched on again
    await trim(registry, NOON_MS + 1000)
    assert await log.range("predictions") == [*whole[:100], *whole[101:]]


# --- one writer, once -----------------------------------------------------------------------------


async def test_what_dies_before_it_is_listed_is_written_again(
    *,
    registry: Registry,
    place: Place,
    archiver: Archiver,
    log: Log,
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file that nobody lists is not read, and goes when the next archiver starts."""
    await write(registry, 20)
    run = registry.store.run

    async def die(script: str, keys: Any, arguments: Any) -> Any:
        if script == "archive" and arguments[0] == "commit":
            raise KeyboardInterrupt
        return await run(script, keys, arguments)

    monkeypatch.setattr(registry.store, "run", die)
    with pytest.raises(KeyboardInterrupt):
        await archiver.flush()
    monkeypatch.undo()
    [orphan] = place.files()
    await registry.store.call("XADD", registry.keys.predictions, f"{NOON_MS + 99}-0", "n", "00")
    assert len(await log.range("predictions")) == 21
    successor = Archiver(registry, place, window_s=WINDOW_S, clock=clock)
    assert await successor.flush() == 21
    assert orphan not in place.files()
    [file] = await Segments(registry).all("predictions")
    assert (file.rows, place.files()) == (21, [file.path])


async def test_files_stay_where_the_store_lost_its_list(
    registry: Registry, place: Place, archiver: Archiver, store: Store, clock: Any
) -> None:
    """They may be all that is left: a new store beside an old archive removes nothing of it."""
    await write(registry, 20)
    await archiver.flush()
    kept = place.files()
    await store.call("FLUSHALL")
    await write(registry, 20, ms=NOON_MS + 1000)
    await Archiver(registry, place, window_s=WINDOW_S, clock=clock).flush()
    assert await sweep(registry, place) == []
    assert set(kept) < set(place.files())


async def test_what_was_half_written_goes(
    registry: Registry, place: Place, archiver: Archiver
) -> None:
    """A writer that was killed leaves a file that no listing shows; after a while it is removed."""
    await write(registry, 5)
    await archiver.flush()
    [name] = place.files()
    assert place.local is not None
    left = (place.local / name).with_name(".partial-0123")
    left.write_bytes(b"half")
    assert await sweep(registry, place) == []
    assert place.files() == [name]
    os.utime(left, (0, 0))
    assert len(await sweep(registry, place)) == 1
    assert not left.exists()
    assert place.files() == [name]


async def test_only_the_newest_archiver_writes(
    registry: Registry, place: Place, archiver: Archiver, log: Log, clock: Any
) -> None:
    """The one before it is fenced; both together archive every entry once."""
    await write(registry, 10)
    await archiver.flush()
    other = Archiver(registry, place, window_s=WINDOW_S, clock=clock)
    await write(registry, 10, ms=NOON_MS + 10)
    assert await other.turn() == 10
    await write(registry, 10, ms=NOON_MS + 20)
    with pytest.raises(Fenced):
        await archiver.flush()
    assert await other.flush() == 10
    assert len(await log.range("predictions")) == 30
    assert len(await Segments(registry).all("predictions")) == 3


@pytest.mark.usefixtures("small")
async def test_two_at_once_archive_each_entry_once(
    registry: Registry, place: Place, log: Log, clock: Any
) -> None:
    """They take the fence from each other all the time."""
    stopped = False

    async def work() -> None:
        one = Archiver(registry, place, window_s=WINDOW_S, clock=clock)
        while not stopped:
            try:
                await one.flush()
            except Fenced:
                await asyncio.sleep(random.random() / 100)

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(work())
        for n in range(20):
            await write(registry, 25, ms=NOON_MS + 25 * n)
            await asyncio.sleep(0.01)
        stopped = True
    await Archiver(registry, place, window_s=WINDOW_S, clock=clock).flush()
    await registry.store.call("DEL", registry.keys.predictions)
    found = await log.range("predictions")
    assert [entry_order(entry)[0] for entry, _ in found] == list(range(NOON_MS, NOON_MS + 500))


async def test_what_was_read_before_a_stream_was_rebuilt_is_read_again(
    registry: Registry, place: Place, archiver: Archiver, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is erased while a file of it is written is in no file."""
    await write(registry, 5)
    finish, keys = files_module.SegmentWriter.finish, registry.keys
    loop = asyncio.get_running_loop()

    async def erase() -> None:
        await registry.store.call("DEL", keys.predictions)
        await registry.store.call("XADD", keys.predictions, f"{NOON_MS}-0", "x", "1")
        await registry.store.call("HINCRBY", keys.archive, "era", 1)

    def finish_late(writer: Any, *arguments: Any) -> Any:
        monkeypatch.undo()
        written = finish(writer, *arguments)
        asyncio.run_coroutine_threadsafe(erase(), loop).result()
        return written

    monkeypatch.setattr(files_module.SegmentWriter, "finish", finish_late)
    assert await archiver.flush() == 1
    assert len(place.files()) == 1
    await registry.store.call("DEL", keys.predictions)
    assert await log.range("predictions") == [(f"{NOON_MS}-0", {b"x": b"1"})]


async def test_a_file_is_replaced_as_a_whole(
    registry: Registry, place: Place, archiver: Archiver, log: Log
) -> None:
    """The same stretch with other contents; the old file is gone, and readers follow."""
    await write(registry, 20)
    await archiver.flush()
    await registry.store.call("DEL", registry.keys.predictions)
    before = await log.range("predictions")
    [file] = await Segments(registry).all("predictions")
    changed = [(entry, {b"x": b"1"} if n == 3 else f) for n, (entry, f) in enumerate(before)]
    written = await replace(registry, place, file, changed)
    assert place.files() == [written.path]
    assert (written.after, written.last, written.rows) == (file.after, file.last, 20)
    assert await log.range("predictions") == changed
    with pytest.raises(Conflict):
        await replace(registry, place, file, before)
    again = await replace(registry, place, written, changed[:-1])
    assert len({file.path, written.path, again.path}) == 3, "no name is used twice"
    assert place.files() == [again.path]
    assert await log.range("predictions") == changed[:-1]


def when_written(
    monkeypatch: pytest.MonkeyPatch, then: Callable[[], Coroutine[Any, Any, object]]
) -> None:
    """Do something else when the next file has been written, and before it is listed."""
    finish, loop = files_module.SegmentWriter.finish, asyncio.get_running_loop()

    def finish_first(writer: Any, *arguments: Any) -> Any:
        monkeypatch.undo()
        written = finish(writer, *arguments)
        asyncio.run_coroutine_threadsafe(then(), loop).result()
        return written

    monkeypatch.setattr(files_module.SegmentWriter, "finish", finish_first)


async def test_a_writer_that_comes_too_late_writes_over_nothing(
    *,
    registry: Registry,
    place: Place,
    archiver: Archiver,
    log: Log,
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It stood still before it wrote; meanwhile another has listed the same stretch, as it is."""
    await write(registry, 20)
    finish, loop = files_module.SegmentWriter.finish, asyncio.get_running_loop()
    erased = [(f"{NOON_MS + n}-0", {b"x": b"1"}) for n in range(20)]

    async def overtake() -> None:
        key = registry.keys.predictions
        await registry.store.call("DEL", key)
        await registry.store.many([("XADD", key, entry, "x", "1") for entry, _ in erased])
        await registry.store.call("HINCRBY", registry.keys.archive, "era", 1)
        assert await Archiver(registry, place, window_s=WINDOW_S, clock=clock).flush() == 20

    def finish_late(writer: Any, *arguments: Any) -> Any:
        monkeypatch.undo()
        asyncio.run_coroutine_threadsafe(overtake(), loop).result()
        return finish(writer, *arguments)

    monkeypatch.setattr(files_module.SegmentWriter, "finish", finish_late)
    with pytest.raises(Fenced):
        await archiver.flush()
    await registry.store.call("DEL", registry.keys.predictions)
    assert await log.range("predictions") == erased
    assert await Log(registry, place).range("predictions") == erased
    assert len(await sweep(registry, place)) == 1, "what it wrote is in no list"
    assert await Log(registry, place).range("predictions") == erased


async def test_no_file_is_swept_that_is_about_to_be_listed(
    registry: Registry, place: Place, archiver: Archiver, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sweeps may not know who writes: an archiver, or an erasure."""
    await write(registry, 20)
    entries = await log.range("predictions")
    when_written(monkeypatch, lambda: sweep(registry, place))
    assert await archiver.flush() == 20
    await registry.store.call("DEL", registry.keys.predictions)
    assert await log.range("predictions") == entries
    [file] = await Segments(registry).all("predictions")
    when_written(monkeypatch, lambda: sweep(registry, place))
    written = await replace(registry, place, file, entries[1:])
    assert place.files() == [written.path]
    assert await Log(registry, place).range("predictions") == entries[1:]


async def test_a_sweep_that_fails_is_no_reason_to_stop(
    registry: Registry, place: Place, archiver: Archiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Files that nobody lists are no trouble of what is archived."""
    await write(registry, 5)
    await archiver.flush()
    [name] = place.files()
    assert place.local is not None
    (place.local / name).with_name(f"0-0_{NOON_MS}-0-00000000.parquet").write_bytes(b"left")
    [field] = await registry.store.call("HKEYS", registry.keys.segments)
    await registry.store.call("HSET", registry.keys.segments, field, "{}")
    await write(registry, 5, ms=NOON_MS + 10)
    successor = Archiver(registry, place, window_s=WINDOW_S, clock=archiver._clock)
    assert await successor.flush() == 5
    assert "that nobody lists stay" in caplog.text


async def test_a_reader_goes_on_however_often_files_are_replaced(
    registry: Registry, place: Place, archiver: Archiver, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erasure writes file after file anew, just ahead of who reads them."""
    await write(registry, 20)
    await archiver.flush()
    entries = await log.range("predictions")
    await registry.store.call("DEL", registry.keys.predictions)
    loop, read, left = asyncio.get_running_loop(), log_module.read, 5

    async def replace_all() -> None:
        for file in await Segments(registry).all("predictions"):
            await replace(registry, place, file, entries)

    def read_late(*arguments: Any) -> Any:
        nonlocal left
        if left:
            left -= 1
            asyncio.run_coroutine_threadsafe(replace_all(), loop).result()
        return read(*arguments)

    monkeypatch.setattr(log_module, "read", read_late)
    assert await Log(registry, place).range("predictions") == entries
    assert left == 0


async def test_what_is_long_fills_a_file_sooner(
    registry: Registry, place: Place, archiver: Archiver, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, their row groups, and parts of what only the store has, are bounded in bytes."""
    each = len(b"".join(fields_of(1).values()))
    monkeypatch.setattr(archiver_module, "MOST_BYTES", 40 * each)
    monkeypatch.setattr(log_module, "MOST_BYTES", 40 * each)
    monkeypatch.setattr(files_module, "GROUP_BYTES", 10 * each)
    await write(registry, 200)
    entries = await log.range("predictions")
    parts = await log.parts("predictions", "0-0", "+", place.at("scratch"))
    assert [e for part in parts for e in entries_of(part)] == entries
    assert max(part.segment.rows for part in parts) < 60
    await archiver.flush()
    files = await Segments(registry).all("predictions")
    assert sum(file.rows for file in files) == 200
    assert max(file.rows for file in files) < 60
    assert all(len(file.cuts) >= file.rows / 15 for file in files)
    await registry.store.call("DEL", registry.keys.predictions)
    assert await log.range("predictions") == entries


def test_a_url_may_have_options() -> None:
    """They stay behind the path, so that other processes come to the same folder."""
    place = Place.open("s3://bucket/log?region=eu-west-1").at("archive", "model=web")
    assert place.url == "s3://bucket/log/archive/model=web?region=eu-west-1"
    assert Place.open(place.url).path("x") == place.path("x") == "bucket/log/archive/model=web/x"
    assert place.name == "model=web"


async def test_an_object_store_will_do(registry: Registry, clock: Any) -> None:
    """A filesystem without folders, links or renames holds the archive as well."""
    memory = fsspec.filesystem("memory")
    place = Place("memory://archive", fs.PyFileSystem(fs.FSSpecHandler(memory)), "/archive")
    archiver = Archiver(registry, place, window_s=WINDOW_S, clock=clock)
    await write(registry, 20)
    whole = await registry.store.range(registry.keys.predictions)
    assert await archiver.flush() == 20
    await registry.store.call("DEL", registry.keys.predictions)
    log = Log(registry, place)
    assert await log.range("predictions") == whole
    [file] = await Segments(registry).all("predictions")
    written = await replace(registry, place, file, whole[:10])
    assert place.files() == [written.path]
    assert await log.range("predictions") == whole[:10]
    memory.pipe(f"/archive/{written.path}", b"damaged" * (written.size // 7 + 1))
    with pytest.raises(DataError, match="cut short or changed"):
        await Log(registry, place).range("predictions")
    memory.rm("/archive", recursive=True)


# --- damage ---------------------------------------------------------------------------------------


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.fixture(params=["warm", "cold"])
def warm(request: pytest.FixtureRequest) -> bool:
    """Tell whether the file has been read before."""
    return bool(request.param == "warm")


@pytest.mark.parametrize(
    ("harm", "code", "words"),
    [
        (_cut, "damaged", "cut short or changed"),
        (_flip, "damaged", "a byte of it was changed"),
        (Path.unlink, "missing", "put it back from a backup"),
    ],
)
async def test_damage_is_told(
    *,
    registry: Registry,
    place: Place,
    archiver: Archiver,
    log: Log,
    harm: Callable[[Path], None],
    code: str,
    words: str,
    warm: bool,
) -> None:
    """A file that is not what was written is named, with what to do; nothing of it is returned."""
    await write(registry, 20)
    await archiver.flush()
    await registry.store.call("DEL", registry.keys.predictions)
    if warm:
        assert len(await log.range("predictions")) == 20
    [name] = place.files()
    assert place.local is not None
    harm(place.local / name)
    with pytest.raises(DataError, match=words) as told:
        await Log(registry, place).range("predictions")
    assert told.value.code == code
    assert name in str(told.value)


async def test_a_list_that_was_changed_is_told(
    registry: Registry, place: Place, archiver: Archiver, keyring: Keyring
) -> None:
    """A changed word, another's place, a missing file in the list, another secret."""
    await write(registry, 20)
    await archiver.flush()
    await write(registry, 20, ms=NOON_MS + 20)
    await archiver.flush()
    store, keys = registry.store, registry.keys
    await store.call("DEL", keys.predictions)
    listed = await store.hash(keys.segments)
    first, second = sorted(listed)

    async def told(match: str, of: Registry = registry) -> None:
        with pytest.raises(DataError, match=match):
            await Log(of, place).range("predictions")

    await store.call("HSET", keys.segments, first, listed[first].replace(b"rows", b"sows"))
    await told("no valid seal")
    await store.call("HSET", keys.segments, first, listed[second])
    await told("in the place of")
    await store.call("HDEL", keys.segments, first)
    await told("lists no file")
    await store.call("HSET", keys.segments, first, listed[first])
    await store.call("HDEL", keys.segments, second)
    await told("lists no file")
    await store.call("HSET", keys.segments, second, listed[second])
    assert len(await Log(registry, place).range("predictions")) == 40
    await told("another secret", Registry(store, Keyring({1: bytes(32)}), "web"))


async def test_another_form_is_told(
    registry: Registry, place: Place, archiver: Archiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another release wrote is not guessed at."""
    await write(registry, 3)
    monkeypatch.setattr(files_module, "VERSION", 2)
    await archiver.flush()
    monkeypatch.undo()
    await registry.store.call("DEL", registry.keys.predictions)
    with pytest.raises(DataError, match="is of form 2") as told:
        await Log(registry, place).range("predictions")
    assert told.value.code == "other_form"


@pytest.mark.usefixtures("exact")
async def test_a_full_disk_loses_nothing(
    *,
    registry: Registry,
    place: Place,
    archiver: Archiver,
    log: Log,
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is said once; nothing is trimmed meanwhile, and once there is room it goes on."""
    await write(registry, 20, ms=int((clock() - 4 * WINDOW_S) * 1000))

    def full(name: str) -> None:
        raise DataError(f"{name}: the disk is full: make room, and try again", code="no_space")

    monkeypatch.setattr(Place, "write", lambda _, name, __: full(name))
    for _ in range(5):
        assert await archiver.turn_when_due() == 0
        clock.advance(100.0)
    assert "the disk is full" in archiver.trouble
    assert len([r for r in caplog.records if "nothing of 'web' is archived" in r.message]) == 1
    retention = Retention(registry.store, "web", window_s=WINDOW_S, archived=True, clock=clock)
    assert await retention.trim() == 0
    monkeypatch.undo()
    assert await archiver.turn_when_due() == 20
    assert archiver.trouble == ""
    assert await retention.trim() == 20
    assert len(await log.range("predictions")) == 20
