"""Three real text sets as streams. They are not part of the repository.

`OL_BENCH_DATA` says where they are; else `../shared/data`, as `sms_spam/sms.tsv.gz`,
`banking77/train.csv.gz`, and `votes`, `pairs` and `arguments` in `ukpconvarg1/`.
"""

from __future__ import annotations

import csv
import gzip
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOME = Path(os.environ.get("OL_BENCH_DATA", Path(__file__).parents[2] / "shared" / "data"))


class Absent(Exception):
    """The set is not on this machine."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One rater's opinion on which of two arguments convinces more."""

    topic: str
    first: str
    second: str
    first_wins: bool
    rater: str


def sms() -> list[tuple[str, str]]:
    """Return the SMS Spam Collection in file order: text, and `ham` or `spam`."""
    lines = (line.rstrip("\n").split("\t", 1) for line in _lines("sms_spam/sms.tsv.gz"))
    return [(text, label) for label, text in lines]


def banking(seed: int = 0) -> list[tuple[str, str]]:
    """Return the training part of Banking77, shuffled: text, and one of 77 intents."""
    found = csv.DictReader(_lines("banking77/train.csv.gz"))
    rows = [(row["text"], row["category"]) for row in found]
    random.Random(seed).shuffle(rows)
    return rows


def votes() -> list[Vote]:
    """Return the decisive votes of UKPConvArg1 in the order in which they were submitted."""
    texts = {
        row["arg"]: row["text"] for row in csv.DictReader(_lines("ukpconvarg1/arguments.csv.gz"))
    }
    pairs = {row["pair"]: row for row in csv.DictReader(_lines("ukpconvarg1/pairs.csv.gz"))}
    found = []
    for row in csv.DictReader(_lines("ukpconvarg1/votes.csv.gz")):
        if row["value"] != "equal":
            pair = pairs[row["pair"]]
            first, second = texts[pair["arg1"]], texts[pair["arg2"]]
            wins = row["value"] == "a1"
            found.append(Vote(pair["topic"], first, second, wins, row["worker"]))
    return found


def _lines(name: str) -> Iterator[str]:
    path = HOME / name
    if not path.exists():
        raise Absent(f"{path} is not there: set OL_BENCH_DATA to where the sets are")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        yield from file
