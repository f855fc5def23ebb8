"""Options in their context, as sparse rows of numbers: what a ranker sees of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from online_learner.learners.torch.encode import Bags, Encoder, Keys, Places, mixed, words
from online_learner.learners.torch.scaling import Floats, Scaler, checked
from online_learner.requests import Features

Case: TypeAlias = tuple[Features, Sequence[Features]]  # a context, and the options in it

MAX_CROSSED = 16  # features of a context, first by name, that options are crossed with
_FARTHEST = 3.0  # standard deviations; the first few lessons tell little of the spread
_BIAS = 0  # the bucket of what all options have in common


class Encoded(NamedTuple):
    """Some cases, hashed: a bag for each option, and behind them one for each crossed feature."""

    bags: Bags
    option_cases: Places  # (n_options,) the case that an option belongs to
    feature_cases: Places  # (n_crossed,) the case that a feature of the context belongs to

    def numbers(self) -> tuple[Places, Floats]:
        """Return the bucket of each number, and the numbers."""
        numeric = self.bags.numeric
        return self.bags.indices[numeric], checked(self.bags.values[numeric])


class Rows(NamedTuple):
    """Entries of a sparse matrix of shape (n_options, buckets); those in equal places add up."""

    indices: Places  # (n_entries,) bucket
    values: Floats  # (n_entries,)
    options: Places  # (n_entries,) the option it belongs to

    def sums(self, weights: npt.NDArray[np.floating[Any]]) -> Floats:
        """Return the weighted sum of each option's entries, of shape (n_options,)."""
        return np.asarray(np.bincount(self.options, weights * self.values), np.float64)

    def by_case(self, option_cases: Places) -> list[Rows]:
        """Return the entries of each case, with its options counted from 0."""
        cases = option_cases[self.options]
        order = np.argsort(cases, kind="stable")
        firsts = np.flatnonzero(np.diff(option_cases, prepend=-1))
        stops = np.cumsum(np.bincount(cases))
        parts = zip(*(np.split(array[order], stops[:-1]) for array in self), strict=True)
        return [
            Rows(indices, values, options - first)
            for (indices, values, options), first in zip(parts, firsts, strict=True)
        ]


class Pairs:
    """Hashes what options are by themselves, and what they are in their context.

    Besides its features, an option with text has its length. Beside a context it also has the share
    of the context's words that it repeats, and the cosine to each list of the same length. And each
    feature of the context, as a whole, is crossed with each entry of the option: what suits one
    user or topic need not suit another.

    Parameters
    ----------
    buckets
        How many different entries can be told apart; beyond, some share a weight.
    ngrams
        The longest sequence of words that is an entry.
    context
        Whether the context counts.
    """

    def __init__(self, buckets: int, *, ngrams: int = 2, context: bool = True) -> None:
        self._buckets = np.uint64(buckets)
        self._encoder = Encoder(buckets, ngrams=ngrams)
        self._context = context

    def encode(self, cases: Sequence[Case]) -> Encoded:
        """Hash the options and the contexts of some cases.

        Raises
        ------
        TypeError
            A value is neither a string, a boolean, a number, nor a list or dict of such.
        """
        described: list[Features] = []
        crossed: list[Features] = []
        n_options, n_crossed = [], []
        for features, options in cases:
            known = features if self._context else {}
            names = sorted(known)[:MAX_CROSSED]
            described += _described(known, options)
            crossed += ({name: known[name]} for name in names)
            n_options.append(len(options))
            n_crossed.append(len(names))
        bags = self._encoder.encode(described + crossed)
        each = np.arange(len(cases))
        return Encoded(bags, np.repeat(each, n_options), np.repeat(each, n_crossed))

    def rows(self, encoded: Encoded, scaler: Scaler) -> Rows:
        """Return the entries of the options: their own, the crossed ones, and a bias.

        The words of an option have unit length together, and so have its standardised numbers.
        """
        bags, n_options = encoded.bags, len(encoded.option_cases)
        values = _values(bags, scaler)
        n_own = int(bags.counts[:n_options].sum())
        indices, own, options = bags.indices[:n_own], values[:n_own], bags.rows[:n_own]
        keys, weights, cases = _keys(encoded, values)
        entry, key = _crossed(encoded.option_cases[options], cases)
        crosses = mixed(mixed(indices.astype(np.uint64))[entry] + keys[key]) % self._buckets
        each = np.arange(n_options)
        return Rows(
            np.concatenate([indices, crosses.astype(np.int64), np.full(n_options, _BIAS)]),
            np.concatenate([own, own[entry] * weights[key], np.ones(n_options)]),
            np.concatenate([options, options[entry], each]),
        )


