"""A folder on any filesystem that pyarrow knows. What lies in it was written once, and whole.

A path, or a URL: `file:///srv/log`, `s3://bucket/log`, `gs://bucket/log`. On this machine a file is
there once it is on the disk under its name; in an object store, once it was sent to its end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from online_learner.errors import DataError

_PARTIAL = ".partial-"  # how names begin of what is not whole yet


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

    def at(self, *names: str) -> Place:
        """Return a folder within this one."""
        part = "/".join(names)
        return Place(f"{self.url}/{part}", self._files, f"{self._root}/{part}")

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
                with self._files.open_output_stream(self.path(name)) as stream:
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

    def input(self, name: str) -> Any:
        """Return a file that is open for reading, from any position; raises as `read` does."""
        with _told(f"{name} in {self.url} cannot be read"):
            return self._files.open_input_file(self.path(name))

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or None where there is none."""
        with _told(f"{self.url} cannot be looked at"):
            found = self._files.get_file_info(self.path(name))
        return found.size if found.type == fs.FileType.File else None

    def files(self) -> list[str]:
        """Return the names of all whole files in it, those in its folders too, in order."""
        with _told(f"{self.url} cannot be looked at"):
            selector = fs.FileSelector(self._root, recursive=True, allow_not_found=True)
            found = self._files.get_file_info(selector)
        names = [f.path[len(self._root) + 1 :] for f in found if f.type == fs.FileType.File]
        return sorted(n for n in names if not any(p.startswith(_PARTIAL) for p in n.split("/")))

    def folders(self) -> list[str]:
        """Return the names of the folders right in it, in order; not of what is not whole yet."""
        with _told(f"{self.url} cannot be looked at"):
            selector = fs.FileSelector(self._root, allow_not_found=True)
            found = self._files.get_file_info(selector)
        names = [f.base_name for f in found if f.type == fs.FileType.Directory]
        return sorted(name for name in names if not name.startswith(_PARTIAL))

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

    def partial(self) -> Place:
        """Return a folder within this one for what is not whole yet; no listing shows it."""
        return self.at(f"{_PARTIAL}{secrets.token_hex(6)}")


def _write_here(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f"{_PARTIAL}{secrets.token_hex(6)}")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
