"""What differs between two versions: what they are of, and their rows, one by one.

Rows go by prediction and signal. Of each row two hashes are written to scratch files, parted by the
first; so what is compared at a time fits into memory, however many rows there are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from online_learner.dataset.columns import lines
from online_learner.dataset.manifest import Manifest
from online_learner.dataset.reading import ALL, tables
from online_learner.dataset.versions import Versions

PART_ROWS = 1_000_000  # that are compared at a time, about
_KEYS = ("id", "signal")
_PAIR = np.dtype([("key", "<u8"), ("content", "<u8")])
_SAME_IN_ALL = {"id", "files", "created_at", "took_s", "workers", "card_sha256", "checksum"}


class Difference(BaseModel):
    """What differs between two versions.

    Parameters
    ----------
    fields
        What the manifests say differently: by field, and by name within it, the two values.
    added, removed
        Rows that only the second has, or only the first.
    changed
        Rows of the same prediction and signal that say something else.
    same
        Rows that are equal in every column. Zero too where the columns differ.
    """

    a: str
    b: str
    fields: dict[str, Any]
    added: int
    removed: int
    changed: int
    same: int


def diff(versions: Versions, a: str, b: str) -> Difference:
    """Compare two versions; raises `DataError` where one is not there, or is damaged."""
    first, second = versions.get(a), versions.get(b)
    added, removed, changed, same = _rows(versions, first, second)
    return Difference(
        a=first.id,
        b=second.id,
        fields=_fields(first, second),
        added=added,
        removed=removed,
        changed=changed,
        same=same,
    )


def _fields(a: Manifest, b: Manifest) -> dict[str, Any]:
    old, new = (m.model_dump(mode="json", exclude=_SAME_IN_ALL) for m in (a, b))
    return {name: _differing(old[name], new[name]) for name in old if old[name] != new[name]}


def _differing(a: Any, b: Any) -> Any:
    """Return the two values, of dictionaries those that differ.

    >>> _differing({"x": 1, "y": 2}, {"x": 1, "y": 3, "z": 4})
    {'y': [2, 3], 'z': [None, 4]}
    """
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return [a, b]
    names = dict.fromkeys([*a, *b])
    return {name: [a.get(name), b.get(name)] for name in names if a.get(name) != b.get(name)}


def _rows(versions: Versions, a: Manifest, b: Manifest) -> tuple[int, int, int, int]:
    """Count the rows that were added, removed, changed, and those that are the same."""
    parts = 1 + sum(file.rows for file in (*a.files, *b.files)) // PART_ROWS
    with tempfile.TemporaryDirectory(prefix="online_learner-diff-") as folder:
        old = _spool(versions, a, Path(folder, "a"), parts)
        new = _spool(versions, b, Path(folder, "b"), parts)
        counts = [_compare(*pair) for pair in zip(old, new, strict=True)]
    added, removed, changed, same = map(sum, zip(*counts, strict=True))
    return added, removed, changed, same


def _spool(versions: Versions, manifest: Manifest, folder: Path, parts: int) -> list[Path]:
    """Write the hashes of all rows to as many files."""
    folder.mkdir()
    paths = [folder / str(part) for part in range(parts)]
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for pairs in _hashes(versions, manifest):
            places = pairs["key"] % parts
            for part, file in enumerate(files):
                file.write(pairs[places == part].tobytes())
    return paths


def _hashes(versions: Versions, manifest: Manifest) -> Iterator[np.ndarray[Any, Any]]:
    for table in tables(versions, manifest.id, ALL):
        keys = table.select([name for name in _KEYS if name in table.column_names])
        yield np.array(list(zip(_each(keys), _each(table), strict=True)), _PAIR)


def _each(table: pa.Table) -> Iterator[int]:
    for line in lines(table).splitlines():
        yield int.from_bytes(blake2b(line, digest_size=8).digest(), "little")


def _compare(a: Path, b: Path) -> tuple[int, int, int, int]:
    old, new = np.fromfile(a, _PAIR), np.fromfile(b, _PAIR)
    kept = _common(old["key"], new["key"])
    same = _common(old["content"], new["content"])  # of the whole row, its keys included
    return len(new) - kept, len(old) - kept, kept - same, same


def _common(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> int:
    """Return how many elements two arrays have in common, as often as both have them.

    >>> _common(np.array([1, 1, 2]), np.array([1, 1, 1, 3]))
    2
    """
    values, first = np.unique(a, return_counts=True)
    others, second = np.unique(b, return_counts=True)
    _, left, right = np.intersect1d(values, others, assume_unique=True, return_indices=True)
    return int(np.minimum(first[left], second[right]).sum())
