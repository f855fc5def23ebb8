"""What is open on the network: doctor sees it, and what `up` opens asks who is there."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from the_stack import Stack

from online_learner.cli.network import (
    Listener,
    asks_for_token,
    family,
    listeners,
    network,
    store_access,
)
from online_learner.note import Note

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
