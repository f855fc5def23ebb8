"""Which rows train, and which are held out: by question, by time, or by person.

- `hash`: by the question alone, so that equal questions are never on both sides.
- `time`: what was answered last is held out. What was said after the cut of an answer before it is
  in neither part: a model trained up to the cut could not have known it.
- `user`: by whom was answered: the user, else the session, else the question.

A share of [0, 1) is drawn by a keyed hash (BLAKE2b), so that a seed draws another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from online_learner.dataset.query import SplitBy
from online_learner.schema.values import canonical

TRAIN, VALIDATION = "train", "validation"
STRADDLES, BOTH = "straddles_the_cut", "on_both_sides"
_BITS = 20  # of milliseconds that are counted together at first: about 17 minutes
_WHOLE = 1 << 64


@dataclass(frozen=True, slots=True)
class Split:
    """How the rows of a dataset are parted.

    Parameters
    ----------
    share
        Of the rows, that is held out; 0 holds out nothing.
    cut_ms
        By time: when the first answer was given that is held out.
    """

    by: SplitBy
    share: float
    seed: int = 0
    cut_ms: int = 0

    def side(self, record: Mapping[str, Any], answered_ms: int, said_ms: int) -> str:
        """Return `train` or `validation`, or why a row is in neither.

        Parameters
        ----------
        record
            What was answered, as plain JSON.
        answered_ms, said_ms
            When it was, and when it was spoken of.
        """
        if not self.share:
            return TRAIN
        if self.by == "time":
            if answered_ms >= self.cut_ms:
                return VALIDATION
            return STRADDLES if said_ms >= self.cut_ms else TRAIN
        return VALIDATION if self._draw(_key(record, self.by)) < self.share else TRAIN

    def _draw(self, key: str) -> float:
        salt = str(self.seed).encode()[:16]
        digest = hashlib.blake2b(key.encode(), digest_size=8, salt=salt).digest()
        return int.from_bytes(digest, "big") / _WHOLE


def _key(record: Mapping[str, Any], by: SplitBy) -> str:
    if by == "user":
        for name in ("user_id", "session_id"):
            if record.get(name) is not None:
                return f"{name} {record[name]}"
    return f"features {canonical(_plain(record.get('features', {})))}"


def _plain(value: Any) -> Any:
    """Return features so that equal ones are written alike: some clients send 3, some 3.0."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value


Milliseconds = npt.NDArray[np.int64]


def cut_of(pages: Iterable[Milliseconds], again: Iterable[Milliseconds], share: float) -> int:
    """Return the time from which on a share of the answers, the last ones, is held out.

    Parameters
    ----------
    pages, again
        The times of all answers, in milliseconds, twice: they are counted first, and then those of
        one quarter of an hour are sorted, so that memory is bounded.
    share
        Above 0.

    Returns
    -------
    The time of the first answer that is held out; equal times are never parted.
    """
    counts: dict[int, int] = {}
    for page in pages:
        for bucket, count in zip(*np.unique(page >> _BITS, return_counts=True), strict=True):
            counts[int(bucket)] = counts.get(int(bucket), 0) + int(count)
    if not counts:
        return 0
    left = sum(counts.values()) - round(share * sum(counts.values()))
    for bucket in sorted(counts):
        if left < counts[bucket]:
            found = np.concatenate([page[page >> _BITS == bucket] for page in again])
            return int(np.sort(found)[left])
        left -= counts[bucket]
    return (max(counts) + 1) << _BITS  # nothing is held out
