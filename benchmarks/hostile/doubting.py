"""What it costs the learner to doubt: examples a second, and the bytes of a checkpoint."""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from river import datasets

from benchmarks import models, report
from benchmarks.hostile.raters import RATERS
from online_learner.learners.state import pack_memory, pack_state
from online_learner.loop import Loop
from online_learner.settings import Settings

POLICIES = ("policies.validation:Accept", "policies.validation:Validation")
ROUNDS = 3
AT_ONCE = 250


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one model was learned, and how large its state was in the end."""

    examples_per_s: float
    pack_ms: float
    state_bytes: int


def told(n: int) -> str:
    """Return a table of both policies, measured in turns on the same stream of `n` labels."""
    found: dict[str, list[Pace]] = {policy: [] for policy in POLICIES}
    for _ in range(ROUNDS):
        for policy in POLICIES:
            found[policy].append(asyncio.run(_pace(policy, n)))
    rows = []
    for policy, paces in found.items():
        rate = statistics.median(pace.examples_per_s for pace in paces)
        pack_ms = statistics.median(pace.pack_ms for pace in paces)
        size = report.number(paces[-1].state_bytes / 1000)
        rows.append([policy, report.number(rate), f"{pack_ms:.1f}", size])
    head = ["policy", "examples a second", "ms to pack it", "kB of state"]
    return (
        f"What it costs the learner, from the stream to committed weights; {RATERS} raters, "
        f"median of {ROUNDS} runs in turns:\n\n{report.table(head, rows)}"
    )


async def _pace(policy: str, n: int) -> Pace:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        promotion = {"policy": "policies.promotion:Always"}
        web = models.spec(promotion=promotion, validation=policy)
        settings = Settings(data_dir=Path(folder), models={"web": web})
        async with await Loop.open(settings, rng=random.Random(0)) as loop:
            await _fill(loop, n)
            trainer = loop.stages("web").trainer
            started = time.perf_counter()
            while await trainer.turn():
                pass
            await trainer.publish()
            taken_s = time.perf_counter() - started
            started = time.perf_counter()
            state = pack_state(trainer.learner) + pack_memory(trainer.memory())
            pack_ms = 1000 * (time.perf_counter() - started)
            return Pace(n / taken_s, pack_ms, len(state))


async def _fill(loop: Loop, n: int) -> None:
    """Predict and correct `n` times, many at once, by raters in no order."""
    rows, rng = list(datasets.Phishing()), random.Random(1)
    for start in range(0, n, AT_ONCE):
        block = [rows[i % len(rows)] for i in range(start, min(n, start + AT_ONCE))]
        answers = await asyncio.gather(*(loop.predict("web", x) for x, _ in block))
        said = [
            (str(a["prediction_id"]), bool(y)) for a, (_, y) in zip(answers, block, strict=True)
        ]
        await asyncio.gather(
            *(
                loop.feedback(name, "correction", y, user_id=f"rater {rng.randrange(RATERS)}")
                for name, y in said
            )
        )
