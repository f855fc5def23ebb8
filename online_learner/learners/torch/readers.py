"""What a head sees of the features: hashed entries, or the places of a vector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from online_learner.errors import Unfit
from online_learner.learners.torch.encode import Bags, Encoder
from online_learner.learners.torch.layers import Bag, Tensors
from online_learner.learners.torch.scaling import Floats, Mask, Places, Scaler, checked
from online_learner.requests import Features

MAX_NAMES = 1000  # of features in a vector: nobody can fill the memory with them
MAX_PLACES = 16_384
ROOM = 1024  # inputs that a hashed head begins with


class Reader(Protocol):
    """Reads feature dicts into the inputs of a head's first layer."""

    width: int  # the number of inputs

    def read(self, batch: Sequence[Features]) -> Any:
        """Return the inputs, and change nothing.

        Raises
        ------
        TypeError, ValueError
            A feature cannot be taken; the message says what would be.
        """

    def learn(self, batch: Sequence[Features]) -> Any:
        """Note what there is to know of the features, and return the inputs."""

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return what `restore` needs."""

    def restore(self, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
        """Take over a state."""


class HashedReader:
    """Text, categories and numbers as hashed entries; those of one example have unit length.

    (Numbers are in standard deviations before that.) A bucket gets its input with the first lesson
    that has it, so that a head is as large as what it has seen; until then, it counts for nothing.

    Parameters
    ----------
    encoder
        What makes the entries.
    device
        Where they are wanted.
    """

    def __init__(self, encoder: Encoder, device: torch.device) -> None:
        self.width = ROOM
        self._encoder = encoder
        self._device = device
        self._scaler = Scaler(self.width)
        self._seen = np.zeros(0, np.int32)  # the buckets, in the order in which they came
        self._inputs = np.zeros(encoder.buckets, np.int64)  # of each bucket, counted from 1

    def read(self, batch: Sequence[Features]) -> Bag:
        """Return the entries, and change nothing."""
        return self._bag(self._entries(batch))

    def _entries(self, batch: Sequence[Features]) -> Bags:
        bags = self._encoder.encode(batch)
        checked(bags.values)
        return bags

    def learn(self, batch: Sequence[Features]) -> Bag:
        """Give new buckets their inputs, note the spread of the numbers, and return the entries."""
        bags = self._entries(batch)
        new = bags.indices[self._inputs[bags.indices] == 0]
        if len(new):
            self._see(np.unique(new))
        if bags.numeric.any():
            at = self._inputs[bags.indices[bags.numeric]] - 1
            self._scaler.learn_at(at, bags.values[bags.numeric])
        return self._bag(bags)

    def _see(self, buckets: Places) -> None:
        self._inputs[buckets] = len(self._seen) + np.arange(1, len(buckets) + 1)
        self._seen = np.concatenate([self._seen, buckets.astype(np.int32)])
        if len(self._seen) > self.width:  # room for more, so that a head is seldom copied
            self._lengthen(len(self._seen) * 5 // 4)

    def _lengthen(self, width: int) -> None:
        self._scaler.lengthen(width - self.width)
        self.width = width

    def _bag(self, bags: Bags) -> Bag:
        values, rows = bags.values, bags.rows
        inputs = self._inputs[bags.indices] - 1
        if bags.numeric.any():
            at = inputs[bags.numeric]
            values[bags.numeric] = self._scaler.scale(values[bags.numeric], at)
        values = np.where(inputs >= 0, values, 0.0) / np.sqrt(bags.counts)[rows]
        arrays = (np.maximum(inputs, 0), values.astype(np.float32), rows, bags.offsets)
        return Bag(*(torch.from_numpy(array).to(self._device) for array in arrays))

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return the buckets that were seen, and the spread of the numbers."""
        seen = {"seen": torch.from_numpy(self._seen)}
        return seen | self._scaler.state(), {"width": self.width}

    def restore(self, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
        """Take over the buckets and the spread."""
        self._seen = tensors["seen"].numpy()
        known = np.unique(self._seen)
        whole = self._seen.dtype == np.int32 and len(known) == len(self._seen) <= about["width"]
        if not whole or (len(known) and known[0] < 0):
            raise ValueError("its buckets are twice there, or have no input")
        self._inputs[self._seen] = np.arange(1, len(self._seen) + 1)
        self._lengthen(about["width"])
        self._scaler.restore(tensors)


class VectorReader:
    """Numbers and lists of numbers as the places of one vector, about as long as one.

    Each place is in standard deviations from its mean, over the root of the number of places.
    A feature has its places from the lesson that brought it first; where it is missing, it counts
    as the mean. A list keeps its length. What comes after `MAX_NAMES` features counts for nothing.

    Parameters
    ----------
    device
        Where the vectors are wanted.
    dim
        The length of every list; left out, that of the first lesson.
    """

    def __init__(self, device: torch.device, *, dim: int | None = None) -> None:
        self.width = 0
        self._device = device
        self._dim = dim
        self._scaler = Scaler(0)
        self._places: dict[str, slice] = {}

    def read(self, batch: Sequence[Features]) -> torch.Tensor:
        """Return the vectors, of shape (n_examples, width), and change nothing."""
        return self._tensor(*self._fill(batch))

    def learn(self, batch: Sequence[Features]) -> torch.Tensor:
        """Give new features their places, note the spread of each, and return the vectors."""
        for features in batch:
            if features.keys() - self._places.keys():
                self._add(features)
        self._scaler.lengthen(self.width - self._scaler.size)
        matrix, present = self._fill(batch)
        self._scaler.learn(matrix, present)
        return self._tensor(matrix, present)

    def _add(self, features: Features) -> None:
        for name in sorted(features.keys() - self._places.keys()):
            size = len(self._numbers(name, features[name]))
            if self.width + size <= MAX_PLACES and len(self._places) < MAX_NAMES:
                self._places[name] = slice(self.width, self.width + size)
                self.width += size

    def _numbers(self, name: str, value: Any) -> Sequence[float]:
        if not isinstance(value, int | float | list):
            raise Unfit(
                f"one is a {type(value).__name__}, and this model takes numbers and lists of "
                "numbers: torch:mixed takes categories and text too"
            )
        numbers = value if isinstance(value, list) else [value]
        place = self._places.get(name)
        known = self._dim if isinstance(value, list) else None
        wanted = known if place is None else place.stop - place.start
        if wanted is not None and len(numbers) != wanted:
            raise Unfit(f"one has {len(numbers)} numbers, and this model takes {wanted} there")
        return numbers

    def _fill(self, batch: Iterable[Features]) -> tuple[Floats, Mask]:
        examples = list(batch)
        matrix = np.zeros((len(examples), self.width))
        present = np.zeros(matrix.shape, np.bool_)
        for row, features in enumerate(examples):
            for name, value in features.items():
                numbers = self._numbers(name, value)
                places = self._places.get(name)
                if places is not None:
                    matrix[row, places] = numbers
                    present[row, places] = True
        return checked(matrix), present

    def _tensor(self, matrix: Floats, present: Mask) -> torch.Tensor:
        length = np.float32(max(self.width, 1) ** 0.5)
        vectors = np.where(present, self._scaler.scale(matrix) / length, np.float32(0))
        return torch.from_numpy(vectors).to(self._device)

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Return the places of the features, and their spread."""
        places = {name: [place.start, place.stop] for name, place in self._places.items()}
        return self._scaler.state(), {"places": places}

    def restore(self, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
        """Take over the places and the spread."""
        self._places = {name: slice(*ends) for name, ends in about["places"].items()}
        self.width = sum(place.stop - place.start for place in self._places.values())
        self._scaler = Scaler(self.width)
        self._scaler.restore(tensors)
