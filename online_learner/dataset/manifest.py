"""What a version of a dataset is made of. The hash of that is its name."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from online_learner.dataset.query import Query
from online_learner.schema import canonical

_ID_CHARS = 16
_OUTSIDE = {"id", "created_at", "took_s", "workers"}  # of the hash


class File(BaseModel):
    """One file of a version."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str  # within the version's folder: "train/part-00000.parquet"
    split: str
    rows: int
    size: int  # bytes
    sha256: str


class Manifest(BaseModel):
    """All that is known of a version.

    Parameters
    ----------
    id
        The first 16 hex digits of the SHA-256 of all the rest but times and number of workers.
    watermarks
        By stream, the last entry that was looked at.
    counts
        `predictions`, `signals`, `rows`, and `answered`: predictions of which anybody spoke.
    by_kind, excluded
        Rows by kind of signal; signals that made no row, by reason.
    balance
        Rows by label, or by what stands for it in the format.
    response
        Who speaks: the share of answers of which anybody spoke, by output.
    raters
        By source, how many rows it gave and what these weigh on average; the most active first.
    config_sha256, code_sha256
        Of the model's configuration, and of the code that compiled it.
    columns
        Name and type of each column, in order.
    parents
        Versions that it was made from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = ""
    query: Query
    watermarks: dict[str, str] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    by_kind: dict[str, int] = Field(default_factory=dict)
    excluded: dict[str, int] = Field(default_factory=dict)
    balance: dict[str, int] = Field(default_factory=dict)
    splits: dict[str, int] = Field(default_factory=dict)
    response: dict[str, dict[str, int]] = Field(default_factory=dict)
    raters: dict[str, dict[str, float]] = Field(default_factory=dict)
    config_sha256: str = ""
    code_sha256: str = ""
    columns: dict[str, str] = Field(default_factory=dict)
    parents: list[str] = Field(default_factory=list)
    libraries: dict[str, str] = Field(default_factory=dict)
    files: list[File] = Field(default_factory=list)
    created_at: float = 0.0
    took_s: float = 0.0
    workers: int = 0

    def named(self) -> Manifest:
        """Return the manifest with its id."""
        document: dict[str, Any] = self.model_dump(mode="json", exclude=_OUTSIDE)
        digest = hashlib.sha256(canonical(document).encode()).hexdigest()
        return self.model_copy(update={"id": digest[:_ID_CHARS]})
