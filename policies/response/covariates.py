"""What is known of an answer before anybody speaks: where it stands, as a few numbers."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from online_learner.schema import Prediction, Task, label_key

SURE = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # bounds of the buckets of confidence
HIGH = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)  # where there is none: of a number, standardised
NO_SCORE = len(SURE) + 1  # the bucket of answers without a score
BUCKETS = NO_SCORE + 1
OUTPUTS = 4  # labels that are told apart; the last place is that of all others
STRATA = BUCKETS * OUTPUTS
SEGMENTS, FEATURES = 16, 64  # places into which values are hashed
WORDS, VALUES = 32, 64  # that are read of a text, and of a question
FAR = 3.0  # standard deviations at which a number is cut
BUCKET_AT = 1  # after the intercept
OUTPUT_AT = BUCKET_AT + BUCKETS
SEGMENT_AT = OUTPUT_AT + OUTPUTS
FEATURE_AT = SEGMENT_AT + SEGMENTS
SIZE = FEATURE_AT + FEATURES
KEEP = 1.0 - 1.0 / 5000  # of what is usual, with each answer
LARGEST = 1e12  # number that is told from larger ones
SMALLEST_SD = 1e-9


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answer stands.

    Parameters
    ----------
    bucket
        Of its confidence; for a number or a reward, of its height.
    stratum
        Bucket and output together, below `STRATA`.
    at, values
        The places of a vector of length `SIZE` that are not 0, and what stands there.
    asked
        Whether active learning asked for a label.
    label
        That was answered; None where the task has none.
    """

    bucket: int
    stratum: int
    at: list[int]
    values: list[float]
    asked: bool
    label: str | None = None


@dataclass(slots=True)
class Moments:
    """A mean and a variance, of late."""

    weight: float = 0.0
    mean: float = 0.0
    variance: float = 0.0

    def add(self, value: float) -> None:
        """Take in one number."""
        self.weight = KEEP * self.weight + 1.0
        gap, step = value - self.mean, 1.0 / self.weight
        self.mean += step * gap
        self.variance = (1.0 - step) * (self.variance + step * gap * gap)

    def standard(self, value: float) -> float:
        """Return a number in standard deviations from the mean, within `FAR`.

        Where all are equal, it is 1: that it is there is all that it says, as of a word's count.
        """
        deviation = math.sqrt(self.variance)
        if deviation <= SMALLEST_SD * max(1.0, abs(self.mean)):
            return 1.0
        return max(-FAR, min(FAR, (value - self.mean) / deviation))

    def pack(self) -> list[float]:
        """Return the numbers in the order of the fields."""
        return [self.weight, self.mean, self.variance]


