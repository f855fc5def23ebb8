"""Where work on parts of the log is done: here, or by workers elsewhere; with the same results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import pyarrow as pa

T = TypeVar("T")


class Runner(Protocol):
    """Does the same work on many parts."""

    def run(self, work: Callable[[T], pa.Table], parts: Sequence[T]) -> Iterator[pa.Table]:
        """Yield what the work makes of each part, in the order of the parts.

        Work and parts are pickled where they travel. All tables have the same columns. Few parts
        are under way at a time, so that memory stays bounded.
        """


class Here:
    """Does the work in this process, a part at a time."""

    def run(self, work: Callable[[T], pa.Table], parts: Sequence[T]) -> Iterator[pa.Table]:
        """Yield what the work makes of each part, in order."""
        return map(work, parts)
