"""Labelling over HTTP: who may lease what, in whose name, and what an operator plants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from the_service import problem

from online_learner import auth
from online_learner.client import AsyncClient, Client
from online_learner.ids import Keyring
from online_learner.loop import Loop
from online_learner.requests import PredictRequest
from online_learner.schema import Ask
from online_learner.settings import Settings
from online_learner.store import open_store

LEASE, SKIP, GOLD = (f"/v1/models/web/{path}" for path in ("queue/lease", "queue/skip", "gold"))
KEYS: dict[str, tuple[auth.Scope, ...]] = {
    "labeller": ("feedback", "label"),
    "auditor": auth.AUDITOR,
    "asker": ("predict", "feedback", "label", "read"),
    "ops": ("operate",),
}


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service of which all answers are audited, and the keys of four people."""
    service = start_service(web={"audit": 1.0}, rent={})
    asyncio.run(let_in(service))
    return service


async def let_in(service: Any) -> None:
    """Let everybody in, and wait until the service knows them."""
    async with await open_store(service.server.url) as store:
        for name, scopes in KEYS.items():
            await auth.allow(store, f"ol_{name}", name=name, scopes=scopes)
    deadline = time.monotonic() + 10
    for name in KEYS:
        with service.client(f"ol_{name}") as http:
            while http.get("/v1/session").status_code != 200:
                assert time.monotonic() < deadline


@pytest.fixture
def by(service: Any) -> Iterator[Callable[[str], httpx2.Client]]:
    """Return `by(name)`: a client with somebody's key."""
    known = {name: service.client(f"ol_{name}") for name in KEYS}
    yield known.__getitem__
    for client in known.values():
        client.close()


@pytest.fixture(autouse=True)
def _emptied(service: Any) -> None:
    """Begin each test with nothing that waits."""

    async def empty() -> None:
        async with await open_store(service.server.url) as store:
            names = ("predictions", "audits", "asked", "leases", "gold")
            await store.call("DEL", *(f"ol:{{web}}:{name}" for name in names))

    asyncio.run(empty())


def ask(service: Any, count: int) -> list[str]:
    """Have questions asked by active learning; returns their ids."""

    async def write(settings: Settings) -> list[str]:
        async with await Loop.open(settings) as loop:
            room, keyring = loop.stages("web"), Keyring.load(settings.data_dir)
            record = room.predictor.answer(PredictRequest(features={"a": 1.0}, tags={}))
            why = Ask(reason="uncertain", probability=0.5)
            asked = record.model_copy(update={"ask": why, "uncertainty": 0.5, "shadows": {}})
            addresses = await room.journal.append([asked] * count)
            return [keyring.seal("prediction", "web", address) for address in addresses]

    return asyncio.run(write(service.settings))


def predict(http: httpx2.Client) -> str:
    """Return the id of an audited answer."""
    reply = http.post("/v1/models/web/predict", json={"features": {"a": 2.0}})
    return str(reply.json()["prediction_id"])


def lease(http: httpx2.Client, **body: Any) -> list[str]:
    """Return the ids of what is leased."""
    reply = http.post(LEASE, json=body)
    assert reply.status_code == 200, reply.text
    return [item["prediction_id"] for item in reply.json()["queue"]]


def test_a_labeller_sees_no_audit(service: Any, by: Callable[[str], httpx2.Client]) -> None:
    """With the scope `feedback` one labels what active learning asks; audits take an auditor."""
    asked, audit = ask(service, 2), predict(by("asker"))
    refused = problem(by("labeller").post(LEASE, json={"lane": "audit"}), 403, "forbidden")
    assert "'audit'" in refused["detail"]
    assert set(lease(by("labeller"), rater="ada")) == set(asked)
    assert lease(by("labeller"), rater="bob") == []
    assert lease(by("auditor"), lane="ask") == []
    assert lease(by("auditor")) == [audit]
    problem(by("ops").post(LEASE, json={}), 403, "forbidden")


