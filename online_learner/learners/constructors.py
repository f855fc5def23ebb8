"""What pickles of models call beside River: constructors, each with what it may be given.

A constructor is harmless only with harmless arguments: `Counter(x)` iterates over x, `str(x)` asks
it for a text, and a Mersenne Twister that stands at a place behind its end reads foreign memory.
"""

from __future__ import annotations

import functools
import random
import statistics
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta, timezone
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from online_learner.learners.opcodes import ATOMS, NotAllowed, are_atoms

Name: TypeAlias = tuple[str, str]  # module, qualified name
Arguments: TypeAlias = tuple[Any, ...]

_KINDS = "biufcSU"  # of arrays: numbers and text, no pointers
_TWISTER_WORDS = 624
_MOST_POOL = 64  # words of a seed sequence: 4, if nobody says so
_SEQUENCES = (list, tuple, str, bytes, range)


# --- arguments --------------------------------------------------------------------------------


def _none(given: Arguments) -> bool:
    return not given


def _of_time(given: Arguments) -> bool:
    return all(type(part) in ATOMS or type(part) in (timedelta, timezone) for part in given)


def _one_dict(given: Arguments) -> bool:
    return len(given) == 1 and type(given[0]) is dict


def _one_sequence(given: Arguments) -> bool:
    return len(given) == 1 and type(given[0]) in _SEQUENCES


def _no_items(given: Arguments) -> bool:
    return not given or (_is_tuple_of(0, given[0]) and are_atoms(given[1:]))


def _one_factory(given: Arguments) -> bool:
    return len(given) <= 1 and all(part is None or callable(part) for part in given)


def _one_function(given: Arguments) -> bool:
    return len(given) == 1 and _can_be_partial(given[0])


def _can_be_partial(function: Any) -> bool:
    return callable(function) and type(function) is not functools.partial  # freed recursively


def _of_vector(given: Arguments) -> bool:
    data, factory, mask, *rest = given
    masks = (dict, frozenset, set, type(None))
    known = factory is None or issubclass(type(factory), type)
    return type(data) is dict and known and type(mask) in masks and are_atoms(rest)


def _bits_class(given: Arguments) -> bool:
    return len(given) == 1 and any(given[0] is kind for kind in _BITS)


def _bits(given: Arguments) -> bool:
    return len(given) == 1 and type(given[0]) in _BITS


def _seed_class(given: Arguments) -> bool:
    kind, checksum, state = given
    return kind is np.random.SeedSequence and type(checksum) is int and state is None


CALLS: Mapping[Name, Callable[[Arguments], bool]] = MappingProxyType(
    {
        ("builtins", "complex"): are_atoms,
        ("builtins", "iter"): _one_sequence,
        ("builtins", "range"): are_atoms,
        ("builtins", "slice"): are_atoms,
        ("collections", "Counter"): _one_dict,
        ("collections", "OrderedDict"): _none,
        ("collections", "defaultdict"): _one_factory,
        ("collections", "deque"): _no_items,
        **{("datetime", name): _of_time for name in ("date", "datetime", "time", "timezone")},
        ("datetime", "timedelta"): are_atoms,
        ("decimal", "Decimal"): are_atoms,
        ("fractions", "Fraction"): are_atoms,
        ("functools", "partial"): _one_function,
        ("numpy.random._pickle", "__bit_generator_ctor"): _bits_class,
        ("numpy.random._pickle", "__generator_ctor"): _bits,
        ("numpy.random._pickle", "__randomstate_ctor"): _bits,
        ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"): _seed_class,
        ("operator", "itemgetter"): are_atoms,
        ("random", "Random"): _none,
        ("re", "_compile"): are_atoms,
        ("river._river_rust.vectordict", "VectorDict"): _of_vector,
    }
)


# --- states -----------------------------------------------------------------------------------


def _is_tuple_of(count: int, state: Any) -> bool:
    return type(state) is tuple and len(state) == count


def _partial_state(state: Any) -> bool:
    if not _is_tuple_of(4, state):
        return False
    function, given, options, attributes = state
    either = (dict, type(None))
    kinds = type(given) is tuple and type(options) in either and type(attributes) in either
    return kinds and _can_be_partial(function)


