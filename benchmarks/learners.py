"""What the learners learn from real texts, votes and ratings, and how fast.

Every row goes through the whole loop in one process (`loop.py`, live): the answer is logged before
it is given, what is said about it is joined and appended, learned and committed, and the next
answer rests on it. Vowpal Wabbit sees the same rows in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import pace, ratings, report, texts, vowpal
from benchmarks.load import apart
from benchmarks.outcome import Outcome
from benchmarks.report import Bar
from online_learner.explore import softmax
from online_learner.loop import Loop
from online_learner.settings import Settings

ALWAYS = {"policy": "policies.promotion:Always"}
MIX = 0.2  # share of corrections among thumbs
PARTS = 5


# --- through the loop -------------------------------------------------------------------------


def labelled(rows: list[tuple[str, str]], labels: list[str], corrections: float) -> Outcome:
    """Return how labels are learned from corrections, from thumbs, or from some of each."""
    rng = random.Random(7)
    spec = {"task": "classification", "labels": labels, "learner": "torch:text"}

    async def one(loop: Loop, row: tuple[str, str]) -> tuple[bool, float]:
        text, label = row
        answer = await loop.predict("m", {"text": text})
        right = answer["output"] == label
        corrected = rng.random() < corrections
        said = ("correction", label) if corrected else ("thumbs", right)
        await loop.feedback(answer["prediction_id"], *said)
        return right, 0.0

    return asyncio.run(_pass(spec, rows, one))


def compared(rows: list[texts.Vote]) -> Outcome:
    """Return how preferences between two options are learned."""
    spec = {"task": "ranking", "learner": "torch:ranking"}

    async def one(loop: Loop, vote: texts.Vote) -> tuple[bool, float]:
        pair = {"a": vote.first, "b": vote.second}
        options = [{"id": name, "features": {"text": text}} for name, text in pair.items()]
        answer = await loop.predict("m", {"topic": vote.topic}, options=options)
        chosen, rejected = ("a", "b") if vote.first_wins else ("b", "a")
        await loop.feedback(
            answer["prediction_id"],
            "preference",
            chosen=chosen,
            rejected=rejected,
            user_id=vote.rater,
        )
        probability = softmax(answer["scores"])[chosen]
        return answer["output"][0] == chosen, -pace.log(probability)

    return asyncio.run(_pass(spec, rows, one))


async def _pass(
    spec: dict[str, Any],
    rows: Sequence[Any],
    one: Callable[[Loop, Any], Awaitable[tuple[bool, float]]],
) -> Outcome:
    model = {"promotion": ALWAYS, "audit": 0.0, **spec}
    with tempfile.TemporaryDirectory(prefix="bench-", dir=_memory()) as folder:
        settings = Settings(data_dir=Path(folder), models={"m": model})
        async with await Loop.open(settings, rng=random.Random(0), live=True) as loop:
            right, loss, started = [], 0.0, time.perf_counter()
            for row in rows:
                hit, cost = await one(loop, row)
                await loop.learn("m")
                right.append(hit)
                loss += cost
            took_s = time.perf_counter() - started
    return Outcome(right, loss / len(right), len(right) / took_s)


def _memory() -> str | None:
    """Return a folder that is no disk: one row at a time, a disk's flushes would be measured."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


# --- the tables -------------------------------------------------------------------------------


def real_texts(quick: bool) -> str:
    """Return what is learned from real texts and votes, beside Vowpal Wabbit."""
    sms, banking, votes = (
        _some(rows, quick) for rows in (texts.sms(), texts.banking(), texts.votes())
    )
    intents = sorted({label for _, label in banking})
    runs = {
        "SMS spam": (
            apart(labelled, sms, ["ham", "spam"], 1.0),
            apart(vowpal.labelled, sms, ["ham", "spam"]),
        ),
        "Banking77": (
            apart(labelled, banking, intents, 1.0),
            apart(vowpal.labelled, banking, intents),
        ),
        "UKPConvArg1": (apart(compared, votes), apart(vowpal.compared, votes)),
    }
    rows = [
        [
            name,
            f"{len(ours.right):,}",
            f"{ours.accuracy:.4f}",
            f"{theirs.accuracy:.4f}",
            f"{ours.log_loss:.4f}" if ours.log_loss else "",
            f"{theirs.log_loss:.4f}" if theirs.log_loss else "",
            report.number(ours.rate),
            report.number(theirs.rate),
        ]
        for name, (ours, theirs) in runs.items()
    ]
    head = [
        "one pass",
        "rows",
        "accuracy",
        "VW",
        "log loss",
        "VW",
        "rows/s, whole loop",
        "VW alone",
    ]
    (sms_run, _), (banking_run, _), (votes_run, _) = runs.values()
    bars = [
        Bar("SMS spam, accuracy", sms_run.accuracy, 0.978),
        Bar("Banking77, accuracy", banking_run.accuracy, 0.766),
        Bar("UKPConvArg1, accuracy", votes_run.accuracy, 0.777),
        Bar("UKPConvArg1, log loss", votes_run.log_loss, 0.478, at_most=True),
    ]
    curves = {
        "corrections": banking_run,
        f"thumbs, {MIX:.0%} corrections": apart(labelled, banking, intents, MIX),
        "thumbs only": apart(labelled, banking, intents, 0.0),
    }
    return "\n\n".join([report.table(head, rows), report.bars(bars), _curves(curves)])


def _curves(curves: dict[str, Outcome]) -> str:
    head = ["Banking77, accuracy in each fifth", *map(str, range(1, PARTS + 1)), "all"]
    rows = [
        [name, *(f"{part:.3f}" for part in run.parts(PARTS)), f"{run.accuracy:.3f}"]
        for name, run in curves.items()
    ]
    return report.table(head, rows)


def _some(rows: list[Any], quick: bool) -> list[Any]:
    return rows[:1500] if quick else rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks learners", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the first rows only")
    quick = parser.parse_args(arguments).quick
    try:
        first = real_texts(quick)
    except (texts.Absent, ImportError) as error:
        first = f"Real texts are left out: {error}"
    text = "\n\n".join([first, ratings.table(quick=quick), pace.table(quick=quick)])
    command = "make bench-learners"
    report.publish("learners", "What the learners learn", text, command=command, keep=not quick)
