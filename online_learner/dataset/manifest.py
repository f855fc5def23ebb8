"""What a version of a dataset is made of. The hash of that is its name."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from online_learner.dataset.query import Query
from online_learner.errors import DataError
from online_learner.schema import canonical

MANIFEST, CARD = "manifest.json", "README.md"

_ID_CHARS = 16
_CHECKS = {"checksum"}
_OUTSIDE = {"id", "created_at", "took_s", "workers", "card_sha256"} | _CHECKS  # of the hash


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
        Name and type of each column, in order; `json` is JSON as text.
    parents
        Versions that it was made from.
    card_sha256
        Of the card, as it was written.
    checksum
        The SHA-256 of all the rest, the id and the times as well.
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
    card_sha256: str = ""
    checksum: str = ""

    def named(self) -> Manifest:
        """Return the manifest with its id."""
        return self.model_copy(update={"id": _digest(self, _OUTSIDE)[:_ID_CHARS]})

    def sealed(self, card: bytes) -> Manifest:
        """Return the named manifest with the hash of its card, and a checksum over everything."""
        whole = self.model_copy(update={"card_sha256": hashlib.sha256(card).hexdigest()})
        return whole.model_copy(update={"checksum": _digest(whole, _CHECKS)})

    def sound(self) -> bool:
        """Tell whether id and checksum are those of what it says."""
        return self.id == self.named().id and self.checksum == _digest(self, _CHECKS)

    def document(self) -> bytes:
        """Return the manifest as it is written to its file."""
        return (self.model_dump_json(indent=2) + "\n").encode()

    @classmethod
    def parse(cls, document: bytes) -> Manifest:
        """Return the manifest that a file holds.

        Raises
        ------
        DataError
            It is not as it was written (`damaged`), or of a newer release (`other_form`).
        """
        try:
            found = cls.model_validate_json(document)
        except ValidationError as error:
            if any(item["type"] == "extra_forbidden" for item in error.errors()):
                raise DataError(
                    f"its {MANIFEST} has fields that this release does not know: read it with the "
                    "release that wrote it, or a newer one",
                    code="other_form",
                ) from error
            raise DataError(f"its {MANIFEST} cannot be read") from error
        # As far as it was written: a release with more fields takes it for what it was.
        written = (found.model_dump_json(indent=2, exclude_unset=True) + "\n").encode()
        if written != document or not found.sound():
            raise DataError(f"its {MANIFEST} is not as it was written")
        return found


def _digest(manifest: Manifest, outside: set[str]) -> str:
    # Fields at their default are left out, so that a field that is new changes no name.
    document: dict[str, Any] = manifest.model_dump(
        mode="json", exclude=outside, exclude_defaults=True
    )
    return hashlib.sha256(canonical(document).encode()).hexdigest()
