"""A folder on any filesystem that pyarrow knows. What lies in it was written once, and whole.

A path, or a URL: `file:///srv/log`, `s3://bucket/log`, `gs://bucket/log`. On this machine a file is
there once it is on the disk under its name; in an object store, once it was sent to its end.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import UnsupportedOperation
from pathlib import Path
from typing import Any

from pyarrow import fs

from online_learner.errors import DataError

PARTIAL = ".partial-"  # how names begin of what is not whole yet


@dataclass(frozen=True, slots=True)
class Place:
    """A folder. It need not exist before something is written to it.

    It travels to other processes by its `url`.
    """

    url: str
    _files: fs.FileSystem
    _root: str

    @classmethod
    def open(cls, where: str | Path) -> Place:
        """Return the place at a path or a URL.

        Raises
        ------
        DataError
            It is no place that pyarrow knows.
        """
        text = str(where)
        if "://" not in text:
            path = str(Path(text).absolute())
            return cls(path, fs.LocalFileSystem(), path)
        try:
            files, root = fs.FileSystem.from_uri(text)
        except (OSError, ValueError, NotImplementedError) as error:
            raise DataError(
                "the archive's URL is of no filesystem known here: take a path, file://, s3:// or "
                "gs://",
                code="not_writable",
            ) from error
        return cls(text.rstrip("/"), files, root.rstrip("/"))

    @property
    def local(self) -> Path | None:
        """The folder on this machine, or None where it is elsewhere."""
        return Path(self._root) if isinstance(self._files, fs.LocalFileSystem) else None

    @property
    def name(self) -> str:
        """Its own name within the folder above it."""
        return self._root.rpartition("/")[2]

    def at(self, *names: str) -> Place:
        """Return a folder within this one."""
        part = "/".join(names)
        url, mark, options = self.url, "", ""
        if "://" in url:  # s3://bucket/log?region=...
            url, mark, options = url.partition("?")
        return Place(
            f"{url.rstrip('/')}/{part}{mark}{options}", self._files, f"{self._root}/{part}"
        )

    def path(self, name: str) -> str:
        """Return the path of a file in its filesystem."""
        return f"{self._root}/{name}"

    def write(self, name: str, data: bytes) -> None:
        """Write a file; it is there as a whole, or not at all. One that is there is replaced.

        Raises
        ------
        DataError
            It cannot be written: `no_space` where the disk is full.
        """
        with _told(f"{name} cannot be written to {self.url}"):
            if self.local is None:
                with self._open(name) as stream:
                    stream.write(data)
                return
            _write_here(self.local / name, data)

    def read(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises
        ------
        DataError
            There is no such file (`missing`), or it cannot be read.
        """
        with self.input(name) as stream, _told(f"{name} in {self.url} cannot be read"):
            found: bytes = stream.read()
            return found

    def output(self, name: str) -> Output:
        """Return a new file to write bit by bit; raises as `write` does.

        It is for a folder of what is not whole yet: see `partial`.
        """
        what = f"{name} cannot be written to {self.url}"
        with _told(what):
            if self.local is None:
                return Output(self._open(name), what)
            path = self.local / name
            _make_folder(path.parent)
            return Output(path.open("xb"), what)

    def copy(self, name: str, to: Place) -> None:
        """Copy a file to another folder of the same filesystem, under its name."""
        with _told(f"{name} cannot be copied to {to.url}"):
            try:
                self._files.copy_file(self.path(name), to.path(name))
            except FileNotFoundError:
                self._files.create_dir(to.path(name).rpartition("/")[0])
                self._files.copy_file(self.path(name), to.path(name))

    def input(self, name: str) -> Any:
        """Return a file that is open for reading, from any position; raises as `read` does."""
        with _told(f"{name} in {self.url} cannot be read"):
            return self._files.open_input_file(self.path(name))

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or None where there is none."""
        with _told(f"{self.url} cannot be looked at"):
            found = self._files.get_file_info(self.path(name))
        return found.size if found.type == fs.FileType.File else None

    def stamp(self, name: str) -> tuple[int, int] | None:
        """Return a file's size in bytes, and when it was written, or None where there is none."""
        with _told(f"{self.url} cannot be looked at"):
            found = self._files.get_file_info(self.path(name))
        return (found.size, found.mtime_ns or 0) if found.type == fs.FileType.File else None

    def files(self) -> list[str]:
        """Return the names of all whole files in it, those in its folders too, in order."""
        with _told(f"{self.url} cannot be looked at"):
            selector = fs.FileSelector(self._root, recursive=True, allow_not_found=True)
            found = self._files.get_file_info(selector)
        names = [f.path[len(self._root) + 1 :] for f in found if f.type == fs.FileType.File]
        return sorted(n for n in names if not any(p.startswith(PARTIAL) for p in n.split("/")))

    def clear(self, older_s: float) -> list[str]:
        """Remove single files that were begun so long ago and are not whole; returns their names.

        Only on this machine: an object store shows no file before it is whole.
        """
        local, removed = self.local, list[str]()
        if local is None:
            return removed
        with _told(f"{self.url} cannot be cleared"):
            for path in sorted(local.rglob(f"{PARTIAL}*")):
                with contextlib.suppress(FileNotFoundError):
                    if path.is_file() and time.time() - path.stat().st_mtime >= older_s:
                        path.unlink()
                        removed.append(path.relative_to(local).as_posix())
        return removed

    def folders(self) -> list[str]:
        """Return the names of the folders right in it, in order; not of what is not whole yet."""
        with _told(f"{self.url} cannot be looked at"):
            selector = fs.FileSelector(self._root, allow_not_found=True)
            found = self._files.get_file_info(selector)
        names = [f.base_name for f in found if f.type == fs.FileType.Directory]
        return sorted(name for name in names if not name.startswith(PARTIAL))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with (
            _told(f"{name} cannot be removed from {self.url}"),
            contextlib.suppress(FileNotFoundError),
        ):
            self._files.delete_file(self.path(name))

    def remove_folder(self, name: str) -> None:
        """Remove a folder and all that is in it, if it is there."""
        with (
            _told(f"{name} cannot be removed from {self.url}"),
            contextlib.suppress(FileNotFoundError),
        ):
            self._files.delete_dir(self.path(name))

    def _open(self, name: str) -> Any:
        """Open a file for writing; object stores need no folders first, others do."""
        try:
            return self._files.open_output_stream(self.path(name))
        except FileNotFoundError:
            self._files.create_dir(self.path(name).rpartition("/")[0])
            return self._files.open_output_stream(self.path(name))

    def partial(self) -> Place:
        """Return a folder within this one for what is not whole yet; no listing shows it."""
        return self.at(f"{PARTIAL}{secrets.token_hex(6)}")