def test_a_label_ends_it(service: Any, by: Callable[[str], httpx2.Client]) -> None:
    """What was labelled under a lease is gone; what is not waits for the next."""
    asked = ask(service, 2)
    first, second = lease(by("labeller"), rater="ada")
    said = {"prediction_id": first, "kind": "correction", "value": True, "user_id": "ada"}
    assert by("labeller").post("/v1/feedback", json=said).status_code == 202
    body = {"prediction_ids": asked, "rater": "ada", "again": True}
    assert by("labeller").post(SKIP, json=body).json() == {"given_back": 2}
    assert lease(by("labeller"), rater="bob") == [second]


def test_what_is_skipped_does_not_come_again(
    service: Any, by: Callable[[str], httpx2.Client]
) -> None:
    """It goes to another rater; a third gives back nothing that is not theirs."""
    [name] = ask(service, 1)
    assert lease(by("labeller"), rater="ada") == [name]
    for rater, had in (("cid", 0), ("ada", 1)):
        reply = by("labeller").post(SKIP, json={"prediction_ids": [name], "rater": rater})
        assert reply.json() == {"given_back": had}
    assert lease(by("labeller"), rater="ada") == []
    assert lease(by("labeller"), rater="bob") == [name]


def test_without_a_rater_the_key_holds_it(service: Any, by: Callable[[str], httpx2.Client]) -> None:
    """Who names nobody labels as the key's holder, and can have their own for longer."""
    names = ask(service, 2)
    [mine] = lease(by("labeller"), count=1, seconds=10)
    [other] = lease(by("auditor"), count=1)
    assert {mine, other} == set(names)
    [item] = by("labeller").post(LEASE, json={"prediction_ids": names}).json()["queue"]
    assert item["prediction_id"] == mine
    assert item["leased_until"] > time.time() + 200
    listed = by("auditor").get("/v1/models/web/queue?lane=any").json()["queue"]
    assert {one["prediction_id"] for one in listed if one["leased_until"]} == set(names)


def test_many_at_once_share_it_out(service: Any, by: Callable[[str], httpx2.Client]) -> None:
    """Labellers who ask over and over, all at once, never get the same one."""
    names = ask(service, 120)

    def label(n: int) -> list[str]:
        found: list[str] = []
        with service.client("ol_labeller") as http:
            while got := lease(http, rater=f"r{n}", count=5):
                found += got
        return found

    with ThreadPoolExecutor(8) as pool:
        everyone = list(pool.map(label, range(8)))
    assert sorted(name for found in everyone for name in found) == sorted(names)


def test_gold_is_planted_by_operators(service: Any, by: Callable[[str], httpx2.Client]) -> None:
    """It is known to who planted it; a labeller gets it once, and may not plant any."""
    body = {"features": {"a": 5.0}, "value": True}
    problem(by("labeller").post(GOLD, json=body), 403, "forbidden")
    planted = [by("ops").post(GOLD, json=body) for _ in range(30)]
    assert {reply.status_code for reply in planted} == {201}
    golden = {reply.json()["prediction_id"] for reply in planted}
    assert planted[0].json()["open_until"] == pytest.approx(time.time() + 3600, abs=60)
    ask(service, 100)
    found = lease(by("labeller"), rater="ada", count=100)
    assert len(found) == 100
    assert 0 < len(golden & set(found)) < 30
    assert not golden & set(lease(by("auditor"), count=100))
    ask(service, 100)
    assert not golden & set(lease(by("labeller"), count=100))  # nobody is named
    said = {"prediction_id": min(golden & set(found)), "kind": "correction", "value": False}
    receipt = by("labeller").post("/v1/feedback", json=said | {"user_id": "ada"})
    assert receipt.status_code == 202


def test_renewing_does_not_tell_gold(service: Any, by: Callable[[str], httpx2.Client]) -> None:
    """Whoever asks to keep what they have keeps all of it, in the order in which they ask."""
    body = {"features": {"a": 5.0}, "value": True}
    golden = {by("ops").post(GOLD, json=body).json()["prediction_id"] for _ in range(30)}
    ask(service, 100)
    found = sorted(lease(by("labeller"), rater="ada", count=100))
    assert golden & set(found)
    assert lease(by("labeller"), rater="ada", prediction_ids=found) == found
    assert not golden & set(lease(by("labeller"), prediction_ids=found))


