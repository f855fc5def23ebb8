"""How fast the record is replayed, and whether the same bits come out.

A learner learns signals while they arrive, so that its steps are those of a learner under load; and
once more in steps of one to ten. Then the record is replayed from the first version on by what
`online-learner replay` uses: the weights have to be the learner's, and each state that it published
the one recorded. Nothing else is measured: no HTTP, and a log that only the store holds.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.report import Bar
from online_learner.ids import Keyring
from online_learner.learn import Trainer
from online_learner.replay.retrace import Retraced, retrace
from online_learner.schema import Feedback, Prediction
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import Store, open_store
from online_learner.store.embedded import EmbeddedServer

COUNT, SHORT = 100_000, 20_000  # signals; the latter where only the bars are wanted
A_SECOND = 4000  # signals that arrive
RATERS = 1000
SMALL = 10  # signals of a small step, at most
AIM = 20_000  # signals a second

LR = "river.linear_model:LogisticRegression"
MODELS: dict[str, dict[str, Any]] = {
    "lr": {"learner": LR},
    "scaled": {"learner": "river:preprocessing.StandardScaler | linear_model.LogisticRegression"},
    "plain": {"learner": LR, "validation": "policies.validation:Accept"},
}
TOLD = {
    "lr": "LogisticRegression, validated",
    "scaled": "StandardScaler | LogisticRegression, validated",
    "plain": "LogisticRegression, everybody believed",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One record, and its replay."""

    model: str
    steps: str
    found: Retraced
    same: bool  # weights and position


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return the table of rates, and the bars."""
    runs = asyncio.run(_measured(COUNT if full else SHORT))
    rows = [
        [
            f"{TOLD[run.model]}; {run.steps}",
            f"{run.found.signals:,}",
            f"{run.found.steps:,}",
            f"{run.found.compared:,}",
            f"{run.found.a_second:,.0f}",
            "the same" if run.same else "OTHERS",
        ]
        for run in runs
    ]
    head = ["learner, steps", "signals", "steps", "states compared", "signals/s", "weights"]
    first = runs[0]
    bars = [
        Bar("replay of a record made under load", first.found.a_second, AIM, "/s"),
        Bar("replays whose weights are the same", sum(run.same for run in runs), len(runs)),
    ]
    return report.table(head, rows), bars


async def _measured(others: int) -> list[Run]:
    with tempfile.TemporaryDirectory(prefix="ol-") as folder:
        data_dir = Path(folder)
        server = EmbeddedServer.ensure(data_dir)
        try:
            async with await open_store(server.url) as store:
                runs = []
                for model in MODELS:
                    count = COUNT if model == "lr" else others
                    runs.append(await _one(store, data_dir, model, count, small=False))
                    await store.call("FLUSHALL")
                    if model == "lr":
                        runs.append(await _one(store, data_dir, model, count, small=True))
                        await store.call("FLUSHALL")
                return runs
        finally:
            server.stop()


async def _one(store: Store, data_dir: Path, model: str, count: int, *, small: bool) -> Run:
    learned = _stages(store, data_dir, model)
    await learned.trainer.restore()
    if small:
        await _append(store, learned, count, a_second=0)
        await _learn_in_small_steps(learned.trainer, count)
    else:
        sending = asyncio.create_task(_append(store, learned, count, a_second=A_SECOND))
        while learned.trainer.at.learned < count and await _turned(learned.trainer, sending):
            pass
        await sending
    await learned.trainer.publish()
    found = await retrace(_stages(store, data_dir, model))
    at, trainer = found.replay.at, learned.trainer
    same = found.replay.learner.digest() == trainer.learner.digest() and found.differs is None
    same = same and (at.digest, at.step, at.learned) == (
        trainer.at.digest,
        trainer.at.step,
        trainer.at.learned,
    )
    return Run(model, f"1 to {SMALL} a step" if small else f"{A_SECOND:,}/s arrive", found, same)


async def _turned(trainer: Trainer, sending: asyncio.Task[None]) -> bool:
    """Take a turn; False once all that arrived has been read."""
    over = sending.done()
    read = await trainer.turn()
    await asyncio.sleep(0)
    return bool(read) or not over


async def _learn_in_small_steps(trainer: Trainer, count: int) -> None:
    rng, spec, read = random.Random(0), trainer._spec, 0
    while read < count:
        trainer._spec = spec.model_copy(update={"batch_max": rng.randint(1, SMALL)})
        read += await trainer.turn()


def _stages(store: Store, data_dir: Path, model: str) -> Stages:
    known = {"task": "classification", "labels": [False, True], "archive": None}
    document = {"store": "auto", "data_dir": data_dir, "models": {model: known | MODELS[model]}}
    spec = Settings.parse(document).models[model]
    return Stages(store, Keyring({1: bytes(range(32))}), model, spec)


async def _append(store: Store, stages: Stages, count: int, *, a_second: int) -> None:
    """Append signals to the stream as `ingest` does, at a rate; 0: at once."""
    begin, portion = time.monotonic(), max(1, a_second // 100) or 1
    entries = _signals(stages.model, count)
    for sent in range(0, count, portion if a_second else 500):
        size = portion if a_second else 500
        commands = [
            ("XADD", stages.registry.keys.feedback, "*", *(p for pair in f.items() for p in pair))
            for f in islice(entries, size)
        ]
        await store.many(commands)
        if a_second:
            await asyncio.sleep(max(0.0, begin + (sent + size) / a_second - time.monotonic()))


def _signals(model: str, count: int) -> Iterator[dict[bytes, bytes]]:
    """Yield corrections, each with the answer that it corrects."""
    rng = random.Random(7)
    now_ms = int(time.time() * 1000)
    for i in range(count):
        features = {f"f{k}": rng.gauss(0, 1) for k in range(9)}
        right = sum(features.values()) + rng.gauss(0, 1) > 0
        chance = rng.random()
        answer = Prediction(
            model=model,
            features=features,
            output=chance > 0.5,
            scores={"false": 1 - chance, "true": chance},
            version=0,
            lineage=1,
            step=i // 20,
            user_id=f"u{rng.randrange(RATERS)}",
            latency_ms=0.3,
        )
        said = Feedback(
            kind="correction",
            value=right,
            source=f"human:u{rng.randrange(RATERS)}",
            prediction_id="x" * 50,
        )
        place = f"{now_ms - 1000 + i // 100}-{i % 100}"
        yield {b"n": b"00ff00ff", b"f": said.pack(), b"p": place.encode(), b"r": answer.pack()}
