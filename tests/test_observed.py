"""What observers found, as people are told: by the API, its clients, the command line, events."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from the_observers import AT, RAISED, REPORTS, report
from the_service import problem
from typer.testing import CliRunner

from online_learner import explain
from online_learner.cli import app
from online_learner.client import AsyncClient, Client
from online_learner.client.receipts import Fate
from online_learner.explain.fates import Fate as Found
from online_learner.explain.signals import tell
from online_learner.ids import Keyring
from online_learner.loop import Loop
from online_learner.metrics import Tally
from online_learner.metrics.meter import Meter
from online_learner.registry import Registry
from online_learner.schema import Raised, Step, Weighed
from online_learner.settings import Settings
from online_learner.store import open_store
from online_learner.store.keys import Keys
from serve_app.stream import feed as feeds
from serve_app.stream.cursor import at_moment, before, pack
from serve_app.stream.feed import Feed
from serve_app.stream.telling import Telling

ACCEPT = "policies.validation:Accept"
SECTIONS = ("response", "raters", "implicit", "drift", "scores")


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service; nobody asks its models anything."""
    silent = {"observe": {"raters": None}}
    return start_service(web={}, topic=silent, rent={}, pages={}, llm={})


@asynccontextmanager
async def kept(service: Any, model: str) -> AsyncIterator[Registry]:
    """Return what a service keeps of a model, from outside."""
    async with await open_store(service.server.url) as store:
        yield Registry(store, Keyring.load(service.data_dir), model)


@pytest.fixture(scope="module")
def runner(service: Any) -> Callable[..., str]:
    """Return what a command prints."""

    def run(*words: str, code: int = 0) -> str:
        found = CliRunner().invoke(
            app, words, env={"OL_URL": service.url, "OL_API_KEY": service.key}
        )
        assert found.exit_code == code, found.output
        return found.output

    return run


# --- who answers, whom to believe -------------------------------------------------------------


async def test_long_names_are_cut(service: Any, runner: Callable[..., str]) -> None:
    """What users have named is no wider than a column may be; as JSON it is there whole."""
    name = "human:" + "x" * 200
    rater = REPORTS["raters"]["raters"][0] | {"rater": name}
    served = {"n": 0, "error": None, "bins": []}
    reports = {"raters": {"raters": [rater]}, "scores": {"served": served}}
    async with kept(service, "rent") as registry:
        await report(registry, reports)
    table = await asyncio.to_thread(runner, "raters", "rent")
    assert f"human:{'x' * 33}\u2026  400" in table
    assert name in await asyncio.to_thread(runner, "raters", "rent", "--json")
    assert "Served scores" not in await asyncio.to_thread(runner, "bias", "rent")


def test_before_anything_was_observed_all_is_null(service: Any, http: httpx2.Client) -> None:
    """A model that nobody looked at has every section, and nothing in them; no alarm either."""
    found = http.get("/v1/models/web/bias").raise_for_status().json()
    assert [found[name] for name in SECTIONS] == [None] * 5
    assert (found["at"], found["seen"], found["weighs"], found["ask"]) == (None, 0, [], 1.0)
    assert found["window_s"] == 600.0
    assert http.get("/v1/models/web/alarms").json() == {"alarms": []}


async def test_what_is_reported_is_told(service: Any, http: httpx2.Client) -> None:
    """Each section is told with its fields, with those that only this observer has, and no NaN."""
    odd = {**REPORTS, "implicit": {"weight": math.nan, "events": [], "sentence": "?"}}
    async with kept(service, "rent") as registry:
        await report(registry, odd, tables={"raters": {"ada": 1.25}}, ask=2.0)
    found = http.get("/v1/models/rent/bias").raise_for_status().json()
    assert {name: found[name] for name in ("at", "seen", "weighs", "ask")} == {
        "at": AT,
        "seen": 2000,
        "weighs": ["raters"],
        "ask": 2.0,
    }
    assert found["response"] == REPORTS["response"]
    assert found["raters"] == REPORTS["raters"]
    assert found["drift"] == REPORTS["drift"]
    assert found["scores"] == REPORTS["scores"]
    assert found["implicit"] == {"weight": None, "events": [], "sentence": "?"}