def _values(bags: Bags, scaler: Scaler) -> Floats:
    numeric = bags.numeric
    kinds = 2 * bags.rows + numeric  # the words and the numbers of one bag are two kinds
    values = 1.0 / np.sqrt(np.bincount(kinds)[kinds])
    if numeric.any():
        scaled = scaler.scale(checked(bags.values[numeric]), bags.indices[numeric])
        values[numeric] *= np.clip(scaled, -_FARTHEST, _FARTHEST)
    return values


def _keys(encoded: Encoded, values: Floats) -> tuple[Keys, Floats, Places]:
    """Return a key for each feature of the contexts, how much of it there is, and its case.

    A text is one key, whatever its length; a number is a key with a weight; a list is none.
    """
    bags, n_options = encoded.bags, len(encoded.option_cases)
    first = int(bags.counts[:n_options].sum())
    rows, counts = bags.rows[first:] - n_options, bags.counts[n_options:]
    keys = np.zeros(len(counts), np.uint64)
    np.add.at(keys, rows, mixed(bags.indices[first:].astype(np.uint64)))
    numbers = np.bincount(rows, bags.numeric[first:], len(counts))
    weights = np.where(numbers > 0, np.bincount(rows, values[first:], len(counts)), 1.0)
    kept = (counts > 0) & (numbers < 2)
    cases = encoded.feature_cases[kept]
    return keys[kept], weights[kept] / np.sqrt(np.bincount(cases)[cases]), cases


def _crossed(entry_cases: Places, key_cases: Places) -> tuple[Places, Places]:
    """Return all pairs (entry, key) of the same case, as two arrays of places."""
    n_cases = int(entry_cases[-1]) + 1 if len(entry_cases) else 0
    n_keys = np.bincount(key_cases, minlength=n_cases)
    times = n_keys[entry_cases]
    entries = np.repeat(np.arange(len(entry_cases)), times)
    nth = np.arange(len(entries)) - np.repeat(np.cumsum(times) - times, times)
    first = np.cumsum(n_keys) - n_keys
    return entries, first[entry_cases][entries] + nth


def _described(features: Features, options: Sequence[Features]) -> Iterator[Features]:
    """Yield each option with what can be told of its texts and lists, beside the context's."""
    asked = set(_words(features))
    lists = {name: value for name, value in features.items() if _is_vector(value)}
    for option in options:
        more: dict[str, Any] = {}
        texts = [value for value in option.values() if type(value) is str]
        if texts:
            more["\0length"] = math.log1p(sum(map(len, texts)))
        if texts and asked:
            more["\0shared"] = len(asked.intersection(_words(option))) / len(asked)
        if lists:
            more |= _cosines(lists, option)
        yield option | more if more else option


def _words(features: Features) -> list[int]:
    return [word for value in features.values() if type(value) is str for word in words(value)]


def _cosines(lists: Features, option: Features) -> Features:
    return {
        f"\0cosine {name} {other}": _cosine(value, theirs)
        for name, value in option.items()
        if _is_vector(value)
        for other, theirs in lists.items()
        if len(value) == len(theirs)
    }


def _is_vector(value: Any) -> bool:
    return type(value) is list and bool(value) and type(value[0]) in {float, int}


def _cosine(value: Sequence[float], other: Sequence[float]) -> float:
    a, b = checked(np.array(value, np.float64)), checked(np.array(other, np.float64))
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else 0.0