@dataclass(slots=True)
class Covariates:
    """Places answers, by what was usual.

    Labels are told apart in the order in which they come, features by a hash: so it takes the same
    memory whatever is asked.

    Parameters
    ----------
    segments
        Features or tags whose values count beside the features.
    outputs
        The place of each label that has one of its own.
    height
        Of outputs that are numbers, or of the best reward.
    numbers
        Of the features that are numbers, by place.
    """

    task: Task
    segments: tuple[str, ...] = ()
    outputs: dict[str, int] = field(default_factory=dict)
    height: Moments = field(default_factory=Moments)
    numbers: dict[int, Moments] = field(default_factory=dict)

    def see(self, prediction: Prediction) -> None:
        """Take in what is usual."""
        if self.task == "classification":
            label = self.label(prediction)
            if label is not None and len(self.outputs) < OUTPUTS - 1:
                self.outputs.setdefault(label, len(self.outputs))
        elif (height := _height(prediction)) is not None:
            self.height.add(height)
        for place, value in _numbers(prediction.features):
            self.numbers.setdefault(place, Moments()).add(value)

    def place(self, prediction: Prediction) -> Place:
        """Return where an answer stands; it changes nothing."""
        label = self.label(prediction)
        bucket = self._bucket(prediction, label)
        output = OUTPUTS - 1 if label is None else self.outputs.get(label, OUTPUTS - 1)
        at, values = [0, BUCKET_AT + bucket, OUTPUT_AT + output], [1.0, 1.0, 1.0]
        for name, value in segment_values(prediction, self.segments):
            at.append(SEGMENT_AT + crc32(f"{name}={value}".encode()) % SEGMENTS)
            values.append(1.0)
        found = [
            (place, self.numbers.get(place, _NOTHING).standard(number))
            for place, number in _numbers(prediction.features)
        ]
        found += [(place, 1.0) for place in _words(prediction.features)]
        size = 1.0 / math.sqrt(max(1, len(found)))  # so that a long text is not louder
        at += [FEATURE_AT + place for place, _ in found]
        values += [size * value for _, value in found]
        asked = prediction.ask is not None and prediction.ask.reason == "uncertain"
        return Place(bucket, bucket * OUTPUTS + output, at, values, asked, label)

    def _bucket(self, prediction: Prediction, label: str | None) -> int:
        """Return the bucket of an answer's own confidence, as the model gave it, or its height."""
        if self.task != "classification":
            height = _height(prediction)
            if height is None:
                return NO_SCORE
            return bisect.bisect_right(HIGH, self.height.standard(height))
        score = prediction.raw_scores().get(label) if label is not None else None
        return NO_SCORE if score is None else bisect.bisect_right(SURE, score)

    def bounds(self, bucket: int) -> tuple[float | None, float | None]:
        """Return between which confidences, or heights, a bucket lies; None where it has no end."""
        if bucket == NO_SCORE:
            return None, None
        if self.task == "classification":
            edges = (0.0, *SURE, 1.0)
            return edges[bucket], edges[bucket + 1]
        deviation = math.sqrt(self.height.variance)
        ends = [None, *(self.height.mean + z * deviation for z in HIGH), None]
        return ends[min(bucket, len(HIGH))], ends[min(bucket, len(HIGH)) + 1]

    def label(self, prediction: Prediction) -> str | None:
        """Return the label that was answered, as a name; None where the task has none."""
        output = prediction.output
        return None if output is None or self.task != "classification" else label_key(output)

    def pack(self) -> dict[str, Any]:
        """Return what was usual as plain JSON."""
        numbers = {str(place): moments.pack() for place, moments in self.numbers.items()}
        return {"outputs": self.outputs, "height": self.height.pack(), "numbers": numbers}

    def unpack(self, state: Mapping[str, Any]) -> Covariates:
        """Return covariates like these, with what `pack` returned."""
        return Covariates(
            self.task,
            self.segments,
            {str(key): int(place) for key, place in state["outputs"].items()},
            Moments(*state["height"]),
            {int(place): Moments(*moments) for place, moments in state["numbers"].items()},
        )


_NOTHING = Moments()


def segment_values(prediction: Prediction, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the declared segments that an answer belongs to, with their values."""
    found = [(name, prediction.features.get(name, prediction.tags.get(name))) for name in names]
    return [(name, label_key(value)) for name, value in found if value is not None]


def _height(prediction: Prediction) -> float | None:
    if isinstance(prediction.output, int | float):
        return _cut(prediction.output)
    best = max(prediction.scores.values(), default=None)
    return None if best is None else _cut(best)


def _cut(value: float) -> float:
    return float(max(-LARGEST, min(LARGEST, value)))


def _numbers(features: Mapping[str, Any]) -> Iterator[tuple[int, float]]:
    """Yield the features that are numbers, by the place of their names."""
    for name, value in itertools.islice(features.items(), VALUES):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield crc32(name.encode()) % FEATURES, _cut(value)


def _words(features: Mapping[str, Any]) -> Iterator[int]:
    """Yield the places of what is not a number: of the words of a text, of other values as such."""
    for name, value in itertools.islice(features.items(), VALUES):
        if isinstance(value, bool):
            yield crc32(f"{name}={value}".encode()) % FEATURES
        elif isinstance(value, str):
            for word in value.lower().split(maxsplit=WORDS)[:WORDS]:
                yield crc32(f"{name}={word}".encode()) % FEATURES
