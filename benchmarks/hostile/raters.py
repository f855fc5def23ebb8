"""Who rates, and what of: honest raters who err, and liars; streams that stay as they are."""

from __future__ import annotations

import csv
import gzip
import itertools
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from river import datasets, linear_model, optim
from river.datasets import synth

from benchmarks import models, streams, texts
from benchmarks.streams import Row
from benchmarks.texts import Absent

N, WARM, RATERS = 12_000, 600, 500
NOISE = 0.05  # of honest labels that are wrong
SOURCE = "human:"
ADULT = "get_another_label/AdultContent2"
GOLD = 5  # labels with a known truth from which a real rater's errors are told


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who rates, and how.

    Parameters
    ----------
    liars, activity
        The share of raters who say the opposite of the truth, and how many times as many labels
        each of them gives as an honest one.
    from_
        The part of the stream after which they lie, and are so active; honest before.
    careful
        The share of their labels that are lies.
    region
        Whether they lie only where the sum of the features is above its median.
    deny
        Whether they lie only where the truth is true.
    names
        Whether each lie comes from a name that was never heard before.
    keen
        The share of all labels that one honest rater gives.
    critics
        The share of raters who only speak where the answer was wrong.
    skewed
        Whether the n-th rater gives 1/n as many labels as the first.
    real
        Whether activity and errors are those of the 825 raters of AdultContent2.
    group, apart
        The share of raters who are of a group of their own, which the features tell, and the share
        of the inputs for which the truth is the opposite to them. They are honest.
    """

    raters: int = RATERS
    liars: float = 0.0
    activity: float = 1.0
    from_: float = 0.0
    careful: float = 1.0
    region: bool = False
    deny: bool = False
    names: bool = False
    keen: float = 0.0
    critics: float = 0.0
    skewed: bool = False
    real: bool = False
    group: float = 0.0
    apart: float = 1.0

    def chances(self, *, lying: bool) -> list[float]:
        """Return the cumulated chance of each rater to be the next; liars come first."""
        chances = [1.0 / (n + 1) if self.skewed else 1.0 for n in range(self.raters)]
        if self.real:
            chances = [labels for labels, _ in people()]
        if lying:
            for n in range(self.lying):
                chances[n] *= self.activity
        if self.keen:
            chances[-1] = sum(chances[:-1]) * self.keen / (1.0 - self.keen)
        return list(itertools.accumulate(chances))

    @property
    def lying(self) -> int:
        """The number of liars."""
        return round(self.liars * self.raters)

    def noise(self, rater: int) -> float:
        """Return how often an honest rater errs."""
        return people()[rater][1] if self.real else NOISE

    def in_group(self, rater: int) -> bool:
        """Tell whether a rater is of the group: the last ones are."""
        return rater >= self.raters - round(self.group * self.raters)


@dataclass(frozen=True, slots=True)
class Said:
    """What one rater is going to say of one row, or would."""

    rater: str
    label: bool
    critic: bool
    liar: bool
    grouped: bool = False


@lru_cache(maxsize=1)
def people() -> list[tuple[float, float]]:
    """Return how many labels each rater of AdultContent2 gave, and the share that was wrong.

    Wrong is what the gold says of `G` against the other classes. Who has fewer than `GOLD` labels
    of a known truth has the errors of one who has.

    Raises
    ------
    Absent
        The set is not on this machine.
    """
    gold = dict(_table(f"{ADULT}.gold.tsv.gz"))
    labels, wrong = Counter[str](), defaultdict[str, list[bool]](list)
    for rater, item, label in _table(f"{ADULT}.labels.tsv.gz"):
        labels[rater] += 1
        if item in gold:
            wrong[rater].append((label == "G") != (gold[item] == "G"))
    known = {rater: sum(w) / len(w) for rater, w in wrong.items() if len(w) >= GOLD}
    others, rng = sorted(known.values()), random.Random(0)
    return [(n, known.get(rater, rng.choice(others))) for rater, n in labels.items()]


def there_are_people() -> bool:
    """Tell whether AdultContent2 is on this machine."""
    try:
        return bool(people())
    except Absent:
        return False


def _table(name: str) -> list[list[str]]:
    path = texts.HOME / name
    if not path.exists():
        raise Absent(f"{path} is not there: set OL_BENCH_DATA to where the sets are")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return [row[:3] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


@lru_cache(maxsize=8)
def rows_of(stream: str, seed: int, n: int = N) -> tuple[Row, ...]:
    """Return the rows of a stream that stays as it is, or of one that drifts."""
    if stream in FIXED:
        return tuple(itertools.islice(FIXED[stream](seed), n))
    return tuple(streams.rows(stream, n, seed))


def there(stream: str) -> bool:
    """Tell whether the data of a stream are on this machine."""
    try:
        return stream not in FIXED or bool(next(FIXED[stream](0)))
    except Absent:
        return False


def _phishing(seed: int) -> Iterator[Row]:
    rows = [({k: float(v) for k, v in x.items()}, bool(y)) for x, y in datasets.Phishing()]
    return _again(rows, seed)


def _sms(seed: int) -> Iterator[Row]:
    words = [(re.findall(r"\w+", text.lower()), label == "spam") for text, label in texts.sms()]
    return _again([(dict.fromkeys(found, 1.0), spam) for found, spam in words], seed)


def _again(rows: list[Row], seed: int) -> Iterator[Row]:
    rng = random.Random(seed)
    while True:
        yield from rng.sample(rows, len(rows))


def _made(rows: Any) -> Iterator[Row]:
    return (({str(k): float(v) for k, v in x.items()}, bool(y)) for x, y in rows)


FIXED: dict[str, Callable[[int], Iterator[Row]]] = {
    "Phishing": _phishing,
    "SMS spam": _sms,
    "SEA": lambda seed: _made(synth.SEA(variant=0, seed=seed)),
    "Hyperplane": lambda seed: _made(
        synth.Hyperplane(seed=seed, n_features=10, n_drift_features=0, noise_percentage=0.05)
    ),
}


def model_of(stream: str) -> Any:
    """Return the logistic regression that learns a stream: of words, there is nothing to scale."""
    if stream == "SMS spam":
        return linear_model.LogisticRegression(optimizer=optim.SGD(0.1))
    return models.logistic()


def said_of(rows: Sequence[Row], crowd: Crowd, seed: int, *, honest: bool) -> list[Said]:
    """Return who says what of each row; where all are `honest`, the same raters as otherwise."""
    rng = random.Random(f"{seed} said")
    median = float(np.median([_place(x) for x, _ in rows]))
    before, after = (crowd.chances(lying=lying) for lying in (False, True))
    critics = crowd.raters - round(crowd.critics * crowd.raters)
    found = []
    for n, (x, truth) in enumerate(rows):
        lying = n >= crowd.from_ * len(rows)
        [rater] = rng.choices(range(crowd.raters), cum_weights=after if lying else before)
        label = truth != (rng.random() < crowd.noise(rater))
        liar = lying and rater < crowd.lying
        wants = (not crowd.region or _place(x) > median) and (truth or not crowd.deny)
        wants = rng.random() < crowd.careful and wants
        if liar and not honest and wants:
            label = not truth
        name = f"{n}" if liar and crowd.names else f"rater {rater}"
        found.append(Said(SOURCE + name, label, rater >= critics, liar, crowd.in_group(rater)))
    return found


def set_apart(
    rows: Sequence[Row], said: Sequence[Said], share: float
) -> tuple[list[Row], list[Said]]:
    """Have the truth of the group be the opposite, for a share of the inputs; features tell it.

    The rows that the learner starts from are those of the others.
    """
    limit = float(np.quantile([_place(x) for x, _ in rows], 1.0 - share))
    found = []
    for n, ((x, y), one) in enumerate(zip(rows, said, strict=True)):
        if not one.grouped or n < WARM:
            found.append(((x, y), one))
            continue
        turned = _place(x) >= limit
        theirs = x | {f"their {name}": value for name, value in x.items()}
        found.append(((theirs, y != turned), replace(one, label=one.label != turned)))
    return [row for row, _ in found], [one for _, one in found]


def _place(x: dict[str, float]) -> float:
    """Return what tells the regions of the inputs apart: the sum of all features."""
    return sum(x.values())
