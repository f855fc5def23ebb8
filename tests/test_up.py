"""The life of `online-learner up`: however it ends, nothing is left, and what was said is kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from the_service import bearer, unused_port

from online_learner.cli.network import family
from online_learner.errors import ConfigError
from online_learner.note import Note
from online_learner.settings import Settings
from serve_app.local import LOCK, running
from serve_app.local.guardian import is_alive

pytestmark = pytest.mark.ray

UP = [str(Path(sys.executable).with_name("online-learner")), "up"]
REFUSED = ENDED_EARLY = 1
WEB = {
    "task": "classification",
    "labels": [False, True],
    "learner": "river.linear_model:LogisticRegression",
    "promotion": {"policy": "policies.promotion:Always"},
}
FEATURES = {"features": {"a": 1.0, "b": -0.5}}


class Up:
    """One `up` after another, on one data directory, one port and one temporary directory."""

    def __init__(self, home: Path, temporary: Path) -> None:
        self.home, self.temporary = home, temporary
        self.data_dir = home / "data"
        self.log = home / "up.log"
        self.port = unused_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._seen: set[int] = set()

    def start(self, **options: Any) -> int:
        """Start it as the leader of a session; returns its process."""
        command, environment = self.command(self.port)
        with self.log.open("wb") as log:
            output = {"stdout": log, "stderr": log} | options
            self.process = subprocess.Popen(
                command, env=environment, start_new_session=True, **output
            )
        return self.process.pid

    def command(self, port: int, data_dir: Path | None = None) -> tuple[list[str], dict[str, str]]:
        """Return the command, and the environment that goes with it."""
        config = self.home / f"{port}.yaml"
        document = {"data_dir": str(data_dir or self.data_dir), "models": {"web": WEB}}
        config.write_text(yaml.safe_dump(document))
        return (
            [*UP, "--config", str(config), "--port", str(port)],
            os.environ | {"TMPDIR": str(self.temporary)},
        )

    def wait_for(self, condition: Callable[[], Any], within_s: float = 90.0) -> None:
        """Wait for something while it runs."""
        assert self.process is not None
        deadline = time.monotonic() + within_s
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        self._seen |= set(family(self.process.pid))

    def ready(self) -> bool:
        """Tell whether this one, and not the one before, says where it is."""
        note = Note.read(self.data_dir)
        return note is not None and self.process is not None and note.pid == self.process.pid

    def wrote(self, text: str) -> bool:
        """Tell whether its output has a text."""
        return text in self.log.read_text()

    def http(self) -> httpx2.Client:
        """Return a client with the key that the data directory has now."""
        key = (self.data_dir / "api_key").read_text()
        url = f"http://127.0.0.1:{self.port}"
        return httpx2.Client(base_url=url, headers=bearer(key), timeout=10.0)

    def ends(self, code: int = 0) -> None:
        """Wait until it has ended with a code, and left nothing."""
        assert self.process is not None
        assert self.process.wait(60) == code, self.log.read_text()
        assert self.processes() == []
        assert list(self.temporary.iterdir()) == []
        assert self.sockets() == []
        assert not (self.data_dir / "endpoint.json").exists()
        assert (self.data_dir / LOCK).read_text() == ""

    def processes(self) -> list[int]:
        """Return all that run of those that were seen, or carry the temporary directory."""
        mark = f"TMPDIR={self.temporary}\0".encode()
        found = {pid for pid in self._seen if is_alive(pid)}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes() + b"\0":
                    found.add(int(folder.name))
        return sorted(found)

    def sockets(self) -> list[str]:
        """Return the sockets in its directories, and the port where it still listens."""
        lines = Path("/proc/net/unix").read_text().splitlines()
        places = (str(self.home), str(self.temporary))
        found = [line for line in lines if any(place in line for place in places)]
        found += [str(path) for path in self.home.rglob("*") if path.is_socket()]
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=1),
        ):
            found.append(str(self.port))
        return found

    def kill_everything(self) -> None:
        """Do `kill -9` to all of it, the guardian first."""
        assert self.process is not None
        guardian = {pid for pid in self.processes() if _command(pid) == _command(self.process.pid)}
        everybody = self.processes()
        for pid in [*(guardian - {self.process.pid}), self.process.pid, *everybody]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """Return `up` on directories of its own; nothing of it survives the test."""
    temporary = Path(tempfile.mkdtemp(prefix="", dir="/tmp"))  # sockets need short paths
    found = Up(tmp_path, temporary)
    yield found
    if found.process is not None:
        found.kill_everything()
    shutil.rmtree(temporary, ignore_errors=True)


def teach(http: httpx2.Client) -> None:
    """Give a correction."""
    asked = http.post("/v1/models/web/predict", json=FEATURES).json()
    body = {"prediction_id": asked["prediction_id"], "kind": "correction", "value": True}
    assert http.post("/v1/feedback", json=body).status_code == 202


def served(http: httpx2.Client) -> tuple[int, Any]:
    """Return the step that answers, and how."""
    answer = http.post("/v1/models/web/predict", json=FEATURES).json()
    return answer["step"], answer["scores"]


def test_up_twice_and_killed_and_stopped(up: Up) -> None:
    """A second one changes nothing; it ends with Ray, and goes on; Ctrl-C leaves nothing."""
    up.start()
    up.wait_for(up.ready)
    [private] = up.temporary.glob("ol-*")
    assert private.stat().st_mode & 0o077 == 0  # what runs there is for nobody else to change
    with up.http() as http:
        teach(http)
        up.wait_for(lambda: served(http)[0] >= 1)
        known = served(http)

        for port, data_dir, words in (
            (unused_port(), up.data_dir, "it is running already"),
            (up.port, up.home / "other", f"127.0.0.1:{up.port} cannot be used"),
        ):
            command, environment = up.command(port, data_dir)
            second = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=60, check=False
            )
            assert (second.returncode, words in second.stderr) == (REFUSED, True), second.stderr
        assert served(http) == known

    key = (up.data_dir / "api_key").read_text()
    up.process.kill()  # type: ignore[union-attr]  # the guardian outlives it
    up.process.wait()  # type: ignore[union-attr]
    up.start()
    up.wait_for(up.ready)
    with up.http() as http:
        assert served(http) == known
        teach(http)
        up.wait_for(lambda: served(http)[0] >= 2)
        known = served(http)

    [raylet] = [pid for pid in up.processes() if b"/raylet/raylet" in _command(pid)]
    os.kill(raylet, signal.SIGKILL)
    up.ends(ENDED_EARLY)
    assert up.wrote("Ray's raylet has ended")
    up.start()
    up.wait_for(up.ready)
    with up.http() as http:
        assert served(http) == known
        assert (up.data_dir / "api_key").read_text() == key

    for _ in range(2):  # as a terminal does, to all of its processes, and by one who is impatient
        os.killpg(up.process.pid, signal.SIGINT)  # type: ignore[union-attr]
        time.sleep(0.3)
    up.ends()


def test_stopped_while_it_starts(up: Up) -> None:
    """A signal that comes when only some of it runs takes that down, and nothing is left."""
    up.data_dir = up.home / ("long" * 25)  # too long for a socket, which goes elsewhere
    up.start()
    up.wait_for(lambda: up.wrote("  store"))
    os.killpg(up.process.pid, signal.SIGINT)  # type: ignore[union-attr]
    up.ends()
    assert up.wrote("Stopped.")


def test_all_of_it_killed(up: Up) -> None:
    """Where the guardian is killed as well, the next one clears away what is left."""
    first = up.start()
    up.wait_for(lambda: up.wrote("  Ray"))
    up.kill_everything()
    assert is_alive(first) is False
    [left] = up.temporary.glob("ol-*")
    up.start()
    up.wait_for(lambda: up.wrote("  Ray"))
    assert not left.exists()
    assert len(list(up.temporary.iterdir())) == 1
    up.process.terminate()  # type: ignore[union-attr]  # as a supervisor does
    up.ends()


def test_a_data_dir_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Where nothing can be written, that is said at once, and nothing is started."""
    (tmp_path / "file").touch()
    settings = Settings.parse({"data_dir": tmp_path / "file" / "data", "models": {}})
    with (
        pytest.raises(ConfigError, match=r"file/data cannot be written to \(Not a directory\)"),
        running(settings),
    ):
        pass


def test_a_terminal_shows_progress_and_is_closed(up: Up) -> None:
    """On a terminal, what starts is shown; when the terminal is closed, all of it stops."""
    terminal, own = pty.openpty()
    shown = bytearray()

    def show() -> bool:
        shown.extend(os.read(terminal, 4096))
        return b"gateway" in shown

    def belongs() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # the terminal hangs up on the leader of its session

    up.start(stdin=own, stdout=own, stderr=own, preexec_fn=belongs)
    os.close(own)
    up.wait_for(show)
    assert b"\r\x1b[K  store " in shown
    os.close(terminal)
    up.ends()
