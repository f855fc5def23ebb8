"""Taking back what was said: who may, what the receipt says, and what others make of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from the_forgotten import take_back
from the_learner import entry_of, say
from the_service import problem
from typer.testing import CliRunner

from online_learner import auth, explain
from online_learner.cli import app
from online_learner.client import ApiError, AsyncClient, Client
from online_learner.errors import Invalid
from online_learner.explain.signals import find
from online_learner.forget.retract import retract
from online_learner.loop import Loop
from online_learner.release import release, release_rolled_back
from online_learner.requests import read_feedback
from online_learner.schema import Control
from online_learner.settings import Settings
from online_learner.store import open_store

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

WEB = {"promotion": {"policy": "policies.promotion:Always"}, "publish_s": 0.0}


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a service where `web` takes feedback by the id alone, and `topic` not."""
    return start_service(web={"public_feedback": True}, topic={})


def ask(service: Any, model: str = "web", **fields: Any) -> str:
    """Ask for an answer as the application does; returns its id."""
    with service.client() as http:
        reply = http.post(f"/v1/models/{model}/predict", json={"features": {"x": 1.0}, **fields})
    return str(reply.raise_for_status().json()["prediction_id"])


def said(service: Any, key: str | None, model: str = "web", **fields: Any) -> str:
    """Say something; returns the id of the signal."""
    value: Any = True if model == "web" else "sport"
    body = {"prediction_id": ask(service, model, user_id="ada"), "kind": "correction"}
    with service.client(key) as http:
        reply = http.post("/v1/feedback", json={**body, "value": value, **fields})
    assert reply.status_code == 202, reply.text
    return str(reply.json()["feedback_id"])


async def key_of(
    service: Any, eventually: Callable[..., Awaitable[None]], name: str, *scopes: auth.Scope
) -> str:
    """Let in a key with these scopes; returns it once the service knows of it."""
    key = f"ol_{name}"
    async with await open_store(service.server.url) as store:
        await auth.allow(store, key, name=name, scopes=scopes)
    with service.client(key) as http:
        await eventually(lambda: http.get("/v1/session").status_code == 200)
    return key


def taken(service: Any, key: str | None, feedback_id: str) -> httpx2.Response:
    """Take back a signal."""
    with service.client(key) as http:
        return http.delete(f"/v1/feedback/{feedback_id}")


# --- over HTTP ----------------------------------------------------------------------------------


async def test_it_is_pending_and_then_done(service: Any) -> None:
    """A 202 says that it was taken back; the receipt follows it out of the weights."""
    feedback_id = said(service, service.key)
    await service.turn()
    reply = taken(service, service.key, feedback_id)
    assert reply.status_code == 202
    body = reply.json()
    assert body["durability"] in {"fsynced", "os", "none", "unknown"}
    assert {name: body[name] for name in ("feedback_id", "model", "status", "unlearned")} == {
        "feedback_id": feedback_id,
        "model": "web",
        "status": "retracted",
        "unlearned": "pending",
    }
    await service.turn()
    with Client(service.url, service.key) as client:
        fate = client.receipt(feedback_id)
        assert (fate.status, fate.unlearned) == ("retracted", "done")
        assert fate.raw["retracted"]["by"] == "key:tester"
        again = client.retract(feedback_id)
        assert (again["status"], again["unlearned"]) == ("retracted", "done")
        listed = client.signals("web", status="retracted")["feedback"]
        assert feedback_id in [one["feedback_id"] for one in listed]


