"""What operators and auditors read and release, over HTTP and with the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from the_service import problem

from online_learner import auth
from online_learner.client import ApiError, AsyncClient, Client
from online_learner.store import open_store

QUARANTINE, RELEASE = "/v1/models/web/quarantine", "/v1/models/web/quarantine/release"


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service; its classifier chokes on words until it has seen enough.

    Its key may do everything, an auditor's part as well.
    """
    service = start_service(web={"learner": "the_learner:Wary", "batch_max": 1}, rent={})
    asyncio.run(let_in(service, service.key, auth.SCOPES))
    deadline = time.monotonic() + 10
    with service.client() as http:
        while http.get("/v1/models/web/queue?lane=audit").status_code != 200:
            assert time.monotonic() < deadline
    return service


async def let_in(service: Any, key: str, scopes: tuple[auth.Scope, ...]) -> None:
    """Let a key in; the service knows it within seconds."""
    async with await open_store(service.server.url) as store:
        await auth.allow(store, key, name="tester", scopes=scopes)


def predict(http: httpx2.Client, model: str = "web", **features: Any) -> dict[str, Any]:
    """Return one answer."""
    return dict(http.post(f"/v1/models/{model}/predict", json={"features": features}).json())


def correct(http: httpx2.Client, **features: Any) -> str:
    """Have a fresh answer corrected; returns the id of the correction."""
    answer = predict(http, a=1.0, **features)
    body = {"prediction_id": answer["prediction_id"], "kind": "correction", "value": True}
    return str(http.post("/v1/feedback", json=body).json()["feedback_id"])


def rows(http: httpx2.Client, path: str = QUARANTINE, **wanted: Any) -> list[dict[str, Any]]:
    """Return all that a list holds, by pages."""
    found: list[dict[str, Any]] = []
    after: str | None = "0-0"
    while after is not None:
        page = http.get(path, params={"after": after, "count": 2, **wanted}).json()
        found, after = found + page[path.rpartition("/")[2]], page["next"]
    return found


# --- keys -------------------------------------------------------------------------------------

ROUTES = {
    ("GET", "/v1/models/web/feedback"): "read",
    ("GET", QUARANTINE): "read",
    ("GET", "/v1/models/web/queue?lane=audit"): "audit",
    ("POST", RELEASE): "operate",
    ("POST", f"{QUARANTINE}/x/release"): "operate",
}


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_each_route_needs_its_scope(
    service: Any,
    bare: httpx2.Client,
    eventually: Callable[..., Awaitable[None]],
    method: str,
    path: str,
) -> None:
    """Without a key 401; with a key that has all scopes but the one, 403 that names it."""
    scope = ROUTES[method, path]
    problem(bare.request(method, path), 401, "unauthorized")
    rest = tuple(known for known in auth.SCOPES if known != scope)
    await let_in(service, f"ol_no_{scope}", rest)

    def ask() -> httpx2.Response:
        return http.request(method, path)

    with service.client(f"ol_no_{scope}") as http:
        await eventually(lambda: ask().status_code != 401)
        assert f"'{scope}'" in problem(ask(), 403, "forbidden")["detail"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_route_of_an_unknown_model(http: httpx2.Client, method: str, path: str) -> None:
    """A model that is not served is unknown everywhere."""
    problem(http.request(method, path.replace("/web/", "/wep/")), 404, "unknown_model")


# --- the walk ---------------------------------------------------------------------------------


async def test_from_the_quarantine_to_the_weights(service: Any, http: httpx2.Client) -> None:
    """Listed with the reason, released by its id, learned; the receipt tells who did it."""
    poison = correct(http, word="w")
    clean = [correct(http) for _ in range(6)]
    await service.turn()
    [row] = rows(http)
    assert (row["feedback_id"], row["status"], row["released"]) == (poison, "quarantined", False)
    assert row["reason"].startswith("poison: ValueError")
    path = f"{QUARANTINE}/{poison}/release"
    dry = http.post(path, json={"dry_run": True})
    assert (dry.status_code, dry.json()["released"]) == (202, 1)
    done = http.post(path, json={"reason": "checked"})
    assert done.json() == {"dry_run": False, "released": 1, "feedback_ids": [poison]}
    assert [row["released"] for row in rows(http)] == [True]
    assert "was released already" in problem(http.post(path), 422, "not_set_aside")["detail"]
    await service.turn()
    assert rows(http) == []
    receipt = http.get(f"/v1/feedback/{poison}").json()
    assert receipt["status"] == "learned"
    assert receipt["released"]["by"] == "key:tester"
    assert receipt["released"]["reason"] == "checked"
    said = rows(http, "/v1/models/web/feedback", kind="correction", status="learned")
    assert [row["feedback_id"] for row in said] == [poison, *clean]


async def test_all_that_a_rollback_undid_comes_back(service: Any, http: httpx2.Client) -> None:
    """`rolled_back` releases what the last rollback undid, once the learner has gone back."""
    said = [correct(http) for _ in range(3)]
    await service.turn()
    http.post("/v1/models/web/rollback", json={"version": 0})
    problem(http.post(RELEASE, json={"rolled_back": True}), 409, "conflict")
    await service.turn()
    listed = [row["feedback_id"] for row in rows(http) if row["status"] == "rolled_back"]
    assert set(said) <= set(listed)
    assert http.post(RELEASE, json={"rolled_back": True}).json()["feedback_ids"] == listed
    assert http.post(RELEASE, json={"rolled_back": True}).json()["released"] == 0
    await service.turn()
    fates = {http.get(f"/v1/feedback/{one}").json()["status"] for one in said}
    assert fates == {"learned"}


async def test_several_are_released_together_or_not_at_all(
    service: Any, http: httpx2.Client
) -> None:
    """One that cannot be released stops the others, and is named."""
    http.post("/v1/models/web/rollback", json={"version": 0})
    await service.turn()
    poison, clean = correct(http, word="w"), correct(http)
    await service.turn()
    refused = problem(
        http.post(RELEASE, json={"feedback_ids": [poison, clean]}), 422, "not_set_aside"
    )
    assert clean in refused["detail"]
    assert poison not in refused["detail"]
    assert http.post(RELEASE, json={"feedback_ids": [poison]}).json()["released"] == 1


# --- what is wrong with a request -------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/feedback_ids"),
        ({"rolled_back": True, "feedback_ids": ["x"]}, "/feedback_ids"),
        ({"rolled_back": "yes please"}, "/rolled_back"),
        ({"rolled_back": True, "reason": "x" * 1001}, "/reason"),
        ({"feedback_ids": ["x"] * 501}, "/feedback_ids"),
        ({"feedback_id": "x"}, ""),
    ],
)
def test_a_release_says_what_it_is_about(
    http: httpx2.Client, body: dict[str, Any], pointer: str
) -> None:
    """Named signals or all that was rolled back, one of the two; every error has its place."""
    reply = http.post(RELEASE, json=body)
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["pointer"] == pointer


