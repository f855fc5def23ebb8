"""Answers made elsewhere, of every task: checked as our own, learned from, and no evidence."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from the_service import problem

from online_learner.client import ApiError, AsyncClient, Client, NotReachable, Retry
from online_learner.errors import Invalid
from online_learner.ids import Address
from online_learner.journal import Known
from online_learner.loop import Loop
from online_learner.observe.observer import signal_of
from online_learner.observe.sightings import sightings
from online_learner.requests import LogRequest
from online_learner.schema import Prediction
from online_learner.settings import Settings

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]
ALWAYS = {"audit": 1.0, "ask_budget": 1.0}
ASKED = {"a": 1.0, "b": -2.0}
OPTIONS = [{"id": name, "features": {"x": x}} for x, name in enumerate("abc")]
ANSWERS: dict[str, dict[str, Any]] = {
    "web": {"features": ASKED, "output": True, "scores": {"true": 0.75, "false": 0.25}},
    "topic": {"features": ASKED, "output": "sport"},
    "rent": {"features": ASKED, "output": 1240.5},
    "pages": {"features": {"q": "x"}, "options": OPTIONS, "output": ["b", "a"]},
}


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service."""
    return start_service(web=ALWAYS, topic={}, rent={}, pages={}, llm={})


@pytest.fixture
async def loop(open_loop: OpenLoop, make_settings: MakeSettings) -> Loop:
    """Return a loop with a model of each task, which audits and asks all that it can."""
    return await open_loop(make_settings(web=ALWAYS, topic={}, rent={}, pages={}, llm={}))


async def record_of(loop: Loop, answer: dict[str, Any]) -> Prediction:
    """Return the record of an answer."""
    address = loop.keyring.open("prediction", answer["prediction_id"])[1]
    return await loop.stages(answer["model"]).journal.read(address)


@pytest.mark.parametrize("model", ANSWERS)
async def test_it_is_logged_as_it_was(loop: Loop, model: str) -> None:
    """With what was asked and by what name it is found; no weights of ours had to do with it."""
    more = {"model_version": "rules-3", "user_id": "ada", "tags": {"shop": "x"}, "latency_ms": 2.5}
    at = "2026-01-31T12:00:00Z"
    answer = await loop.log(model, **ANSWERS[model], **more, observed_at=at)
    record = await record_of(loop, answer)
    assert (answer["role"], answer["model_version"]) == ("external", "rules-3")
    assert record.imported
    assert (record.output, record.features) == (
        ANSWERS[model]["output"],
        ANSWERS[model]["features"],
    )
    assert (record.user_id, record.tags, record.latency_ms) == ("ada", {"shop": "x"}, 2.5)
    assert (record.observed_at, record.lineage) == (at, 0)
    assert [option.id for option in record.options] == (["a", "b", "c"] if model == "pages" else [])


async def test_what_was_answered_by_ours_or_scored_by_ours_is_not_imported(loop: Loop) -> None:
    """The observers tell them apart."""
    own = await loop.predict("web", ASKED)
    scored = await loop.log("llm", prompt="2 + 2?", outputs=[{"id": "0", "text": "4"}])
    assert not (await record_of(loop, own)).imported
    assert not (await record_of(loop, scored)).imported


@pytest.mark.parametrize(
    ("model", "change", "place"),
    [
        ("topic", {"output": "wether"}, "/output"),
        ("topic", {"output": None}, "/output"),
        ("topic", {"output": 1.5}, "/output"),
        ("topic", {"output": ["news"]}, "/output"),
        ("topic", {"features": None}, "/features"),
        ("topic", {"scores": {"wether": 0.5}}, "/scores"),
        ("topic", {"scores": {"news": 1.5}}, "/scores"),
        ("topic", {"options": OPTIONS}, "/options"),
        ("topic", {"prompt": "Which?"}, "/prompt"),
        ("topic", {"outputs": [{"id": "0", "text": "news"}]}, "/outputs"),
        ("web", {"output": "true"}, "/output"),
        ("rent", {"output": "much"}, "/output"),
        ("rent", {"output": True}, "/output"),
        ("rent", {"scores": {"a": 0.5}}, "/scores"),
        ("pages", {"output": "a"}, "/output"),
        ("pages", {"output": ["a", "z"]}, "/output/1"),
        ("pages", {"output": ["a", "b", "a"]}, "/output/2"),
        ("pages", {"options": None}, "/options"),
        ("pages", {"scores": {"z": 1.0}}, "/scores"),
    ],
)
async def test_what_no_model_of_the_task_can_answer_is_refused(
    loop: Loop, model: str, change: dict[str, Any], place: str
) -> None:
    """The place is named, and nothing is logged."""
    with pytest.raises(Invalid) as caught:
        await loop.log(model, **ANSWERS[model] | change)
    assert caught.value.errors[0]["pointer"] == place
    assert await loop.store.range(loop.stages(model).registry.keys.predictions) == []


