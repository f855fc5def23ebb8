"""What is wanted of the log."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Format: TypeAlias = Literal["supervised", "preference", "unpaired", "reward", "sft", "tabular"]
FileFormat: TypeAlias = Literal["parquet", "jsonl"]
SplitBy: TypeAlias = Literal["hash", "time", "user"]


class Query(BaseModel):
    """What a dataset is to hold. Equal queries on an equal log give equal bytes.

    Parameters
    ----------
    since, until
        Which signals count, by when they were accepted: seconds since the epoch, the first
        included, the second not. None: from the beginning, up to now.
    where
        Which rows, as a filter; see `where`.
    split_by, validation, seed
        How rows are parted into `train` and `validation`, and how large a share is held out; 0
        holds out nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    model: str
    format: Format
    file_format: FileFormat = "parquet"
    since: float | None = None
    until: float | None = None
    where: str | None = None
    split_by: SplitBy = "hash"
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    seed: int = 0
