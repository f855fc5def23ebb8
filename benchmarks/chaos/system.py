"""`online-learner up` as somebody runs it, and its parts, which can be killed one by one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal, TypeAlias

import httpx2
import yaml

from benchmarks.chaos.clients import MODEL
from benchmarks.stack import free_port
from online_learner.cli.network import family
from online_learner.note import Note

Part: TypeAlias = Literal["store", "learner", "gatekeeper", "gateway", "haproxy", "driver"]
PARTS: dict[Part, str] = {
    "store": "/valkey-server ",
    "learner": f"ray::ServeReplica:model-{MODEL}:FeedbackActor",
    "gatekeeper": f"ray::ServeReplica:model-{MODEL}:Gatekeeper",
    "gateway": "ray::ServeReplica:gateway:Gateway",
    "haproxy": "/haproxy ",
    "driver": "online-learner up ",
}
GATEWAYS = 2
STARTS_S = 180.0
STOPS_S = 60.0


class System:
    """All of it, on a private folder and one port that it keeps.

    Parameters
    ----------
    store
        `auto`, or the URL of one that runs already.
    """

    def __init__(self, home: Path, *, store: str = "auto", **model: Any) -> None:
        self.home = home
        self.data_dir = home / "data"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.document: dict[str, Any] = {
            "store": store,
            "data_dir": str(self.data_dir),
            "gateways": GATEWAYS,
            "models": {MODEL: model},
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it says where it is; tries again while an old one is swept up.

        Raises
        ------
        RuntimeError
            It does not start; with its log.
        """
        config = self.home / "loop.yaml"
        config.write_text(yaml.safe_dump(self.document))
        binary, port = Path(sys.executable).with_name("online-learner"), self.url.split(":")[-1]
        command = [str(binary), "up", "--config", str(config), "--port", port]
        deadline = time.monotonic() + STARTS_S
        while not self._announced():
            if self._process is None or self._process.poll() is not None:
                with (self.home / "up.log").open("ab") as log:
                    self._process = subprocess.Popen(
                        command, stdout=log, stderr=log, cwd=Path(__file__).parents[2]
                    )
            if time.monotonic() > deadline:
                raise RuntimeError(f"up does not start: {(self.home / 'up.log').read_text()}")
            time.sleep(0.1)

    def _announced(self) -> bool:
        note = Note.read(self.data_dir)
        if note is None or self._process is None:
            return False
        return note.pid == self._process.pid

    @property
    def key(self) -> str:
        """The key that it takes."""
        return (self.data_dir / "api_key").read_text().strip()

    @property
    def store_url(self) -> str:
        """Where its store is."""
        note = Note.read(self.data_dir)
        assert note is not None, "it does not run"
        return note.store

    def client(self, *, timeout_s: float = 5.0) -> httpx2.AsyncClient:
        """Return a client with the key."""
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=timeout_s)

    def pids(self, part: Part) -> list[int]:
        """Return the processes of a part; only those that were started from here."""
        if self._process is None:
            return []
        if part == "driver":
            return [self._process.pid]
        _, *below = family(self._process.pid)
        return [pid for pid in below if PARTS[part] in _title(pid)]

    def kill(self, part: Part, pid: int | None = None) -> int:
        """End one process of a part with kill -9; returns which."""
        pid = self.pids(part)[0] if pid is None else pid
        os.kill(pid, signal.SIGKILL)
        if part == "driver" and self._process is not None:
            self._process.wait()
            self._process = None
        return pid

    def stop(self) -> None:
        """Stop it as Ctrl-C does."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOPS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _title(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""
