"""The store's contract: on the bundled server by socket and TCP, and on Redis if there is one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError

from online_learner.errors import ConfigError, Unavailable
from online_learner.store import SCRIPTS, Store, open_store
from online_learner.store.embedded import EmbeddedServer
from online_learner.store.keys import Keys, said_field

KEYS = Keys("web")
JOURNAL = [KEYS.predictions, KEYS.audits, KEYS.feedback, KEYS.served, KEYS.asked]

COMMIT = [
    KEYS.fence("learner"),
    KEYS.steps,
    KEYS.quarantine,
    KEYS.checkpoint("learner"),
    KEYS.aliases,
    KEYS.resets,
    KEYS.before,
]
STEP = {"fence": "1", "lineage": 1, "steps": [{"id": "1-1", "record": "{}"}], "quarantine": []}
DECIDE = [
    KEYS.fence("gatekeeper"),
    KEYS.checkpoint("gatekeeper"),
    KEYS.evidence,
    KEYS.verdicts,
    KEYS.aliases,
    KEYS.feedback,
    KEYS.pinned,
    KEYS.checkpoint("learner"),
]
TRIM = [
    KEYS.checkpoint("learner"),
    KEYS.checkpoint("gatekeeper"),
    KEYS.released,
    KEYS.trimmed,
    KEYS.predictions,
    KEYS.audits,
    KEYS.feedback,
    KEYS.steps,
    KEYS.quarantine,
    KEYS.served,
    KEYS.evidence,
    KEYS.before,
    KEYS.asked,
    KEYS.late,
    KEYS.archive,
]


REDIS = shutil.which("redis-server")


@pytest.fixture(scope="module", params=["socket", "tcp"] + ["redis"] * (REDIS is not None))
def backend(
    request: pytest.FixtureRequest, server: EmbeddedServer, start_server: Callable[..., Any]
) -> str:
    """Return the URL of one of the servers that the package promises to work with."""
    if request.param == "socket":
        return server.url
    return start_server(REDIS if request.param == "redis" else "").url


@pytest.fixture
async def store(backend: str) -> AsyncIterator[Store]:
    """Return an open store on an empty server."""
    async with await open_store(backend) as opened:
        await opened.call("FLUSHALL")
        yield opened


@contextlib.asynccontextmanager
async def changed(store: Store, setting: str, value: str) -> AsyncIterator[None]:
    """Run with another setting of the server, which other tests use, too."""
    before = (await store.call("CONFIG", "GET", setting))[1]
    await store.call("CONFIG", "SET", setting, value)
    try:
        yield
    finally:
        await store.call("CONFIG", "SET", setting, before)


async def journal(store: Store, *records: str) -> list[str]:
    """Append records with the journal's script; returns their entry ids."""
    args = [part for record in records for part in ("00000000", record, "", "", "", "", 0)]
    args = [3600, *args]
    return [entry.decode() for entry in await store.run("journal", JOURNAL, args)]


def one(record: str) -> tuple[list[str], list[str | int]]:
    """Return one call of the journal's script."""
    return JOURNAL, [3600, "00000000", record, "", "", "", "", 0]


async def records(store: Store) -> list[str]:
    """Return what the journal's script has appended."""
    return [fields[b"r"].decode() for _, fields in await store.range(KEYS.predictions)]


