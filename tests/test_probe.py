"""What the server says of itself: what an acknowledged write survives, and how full it is."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from online_learner.errors import StoreFull, Unavailable
from online_learner.store import Durability, Store, embedded, open_store, probe
from online_learner.store.embedded import EmbeddedServer
from online_learner.store.probe import Health, Memory, Probe, memory_of, promise

REDIS = shutil.which("redis-server")
Eventually = Callable[..., Awaitable[None]]
LOGGED = {"appendonly": "yes", "appendfsync": "always"}
INFO = {"aof_enabled": 1, "aof_last_write_status": "ok", "aof_last_bgrewrite_status": "ok"}


@pytest.fixture(params=["valkey"] + ["redis"] * (REDIS is not None))
def binary(request: pytest.FixtureRequest) -> str:
    """Return the server of either make."""
    return str(REDIS) if request.param == "redis" else ""


@pytest.fixture
def start(binary: str, start_server: Callable[..., Any]) -> Callable[..., Any]:
    """Return the factory of such servers."""

    def one(**options: str) -> Any:
        named = {key.replace("_", "-"): value for key, value in options.items()}
        return start_server(binary, **named)

    return one


# --- the class --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "durability", "reason"),
    [
        ({}, "none", "appendonly no"),
        ({"appendonly": "no", "appendfsync": "always"}, "none", "appendonly no"),
        ({"appendonly": "no", "save": "1 1"}, "none", "appendonly no"),
        ({"appendonly": "yes", "appendfsync": "no"}, "os", "appendfsync no"),
        ({"appendonly": "yes", "appendfsync": "everysec"}, "os", "one sync takes long"),
        ({"appendonly": "yes", "appendfsync": "always"}, "fsynced", "appendfsync always"),
        (LOGGED | {"no_appendfsync_on_rewrite": "yes"}, "os", "rewritten"),
        (LOGGED | {"aof_use_rdb_preamble": "no"}, "fsynced", "appendfsync always"),
    ],
)
async def test_the_class_is_that_of_the_server_as_it_runs(
    start: Callable[..., Any], options: dict[str, str], durability: Durability, reason: str
) -> None:
    """It comes with the reason, and, where it could be better, with the cure."""
    async with await open_store(start(**options).url) as store:
        found = store.health.promise
        assert found.durability == durability
        assert reason in found.reason
        assert bool(found.cure) == (durability != "fsynced")


async def test_the_bundled_server_is_as_durable_as_it_gets(server: EmbeddedServer) -> None:
    """`auto` syncs every acknowledged write, evicts nothing, and knows its limit."""
    async with await open_store(server.url) as store:
        assert store.health.durability == "fsynced"
        assert store.health.eviction == "noeviction"
        assert store.health.memory is not None
        assert 0 < store.health.memory.limit_bytes <= 4 << 30


async def test_a_change_under_way_is_felt_at_the_next_look(start: Callable[..., Any]) -> None:
    """What was read at the start counts for nothing once the server runs otherwise."""
    async with await open_store(start(**LOGGED).url) as store:
        assert store.health.durability == "fsynced"
        await store.call("CONFIG", "SET", "appendfsync", "everysec")
        assert (await store.look()).durability == "os"
        assert store.health.durability == "os"
        await store.call("CONFIG", "SET", "appendonly", "no")
        assert (await store.look()).durability == "none"


# --- rewrites ---------------------------------------------------------------------------------

SLOW = {"rdb_key_save_delay": "200000"}  # a rewrite takes 200 ms for each key


async def fill(store: Store) -> None:
    """Give a rewrite something to do: 20 s of it."""
    for n in range(100):
        await store.call("SET", f"key{n}", "v")


async def is_rewriting(store: Store) -> bool:
    """Tell whether a rewrite is under way."""
    return bool((await store.call("INFO", "persistence"))["aof_rewrite_in_progress"])


async def test_a_log_counts_once_its_first_rewrite_has_ended(
    start: Callable[..., Any], eventually: Eventually
) -> None:
    """After `CONFIG SET appendonly yes` nothing of it would be loaded until then."""
    async with await open_store(start(appendfsync="always", **SLOW).url) as store:
        await fill(store)
        await store.call("CONFIG", "SET", "appendonly", "yes")
        for _ in range(3):
            assert (await store.look()).durability == "none"
        assert "first rewrite" in store.health.promise.reason
        async with await open_store(store.url) as late:
            assert late.health.durability == "none"
            await late.call("CONFIG", "RESETSTAT")
            assert (await late.look()).durability == "none"
        async with await open_store(store.url) as later:
            assert later.health.durability == "none"
        await store.call("FLUSHALL")
        await store.call("CONFIG", "SET", "appendonly", "no")
        await store.call("CONFIG", "SET", "appendonly", "yes")  # with nothing to write, it is quick

        async def has_ended() -> bool:
            return (await store.look()).durability != "none"

        await eventually(has_ended)
        assert store.health.durability == "unknown"
        assert "CONFIG REWRITE" in store.health.promise.cure


async def test_any_other_rewrite_changes_nothing(start: Callable[..., Any]) -> None:
    """A log that was whole before stays so while it is written anew, for who comes then as well."""
    async with await open_store(start(**LOGGED, **SLOW).url) as store:
        await fill(store)
        await store.call("BGREWRITEAOF")
        for _ in range(3):
            assert await is_rewriting(store)
            assert (await store.look()).durability == "fsynced"
        async with await open_store(store.url) as late:
            assert late.health.durability == "fsynced"
        assert await is_rewriting(store)


async def test_off_and_on_again_is_no_other_rewrite(start: Callable[..., Any]) -> None:
    """Switched off and on between two looks, the log promises nothing until it is rewritten."""
    async with await open_store(start(**LOGGED, **SLOW).url) as store:
        await fill(store)
        assert (await store.look()).durability == "fsynced"
        await store.call("CONFIG", "SET", "appendonly", "no")
        await store.call("CONFIG", "SET", "appendonly", "yes")
        assert await is_rewriting(store)
        assert (await store.look()).durability == "none"
        async with await open_store(store.url) as late:
            assert late.health.durability == "none"


async def test_what_nobody_has_kept_is_forgotten_at_the_next_start(
    binary: str, tmp_path: Path, eventually: Eventually
) -> None:
    """A log that `CONFIG SET` has switched on is not read again, unless the server keeps that."""
    file, url = tmp_path / "server.conf", f"unix://{tmp_path}/s"
    file.write_text(f"port 0\nunixsocket {tmp_path}/s\ndir {tmp_path}\nappendfsync always\n")

    async def has_ended() -> bool:
        return (await store.look()).durability != "none"

    with running(binary, file):
        await eventually(lambda: embedded.answers(tmp_path / "s"))
        async with await open_store(url) as store:
            await store.call("CONFIG", "SET", "appendonly", "yes")
            await eventually(has_ended)
            assert store.health.durability == "unknown"
            await store.call("CONFIG", "REWRITE")
            assert (await store.look()).durability == "fsynced"
    with running(binary, file):
        await eventually(lambda: embedded.answers(tmp_path / "s"))
        async with await open_store(url) as store:
            assert store.health.durability == "fsynced"
            with pytest.raises(ResponseError):
                await store.call("CONFIG", "SET", "appendfsync", "seldom")
            await store.call("BGREWRITEAOF")
            assert (await store.look()).durability == "fsynced"


@contextlib.contextmanager
def running(binary: str, file: Path) -> Iterator[None]:
    """Run a server on a configuration file."""
    process = subprocess.Popen(
        [binary or embedded.server_binary(), str(file)], stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("change", "durability"),
    [
        ({}, "fsynced"),
        ({"aof_last_write_status": "err"}, "none"),
        ({"aof_enabled": 0}, "none"),
    ],
)
def test_a_log_that_could_not_be_written_keeps_nothing(
    change: dict[str, Any], durability: Durability
) -> None:
    """The server's own word on its last write counts more than its configuration."""
    assert promise(LOGGED, INFO | change, logged=True).durability == durability


