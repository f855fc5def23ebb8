"""What a killed `up` has left behind: processes, folders, a note, a lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from online_learner.cli.finding import Finding
from online_learner.note import NOTE

_RAY_FOLDER = re.compile(r"ol-[0-9a-f]{8}")


def leftovers(data_dir: Path, *, running: bool) -> Iterator[Finding]:
    """Look for what a killed `up` has left behind."""
    from serve_app.local import LOCK, scratch

    note, lock = data_dir / NOTE, data_dir / LOCK
    if note.exists() and not running:
        message = f"{note} was left behind: it names a service that has ended"
        yield Finding("leftovers", "warning", message, f"rm {shlex.quote(str(note))}")
    with contextlib.suppress(OSError):
        if lock.read_text() and not running:
            message = f"{lock} tells of an `up` that was killed"
            cure = "`online-learner up` clears away what it left, and goes on"
            yield Finding("leftovers", "warning", message, cure)
    for folder in stale_ray_folders(scratch()):
        yield _of_ray(folder)


def _of_ray(folder: Path) -> Finding:
    """Say how to be rid of a Ray whose `up` has ended, and of its folder."""
    from serve_app.local.guardian import marked

    pids, remove = sorted(marked(folder.name)), f"rm -r {shlex.quote(str(folder))}"
    if not pids:
        message = f"{folder} was left behind by a Ray that has ended"
        return Finding("leftovers", "warning", message, remove)
    message = f"{len(pids)} processes still run of an `up` that was killed, with {folder}"
    cure = f"kill -9 {' '.join(map(str, pids))}; {remove}"
    return Finding("leftovers", "problem", message, cure)


def stale_ray_folders(place: Path) -> Iterator[Path]:
    """Yield the folders of `up` that no `up` belongs to, nor its guardian."""
    from serve_app.local.guardian import OWNER, is_alive, marked

    for path in sorted(place.iterdir()):
        with contextlib.suppress(OSError):
            if not _RAY_FOLDER.fullmatch(path.name) or path.stat().st_uid != os.getuid():
                continue
            owner = path / OWNER
            if owner.exists():
                owners = [int(word) for word in owner.read_text().split()]
                stale = not any(map(is_alive, owners))
            else:
                stale = not any(marked(path.name))
            if stale:
                yield path


def is_locked(path: Path) -> bool:
    """Tell whether another process holds the lock on a file."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
