"""What has been moved from the store to the archive."""

from __future__ import annotations

from pydantic import Field

from online_learner.schema.values import Record


class Segment(Record):
    """A file of the archive: a stretch of one stream, whole and in order.

    Parameters
    ----------
    stream
        By its short name: `predictions`, `feedback`, ...
    after, last
        It holds the entries after the first, up to and with the second. Segments of a stream follow
        each other: one begins where another ends.
    first
        The first entry in it.
    path
        Within the archive.
    sha256
        Of the file.
    cuts
        The last entry of each of its row groups.
    form
        The version of its columns; see `archive.form`.
    """

    stream: str
    after: str
    last: str
    first: str
    path: str
    rows: int
    size: int  # bytes
    sha256: str
    cuts: list[str] = Field(default_factory=list)
    form: int = 1
