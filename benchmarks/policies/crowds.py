"""Who says which label of what: real raters, and planted ones, as streams of words."""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from benchmarks import texts
from benchmarks.texts import Absent
from online_learner.evidence import Floats

HOME = "get_another_label"
REAL = {  # labels, truths, and of how many items without a known truth the words are taken too
    "BarzanMozafari": ("BarzanMozafari.labels.tsv.gz", "BarzanMozafari.evaluation.tsv.gz", 0),
    "AdultContent2": ("AdultContent2.labels.tsv.gz", "AdultContent2.gold.tsv.gz", 1_000),
}
NEAR = 50  # items whose words are mixed in the stream
ITEMS, RATERS = 2_000, 40
EACH = (3, 5)  # words of an item
BEST, WORST = 0.9, 0.65  # of honest raters

Word: TypeAlias = tuple[str, str, str]
"""A rater, an item, a label."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Words in their order, what is true, and which raters are known to be no good."""

    words: Sequence[Word]
    truth: Mapping[str, str]
    labels: Sequence[str]
    liars: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """How a planted crowd is made.

    Parameters
    ----------
    spam
        The share of raters who say anything, or always the same (`constant`), or what a model
        says that is right in `echo` of the items.
    alike
        How often each of the others is right; None is from `WORST` to `BEST`.
    """

    labels: int = 2
    spam: float = 0.2
    constant: bool = False
    echo: float = 0.0
    alike: float | None = None


def planted(plan: Plan, seed: int) -> tuple[Crowd, dict[str, str]]:
    """Return a planted crowd, and what the model says of each item."""
    rng = random.Random(seed)
    liars = round(plan.spam * RATERS)
    right = [plan.alike or rng.uniform(WORST, BEST) for _ in range(RATERS)]
    labels = [str(n) for n in range(plan.labels)]
    words: list[Word] = []
    truth: dict[str, str] = {}
    answers: dict[str, str] = {}
    for number in range(ITEMS):
        item = str(number)
        truth[item] = rng.choice(labels)
        answers[item] = _said(rng, labels, truth[item], plan.echo or 0.8)
        for rater in rng.sample(range(RATERS), rng.randint(*EACH)):
            label = _said(rng, labels, truth[item], right[rater])
            if rater < liars:
                label = labels[0] if plan.constant else rng.choice(labels)
                label = answers[item] if plan.echo else label
            words.append((f"human:{rater}", item, label))
    known = frozenset(f"human:{rater}" for rater in range(liars))
    return Crowd(mixed(words, seed), truth, labels, known), answers


def _said(rng: random.Random, labels: Sequence[str], truth: str, right: float) -> str:
    return truth if rng.random() < right else rng.choice([one for one in labels if one != truth])


def mixed(words: Sequence[Word], seed: int) -> list[Word]:
    """Return words with the items in a random order, those of near items mixed."""
    rng = random.Random(seed)
    items = list(dict.fromkeys(item for _, item, _ in words))
    rng.shuffle(items)
    place = {item: n for n, item in enumerate(items)}
    return sorted(words, key=lambda word: place[word[1]] + NEAR * rng.random())


def real(name: str, seed: int) -> Crowd:
    """Return a real crowd; there are no times, so that the order is a random one.

    Raises
    ------
    Absent
        The set is not on this machine.
    """
    file, truths, more = REAL[name]
    truth = {item: label for item, label, *_ in _rows(truths)}
    last = {(rater, item): label for rater, item, label in _rows(file)}
    others = sorted({item for _, item in last} - truth.keys())
    kept = set(random.Random(0).sample(others, min(more, len(others)))) | truth.keys()
    words = [(f"human:{r}", item, label) for (r, item), label in last.items() if item in kept]
    heard = {item for _, item, _ in words}
    known = {item: label for item, label in truth.items() if item in heard}
    return Crowd(mixed(words, seed), known, sorted({label for _, _, label in words}))


def spammed(crowd: Crowd, share: float, seed: int) -> Crowd:
    """Return a crowd in which a share of all raters say anything."""
    rng = random.Random(seed)
    raters = sorted({rater for rater, _, _ in crowd.words})
    liars = frozenset(rng.sample(raters, round(share * len(raters))))
    words = [
        (r, i, rng.choice(crowd.labels) if r in liars else label) for r, i, label in crowd.words
    ]
    return replace(crowd, words=words, liars=liars)


def _rows(name: str) -> list[list[str]]:
    path = texts.HOME / HOME / name
    if not path.exists():
        raise Absent(f"{path} is not there: set OL_BENCH_DATA to where the sets are")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def accuracy(votes: Mapping[str, Mapping[str, float]], truth: Mapping[str, str]) -> float:
    """Return the share of items whose winner is true; of several winners each has its share."""
    total = 0.0
    for item, right in truth.items():
        most = max(votes[item].values())
        winners = [label for label, n in votes[item].items() if n >= most - 1e-9]
        total += (right in winners) / len(winners)
    return total / len(truth)


def majority(crowd: Crowd, *, liars: bool = True) -> float:
    """Return the accuracy of the majority, or of that without those who are no good."""
    votes: dict[str, dict[str, float]] = {
        item: dict.fromkeys(crowd.labels, 0.0) for _, item, _ in crowd.words
    }
    for rater, item, label in crowd.words:
        votes[item][label] += liars or rater not in crowd.liars
    return accuracy(votes, crowd.truth)


def batch(crowd: Crowd, *, rounds: int = 40, smooth: float = 0.1) -> float:
    """Return the accuracy of Dawid and Skene's algorithm on all words at once."""
    ids = [
        {name: n for n, name in enumerate(dict.fromkeys(column))}
        for column in zip(*crowd.words, strict=True)
    ]
    rater, item, label = (
        np.array([known[name] for name in column])
        for known, column in zip(ids, zip(*crowd.words, strict=True), strict=True)
    )
    labels = len(ids[2])
    posterior: Floats = np.zeros((len(ids[1]), labels))
    np.add.at(posterior, (item, label), 1.0)
    posterior /= posterior.sum(axis=1, keepdims=True)
    for _ in range(rounds):
        tables = np.full((len(ids[0]), labels, labels), smooth)
        for k in range(labels):
            np.add.at(tables[:, k], (rater, label), posterior[item, k])
        tables /= tables.sum(axis=2, keepdims=True)
        logs = np.tile(np.log(posterior.mean(axis=0) + 1e-12), (len(ids[1]), 1))
        for k in range(labels):
            np.add.at(logs[:, k], item, np.log(tables[rater, k, label]))
        posterior = np.exp(logs - logs.max(axis=1, keepdims=True))
        posterior /= posterior.sum(axis=1, keepdims=True)
    votes = {
        name: {one: float(posterior[n, k]) for one, k in ids[2].items()}
        for name, n in ids[1].items()
    }
    return accuracy(votes, crowd.truth)
