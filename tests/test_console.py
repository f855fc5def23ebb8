"""The console: who gets in, what each panel says, and that nothing on it comes from elsewhere."""

from __future__ import annotations

import asyncio
import doctest
import gzip
import html
import importlib
import json
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx2
import pytest
from the_service import bearer, problem

from online_learner import auth
from online_learner.explain.versus import versus
from online_learner.ids import Keyring
from online_learner.loop import Loop
from online_learner.metrics.meter import Meter
from online_learner.registry import Registry
from online_learner.requests import PredictRequest
from online_learner.schema import Ask
from online_learner.settings import Settings
from online_learner.store import open_store
from serve_app.console import assets, charts, door, routes, words
from serve_app.console import panels as panels_
from serve_app.console.page import POLICY
from serve_app.console.reports import Reports
from serve_app.console.scene import PANELS
from serve_app.session import COOKIE

Poll = Callable[..., Awaitable[None]]

EVIL = "<script>alert(1)</script>"
AUDITED = {"audit": 1.0, "promotion": {"policy": "policies.promotion:Manual"}}
PAGES = [{"id": name, "features": {"title": EVIL}} for name in ("a", "b")]
LABELS = ("news", "sport", "science")
TASKS = ("web", "topic", "rent", "pages", "llm")
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "web": ("predict", {"features": {"x": 1.0, "on": True, EVIL: 2.0}}),
    "topic": ("predict", {"features": {"x": 1.0}}),
    "rent": ("predict", {"features": {"rooms": 3.0}}),
    "pages": ("predict", {"features": {"query": EVIL}, "options": PAGES}),
    "llm": (
        "log",
        {"prompt": EVIL, "outputs": [{"id": "0", "text": "4"}, {"id": "1", "text": "5"}]},
    ),
}


@pytest.fixture(scope="module")
def empty(start_service: Callable[..., Any]) -> Any:
    """Return a service with a model of each task, of which nobody has asked anything."""
    return start_service(**{name: {} for name in TASKS})


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a service with a model of each task, audited, with labels and text that are HTML."""
    evil = {"labels": ["ham", EVIL], "categories": {EVIL: "up"}}
    return start_service(web=AUDITED | evil, **dict.fromkeys(TASKS[1:], AUDITED))


@pytest.fixture(scope="module")
def used(service: Any) -> Any:
    """Return that service, once every model was asked, told and taught, twice."""
    for _ in range(2):
        with service.client() as http:
            for model in TASKS:
                ask(http, model, *({"comment": EVIL} for _ in range(2)))
        asyncio.run(service.turn())
    return service


def ask(http: httpx2.Client, model: str, *comments: dict[str, Any]) -> str:
    """Ask a model, and say as often that it was right; returns the id of the answer."""
    route, body = ASKED[model]
    answer = http.post(f"/v1/models/{model}/{route}", json=body).raise_for_status().json()
    for comment in comments:
        said = {"prediction_id": answer["prediction_id"], "kind": "thumbs", "value": True}
        http.post("/v1/feedback", json=said | comment).raise_for_status()
    return str(answer["prediction_id"])


async def key_of(service: Any, eventually: Poll, name: str, *scopes: auth.Scope) -> str:
    """Return a new key, once the service lets it in."""
    key = auth.new_key()
    async with await open_store(service.server.url) as store:
        await auth.allow(store, key, name=name, scopes=scopes)
    with service.client(key) as http:
        await eventually(lambda: http.get("/v1/session").status_code == 200)
    return key


def panels(page: str) -> dict[str, str]:
    """Return what a page shows, by panel."""
    found = re.findall(r'<section[^>]* data-panel="(\w+)".*?</section>', page, flags=re.DOTALL)
    parts = re.findall(r'<section[^>]* data-panel="\w+".*?</section>', page, flags=re.DOTALL)
    return dict(zip(found, parts, strict=True))


def text(part: str) -> str:
    """Return what is to be read of HTML."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", part)).split())


# --- the door ---------------------------------------------------------------------------------


