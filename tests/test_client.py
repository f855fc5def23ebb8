"""The client library, against the real application, and against broken networks."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

import online_learner.client
from online_learner.client import (
    Answer,
    ApiError,
    AsyncClient,
    Client,
    NotReachable,
    PredictionGone,
    Receipt,
    Retry,
)
from online_learner.client.place import locate
from online_learner.errors import ConfigError
from online_learner.note import Note
from online_learner.store import open_store

URL = "http://learner:8000"
RECEIPT = {
    "feedback_id": "F",
    "prediction_id": "P",
    "model": "web",
    "status": "accepted",
    "durability": "fsynced",
}
ANSWER = {
    "prediction_id": "P",
    "model": "web",
    "version": 1,
    "step": 2,
    "output": True,
    "scores": {"true": 1.0},
    "uncertainty": 0.0,
    "propensity": 1.0,
    "ask": None,
    "flags": [],
    "blocked": False,
    "feedback_expires_at": "2030-01-01T00:00:00.000Z",
}


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service: a classifier, a regression, and a model that follows at once."""
    eager = {"policy": "policies.promotion:Always"}
    return start_service(web={}, rent={}, topic={"promotion": eager})


@pytest.fixture
def client(service: Any) -> Iterator[Client]:
    """Return a client of the running service."""
    with Client(service.url, service.key) as opened:
        yield opened


@pytest.fixture
async def async_client(service: Any) -> AsyncIterator[AsyncClient]:
    """Return an asynchronous client of the running service."""
    async with AsyncClient(service.url, service.key) as opened:
        yield opened


# --- the walk ---------------------------------------------------------------------------------


async def test_from_a_question_to_a_lesson(service: Any, client: Client) -> None:
    """An answer is corrected, the receipt is accepted and then learned, and the story tells it."""
    answer = client.predict("web", {"x": 1.0}, user_id="ada", tags={"page": "home"})
    assert answer.model == "web"
    assert answer.output in (False, True)
    assert answer.scores.keys() == {"false", "true"}
    assert answer.asked
    receipt = answer.correct(True, user_id="ada", comment="no")
    assert receipt.status == "accepted"
    assert receipt.durability == "fsynced"
    assert receipt.prediction_id == answer.prediction_id
    assert receipt.feedback_id is not None
    assert client.receipt(receipt.feedback_id).status == "accepted"
    await service.turn()
    fate = client.receipt(receipt.feedback_id)
    assert (fate.status, fate.lineage, fate.reason) == ("learned", 1, None)
    assert fate.step is not None
    story = client.prediction(str(answer.prediction_id))
    assert story["prediction"]["tags"] == {"page": "home"}
    assert story["feedback"][0]["source"] == "human:ada"


async def test_the_same_walk_awaited(service: Any, async_client: AsyncClient) -> None:
    """The asynchronous client walks the same way; many of its calls run at once."""
    answers = await asyncio.gather(
        *(async_client.predict("rent", {"rooms": rooms}) for rooms in range(50))
    )
    assert len({answer.prediction_id for answer in answers}) == 50
    receipts = await asyncio.gather(*(answer.correct(800.0) for answer in answers))
    assert {receipt.status for receipt in receipts} == {"accepted"}
    await service.turn()
    fate = await async_client.receipt(str(receipts[-1].feedback_id))
    assert fate.status == "learned"
    model = await async_client.model("rent")
    assert model["learned"] >= 50


def test_thumbs_and_feedback_are_signals_of_their_own(client: Client) -> None:
    """Each call is a signal; the same idempotency key makes two calls one."""
    answer = client.predict("web", {"x": 2.0})
    first = answer.thumbs(up=False)
    second = client.feedback(str(answer.prediction_id), "thumbs", True)
    assert (first.status, second.status) == ("accepted", "accepted")
    again = answer.thumbs(up=True, idempotency_key="mine")
    once_more = answer.thumbs(up=True, idempotency_key="mine")
    assert (again.status, once_more.status) == ("accepted", "duplicate")
    assert again.feedback_id == once_more.feedback_id
    with pytest.raises(ApiError, match="idempotency_key_reused"):
        answer.thumbs(up=False, idempotency_key="mine")


