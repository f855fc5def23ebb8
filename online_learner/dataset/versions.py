"""Versions of one model's datasets: each a folder that stays as it is, named by what it is of.

    <datasets>/<id>/train/part-00000.parquet
                    validation/part-00000.parquet
                    manifest.json
                    README.md

On this machine a version is moved into its place at once; in an object store its manifest comes
last, and a folder without one is no version.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

import pyarrow as pa

from online_learner.archive.place import PARTIAL, Place, sync
from online_learner.dataset.card import render
from online_learner.dataset.columns import columns_of
from online_learner.dataset.manifest import CARD, MANIFEST, File, Manifest
from online_learner.dataset.sinks import Sink, make_sink
from online_learner.dataset.verifying import all_troubles, troubles
from online_learner.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from online_learner.dataset.comparing import Difference

Manifests: TypeAlias = list[Manifest]
Texts: TypeAlias = list[str]

LATEST = "latest"
_LOCK = "lock"
_SHORTEST = 4  # characters that may stand for an id


class Draft:
    """A version that is being written. No listing shows it, and it is gone if it is discarded.

        with Draft(datasets) as draft:
            sink = draft.sink("train", schema, "parquet")
            sink.write(table)
            files = sink.close()
            manifest = draft.publish(manifest.model_copy(update={"files": files}))

    Left without being published, it discards itself.
    """

    def __init__(self, datasets: Place) -> None:
        self.datasets = datasets
        self._folder = datasets.partial()
        self._files = self._folder.at("version")
        self._sinks: list[Sink] = []
        self._columns: dict[str, str] = {}
        self._lock: int | None = None
        if datasets.local is not None and self._folder.local is not None:
            _clear(datasets.local)
            self._lock = _locked(self._folder.local)

    @property
    def scratch(self) -> Place:
        """Where parts and decisions can be put meanwhile; it goes with the draft."""
        return self._folder.at("scratch")

    def sink(self, split: str, schema: pa.Schema, file_format: str) -> Sink:
        """Return what takes the rows of a split. Columns of JSON are made by `columns.json_field`.

        Raises
        ------
        ValueError
            A column is of a type that is not written to datasets.
        """
        found = make_sink(self._files, split, schema, file_format)
        self._sinks.append(found)
        self._columns = columns_of(schema)
        return found

    def publish(self, manifest: Manifest) -> Manifest:
        """Name the version by its manifest, and put it into its place; the draft is over.

        Where it is there already, with all its bytes, that one is returned, and nothing is written.

        Raises
        ------
        DataError
            It cannot be written (`no_space`, `not_writable`), or one is there by that name that is
            damaged (`exists`). Nothing is left of the draft.
        """
        try:
            return self._publish(manifest)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove all that was written."""
        for sink in self._sinks:
            sink.abandon()
        self._sinks.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        _remove(self.datasets, self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.discard()

    def _publish(self, manifest: Manifest) -> Manifest:
        update = {"columns": self._columns or manifest.columns}
        named = manifest.model_copy(update=update).named()
        card = render(named).encode()
        sealed = named.sealed(card)
        versions = Versions(self.datasets)
        if versions.there(named.id):
            return versions.same(named.id)
        self._files.write(CARD, card)
        self._files.write(MANIFEST, sealed.document())
        if self.datasets.local is None:
            self._send(sealed)
        elif not self._move(named.id):
            return versions.same(named.id)
        return sealed

    def _move(self, name: str) -> bool:
        """Rename the folder into place; tell whether it was free."""
        source, target = self._files.local, self.datasets.at(name).local
        assert source is not None
        assert target is not None
        _make_read_only(source)
        try:
            source.rename(target)
        except OSError as error:
            if target.is_dir():
                return False
            raise DataError(
                f"{target} cannot be written: {error.strerror}", code="not_writable"
            ) from error
        sync(target.parent)
        return True

    def _send(self, manifest: Manifest) -> None:
        target = self.datasets.at(manifest.id)
        for name in (*(file.path for file in manifest.files), CARD, MANIFEST):
            self._files.copy(name, target)


class Versions:
    """All versions of one model's datasets."""

    def __init__(self, datasets: Place) -> None:
        self.datasets = datasets
        self._checked: set[tuple[str, str]] = set()

    def folders(self) -> Texts:
        """Return the names of all folders there, those of damaged versions too."""
        return self.datasets.folders()

    def there(self, name: str) -> bool:
        """Tell whether there is a version of exactly that name, sound or not."""
        if self.datasets.local is not None:
            return name in self.folders()
        return self.datasets.at(name).size(MANIFEST) is not None

    def list(self) -> Manifests:
        """Return the manifests of all versions that can be read, the newest first."""
        found = []
        for name in self.folders():
            with contextlib.suppress(DataError):
                found.append(self.read(name))
        return sorted(found, key=lambda manifest: (-manifest.created_at, manifest.id))

    def damaged(self) -> dict[str, str]:
        """Return the versions that cannot be listed, with why."""
        found = {}
        for name in self.folders():
            try:
                self.read(name)
            except DataError as error:
                found[name] = str(error)
        return found

    def get(self, name: str = LATEST) -> Manifest:
        """Return the manifest of a version: by its id, by how this begins, or the `latest`.

        Raises
        ------
        DataError
            There is none of that name, or more than one (`missing`); or it is damaged.
        """
        return self.read(self.find(name))

    def find(self, name: str) -> str:
        """Return the whole id of a version that `get` takes; raises as that does."""
        if name != LATEST:
            return self.resolve(name)
        if found := self.list():
            return found[0].id
        raise DataError(
            "there is no version yet: compile one with `online-learner dataset compile`",
            code="missing",
        )

    def resolve(self, name: str) -> str:
        """Return the whole id that a name, or how it begins, stands for; raises as `get` does."""
        known = self.folders()
        if name in known:
            return name
        fits = [each for each in known if len(name) >= _SHORTEST and each.startswith(name)]
        if len(fits) == 1:
            return fits[0]
        if fits:
            more = ", ".join(fits)
            raise DataError(f"more than one version begins like that: {more}", code="missing")
        hint = did_you_mean(name, known) or " `online-learner dataset list` shows those there are."
        raise DataError(f"there is no such version.{hint}", code="missing")

    def place(self, name: str) -> Place:
        """Return the folder of a version, by its whole id."""
        return self.datasets.at(name)

    def read(self, name: str) -> Manifest:
        """Return the manifest in a folder.

        Raises
        ------
        DataError
            It is not there (`missing`), `damaged`, or of a newer release (`other_form`).
        """
        if self.place(name).size(MANIFEST) is None:
            raise DataError(
                f"{name} has no {MANIFEST}: it is no whole version. {_CURE}", code="missing"
            )
        try:
            found = Manifest.parse(self.place(name).read(MANIFEST))
        except DataError as error:
            raise DataError(f"{name} is damaged: {error}. {_CURE}", code=error.code) from error
        if found.id != name:
            raise DataError(f"{name} is damaged: its {MANIFEST} is of {found.id}. {_CURE}")
        return found

    def verify(self, name: str) -> Texts:
        """Look at every byte of a version, and return what is wrong: nothing, if it is sound.

        Raises
        ------
        DataError
            There is no such version.
        """
        name = self.find(name)
        try:
            manifest = self.read(name)
        except DataError as error:
            return [str(error)]
        return [*all_troubles(self.place(name), manifest)]

    def same(self, name: str) -> Manifest:
        """Return the version of that name, after it was verified; raises `DataError`: `exists`."""
        if problems := self.verify(name):
            raise DataError(
                f"the version {name} is there, and is damaged: {problems[0]}. Nothing was "
                "overwritten. Remove it with `online-learner dataset remove`, and compile again",
                code="exists",
            )
        return self.read(name)

    def check(self, name: str, file: File) -> None:
        """Make sure, once, that a file is as it was written; raises `DataError`."""
        if (name, file.path) in self._checked:
            return
        for trouble in troubles(self.place(name), file):
            raise DataError(f"{name} is damaged: {trouble}. {_CURE}")
        self._checked.add((name, file.path))

    def remove(self, name: str) -> None:
        """Remove a version; raises `DataError` where there is none by that whole id."""
        if name not in self.folders():
            raise DataError("there is no such version: nothing was removed", code="missing")
        self._checked = {(each, path) for each, path in self._checked if each != name}
        local = self.datasets.local
        if local is None:
            self.place(name).remove(MANIFEST)  # first: then it is no version any more
            self.datasets.remove_folder(name)
            return
        gone = self.datasets.partial()
        assert gone.local is not None
        try:
            (local / name).rename(gone.local)  # at once: nobody sees half of it
        except OSError as error:
            raise DataError(
                f"{name} cannot be removed: {error.strerror}", code="not_writable"
            ) from error
        _remove(self.datasets, gone)

    def diff(self, a: str, b: str) -> Difference:
        """Compare two versions; raises `DataError` where one is not there, or is damaged."""
        from online_learner.dataset.comparing import diff

        return diff(self, a, b)

    def holding(self, signals: Iterable[str]) -> Texts:
        """Return the ids of the versions that hold a row of any of these signals.

        A version that cannot be read may hold anything, and is among them. What compilations that
        were killed have left is removed.
        """
        from online_learner.dataset.reading import holds

        wanted = frozenset(signals)
        if not wanted:
            return []
        if self.datasets.local is not None:
            _clear(self.datasets.local)
        return [name for name in self.folders() if holds(self, name, wanted)]

    def naming(self, names: Iterable[str]) -> Texts:
        """Return the ids of the versions whose filter has one of these names, as a text."""
        texts = "|".join(re.escape(name.replace("'", "''")) for name in names)
        named = re.compile(f"[':](?:{texts})'") if texts else None
        found = self.list() if named is not None else []
        return [each.id for each in found if named and named.search(each.query.where or "")]


_CURE = "Remove it with `online-learner dataset remove`, and compile it again"


def _make_read_only(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(path.stat().st_mode & ~0o222)
        else:
            sync(path)
    sync(folder)


def _remove(datasets: Place, folder: Place) -> None:
    """Remove a folder of what is not whole; if it cannot be, no listing shows it all the same."""
    if folder.local is not None:
        shutil.rmtree(folder.local, ignore_errors=True)
        return
    with contextlib.suppress(DataError):
        datasets.remove_folder(folder.name)


def _locked(folder: Path) -> int:
    """Make a folder, and hold a lock in it for as long as this process lives, or until closed."""
    try:
        folder.mkdir(parents=True, mode=0o700)
        lock = os.open(folder / f"{_LOCK}.new", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (folder / f"{_LOCK}.new").rename(folder / _LOCK)  # nobody sees it before it is held
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise DataError(
            f"{folder} cannot be made: {error.strerror}",
            code="no_space" if full else "not_writable",
        ) from error
    return lock


def _clear(datasets: Path) -> None:
    """Remove what processes have left that were killed: nobody holds its lock any more.

    A version that was on its way out has no lock: it had been moved aside as a whole.
    """
    for folder in datasets.glob(f"{PARTIAL}*"):
        if (folder / MANIFEST).exists():
            shutil.rmtree(folder, ignore_errors=True)
            continue
        with contextlib.suppress(OSError):  # another one clears it, or nobody may
            lock = os.open(folder / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