class TestContract:
    """What every server has to do for us."""

    async def test_a_script_runs_and_returns_what_it_did(self, store: Store) -> None:
        """Entries are appended in order, and their ids come back in that order."""
        ids = await journal(store, "a", "b", "c")
        assert await records(store) == ["a", "b", "c"]
        assert [entry for entry, _ in await store.range(KEYS.predictions)] == ids

    async def test_a_script_is_loaded_again_after_the_server_forgot_it(self, store: Store) -> None:
        """SCRIPT FLUSH, or a restart, is not noticed by callers."""
        await journal(store, "a")
        await store.call("SCRIPT", "FLUSH")
        await journal(store, "b")
        assert await records(store) == ["a", "b"]

    @pytest.mark.parametrize("name", SCRIPTS)
    async def test_every_script_compiles(self, store: Store, name: str) -> None:
        """Each of the package's scripts is accepted by the server."""
        source = store._scripts[name].script
        sha = await store.call("SCRIPT", "LOAD", source)
        assert sha.decode() == store._scripts[name].sha

    async def test_a_key_of_another_type_stops_a_script_before_it_writes(
        self, store: Store
    ) -> None:
        """Lua does not roll back, so types are checked first: nothing is half done."""
        await store.call("SET", KEYS.audits, "mine")
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await journal(store, "a")
        assert await records(store) == []

    async def test_many_calls_answer_in_their_order(self, store: Store) -> None:
        """Replies of one round trip stand where their calls stood."""
        replies = await store.run_many("journal", [one(str(n)) for n in range(100)])
        entries = await store.range(KEYS.predictions)
        assert [[entry.encode()] for entry, _ in entries] == replies
        assert await records(store) == [str(n) for n in range(100)]

    async def test_no_calls_are_no_trouble(self, store: Store) -> None:
        """An empty list of calls has an empty list of replies."""
        assert await store.run_many("journal", []) == []

    async def test_one_failing_call_does_not_take_others_with_it(self, store: Store) -> None:
        """Its error stands in its place; the calls before and after it took place."""
        await store.call("SET", "text", "mine")
        calls = [one("a"), ([KEYS.predictions, "text"], ["00000000", "b", ""]), one("c")]
        replies = await store.run_many("journal", calls)
        assert [isinstance(reply, ResponseError) for reply in replies] == [False, True, False]
        assert await records(store) == ["a", "c"]

    async def test_many_calls_survive_a_forgetful_server(self, store: Store) -> None:
        """After SCRIPT FLUSH all of them run, once each."""
        await store.run_many("journal", [one("a")])
        await store.call("SCRIPT", "FLUSH")
        replies = await store.run_many("journal", [one(str(n)) for n in range(50)])
        assert not [reply for reply in replies if isinstance(reply, Exception)]
        assert await records(store) == ["a"] + [str(n) for n in range(50)]

    async def test_each_call_runs_once_however_often_scripts_are_forgotten(
        self, store: Store, backend: str
    ) -> None:
        """Flushing scripts all the time loses no call and repeats none."""
        async with await open_store(backend) as other:

            async def flush() -> None:
                for _ in range(60):
                    await other.call("SCRIPT", "FLUSH")

            async def work(worker: int) -> list[Any]:
                calls = [one(f"{worker}.{n}") for n in range(100)]
                return await store.run_many("journal", calls)

            *replies, _ = await asyncio.gather(*(work(n) for n in range(10)), flush())
        assert not [r for group in replies for r in group if isinstance(r, Exception)]
        found = await records(store)
        assert len(found) == 1000
        assert len(set(found)) == 1000

    async def test_concurrent_callers_share_a_store(self, store: Store) -> None:
        """Two hundred tasks at once get each its own answer."""
        replies = await asyncio.gather(*(store.call("ECHO", str(n)) for n in range(200)))
        assert replies == [str(n).encode() for n in range(200)]

    # --- streams ------------------------------------------------------------------------------

    async def test_reading_starts_after_the_offset(self, store: Store) -> None:
        """Only newer entries come, oldest first, at most `count`."""
        ids = await journal(store, *"abcde")
        found = await store.read({KEYS.predictions: ids[1]}, count=2)
        assert [entry for entry, _ in found[KEYS.predictions]] == ids[2:4]
        assert found[KEYS.predictions][0][1] == {b"n": b"00000000", b"r": b"c"}

    @pytest.mark.parametrize("block_ms", [None, 1])
    async def test_reading_nothing_is_an_empty_answer(
        self, store: Store, block_ms: int | None
    ) -> None:
        """Neither a stream that is not there nor one without news is an error."""
        assert await store.read({"nowhere": "0-0"}, count=1, block_ms=block_ms) == {}
        [last] = await journal(store, "a")
        assert await store.read({KEYS.predictions: last}, count=1, block_ms=block_ms) == {}

    async def test_several_streams_are_read_at_once(self, store: Store) -> None:
        """Each stream that has news is in the answer under its own name."""
        for name in ("one", "two", "three"):
            await store.call("XADD", name, "1-1", "name", name)
        found = await store.read({"one": "0-0", "two": "0-0", "three": "1-1"}, count=10)
        assert {name: fields for name, [(_, fields)] in found.items()} == {
            "one": {b"name": b"one"},
            "two": {b"name": b"two"},
        }

    async def test_a_blocked_reader_wakes_up(self, store: Store, backend: str) -> None:
        """A reader that waits gets what is appended, and keeps nobody else waiting."""
        waiting = asyncio.create_task(
            store.read({KEYS.predictions: "0-0"}, count=10, block_ms=10_000)
        )
        async with await open_store(backend) as other:
            started = time.monotonic()
            [entry] = await journal(other, "a")
            found = await waiting
        assert [read for read, _ in found[KEYS.predictions]] == [entry]
        assert time.monotonic() - started < 5

    async def test_a_range_includes_its_ends(self, store: Store) -> None:
        """Both ends are in, `(` leaves one out, and a count cuts it."""
        ids = await journal(store, *"abcd")

        async def found(*ends: str, **options: Any) -> list[str]:
            return [entry for entry, _ in await store.range(KEYS.predictions, *ends, **options)]

        assert await found() == ids
        assert await found(ids[1], ids[2]) == ids[1:3]
        assert await found(f"({ids[1]}") == ids[2:]
        assert await found(count=1) == ids[:1]
        assert await store.range("nowhere") == []

    async def test_the_latest_entries_come_newest_first(self, store: Store) -> None:
        """As many as asked for, or as there are."""
        ids = await journal(store, *"abc")
        assert [entry for entry, _ in await store.latest(KEYS.predictions)] == ids[-1:]
        assert [entry for entry, _ in await store.latest(KEYS.predictions, 9)] == ids[::-1]
        assert await store.latest("nowhere") == []

    @pytest.mark.parametrize(("most", "page"), [(0, 2), (3, 2), (4, 2), (5, 2), (9, 2), (9, 5)])
    async def test_a_stream_is_read_backwards_by_pages(
        self, store: Store, most: int, page: int
    ) -> None:
        """The newest come, as many as are asked for, each once, whatever the page."""
        for number in range(5):
            await store.call("XADD", "s", f"{number + 1}-0", "n", number)
        found = [e async for e, _ in store.backwards("s", most, page=page)]
        assert found == [f"{n}-0" for n in (5, 4, 3, 2, 1)][:most]

    # --- hashes and messages ------------------------------------------------------------------

    async def test_blobs_come_back_byte_for_byte(self, store: Store) -> None:
        """Weights of a megabyte with every byte value survive."""
        blob = bytes(range(256)) * 4096
        await store.call("HSET", "version", "blob", blob, "meta", "ü")
        assert await store.hash("version") == {b"blob": blob, b"meta": "ü".encode()}
        assert await store.hash("nowhere") == {}

    async def test_a_message_reaches_who_listens(
        self, store: Store, eventually: Callable[..., Awaitable[None]]
    ) -> None:
        """Messages of the channel arrive in order; those of others do not."""
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def listen() -> None:
            async for message in store.listen(KEYS.swap):
                await heard.put(message)

        async def heard_by() -> bool:
            return bool((await store.call("PUBSUB", "NUMSUB", KEYS.swap))[1] == 1)

        task = asyncio.create_task(listen())
        await eventually(heard_by)
        await store.call("PUBLISH", "elsewhere", "no")
        await store.call("PUBLISH", KEYS.swap, "weights")
        await store.call("PUBLISH", KEYS.swap, "aliases")
        assert [await heard.get(), await heard.get()] == [b"weights", b"aliases"]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    # --- fences -------------------------------------------------------------------------------

    async def test_a_model_is_founded_once(self, store: Store) -> None:
        """Of fifty founders at once one succeeds, and its aliases stand."""
        keys = [KEYS.aliases, KEYS.version(1)]

        def args(n: int) -> list[str]:
            return ["1", f"meta{n}", "sha", "mac", "blob", f"doc{n}", "mac", "1"]

        replies = await asyncio.gather(*(store.run("found", keys, args(n)) for n in range(50)))
        assert sorted(replies) == [0] * 49 + [1]
        winner = replies.index(1)
        assert (await store.hash(KEYS.aliases))[b"doc"] == f"doc{winner}".encode()
        assert (await store.hash(KEYS.version(1)))[b"meta"] == f"meta{winner}".encode()

    @pytest.mark.parametrize("fence", ["1", "3", ""])
    async def test_only_the_newest_writer_commits_a_step(self, store: Store, fence: str) -> None:
        """A learner whose fence is not the newest writes nothing at all."""
        await store.call("SET", KEYS.fence("learner"), "2")
        head = {
            "fence": fence,
            "steps": [{"id": "1-1", "record": "{}"}],
            "quarantine": [{"entry": "1-1", "record": "{}"}],
            "checkpoint": {"meta": "m", "sha": "s", "mac": "c"},
        }
        assert await store.run("commit_step", COMMIT, [json.dumps(head), b"blob"]) == b"fenced"
        assert await store.call("DBSIZE") == 1
        head["fence"] = "2"
        assert await store.run("commit_step", COMMIT, [json.dumps(head), b"blob"]) == b"ok"
        assert await store.call("DBSIZE") == 4
        assert (await store.hash(KEYS.checkpoint("learner")))[b"blob"] == b"blob"

    @pytest.mark.parametrize(
        ("change", "reply"),
        [({"fence": "1"}, b"fenced"), ({"epoch": "4"}, b"conflict"), ({"epoch": "6"}, b"conflict")],
    )
    async def test_a_decision_on_old_aliases_is_refused(
        self, store: Store, change: dict[str, str], reply: bytes
    ) -> None:
        """Who has been replaced, or has read aliases that moved since, writes nothing at all."""
        await store.call("SET", KEYS.fence("gatekeeper"), "2")
        await store.call("HSET", KEYS.aliases, "epoch", "5", "doc", "before")
        head = {
            "fence": "2",
            "epoch": "5",
            "aliases": {"doc": "after", "mac": "c", "epoch": "6"},
            "verdicts": ["{}"],
            "evidence": [["1-1", "{}"]],
            "control": "{}",
            "state": {"meta": "m", "sha": "s", "mac": "c"},
        }
        assert await store.run("decide", DECIDE, [json.dumps(head | change)]) == reply
        assert (await store.hash(KEYS.aliases))[b"doc"] == b"before"
        assert await store.call("DBSIZE") == 2
        assert await store.run("decide", DECIDE, [json.dumps(head)]) == b"ok"
        assert (await store.hash(KEYS.aliases))[b"doc"] == b"after"
        assert await store.call("DBSIZE") == 6

    # --- a full server ------------------------------------------------------------------------

    async def test_what_makes_room_again_is_possible_when_the_server_is_full(
        self, store: Store
    ) -> None:
        """At its limit it takes no answers and no signals, but commits, decisions and trimming."""
        [entry] = await journal(store, "a")
        async with changed(store, "maxmemory", "1"):
            with pytest.raises(Unavailable, match="refuses writes"):
                await journal(store, "b")
            with pytest.raises(Unavailable, match="refuses writes"):
                await store.call("INCR", KEYS.fence("learner"))
            assert await store.essential("INCR", KEYS.fence("learner")) == 1
            assert await store.essential("SET", "beat", "b", "EX", 5) == b"OK"
            assert await store.run("commit_step", COMMIT, [json.dumps(STEP), b"blob"]) == b"ok"
            assert await store.run("decide", DECIDE, ['{"verdicts": ["{}"]}']) == b"ok"
            assert await store.run("trim", TRIM, [f"{entry}", "0-0", 10, f"{entry}", 0]) == 0
        assert len(await store.range(KEYS.steps)) == len(await store.range(KEYS.verdicts)) == 1

    # --- refusals -----------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("setting", "refusing"), [("maxmemory", "1"), ("min-replicas-to-write", "1")]
    )
    async def test_a_server_that_takes_no_writes_is_unavailable(
        self, store: Store, setting: str, refusing: str
    ) -> None:
        """Full memory and missing replicas are 503, and pass without a restart of ours."""
        async with changed(store, setting, refusing):
            with pytest.raises(Unavailable, match="refuses writes"):
                await journal(store, "a")
            with pytest.raises(Unavailable, match="refuses writes"):
                await store.call("SET", "a", "b")
        await journal(store, "b")
        assert await records(store) == ["b"]

    async def test_a_replica_is_unavailable(self, store: Store) -> None:
        """A server that became a replica takes no writes of ours."""
        await store.call("REPLICAOF", "127.0.0.1", "1")
        try:
            with pytest.raises(Unavailable, match="refuses writes"):
                await journal(store, "a")
        finally:
            await store.call("REPLICAOF", "NO", "ONE")
        await journal(store, "b")
        assert await records(store) == ["b"]


