"""Cleans up after a `kill -9`: a small process that outlives the one it guards, and then ends.

Ray leaves its HAProxy and agents behind when the driver is killed, and they hold the ports. The
guardian is forked before anything else, waits at a pipe, and ends what carries our mark.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "OL_RUN"
_SWEEPS = 30


class Guardian:
    """Guards this process. Start it before any thread exists, and before Ray is imported.

    Parameters
    ----------
    token
        Marks all of our processes, by environment and by the name of the folder.
    folder
        Ray's private folder, removed in the end.
    """

    def __init__(self, token: str, folder: Path) -> None:
        read_end, self._write_end = os.pipe()  # not inheritable: no child keeps it open
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._write_end)
            _stand_guard(read_end, token, folder)
        os.close(read_end)
        os.environ[MARK] = token

    def release(self) -> None:
        """Let the guardian sweep what is left, and wait for it."""
        os.close(self._write_end)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _stand_guard(read_end: int, token: str, folder: Path) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    os.read(read_end, 1)  # returns when the guarded process closes its end, or dies
    for _ in range(_SWEEPS):
        found = [pid for pid in marked(token) if pid != os.getpid()]
        if not found:
            break
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def marked(token: str) -> Iterator[int]:
    """Yield the processes of this user that carry the mark.

    Ray's processes overwrite their environment with their title: those are known by the files that
    they hold open in Ray's private folder.
    """
    needle, place = f"{MARK}={token}".encode(), f"/{token}/"
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            if folder.stat().st_uid != os.getuid():
                continue
            if needle in (folder / "environ").read_bytes() or _holds_open(folder, place):
                yield int(folder.name)


def _holds_open(folder: Path, place: str) -> bool:
    """Tell whether it is a process of Ray's with a file open under `place`."""
    is_ray = (folder / "cmdline").read_bytes().startswith(b"ray::")
    return is_ray and any(place in str(link.readlink()) for link in (folder / "fd").iterdir())
