"""How fresh the served weights are, on the whole running system, fast profile.

Two times, idle and under load: from posting feedback until an answer comes from weights that have
learned it (policy `Always`), and from the moment at which an alias is moved until the last of two
replicas has let go of the old weights of 1 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from pydantic_core import from_json, to_json
from river import linear_model

from benchmarks import models, report, stack
from benchmarks.load import apart, drive, post
from benchmarks.report import Bar
from benchmarks.stack import Stack
from online_learner.ids import Keyring
from online_learner.learners import Learner
from online_learner.learners.river import RiverLearner
from online_learner.operate import operate
from online_learner.registry import Registry
from online_learner.schema import Example
from online_learner.store import open_store

LOAD_CONNECTIONS = 8
SETTLE_S = 0.3
SNAPSHOT_EVERY = 20
CONDITIONS = ("idle", f"{LOAD_CONNECTIONS} connections asking")


class Client:
    """One connection to the running system."""

    def __init__(self, running: Stack) -> None:
        place = urlsplit(running.url)
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
        self._headers = {"Authorization": f"Bearer {running.key}"}
        self._question = models.questions()[0]

    def ask(self) -> dict[str, Any]:
        """Predict once."""
        return self.send("POST", "/v1/models/web/predict", self._question)

    def correct(self, prediction_id: str, *, value: bool) -> str:
        """Say what would have been right; returns the feedback id."""
        said = {"prediction_id": prediction_id, "kind": "correction", "value": value}
        return str(self.send("POST", "/v1/feedback", to_json(said))["feedback_id"])

    def send(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """Send one request; raises where the answer is not 2xx."""
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        content: dict[str, Any] = from_json(answer.read())
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content}")
        return content


# --- feedback to served weights -----------------------------------------------------------------


def freshness_ms(samples: int) -> dict[str, list[float]]:
    """Return the times from posting feedback to an answer that has learned it, by condition."""
    model = models.spec(promotion={"policy": "policies.promotion:Always"})
    with stack.running("fast", **model) as running:
        client = Client(running)
        found = {CONDITIONS[0]: [_feedback_ms(client, i) for i in range(samples)]}
        with _load(running):
            found[CONDITIONS[1]] = [_feedback_ms(client, i) for i in range(samples)]
        return found


def _feedback_ms(client: Client, i: int) -> float:
    prediction_id = client.ask()["prediction_id"]
    time.sleep(0.007 * (i % 17))  # at any moment of the learner's rhythm
    started = time.perf_counter()
    feedback_id = client.correct(prediction_id, value=bool(i % 2))
    seen: list[tuple[float, int]] = []
    learned_at: int | None = None
    while learned_at is None or seen[-1][1] < learned_at:
        step = client.ask()["step"]
        seen.append((time.perf_counter(), step))
        if learned_at is None:
            learned_at = client.send("GET", f"/v1/feedback/{feedback_id}").get("step")
        time.sleep(0.001)
    return 1000 * (next(at for at, step in seen if step >= learned_at) - started)


# --- alias moved to last replica ----------------------------------------------------------------


def large() -> Learner:
    """Return a model whose state is about 1 MB."""
    learner = RiverLearner(
        linear_model.LogisticRegression(), task="classification", labels=models.LABELS
    )
    learner.learn([Example(features={f"w{i}": 1.0 for i in range(50_000)}, target=True)])
    return learner


def swap_ms(samples: int) -> dict[str, list[float]]:
    """Return the times from moving the alias to the last answer by the old one, by condition."""
    policy = {"policy": "policies.promotion:Manual", "snapshot_every": SNAPSHOT_EVERY}
    model = models.spec("large", module=__name__, promotion=policy, audit=0.0)
    with stack.running("fast", gateways=2, **model) as running:
        client = Client(running)
        for i in range(SNAPSHOT_EVERY):
            client.correct(client.ask()["prediction_id"], value=bool(i % 2))
        while not client.send("GET", "/v1/models/web")["aliases"]["challengers"]:
            time.sleep(0.05)
        found = {CONDITIONS[0]: asyncio.run(_swaps(running, client, samples))}
        with _load(running):
            found[CONDITIONS[1]] = asyncio.run(_swaps(running, client, samples))
        return found


async def _swaps(running: Stack, client: Client, samples: int) -> list[float]:
    found = []
    async with await open_store(running.store) as store:
        registry = Registry(store, Keyring.load(running.data_dir), "web")
        for _ in range(samples):
            old = client.ask()["version"]
            moved = time.perf_counter()
            await operate(registry, "promote", by="benchmark", now=time.time(), version=3 - old)
            found.append(1000 * (_last_answer_by(client, old, moved) - moved))
    return found


def _last_answer_by(client: Client, old: int, moved: float) -> float:
    """Return when the old version answered for the last time. The ingress asks each in turn."""
    last = moved
    while time.perf_counter() - last < SETTLE_S:
        if client.ask()["version"] == old:
            last = time.perf_counter()
    return last


# --- what both share ----------------------------------------------------------------------------


@contextlib.contextmanager
def _load(running: Stack) -> Iterator[None]:
    """Have others ask meanwhile; raises where any of their requests failed."""
    url = f"{running.url}/v1/models/web/predict"
    requests = [post(url, body, key=running.key) for body in models.questions()]
    context = get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(1, mp_context=context) as pool:
        enough = manager.Event()
        load = pool.submit(
            drive, url, requests, connections=LOAD_CONNECTIONS, seconds=600, enough=enough
        )
        time.sleep(1.0)
        try:
            yield
        finally:
            enough.set()
        if load.result().failed:
            raise RuntimeError(f"{load.result().failed} requests failed under load")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks latency", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="30 samples")
    quick = parser.parse_args(arguments).quick
    fresh = apart(freshness_ms, 30 if quick else 300)
    swap = apart(swap_ms, 10 if quick else 100)
    cells = []
    for what, found in ("feedback to served weights", fresh), ("alias moved to last replica", swap):
        for condition, times in found.items():
            p50, p99 = np.percentile(times, [50, 99])
            cells.append([f"{what}, {condition}", str(len(times)), f"{p50:.0f}", f"{p99:.0f}"])
    idle, loaded = CONDITIONS
    p99 = {condition: float(np.percentile(times, 99)) for condition, times in swap.items()}
    bars = [
        Bar("feedback to served, p50", float(np.median(fresh[idle])), 150, " ms", at_most=True),
        Bar(
            "feedback to served, p99",
            float(np.percentile(fresh[idle], 99)),
            500,
            " ms",
            at_most=True,
        ),
        Bar("swap, p99, idle", p99[idle], 50, " ms", at_most=True),
        Bar("swap, p99, under load", p99[loaded], 250, " ms", at_most=True),
    ]
    text = report.table(["from ... to", "samples", "p50 ms", "p99 ms"], cells)
    text += "\n\n" + report.bars(bars)
    command = "python -m benchmarks latency"
    report.publish("latency", "Freshness", text, command=command, keep=not quick)
