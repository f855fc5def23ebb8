"""What has been moved from the store to the archive."""

from __future__ import annotations

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
    path
        Within the archive.
    sha256
        Of the file.
    form
        The version of its columns; see `archive.form`.
    """

    stream: str
    after: str
    last: str
    path: str
    rows: int
    size: int  # bytes
    sha256: str
    form: int = 1
