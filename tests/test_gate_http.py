"""The gate from outside: what is under test, what was decided, and the same computed again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from online_learner import auth
from online_learner.cli import app
from online_learner.client import ApiError, AsyncClient, Client
from online_learner.loop import Loop
from online_learner.schema import Settled
from online_learner.store import open_store

MAJORITY = {"learner": "river.dummy:PriorClassifier", "publish_s": 0.0, "audit": 1.0}
LINEAGE = "latest>champion@1#1"


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service: `web` is on the leash by now, and `rent` has been told little."""
    service = start_service(web=MAJORITY, rent={"publish_s": 0.0})
    asyncio.run(live(service))
    return service


async def live(service: Any) -> None:
    """Have raters put answers right until one learner is followed, and another is on its way."""
    async with await Loop.open(service.settings) as loop:
        for model, truth, count in (("web", True, 60), ("rent", 700.0, 8)):
            for n in range(count):
                answer = await loop.predict(model, {"a": 1.0})
                who = {"user_id": f"rater-{n % 30}"}
                await loop.feedback(answer["prediction_id"], "correction", truth, **who)
                await loop.turn(model)


@pytest.fixture
def client(service: Any) -> Iterator[Client]:
    """Return a client of the service."""
    with Client(service.url, service.key) as opened:
        yield opened


@pytest.fixture
def ask(service: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Return `ask(*arguments)`: a command that knows the running service."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OL_URL", service.url)
    monkeypatch.setenv("OL_API_KEY", service.key)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_a_test_under_way_says_why_not_yet(client: Client, ask: Callable[..., Result]) -> None:
    """The state of a model has each test: in words, in numbers, and how long still."""
    [test] = client.model("rent")["gate"]["tests"]
    assert (test["test"], test["challenger"], test["reference"]) == (LINEAGE, "latest", "champion")
    labels = test["expected_to_decision"]["audited_labels"]
    assert labels > 0
    assert test["expected_to_decision"]["requests"] == labels / 0.1
    assert test["numbers"]["log_e"] < test["numbers"]["log_e_needed"]
    assert f"About {labels:,} more labels" in test["sentence"]
    assert f"rent, latest against champion: {test['sentence']}" in ask("status").stdout


def test_a_watch_has_no_date(client: Client) -> None:
    """What pulls the leash is hoped never to decide, and has seen no infinite evidence."""
    [watch] = client.model("web")["gate"]["tests"]
    assert watch["test"] == "anchor>champion@2#1"
    assert watch["expected_to_decision"] == {"audited_labels": None, "requests": None}


def test_evidence_is_scalars(client: Client) -> None:
    """The evidence has ids, points and a hash of the rater, page by page; and nobody's data."""
    first = client.evidence("web", count=10)
    rest = client.evidence("web", after=first[-1]["id"])
    assert (len(first), len(rest)) == (10, 50)
    assert all(set(item) - {"id"} <= set(Settled.model_fields) for item in first + rest)
    assert first[-1]["points"] == {LINEAGE: 1.0}
    assert "rater-" not in json.dumps(first + rest)


def test_verdicts_in_order(client: Client) -> None:
    """The newest first; or all after an id, oldest first."""
    newest = client.verdicts("web")
    assert client.verdicts("web", after="0-0") == newest[::-1]
    assert client.verdicts("web", after=newest[0]["id"]) == []
    [follow] = [item for item in newest if item["action"] == "follow"]
    assert follow["test"]["name"] == LINEAGE
    assert follow["settled"] in [item["id"] for item in client.evidence("web")]


def test_recheck(ask: Callable[..., Result]) -> None:
    """Every verdict is computed again from the evidence, to the last bit."""
    result = ask("verdicts", "web", "--recheck")
    assert result.exit_code == 0, result.output
    assert "1 of 1 verdicts rest on a test" in result.stdout
    found = json.loads(ask("verdicts", "web", "--recheck", "--json").stdout)
    assert found == {"checked": 1, "too_old": 0, "worst": 0.0, "wrong": []}


async def test_recheck_finds_what_was_changed(service: Any, ask: Callable[..., Result]) -> None:
    """Where evidence was taken away, the command says which verdict differs, and fails."""
    async with await open_store(service.server.url) as store:
        key = "ol:{web}:evidence"
        kept = await store.call("DUMP", key)
        won = [
            entry
            for entry, fields in await store.range(key)
            if any(Settled.model_validate_json(fields[b"e"]).points.values())
        ]
        await store.call("XDEL", key, won[3])
        try:
            result = await asyncio.to_thread(ask, "verdicts", "web", "--recheck")
        finally:
            await store.call("RESTORE", key, 0, kept, "REPLACE")
    assert result.exit_code == 1
    assert "DIFFERS: follow (epoch 2): n is " in result.stdout


def test_a_dry_run_of_a_freeze_freezes_nothing(client: Client, ask: Callable[..., Result]) -> None:
    """Freeze and thaw tell what they would do, and do nothing."""
    assert client.freeze("web", dry_run=True)["aliases"]["frozen"] is True
    assert client.model("web")["aliases"]["frozen"] is False
    said = ask("freeze", "web", "--dry-run").stdout
    assert said.startswith("Dry run, nothing was changed: Frozen by hand")
    assert client.thaw("web", dry_run=True)["dry_run"] is True
    assert client.model("web")["aliases"]["frozen"] is False


async def test_evidence_needs_the_scope_read(service: Any) -> None:
    """A key that only predicts reads no evidence."""
    async with await open_store(service.server.url) as store:
        await auth.allow(store, "ol_page", name="page", scopes=("predict",))
    async with AsyncClient(service.url, "ol_page") as page:
        for _ in range(100):  # until the service knows the key
            with pytest.raises(ApiError) as refused:
                await page.evidence("web")
            if refused.value.status != 401:
                break
            await asyncio.sleep(0.05)
    assert "'read'" in str(refused.value)
