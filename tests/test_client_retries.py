"""What the client sends again, against a service that says not now, and connections that break."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
import pytest

from online_learner.client import ApiError, AsyncClient, Client, NotReachable, Receipt, Retry
from online_learner.store import open_store
from online_learner.store.keys import Keys

RATE, BURST = 2.0, 3
ENOUGH = 50  # signals, one after the other, to be over the limit


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a service where one user says little, and on `topic` as much as they like."""
    little = {"per_key": None, "per_source": {"rate": RATE, "burst": BURST}}
    return start_service(web={"limits": little}, topic={})


@pytest.fixture
def said(service: Any) -> Callable[..., Awaitable[list[dict[str, Any]]]]:
    """Return a function that reads all that was said of an answer."""

    async def read(prediction_id: str | None, model: str = "topic") -> list[dict[str, Any]]:
        async with await open_store(service.server.url) as store:
            entries = await store.range(Keys(model).feedback)
        found = [json.loads(fields[b"f"]) for _, fields in entries]
        return [item for item in found if item["prediction_id"] == prediction_id]

    return read


class Counting(httpx2.HTTPTransport):
    """Sends everything, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[httpx2.Request] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request."""
        self.sent.append(request)
        return super().handle_request(request)


# --- not now ----------------------------------------------------------------------------------


def test_feedback_over_the_limit_is_sent_again_when_it_is_taken(service: Any) -> None:
    """The client waits as long as the service says, and then the same signal is accepted."""
    wire = Counting()
    with Client(service.url, service.key, transport=wire) as client:
        receipts, keys = [], [""]
        while keys[-1] not in keys[:-1]:
            assert len(receipts) < ENOUGH
            receipts.append(client.predict("web", {"x": 1}).thumbs(up=True, user_id="ada"))
            keys = [sent.headers["idempotency-key"] for sent in wire.sent if _is_feedback(sent)]
    assert {receipt.status for receipt in receipts} == {"accepted"}
    assert len(set(keys)) == len(receipts) == len(keys) - 1


def _is_feedback(request: httpx2.Request) -> bool:
    return request.url.path == "/v1/feedback"


def test_no_longer_wait_than_is_wanted(service: Any) -> None:
    """Who would have to wait too long is told at once, with the service's own words."""
    waits: list[float] = []
    retry = Retry(longest_s=0.5)
    with Client(service.url, service.key, retry=retry, sleep=waits.append) as client:

        def praise() -> None:
            for n in range(ENOUGH):
                client.predict("web", {"x": n}).thumbs(up=True, user_id="bob")

        with pytest.raises(ApiError, match="Send it again in 1 s") as caught:
            praise()
    assert (caught.value.status, caught.value.retryable) == (429, True)
    assert waits == []


async def test_of_a_batch_what_was_refused_is_sent_again_alone(service: Any, said: Any) -> None:
    """Refused items go again under the same keys until taken; receipts keep their places."""
    wire = Counting()
    with Client(service.url, service.key, transport=wire) as client:
        answers = [client.predict("web", {"x": n}) for n in range(BURST + 1)]
        wire.sent.clear()
        body = {"kind": "thumbs", "value": True, "user_id": "eve"}
        items = [{"prediction_id": answer.prediction_id, **body} for answer in answers]
        receipt = client.feedback_batch([*items, {**items[0], "value": "yes"}])
    assert (receipt.accepted, receipt.duplicates, receipt.rejected) == (BURST + 1, 0, 1)
    *taken, wrong = receipt.results
    for found, answer in zip(taken, answers, strict=True):
        assert isinstance(found, Receipt)
        assert found.prediction_id == answer.prediction_id
        assert len(await said(answer.prediction_id, "web")) == 1
    assert isinstance(wrong, ApiError)
    assert wrong.errors[0]["pointer"] == f"/{BURST + 1}/value"
    first, second, *_ = (json.loads(request.content)["items"] for request in wire.sent)
    assert second == [first[BURST]]


