"""What is sent comes back in no error, and stands in no log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.hostile import secrecy, site
from benchmarks.hostile.plants import CORE, MARK, Plants
from benchmarks.hostile.secrecy import Searched
from serve_app.access import needs
from serve_app.http import Guarded, endpoint, json_response

COUNT = 2_200  # a whole round with the key, and part of one without, and with the store away


@pytest.fixture(scope="module")
def searched() -> Searched:
    """Plant, in the service in a process of its own."""
    with site.running(secrecy.MODELS) as running:
        return secrecy.examine(running, COUNT)


def test_nothing_that_was_sent_comes_back(searched: Searched) -> None:
    """Of all that was planted, nothing stands in an error or in the log; records have theirs."""
    assert len(searched.asked.plants) >= COUNT
    assert searched.leaks() == {"error replies": {}, "logs": {}}
    assert searched.kept > 20
    assert {400, 401, 404, 405, 413, 415, 422, 429, 500, 503} <= set(searched.asked.statuses)


def test_what_fails_is_logged(searched: Searched) -> None:
    """The log says where the model's defects are: in answering, and in learning."""
    log = searched.written["logs"]
    assert "predict failed" in log
    assert 'benchmarks/hostile/bomb.py", line' in log
    assert "RuntimeError" in log
    assert "could not be learned" in log


# --- planting ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda text: text,
        lambda text: f"x{text}x".upper(),
        lambda text: json.dumps({text: [text]}),
        quote,
        repr,
        lambda text: text.encode("unicode_escape").decode(),
    ],
)
def test_a_plant_is_found_in_any_writing(write: Any) -> None:
    """Each shape is found in the middle of other text, and none where there is none."""
    plants = Plants(0)
    texts = [plants.new(f"place {n}") for n in range(200)]
    assert len({plants.planted[core].rpartition("(")[2] for core in plants.planted}) == 7
    assert len(plants.found_in(" ".join(map(write, texts)))) == 200
    assert plants.found_in("".join(chr(97 + n % 26) for n in range(10_000))) == {}
    assert plants.found_in(texts[0][: CORE - 2]) == {}


def test_a_template_is_filled_everywhere() -> None:
    """Values and keys that are marks are planted, each by itself; all else stays."""
    plants = Plants(0)
    found = plants.fill({"a": [MARK, 1, {MARK: "b"}], f"n{MARK}": 2.0}, "body")
    assert len(plants) == 3
    assert found["a"][1] == 1
    assert 2.0 in found.values()
    assert MARK not in [*found, *found["a"]]


# --- a defect ---------------------------------------------------------------------------------


@needs("nothing")
async def _defective(request: Request) -> Response:
    raise RuntimeError(await request.body())


@needs("nothing")
async def _streaming(request: Request) -> Response:
    return json_response({"fine": True})


SECRET = "hunter2"


class _Breaks:
    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)
        if scope["path"] == "/late":
            raise RuntimeError(SECRET)


@pytest.fixture
def defective() -> Iterator[Any]:
    """Return a client of an application with defects."""
    routes = [
        Route("/now", endpoint(_defective), methods=["POST"]),
        Route("/late", endpoint(_streaming), methods=["POST"]),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(Guarded), Middleware(_Breaks)])
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://service", timeout=5.0
    )


async def test_a_defect_is_told_without_its_words(
    defective: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A client gets 500 as a problem; the log has the place and the type, once."""
    with caplog.at_level(logging.INFO):
        reply = await defective.post("/now", content=SECRET)
    assert reply.status_code == 500
    assert reply.headers["content-type"] == "application/problem+json"
    assert SECRET not in reply.text + caplog.text
    assert "_defective failed" in caplog.text
    assert caplog.text.count("\nRuntimeError") == 1


async def test_a_defect_after_the_reply_is_logged_only(
    defective: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A reply that was sent stands, and the defect is in the log."""
    reply = await defective.post("/late")
    assert reply.json() == {"fine": True}
    assert "failed" in caplog.text
    assert SECRET not in caplog.text