def test_without_a_key_there_is_a_form(service: Any, bare: httpx2.Client) -> None:
    """Nobody known sees a form that works without JavaScript, and no data at all."""
    reply = bare.get("/")
    assert reply.status_code == 200
    assert '<form method="post" action="/login"' in reply.text
    assert panels(reply.text) == {}
    assert "topic" not in reply.text


def test_a_key_opens_the_page(service: Any, bare: httpx2.Client) -> None:
    """The form's key becomes a cookie, and is nowhere else; the page then has all its panels."""
    reply = bare.post("/login", data={"key": f" {service.key} "})
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    assert reply.headers["set-cookie"].startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=strict"} <= set(reply.headers["set-cookie"].split("; "))
    page = bare.get("/").text
    assert list(panels(page)) == list(PANELS)
    assert service.key not in page + str(reply.headers)


@pytest.mark.parametrize("sent", ["key=ol_wrong", "key=", "", "other=1", "key=" + "x" * 5000, "{}"])
def test_a_wrong_key_does_not(service: Any, bare: httpx2.Client, sent: str) -> None:
    """Whatever is wrong about a key, the form comes again and says the same of it."""
    reply = bare.post("/login", content=sent)
    assert (reply.status_code, reply.headers["location"]) == (303, "/?wrong=1")
    assert "set-cookie" not in reply.headers
    page = bare.get(reply.headers["location"]).text
    assert "This key lets nobody in" in text(page)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "{}"}, 403),
        ({"origin": "http://elsewhere.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "https://proxy.example"}, 303),
        ({"origin": "{}"}, 303),
    ],
)
def test_a_form_of_another_site_lets_nobody_in(
    service: Any, bare: httpx2.Client, sent: dict[str, str], status: int
) -> None:
    """No other site gets its visitors a session here, not even with a good key: only our form."""
    headers = {name: value.format(service.url) for name, value in sent.items()}
    reply = bare.post("/login", data={"key": service.key}, headers=headers)
    assert reply.status_code == status
    assert ("set-cookie" in reply.headers) == (status == 303)