def test_of_a_batch_what_stays_refused_is_told(service: Any) -> None:
    """When patience is over, each that was not taken has its error, and the others are taken."""
    waits: list[float] = []
    retry = Retry(attempts=3, first_s=0.0)
    with Client(service.url, service.key, retry=retry, sleep=waits.append) as client:
        answers = [client.predict("web", {"x": n}) for n in range(2 * BURST)]
        body = {"kind": "thumbs", "value": True, "user_id": "mallory"}
        items = [{"prediction_id": answer.prediction_id, **body} for answer in answers]
        receipt = client.feedback_batch(items)
    assert receipt.accepted >= BURST
    refused = [result for result in receipt.results if isinstance(result, ApiError)]
    assert len(refused) == receipt.rejected > 0
    assert {error.code for error in refused} == {"rate_limited"}


@pytest.mark.parametrize("wrong", ["value", "id", "field", "version", "key"])
def test_what_would_be_refused_again_is_sent_once(service: Any, wrong: str) -> None:
    """A client's own mistakes are not repeated: 401, 404 and 422 come back at once."""
    wire = Counting()
    key = "ol_nobody" if wrong == "key" else service.key
    with Client(service.url, service.key) as other:
        prediction_id = str(other.predict("topic", {"x": 1}).prediction_id)
    body: dict[str, Any] = {
        "value": {"kind": "correction", "value": "no label"},
        "id": {"kind": "thumbs", "value": True, "prediction_id": "x" * 50},
        "field": {"kind": "thumbs", "value": True, "coment": "x"},
        "version": {"kind": "thumbs", "value": True, "model_version": 99},
        "key": {"kind": "thumbs", "value": True},
    }[wrong]
    with Client(service.url, key, transport=wire) as client, pytest.raises(ApiError) as caught:
        client._say({"prediction_id": prediction_id, **body})
    assert caught.value.status in {401, 404, 422}
    assert len(wire.sent) == 1


# --- connections that break -------------------------------------------------------------------


