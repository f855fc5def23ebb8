"""A store that fills up, for real: what gives way first, what never does, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx2
import pytest

import online_learner.loop
from online_learner.errors import StoreFull, Unavailable
from online_learner.loop import Loop
from online_learner.retain import MARGIN_S, Retention
from online_learner.store import Store, open_store

Eventually = Callable[..., Awaitable[None]]
LIMIT_BYTES = 8 << 20
FEATURES = {f"feature {n}": n + 0.123456789 for n in range(300)}
WEB = {"audit": 0.3, "promotion": {"policy": "policies.promotion:Always"}}
MODEL = "/v1/models/web"


class Filling:
    """A service whose store has little memory, and what it has acknowledged."""

    def __init__(self, service: Any, http: httpx2.Client, store: Store) -> None:
        self.service = service
        self.http = http
        self.store = store
        self.ids: list[str] = []
        self.acknowledged = 0

    @property
    def memory(self) -> dict[str, Any]:
        """What `/readyz` says of the memory."""
        found: dict[str, Any] = self.http.get("/readyz").json()["memory"]
        return found

    def predict(self) -> httpx2.Response:
        """Ask, and keep the id."""
        reply = self.http.post(f"{MODEL}/predict", json={"features": FEATURES})
        if reply.status_code == 200 and reply.json()["prediction_id"] is not None:
            self.ids.append(reply.json()["prediction_id"])
        return reply

    def say(self) -> httpx2.Response:
        """Say something about an answer, and count what is acknowledged."""
        body = {"prediction_id": self.ids[-1], "kind": "correction", "value": True}
        reply = self.http.post("/v1/feedback", json=body, headers={"idempotency-key": _new()})
        self.acknowledged += reply.status_code == 202
        return reply

    async def learned(self) -> int:
        """Let the writers start anew and do their work; returns how much has been learned."""
        async with await Loop.open(self.service.settings) as loop:
            trainer = loop.stages("web").trainer
            await trainer.publish()
            return trainer.at.learned


_numbers = iter(range(10**9))


def _new() -> str:
    return f"key-{next(_numbers)}"


@pytest.fixture
async def filling(
    request: pytest.FixtureRequest, start_service: Callable[..., Any]
) -> AsyncIterator[Filling]:
    """Return a service with 8 MiB for its store; a test may say what it does when that is full."""
    more = getattr(request, "param", {})
    service = await asyncio.to_thread(start_service, web=WEB, **more)
    async with await open_store(service.server.url) as store:
        await store.call("CONFIG", "SET", "maxmemory", LIMIT_BYTES)
        with service.client() as http:
            yield Filling(service, http, store)


def until(filling: Filling, state: str, *, within_s: float = 60.0) -> Iterator[httpx2.Response]:
    """Ask and say, over and over, until the service knows that its memory is in a state."""
    deadline = time.monotonic() + within_s
    while filling.memory["state"] != state:
        assert time.monotonic() < deadline, f"it was not {state}: {filling.memory}"
        for _ in range(5):
            yield filling.predict()
        yield filling.say()


def check_full(reply: httpx2.Response) -> None:
    """Check that a reply says that the store is full, and when to come again."""
    assert (reply.status_code, reply.json()["code"]) == (503, "store_full")
    assert reply.json()["retryable"]
    assert int(reply.headers["retry-after"]) >= 1
    assert "MiB used" in reply.json()["detail"]


async def test_what_was_acknowledged_is_learned_whatever_the_memory(
    filling: Filling, eventually: Eventually
) -> None:
    """At 70 % answers give way, at 95 % feedback, at 100 % nothing is lost; trimming makes room."""
    memory = filling.memory
    assert memory == {
        "used_bytes": memory["used_bytes"],
        "limit_bytes": LIMIT_BYTES,
        "state": "ok",
    }
    assert {reply.status_code for reply in until(filling, "tight")} == {200, 202}

    replies = [filling.predict() for _ in range(60)]
    logged = [reply for reply in replies if reply.status_code == 200]
    assert 5 < len(logged) < 40, "those that are audited"
    for reply in replies:
        if reply.status_code != 200:
            check_full(reply)
    body = {"instances": [{"features": FEATURES}] * 40}
    batch = filling.http.post(f"{MODEL}/predict_batch", json=body).json()["predictions"]
    assert {item.get("code") for item in batch} == {None, "store_full"}
    assert filling.say().status_code == 202
    assert filling.http.get(MODEL).json()["memory"]["state"] == "tight"

    codes = [reply.status_code for reply in until(filling, "full")]
    assert set(codes) <= {200, 202, 503}
    check_full(filling.predict())
    check_full(filling.http.post(f"{MODEL}/predict_batch", json=body))
    check_full(filling.say())
    reply = filling.http.post("/v1/feedback_batch", json={"items": [_thumbs(filling)] * 2})
    check_full(reply)

    await fill(filling.store)
    assert filling.acknowledged > 20
    assert await filling.learned() == filling.acknowledged
    check_full(filling.say())

    assert await _trim(filling.store) > 100

    async def is_ok() -> bool:
        return bool(await asyncio.to_thread(lambda: filling.memory["state"]) == "ok")

    await eventually(is_ok)
    assert filling.predict().status_code == 200
    assert filling.say().status_code == 202
    assert await filling.learned() == filling.acknowledged


async def fill(store: Store) -> None:
    """Fill what is left, until the server refuses time and again."""
    refused = 0
    for _ in range(5000):
        try:
            await store.call("XADD", "filler", "*", "x", "x" * 1000)
        except Unavailable:
            refused += 1
        if refused == 5:
            return
    pytest.fail("it was never full")


def _thumbs(filling: Filling) -> dict[str, Any]:
    return {"prediction_id": filling.ids[0], "kind": "thumbs", "value": True}


async def _trim(store: Store) -> int:
    """Trim as a day later."""
    clock = lambda: time.time() + 86_400.0 + 2 * MARGIN_S  # noqa: E731
    return await Retention(store, "web", window_s=86_400.0, clock=clock).trim()


@pytest.mark.parametrize("filling", [{"on_store_down": "answer_unlogged"}], indirect=True)
async def test_answers_go_on_without_an_id_where_that_is_wanted(filling: Filling) -> None:
    """At 70 % those that are audited still have one, at 95 % none has."""
    list(until(filling, "tight"))
    ids = [filling.predict().json()["prediction_id"] for _ in range(60)]
    assert 5 < sum(id_ is not None for id_ in ids) < 40
    assert {reply.status_code for reply in until(filling, "full")} <= {200, 202, 503}
    answer = filling.predict()
    assert (answer.status_code, answer.json()["prediction_id"]) == (200, None)
    check_full(filling.say())
    assert await filling.learned() == filling.acknowledged


async def test_a_loop_of_ones_own_heeds_it_too(
    open_loop: Callable[..., Awaitable[Loop]], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process the same holds, and it is looked at in each turn."""
    monkeypatch.setattr(online_learner.loop, "LOOK_S", 0.0)
    loop = await open_loop()
    answer = await loop.predict("web", {"a": 1.0})
    before = (await store.call("CONFIG", "GET", "maxmemory"))[1]
    await store.call("CONFIG", "SET", "maxmemory", "1")
    try:
        await loop.turn("web")
        with pytest.raises(StoreFull):
            await loop.predict("web", {"a": 1.0})
        with pytest.raises(StoreFull):
            await loop.feedback(answer["prediction_id"], "thumbs", value=True)
    finally:
        await store.call("CONFIG", "SET", "maxmemory", before)
    await loop.turn("web")
    await loop.feedback(answer["prediction_id"], "thumbs", value=True)