def test_a_form_that_does_not_arrive_is_wrong(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends half a form is not waited for, and is no defect of the server."""
    monkeypatch.setattr(door, "PATIENCE_S", 0.05)
    head = b"POST /login HTTP/1.1\r\nhost: here\r\ncontent-length: 100\r\n\r\nkey="
    with socket.create_connection(("127.0.0.1", httpx2.URL(service.url).port)) as slow:
        slow.settimeout(10)
        slow.sendall(head)
        assert slow.recv(1000).startswith(b"HTTP/1.1 303 ")


def test_a_session_ends_with_its_token_only(service: Any, bare: httpx2.Client) -> None:
    """The form to leave carries the session's token; a post without it ends nothing."""
    bare.post("/login", data={"key": service.key})
    for forged in ({}, {"csrf_token": "00" * 32}, {"csrf_token": "zz"}):
        reply = bare.post("/logout", data=forged)
        assert "set-cookie" not in reply.headers
    [token] = re.findall(r'name="csrf_token" value="(\w+)"', bare.get("/").text)
    assert bare.post("/logout", data={"csrf_token": token}).status_code == 303
    assert bare.cookies.get(COOKIE) is None
    assert panels(bare.get("/").text) == {}
    assert bare.post("/logout", data={"csrf_token": token}).status_code == 303


async def test_a_key_that_may_not_read_is_told_so(
    service: Any, bare: httpx2.Client, eventually: Poll
) -> None:
    """Without the scope `read`, the page has no panel, and says which key it takes."""
    key = await key_of(service, eventually, "asker", "predict")
    bare.post("/login", data={"key": key})
    page = bare.get("/").text
    assert panels(page) == {}
    assert "--scope read" in page


def test_parts_take_a_key_as_the_page_does(service: Any, bare: httpx2.Client) -> None:
    """Panels, answers and diffs are refused without one, and where there are none of that name."""
    for path in ("/console/web/tiles", "/console/web/answers/x", "/console/web/diff/0/0"):
        problem(bare.get(path), 401, "unauthorized")
    with service.client() as http:
        problem(http.get("/console/web/tiles,nothing"), 404, "not_found")
        problem(http.get("/console/nowhere/tiles"), 404, "unknown_model")
        assert "No model of that name" in http.get("/?model=nowhere").text


# --- what keeps the page to itself ------------------------------------------------------------


def test_the_browser_is_told_to_trust_nothing_else(service: Any, http: httpx2.Client) -> None:
    """Every page and part comes with the strict policy, is not kept, and cannot be framed."""
    with service.client(key=None) as stranger:
        replies = [stranger.get("/"), http.get("/"), http.get("/console/web/tiles")]
    for reply in replies:
        assert reply.headers["content-security-policy"] == POLICY
        assert reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["referrer-policy"] == "same-origin"
        assert reply.headers["cache-control"] == "no-store"
    assert "unsafe" not in POLICY


def pages(used: Any) -> Iterator[tuple[str, str]]:
    """Yield every page and part there is."""
    with used.client(key=None) as stranger:
        yield "/", stranger.get("/").text
    with used.client() as http:
        for model in TASKS:
            paths = [f"/?model={model}", f"/console/{model}/{','.join(PANELS)}"]
            paths += [f"/console/{model}/answers/{ask(http, model, {})}"]
            paths += [f"/console/{model}/diff/0/0"]
            for path in paths:
                yield path, http.get(path).raise_for_status().text


async def test_what_users_sent_is_text(used: Any, eventually: Poll) -> None:
    """Features, options, prompts, labels, categories, names of keys: nothing of it is HTML."""
    key = await key_of(used, eventually, EVIL, *auth.SCOPES)
    with used.client(key) as http:
        http.post("/v1/models/web/freeze", json={}).raise_for_status()
        http.post("/v1/models/web/thaw", json={}).raise_for_status()
        http.post("/v1/models/web/predict", json={"features": {f'"{EVIL}': 2.0, "x": 1.0}})
        found = dict(pages(used)) | {"as evil": http.get("/?model=web").text}
        found["queue"] = http.get("/console/web/queue,playground,verdicts").text
    assert "&lt;script&gt;alert(1)" in found["queue"]
    for path, page in found.items():
        assert EVIL not in page, path
        assert "alert(1)</script" not in page, path


def test_nothing_comes_from_elsewhere(used: Any) -> None:
    """No page, style or script names another host; scripts and styles are files of our own."""
    elsewhere = re.compile(r"""(?:https?:)?//(?!www\.w3\.org/)[\w-]+\.[\w.]+""")
    for path, page in pages(used):
        assert not elsewhere.search(page), path
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page), path
        for script in re.findall(r"<script[^>]*>", page):
            assert re.search(r' src="/static/[\w.]+\?v=\w+"', script), script
    for file in assets.FOLDER.iterdir():
        code = re.sub(
            r"/\*!?.*?\*/|^//.*?$|\s// .*?$", "", file.read_text(), flags=re.DOTALL | re.MULTILINE
        )
        if file.suffix != ".LICENSE":
            assert not elsewhere.search(code), file.name


def test_files_of_the_page_are_there(service: Any, bare: httpx2.Client) -> None:
    """Every file that the page and its modules name is served, packed, and known again by a tag."""
    bare.post("/login", data={"key": service.key})
    page = bare.get("/").text
    named = set(re.findall(r'"(/static/[^"]+)"', page))
    script = (assets.FOLDER / "console.js").read_text()
    [modules] = re.findall(r"\[((?:\"\w+\",? ?)+)\]\.map\(load\)", script)
    named |= {assets.address(f"{name}.js") for name in json.loads(f"[{modules}]")}
    assert len(named) >= 10
    weight = len(gzip.compress(page.encode()))
    for path in named:
        reply = bare.get(path)
        assert reply.status_code == 200, path
        weight += len(gzip.compress(reply.content))
        again = bare.get(path, headers={"if-none-match": reply.headers["etag"]})
        assert again.status_code == 304
    assert weight < 100_000
    assert (assets.FOLDER / "uplot.LICENSE").read_text().startswith("The MIT License")
    problem(bare.get("/static/nothing.js"), 404, "not_found")


