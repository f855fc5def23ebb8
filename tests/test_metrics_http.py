"""The figures over HTTP, through both clients and the command line, of what gateways saw."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from the_service import bearer, problem
from typer.testing import CliRunner

from online_learner import auth
from online_learner.cli import app
from online_learner.client import AsyncClient, Client
from online_learner.ids import Keyring
from online_learner.metrics import series
from online_learner.metrics.meter import Meter
from online_learner.registry import Registry
from online_learner.store import open_store
from online_learner.store.keys import Keys

Eventually = Callable[..., Awaitable[None]]


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service with five models of one kind, so that no test counts another's."""
    public = {"public_feedback": True}
    return start_service(web=public, topic={}, rent={}, pages={}, llm={}, max_body_bytes=1 << 16)


def predict(http: httpx2.Client, model: str) -> str:
    """Return the id of an answer."""
    reply = http.post(f"/v1/models/{model}/predict", json={"features": {"a": 1.0}})
    return str(reply.json()["prediction_id"])


def metrics(http: httpx2.Client, model: str, **wanted: Any) -> dict[str, Any]:
    """Return the report of a model."""
    reply = http.get(f"/v1/models/{model}/metrics", params=wanted)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def measure(service: Any, model: str) -> None:
    """Count what is in the streams, as the gatekeeper's process does."""
    async with await open_store(service.server.url) as store:
        registry = Registry(store, Keyring.load(service.data_dir), model)
        await Meter(registry).turn()


async def test_the_funnel_of_a_gateway(
    service: Any, http: httpx2.Client, eventually: Eventually
) -> None:
    """Accepted, duplicates and refusals of every kind are counted once, each as what it was."""
    answer = {"prediction_id": predict(http, "topic")}
    said = {**answer, "kind": "correction", "value": "sport"}
    wrong = [
        said | {"value": "weather"},
        {**answer, "kind": "preference", "chosen": "a", "rejected": "b"},
        said | {"model_version": "99"},
        said | {"comment": "x", "nonsense": 1},
    ]
    for body in (said, said, said | {"dry_run": True}, *wrong, wrong[0] | {"dry_run": True}):
        http.post("/v1/feedback", json=body)
    http.post("/v1/feedback", json=said | {"prediction_id": "x" * 50})  # of no model of ours
    http.post("/v1/feedback", json=said, headers=bearer("ol_nobody"))
    several = {**answer, "signals": [{"kind": "thumbs", "value": True}] * 2}
    http.post("/v1/feedback_batch", json={"items": [said, wrong[0], {"kind": "x"}, several]})
    await service.turn()
    await measure(service, "topic")

    def funnel() -> dict[str, Any]:
        found = metrics(http, "topic")["funnel"]
        return {stage["stage"]: (stage["count"], stage["lost"]) for stage in found}

    await eventually(lambda: sum(funnel()["accepted"][1].values()) >= 8)
    found = funnel()
    accepted, lost = found["accepted"]
    assert accepted == 2
    assert lost == {
        "duplicate": 3,
        "invalid_value": 2,
        "kind_not_applicable": 1,
        "unknown_field": 1,
        "version_mismatch": 1,
    }
    assert found["joined"] == found["received"] == (accepted + sum(lost.values()), {})
    assert found["learned"][0] == 2


async def test_a_large_batch_is_counted_as_a_small_one(
    service: Any, http: httpx2.Client, eventually: Eventually
) -> None:
    """Each item that is refused counts, however large the batch is."""
    said = {"prediction_id": predict(http, "web"), "kind": "thumbs", "value": True}
    items = [said | {"nonsense": "x" * 500}] * 50
    http.post("/v1/feedback_batch", json={"items": items})

    def refused() -> int:
        [accepted] = [s for s in metrics(http, "web")["funnel"] if s["stage"] == "accepted"]
        return int(accepted["lost"].get("unknown_field", 0))

    await eventually(lambda: refused() == 50)


async def test_a_stranger_writes_nothing_into_the_figures(
    service: Any, http: httpx2.Client, bare: httpx2.Client, eventually: Eventually
) -> None:
    """Where no key is needed, a refusal counts for who holds an id, not for who names a model."""
    wrong = {"kind": "thumbs", "value": "?"}
    for body in ({"model": "web"}, {"model": "rent"}, {"prediction_id": predict(http, "web")}):
        problem(bare.post("/v1/feedback", json=body | wrong), 422, "invalid_value")

    def refused(model: str) -> int:
        [accepted] = [s for s in metrics(http, model)["funnel"] if s["stage"] == "accepted"]
        return int(accepted["lost"].get("invalid_value", 0))

    await eventually(lambda: refused("web") == 1)
    assert refused("rent") == 0


async def test_answers_are_counted_and_timed(
    service: Any, http: httpx2.Client, eventually: Eventually
) -> None:
    """Answers, single and in batches, and refusals are told apart; a stranger is not counted."""
    for _ in range(3):
        predict(http, "rent")
    batch = [{"features": {"a": 1.0}}, {"features": {"a": 1.0}}, {"nonsense": 1}]
    http.post("/v1/models/rent/predict_batch", json={"instances": batch})
    http.post("/v1/models/rent/predict", json={"nonsense": 1})
    http.post("/v1/models/rent/predict", json={}, headers=bearer("ol_nobody"))
    await eventually(lambda: sum(metrics(http, "rent")["series"]["predictions"]) == 5)
    found = metrics(http, "rent")
    assert found["latency_ms"]["predict"]["count"] == 4  # requests
    assert found["rates"]["predictions_per_s"] > 0
    async with await open_store(service.server.url) as store:
        points = await series.read(store, Keys("rent"), window_s=900, now=found["at"])
    outcomes = series.total(points).by("predictions_total", "outcome")
    assert outcomes == {"ok": 5, "invalid_value": 2}


async def test_it_needs_the_scope_read(
    service: Any, http: httpx2.Client, bare: httpx2.Client, eventually: Eventually
) -> None:
    """A key without `read` is refused, and so are nobody, another model and an odd window."""
    path, known = "/v1/models/web/metrics", {"name": "predicts", "scopes": frozenset({"predict"})}
    async with await open_store(service.server.url) as store:
        await auth.allow(store, "ol_predicts", **known)
    key = bearer("ol_predicts")
    await eventually(lambda: bare.get(path, headers=key).status_code != 401)
    problem(bare.get(path, headers=key), 403, "forbidden")
    problem(bare.get(path), 401, "unauthorized")
    problem(http.get("/v1/models/wbe/metrics"), 404, "unknown_model")
    for window_s in ("0", "86401", "nan", "x"):
        problem(http.get(path, params={"window_s": window_s}), 422, "invalid_value")


async def test_both_clients_and_the_command_line_show_it(
    service: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`metrics` is a method of both clients, and a command that prints tables, or JSON."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OL_URL", service.url)
    monkeypatch.setenv("OL_API_KEY", service.key)
    with Client(service.url, service.key) as client:
        found = client.metrics("pages", window_s=60)
    async with AsyncClient(service.url, service.key) as client:
        again = await client.metrics("pages", window_s=60)
    assert found["window_s"] == again["window_s"] == 60
    assert set(found) == set(again)
    shown = await asyncio.to_thread(CliRunner().invoke, app, ["metrics", "pages"])
    assert shown.exit_code == 0
    for word in ("received", "served", "loop", "answers a second"):
        assert word in shown.stdout
    printed = await asyncio.to_thread(CliRunner().invoke, app, ["metrics", "pages", "--json"])
    assert json.loads(printed.stdout)["model"] == "pages"