def test_batches_keep_errors_in_their_places(client: Client) -> None:
    """A batch returns answers and errors in order, and each answer can be corrected."""
    good, bad, other = client.predict_batch(
        "web", [{"features": {"x": 1}}, {"features": {"x": {}}}, {"features": {"x": 2}}]
    )
    assert isinstance(good, Answer)
    assert isinstance(other, Answer)
    assert isinstance(bad, ApiError)
    assert bad.errors[0]["pointer"] == "/1/features"
    assert good.thumbs(up=True).status == "accepted"
    receipt = client.feedback_batch(
        [
            {"prediction_id": good.prediction_id, "kind": "correction", "value": True},
            {"prediction_id": "forged", "kind": "thumbs", "value": True},
            {"prediction_id": other.prediction_id, "kind": "thumbs", "value": "yes"},
        ]
    )
    assert (receipt.accepted, receipt.duplicates, receipt.rejected) == (1, 0, 2)
    accepted, gone, wrong = receipt.results
    assert isinstance(accepted, Receipt)
    assert isinstance(gone, PredictionGone)
    assert isinstance(wrong, ApiError)
    assert wrong.code == "invalid_value"


async def test_models_are_moved_by_hand(service: Any, client: Client) -> None:
    """Versions, verdicts, freeze, thaw, promote and roll back; dry runs change nothing."""
    answer = client.predict("topic", {"x": 1.0})
    answer.correct("sport")
    await service.turn()
    assert client.versions("topic")[0]["version"] == 0
    assert client.freeze("topic")["aliases"]["frozen"]
    assert client.model("topic")["aliases"]["frozen"]
    planned = client.promote("topic", 0, dry_run=True)
    assert planned["dry_run"]
    assert client.model("topic")["aliases"]["frozen"]
    assert not client.thaw("topic")["aliases"]["frozen"]
    assert client.rollback("topic", 0)["verdict"]["action"] == "rollback"
    actions = [verdict["action"] for verdict in client.verdicts("topic")]
    assert actions[:3] == ["rollback", "thaw", "freeze"]
    assert len(client.verdicts("topic", count=1)) == 1
    with pytest.raises(ApiError, match="unknown_version"):
        client.promote("topic", 99)


def test_readiness_is_an_answer_either_way(client: Client) -> None:
    """A service that is not ready is told about, not raised."""
    state = client.ready()
    assert state["ready"] is False
    assert state["models"]["web"] == {"weights": True, "learner": False, "gatekeeper": False}
    assert {model["model"] for model in client.models()} == {"web", "rent", "topic"}


def test_numpy_numbers_are_sent(client: Client) -> None:
    """Features out of a numpy row are taken as they are."""
    row = np.array([1, 2])
    assert client.predict("rent", {"a": row[0], "b": np.float32(0.5), "c": np.bool_(1)}).model


def test_what_is_no_json_is_not_sent(client: Client) -> None:
    """NaN and objects are refused before anything is sent."""
    with pytest.raises(ValueError, match="JSON"):
        client.predict("rent", {"a": float("nan")})
    with pytest.raises(TypeError, match="cannot be sent"):
        client.predict("rent", {"a": object()})


# --- errors -----------------------------------------------------------------------------------


def test_an_error_carries_the_whole_problem(client: Client) -> None:
    """Status, code, detail, places and request id are attributes; the text says what to do."""
    with pytest.raises(ApiError) as caught:
        client.predict("wbe", {"x": 1})
    error = caught.value
    assert (error.status, error.code, error.retryable) == (404, "unknown_model", False)
    assert "Did you mean 'web'?" in str(error)
    assert len(error.request_id) == 32
    with pytest.raises(ApiError) as caught:
        client.predict("web", {"x": None})
    assert caught.value.errors[0]["pointer"] == "/features"


def test_an_answer_that_takes_no_feedback(client: Client) -> None:
    """Unknown ids, and answers without one, are told apart from other refusals."""
    with pytest.raises(PredictionGone):
        client.feedback("forged", "thumbs", True)
    unlogged = Answer.read(client._say, {**ANSWER, "prediction_id": None})
    with pytest.raises(PredictionGone, match="takes no feedback"):
        unlogged.correct(True)


def test_a_wrong_key_is_refused(service: Any) -> None:
    """A service that does not know the key says so, and the key is not in the message."""
    with Client(service.url, "ol_secret_words") as client, pytest.raises(ApiError) as caught:
        client.models()
    assert caught.value.status == 401
    assert "ol_secret_words" not in str(caught.value)