def _random_state(state: Any) -> bool:
    if not _is_tuple_of(3, state):
        return False
    version, words, after = state
    kinds = type(version) is int and type(words) is tuple and type(after) in ATOMS
    return kinds and set(map(type, words)) == {int}


def _generator_state(state: Any) -> bool:
    """Take the state of random numbers of numpy, with its seeds or without."""
    if _is_tuple_of(2, state):
        state, seeds = state
        if type(seeds) not in (type(None), np.random.SeedSequence):
            return False
    return type(state) is dict and all(
        _inner_state(value) if name == "state" else type(value) in ATOMS
        for name, value in state.items()
    )


def _inner_state(state: Any) -> bool:
    if type(state) is not dict:
        return False
    if state.keys() == {"key", "pos"}:
        place = state["pos"]
        words = _is_words(state["key"], _TWISTER_WORDS)
        return words and type(place) is int and 0 <= place <= _TWISTER_WORDS
    return state.keys() == {"state", "inc"} and set(map(type, state.values())) == {int}


def _is_words(array: Any, count: int) -> bool:
    known = type(array) is np.ndarray and array.dtype == np.uint32
    return known and array.shape == (count,)


def _seed_state(state: Any) -> bool:
    if not _is_tuple_of(5, state):
        return False
    entropy, children, pool, size, spawned = state
    numbers = type(children) is type(size) is int and 0 < size <= _MOST_POOL
    entropies = entropy if type(entropy) is list else [entropy]
    whole = are_atoms(entropies) and type(spawned) is tuple and are_atoms(spawned)
    return numbers and whole and _is_words(pool, size)


def _uuid_state(state: Any) -> bool:
    return type(state) is dict and state.keys() == {"int"} and type(state["int"]) is int


def _two_numbers(state: Any) -> bool:
    return _is_tuple_of(2, state) and are_atoms(state)


def _flat_tuple(state: Any) -> bool:
    return type(state) is tuple and are_atoms(state)


def _atom(state: Any) -> bool:
    return type(state) in ATOMS


# --- arrays: made here, because a forged `numpy.dtype` turns any bytes into pointers ------------


class ArrayKind:
    """Stands for a `numpy.dtype` while a pickle is read; its state is not taken from there."""

    def __init__(self, code: str, *_: bool) -> None:
        self.dtype = np.dtype(code)
        if self.dtype.kind not in _KINDS:
            raise NotAllowed("it holds an array of something else than numbers and text")

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, order, *inner = state
        if any(part is not None for part in inner[:3]):
            raise NotAllowed("it holds an array of records")
        self.dtype = self.dtype.newbyteorder(order)


def _array(buffer: Any, kind: ArrayKind, shape: Any, order: Any) -> npt.NDArray[Any]:
    return np.frombuffer(buffer, dtype=kind.dtype).reshape(shape, order=order)


def _scalar(kind: ArrayKind, data: bytes) -> Any:
    return np.frombuffer(data, dtype=kind.dtype, count=1)[0]


def _of_array(given: Arguments) -> bool:
    buffer, kind, shape, order = given
    flat = type(buffer) in (bytearray, bytes) and type(shape) is tuple and are_atoms(shape)
    return flat and type(kind) is ArrayKind and type(order) is str


def _of_scalar(given: Arguments) -> bool:
    kind, data = given
    return type(kind) is ArrayKind and type(data) is bytes


STAND_INS: dict[Name, tuple[Any, Callable[[Arguments], bool]]] = {
    ("numpy", "dtype"): (ArrayKind, are_atoms)
}
for _core in ("numpy._core", "numpy.core"):  # by its name in numpy 2, and in numpy 1
    STAND_INS[f"{_core}.numeric", "_frombuffer"] = (_array, _of_array)
    STAND_INS[f"{_core}.multiarray", "scalar"] = (_scalar, _of_scalar)

_BITS = (np.random.MT19937, np.random.PCG64)
STATES: Mapping[type, Callable[[Any], bool]] = MappingProxyType(
    {
        ArrayKind: _flat_tuple,
        functools.partial: _partial_state,
        random.Random: _random_state,
        statistics.NormalDist: _two_numbers,
        uuid.UUID: _uuid_state,
        np.random.SeedSequence: _seed_state,
        **dict.fromkeys([*_BITS, np.random.RandomState, np.random.Generator], _generator_state),
        **{type(iter(kind())): _atom for kind in (list, tuple, str, bytes)},
    }
)