class Output:
    """A file that is being written bit by bit. It is on the disk once it is closed.

    It knows its size in bytes, and its SHA-256, so far.
    """

    def __init__(self, stream: Any, what: str) -> None:
        self.size = 0
        self._digest = hashlib.sha256()
        self._stream = stream
        self._what = what
        self._abandoned = False

    @property
    def sha256(self) -> str:
        """The SHA-256 of what has been written so far, in hex."""
        return self._digest.hexdigest()

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return bool(self._stream.closed)

    def write(self, data: Any) -> int:
        """Write some bytes; raises `DataError`: `no_space` where the disk is full."""
        size = memoryview(data).nbytes
        if self._abandoned:
            return size
        with _told(self._what):
            self._stream.write(data)
        self._digest.update(data)
        self.size += size
        return size

    def tell(self) -> int:
        """Return where the next byte goes."""
        return self.size

    def flush(self) -> None:
        """Hand on what has been written."""
        if self._abandoned:
            return
        with _told(self._what):
            self._stream.flush()

    def abandon(self) -> None:
        """Close it as it is: it is not wanted any more, and nothing that follows is written."""
        self._abandoned = True
        with contextlib.suppress(OSError):  # a disk that is full still is
            self._stream.close()

    def close(self) -> None:
        """Write it to its end; raises as `write` does."""
        if self.closed:
            return
        try:
            with _told(self._what):
                self._stream.flush()
                handle = None
                with contextlib.suppress(UnsupportedOperation):  # it is no file of this machine
                    handle = self._stream.fileno()
                if handle is not None:
                    os.fsync(handle)
        finally:
            with _told(self._what):
                self._stream.close()


def _write_here(path: Path, data: bytes) -> None:
    _make_folder(path.parent)
    partial = path.with_name(f"{PARTIAL}{secrets.token_hex(6)}")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def _make_folder(path: Path) -> None:
    """Make a folder, for its owner only, so that it is there after a power cut."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(exist_ok=True, mode=0o700)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Have a folder of this machine on the disk: what is in it is there after a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what a filesystem raises into `DataError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{what}: it is not there", code="missing") from error
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        why = (
            "the disk is full: make room, and try again" if full else (error.strerror or str(error))
        )
        raise DataError(f"{what}: {why}", code="no_space" if full else "not_writable") from error