def test_nobody_there(unused_port: int) -> None:
    """Where nobody listens, the error names the address and the next step."""
    client = Client(f"http://127.0.0.1:{unused_port}", retry=Retry(attempts=2, first_s=0.0))
    named = rf"127\.0\.0\.1:{unused_port} after 2 attempts"
    with client, pytest.raises(NotReachable, match=named):
        client.predict("web", {})


def test_another_server_is_no_crash() -> None:
    """An address where something else answers gives a plain error."""
    page = httpx2.MockTransport(lambda _: httpx2.Response(200, text="<html>"))
    with Client(URL, transport=page) as client, pytest.raises(ApiError, match="does not speak"):
        client.models()
    broken = httpx2.MockTransport(lambda _: httpx2.Response(500, text="oops"))
    client = Client(URL, transport=broken, retry=Retry(attempts=1))
    with client, pytest.raises(ApiError, match="500"):
        client.models()


# --- sending again ----------------------------------------------------------------------------


class Network:
    """Plays back outcomes, and keeps what was sent and how long was waited."""

    def __init__(self, *outcomes: Any) -> None:
        self._outcomes = iter(outcomes)
        self.sent: list[httpx2.Request] = []
        self.waits: list[float] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        self.sent.append(request)
        outcome = next(self._outcomes)
        if isinstance(outcome, type):
            raise outcome("broken", request=request)
        assert isinstance(outcome, httpx2.Response)
        return outcome

    def client(self, **options: Any) -> Client:
        """Return a client on this network that waits for nothing."""
        retry = Retry(random=lambda: 0.0, **options)
        transport = httpx2.MockTransport(self)
        return Client(URL, "k", retry=retry, sleep=self.waits.append, transport=transport)


def refusal(status: int, retry_after: str | None = None) -> httpx2.Response:
    """Return a problem."""
    headers = {"content-type": "application/problem+json"}
    if retry_after is not None:
        headers["retry-after"] = retry_after
    body = {"status": status, "code": "busy", "detail": "Later.", "retryable": True}
    return httpx2.Response(status, content=json.dumps(body), headers=headers)


TROUBLES = [
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.ReadTimeout,
    httpx2.WriteTimeout,
    httpx2.ReadError,
    httpx2.RemoteProtocolError,
]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_feedback_is_sent_again_under_the_same_key(trouble: type) -> None:
    """Whatever breaks on the way, feedback goes again with the idempotency key that it had."""
    network = Network(
        trouble, refusal(503, "1"), refusal(429, "2"), httpx2.Response(202, json=RECEIPT)
    )
    assert network.client().feedback("P", "thumbs", True).status == "accepted"
    keys = {request.headers["idempotency-key"] for request in network.sent}
    assert len(network.sent) == 4
    assert len(keys) == 1
    assert len({request.content for request in network.sent}) == 1
    assert network.waits == [0.1, 1.0, 2.0]


def test_two_calls_have_two_keys() -> None:
    """A key is made once a call; one that the caller gives is used instead."""
    network = Network(*(httpx2.Response(202, json=RECEIPT) for _ in range(3)))
    client = network.client()
    client.feedback("P", "thumbs", True)
    client.feedback("P", "thumbs", True)
    client.feedback("P", "thumbs", True, idempotency_key="ä")
    first, second, third = network.sent
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]
    assert "idempotency-key" not in third.headers
    assert json.loads(third.content)["idempotency_key"] == "ä"


def test_a_batch_of_feedback_carries_a_key_an_item() -> None:
    """Each item of a batch has its own key, which stays when the batch goes again."""
    done = {"accepted": 2, "duplicates": 0, "rejected": 0, "results": [RECEIPT, RECEIPT]}
    network = Network(httpx2.ReadTimeout, httpx2.Response(202, json=done))
    item = {"prediction_id": "P", "kind": "thumbs", "value": True}
    network.client().feedback_batch([item, {**item, "idempotency_key": "mine"}])
    first, second = (json.loads(request.content)["items"] for request in network.sent)
    assert first == second
    assert first[0]["idempotency_key"] != first[1]["idempotency_key"] == "mine"