# --- eviction ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy", ["allkeys-lru", "volatile-lru", "allkeys-random", "volatile-ttl", "allkeys-lfu"]
)
async def test_a_server_that_evicts_is_refused(
    start_server: Callable[..., Any], evicting: Store, policy: str
) -> None:
    """It would silently drop what was acknowledged; the message has the cure."""
    await evicting.call("CONFIG", "SET", "maxmemory-policy", policy)
    with pytest.raises(ConfigError, match=f"{policy}.*CONFIG SET maxmemory-policy noeviction"):
        await open_store(evicting.url)
    await evicting.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    async with await open_store(evicting.url) as store:
        assert await store.call("PING")


@pytest.fixture
async def evicting(start_server: Callable[..., Any]) -> AsyncIterator[Store]:
    """Return a store on a server whose configuration a test may ruin."""
    async with await open_store(start_server().url) as store:
        yield store


# --- a store that is away ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["redis", "http://localhost", "postgres://x", "", "localhost:6379", "redis:/x", "AUTO"]
)
async def test_a_url_of_another_kind_is_refused(url: str) -> None:
    """The message names the forms that are taken."""
    with pytest.raises(ConfigError, match="none of auto, redis://"):
        await open_store(url)


async def test_a_url_that_cannot_be_read_is_refused() -> None:
    """A port that is no number is an error of the configuration."""
    with pytest.raises(ConfigError, match="no URL"):
        await open_store("redis://localhost:port")


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "unix:///nowhere/valkey.sock"])
async def test_a_store_that_is_not_there_is_unavailable(url: str) -> None:
    """Nobody listens: 503 at once."""
    started = time.monotonic()
    with pytest.raises(Unavailable, match="nothing was accepted"):
        await open_store(url)
    assert time.monotonic() - started < 2