@pytest.mark.parametrize("name", ["features", "output", "scores", "options"])
async def test_a_generator_gives_outputs(loop: Loop, name: str) -> None:
    """Fields of other tasks are named."""
    body = {"prompt": "2 + 2?", "outputs": [{"id": "0", "text": "4"}]}
    more = {"features": ASKED, "output": "4", "scores": {"0": 1.0}, "options": OPTIONS}
    with pytest.raises(Invalid, match=f"/{name}"):
        await loop.log("llm", **body, **{name: more[name]})


async def test_feedback_on_it_is_learned(loop: Loop) -> None:
    """It joins, and teaches as usual: by a correction, a judgement, a choice, an order."""
    said: list[tuple[str, str, Any]] = [
        ("web", "correction", False),
        ("web", "thumbs", True),
        ("web", "selection", False),
        ("topic", "selection", "sport"),
        ("rent", "correction", 1300.0),
        ("pages", "ranking", ["a", "b"]),
    ]
    for model, kind, value in said:
        answer = await loop.log(model, **ANSWERS[model])
        await loop.feedback(answer["prediction_id"], kind, value)
    for model, learned in (("web", 3), ("topic", 1), ("rent", 1), ("pages", 1)):
        await loop.turn(model)
        published = await loop.stages(model).registry.published()
        assert published is not None
        assert published.learned == learned, model


async def test_it_is_never_evidence(loop: Loop) -> None:
    """Nobody audits it, asks about it, or takes it for an answer of some weights."""
    keys = loop.stages("web").registry.keys
    served = await loop.store.range(keys.served)
    for _ in range(20):
        answer = await loop.log("web", **ANSWERS["web"])
        await loop.feedback(answer["prediction_id"], "correction", value=False)
    await loop.turn("web")
    for stream in (keys.audits, keys.asked, keys.evidence):
        assert await loop.store.range(stream) == []
    assert await loop.store.range(keys.served) == served


async def test_observers_leave_it_alone(loop: Loop) -> None:
    """An import of last year's answers is no drift, and tells nothing of who speaks today."""
    own = await loop.predict("web", ASKED)
    await loop.feedback(own["prediction_id"], "correction", value=True)
    answer = await loop.log("web", **ANSWERS["web"])
    await loop.feedback(answer["prediction_id"], "correction", value=True)
    stages = loop.stages("web")
    due_ms = int(loop.ingest.clock() * 1000) + 60_000
    found, place = await sightings(
        stages.registry, after="0-0", due_ms=due_ms, open_ms=0, window_ms=60_000, count=10,
        rng=stages.rng,
    )  # fmt: skip
    [own_entry, imported] = await loop.store.range(stages.registry.keys.predictions)
    assert [sighting.entry for sighting in found] == [own_entry[0]]
    assert place == imported[0]
    heard = await loop.store.range(stages.registry.keys.feedback)
    signals = [signal_of(entry, fields, stages.signals) for entry, fields in heard]
    assert [signal is None for signal in signals] == [False, True]


async def test_rules_flag_it(open_loop: OpenLoop, make_settings: MakeSettings) -> None:
    """What was asked and answered elsewhere is checked; it was shown there all the same."""
    rules = [{"rule": "range", "feature": "a", "low": 0, "high": 0.5, "severity": "block"}]
    loop = await open_loop(make_settings(web={"rules": rules}))
    answer = await loop.log("web", **ANSWERS["web"])
    record = await record_of(loop, answer)
    assert (answer["blocked"], record.blocked, record.withheld) == (True, True, False)


