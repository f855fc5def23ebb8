"""What doctor sees: open ports, leftovers of a crash, costs, clocks; and that `up` asks at its own.

What it says of store, service and files is in `test_cli.py`.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from the_stack import Stack

from online_learner import config
from online_learner.cli import costs as costing
from online_learner.cli import doctor
from online_learner.cli.costs import Cost, costs
from online_learner.cli.finding import Finding
from online_learner.cli.leftovers import leftovers
from online_learner.cli.machine import cluster, gpus
from online_learner.cli.network import (
    Listener,
    asks_for_token,
    family,
    listeners,
    network,
    store_access,
)
from online_learner.loop import Loop
from online_learner.note import Note
from online_learner.settings import Settings
from online_learner.store import Store
from serve_app.local import LOCK
from serve_app.local.guardian import MARK, OWNER

# Listens on one port of this machine and one of all of them, says which, and ends with its input.
PROGRAM = """
import socket, sys
servers = [socket.create_server((host, 0)) for host in ("127.0.0.1", "0.0.0.0")]
print(*[server.getsockname()[1] for server in servers], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def talker() -> Iterator[tuple[int, int, int]]:
    """Run a parent whose child listens; return the parent, the private port and the open one."""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {PROGRAM!r}])"
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert process.stdout is not None
        private, public = map(int, process.stdout.readline().split())
        yield process.pid, private, public


def outside() -> str:
    """Return an address of this machine that is not loopback; skip where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])


# --- what doctor sees -------------------------------------------------------------------------


def test_ports_of_a_whole_family_are_seen(talker: tuple[int, int, int]) -> None:
    """Ports of children are found as well, and those that other machines reach are told apart."""
    pid, private, public = talker
    found = {listener.port: listener for listener in listeners(family(pid))}
    assert set(found) == {private, public}
    assert (found[private].address, found[private].open) == ("127.0.0.1", False)
    assert (found[public].address, found[public].open) == ("0.0.0.0", True)


@pytest.mark.parametrize(
    ("address", "is_open"),
    [("::", True), ("::1", False), ("::ffff:127.0.0.1", False), ("10.0.0.3", True)],
)
def test_what_counts_as_open(address: str, *, is_open: bool) -> None:
    """Every address but loopback counts as open, in whichever form it is written."""
    assert Listener("x", address, 1).open == is_open


def test_doctor_tells_what_is_open(talker: tuple[int, int, int], tmp_path: Path) -> None:
    """The front door asks for keys; any other open port that asks for nothing is named."""
    pid, private, public = talker
    told = {}
    for front in (public, private):
        Note(f"http://127.0.0.1:{front}", "ol_x", "unix:///x", pid).write(tmp_path)
        [count, told[front]] = network(tmp_path)
        assert (count.level, count.message[:2]) == ("ok", "1 ")
    assert all(finding.level == "warning" and finding.cure for finding in told.values())
    assert "asks for keys" in told[public].message
    assert f"0.0.0.0:{public}" in told[private].message
    assert "asks for nothing" in told[private].message


def test_doctor_tells_who_reaches_the_store(start_server: Callable[..., Any]) -> None:
    """A store without a password lets in all who reach it: a problem if other machines do."""
    options = {"bind": "0.0.0.0", "protected-mode": "no"}
    naked, guarded = start_server(**options), start_server(requirepass="x", **options)
    told = {}
    for server in (naked, guarded):
        for host in ("127.0.0.1", outside()):
            url = server.url.replace("127.0.0.1", host)
            told[server, host] = [(found.check, found.level) for found in store_access(url)]
        server.stop()
    near, far = "127.0.0.1", outside()
    check = "store access"
    assert told[naked, near] == [(check, "warning")]
    assert told[naked, far] == [(check, "problem"), (check, "warning")]
    assert told[guarded, near] == [(check, "ok")]
    assert told[guarded, far] == [(check, "warning")]


# --- what `up` opens --------------------------------------------------------------------------


def test_up_opens_nothing_that_does_not_ask(stack: Stack) -> None:
    """All is on loopback but what Serve's replicas say to each other, which asks for the token."""
    pids = family(stack.process.pid)
    found = listeners(pids)
    assert len(found) > 10
    assert {f.process.partition(":model")[0] for f in found if not f.open} >= {
        "gcs_server",
        "raylet",
        "haproxy",
    }
    assert all(f.process.startswith("ray::ServeReplica") for f in found if f.open)
    assert asks_for_token(pids)
    assert {finding.level for finding in network(stack.data_dir)} == {"ok"}
    assert (stack.data_dir / "ray_token").stat().st_mode & 0o777 == 0o600


