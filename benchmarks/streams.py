"""Streams whose concept changes on the way: River's generators, cut to a number of rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from river.datasets import synth

Row: TypeAlias = tuple[dict[str, Any], bool]
Concept: TypeAlias = Callable[[int, int], Any]

ABRUPT = 100  # rows that a change takes; ConceptDriftStream overflows where it is much smaller


def sea(i: int, seed: int) -> Any:
    """Return SEA with 10 % label noise; concepts differ in a threshold."""
    return synth.SEA(variant=(0, 2, 3)[i], seed=seed + i, noise=0.1)


def agrawal(i: int, seed: int) -> Any:
    """Return Agrawal's loan generator; its first two concepts are beyond a linear model."""
    function = (0, 2, 6)[i]
    return synth.Agrawal(classification_function=function, seed=seed + i, perturbation=0.05)


def sine(i: int, seed: int) -> Any:
    """Return a concept that is turned upside down, and back: the hardest case."""
    return synth.Sine(classification_function=(0, 1, 0)[i], seed=seed + i)


def hyperplane(_n: int, seed: int) -> Iterator[Any]:
    """Return a hyperplane that turns slowly all the time, 5 % label noise."""
    return iter(synth.Hyperplane(seed=seed, n_features=10, n_drift_features=5, mag_change=0.002))


def abrupt(concept: Concept) -> Callable[[int, int], Iterator[Any]]:
    """Return a stream that changes its concept at each third, within `ABRUPT` rows."""
    return lambda n, seed: _thirds(concept, n, seed, ABRUPT)


def gradual(concept: Concept) -> Callable[[int, int], Iterator[Any]]:
    """Return a stream that changes its concept around each third, within a sixth of its length."""
    return lambda n, seed: _thirds(concept, n, seed, n // 6)


STREAMS: dict[str, Callable[[int, int], Iterator[Any]]] = {
    "SEA, abrupt": abrupt(sea),
    "Agrawal, abrupt": abrupt(agrawal),
    "Sine, abrupt": abrupt(sine),
    "SEA, gradual": gradual(sea),
    "Agrawal, gradual": gradual(agrawal),
    "Sine, gradual": gradual(sine),
    "Hyperplane, gradual": hyperplane,
}


def rows(stream: str, n: int, seed: int) -> list[Row]:
    """Return the first `n` rows of a stream, with plain numbers and a boolean label."""
    found = itertools.islice(STREAMS[stream](n, seed), n)
    return [({str(k): float(v) for k, v in x.items()}, bool(y)) for x, y in found]


def _thirds(concept: Concept, n: int, seed: int, width: int) -> Iterator[Any]:
    third, (first, second, last) = n // 3, (concept(i, seed) for i in range(3))
    later = synth.ConceptDriftStream(second, last, position=third, width=width, seed=seed)
    return iter(synth.ConceptDriftStream(first, later, position=third, width=width, seed=seed))