# --- the panels -------------------------------------------------------------------------------


@pytest.mark.parametrize("model", TASKS)
def test_an_empty_model_says_what_to_do(empty: Any, model: str) -> None:
    """Of a model that nobody has asked yet every panel renders, and names a command that exists."""
    with empty.client() as http:
        shown = panels(http.get(f"/?model={model}").text)
    assert list(shown) == list(PANELS)
    cli = importlib.import_module("online_learner.cli")
    known = set(importlib.import_module("typer.main").get_command(cli.app).commands)
    for name in ("score", "verdicts", "drift", "queue"):
        [command, *_] = re.findall(r"online-learner (\w+)", shown[name])
        assert command in known, name
    assert "untrained" in shown["tiles"]
    assert "The learner does not run" in text(shown["tiles"])


def test_every_command_that_is_named_exists() -> None:
    """Whatever a template tells people to type is a command of `online-learner`."""
    cli = importlib.import_module("online_learner.cli")
    known = set(importlib.import_module("typer.main").get_command(cli.app).commands)
    templates = (assets.FOLDER.parent / "templates").rglob("*.html")
    named = {c for t in templates for c in re.findall(r"online-learner ([a-z]+)", t.read_text())}
    assert named - known == set()


@pytest.mark.parametrize("model", TASKS)
def test_a_model_in_use_fills_its_panels(used: Any, model: str) -> None:
    """What was asked, said and learned stands in the panels, for each task."""
    with used.client() as http:
        shown = panels(http.get(f"/?model={model}").text)
    [learned] = re.findall(r"(\d+) learned", text(shown["tiles"]))
    assert int(learned) > 0
    assert "<option" in shown["playground"] or "<textarea" in shown["playground"]
    assert "champion" in text(shown["versions"])
    assert "audits were answered" in text(shown["verdicts"])


@pytest.fixture(scope="module")
def fresh(start_service: Callable[..., Any]) -> Any:
    """Return a service of one audited model."""
    return start_service(topic={"audit": 1.0})


async def test_what_is_measured_fills_the_panels(fresh: Any, eventually: Poll) -> None:
    """Counts, delays, scores with their range, calibration and drift stand there, in numbers."""
    with fresh.client() as http:
        for n in range(30):
            sent = {"features": {"x": float(n % 3)}}
            id_ = http.post("/v1/models/topic/predict", json=sent).json()["prediction_id"]
            said = {"prediction_id": id_, "kind": "correction", "value": LABELS[n % 3]}
            http.post("/v1/feedback", json=said | {"user_id": f"u{n}"}).raise_for_status()
            if n % 10 == 9:
                await fresh.turn()
        async with await open_store(fresh.server.url) as store:
            await Meter(Registry(store, Keyring.load(fresh.data_dir), "topic")).turn()

        def funnel() -> str:
            return text(http.get("/console/topic/funnel").text)

        await eventually(lambda: re.search("received 30 .*accepted 30 .*learned 30 ", funnel()))
        shown = panels(http.get("/console/topic/score,calibration,drift,tiles").text)
    assert re.search(r"champion 0 [\d.]+ % [\d.]+ % to [\d.]+ % 30", text(shown["score"]))
    assert shown["score"].count("<tr><td>") >= 2
    assert "over 30 labels" in text(shown["calibration"])
    assert re.search(r"long run [\d.]+ % .* 30", text(shown["drift"]))
    assert all(label in text(shown["drift"]) for label in LABELS[:1])
    assert "answers" in shown["tiles"]


def test_the_playground_begins_with_what_was_asked(used: Any) -> None:
    """Its form has the fields of recent questions by type; a ranking is asked in JSON."""
    with used.client() as http:
        ask(http, "web")
        form = http.get("/console/web/playground").text
        assert re.search(r'data-name="x" data-type="number" value="1"', form)
        assert re.search(r'data-name="on" data-type="boolean" checked', form)
        ranking = http.get("/console/pages/playground").text
    assert "data-name" not in ranking
    assert html.unescape(ranking).count('"title"') == len(PAGES)