@pytest.mark.parametrize(
    ("forbidden", "options", "durability"),
    [
        ("-config", {}, "none"),
        ("-config", LOGGED, "unknown"),
        ("-info", {}, "none"),
        ("-info", LOGGED, "unknown"),
        ("-config -info", LOGGED, "unknown"),
    ],
)
async def test_a_server_that_keeps_to_itself_what_it_does_is_unknown(
    start: Callable[..., Any], forbidden: str, options: dict[str, str], durability: Durability
) -> None:
    """Nothing is promised that is not known; that it keeps no log, INFO tells as well."""
    url = start(**options).url
    async with await open_store(url) as admin:
        rules = ("~*", "&*", "+@all", *forbidden.split())
        await admin.call("ACL", "SETUSER", "app", "on", ">pw", *rules)
    async with await open_store(url.replace("//", "//app:pw@")) as store:
        assert store.health.durability == durability
        assert await store.call("SET", "a", "b")
        store.health.check_feedback()


async def test_a_server_that_begins_to_evict_is_told_at_the_next_look(
    start: Callable[..., Any],
) -> None:
    """Nothing is accepted until that is put right; the message has the cure."""
    async with await open_store(start().url) as store:
        await store.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        health = await store.look()
        assert health.evicts
        assert not health.reliable
        with pytest.raises(Unavailable, match="CONFIG SET maxmemory-policy noeviction"):
            health.check_feedback()
        await store.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
        (await store.look()).check_feedback()