def test_ray_asks_for_its_token(stack: Stack) -> None:
    """Neither the control plane nor a replica hears anybody who has none, or a wrong one."""
    token = (stack.data_dir / "ray_token").read_text()
    found = listeners(family(stack.process.pid))
    [control] = [f.port for f in found if f.process == "gcs_server"]
    replicas = [f.port for f in found if f.open]
    calls = [(control, "/ray.rpc.NodeInfoGcsService/CheckAlive")]
    calls += [(port, "/ray.serve.ASGIService/HandleRequest") for port in replicas]
    assert len(calls) > len({"gcs"})
    for port, method in calls:
        assert _call(port, method, None) == grpc.StatusCode.UNAUTHENTICATED
        assert _call(port, method, "0" * len(token)) == grpc.StatusCode.UNAUTHENTICATED
        assert _call(port, method, token) != grpc.StatusCode.UNAUTHENTICATED


def _call(port: int, method: str, token: str | None) -> Any:
    """Call with an empty message; return the status."""
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(method)(b"", metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


# --- what a crash leaves ----------------------------------------------------------------------


def told(findings: Iterable[Finding], check: str) -> list[Finding]:
    """Return the findings of a check."""
    return [finding for finding in findings if finding.check == check]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a place of its own for the folders of `up`."""
    monkeypatch.setattr("serve_app.local.scratch", lambda: tmp_path)
    return tmp_path


def test_doctor_finds_processes_that_outlived_their_up(temporary: Path) -> None:
    """A process with the mark of an `up` that is gone is a problem, until it is ended as told."""
    folder = temporary / "ol-0badcafe"
    folder.mkdir()
    gone = subprocess.Popen(["true"])
    gone.wait()
    (folder / OWNER).write_text(f"{gone.pid} {gone.pid}")
    marked = os.environ | {MARK: folder.name}
    with subprocess.Popen(["sleep", "60"], env=marked) as orphan:
        [finding] = leftovers(temporary / "data", running=False)
        assert finding.level == "problem"
        assert finding.cure == f"kill -9 {orphan.pid}; rm -r {folder}"
        orphan.kill()
    [finding] = leftovers(temporary / "data", running=False)
    assert (finding.level, finding.cure) == ("warning", f"rm -r {folder}")
    (folder / OWNER).write_text(f"{gone.pid} {os.getpid()}")
    assert list(leftovers(temporary / "data", running=False)) == []


def test_a_cure_may_be_pasted(temporary: Path) -> None:
    """A path with blanks is quoted: the cure removes what it names, and nothing else."""
    data_dir, other = temporary / "my data", temporary / "my"
    data_dir.mkdir()
    other.touch()
    Note("http://x", "ol_x", "unix:///x", 1).write(data_dir)
    [finding] = leftovers(data_dir, running=False)
    subprocess.run(["sh", "-c", finding.cure], check=True)
    assert list(leftovers(data_dir, running=False)) == []
    assert other.exists()


def test_doctor_finds_the_lock_of_one_that_was_killed(temporary: Path) -> None:
    """What still stands in a lock that nobody holds tells of a kill; `up` is the cure."""
    (temporary / LOCK).write_text(f"1234 {temporary}/ol-0badcafe")
    [finding] = leftovers(temporary, running=False)
    assert "`online-learner up`" in finding.cure
    assert list(leftovers(temporary, running=True)) == []


# --- what retention costs ---------------------------------------------------------------------


async def measured(store: Store, window_s: float) -> list[Finding]:
    """Return what doctor says of the costs."""
    await store.look()
    return [finding async for finding in costs(store, window_s)]


async def test_doctor_measures_what_a_window_costs(loop: Loop) -> None:
    """The rate and the size of what is there tell what a window takes, and how long one fits."""
    await config.publish(loop.store, loop.keyring, loop.settings)
    [room, log] = await measured(loop.store, 86_400)
    assert "have room for about" in room.message
    assert "on disk" in log.message
    for number in range(200):
        await loop.predict("web", {"a": float(number)})
    [told_of, room, log] = await measured(loop.store, 60)
    assert told_of.message.startswith("web: ")
    assert "answers a second" in told_of.message
    assert room.level == "ok"
    limit = loop.store.health.memory
    assert limit is not None
    taken = Cost(100.0, 500.0).memory_bytes(60)
    assert taken == 100 * 500 * 60
    [_, room, _] = await measured(loop.store, 1e9)
    assert room.level == "problem"
    fits_s = float(room.cure.split()[-3].replace(",", ""))
    [_, room, _] = await measured(loop.store, fits_s / 4)
    assert room.level == "ok"


async def test_doctor_counts_what_observers_take(loop: Loop) -> None:
    """What they know, and the questions that wait, are a part of what a model takes."""
    await config.publish(loop.store, loop.keyring, loop.settings)
    await loop.predict("web", {"a": 1.0})
    [before, *_] = await measured(loop.store, 1e-9)
    assert "observers" not in before.message
    keys = loop.stages("web").registry.keys
    await loop.store.call("HSET", keys.observer, "memory", "x" * 3_000_000)
    [after, *_] = await measured(loop.store, 1e-9)
    assert re.search(r" (3(?:\.\d+)? MB) of memory .*; \1 of the memory are what", after.message)
    for number in range(5):
        await loop.store.call("XADD", keys.asked, f"{1000 + number}-0", "q", "x" * 10_000)
    assert (await costing._of(loop.store, keys))["questions"].bytes_each > 10_000


async def test_doctor_sees_a_clock_that_was_set_back(loop: Loop) -> None:
    """Answers that are ahead of the store's clock were stamped before it was set back."""
    await config.publish(loop.store, loop.keyring, loop.settings)
    assert [finding async for finding in doctor._set_back(loop.store)] == []
    ahead = f"{int((time.time() + 3600) * 1000)}-0"
    await loop.store.call("XADD", loop.stages("web").registry.keys.predictions, ahead, "p", "{}")
    [finding] = [finding async for finding in doctor._set_back(loop.store)]
    assert "set back: answers of web are 3" in finding.message
    assert finding.cure


# --- this machine -----------------------------------------------------------------------------


@pytest.fixture
def raylet(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """Run what looks like the raylet of another Ray, open to others; return where, and its port."""
    packages = tmp_path / "site-packages"
    program = packages / "ray" / "core" / "src" / "ray" / "raylet" / "raylet"
    program.parent.mkdir(parents=True)
    (packages / "ray-2.59.0.dist-info").mkdir()
    with subprocess.Popen(
        [str(program), "-c", PROGRAM],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield packages, int(process.stdout.readline().split()[1])
        process.stdin.close()


def test_doctor_sees_a_ray_that_ray_start_made(raylet: tuple[Path, int]) -> None:
    """Its version is compared with ours, and what it opens to others is named."""
    _, port = raylet
    found = list(cluster(8000))
    [version] = told(found, "ray")
    assert (version.level, "runs Ray 2.59.0" in version.message) == ("problem", True)
    assert "on every node" in version.cure
    [opened] = [finding for finding in told(found, "network") if str(port) in finding.message]
    assert opened.level in ("warning", "problem")


def test_a_node_of_a_cluster_may_have_its_front_door(
    raylet: tuple[Path, int], tmp_path: Path
) -> None:
    """Where a Ray that `ray start` made runs, the port in use is its own, and no problem."""
    _, port = raylet
    settings = Settings.parse({"data_dir": tmp_path / "data", "models": {}})
    found = list(doctor.examine(settings, host="127.0.0.1", port=port))
    assert told(found, "port") == []


def test_doctor_says_when_ray_is_newer_than_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray that this was not tested with is a warning, and an older one a problem."""
    monkeypatch.setattr(doctor, "NEWEST", {"ray": (2, 1)})
    [found] = told(doctor.packages(auto=False), "ray")
    assert (found.level, "newer than 2.1" in found.message) == ("warning", True)
    monkeypatch.setattr(doctor, "least_versions", lambda _: {"ray": (99,)})
    assert told(doctor.packages(auto=False), "ray")[0].level == "problem"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("missing", "level"), [("refuse", "warning"), ("cpu", "ok")])
def test_doctor_looks_for_gpus_that_models_ask_for(missing: str, level: str) -> None:
    """Where a model wants a GPU and none is here, that is said before `up` refuses it."""
    model = {"task": "regression", "learner": "a:b", "on_gpu_missing": missing}
    settings = Settings.parse({"models": {"m": model | {"resources": {"num_gpus": 1}}}})
    [found] = gpus(settings)
    assert (found.level, "this machine has 0" in found.message) == (level, True)
    assert list(gpus(Settings.parse({"models": {"m": model}}))) == []