def test_ids_that_lead_nowhere(http: httpx2.Client) -> None:
    """A forged id is unknown, and one of another model is refused."""
    problem(http.post(RELEASE, json={"feedback_ids": ["x"]}), 404, "unknown_feedback")
    problem(http.post(f"{QUARANTINE}/x/release"), 404, "unknown_feedback")
    answer = predict(http, "rent", rooms=1.0)
    body = {"prediction_id": answer["prediction_id"], "kind": "correction", "value": 1.0}
    said = http.post("/v1/feedback", json=body).json()["feedback_id"]
    reply = http.post(f"{QUARANTINE}/{said}/release")
    assert "is of another model" in problem(reply, 422, "invalid_value")["detail"]


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        (f"{QUARANTINE}?after=soon", "/after"),
        (f"{QUARANTINE}?count=0", "/count"),
        ("/v1/models/web/feedback?status=lost", "/status"),
        ("/v1/models/web/queue", "/lane"),
        ("/v1/models/web/queue?lane=gold", "/lane"),
        ("/v1/models/web/queue?lane=audit&count=1001", "/count"),
    ],
)
def test_a_list_that_cannot_be(http: httpx2.Client, path: str, pointer: str) -> None:
    """What is asked for in a wrong way is refused at its place."""
    reply = http.get(path)
    body = problem(reply, 422, "invalid_value")
    assert body["errors"][0]["pointer"] == pointer


def test_the_routes_are_in_the_document(http: httpx2.Client) -> None:
    """The OpenAPI document has the routes, and what the releases take."""
    paths = http.get("/openapi.json").json()["paths"]
    for method, path in ROUTES:
        named = (
            path.partition("?")[0].replace("/web/", "/{model}/").replace("/x/", "/{feedback_id}/")
        )
        operation = paths[named][method.lower()]
        assert operation["summary"]
        assert ("requestBody" in operation) == (method == "POST")


# --- with the client --------------------------------------------------------------------------


async def test_the_same_with_both_clients(service: Any) -> None:
    """Lists, releases and the audit lane, plain and awaited."""
    with Client(service.url, service.key) as client:
        answer = client.predict("web", {"a": 2.0})
        [item] = [
            item
            for item in client.audits("web", count=1000)
            if item["prediction_id"] == answer.prediction_id
        ]
        assert item["features"] == {"a": 2.0}
        receipt = answer.correct(True)
        await service.turn()
        client.rollback("web", 0)
        await service.turn()
        listed = client.quarantine("web", count=1000)
        assert receipt.feedback_id in [row["feedback_id"] for row in listed["quarantine"]]
        assert listed["next"] is None
        planned = client.release("web", rolled_back=True, dry_run=True)
        assert receipt.feedback_id in planned["feedback_ids"]
        done = client.release("web", [str(receipt.feedback_id)], reason="mine")
        assert done["released"] == 1
        await service.turn()
        fate = client.receipt(str(receipt.feedback_id))
        assert fate.status == "learned"
        assert fate.released is not None
        assert (fate.released.by, fate.released.reason) == ("key:tester", "mine")
        said = client.signals("web", status="learned", count=1000)["feedback"]
    async with AsyncClient(service.url, service.key) as awaited:
        page = await awaited.signals("web", status="learned", count=1000)
        assert page["feedback"] == said
        assert (await awaited.quarantine("web", after=None))["quarantine"] is not None
        open_one = await awaited.predict("web", {"a": 3.0})
        [item] = await awaited.audits("web", count=1)
        assert item["prediction_id"] == open_one.prediction_id
        with pytest.raises(ApiError, match="not_set_aside"):
            await awaited.release("web", [str(receipt.feedback_id)])
