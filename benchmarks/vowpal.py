"""Vowpal Wabbit on the same rows and words: a hashed linear model, predict then learn, one pass.

Only the benchmark needs it: `pip install vowpalwabbit`.
"""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from benchmarks.outcome import Outcome
from benchmarks.texts import Vote

LABELLED = "--ngram 2 -b 22"
COMPARED = "--loss_function logistic --link logistic --noconstant -b 22 -l 0.2"


def labelled(rows: Sequence[tuple[str, str]], labels: Sequence[str]) -> Outcome:
    """Return how well and how fast labels are found in texts."""
    number = {label: i for i, label in enumerate(labels, start=1)}
    if len(labels) == 2:
        options, answers = f"{LABELLED} --loss_function logistic --binary", {-1: 1, 1: 2}
        targets = {label: 2 * i - 3 for label, i in number.items()}
    else:
        options, answers = f"{LABELLED} --oaa {len(labels)}", {i: i for i in number.values()}
        targets = number

    def judge(answer: Any, row: tuple[str, str]) -> tuple[bool, float]:
        return answers[round(answer)] == number[row[1]], 0.0

    examples = ((f"{targets[label]} |w {_plain(text)}", (text, label)) for text, label in rows)
    return _run(options, examples, judge)


def compared(rows: Sequence[Vote]) -> Outcome:
    """Return how well and how fast preferences are foretold, from differences of words."""

    def judge(answer: Any, vote: Vote) -> tuple[bool, float]:
        p = min(max(float(answer), 1e-6), 1 - 1e-6)
        return (p > 0.5) == vote.first_wins, -math.log(p if vote.first_wins else 1 - p)

    examples = ((f"{1 if v.first_wins else -1} {_difference(v)}", v) for v in rows)
    return _run(COMPARED, examples, judge)


def _run(
    options: str,
    examples: Iterable[tuple[str, Any]],
    judge: Callable[[Any, Any], tuple[bool, float]],
) -> Outcome:
    import vowpalwabbit

    model = vowpalwabbit.Workspace(f"--quiet {options}")
    right, loss, started = [], 0.0, time.perf_counter()
    for line, row in examples:
        example = model.parse(line)
        hit, cost = judge(model.predict(example), row)
        model.learn(example)
        model.finish_example(example)
        right.append(hit)
        loss += cost
    took_s = time.perf_counter() - started
    model.finish()
    return Outcome(right, loss / len(right), len(right) / took_s)


@functools.cache
def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+|[^\w\s]", text.lower())).replace(":", ";").replace("|", "/")


@functools.cache
def _grams(text: str) -> tuple[frozenset[str], float]:
    words = re.findall(r"\w+", text.lower())
    pairs = (f"{a}_{b}" for a, b in pairwise(words))
    return frozenset([*words, *pairs]), math.log1p(len(words))


def _difference(vote: Vote) -> str:
    (first, longer), (second, shorter) = _grams(vote.first), _grams(vote.second)
    gained, lost = sorted(first - second), sorted(second - first)
    words = " ".join([*gained, *(f"{word}:-1" for word in lost)])
    return f"|w {words} |l length:{longer - shorter:.4f}"