def test_what_the_log_does_not_keep_is_not_shown(start_service: Callable[..., Any]) -> None:
    """With `log_inputs: none` there is no form of features, and the queue says why."""
    service = start_service(web=AUDITED | {"log_inputs": "none"})
    with service.client() as http:
        http.post("/v1/models/web/predict", json={"features": {"secret": "word"}})
        page = http.get("/").text
    assert "secret" not in page


@pytest.mark.parametrize("model", TASKS)
def test_an_answer_takes_every_kind_that_means_something(used: Any, model: str) -> None:
    """Each button of an answer sends a signal that is accepted, whatever the task."""
    with used.client() as http:
        id_ = ask(http, model)
        part = http.get(f"/console/{model}/answers/{id_}").text
        signals = [json.loads(html.unescape(s)) for s in re.findall(r"data-signal='([^']+)'", part)]
        room = Settings.model(used.settings, model)
        for signal in signals:
            body = {"prediction_id": id_, "dry_run": True, **signal}
            assert http.post("/v1/feedback", json=body).status_code == 202, signal
        offered = set(re.findall(r"<legend>(\w+)", part))
        offered -= set() if room.categories else {"category"}
        wrong = {"prediction_id": id_, "kind": "preference", "chosen": "a", "rejected": "b"}
        refused = http.post("/v1/feedback", json=wrong | {"dry_run": True})
        takes_pairs = refused.status_code == 202 or "not_served" in refused.text
        assert takes_pairs == ("preference" in offered)
    assert {"thumbs", "rating", "correction", "flag", "implicit"} <= offered


def test_an_answer_tells_its_story(used: Any) -> None:
    """What was said of an answer, and what became of it, stands below the answer."""
    with used.client() as http:
        id_ = ask(http, "rent", {})
        part = text(http.get(f"/console/rent/answers/{id_}").text)
        assert "thumbs true accepted" in part
        forged = id_[:-1] + ("A" if id_[-1] != "A" else "B")
        problem(http.get(f"/console/rent/answers/{forged}"), 404, "unknown_prediction")


# --- who may do what --------------------------------------------------------------------------


async def test_a_reader_sees_no_buttons(used: Any, eventually: Poll) -> None:
    """Without a scope there is nothing to press for it, and a word on which key it takes."""
    with used.client() as http:
        assert 'data-operate="rollback"' in http.get("/console/web/versions").text
    key = await key_of(used, eventually, "reader", "read")
    with used.client(key) as http:
        shown = panels(http.get("/?model=web").text)
        id_ = ask_as_owner(used)
        part = http.get(f"/console/web/answers/{id_}").text
    for name in ("versions", "queue", "playground"):
        assert "data-operate" not in shown[name]
        assert "data-signal" not in shown[name]
    assert "scope operate" in text(shown["versions"])
    assert "--scope audit" in shown["queue"]
    assert "--scope predict" in shown["playground"]
    assert "data-signal" not in part


def ask_as_owner(used: Any) -> str:
    """Return the id of an answer that the service's own key was given."""
    with used.client() as http:
        return ask(http, "web")


async def test_an_auditor_labels_what_waits(used: Any, eventually: Poll) -> None:
    """With the scope `audit`, waiting answers stand there with a button a label."""
    key = await key_of(used, eventually, "auditor", *auth.AUDITOR)
    waiting = ask_as_owner(used)
    with used.client(key) as http:
        part = http.get("/console/web/queue").text
        assert waiting in re.findall(r'data-prediction="([^"]+)"', part)
        [card] = re.findall(
            rf'<li class="card" data-prediction="{waiting}" .*?</li>', part, re.DOTALL
        )
        signals = [json.loads(html.unescape(s)) for s in re.findall(r"data-signal='([^']+)'", card)]
        assert [signal["value"] for signal in signals] == ["ham", EVIL]
        said = http.post("/v1/feedback", json={"prediction_id": waiting, **signals[0]})
        assert said.status_code == 202
        assert waiting not in http.get("/console/web/queue").text