@pytest.mark.parametrize("trouble", [httpx2.ConnectError, httpx2.ConnectTimeout, 503, 429])
def test_a_prediction_that_was_not_taken_is_asked_again(trouble: Any) -> None:
    """A prediction goes again where the service was not reached, or refused it."""
    outcome = refusal(trouble, "1") if isinstance(trouble, int) else trouble
    network = Network(outcome, httpx2.Response(200, json=ANSWER))
    assert network.client().predict("web", {}).output is True
    assert len(network.sent) == 2


@pytest.mark.parametrize("trouble", [httpx2.ReadTimeout, httpx2.ReadError, 500, 422])
def test_a_prediction_that_may_have_been_taken_is_not(trouble: Any) -> None:
    """A prediction that may be in the log is not asked a second time."""
    network = Network(refusal(trouble) if isinstance(trouble, int) else trouble)
    with pytest.raises((NotReachable, ApiError)):
        network.client().predict("web", {})
    assert len(network.sent) == 1
    assert network.waits == []


@pytest.mark.parametrize("trouble", [*TROUBLES, 429, 502, 503, 504])
def test_a_read_is_always_sent_again(trouble: Any) -> None:
    """Reads go again, whatever the trouble."""
    outcome = refusal(trouble) if isinstance(trouble, int) else trouble
    network = Network(outcome, httpx2.Response(200, json={"models": []}))
    assert network.client().models() == []


@pytest.mark.parametrize("trouble", [httpx2.ReadTimeout, 503, 409])
def test_an_operation_arrives_once(trouble: Any) -> None:
    """An operation that may have been done is not repeated; one that never left is."""
    network = Network(refusal(trouble, "1") if isinstance(trouble, int) else trouble)
    with pytest.raises((NotReachable, ApiError)):
        network.client().promote("web", 3)
    assert len(network.sent) == 1
    done = {"dry_run": False, "aliases": {}, "verdict": {}}
    network = Network(httpx2.ConnectError, httpx2.Response(200, json=done))
    assert network.client().promote("web", 3) == done


@pytest.mark.parametrize("status", [404, 500])
def test_a_proxy_without_a_route_or_a_replica_is_tried_again(status: int) -> None:
    """HAProxy's bare refusals are tried again for feedback; the application's own are not."""
    network = Network(httpx2.Response(status, text="x"), httpx2.Response(202, json=RECEIPT))
    assert network.client().feedback("P", "thumbs", True).status == "accepted"
    network = Network(refusal(status))
    with pytest.raises(ApiError):
        network.client().feedback("P", "thumbs", True)


def test_retries_are_bounded() -> None:
    """Attempts and waits have a limit, and a Retry-After beyond it is not waited for."""
    network = Network(*[httpx2.ConnectError] * 10)
    with pytest.raises(NotReachable, match="after 4 attempts"):
        network.client().models()
    assert network.waits == [0.1, 0.2, 0.4]
    network = Network(refusal(503, "3600"))
    with pytest.raises(ApiError, match="Later"):
        network.client().models()
    assert network.waits == []
    assert Retry(attempts=99, random=lambda: 0.0).wait_s(60) == 5.0


def test_a_probe_does_not_wait() -> None:
    """Readiness is asked once: a 503 is its answer."""
    network = Network(refusal(503, "1"))
    assert network.client().ready() == {"ready": False, "detail": "Later."}


async def test_the_asynchronous_client_sends_again_as_well() -> None:
    """Both clients follow the same course."""
    network = Network(httpx2.ReadTimeout, refusal(503, "1"), httpx2.Response(202, json=RECEIPT))

    async def sleep(seconds: float) -> None:
        network.waits.append(seconds)

    transport = httpx2.MockTransport(network)
    retry = Retry(random=lambda: 0.0)
    async with AsyncClient(URL, "k", retry=retry, sleep=sleep, transport=transport) as client:
        answer = Answer.read(client._say, ANSWER)
        assert (await answer.thumbs(up=True)).status == "accepted"
    assert len({request.headers["idempotency-key"] for request in network.sent}) == 1
    assert network.waits == [0.1, 1.0]