async def test_only_hashes_of_it_are_kept_where_that_is_wished(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """`log_inputs` holds for it."""
    loop = await open_loop(make_settings(web={"log_inputs": "hashed"}, rent={"log_inputs": "none"}))
    asked = {"features": {"text": "zanzibar"}, "user_id": "ada"}
    hashed = await record_of(loop, await loop.log("web", **asked, output=True))
    nothing = await record_of(loop, await loop.log("rent", **asked, output=1.0))
    assert "zanzibar" not in hashed.model_dump_json()
    assert (hashed.inputs, nothing.inputs, nothing.features) == ("hashed", "none", {})
    assert "ada" not in {hashed.user_id, nothing.user_id}


# --- once -------------------------------------------------------------------------------------


async def test_once_it_is_logged_once(loop: Loop) -> None:
    """Under one external id; the answer that is known is replied."""
    body = ANSWERS["web"] | {"external_id": "x-1", "once": True}
    first, again = await loop.log("web", **body), await loop.log("web", **body)
    other = await loop.log("web", **body | {"external_id": "x-2"})
    plain = await loop.log("web", **body | {"once": False})
    found = await loop.store.range(loop.stages("web").registry.keys.predictions)
    assert len(found) == 3
    assert first["prediction_id"] == again["prediction_id"]
    assert len({first["prediction_id"], other["prediction_id"], plain["prediction_id"]}) == 3


async def test_once_holds_within_a_group(loop: Loop) -> None:
    """Two with one name in one script: the second is the first."""
    stages = loop.stages("web")
    request = LogRequest(**ANSWERS["web"], external_id="x", session_id="s", once=True)
    record = stages.predictor.record(request)
    addresses = await stages.journal.append([record, record, record], [True, True, False])
    assert [type(address) for address in addresses] == [Address, Known, Address]
    assert (addresses[0].entry, addresses[0].nonce) == (addresses[1].entry, addresses[1].nonce)
    keys = stages.registry.keys
    assert len(await loop.store.range(keys.predictions)) == 2
    assert await loop.store.call("LLEN", keys.ref("external_id", "x")) == 2
    assert await loop.store.call("LLEN", keys.ref("session_id", "s")) == 2


def test_once_needs_a_name(http: httpx2.Client) -> None:
    """There is nothing else that it is known by."""
    reply = http.post("/v1/models/web/log", json=ANSWERS["web"] | {"once": True})
    assert "external_id" in problem(reply, 422, "invalid_value")["detail"]


# --- by HTTP ----------------------------------------------------------------------------------


def test_a_batch_is_logged_each_by_itself(service: Any, http: httpx2.Client) -> None:
    """Errors stand in their places; what was known is told."""
    good = ANSWERS["topic"] | {"external_id": "b-1", "once": True}
    sent = [good, {"features": {}, "output": "wether"}, {"output": "news", "fetures": {}}, good]
    reply = http.post("/v1/models/topic/log_batch", json={"answers": sent})
    assert reply.status_code == 200
    one, two, three, four = reply.json()["answers"]
    assert (one["role"], one["output"], "known" in one) == ("external", "sport", False)
    assert (two["status"], two["errors"][0]["pointer"]) == (422, "/1/output")
    assert three["code"] == "unknown_field"
    assert (four["prediction_id"], four["known"]) == (one["prediction_id"], True)
    story = http.get(f"/v1/predictions/{one['prediction_id']}").json()
    assert (story["prediction"]["role"], story["live_because"]) == ("external", None)


def test_a_dry_run_logs_nothing(http: httpx2.Client) -> None:
    """It is checked, and there is no id."""
    body = ANSWERS["rent"] | {"dry_run": True, "external_id": "dry"}
    assert http.post("/v1/models/rent/log", json=body).json()["prediction_id"] is None
    batch = http.post("/v1/models/rent/log_batch", json={"answers": [body, body]}).json()
    assert [answer["prediction_id"] for answer in batch["answers"]] == [None, None]
    said = {"model": "rent", "external_id": "dry", "kind": "correction", "value": 1.0}
    problem(http.post("/v1/feedback", json=said), 404, "unknown_prediction")
    wrong = body | {"output": "much"}
    problem(http.post("/v1/models/rent/log", json=wrong), 422, "invalid_value")


@pytest.mark.parametrize(
    "change",
    [
        {"output": 1e300},
        {"output": {"a": 1}},
        {"output": []},
        {"output": [1]},
        {"output": "x" * 70_000},
        {"scores": {"news": "much"}},
        {"scores": {f"s{n}": 0.0 for n in range(2000)}},
        {"observed_at": "yesterday"},
        {"options": []},
    ],
)
def test_values_that_cannot_be_are_refused(http: httpx2.Client, change: dict[str, Any]) -> None:
    """422, and no word of what was sent."""
    reply = http.post("/v1/models/topic/log", json=ANSWERS["topic"] | change)
    assert reply.status_code == 422
    assert "yesterday" not in reply.text


async def test_both_clients_log_it(service: Any) -> None:
    """One by one, and in a batch."""
    with Client(service.url, service.key) as client:
        answer = client.log("topic", **ANSWERS["topic"], model_version="rules-3")
        assert answer.correct("news").status == "accepted"
        assert (answer.output, answer.model_version, answer.known) == ("sport", "rules-3", False)
        bodies = [ANSWERS["topic"], {"features": {}, "output": "wether"}]
        good, bad = client.log_batch("topic", bodies)
        assert isinstance(bad, ApiError)
        assert not isinstance(good, ApiError)
        assert good.thumbs(up=True).status == "accepted"
    async with AsyncClient(service.url, service.key) as waiting:
        later = await waiting.log("pages", **ANSWERS["pages"])
        assert later.output == ["b", "a"]
        assert (await later.select("b")).status == "accepted"
        [one] = await waiting.log_batch("rent", [ANSWERS["rent"]])
        assert not isinstance(one, ApiError)


def test_what_is_refused_for_a_moment_is_sent_again_alone() -> None:
    """The others have been logged; nothing is sent twice."""
    sent: list[list[Any]] = []
    reply = {
        "prediction_id": "x", "model": "m", "version": 0, "step": 0, "output": "news", "flags": [],
        "scores": {}, "uncertainty": 0.0, "propensity": 1.0, "ask": None, "blocked": False,
        "feedback_expires_at": None,
    }  # fmt: skip
    busy = {"status": 503, "code": "store_unavailable", "detail": "", "retryable": True}

    def serve(request: httpx2.Request) -> httpx2.Response:
        answers = json.loads(request.content)["answers"]
        sent.append([answer["external_id"] for answer in answers])
        first = len(sent) == 1
        told = [busy if first and answer["external_id"] == "b" else reply for answer in answers]
        return httpx2.Response(200, json={"answers": told})

    client = Client("http://x", "k", transport=httpx2.MockTransport(serve), sleep=lambda _: None)
    bodies = [{"external_id": name, "once": True} for name in "abc"]
    found = client.log_batch("m", bodies)
    assert not any(isinstance(one, ApiError) for one in found)
    assert sent == [["a", "b", "c"], ["b"]]


@pytest.mark.parametrize(("once", "sent"), [(True, 2), (False, 1)])
def test_only_what_is_logged_once_is_sent_again_without_a_reply(*, once: bool, sent: int) -> None:
    """Whether it arrived is unknown."""
    calls = []

    def serve(request: httpx2.Request) -> httpx2.Response:
        calls.append(request)
        raise httpx2.ReadTimeout("late", request=request)

    retry = Retry(attempts=2)
    client = Client(
        "http://x", "k", transport=httpx2.MockTransport(serve), sleep=lambda _: None, retry=retry
    )
    with pytest.raises(NotReachable):
        client.log_batch("m", [{"external_id": "a", "once": once}])
    with pytest.raises(NotReachable):
        client.log("m", **ANSWERS["topic"], external_id="a", once=once)
    assert len(calls) == 2 * sent
