"""Hostile bodies on every route: refused with a problem, in time, and the service goes on."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from the_service import Service

from benchmarks.hostile import json_bodies
from benchmarks.hostile.json_bodies import PLACES, Place
from online_learner.errors import MAX_HINTS, Invalid, Malformed, ServiceError
from online_learner.requests import read_json
from serve_app.access import declared
from serve_app.gateway import PLACES_AN_ITEM, create_app
from serve_app.http import LARGE_BYTES, PROBLEM, body_of, endpoint, off_loop

SLOW_S = 0.3
TAKES_NO_JSON = {"/v1/session", "/login", "/logout", "/v1/models/{model}/versions"}


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service with a model of each task, and little patience."""
    web = {"categories": {"helpful": "up"}}
    return start_service(web=web, rent={}, pages={}, llm={}, body_timeout_s=SLOW_S)


@pytest.fixture(scope="module")
def ids(service: Service) -> dict[str, str]:
    """Return ids that lead somewhere."""
    with service.client() as http:
        return json_bodies.ids_of(http)


@pytest.fixture(scope="module")
def document(service: Service) -> dict[str, Any]:
    """Return the document of the service."""
    with service.client() as http:
        return dict(http.get("/openapi.json").json())


# --- over HTTP --------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.title)
def test_whatever_is_hostile_is_refused(
    place: Place, http: httpx2.Client, ids: dict[str, str]
) -> None:
    """Each place takes a good value (or knows of no such version), and nothing hostile at all."""
    assert json_bodies.control(http, place, ids) in (200, 201, 202, 404, 422)
    if "promote" not in place.path and "<said>" not in place.path:
        assert json_bodies.control(http, place, ids) < 300
    found = dict(json_bodies.asked(http, place, ids))
    assert len(found) > 35
    assert [kind for kind, status in found.items() if not 400 <= status < 500] == []
    assert (found["2 MiB"], found["compressed"], found["truncated"]) == (413, 415, 400)


def test_every_route_that_takes_json_has_a_place(service: Any) -> None:
    """A route that is added is attacked as well."""
    routes = declared(create_app(service.server.url, str(service.data_dir)).routes)
    named = {place.path.replace("<said>", "x") for place in PLACES}
    patterns = {
        path.replace("{feedback_id}", "x")
        for (method, path) in routes
        if method == "POST" and path not in TAKES_NO_JSON
    }
    assert {
        path
        for path in patterns
        if not any(path.replace("{model}", m) in named for m in ("web", "llm", "pages"))
    } == set()


def test_every_refusal_is_in_the_document(
    http: httpx2.Client, ids: dict[str, str], document: dict[str, Any]
) -> None:
    """Statuses that hostile bodies bring about are told of the route, and come as a problem."""
    for place in PLACES[::4]:
        path = json_bodies.fill(place.path, ids)
        said = path.replace(ids["said"], "{feedback_id}")
        for model in ("web", "pages", "llm"):
            said = said.replace(f"/{model}/", "/{model}/")
        told = document["paths"][said]["post"]["responses"]
        for content, kind in ((b"{", "json"), (b"{}", "text"), (b" " * (2 << 20), "json")):
            headers = {"content-type": f"application/{kind}"}
            reply = http.post(path, content=content, headers=headers)
            assert f"{reply.status_code}" in told
            assert reply.headers["content-type"] == PROBLEM


def test_a_slow_body_is_given_up(service: Any, ids: dict[str, str]) -> None:
    """Whoever does not send all of a body in time gets 408, on every route, and is hung up on."""
    paths = sorted({json_bodies.fill(place.path, ids) for place in PLACES})
    started = time.monotonic()
    found = json_bodies.slow(service.url, service.key, paths)
    assert set(found.values()) == {408}
    assert SLOW_S <= time.monotonic() - started < 20 * SLOW_S


def test_a_body_that_never_ends_is_cut_off(http: httpx2.Client) -> None:
    """Without a declared length, it is counted while it comes."""

    def parts() -> Iterator[bytes]:
        for _ in range(64):
            yield b" " * (1 << 16)

    reply = http.post("/v1/models/web/predict", content=parts(), headers=json_bodies._JSON)
    assert (reply.status_code, reply.json()["code"]) == (413, "too_large")


