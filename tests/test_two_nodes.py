"""Two nodes that share no folder; the one where learner and gatekeeper run loses its power."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from the_cluster import LEARNING, Cluster, document

from benchmarks.chaos.clients import MODEL, Clients, OverHttp, Prober
from benchmarks.chaos.ledger import audit, caught_up
from online_learner.ids import Keyring
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import Store, open_store

pytestmark = pytest.mark.ray

Poll = Callable[..., Awaitable[None]]
RESUMES_S = 15.0  # 5 to 12 seen; Ray's own settings take 30
WEB: dict[str, Any] = {
    "task": "classification",
    "labels": [False, True],
    "learner": "river.linear_model:LogisticRegression",
    "promotion": {"policy": "policies.promotion:Always"},
    "audit_deadline_s": 2.0,
    "resources": {"custom": {LEARNING: 1}},
}


@pytest.fixture
async def store(cluster: Cluster, patient: None) -> AsyncIterator[Store]:
    """Return the cluster's store: a real server, on TCP, that asks for a password."""
    async with await open_store(cluster.store_url) as opened:
        yield opened


async def test_a_node_dies_and_nothing_acknowledged_is_lost(
    *,
    cluster: Cluster,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Poll,
    tmp_path: Path,
) -> None:
    """With gateways on both nodes, the death of the learner's node costs seconds and no signal."""
    spec = WEB | {"archive": str(tmp_path / "shared")}
    await _deploy(cluster, spec, eventually)
    head, other = cluster.nodes["head"], cluster.nodes["other"]
    places = cluster.where()
    assert {node for node, _ in places["Gateway"]} == {head, other}
    for role in ("FeedbackActor", "Gatekeeper"):
        assert [node for node, _ in places[f"{role}-{MODEL}"]] == [other]
    cluster.ask("make room")

    monkeypatch.setenv("OL_SECRET", cluster.secret)
    settings = Settings.parse({"store": "auto", "models": {MODEL: spec}})
    keyring = Keyring.load(cluster.data_dir)
    stages = Stages(store, keyring, MODEL, settings.model(MODEL))

    clients, prober = Clients(), Prober()
    watching = asyncio.create_task(clients.ledger.watch(stages.registry))
    async with cluster.client() as http, cluster.client() as probe:
        for _ in range(3):
            clients.enter(OverHttp(http), size=20, pause_s=0.1)
        probing = asyncio.create_task(prober.probe(probe, clients.leaving))
        await eventually(lambda: _steps(store, stages, 5), within_s=30)

        cut_at = time.monotonic()
        await asyncio.to_thread(cluster.ask, "cut the power")

        async def learns_again() -> bool:
            clients.check()
            return await _last_step(store, stages) != before

        before = await _last_step(store, stages)  # of the node that is no more
        await eventually(learns_again, within_s=60)
        resumed_s = time.monotonic() - cut_at
        await clients.leave()
        await probing
    left_at = time.monotonic()
    await eventually(lambda: caught_up(store, stages), within_s=30)
    watching.cancel()
    found = await audit(stages, clients.ledger)
    asked, failed = prober.between(cut_at, left_at)
    places = cluster.where()
    print(f"learns after {resumed_s:.1f} s; {len(failed)} of {asked} failed")  # noqa: T201
    assert found.clean, found
    assert found.acknowledged > 100
    assert found.digests > 2
    assert found.restarts >= 2
    assert resumed_s < RESUMES_S
    assert {node for node, _ in places[f"FeedbackActor-{MODEL}"]} == {head}
    assert len(failed) < asked / 4, failed
    assert not cluster.data_dir.exists()
    await eventually(lambda: store.call("EXISTS", stages.registry.keys.heartbeat("archive")))
    assert await store.call("HGET", stages.registry.keys.archive, "predictions") is not None


async def _deploy(cluster: Cluster, spec: dict[str, Any], eventually: Poll) -> None:
    wanted = document(cluster.port)
    gateway, model, archive = wanted["applications"]
    assert archive["name"] == "archive"
    gateway["args"] |= {"gateways": 2}
    model |= {"name": f"model-{MODEL}", "args": {"model": MODEL, "spec": spec}}
    await asyncio.to_thread(cluster.deploy, wanted)

    async def ready() -> bool:
        states = await asyncio.to_thread(cluster.applications)
        assert "DEPLOY_FAILED" not in states.values()
        if len(states) < 3 or set(states.values()) != {"RUNNING"}:
            return False
        async with cluster.client() as http:
            return (await http.get("/readyz")).status_code == 200

    await eventually(ready, within_s=90)


async def _last_step(store: Store, stages: Stages) -> str:
    latest = await store.latest(stages.registry.keys.steps)
    return latest[0][0] if latest else ""


async def _steps(store: Store, stages: Stages, count: int) -> bool:
    return int(await store.call("XLEN", stages.registry.keys.steps)) >= count