async def test_a_report_of_a_teams_own_is_told_too(service: Any, http: httpx2.Client) -> None:
    """What leaves fields out has them, empty; another form stands as it is; what is off is null."""
    own = {"response": {"rate": {"n": 3}}, "drift": {"watched": "the tides"}, "raters": {"x": 1}}
    async with kept(service, "topic") as registry:
        await report(registry, own)
    found = http.get("/v1/models/topic/bias").raise_for_status().json()
    assert found["response"]["rate"] == {"n": 3, "k": 0, "share": None, "low": None, "high": None}
    assert found["response"]["by"]["segment"] == {}
    assert found["response"]["weighing"]["on"] is False
    assert found["drift"] == {"watched": "the tides"}
    assert (found["raters"], found["implicit"]) == (None, None)


async def test_what_is_damaged_is_said(service: Any, http: httpx2.Client) -> None:
    """Reports that carry no seal of ours are told to nobody, and the other routes go on."""
    async with kept(service, "pages") as registry:
        await report(registry, REPORTS)
        await registry.store.call("HSET", registry.keys.observer, "memory", b'{"raters": 1}')
    problem(http.get("/v1/models/pages/bias"), 503, "not_ready")
    assert http.get("/v1/models/pages").json()["ready"]


def test_who_may_not_read_is_told_nothing(service: Any, bare: httpx2.Client) -> None:
    """Both routes ask for a key, and say where there is no such model, or no such place."""
    for path in ("bias", "alarms"):
        problem(bare.get(f"/v1/models/web/{path}"), 401, "unauthorized")
    with service.client() as http:
        problem(http.get("/v1/models/nowhere/bias"), 404, "unknown_model")
        problem(http.get("/v1/models/web/alarms", params={"after": "x"}), 422, "invalid_value")
        problem(http.get("/v1/models/web/alarms", params={"count": 0}), 422, "invalid_value")


# --- alarms -----------------------------------------------------------------------------------


async def test_alarms_are_listed_newest_first(service: Any, http: httpx2.Client) -> None:
    """The newest first, or all after one, oldest first; what is none of ours is passed over."""
    raised = [RAISED.model_copy(update={"about": f"feature {n}"}) for n in range(4)]
    async with kept(service, "llm") as registry:
        await report(registry, {}, alarms=raised[:2])
        await registry.store.call("XADD", registry.keys.alarms, "*", "a", "{}")
        await report(registry, {}, alarms=raised[2:])

    def abouts(**asked: Any) -> list[str]:
        found = http.get("/v1/models/llm/alarms", params=asked).raise_for_status().json()
        return [alarm["about"][-1] for alarm in found["alarms"]]

    assert abouts() == ["3", "2", "1", "0"]
    assert abouts(count=2) == ["3", "2"]
    [_, _, second, _] = http.get("/v1/models/llm/alarms").json()["alarms"]
    assert abouts(after=second["id"]) == ["2", "3"]
    del second["id"]
    assert second == raised[1].model_dump()


async def test_both_clients_read_it(service: Any) -> None:
    """What the routes reply is what the methods return."""
    async with kept(service, "web") as registry:
        await report(registry, REPORTS, alarms=[RAISED])
    with Client(service.url, service.key) as client:
        found, raised = client.bias("web"), client.alarms("web", count=1)
    assert found["raters"]["others"] == 17
    assert [alarm["sentence"] for alarm in raised] == [RAISED.sentence]
    async with AsyncClient(service.url, service.key) as awaited:
        assert await awaited.bias("web") == found
        assert await awaited.alarms("web", count=1) == raised


# --- on the command line ----------------------------------------------------------------------


async def test_the_command_line_tells_it(service: Any, runner: Callable[..., str]) -> None:
    """Shares with their bounds, who weighs what and why stand there in words; or all as JSON."""
    async with kept(service, "web") as registry:
        await report(registry, REPORTS, alarms=[RAISED], tables={"raters": {}})
    told = runner("bias", "web")
    assert "2,000 answers were looked at 600 s after" in told
    assert "Corrections in force: raters" in told
    assert "Spoken of: 3.0 % (2.4 % to 3.6 %) of 2000." in told
    assert "0.5 to 0.75" in told
    assert "5 times as readily" in told
    assert "Weighing is off (auto). It takes more audits to tell." in told
    assert "Clicks do not mean" in told
    assert ": ask 2" in told
    assert "Served scores are 2.0 % off" in told
    told = runner("raters", "web")
    assert "human:mallory" in told
    assert "-0.80 (inverted)" in told
    assert "17 others" in told
    assert "Weighing is on (auto)" in told
    assert "loss: The loss rose from 0.12 to 0.31." in runner("alarms", "web")
    assert json.loads(runner("raters", "web", "--json")) == REPORTS["raters"]
    assert json.loads(runner("bias", "web", "--json"))["response"] == REPORTS["response"]
    assert json.loads(runner("alarms", "web", "--json"))[0]["effects"] == ["ask x 2"]


