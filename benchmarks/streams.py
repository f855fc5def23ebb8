"""Streams whose concept changes on the way: River's generators, cut to a number of rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from river.datasets import synth

Row: TypeAlias = tuple[dict[str, Any], bool]

_ABRUPT = 100  # rows; ConceptDriftStream overflows where it is much smaller


def sea(n: int, seed: int) -> Iterator[Any]:
    """Return SEA with two abrupt drifts, 10 % label noise."""
    return _two_drifts(lambda i: synth.SEA(variant=(0, 2, 3)[i], seed=seed + i, noise=0.1), n, seed)


def agrawal(n: int, seed: int) -> Iterator[Any]:
    """Return Agrawal's loan generator with two abrupt drifts."""
    return _two_drifts(
        lambda i: synth.Agrawal(
            classification_function=(0, 2, 6)[i], seed=seed + i, perturbation=0.05
        ),
        n,
        seed,
    )


def sine(n: int, seed: int) -> Iterator[Any]:
    """Return a concept that is turned upside down abruptly, and back: the hardest case."""
    return _two_drifts(
        lambda i: synth.Sine(classification_function=(0, 1, 0)[i], seed=seed + i), n, seed
    )


def gradual(_n: int, seed: int) -> Iterator[Any]:
    """Return a hyperplane that turns slowly all the time, 5 % label noise."""
    return iter(synth.Hyperplane(seed=seed, n_features=10, n_drift_features=5, mag_change=0.002))


STREAMS: dict[str, Callable[[int, int], Iterator[Any]]] = {
    "SEA, 2 abrupt": sea,
    "Agrawal, 2 abrupt": agrawal,
    "Sine, 2 reversals": sine,
    "Hyperplane, gradual": gradual,
}


def rows(stream: str, n: int, seed: int) -> list[Row]:
    """Return the first `n` rows of a stream, with plain numbers and a boolean label."""
    found = itertools.islice(STREAMS[stream](n, seed), n)
    return [({str(k): float(v) for k, v in x.items()}, bool(y)) for x, y in found]


def _two_drifts(concept: Callable[[int], Any], n: int, seed: int) -> Iterator[Any]:
    third = n // 3
    later = synth.ConceptDriftStream(
        concept(1), concept(2), position=third, width=_ABRUPT, seed=seed
    )
    return iter(
        synth.ConceptDriftStream(concept(0), later, position=third, width=_ABRUPT, seed=seed)
    )