async def test_a_labeller_is_shown_what_is_asked_and_no_audit(used: Any) -> None:
    """Without the scope `audit`, answers of which the model was unsure stand there alone."""
    audited = ask_as_owner(used)
    async with await Loop.open(used.settings) as loop:
        room = loop.stages("web")
        record = room.predictor.answer(PredictRequest(features={"x": 1.0}, tags={}))
        why = Ask(reason="uncertain", probability=0.5)
        record = record.model_copy(update={"ask": why, "shadows": {}})
        [address] = await room.journal.append([record])
        asked = loop.keyring.seal("prediction", "web", address)
    with used.client() as http:
        part = http.get("/console/web/queue").text
        assert re.findall(r'data-prediction="([^"]+)"', part) == [asked]
        assert audited not in part
        ids = {"prediction_ids": [asked], "seconds": 60}
        leased = http.post("/v1/models/web/queue/lease", json=ids).raise_for_status().json()
        assert [item["prediction_id"] for item in leased["queue"]] == [asked]
        http.post("/v1/models/web/queue/skip", json={"prediction_ids": [asked]}).raise_for_status()
        assert "Nothing is asked just now" in text(http.get("/console/web/queue").text)


async def test_who_labels_sees_the_options(used: Any, eventually: Poll) -> None:
    """Of a ranking the options stand there as they were sent, not only their names."""
    key = await key_of(used, eventually, "ranker", *auth.AUDITOR)
    with used.client() as http:
        sent = {
            "features": {"query": "x"},
            "options": [{"id": "a", "features": {"title": "Zebra"}}],
        }
        http.post("/v1/models/pages/predict", json=sent).raise_for_status()
    with used.client(key) as http:
        assert "Zebra" in text(http.get("/console/pages/queue").text)


def test_what_was_decided_is_marked_at_once(used: Any) -> None:
    """A promotion stands in the verdicts, the chart's marks and the tree, in the next drawing."""
    with used.client() as http:
        http.get("/console/topic/score")  # a report is kept from here on
        http.post("/v1/models/topic/freeze", json={}).raise_for_status()
        shown = panels(http.get("/console/topic/tiles,score,verdicts,versions").text)
        http.post("/v1/models/topic/thaw", json={}).raise_for_status()
    assert "frozen" in text(shown["tiles"])
    assert "freeze" in text(shown["score"])
    assert "Frozen by hand" in text(shown["verdicts"])
    assert 'data-operate="thaw"' in shown["versions"]


# --- two versions -----------------------------------------------------------------------------


async def test_a_diff_names_the_coefficients_that_moved(
    make_settings: Callable[..., Settings], open_loop: Callable[..., Awaitable[Loop]]
) -> None:
    """Between two versions of a linear model stand what was learned and each weight's change."""
    promotion = {"policy": "policies.promotion:Manual", "snapshot_every": 10}
    loop = await open_loop(make_settings(web={"audit": 1.0, "promotion": promotion}))
    for n in range(40):
        answer = await loop.predict("web", {"x": float(n % 2), "y": 1.0})
        await loop.feedback(answer["prediction_id"], "correction", bool(n % 2))
        if n % 10 == 9:
            await loop.turn("web")
    stages = loop.stages("web")
    first, *_, last = await stages.registry.versions()
    found = await versus(stages.registry, stages.learner, first.version, last.version)
    assert found["learned"] == last.learned - first.learned > 0
    assert not found["same"]
    top = {row["name"]: row for row in found["weights"]["top"]}
    assert set(top) == {"x", "y", "(intercept)"} or set(top) == {"x", "y"}
    assert top["x"]["first"] == 0.0
    assert top["x"]["second"] == pytest.approx(top["x"]["change"])
    weights = (await stages.registry.load_version(last.version, stages.learner))[1].model.weights
    assert top["x"]["second"] == weights["x"]
    same = await versus(stages.registry, stages.learner, last.version, last.version)
    assert (same["same"], same["weights"]["changed"]) == (True, 0)