@contextlib.contextmanager
def served(app: Starlette, **options: Any) -> Iterator[int]:
    """Serve an application on a free port, which is returned."""
    web = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", **options))
    thread = threading.Thread(target=web.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not web.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    try:
        yield int(web.servers[0].sockets[0].getsockname()[1])
    finally:
        web.should_exit = True
        thread.join(20)


def test_a_false_length_is_no_way_round_the_limit() -> None:
    """The other server that uvicorn has passes on a length that is not that of the chunks."""

    async def take(request: Request) -> Response:
        return Response(f"{len(await body_of(request))} bytes")

    app = Starlette(routes=[Route("/", endpoint(take), methods=["POST"])])
    limits = SimpleNamespace(max_body_bytes=1000, body_timeout_s=5)
    app.state.service = SimpleNamespace(settings=limits)
    head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = "200\r\n" + "x" * 512 + "\r\n"
    with served(app, http="h11") as port:
        for chunks, status in ((1, 200), (3, 413)):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                client.sendall(f"{head}{chunk * chunks}0\r\n\r\n".encode())
                assert int(client.recv(4096).split(b" ", 2)[1]) == status


TWO = [first + second for first in "abcdefghij" for second in "abcdefghij"]
THUMB = {"prediction_id": "x", "kind": "thumbs", "value": True}


@pytest.mark.parametrize(
    "item",
    [
        1,
        THUMB | dict.fromkeys(TWO, 1),
        THUMB | dict.fromkeys(TWO[:50], 1),
        THUMB | {"vaule": 1},
        THUMB | {"tags": dict.fromkeys(TWO[:64], 1)},
        THUMB | {"kind": "thmubs"},
        THUMB | {"prediction_id": "p" * 256},
        {"prediction_id": "x", "signals": [THUMB] * 16},
    ],
    ids=["no object", "100 keys", "50 keys", "one key", "tags", "kind", "id", "signals"],
)
def test_a_batch_of_wrong_feedback_is_answered_shortly(http: httpx2.Client, item: Any) -> None:
    """Each item has its status and code, the first their places; all is within 256 kB."""
    reply = http.post("/v1/feedback_batch", json={"items": [item] * 1024})
    assert reply.status_code == 202
    assert len(reply.content) < 256_000
    results = reply.json()["results"]
    assert len(results) == 1024
    assert {400 <= result["status"] < 500 for result in results} == {True}
    assert max(len(result["errors"]) for result in results) <= PLACES_AN_ITEM
    assert sum(len(result["errors"]) for result in results) < 200
    assert [r["detail"] == "send it alone to be told more" for r in results[::1023]] == [0, 1]


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the words that the service seeks a known one for, as they come."""
    found: list[str] = []
    monkeypatch.setattr(difflib, "get_close_matches", lambda word, *_, **__: found.append(word))
    return found


def test_few_words_of_a_batch_get_a_hint(
    http: httpx2.Client, ids: dict[str, str], searches: list[str]
) -> None:
    """Unknown fields and kinds, and what is found wrong later on, share the hints."""
    category = {"prediction_id": ids["web"], "kind": "category", "value": "helpfull"}
    for path, field, item in (
        ("/v1/feedback_batch", "items", THUMB | {"vaule": 1}),
        ("/v1/feedback_batch", "items", THUMB | {"kind": "thmubs"}),
        ("/v1/feedback_batch", "items", category),
        ("/v1/models/web/predict_batch", "instances", {"features": {}, "topk": 1}),
    ):
        searches.clear()
        assert http.post(path, json={field: [item] * 200}).is_success
        assert len(searches) == MAX_HINTS


@pytest.mark.parametrize(
    "instance",
    [
        1,
        {"features": {}} | dict.fromkeys(TWO[:50], 1),
        {"features": {"x": None}},
        {"features": {}, "options": [{}] * 250},
    ],
    ids=["no object", "50 keys", "feature", "options"],
)
def test_a_batch_of_wrong_questions_is_answered_shortly(http: httpx2.Client, instance: Any) -> None:
    """As with feedback; and what is right in the batch is answered."""
    sent = [instance] * 1023 + [{"features": {"x": 1}}]
    reply = http.post("/v1/models/web/predict_batch", json={"instances": sent})
    assert reply.status_code == 200
    assert len(reply.content) < 256_000
    *wrong, answer = reply.json()["predictions"]
    assert {item["status"] for item in wrong} == {422}
    assert "prediction_id" in answer


@pytest.mark.parametrize(
    "head",
    [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: -1\r\n",
        "content-length: 5x\r\n",
        "x-long: " + "a" * 200_000 + "\r\n",
        "x\0y: 1\r\n",
    ],
    ids=["both", "two lengths", "negative", "no number", "200 kB of header", "NUL in a name"],
)
def test_a_crooked_head_does_no_harm(service: Any, http: httpx2.Client, head: str) -> None:
    """What is no HTTP is refused below us, or hung up on; the next request is answered."""
    place = urlsplit(service.url)
    request = f"POST /v1/feedback HTTP/1.1\r\nhost: x\r\n{head}\r\n{{}}xxx"
    with socket.create_connection((str(place.hostname), place.port or 80), timeout=5) as client:
        client.sendall(request.encode("latin-1"))
        client.shutdown(socket.SHUT_WR)
        try:
            reply = client.recv(4096)
        except ConnectionError:
            reply = b""
    assert not reply or 400 <= int(reply.split(b" ", 2)[1]) < 500
    assert http.get("/livez").status_code == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "HEAD", "PURGE"])
@pytest.mark.parametrize("path", ["/v1/feedback", "/v1/models/web/promote", "/v1/models/web/log"])
def test_a_method_that_is_not_taken(http: httpx2.Client, path: str, method: str) -> None:
    """It is 405 with the methods that are, hot route or not, and it is not repeated."""
    reply = http.request(method, path)
    assert reply.status_code == 405
    assert reply.headers["allow"] == "POST"
    assert reply.headers["content-type"] == PROBLEM
    assert method not in reply.text


@pytest.mark.parametrize(
    "part", ["a%0Ab", "%0A", "%00", "%2e%2e", "%ff%fe", "%C2%85", "a%2Fb", "%%"]
)
@pytest.mark.parametrize("path", ["/v1/predictions/{}", "/v1/models/{}", "/x{}"])
def test_an_odd_path_leads_nowhere(http: httpx2.Client, path: str, part: str) -> None:
    """Line breaks, NUL and the like in a path are 404, as a problem."""
    place = urlsplit(str(http.base_url))
    with socket.create_connection((str(place.hostname), place.port or 80), timeout=5) as client:
        key = http.headers["authorization"]
        head = f"GET {path.format(part)} HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\n"
        client.sendall(f"{head}connection: close\r\n\r\n".encode())
        reply = b"".join(iter(lambda: client.recv(4096), b""))
    assert reply.startswith(b"HTTP/1.1 404 ")
    assert f"content-type: {PROBLEM}".encode() in reply


def test_an_idempotency_key_has_a_length(http: httpx2.Client, ids: dict[str, str]) -> None:
    """A key in a header may be as long as one in a body, and only ASCII."""
    body = {"prediction_id": ids["web"], "kind": "thumbs", "value": True}
    for key, status in (("k" * 256, 202), ("k" * 257, 422), ("\xfc", 422), ("a\tb", 422)):
        headers = {b"idempotency-key": key.encode("latin-1")}
        assert http.post("/v1/feedback", json=body, headers=headers).status_code == status


def test_a_large_body_is_read_off_the_loop() -> None:
    """A small one is read at once, where that is quicker; the outcome and errors are the same."""

    def where(body: bytes) -> threading.Thread:
        if not body:
            raise Invalid("empty")
        return threading.current_thread()

    async def read(size: int) -> threading.Thread:
        return await off_loop(where, b"x" * size)

    assert asyncio.run(read(LARGE_BYTES)) is threading.current_thread()
    assert asyncio.run(read(LARGE_BYTES + 1)) is not threading.current_thread()
    with pytest.raises(Invalid):
        asyncio.run(read(0))


# --- JSON by itself ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (rb'"a\\u0000b"', r"a\u0000b"),
        (rb'{"a\\u0000": ["\\"]}', {r"a\u0000": ["\\"]}),
        (rb'"\ud83d\ude42"', "🙂"),
        (b"[1, 1.0, -0.0, true, null]", [1, 1.0, -0.0, True, None]),
        (b"1" + b"0" * 400, 10**400),
        (b'{"a": {"b": 1}, "b": {"a": 1}}', {"a": {"b": 1}, "b": {"a": 1}}),
        (b" \r\n\t{ } ", {}),
    ],
)
def test_what_is_json_is_read(body: bytes, value: Any) -> None:
    """A backslash before the letters of an escape is none, and a key may stand in two objects."""
    found = read_json(body)
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "a key stands twice in one object at line 1 column"),
        (b'{"a": NaN}', "expected value"),
        (b"-Infinity", "invalid number"),
        (rb'"\ud800"', "hex escape"),
        (rb'{"\udc00": 1}', "surrogate"),
        (b"9" * 5000, "number out of range"),
        (b"[" * 100_000, "recursion limit exceeded"),
        (b'{"a":' * 100_000, "recursion limit exceeded"),
        (b"{} {}", "trailing characters"),
        (b"\xef\xbb\xbf{}", "expected value"),
        (b'"\xff"', "unicode"),
        (b'"\xed\xa0\x80"', "unicode"),
        (b"", "EOF"),
    ],
)
def test_what_is_no_json_is_malformed(body: bytes, words: str) -> None:
    """It is said what is wrong, and at which line and column."""
    with pytest.raises(Malformed, match=words) as caught:
        read_json(body)
    assert caught.value.errors[0]["pointer"] == ""


@pytest.mark.parametrize(
    "body",
    [rb'"\u0000"', rb'{"\u0000": 1}', rb'{"a": [{"b": "x\u0000"}]}', rb'["\\", "\u0000"]'],
)
def test_a_text_with_nul_is_invalid(body: bytes) -> None:
    """NUL in a key or a value, however deep, is refused by name."""
    with pytest.raises(Invalid, match="NUL"):
        read_json(body)


def test_any_bytes_are_read_or_refused() -> None:
    """What comes of random bytes, and of JSON with a few of them changed, is one of our errors."""
    rng = random.Random(0)
    fine = json.dumps({"features": {"a": [1.5, -2e3], "b": 'tëxt " \\'}, "n": None}).encode()
    outcomes = {"read": 0, "refused": 0}
    for n in range(20_000):
        if n % 2:
            body = bytearray(fine)
            for _ in range(rng.randint(1, 4)):
                body[rng.randrange(len(body))] = rng.choice(b'{}[]",:\\u0019.eE+-tfn \0\xff')
        else:
            body = bytearray(rng.randbytes(rng.randint(0, 12)))
        try:
            read_json(bytes(body))
            outcomes["read"] += 1
        except ServiceError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 100
