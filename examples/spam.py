"""Spam in short messages: hashed words, learned from what people say about each answer.

    python -m examples.spam              messages made up here
    python -m examples.spam SMS.tsv.gz   a file with lines of label, tab, text: the SMS Spam
                                         Collection (Almeida and others, UCI 228), say

Two of three people say which label was right (a correction), the third only thumbs up or down;
as there are two labels, a thumbs-down means the other one. The first weights know nothing. As long
as no evidence says that what was learned is better, they go on answering; then every step answers.

To serve the same model, save the configuration as `loop.yaml` and run `online-learner up`.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from examples.scratch import scratch_loop
from online_learner.loop import Loop

CONFIG = """
models:
  spam:
    task: classification
    labels: [ham, spam]
    # Words and pairs of words, hashed: no vocabulary to keep, no tokenizer to download.
    learner: "torch:text"
    # The default, written out: the learner answers once it has beaten the first weights, at most
    # one time in a hundred by chance; the weights before it walk behind and pull it back.
    promotion: {policy: "policies.promotion:Leash", alpha: 0.01}
"""

SPAM = (
    "win a {prize} now, text {word} to {number}",
    "you have won a {prize}! claim at {site}",
    "urgent: your account is locked, call {number} before {day}",
    "free {prize} for the first {number} callers",
    "cheap loans, reply {word} or visit {site}",
)
HAM = (
    "did you win on {day}? call me",
    "are you free on {day}, {name} asks",
    "text me the number of {name} please",
    "urgent: bring the {thing} before {day}",
    "{name} has locked the {thing}, who has the key",
    "the {thing} was cheap, I paid {number}",
    "first the {thing}, then we visit {name}",
)
WORDS = {
    "prize": ("phone", "holiday", "voucher", "prize"),
    "word": ("YES", "WIN", "GO"),
    "site": ("win.example", "claim.example"),
    "day": ("monday", "friday", "sunday"),
    "name": ("ada", "grace", "alan"),
    "thing": ("phone", "bike", "tent", "cake"),
}


def made_up(n: int, seed: int = 1) -> Iterator[tuple[str, str]]:
    """Yield texts and labels; one in four is spam."""
    rng = random.Random(seed)
    for _ in range(n):
        label, forms = ("spam", SPAM) if rng.random() < 0.25 else ("ham", HAM)
        words = {slot: rng.choice(choice) for slot, choice in WORDS.items()}
        yield rng.choice(forms).format(number=rng.randint(100, 99_999), **words), label


def from_file(file: Path, n: int) -> Iterator[tuple[str, str]]:
    """Yield the first texts and labels of a file."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in itertools.islice(lines, n):
            label, _, text = line.rstrip("\n").partition("\t")
            yield text, label


async def play(messages: Iterable[tuple[str, str]]) -> dict[str, float]:
    """Answer each message, hear what people say, learn from it; return how it went."""
    right, labels, untrained = [], [], 0
    async with scratch_loop(CONFIG) as loop:
        for i, (text, label) in enumerate(messages):
            answer = await loop.predict("spam", {"text": text})
            right.append(answer["output"] == label)
            labels.append(label)
            untrained += answer["step"] == 0
            await _say(loop, i, answer, label)
            await loop.turn("spam")
    half = len(right) // 2
    ham = labels[half:].count("ham") / len(labels[half:])
    return {
        "accuracy": fmean(right[half:]),
        "accuracy of the more frequent label": max(ham, 1.0 - ham),
        "answers before the first evidence": float(untrained),
    }


async def _say(loop: Loop, i: int, answer: dict[str, Any], label: str) -> None:
    name, reader = answer["prediction_id"], f"reader-{i % 30}"  # one alone would decide nothing
    if i % 3:
        await loop.feedback(name, "correction", label, user_id=reader)
    else:
        await loop.feedback(name, "thumbs", answer["output"] == label, user_id=reader)


def main(file: Path | None = None, n: int = 1000) -> dict[str, float]:
    """Play, and print the accuracy over the second half."""
    messages = made_up(n) if file is None else from_file(file, n)
    found = asyncio.run(play(messages))
    for name, number in found.items():
        print(f"{name:36} {number:8.3f}")
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else None)
