"""What we log in a process of Serve's is not lost, and says which request it is about."""

from __future__ import annotations

import contextvars
import json
import logging
import re
import uuid
from collections.abc import Callable, Iterator
from logging.handlers import MemoryHandler
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from online_learner.settings import Settings
from serve_app.access import needs
from serve_app.http import Guarded, endpoint
from serve_app.telemetry import logs
from serve_app.telemetry.logs import OURS, JsonLines, Logged, configure, join_serve, note

FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Kept(logging.Handler):
    """Keeps what reaches it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(self.format(record))

    def objects(self) -> list[dict[str, Any]]:
        """Return the lines, read."""
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """Return where Serve's log ends, set up as on the fast profile."""
    file, serve = Kept(), logging.getLogger("ray.serve")
    file.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    monkeypatch.setattr(serve, "handlers", [MemoryHandler(1000, target=file)])
    monkeypatch.setattr(serve, "level", logging.WARNING)
    monkeypatch.setattr(logs, "_process", {})
    for name in OURS:
        monkeypatch.setattr(logging.getLogger(name), "parent", logging.getLogger().root)
    return file


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Iterator[Callable[..., Settings]]:
    """Return the factory of settings; in the end, all is written as by default."""
    yield make_settings
    configure(make_settings())


def test_our_warnings_reach_serves_log_at_once(kept: Kept) -> None:
    """Warnings of all our modules are written without delay; chatter stays out."""
    join_serve()
    logging.getLogger("online_learner.store.embedded").warning("it died")
    logging.getLogger("serve_app.service").warning("none")
    logging.getLogger("serve_app.service").info("all is well")
    assert kept.lines == ["online_learner.store.embedded: it died", "serve_app.service: none"]


def test_without_it_nothing_reaches_it(kept: Kept) -> None:
    """Without `join_serve`, our warnings do not reach Serve's log."""
    logging.getLogger("serve_app.service").warning("none")
    assert kept.lines == []


# --- as JSON ----------------------------------------------------------------------------------


def test_lines_are_json_where_that_is_wanted(kept: Kept, settings: Callable[..., Settings]) -> None:
    """By setting, each line is an object, with when, who and of which model; and text again."""
    join_serve("spam")
    log = logging.getLogger("serve_app.writer")
    for form in ("json", "json", "text"):
        configure(settings(logs=form))
        log.warning("a line\n  File x, line 1\nValueError")
    first, again = map(json.loads, kept.lines[:2])
    assert FORM.fullmatch(first.pop("at"))
    assert first == {
        "level": "WARNING",
        "logger": "serve_app.writer",
        "message": "a line",
        "trace": "  File x, line 1\nValueError",
        "model": "spam",
    }
    assert again["message"] == "a line"
    assert kept.lines[2].startswith("serve_app.writer: a line\n")


def test_the_words_of_an_error_are_left_out(kept: Kept, settings: Callable[..., Settings]) -> None:
    """Of an error that is logged as such, the place and the type stand there alone."""
    join_serve()
    configure(settings(logs="json"))
    try:
        int("hunter" + "2")
    except ValueError:
        logging.getLogger("online_learner.store").exception("it failed")
    [line] = kept.objects()
    assert "hunter2" not in kept.lines[0]
    assert line["trace"].endswith("ValueError")
    assert "test_logs.py" in line["trace"]


def test_elsewhere_it_goes_to_standard_error(
    settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a process that has set up no logging, the lines go to standard error, each once."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for name in OURS:
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    configure(settings(logs="json"))
    configure(settings(logs="json"))
    logging.getLogger("online_learner.store.embedded").warning("it died")
    [line] = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "it died"


# --- requests ---------------------------------------------------------------------------------


@needs("nothing")
async def _answer(request: Request) -> Response:
    note(prediction_id="p1", feedback_id=None)
    logging.getLogger("serve_app.gateway").warning("odd")
    return Response("fine", 202)


@needs("nothing")
async def _fail(request: Request) -> Response:
    raise RuntimeError(await request.body())


@pytest.fixture
def site() -> httpx2.AsyncClient:
    """Return a client of an application of two routes."""
    routes = [
        Route("/v1/things/{thing}", endpoint(_answer), methods=["POST"]),
        Route("/v1/failures", endpoint(_fail), methods=["POST"]),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(Logged), Middleware(Guarded)])
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://service", timeout=5.0
    )