async def test_a_store_that_begins_to_evict_is_not_ready(
    filling: Filling, eventually: Eventually
) -> None:
    """Nothing more is accepted, and everybody is told why; once it is put right, all goes on."""
    filling.predict()
    assert filling.say().status_code == 202
    await filling.store.call("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    await eventually(lambda: filling.say().status_code == 503)
    reply = filling.say()
    assert reply.json()["code"] == "store_unavailable"
    assert "CONFIG SET maxmemory-policy noeviction" in reply.json()["detail"]
    ready = filling.http.get("/readyz")
    assert ready.status_code == 503
    assert "volatile-lru" in ready.json()["eviction"]
    await filling.store.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await eventually(lambda: filling.say().status_code == 202)


async def test_the_class_of_a_receipt_is_that_of_the_server_as_it_runs(
    filling: Filling, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """Switched off under way, the log is missed within seconds: in receipts, and out loud."""
    filling.predict()
    assert filling.say().json()["durability"] == "fsynced"
    await filling.store.call("CONFIG", "SET", "appendonly", "no")
    await eventually(lambda: filling.say().json()["durability"] == "none")
    ready = filling.http.get("/readyz").json()
    assert ready["durability"] == "none"
    assert "appendonly no" in ready["durability_reason"]
    assert "CONFIG SET appendonly yes" in ready["durability_cure"]
    assert any("durability is none" in message for message in caplog.messages)
    await filling.store.call("CONFIG", "SET", "appendonly", "yes")
    await eventually(lambda: filling.say().json()["durability"] == "unknown")
    assert "the next start" in filling.http.get("/readyz").json()["durability_reason"]