async def test_a_server_that_speaks_otherwise_is_unavailable() -> None:
    """Something else listens on that port: an error of ours, not the client library's."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(Unavailable):
            await open_store(f"redis://127.0.0.1:{port}")


async def test_a_wrong_password_is_refused_without_being_shown(
    start_server: Callable[..., Any],
) -> None:
    """The message holds no secret."""
    url = start_server(requirepass="right").url
    with pytest.raises(Unavailable) as caught:
        await open_store(url.replace("//", "//:hunter2@"))
    assert "hunter2" not in str(caught.value)


async def test_a_store_that_went_away_is_unavailable_and_comes_back(
    start_server: Callable[..., Any],
) -> None:
    """A frozen server costs a caller less than two seconds, and later answers are not mixed up."""
    server = start_server()
    async with await open_store(server.url) as store:
        await journal(store, "a")
        server.process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        calls = [store.call("ECHO", f"lost{n}") for n in range(10)]
        calls += [store.run("journal", *one("b")), store.run_many("journal", [one("c")])]
        calls += [open_store(server.url)]
        replies = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - started < 2
        assert [type(reply) for reply in replies] == [Unavailable] * 13
        server.process.send_signal(signal.SIGCONT)
        for n in range(20):
            assert await store.call("ECHO", f"back{n}") == f"back{n}".encode()


async def test_a_store_that_died_is_unavailable(start_server: Callable[..., Any]) -> None:
    """After the server is gone every call fails at once, and `close` still works."""
    server = start_server()
    store = await open_store(server.url)
    server.stop()
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await store.call("PING")
        assert time.monotonic() - started < 2
    with pytest.raises(Unavailable):
        await anext(store.listen("channel"))
    await store.close()


async def test_listening_ends_when_the_server_dies(
    start_server: Callable[..., Any], eventually: Callable[..., Awaitable[None]]
) -> None:
    """Who listens is told that the connection broke, and can begin again."""
    server = start_server()
    async with await open_store(server.url) as store:

        async def heard_by() -> bool:
            return bool((await store.call("PUBSUB", "NUMSUB", "channel"))[1] == 1)

        task = asyncio.create_task(anext(store.listen("channel")))
        await eventually(heard_by)
        server.stop()
        with pytest.raises(Unavailable):
            await task


async def test_closing_twice_is_harmless(server: EmbeddedServer) -> None:
    """The second close does nothing, and the shared server goes on."""
    store = await open_store(server.url)
    await store.close()
    await store.close()
    async with await open_store(server.url) as again:
        assert await again.call("PING")


# --- names ------------------------------------------------------------------------------------


def test_all_keys_of_a_model_are_in_one_slot() -> None:
    """The braces hold the model's name, so that a script may touch all of its keys."""
    names = [getattr(KEYS, name) for name in dir(KEYS) if isinstance(getattr(KEYS, name), str)]
    names = [name for name in names if name.startswith("ol:")]
    names += [KEYS.version(1), KEYS.checkpoint("x"), KEYS.fence("x"), KEYS.heartbeat("x")]
    names += [KEYS.seen("a", "b"), KEYS.said("1-1"), KEYS.ref("session_id", "a")]
    assert len(names) >= 15
    assert len(set(names)) == len(names)
    assert all(name.startswith("ol:{web}:") for name in names)


@pytest.mark.parametrize(
    ("one_key", "other_key"),
    [
        (KEYS.seen("a", "b"), KEYS.seen("ab", "")),
        (KEYS.seen("a", "b"), KEYS.seen("b", "a")),
        (said_field("a", "thumbs"), said_field("at", "humbs")),
        (said_field("a", "thumbs"), said_field("a", "correction")),
        (said_field("a", "preference", "1-1"), said_field("a", "preference", "1-2")),
        (KEYS.said("1-1"), Keys("topic").said("1-1")),
        (KEYS.ref("session_id", "a"), KEYS.ref("external_id", "a")),
    ],
)
def test_different_things_have_different_keys(one_key: str, other_key: str) -> None:
    """Names made of several parts do not run together."""
    assert one_key != other_key