async def test_the_command_line_says_where_there_is_nothing(
    service: Any, runner: Callable[..., str]
) -> None:
    """What is not known yet is said in a line; a report of another form is shown as it is."""
    async with kept(service, "topic") as registry:
        await report(registry, {"response": {"rate": "\x1b[2Jhigh"}}, seen=0)
    told = runner("bias", "topic")
    assert 'response: {"rate": "\\\\u001b[2Jhigh"}' in told.replace("\\u", "\\\\u")
    assert "scores: nothing yet" in told
    assert runner("raters", "topic").strip() == "raters: nothing yet"
    assert "Nothing has been raised" in runner("alarms", "topic")


# --- as it happens ----------------------------------------------------------------------------


async def test_alarms_and_quality_are_events(service: Any) -> None:
    """Who listens is told of both as they come, with all that is known of them."""
    async with (
        kept(service, "web") as registry,
        AsyncClient(service.url, service.key) as client,
    ):
        [*_, last] = await registry.store.range(registry.keys.alarms)
        start = at_moment(int(last[0].split("-")[0]) + 1)
        await report(registry, REPORTS, alarms=[RAISED], point={"champion.accuracy": 0.82})
        found = {}
        events = client.stream("web", events=("alarm", "quality"), after=pack(start))
        async with aclosing(events) as heard:
            async for event in heard:
                found[event.kind] = event
                if len(found) == 2:
                    break
    alarm = found["alarm"]
    assert (alarm.at, alarm.data.pop("id") != "") == (AT, True)
    assert alarm.data == RAISED.model_dump(exclude={"at"})
    assert found["quality"].data == {"figures": {"champion.accuracy": 0.82}}
    assert found["quality"].at == AT