async def test_the_command_line_takes_back(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what became of each in a sentence."""
    monkeypatch.setenv("OL_URL", service.url)
    monkeypatch.setenv("OL_API_KEY", service.key)
    found = CliRunner().invoke(app, ["retract", said(service, service.key)])
    assert found.exit_code == 0, found.output
    assert "was taken back. It is still in the weights" in found.output
    wrong = CliRunner().invoke(app, ["retract", "x" * 50])
    assert wrong.exit_code == 1


async def test_who_may_say_it_may_take_it_back(
    service: Any, eventually: Callable[..., Awaitable[None]]
) -> None:
    """Own words and those of users with `feedback`; of auditors, system, others with more."""
    plain = await key_of(service, eventually, "plain", "feedback")
    other = await key_of(service, eventually, "other", "feedback")
    judge = await key_of(service, eventually, "judge", "feedback", "audit")
    system = await key_of(service, eventually, "system", "feedback", "system")
    boss = await key_of(service, eventually, "boss", "feedback", "operate")
    reader = await key_of(service, eventually, "reader", "read")
    of_user = said(service, plain, user_id="ada")
    of_key = said(service, plain)
    of_judge = said(service, judge, user_id="eve")
    of_system = said(service, system, source={"type": "system", "id": "rule"})
    for feedback_id in (of_user, of_key, of_judge, of_system):
        problem(taken(service, reader, feedback_id), 403, "forbidden")
    for feedback_id in (of_key, of_judge, of_system):
        problem(taken(service, other, feedback_id), 403, "forbidden")
    assert taken(service, other, of_user).status_code == 202
    assert taken(service, plain, of_key).status_code == 202
    assert taken(service, judge, of_judge).status_code == 202
    assert taken(service, system, of_system).status_code == 202
    for key, fields in ((plain, {}), (judge, {"user_id": "eve"})):
        assert taken(service, boss, said(service, key, **fields)).status_code == 202


async def test_without_a_key_the_id_is_enough_where_the_model_allows_it(service: Any) -> None:
    """As it is for saying it: the id was given to whoever said it."""
    own = said(service, None)
    assert taken(service, None, own).status_code == 202
    problem(taken(service, None, said(service, service.key)), 403, "forbidden")
    assert taken(service, None, said(service, service.key, user_id="ada")).status_code == 202
    problem(taken(service, None, said(service, service.key, "topic")), 401, "unauthorized")
    problem(taken(service, "ol_nobody", own), 401, "unauthorized")


def test_an_id_that_is_none_is_not_found(service: Any) -> None:
    """Forged, of an answer, or cut short: nothing is taken back."""
    for feedback_id in ("x" * 50, ask(service), "short"):
        problem(taken(service, service.key, feedback_id), 404, "unknown_feedback")


async def test_the_async_client_takes_back(service: Any) -> None:
    """As the other one does; what may not be is an error."""
    async with AsyncClient(service.url, service.key) as client:
        told = await client.retract(said(service, service.key))
        assert told["status"] == "retracted"
        with pytest.raises(ApiError):
            await client.retract("x" * 50)


# --- what others make of it ---------------------------------------------------------------------


@pytest.fixture
async def web(open_loop: OpenLoop, make_settings: MakeSettings) -> Loop:
    """Return a loop with the model `web`."""
    return await open_loop(make_settings(web=WEB))


async def test_the_same_may_be_said_again(web: Loop) -> None:
    """A source that took its word back, and gives it again, is heard: what is gone has no copy."""
    answer = await web.predict("web", {"a": 1.0}, user_id="ada")
    how: dict[str, Any] = {"user_id": "ada"}
    first = await web.feedback(answer["prediction_id"], "correction", True, **how)
    copy = await web.feedback(answer["prediction_id"], "correction", True, **how)
    assert (copy.status, copy.feedback_id) == ("duplicate", first.feedback_id)
    await take_back(web, str(first.feedback_id))
    again = await web.feedback(answer["prediction_id"], "correction", True, **how)
    assert again.status == "accepted"
    assert again.feedback_id != first.feedback_id
    await web.turn("web")
    stages = web.models["web"]
    address = web.keyring.open("feedback", str(first.feedback_id))[1]
    told = await explain.receipt(stages.registry, address)
    assert (told["status"], told["superseded_by"]) == ("retracted", again.feedback_id)


async def test_the_same_may_be_said_again_of_a_pair(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A preference between two answers is marked on both."""
    loop = await open_loop(make_settings(llm={"publish_s": 0.0}))
    asked = {"prompt": "Hi", "outputs": [{"id": "0", "text": "Hello."}]}
    one, two = [(await loop.log("llm", **asked))["prediction_id"] for _ in range(2)]
    word = read_feedback({"kind": "preference", "chosen": one, "rejected": two})
    first = await loop.ingest.accept(word)
    assert (await loop.ingest.accept(word)).status == "duplicate"
    await take_back(loop, str(first.feedback_id), model="llm")
    again = await loop.ingest.accept(word)
    assert (again.status, again.feedback_id == first.feedback_id) == ("accepted", False)


async def test_what_was_taken_back_is_not_released(web: Loop) -> None:
    """Neither by name, nor with all that was rolled back, nor in a race with the release."""
    stages = web.models["web"]
    ids = await say(web, 4)
    await web.turn("web")
    stream = stages.registry.keys.feedback
    reset = Control(action="reset", to_version=0, lineage=1)
    await web.store.call("XADD", stream, "*", "c", reset.pack())
    await web.turn("web")
    address = web.keyring.open("feedback", ids[0])[1]
    signal = await find(stages.registry, address)
    await take_back(web, ids[0])
    with pytest.raises(Invalid, match="taken back"):
        await release(stages.registry, [signal], by="me")
    keys = stages.registry.keys
    entry, told = entry_of(web, ids[0]), Control(action="release").pack()
    names = [keys.aliases, keys.feedback, keys.released, keys.retracted]
    reply = await web.store.run("release", names, [1, told, entry, ""])
    assert reply == [b"retracted", entry.encode()]
    left = await release_rolled_back(stages.registry, by="me", dry_run=True)
    assert ids[0] not in left


async def test_many_at_once_are_some_control_entries(web: Loop) -> None:
    """Any number is taken back, in steps of five hundred, and told to the learner in order."""
    stages = web.models["web"]
    entries = [f"{ms}-0" for ms in range(1, 1202)]
    done = await retract(stages.registry, entries, by="me")
    assert len(done.entries) == 1201
    assert len(done.controls) == 3
    again = await retract(stages.registry, [*entries, "1300-0"], by="me")
    assert again.entries == ("1300-0",)
    await web.learn("web")
    assert stages.trainer.at.offset == again.controls[0]


async def test_what_only_went_on_file_is_taken_back_too(web: Loop) -> None:
    """It is marked, and needs no learner."""
    stages = web.models["web"]
    done = await retract(stages.registry, ["L1-0"], by="me")
    assert (done.entries, done.controls) == (("L1-0",), ())
    keys = stages.registry.keys
    assert await web.store.hash(keys.retracted) == await web.store.hash(keys.unlearned)
    assert await web.store.call("XLEN", keys.feedback) == 0
    assert not await stages.unlearning.turn()


def test_a_page_of_another_site_takes_nothing_back(service: Any) -> None:
    """A cookie without its token takes nothing back."""
    feedback_id = said(service, service.key)
    with service.client() as http:
        http.post("/v1/session").raise_for_status()
        http.headers.pop("authorization")
        reply = http.delete(f"/v1/feedback/{feedback_id}")
    problem(reply, 403, "csrf")