def test_the_truth_is_told_to_readers_alone(
    service: Any, by: Callable[[str], httpx2.Client]
) -> None:
    """Its story shows the operator's word; whoever may not read is not shown it."""
    reply = by("ops").post(GOLD, json={"features": {"a": 5.0}, "value": True}).json()
    path = f"/v1/predictions/{reply['prediction_id']}"
    problem(by("labeller").get(path), 403, "forbidden")
    story = by("asker").get(path).json()
    assert story["prediction"]["ask"] == {"reason": "gold", "probability": 1.0}
    [said] = story["feedback"]
    assert (said["feedback_id"], said["source"]) == (reply["feedback_id"], "key:ops")


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        (LEASE, {"count": 0}, "/count"),
        (LEASE, {"count": 101}, "/count"),
        (LEASE, {"lane": "gold"}, "/lane"),
        (LEASE, {"seconds": 3601}, "/seconds"),
        (LEASE, {"seconds": 0.5}, "/seconds"),
        (LEASE, {"prediction_ids": ["x"] * 101}, "/prediction_ids"),
        (SKIP, {}, "/prediction_ids"),
        (GOLD, {"features": {}}, "/value"),
        (GOLD, {"features": {}, "value": "spam"}, "/value"),
        (GOLD, {"features": {}, "value": True, "options": [{"id": "a"}]}, "/options"),
    ],
)
def test_what_cannot_be_is_refused(
    service: Any, http: httpx2.Client, path: str, body: dict[str, Any], pointer: str
) -> None:
    """Each wrong body is refused at its place."""
    refused = problem(http.post(path, json=body), 422, "invalid_value")
    assert refused["errors"][0]["pointer"] == pointer


def test_ids_are_of_the_model(service: Any, http: httpx2.Client) -> None:
    """An id that is none is unknown; one of another model is refused at its place."""
    problem(http.post(SKIP, json={"prediction_ids": ["x"]}), 404, "unknown_prediction")
    body = {"features": {"rooms": 1.0}}
    other = http.post("/v1/models/rent/predict", json=body).json()["prediction_id"]
    for path in (LEASE, SKIP):
        reply = http.post(path, json={"prediction_ids": [other]})
        refused = problem(reply, 422, "invalid_value")
        assert refused["errors"][0]["pointer"] == "/prediction_ids/0"


async def test_the_same_with_both_clients(service: Any) -> None:
    """Leases, giving back and planting, plain and awaited."""
    names = set(await asyncio.to_thread(ask, service, 3))
    with Client(service.url, "ol_labeller") as client:
        found = client.lease("web", count=2, lane="ask", seconds=30.0, rater="ada")
        assert (found["task"], found["labels"]) == ("classification", [False, True])
        ids = [item["prediction_id"] for item in found["queue"]]
        longer = client.lease("web", rater="ada", prediction_ids=ids)["queue"]
        assert [item["prediction_id"] for item in longer] == ids
        assert longer[0]["leased_until"] > found["queue"][0]["leased_until"]
        assert client.skip("web", ids, rater="ada", again=True) == 2
    async with AsyncClient(service.url, "ol_labeller") as client:
        again = await client.lease("web", rater="ada")
        assert {item["prediction_id"] for item in again["queue"]} == names
        one = min(names)
        [item] = (await client.lease("web", rater="ada", prediction_ids=[one]))["queue"]
        assert item["prediction_id"] == one
        assert await client.skip("web", names, rater="ada") == 3
    with Client(service.url, "ol_ops") as client:
        assert client.gold("web", {"a": 1.0}, True)["feedback_id"]
    async with AsyncClient(service.url, "ol_ops") as client:
        assert (await client.gold("web", {"a": 1.0}, False))["feedback_id"]
    with Client(service.url, "ol_auditor") as client:
        assert {item["prediction_id"] for item in client.queue("web", "ask")} == names
        assert client.audits("web") == []