async def test_alarms_that_are_gone_are_said_to_be(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes back after a stream was full and lost entries hears so; of others, nothing is."""
    registry = loop.stages("web").registry
    await report(registry, {}, alarms=[RAISED] * 3, point={"x": 1.0})
    [first, *_] = await registry.store.range(registry.keys.alarms)
    kinds, cursor = ("alarm", "quality"), at_moment(0)
    feed = Feed(registry, at_moment(0))
    try:
        assert (await feed.read_back(cursor, kinds)).lost == ()
        monkeypatch.setitem(feeds._MOST, "alarm", 3)
        page = await feed.read_back(cursor, kinds)
        assert page.lost == ("alarm",)
        ms, number = map(int, first[0].split("-"))
        assert page.begin == {**cursor, "alarm": before((ms, number))}
    finally:
        await feed.close()


def test_what_is_no_alarm_is_not_told(keyring: Keyring) -> None:
    """An entry that cannot be read is passed over, whoever wrote it."""
    registry: Any = type("Nowhere", (), {"model": "web", "keyring": keyring})()
    telling = Telling(registry)
    for kind, name in (("alarm", b"a"), ("quality", b"q")):
        for written in (b"", b"[1]", b"null", b"{"):
            assert telling.take(kind, (1, 0), {name: written}) == []
    [event] = telling.take("quality", (1500, 0), {b"q": b'{"x": NaN}'})
    assert b'"at":1.5' in event.text
    assert b'"figures":{"x":null}' in event.text


# --- counted ----------------------------------------------------------------------------------


async def test_alarms_and_questions_are_counted(loop: Loop) -> None:
    """By a few words only, whatever they are about; once each, whoever counts."""
    registry, clock = loop.stages("web").registry, loop.ingest.clock
    about = [("drift", "loss"), ("drift", "feature x' OR 1"), ("raters", "human:ada"), ("own", "?")]
    raised = [Raised(by=by, about=what, sentence="") for by, what in [*about, ("response", "")]]
    await report(registry, {}, alarms=raised)
    for number, reason in enumerate(("uncertain", "gold", "uncertain", "x")):
        packed = json.dumps({"reason": reason, "value": 0.5})
        place = f"{int(1000 * clock())}-{number}"
        await registry.store.call("XADD", registry.keys.asked, place, "q", packed)
    for _ in range(2):
        await Meter(registry, clock=clock).turn()
    found = Tally()
    for _, fields in await registry.store.range(Keys("web").metrics):
        found.add(Tally.unpack(fields[b"t"]))
    assert found.by("alarms_total", "about") == {
        "loss": 1,
        "feature": 1,
        "rater": 1,
        "other": 1,
        "response": 1,
    }
    assert found.by("asked_total", "reason") == {"uncertain": 2, "gold": 1, "other": 1}


async def test_a_meter_of_an_older_release_is_followed(loop: Loop) -> None:
    """A place that was noted before these streams were counted is gone on from."""
    registry, clock = loop.stages("web").registry, loop.ingest.clock
    await Meter(registry, clock=clock).turn()
    key = registry.keys.meter
    noted = json.loads(await registry.store.call("GET", key))
    older = {name: place for name, place in noted.items() if name not in {"alarms", "asked"}}
    await registry.store.call("SET", key, json.dumps(older, sort_keys=True))
    await report(registry, {}, alarms=[RAISED])
    tally = await Meter(registry, clock=clock).turn()
    assert tally.total("alarms_total", about="loss") == 1


# --- what a lesson weighs ---------------------------------------------------------------------


def step(**weighed: Weighed) -> Step:
    """Return a step that has weighed some entries."""
    found = {entry.replace("_", "-"): how for entry, how in weighed.items()}
    return Step(lineage=1, step=7, after="0-0", to="9-0", signals=2, digest="", weighed=found)


def test_a_receipt_tells_what_its_lesson_weighed() -> None:
    """Where a weight was corrected, the raw one, the one given, and by whom stand in the fate."""
    how = Weighed(raw=1.0, given=0.4, factors={"raters": 0.5})
    told = tell(Found("learned", "5-0", step(**{"5_0": how})))
    assert told["weighed"] == {"raw": 1.0, "given": 0.4, "factors": {"raters": 0.5}}
    assert "weighed" not in tell(Found("learned", "6-0", step(**{"5_0": how})))
    reply = {"feedback_id": "x", "supersedes": None, "superseded_by": None, **told}
    weighed = Fate.read(reply).weighed
    assert weighed is not None
    assert (weighed.raw, weighed.given, weighed.factors) == (1.0, 0.4, {"raters": 0.5})


async def test_a_correction_is_told_all_the_way(
    make_settings: Callable[..., Settings], open_loop: Callable[..., Awaitable[Loop]]
) -> None:
    """By how much an observer has a lesson corrected stands in its receipt, and in every list."""
    observe = {"raters": "the_observers:Half"}
    loop = await open_loop(make_settings(web={"validation": ACCEPT, "observe": observe}))
    registry, found = loop.stages("web").registry, []
    for _ in range(2):
        answer = await loop.predict("web", {"x": 1.0})
        receipt = await loop.feedback(answer["prediction_id"], "correction", value=True)
        for _ in range(2):  # what is observed in one turn is learned by in the next
            await loop.turn("web")
        _, address = registry.keyring.open("feedback", receipt.feedback_id or "")
        found.append(await explain.receipt(registry, address))
    assert [told["status"] for told in found] == ["learned", "learned"]
    assert "weighed" not in found[0]
    weighed = {"raw": 1.0, "given": 0.5, "factors": {"raters": 0.5}}
    assert found[1]["weighed"] == weighed
    listed = await explain.feedback(registry)
    assert listed["feedback"][1]["weighed"] == weighed
    assert (await explain.bias(registry, loop.stages("web").spec))["weighs"] == ["raters"]


def test_the_page_on_the_api_names_them() -> None:
    """Both routes and both kinds of event are in the guide."""
    page = (Path(__file__).parent.parent / "docs" / "api.md").read_text()
    for name in ("/bias", "/alarms", "`alarm`", "`quality`", "weighed"):
        assert name in page
