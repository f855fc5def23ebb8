"""Numbers in units of their own spread, estimated as they come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from online_learner.errors import Unfit
from online_learner.requests import MAX_MAGNITUDE

Floats: TypeAlias = npt.NDArray[np.float64]
Places: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Scaled: TypeAlias = npt.NDArray[np.float32]

BOUND = 10.0  # standard deviations; what is further away counts as this far
_SURE = 10  # numbers after which the spread is believed


class Scaler:
    """Mean and spread of each of many columns (Chan, Golub and LeVeque, COMPSTAT 1982).

    One absurd number does not silence a column for good: once the spread is known, no number counts
    as further away than `BOUND`.

    Parameters
    ----------
    size
        The number of columns.
    """

    def __init__(self, size: int) -> None:
        self._count = np.zeros(size)
        self._mean = np.zeros(size)
        self._squares = np.zeros(size)  # sum of squared distances from the mean

    @property
    def size(self) -> int:
        """The number of columns."""
        return len(self._mean)

    def lengthen(self, by: int) -> None:
        """Have more columns."""
        self._count, self._mean, self._squares = (
            np.concatenate([old, np.zeros(by)]) for old in (self._count, self._mean, self._squares)
        )

    def learn(self, matrix: Floats, present: Mask | None = None) -> None:
        """Note rows of numbers, of shape (n_rows, size), where they are `present`."""
        far = self._distance(matrix, slice(None))
        if present is None:
            count = np.full(self.size, float(len(matrix)))
        else:
            count = present.sum(0, dtype=np.float64)
            far = np.where(present, far, 0.0)
        self._merge(slice(None), count, far.sum(0), np.square(far).sum(0))

    def learn_at(self, places: Places, values: Floats) -> None:
        """Note values of shape (n_values,), each of its own column."""
        columns, which = np.unique(places, return_inverse=True)
        far = self._distance(values, places)
        count = np.bincount(which).astype(np.float64)
        self._merge(columns, count, _sums(which, far), _sums(which, far * far))

    def _distance(self, values: Floats, at: Places | slice) -> Floats:
        far = values - self._mean[at]
        spread = self._spread(at)
        known = (self._count[at] >= _SURE) & (spread > 0)
        limit = np.where(known, BOUND * spread, np.inf)
        return np.clip(far, -limit, limit)

    def _merge(self, at: Places | slice, count: Floats, total: Floats, squares: Floats) -> None:
        self._count[at] += count
        shift = total / np.maximum(self._count[at], 1.0)
        self._mean[at] += shift
        self._squares[at] = np.maximum(self._squares[at] + squares - shift * total, 0.0)

    def _spread(self, at: Places | slice) -> Floats:
        spread: Floats = np.sqrt(self._squares[at] / np.maximum(self._count[at], 1.0))
        return spread

    def scale(self, values: Floats, at: Places | slice = slice(None)) -> Scaled:
        """Return distances from the mean in standard deviations, 0 where there is no spread yet."""
        spread = self._spread(at)
        scaled = (values - self._mean[at]) / np.where(spread > 0, spread, np.inf)
        return np.clip(scaled, -BOUND, BOUND).astype(np.float32)

    def unscale(self, scaled: Floats) -> Floats:
        """Return the numbers that are `scaled` standard deviations from the mean."""
        return self._mean + scaled * self._spread(slice(None))

    def state(self) -> dict[str, torch.Tensor]:
        """Return the columns that have learned, and which they are."""
        learned = np.flatnonzero(self._count)
        return {
            "columns": torch.from_numpy(learned.astype(np.int32)),
            "count": torch.from_numpy(self._count[learned]),
            "mean": torch.from_numpy(self._mean[learned]),
            "squared": torch.from_numpy(self._squares[learned]),
        }

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over a state; all other columns have learned nothing."""
        at = state["columns"].numpy()
        if any(state[name].shape != at.shape for name in ("count", "mean", "squared")):
            raise ValueError("its columns are not as many everywhere")
        if not bool((state["squared"] >= 0).all()):
            raise ValueError("a spread is below 0")
        for name, column in (
            ("count", self._count),
            ("mean", self._mean),
            ("squared", self._squares),
        ):
            column[:] = 0.0
            column[at] = state[name].numpy()


def _sums(which: Places, values: Floats) -> Floats:
    return np.bincount(which, values).astype(np.float64, copy=False)


def checked(numbers: Floats) -> Floats:
    """Return the numbers.

    Raises
    ------
    ValueError
        One of them is not finite, or beyond any that is accepted.
    """
    if not (np.abs(numbers) <= MAX_MAGNITUDE).all():  # refuses NaN as well
        raise Unfit(f"numbers must be finite and within ±{MAX_MAGNITUDE:g}")
    return numbers
