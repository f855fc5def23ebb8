"""Features as sparse rows of numbers, by hashing: nothing is fitted, so new features cost nothing.

Weinberger et al., Feature Hashing for Large Scale Multitask Learning, ICML 2009. Hashes are CRC-32
followed by a mixing step: equal in every process and on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt

from online_learner.errors import Unfit
from online_learner.requests import Features

Keys: TypeAlias = npt.NDArray[np.uint64]
Places: TypeAlias = npt.NDArray[np.int64]

# Over UTF-8: letters of any script hold together, digits do, and other signs stand alone.
_TOKENS = re.compile(rb"[a-z_\x80-\xff]+(?:'[a-z]+)?|[0-9]+|[^\sa-z_0-9\x80-\xff]")
_ODD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)
_NUMBERS = (float, int)


class Bags(NamedTuple):
    """The features of a batch, as entries of a sparse matrix of shape (n_examples, buckets).

    Entries are grouped by example, as `torch.nn.functional.embedding_bag` wants them. Two entries
    of one example may fall into the same bucket: they add up.
    """

    indices: Places  # (n_entries,) bucket of each entry
    values: npt.NDArray[np.float64]  # (n_entries,) 1 for a word or a category, or the number
    numeric: npt.NDArray[np.bool_]  # (n_entries,) whether the entry carries a number
    counts: Places  # (n_examples,) entries of each example

    @property
    def offsets(self) -> Places:
        """The first entry of each example, of shape (n_examples,)."""
        return np.cumsum(self.counts) - self.counts

    @property
    def rows(self) -> Places:
        """The example of each entry, of shape (n_entries,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


class Encoder:
    """Hashes feature dicts into buckets.

    A string is read as words and n-grams of words, lower-cased, so that a category of one word is
    one entry; a boolean is a category; a number and each place of a list of numbers are an entry
    with a value; None counts as missing. The same value under another name is another feature.

    Parameters
    ----------
    buckets
        How many different features can be told apart; beyond, some share a weight.
    ngrams
        The longest sequence of words that is a feature: 1 for words alone.

    Examples
    --------
    >>> Encoder(1 << 18).encode([{"text": "Free entry!"}, {"price": 3.5}]).counts
    array([5, 1])
    """

    def __init__(self, buckets: int, *, ngrams: int = 2) -> None:
        if buckets < 1 or ngrams < 1:
            raise ValueError("`buckets` and `ngrams` are 1 or more")
        self.buckets = buckets
        self.ngrams = ngrams

    def encode(self, batch: Sequence[Features]) -> Bags:
        """Return the entries of each feature dict; the order of its features does not matter.

        Raises
        ------
        TypeError
            A value is neither a string, a boolean, a number, nor None, a list or a dict of such.
        """
        found = _Found()
        for row, features in enumerate(batch):
            found.row = row
            for name in sorted(features):
                found.add(name, features[name])
        return self._bags(found, len(batch))

    def _bags(self, found: _Found, size: int) -> Bags:
        keys, rows = ngrams_of(found.words, found.lengths, found.seeds, longest=self.ngrams)
        values, numeric = np.ones(len(keys)), np.zeros(len(keys), np.bool_)
        rows = np.array(found.rows, np.int64)[rows]
        if found.number_keys:
            more = mixed(np.array(found.number_keys, np.uint64))
            keys = np.concatenate([keys, more])
            rows = np.concatenate([rows, np.array(found.number_rows, np.int64)])
            values = np.concatenate([values, np.array(found.numbers, np.float64)])
            numeric = np.concatenate([numeric, np.ones(len(more), np.bool_)])
        order = np.argsort(rows, kind="stable")
        indices = (keys[order] % np.uint64(self.buckets)).astype(np.int64)
        counts = np.bincount(rows, minlength=size)
        return Bags(indices, values[order], numeric[order], counts)


@dataclass(slots=True)
class _Found:
    """What a batch holds, before anything is computed: texts flat, and numbers flat."""

    row: int = 0
    words: list[int] = field(default_factory=list)  # CRC-32 of each word of each text
    lengths: list[int] = field(default_factory=list)  # of each text, in words
    seeds: list[int] = field(default_factory=list)  # of each text: its name
    rows: list[int] = field(default_factory=list)  # of each text: its example
    number_keys: list[int] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    number_rows: list[int] = field(default_factory=list)

    def add(self, name: str, value: Any) -> None:
        if isinstance(value, str):
            self._text(name, words(value))
        elif isinstance(value, bool):
            self._text(name, [int(value)])
        elif isinstance(value, int | float):
            self._numbers(name, [value])
        elif isinstance(value, list):
            if value and all(type(item) in _NUMBERS for item in value):
                self._numbers(name, value)
            else:
                for item in value:
                    self.add(name, item)
        elif isinstance(value, dict):
            for key in sorted(value):
                self.add(f"{name}.{key}", value[key])
        elif value is not None:
            raise Unfit(f"one is a {type(value).__name__}, which has no encoding")

    def _text(self, name: str, found: list[int]) -> None:
        self.words += found
        self.lengths.append(len(found))
        self.seeds.append(crc32(name.encode()))
        self.rows.append(self.row)

    def _numbers(self, name: str, found: Sequence[float]) -> None:
        seed = crc32(name.encode())
        self.number_keys += (seed + (place << 32) for place in range(len(found)))
        self.numbers += found
        self.number_rows += [self.row] * len(found)


def words(text: str) -> list[int]:
    """Return a stable 32-bit hash of each word and sign of a text, lower-cased, in order.

    >>> words("Free FREE") == [crc32(b"free")] * 2
    True
    """
    return list(map(crc32, _TOKENS.findall(text.lower().encode("utf-8", "replace"))))


def ngrams_of(
    hashes: Sequence[int], lengths: Sequence[int], seeds: Sequence[int], *, longest: int = 2
) -> tuple[Keys, Places]:
    """Return the keys of all n-grams of words, and the text of each.

    Parameters
    ----------
    hashes
        The words of all texts, one text after the other, of shape (n_words,).
    lengths
        The number of words of each text, of shape (n_texts,).
    seeds
        A number for each text, of shape (n_texts,): equal words under another seed have other keys.
    longest
        The longest sequence of words.
    """
    texts = np.repeat(np.arange(len(lengths)), np.asarray(lengths, np.int64))
    found = np.asarray(hashes, np.uint64)
    key = mixed(found ^ (np.asarray(seeds, np.uint64)[texts] << _SHIFT))
    keys, places = [key], [texts]
    for n in range(1, longest):
        key = mixed(key[:-1] + found[n:])  # an (n+1)-gram is an n-gram and the word after it
        whole = texts[n:] == texts[:-n]
        keys.append(key[whole])
        places.append(texts[n:][whole])
    return np.concatenate(keys), np.concatenate(places)


def mixed(keys: Keys) -> Keys:
    """Return other keys, one for each, of which every bit depends on many bits (Fibonacci hashing).

    Combine two keys as `mixed(a + b)` where order must not matter, `mixed(mixed(a) + b)` where it
    must.
    """
    product = keys * _ODD
    return (product ^ (product >> _SHIFT)) * _ODD >> _SHIFT
