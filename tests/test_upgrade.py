"""`serve deploy` on a running Ray, again and again, under load: no request fails."""

from __future__ import annotations

import asyncio
import copy
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from the_cluster import Cluster, document

pytestmark = pytest.mark.ray

Poll = Callable[..., Awaitable[None]]
FEATURES = {"https": 0.0, "ip_in_url": 1, "age_of_domain": 1, "long_url": -1.0}
LEARNER = "FeedbackActor-phishing"
PRICE: dict[str, Any] = {
    "task": "regression",
    "learner": "river:preprocessing.StandardScaler | linear_model.LinearRegression",
}


class Load:
    """Clients who ask and rate, on connections that stay open; what fails is kept.

    Where the store is slow to sync, they wait and send again, as the client library does.
    """

    def __init__(self, cluster: Cluster, size: int) -> None:
        self.done: Counter[int] = Counter()
        self.failed: list[str] = []
        self.waited = 0
        self._leaving = asyncio.Event()
        self._tasks = [asyncio.create_task(self._talk(cluster)) for _ in range(size)]

    async def leave(self) -> None:
        """Let all clients finish."""
        self._leaving.set()
        await asyncio.gather(*self._tasks)

    async def _talk(self, cluster: Cluster) -> None:
        async with cluster.client() as http:
            while not self._leaving.is_set():
                asked = {"features": FEATURES}
                answer = await self._post(http, "/v1/models/phishing/predict", asked)
                if answer is not None:
                    told = {"prediction_id": answer["prediction_id"], "kind": "thumbs"}
                    await self._post(http, "/v1/feedback", told | {"value": True})
                await asyncio.sleep(0.02)

    async def _post(self, http: httpx2.AsyncClient, path: str, body: Any) -> Any:
        try:
            reply = await http.post(path, json=body)
        except httpx2.HTTPError as error:
            self.failed.append(f"{time.monotonic():.1f} {path} {type(error).__name__} {error}")
            return None
        if reply.status_code == 503 and reply.json()["code"] == "store_unavailable":
            self.waited += 1
            await asyncio.sleep(int(reply.headers["retry-after"]))
            return await self._post(http, path, body)
        self.done[reply.status_code] += 1
        if reply.is_success:
            return reply.json()
        self.failed.append(f"{time.monotonic():.1f} {path} {reply.status_code} {reply.text[:200]}")
        return None


async def test_upgrades_under_load_fail_nothing(cluster: Cluster, eventually: Poll) -> None:
    """Models come, change and go, gateways are replaced: the rest goes on, all is answered."""
    wanted = document(cluster.port)
    await _deploy(cluster, wanted, eventually)
    [gateway] = await _gateways(cluster, 1, eventually)
    learner = cluster.where()[LEARNER]
    load = Load(cluster, 4)

    more = copy.deepcopy(wanted["applications"][1])
    more |= {"name": "model-price", "args": {"model": "price", "spec": PRICE}}
    wanted["applications"].append(more)
    await _deploy(cluster, wanted, eventually)
    async with cluster.client() as http:
        reply = await http.post("/v1/models/price/predict", json={"features": {"rooms": 2.0}})
        assert reply.status_code == 200
    added = cluster.where()
    assert (added[LEARNER], added["Gateway"]) == (learner, [gateway])

    more["args"]["spec"] = PRICE | {"audit": 0.5}
    wanted["applications"][0]["args"] |= {"gateways": 2, "window_s": 7200}
    async with cluster.client() as http:
        events = asyncio.create_task(_listen(http))
        await _deploy(cluster, wanted, eventually)

        await _gateways(cluster, 2, eventually, old=gateway)
        heard = await events
    changed = cluster.where()
    assert changed[LEARNER] == learner
    assert changed["FeedbackActor-price"] != added["FeedbackActor-price"]

    wanted["applications"].remove(more)
    await _deploy(cluster, wanted, eventually)
    await load.leave()
    print(f"answered: {dict(load.done)}; waited for the store: {load.waited}")  # noqa: T201
    assert heard == 200
    assert load.failed == []
    assert sum(load.done.values()) > 200
    assert set(load.done) == {200, 202}


async def _gateways(
    cluster: Cluster, count: int, eventually: Poll, old: tuple[str, int] | None = None
) -> list[tuple[str, int]]:
    """Return the gateways once there are so many, and the old one is gone."""
    found: list[tuple[str, int]] = []

    async def settled() -> bool:
        nonlocal found
        found = (await asyncio.to_thread(cluster.where))["Gateway"]
        return len(found) == count and old not in found

    await eventually(settled, within_s=60)
    return found


async def _listen(http: httpx2.AsyncClient) -> int:
    """Listen to the event stream until it is cut; returns its status."""
    query = {"model": "phishing", "events": "feedback"}
    async with http.stream("GET", "/v1/stream", params=query, timeout=90) as reply:
        try:
            async for _ in reply.aiter_raw():
                pass
        except httpx2.HTTPError:
            pass
        return reply.status_code


async def _deploy(cluster: Cluster, wanted: dict[str, Any], eventually: Poll) -> None:
    """Deploy, and wait until all that is wanted runs, and is ready."""
    await asyncio.to_thread(cluster.deploy, wanted)
    names = {application["name"] for application in wanted["applications"]}

    async def runs() -> bool:
        states = await asyncio.to_thread(cluster.applications)
        assert "DEPLOY_FAILED" not in states.values()
        if set(states) != names or set(states.values()) != {"RUNNING"}:
            return False
        async with cluster.client() as http:
            ready = await http.get("/readyz")
            found = ready.json().get("models", {}) if ready.status_code == 200 else {}
            return len(found) == sum(name.startswith("model-") for name in names)

    await eventually(runs, within_s=90)