def test_the_sentence_is_loud_about_what_is_lost() -> None:
    """Class, reason and cure are in one line, for who reads the log."""
    health = Health(promise({"appendonly": "no"}, INFO, logged=True), eviction="allkeys-lru")
    assert not health.reliable
    for part in ("is none: ", "appendonly no", "Cure: CONFIG SET append", "allkeys-lru"):
        assert part in health.sentence()


# --- memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "state"),
    [(0, "ok"), (699, "ok"), (700, "tight"), (949, "tight"), (950, "full"), (5000, "full")],
)
def test_the_state_of_the_memory_goes_by_shares(used: int, state: str) -> None:
    """From 70 % on it is tight, from 95 % on full."""
    assert Memory(used, 1000).state == state


def test_what_gives_way_first_is_what_nobody_audits() -> None:
    """Tight: answers that are not evidence; full: all answers, and feedback."""

    def at(used: int) -> tuple[bool, bool, bool]:
        health = Health(memory=Memory(used, 100))
        taken = False
        with contextlib.suppress(StoreFull):
            health.check_feedback()
            taken = True
        unaudited, audited = (health.no_room(audited=audited) is None for audited in (False, True))
        return unaudited, audited, taken

    assert at(69) == (True, True, True)
    assert at(70) == (False, True, True)
    assert at(95) == (False, False, False)
    assert Health().no_room(audited=False) is None


async def test_maxmemory_is_the_limit(start: Callable[..., Any]) -> None:
    """What the server would refuse writes at is what counts, less what it does not count itself."""
    async with await open_store(start(maxmemory="64mb").url) as store:
        assert store.health.memory is not None
        assert store.health.memory.limit_bytes == 64 << 20
        assert store.health.memory.state == "ok"
        for n in range(56):  # each takes 896 KiB, whatever the allocator rounds to
            await store.call("SET", f"big{n}", "x" * 900_000)
        memory = (await store.look()).memory
        assert memory is not None
        assert memory.state == "tight"


def test_without_a_limit_the_memory_of_the_host_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For a server on this machine our own cgroup counts as well; for another one it does not."""
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(probe, "_CGROUP_LIMITS", (str(tmp_path / "none"), str(limit)))
    host = probe.host_memory_bytes()
    assert host > 64 << 20
    limit.write_text("max\n")
    assert probe.host_memory_bytes() == host
    limit.write_text(f"{32 << 20}\n")
    info = {"used_memory": 24 << 20, "maxmemory": 0, "total_system_memory": host}
    assert memory_of(info, local=True) == Memory(24 << 20, 32 << 20)
    assert memory_of(info, local=False) == Memory(24 << 20, host)
    assert memory_of(info | {"maxmemory": 1 << 30}, local=True) == Memory(24 << 20, 1 << 30)
    assert memory_of({}, local=True) is None
    assert memory_of(info | {"total_system_memory": 0}, local=False) is None


async def test_what_the_server_does_not_count_is_not_counted() -> None:
    """The buffers of its log are no reason for the server to refuse a write."""
    info = {"used_memory": 100, "mem_not_counted_for_evict": 40, "maxmemory": 200}
    assert memory_of(info, local=True) == Memory(60, 200)


async def test_a_look_at_a_server_that_is_away_is_unavailable(start: Callable[..., Any]) -> None:
    """What is known stays known; the caller hears that it is old."""
    running = start(**LOGGED)
    async with await open_store(running.url) as store:
        running.stop()
        with pytest.raises(Unavailable):
            await store.look()
        assert store.health.durability == "fsynced"


async def test_replies_are_read_in_every_form() -> None:
    """The findings are the same whether the client parses the replies or not."""

    async def call(*command: str) -> Any:
        if command[0] == "CONFIG":
            return [b"appendonly", b"yes", b"appendfsync", b"always"]
        return INFO | {"aof_base_size": 88}

    health = await Probe(call, "unix:///x").look()
    assert health == dataclasses.replace(Health(), promise=health.promise)
    assert health.durability == "fsynced"
