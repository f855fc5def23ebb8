"""Cleans up after a `kill -9`: a small process that outlives the one it guards, and then ends.

Ray leaves its HAProxy and agents behind when the driver is killed, and they hold the ports. The
guardian is forked before anything else, waits at a pipe, and ends what carries our mark. Where it
was killed as well, the next start does its work: see `sweep`.
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
OWNER = "owner"  # a file in Ray's folder: the processes that will remove it
_SWEEPS = 30
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # our handlers are not for the child
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._write_end)
            _stand_guard(read_end, token, folder)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        (folder / OWNER).write_text(f"{os.getpid()} {self.pid}")
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
    for ignored in _SIGNALS:
        signal.signal(ignored, signal.SIG_IGN)
    os.read(read_end, 1)  # returns when the guarded process closes its end, or dies
    sweep(token, folder)
    os._exit(0)


def sweep(token: str, folder: Path) -> None:
    """End all processes that carry the mark, but this one, and remove their folder."""
    for _ in range(_SWEEPS):
        found = [pid for pid in marked(token) if pid != os.getpid()]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():  # else one that is about to show its mark has written there
                return
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended, and waits for its parent, does not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except OSError:  # it is no Linux, or it has ended just now
        return not Path("/proc/self").exists()
    return state not in ("Z", "X")


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