def test_a_diff_is_asked_for_over_http(used: Any, bare: httpx2.Client) -> None:
    """The route needs the scope `read`, knows its versions, and says what it cannot compare."""
    path = "/v1/models/{}/versions/0/diff/0"
    problem(bare.get(path.format("web")), 401, "unauthorized")
    with used.client() as http:
        assert http.get(path.format("web")).json()["same"] is True
        bayes = http.get(path.format("topic")).json()
        assert bayes["weights"] is None
        assert "by name" in bayes["why_not"]
        problem(http.get("/v1/models/web/versions/0/diff/99"), 404, "unknown_version")
        problem(http.get("/v1/models/web/versions/0/diff/x"), 422, "invalid_value")
        assert "to the bit" in http.get("/console/web/diff/0/0").text


# --- what it costs, and what breaks -----------------------------------------------------------


async def test_a_report_is_shared(loop: Loop, open_loop: Callable[..., Awaitable[Loop]]) -> None:
    """All who look within a second get one report; a model that is set up anew has another."""
    reports, room = Reports(), loop.stages("web")
    first = await reports.of(room)
    assert await reports.of(room) is first
    assert await reports.of((await open_loop()).stages("web")) is not first


def test_each_panel_is_drawn_once(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a panel is named in a request, it is no more work."""
    drawn: list[str] = []

    def render(template: str, **shown: Any) -> str:
        drawn.append(template)
        return really(template, **shown)

    really = panels_.render
    monkeypatch.setattr(panels_, "render", render)
    with service.client() as http:
        http.get(f"/console/web/{','.join(['tiles', 'funnel'] * 50)}").raise_for_status()
    assert drawn == ["panels/tiles", "panels/funnel"]


async def test_versions_are_compared_one_pair_at_a_time(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers in a hurry do not fill the memory of what answers with weights."""
    at_once, most = 0, 0

    async def counted(*asked: Any) -> dict[str, Any]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            return await versus(*asked)
        finally:
            at_once -= 1

    monkeypatch.setattr(routes, "versus", counted)
    headers = bearer(service.key)
    async with httpx2.AsyncClient(base_url=service.url, headers=headers, verify=False) as http:
        path = "/v1/models/web/versions/0/diff/0"
        replies = await asyncio.gather(*(http.get(path) for _ in range(8)))
    assert [reply.status_code for reply in replies] == [200] * 8
    assert most == 1


def test_a_damaged_champion_is_said(start_service: Callable[..., Any]) -> None:
    """The page comes all the same, and names what is damaged; so do panels and diffs."""
    service = start_service(web={}, topic={})

    async def damage() -> None:
        async with await open_store(service.server.url) as store:
            registry = Registry(store, Keyring.load(service.data_dir), "web")
            await store.call("HSET", registry.keys.version(0), "meta", b"{}")

    asyncio.run(damage())
    with service.client() as http:
        page = http.get("/?model=web").text
        assert re.search("version 0 of 'web' carries no valid seal", text(page))
        assert panels(page) == {}
        for path in ("tiles", "diff/0/0"):
            problem(http.get(f"/console/web/{path}"), 503, "not_ready")
        problem(http.get("/v1/models/web"), 503, "not_ready")
        assert list(panels(http.get("/?model=topic").text)) == list(PANELS)


def test_a_store_that_is_away_is_said(start_service: Callable[..., Any]) -> None:
    """The page comes all the same, without panels, says what to do, and looks again by itself."""
    service = start_service(web={})
    with service.client() as http:
        service.server.stop()
        page = http.get("/").text
    assert panels(page) == {}
    assert "online-learner doctor" in page
    assert '<meta http-equiv="refresh"' in page
    assert "console.js" not in page


@pytest.mark.parametrize("module", [words, charts])
def test_examples_of_the_helpers_hold(module: Any) -> None:
    """The examples in their docstrings are true."""
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_headers_win_over_no_session(service: Any) -> None:
    """A key in the header shows the page as well, without a form to leave."""
    page = httpx2.get(f"{service.url}/", headers=bearer(service.key)).text
    assert list(panels(page)) == list(PANELS)
    assert "/logout" not in page
