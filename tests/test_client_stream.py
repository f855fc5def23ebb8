"""The client's streams, and `watch`: they go on through all that breaks, and tell what does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from online_learner.cli import app
from online_learner.client import ApiError, AsyncClient, Client, Event, NotReachable
from online_learner.client.sending import Retry
from online_learner.client.stream import Reader

QUICK = Retry(first_s=0.01, longest_s=0.02, random=lambda: 0.0)


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service."""
    return start_service(web={})


@pytest.fixture
def client(service: Any) -> Iterator[Client]:
    """Return a client of it."""
    with Client(service.url, service.key) as opened:
        yield opened


def say(client: Client) -> str:
    """Say something about a new answer; returns the id of the signal."""
    answer = client.predict("web", {"x": 1.0})
    return client.feedback(answer.prediction_id, "thumbs", True).feedback_id


def begin(service: Any) -> str:
    """Return a cursor: now."""
    with service.client() as http, http.stream("GET", "/v1/stream?model=web") as reply:
        return next(line for line in reply.iter_lines() if line.startswith("id: "))[4:]


def block(n: int, kind: str = "feedback") -> str:
    """Return an event as it is sent."""
    data = json.dumps({"model": "web", "at": n / 2, "n": n})
    return f"event: {kind}\ndata: {data}\nid: c{n}\n\n"


# --- against the service ----------------------------------------------------------------------


def test_events_come_as_they_happen(service: Any, client: Client) -> None:
    """A client hears what is said while it listens, typed; an id is where another goes on."""
    heard: list[Event] = []
    with closing(client.stream("web", ("feedback", "verdict"), after=begin(service))) as events:
        for _ in range(3):
            said = say(client)
            heard.append(next(events))
            assert heard[-1].data["feedback_id"] == said
        client.freeze("web")
        heard.append(next(events))
    assert isinstance(heard[0], Event)
    assert {event.model for event in heard} == {"web"}
    assert (heard[-1].kind, heard[-1].data["action"]) == ("verdict", "freeze")
    with closing(client.stream("web", ("feedback", "verdict"), after=heard[0].id)) as events:
        assert [next(events) for _ in heard[1:]] == heard[1:]


async def test_it_can_be_awaited(service: Any) -> None:
    """The client for asyncio hears the same, while it does other things."""
    async with (
        AsyncClient(service.url, service.key) as client,
        aclosing(client.stream("web", events=("feedback",), after=begin(service))) as events,
    ):
        hearing = asyncio.ensure_future(anext(events))
        answer = await client.predict("web", {"x": 1.0})
        said = await client.feedback(answer.prediction_id, "thumbs", True)
        event = await hearing
    assert event.data["feedback_id"] == said.feedback_id


def test_what_would_not_change_is_raised_at_once(service: Any, client: Client) -> None:
    """An unknown model, kind or key is an error, and is not tried again."""
    for model, kinds, key, code in [
        ("weg", ("swap",), service.key, "unknown_model"),
        ("web", ("gossip",), service.key, "invalid_value"),
        ("web", ("swap",), "ol_wrong", "unauthorized"),
    ]:
        with Client(service.url, key) as other, pytest.raises(ApiError) as refused:
            next(other.stream(model, events=kinds))
        assert refused.value.code == code


# --- connections that break -------------------------------------------------------------------