class LosesReplies(httpx2.HTTPTransport):
    """Delivers every request, and loses the first replies."""

    def __init__(self, losses: int) -> None:
        super().__init__()
        self._losses = losses

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it, and lose what comes back."""
        response = super().handle_request(request)
        response.read()
        if self._losses:
            self._losses -= 1
            raise httpx2.ReadError("lost", request=request)
        return response


async def test_a_lost_reply_does_not_count_twice(service: Any, client: Client) -> None:
    """Feedback whose acknowledgement is lost twice is in the log once."""
    answer = client.predict("rent", {"rooms": 7})
    transport = LosesReplies(2)
    with Client(service.url, service.key, sleep=lambda _: None, transport=transport) as unlucky:
        receipt = unlucky.feedback(str(answer.prediction_id), "correction", 700)
        assert receipt.status == "duplicate"
        batch = [{"prediction_id": answer.prediction_id, "kind": "thumbs", "value": True}]
        transport._losses = 1
        assert unlucky.feedback_batch(batch).duplicates == 1
    async with await open_store(service.server.url) as store:
        entries = await store.range("ol:{rent}:feedback")
    said = [json.loads(fields[b"f"]) for _, fields in entries]
    ours = [item for item in said if item["prediction_id"] == answer.prediction_id]
    assert [item["kind"] for item in ours] == ["correction", "thumbs"]


# --- where the service is ---------------------------------------------------------------------


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a directory where `up` has left its note."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".online_learner"
    folder.mkdir()
    Note("http://127.0.0.1:1234", "ol_noted", "unix:///x", pid=1).write(folder)
    return folder


def test_the_note_of_up_is_found(
    note: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without arguments, address and key are those of `up` here, or in OL_DATA_DIR."""
    assert (locate().url, locate().key) == ("http://127.0.0.1:1234", "ol_noted")
    monkeypatch.chdir("/")
    monkeypatch.setenv("OL_DATA_DIR", str(note))
    assert locate().key == "ol_noted"


def test_arguments_win_over_the_environment(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument, then environment, then note."""
    monkeypatch.setenv("OL_URL", "https://learn.example.org/")
    monkeypatch.setenv("OL_API_KEY", "ol_env")
    assert (locate().url, locate().key) == ("https://learn.example.org", "ol_env")
    place = locate("http://other:1", "ol_given")
    assert (place.url, place.key) == ("http://other:1", "ol_given")


def test_a_noted_key_goes_nowhere_else(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key in the note is not sent to another address."""
    assert locate("http://evil:1").key is None
    monkeypatch.setenv("OL_URL", "http://evil:1")
    assert locate().key is None
    monkeypatch.setenv("OL_URL", "http://127.0.0.1:1234")
    assert locate().key == "ol_noted"


def test_no_service_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing says where the service is, the error says how to start one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotReachable, match="online-learner up"):
        Client()
    (tmp_path / ".online_learner").mkdir()
    (tmp_path / ".online_learner" / "endpoint.json").write_text("{")
    with pytest.raises(NotReachable, match="online-learner up"):
        Client()
    with pytest.raises(ConfigError, match="http://host:port"):
        Client("localhost:8000")


def test_a_proxy_is_not_asked_for_this_machine(
    service: Any, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy in the environment is passed by on the way to a service on this machine."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port}")
    with Client(service.url, service.key) as client:
        assert client.predict("web", {"x": 1}).prediction_id


# --- the surface ------------------------------------------------------------------------------


def test_both_clients_have_the_same_methods() -> None:
    """Every public method of the one is there in the other, with the same parameters."""

    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert methods(Client) == methods(AsyncClient)


def test_what_is_exported_is_sorted_and_there() -> None:
    """`__all__` is what the package offers."""
    names = online_learner.client.__all__
    assert names == sorted(names)
    assert all(hasattr(online_learner.client, name) for name in names)


def test_answers_are_values(client: Client) -> None:
    """Answers are frozen, compare by what they say, and keep keys out of their text."""
    one, other = (Answer.read(client._say, ANSWER) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert "ol_test_key" not in repr(one)
    with pytest.raises(AttributeError):
        one.output = False  # type: ignore[misc]


def _typed(client: Client, awaited: AsyncClient) -> tuple[Receipt, Awaitable[Receipt]]:
    """Show the type checker what both clients return; never run."""
    answer = client.predict("web", {"x": 1}, top_k=2)
    promised: Answer[Awaitable[Receipt]] = Answer.read(awaited._say, answer.raw)
    return answer.correct(True), promised.correct(True)