class Wire:
    """A TCP connection to the service that breaks on cue, one fault a connection.

    `reset` breaks when connected, `request` once the request is there, `reply` once the service has
    answered, `half` in the middle of what it answered.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._service = (parts.hostname, parts.port)
        self._listener: asyncio.Server | None = None
        self._port = 0
        self._passing: set[asyncio.Task[Any]] = set()
        self.faults: list[str] = []
        self.connections = 0

    @property
    def url(self) -> str:
        """Where a client connects."""
        return f"http://127.0.0.1:{self._port}"

    async def open(self) -> None:
        """Listen; on the same port as before, where it listened before."""
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more, and break all that stands."""
        assert self._listener is not None
        self._listener.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _connected(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)
        self.connections += 1
        fault = self.faults.pop(0) if self.faults else ""
        try:
            await self._serve(fault, near, back)
        finally:
            back.transport.abort()

    async def _serve(
        self, fault: str, near: asyncio.StreamReader, back: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if not fault:
                await self._pass(near, back)
            elif fault != "reset":
                request = await _message(near)
                reply = b"" if fault == "request" else await self._ask(request)
                back.write(reply[: len(reply) // 2] if fault == "half" else b"")
                await back.drain()

    async def _ask(self, request: bytes) -> bytes:
        far, forth = await asyncio.open_connection(*self._service)
        forth.write(request)
        reply = await _message(far)
        forth.close()
        return reply

    async def _pass(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, forth = await asyncio.open_connection(*self._service)
        try:
            await asyncio.gather(_pump(near, forth), _pump(far, back))
        finally:
            forth.transport.abort()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """Read one HTTP message."""
    head = await reader.readuntil(b"\r\n\r\n")
    [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    return head + await reader.readexactly(int(length.partition(b":")[2]))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
async def wire(service: Any) -> AsyncIterator[Wire]:
    """Return a wire to the service."""
    async with Wire(service.url) as opened:
        yield opened


def impatient(wire: Wire, service: Any, **options: Any) -> AsyncClient:
    """Return a client at the other end of the wire; it waits for next to nothing."""
    return AsyncClient(wire.url, service.key, retry=Retry(first_s=0.001), **options)


@pytest.mark.parametrize(
    ("faults", "status"),
    [
        (["reset"], "accepted"),
        (["request"], "accepted"),
        (["reply"], "duplicate"),
        (["half"], "duplicate"),
        (["reset", "request", "reply"], "duplicate"),
    ],
)
async def test_feedback_survives_a_broken_connection(
    service: Any, wire: Wire, said: Any, faults: list[str], status: str
) -> None:
    """Wherever the connection breaks, the signal is taken, and taken once."""
    with Client(service.url, service.key) as direct:
        prediction_id = str(direct.predict("topic", {"x": 1}).prediction_id)
    async with impatient(wire, service) as client:
        wire.faults = list(faults)
        receipt = await client.feedback(prediction_id, "correction", "sport")
        assert receipt.status == status
        batch = {"prediction_id": prediction_id, "kind": "thumbs", "value": True}
    async with impatient(wire, service) as client:
        wire.faults = list(faults)
        found = await client.feedback_batch([batch])
        assert (found.accepted, found.duplicates) == (status == "accepted", status == "duplicate")
    assert wire.connections == 2 * (len(faults) + 1)
    kept = await said(prediction_id)
    assert [item["kind"] for item in kept] == ["correction", "thumbs"]


async def test_a_client_comes_back_after_the_service_was_away(service: Any, wire: Wire) -> None:
    """Nobody listens for a while, and connections that stood are gone: the next call finds back."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            await wire.open()

    async with impatient(wire, service, sleep=sleep) as client:
        answer = await client.predict("topic", {"x": 1})
        await wire.close()
        assert (await answer.thumbs(up=True)).status == "accepted"
    assert (len(waits), wire.connections) == (2, 2)


async def test_a_connection_that_always_breaks_is_given_up(service: Any, wire: Wire) -> None:
    """After as many attempts as were wanted, the error names the address."""
    wire.faults = ["request"] * 10
    async with impatient(wire, service) as client:
        with pytest.raises(NotReachable, match="after 4 attempts"):
            await client.feedback("x" * 50, "thumbs", True)
    assert wire.connections == 4


# --- how long ---------------------------------------------------------------------------------


def test_a_call_ends_at_its_deadline() -> None:
    """However many attempts are left, nothing is sent again after `deadline_s`."""
    now = [100.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    def refuse(request: httpx2.Request) -> httpx2.Response:
        now[0] += 1.0  # it takes a second
        headers = {"content-type": "application/problem+json", "retry-after": "2"}
        body = {"status": 503, "code": "busy", "detail": "Later.", "retryable": True}
        return httpx2.Response(503, json=body, headers=headers)

    retry = Retry(attempts=99, deadline_s=10.0, random=lambda: 0.0, clock=lambda: now[0])
    transport = httpx2.MockTransport(refuse)
    with Client("http://learner:8000", "k", retry=retry, sleep=wait, transport=transport) as client:
        for _ in range(2):
            begun = now[0]
            with pytest.raises(ApiError, match="Later"):
                client.feedback("P", "thumbs", True)
            assert now[0] - begun == 10.0


def test_waits_are_spread() -> None:
    """Of many who were refused at once, no two come back at once, and none before its time."""
    drawn = Retry(longest_s=3.0)
    backoffs = {drawn.wait_s(3) for _ in range(200)}
    told = {drawn.wait_s(3, retry_after_s=2.0) for _ in range(200)}
    assert len(backoffs) == len(told) == 200
    assert all(wait is not None and 0.2 <= wait <= 0.4 for wait in backoffs)
    assert all(wait is not None and 2.0 <= wait <= 2.2 for wait in told)
