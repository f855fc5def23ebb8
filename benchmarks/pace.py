"""How fast torch heads learn in micro-batches, and what it costs to publish their state."""

from __future__ import annotations

import asyncio
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import report, texts
from benchmarks.load import apart
from benchmarks.report import Bar
from online_learner.learners.factory import make_learner
from online_learner.loop import Loop
from online_learner.schema import Example, Lesson
from online_learner.settings import ModelSpec, Settings

BATCHES = (32, 128, 512)
SIZES_MB = (1, 20, 80)
WIDTH = 1024  # of the dense head whose labels make up these sizes


def log(probability: float) -> float:
    """Return the logarithm, kept from minus infinity."""
    return math.log(max(probability, 1e-12))


def rate(head: str, batch: int, device: str, seconds: float) -> float:
    """Return the examples a second that a head learns in batches of this size."""
    gpus = {"num_gpus": 1.0} if device == "cuda" else {}
    spec = ModelSpec(
        task="classification",
        labels=["ham", "spam"],
        learner=f"torch:{head}",
        resources=gpus,
    )
    learner, lessons = make_learner(spec), _lessons(head)
    batches = [lessons[i : i + batch] for i in range(0, len(lessons) - batch + 1, batch)]
    learner.learn(batches[0])
    learned, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for lesson in batches[:20]:
            learner.learn(lesson)
            learned += batch
    return learned / (time.perf_counter() - started)


def _lessons(head: str) -> list[Lesson]:
    rng = random.Random(0)
    if head == "dense":
        rows: list[dict[str, Any]] = [
            {"embedding": [rng.gauss(0, 1) for _ in range(64)]} for _ in range(20 * max(BATCHES))
        ]
        return [Example(x, "spam" if x["embedding"][0] > 0 else "ham") for x in rows]
    try:
        return [Example({"text": text}, label) for text, label in texts.sms()]
    except texts.Absent:
        words = [f"w{i}" for i in range(3000)]
        lines = [" ".join(rng.choices(words, k=15)) for _ in range(20 * max(BATCHES))]
        return [Example({"text": line}, rng.choice(["ham", "spam"])) for line in lines]


def publish_ms(size_mb: int, rounds: int) -> tuple[float, float]:
    """Return the size of a state in MB, and the time to commit and publish it, in ms."""
    return asyncio.run(_publish_ms(size_mb, rounds))


async def _publish_ms(size_mb: int, rounds: int) -> tuple[float, float]:
    labels = [f"l{i}" for i in range(size_mb * 1_000_000 // (4 * WIDTH))]
    spec = {
        "task": "classification",
        "labels": labels,
        "learner": {"use": "torch:dense", "dim": WIDTH},
        "promotion": {"policy": "policies.promotion:Always"},
    }
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        settings = Settings(data_dir=Path(folder), models={"m": spec})
        async with await Loop.open(settings, live=True) as loop:
            taken = []
            for i in range(rounds + 1):
                answer = await loop.predict("m", {"embedding": [float(i)] * WIDTH})
                await loop.feedback(answer["prediction_id"], "correction", labels[0])
                trainer = loop.stages("m").trainer
                trainer._published_at = math.inf  # the step alone, then the publication alone
                while await trainer.turn():
                    pass
                started = time.perf_counter()
                await trainer.publish()
                taken.append(1000 * (time.perf_counter() - started))
            size = len(trainer.learner.to_bytes()) / 1e6
    return size, sorted(taken[1:])[rounds // 2]


def table(*, quick: bool) -> str:
    """Return the pace of the heads, on a GPU too where there is one, and the cost of commits."""
    import torch

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    seconds = 1.0 if quick else 4.0
    rates = {
        (head, device): [apart(rate, head, batch, device, seconds) for batch in BATCHES]
        for head in ("dense", "text")
        for device in devices
    }
    names = {
        "dense": "dense, 64 numbers, 2 labels",
        "text": "hashed SMS, 2 labels, with the hashing",
    }
    rows = [
        [f"{names[head]}, {device}", *map(report.number, found)]
        for (head, device), found in rates.items()
    ]
    head = ["examples learned a second, in memory", *(f"batches of {n}" for n in BATCHES)]
    bars = [
        Bar("dense head, slowest batch", min(rates["dense", "cpu"]), 100_000, "/s"),
        Bar("hashed text, slowest batch", min(rates["text", "cpu"]), 25_000, "/s"),
    ]
    return "\n\n".join([report.table(head, rows), report.bars(bars), _commits(quick)])


def _commits(quick: bool) -> str:
    sizes = SIZES_MB[: 1 if quick else None]
    found = [apart(publish_ms, mb, 1 if quick else 5) for mb in sizes]
    rows = [[f"{size:.1f} MB", report.number(ms)] for size, ms in found]
    return report.table(["state", "commit and publish it, ms"], rows)