async def test_a_line_says_which_request_it_is_about(
    kept: Kept, settings: Callable[..., Settings], site: httpx2.AsyncClient
) -> None:
    """What is logged within a request has its id, and the verified ids; outside, it has none."""
    join_serve()
    configure(settings(logs="json"))
    request_id = str(uuid.uuid4())
    await site.post("/v1/things/x", headers={"x-request-id": request_id})
    await site.post("/v1/things/x", headers={"x-request-id": "hunter2"})
    logging.getLogger("serve_app.service").warning("outside")
    first, second, outside = kept.objects()
    assert (first["request_id"], first["prediction_id"]) == (request_id, "p1")
    assert "feedback_id" not in first
    assert re.fullmatch("[0-9a-f]{32}", second["request_id"])
    assert not {"request_id", "prediction_id"} & set(outside)


async def test_a_problem_and_its_line_have_one_id(
    kept: Kept, settings: Callable[..., Settings], site: httpx2.AsyncClient
) -> None:
    """Whoever quotes the id of a problem finds the line, and the place of the defect in it."""
    join_serve()
    configure(settings(logs="json"))
    reply = await site.post("/v1/failures", content="hunter2")
    [line] = kept.objects()
    assert reply.status_code == 500
    assert line["request_id"] == reply.headers["x-request-id"] == reply.json()["request_id"]
    assert line["trace"].endswith("RuntimeError")
    assert "hunter2" not in kept.lines[0]


async def test_requests_are_logged_on_demand(
    kept: Kept, settings: Callable[..., Settings], site: httpx2.AsyncClient
) -> None:
    """With `access_log` each request is a line: its route and status, nothing that was sent."""
    join_serve()
    configure(settings(logs="json"))
    await site.post("/v1/things/hunter2?q=hunter2", content="hunter2")
    assert [line["logger"] for line in kept.objects()] == ["serve_app.gateway"]
    configure(settings(logs="json", access_log=True))
    await site.post("/v1/things/hunter2?q=hunter2", content="hunter2")
    await site.post("/hunter2")
    await site.request("HUNTER2", "/v1/failures")
    found = [line for line in kept.objects() if line["logger"] == "serve_app.requests"]
    assert [(line["method"], line["route"], line["status"]) for line in found] == [
        ("POST", "/v1/things/{thing}", 202),
        ("POST", "none", 404),
        ("other", "/v1/failures", 405),
    ]
    assert found[0]["prediction_id"] == "p1"
    assert found[0]["ms"] >= 0
    assert "hunter2" not in "".join(kept.lines).lower()


async def test_requests_are_logged_as_text(
    kept: Kept, settings: Callable[..., Settings], site: httpx2.AsyncClient
) -> None:
    """As text, too, the line has route, status, time and id."""
    join_serve()
    configure(settings(access_log=True))
    await site.post("/v1/things/x")
    line = kept.lines[-1]
    form = r"serve_app\.requests: POST /v1/things/\{thing\} 202 \d+\.\d ms [0-9a-f]{32}"
    assert re.fullmatch(form, line), line


def test_json_lines_stay_lines() -> None:
    """Whatever a message holds, it is one line of ASCII."""
    record = logging.LogRecord("x", logging.INFO, "", 0, "caf\u00e9\u2028%s", ("\r",), None)
    line = contextvars.Context().run(JsonLines().format, record)
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line)["message"] == "caf\u00e9\u2028\r"