class Script:
    """Answers each connection with what the script says, and notes what was asked."""

    def __init__(self, *replies: Any) -> None:
        self._replies = iter(replies)
        self.asked: list[str | None] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one connection."""
        self.asked.append(request.url.params.get("after"))
        reply = next(self._replies)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, int):
            problem = {"status": reply, "code": "x", "detail": "d"}
            kind = {"content-type": "application/problem+json"}
            return httpx2.Response(reply, json=problem, headers=kind)
        return httpx2.Response(200, stream=Broken(reply))


class Broken(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that comes in pieces, and breaks off."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __iter__(self) -> Iterator[bytes]:
        """Yield it, a few bytes at a time."""
        for start in range(0, len(self._text), 7):
            yield self._text[start : start + 7].encode()
        raise httpx2.ReadError("broken off")

    async def __aiter__(self) -> Any:
        """Yield the same."""
        for piece in self:
            yield piece


@pytest.mark.parametrize("cut", range(0, 3 * len(block(1)), 3))
def test_it_goes_on_after_the_last_whole_event(cut: int) -> None:
    """Wherever a connection breaks off, the next one asks for what came after, and none is lost."""
    whole = "".join(map(block, (1, 2, 3)))
    heard = whole[:cut].count("\n\n")
    script = Script(
        f"retry: 1000\nid: c0\n\n{whole[:cut]}", "".join(map(block, range(heard + 1, 5)))
    )
    waits: list[float] = []
    client = Client("http://x", transport=httpx2.MockTransport(script), sleep=waits.append)
    with client, closing(client.stream("web", after="c0")) as events:
        found = [next(events).data["n"] for _ in range(4)]
    assert found == [1, 2, 3, 4]
    assert script.asked == ["c0", f"c{heard}"]
    assert len(waits) == 1


def test_it_waits_for_a_service_that_is_away() -> None:
    """Refusals that pass and broken connections are tried again, from where it was."""
    away = httpx2.ConnectError("no")
    script = Script(block(1), away, 503, 429, away, 503, ": alive\n\n" + block(2))
    with (
        Client(
            "http://x", transport=httpx2.MockTransport(script), sleep=lambda _: None, retry=QUICK
        ) as client,
        closing(client.stream("web")) as events,
    ):
        assert [next(events).id for _ in range(2)] == ["c1", "c2"]
    assert script.asked == [None] + ["c1"] * 6


def test_its_patience_ends() -> None:
    """A service that stays away is an error in the end; who came back in between has it anew."""
    clock = iter(range(1000))
    retry = Retry(first_s=1.0, longest_s=1.0, random=lambda: 0.0, clock=lambda: float(next(clock)))
    away = httpx2.ConnectError("no")
    script = Script(*[away] * 5, block(1), *[away] * 100)
    with (
        Client(
            "http://x", transport=httpx2.MockTransport(script), sleep=lambda _: None, retry=retry
        ) as client,
        closing(client.stream("web", patience_s=10.0)) as events,
    ):
        assert next(events).id == "c1"
        with pytest.raises(NotReachable):
            next(events)
    assert 6 < len(script.asked) < 30


async def test_the_async_client_goes_on_as_well() -> None:
    """Broken off in the middle of an event, it asks for what came after the one before."""
    script = Script(block(1) + block(2)[:9], 503, block(2))

    async def sleep(_: float) -> None:
        """Wait for nothing."""

    async with (
        AsyncClient(
            "http://x", transport=httpx2.MockTransport(script), sleep=sleep, retry=QUICK
        ) as client,
        aclosing(client.stream("web")) as events,
    ):
        assert [(await anext(events)).id for _ in range(2)] == ["c1", "c2"]
    assert script.asked == [None, "c1", "c1"]


def test_lines_that_are_not_known_are_passed_over() -> None:
    """A newer service may send more fields, and comments are none."""
    reader = Reader("web")
    lines = [": hello", "retry: 5", "colour: red", *block(1).splitlines(), "", "event: odd", ""]
    assert [event.id for event in map(reader.line, lines) if event] == ["c1"]


# --- watch ------------------------------------------------------------------------------------


@pytest.fixture
def there(service: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the command line find the service."""
    monkeypatch.setenv("OL_URL", service.url)
    monkeypatch.setenv("OL_API_KEY", service.key)
    return service


def test_watch_tells_in_lines(there: Any, client: Client) -> None:
    """`watch` prints an event a line; with --json objects whose id goes into --after."""
    start = begin(there)
    said = say(client)
    client.freeze("web")
    asked = ["watch", "web", "--after", start, "--events", "feedback,verdict", "--count", "2"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    signal, verdict = result.output.splitlines()
    assert "feedback  thumbs on " in signal
    assert "verdict   freeze" in verdict
    result = CliRunner().invoke(app, [*asked, "--json"])
    first, second = map(json.loads, result.output.splitlines())
    assert first["data"]["feedback_id"] == said
    assert (second["event"], second["model"]) == ("verdict", "web")
    asked = ["watch", "web", "--after", first["id"], "--count", "1", "--json"]
    result = CliRunner().invoke(app, [*asked, "--events", "feedback,verdict"])
    assert json.loads(result.output) == second


def test_watch_refuses_as_the_others_do(there: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown model is refused with 1, and nobody there is 3."""
    assert CliRunner().invoke(app, ["watch", "weg"]).exit_code == 1
    assert CliRunner().invoke(app, ["watch", "web", "--events", "gossip"]).exit_code == 1
    monkeypatch.setenv("OL_URL", "http://127.0.0.1:1")
    assert CliRunner().invoke(app, ["watch", "web"]).exit_code == 3
