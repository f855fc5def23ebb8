"""Every kind of feedback, answers made elsewhere and rewards, through the client and real HTTP."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Self

import httpx2
import pytest
from pydantic import BaseModel

from online_learner.client import (
    Answer,
    ApiError,
    AsyncClient,
    Client,
    NamedAnswer,
    PredictionGone,
    RankedOption,
    Receipt,
    signals,
)
from online_learner.learners.digest import state_digest
from online_learner.schema import Lesson, Ranked, Rated

URL = "http://learner:8000"
LOGGED = {
    "prediction_id": "P",
    "model": "chat",
    "version": 0,
    "step": 0,
    "output": ["0", "1"],
    "scores": {"0": 0.0, "1": 0.0},
    "ranking": [
        {"id": "0", "score": 0.0, "probability": 0.5, "propensity": 1.0},
        {"id": "1", "score": 0.0, "probability": 0.5, "propensity": 1.0},
    ],
    "uncertainty": 0.5,
    "propensity": 1.0,
    "ask": None,
    "flags": [{"rule": "secrets", "severity": "warn", "where": "output", "detail": ""}],
    "blocked": False,
    "model_version": "m-1",
    "feedback_expires_at": "2030-01-01T00:00:00.000Z",
}
RECEIPT = {
    "feedback_id": "F",
    "prediction_id": "P",
    "model": "chat",
    "status": "accepted",
    "durability": "fsynced",
}


class Tastes:
    """A reward model that remembers how often each text was liked."""

    family = "test"

    def __init__(self, liked: dict[str, float] | None = None) -> None:
        self.liked = liked or {}

    @property
    def fitted(self) -> bool:
        """Whether anything was learned."""
        return bool(self.liked)

    def score(self, features: dict[str, Any], options: Sequence[dict[str, Any]]) -> list[float]:
        """Return the number of likes of each text."""
        return [self.liked.get(str(option["text"]), 0.0) for option in options]

    def learn(self, lessons: Sequence[Lesson]) -> None:
        """Count: the first was liked, the others were not."""
        for lesson in lessons:
            if isinstance(lesson, Ranked):
                up = -1.0 if lesson.worst_first else 1.0
                for place, option in enumerate(lesson.options):
                    self._count(option, up if place == 0 else -up)
            else:
                assert isinstance(lesson, Rated)
                self._count(lesson.option, 2.0 * lesson.reward - 1.0)

    def _count(self, option: dict[str, Any], likes: float) -> None:
        self.liked[option["text"]] = self.liked.get(option["text"], 0.0) + likes

    def to_bytes(self) -> bytes:
        """Return the counts."""
        return json.dumps(self.liked).encode()

    def from_bytes(self, blob: bytes) -> Self:
        """Return another one with these counts."""
        return type(self)(json.loads(blob))

    def digest(self) -> str:
        """Return the digest of the counts."""
        return state_digest(self.liked)


TASTES = {"learner": f"{__name__}:Tastes", "promotion": {"policy": "policies.promotion:Always"}}


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a service with a generator that is only recorded, a reward model, and a ranker."""
    chat = {"task": "generation", "categories": {"helpful": "up", "off_topic": "down"}}
    rent = {"categories": {"helpful": "up"}, "implicit_weight": 0.1}
    judge = {"task": "generation", **TASTES}
    search = {"task": "ranking", **TASTES}
    return start_service(chat=chat, rent=rent, judge=judge, search=search, web={})


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


# --- what is sent -----------------------------------------------------------------------------


class Wire:
    """Answers every request the same, and keeps what was sent."""

    def __init__(self, reply: dict[str, Any]) -> None:
        self.sent: list[Any] = []
        self._reply = reply

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        self.sent.append(json.loads(request.content))
        return httpx2.Response(200, json=self._reply)

    def client(self) -> Client:
        """Return a client on this wire."""
        return Client(URL, "k", transport=httpx2.MockTransport(self))


SAYINGS: list[tuple[Callable[[Any], Any], dict[str, Any]]] = [
    (lambda a: a.correct("ham"), {"kind": "correction", "value": "ham"}),
    (lambda a: a.thumbs(up=False), {"kind": "thumbs", "value": False}),
    (lambda a: a.rate(4), {"kind": "rating", "value": 4}),
    (lambda a: a.rate(8, (0, 10)), {"kind": "rating", "value": 8, "scale": [0, 10]}),
    (lambda a: a.select("b"), {"kind": "selection", "value": "b"}),
    (lambda a: a.select(None), {"kind": "selection", "value": None}),
    (lambda a: a.prefer("a", "b"), {"kind": "preference", "chosen": "a", "rejected": "b"}),
    (lambda a: a.rank(("b", "a")), {"kind": "ranking", "value": ["b", "a"]}),
    (lambda a: a.categorize("helpful"), {"kind": "category", "value": "helpful"}),
    (lambda a: a.flag("pii"), {"kind": "flag", "rule": "pii"}),
    (
        lambda a: a.flag("pii", severity="block", detail="a card"),
        {"kind": "flag", "rule": "pii", "severity": "block", "detail": "a card"},
    ),
    (lambda a: a.implicit("click"), {"kind": "implicit", "event": "click"}),
    (lambda a: a.implicit("dwell", 31), {"kind": "implicit", "event": "dwell", "value": 31}),
    (
        lambda a: a.say(signals.rating(2), signals.correction("ham")),
        {"signals": [{"kind": "rating", "value": 2}, {"kind": "correction", "value": "ham"}]},
    ),
]


@pytest.mark.parametrize(("say", "body"), SAYINGS)
def test_what_is_said_of_an_answer_is_one_body(say: Callable[[Any], Any], body: Any) -> None:
    """Each way of saying something sends the fields of its kind, and no others."""
    wire = Wire(RECEIPT)
    say(Answer.read(wire.client()._say, LOGGED))
    say(wire.client().about("chat", session_id="s"))
    say(wire.client().about("chat", external_id="x"))
    names = [
        {"prediction_id": "P"},
        {"model": "chat", "session_id": "s"},
        {"model": "chat", "external_id": "x"},
    ]
    assert wire.sent == [{**name, **body} for name in names]


def test_fields_go_beside_what_is_said() -> None:
    """Who says it and why are fields of the same body, for one signal and for several."""
    wire = Wire(RECEIPT)
    answer = Answer.read(wire.client()._say, LOGGED)
    answer.rate(1, user_id="ada", reasons=["wrong"], model_version="m-1")
    answer.say(signals.thumbs(up=True), signals.rating(5), user_id="ada")
    rated, both = wire.sent
    assert rated["user_id"] == both["user_id"] == "ada"
    assert (rated["reasons"], rated["model_version"]) == (["wrong"], "m-1")


def test_feedback_by_id_takes_every_kind() -> None:
    """`feedback` sends a value where the kind has one, and the fields that only some kinds have."""
    wire = Wire(RECEIPT)
    client = wire.client()
    client.feedback("P", "rating", 8, scale=(0, 10))
    client.feedback("P", "preference", chosen="a", rejected="b")
    client.feedback("P", "selection", None)
    assert wire.sent == [
        {"prediction_id": "P", "kind": "rating", "value": 8, "scale": [0, 10]},
        {"prediction_id": "P", "kind": "preference", "chosen": "a", "rejected": "b"},
        {"prediction_id": "P", "kind": "selection", "value": None},
    ]


def test_an_answer_has_all_that_the_service_says() -> None:
    """Options in order, flags and the generator's version are attributes; the answer is a value."""
    answer = Answer.read(Wire(RECEIPT).client()._say, LOGGED)
    assert answer.ranking[1] == RankedOption("1", 0.0, 0.5, 1.0)
    assert (answer.flags[0].rule, answer.flags[0].severity) == ("secrets", "warn")
    assert (answer.model_version, answer.propensity, answer.blocked) == ("m-1", 1.0, False)
    assert hash(answer) == hash(Answer.read(answer._send, LOGGED))


# --- answers made elsewhere -------------------------------------------------------------------


@pytest.mark.parametrize("say", [say for say, _ in SAYINGS])
def test_every_kind_is_taken_of_an_answer_made_elsewhere(
    client: Client, say: Callable[[Any], Any]
) -> None:
    """What was generated elsewhere and logged takes every kind of feedback."""
    outputs = [{"id": "a", "text": "Blue."}, {"id": "b", "text": "Green."}]
    answer = client.log("chat", prompt="What colour has the sky?", outputs=outputs)
    receipt = say(answer)
    assert (receipt.status, receipt.model) == ("accepted", "chat")
    kinds = [signal["kind"] for signal in client.prediction(receipt.prediction_id)["feedback"]]
    assert len(kinds) == max(1, len(receipt.signals))


def test_a_log_keeps_how_it_was_made(client: Client) -> None:
    """Prompt, parameters and version are in the record; texts are numbered from 0."""
    answer = client.log(
        "chat",
        prompt="Name a colour.",
        outputs=["Blue.", {"json": {"colour": "red"}}],
        parameters={"temperature": 0.7},
        model_version="m-1",
        latency_ms=812,
        user_id="ada",
    )
    assert answer.output == ["0", "1"]
    assert answer.model_version == "m-1"
    record = client.prediction(str(answer.prediction_id))["prediction"]
    assert record["features"] == {"prompt": "Name a colour."}
    assert [option["features"] for option in record["options"]] == [
        {"text": "Blue."},
        {"json": '{"colour": "red"}'},
    ]
    assert (record["parameters"], record["latency_ms"]) == ({"temperature": 0.7}, 812)


def test_several_things_are_accepted_together_or_not_at_all(client: Client) -> None:
    """Two signals have a receipt each; where one is wrong, neither is accepted."""
    answer = client.log("chat", prompt="Hi", outputs=["Hello.", "Yes?"])
    receipt = answer.say(signals.rating(2), signals.preference("1", "0"), user_id="ada")
    assert [(one.kind, one.status) for one in receipt.signals] == [
        ("rating", "accepted"),
        ("preference", "accepted"),
    ]
    assert receipt.feedback_id == receipt.signals[0].feedback_id
    with pytest.raises(ApiError) as caught:
        answer.say(signals.thumbs(up=True), signals.rating(99))
    assert caught.value.errors[0]["pointer"] == "/signals/1/value"
    assert len(client.prediction(receipt.prediction_id)["feedback"]) == 2


def test_an_answer_is_found_by_the_callers_own_names(client: Client) -> None:
    """An external id names its answer, a session its latest one."""
    outputs = ["Hello."]
    first = client.log(
        "chat", prompt="Hi", outputs=outputs, session_id="s-1", external_id="trace-1"
    )
    second = client.log("chat", prompt="Hi again", outputs=outputs, session_id="s-1")
    by_trace = client.about("chat", external_id="trace-1").rate(4)
    by_session = client.about("chat", session_id="s-1").thumbs(up=True)
    assert by_trace.prediction_id == first.prediction_id
    assert by_session.prediction_id == second.prediction_id
    with pytest.raises(ApiError, match="under this session_id"):
        client.about("chat", session_id="nobody").thumbs(up=True)


CHAT_REQUEST = {
    "model": "m-1",
    "messages": [{"role": "user", "content": "What colour has the sky?"}],
    "temperature": 0.2,
}
CHAT_RESPONSE: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "m-1-2026",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Blue."}, "finish_reason": "stop"}
    ],
}


class Message(BaseModel):
    """A message as OpenAI's library returns it."""

    role: str
    content: str


class Choice(BaseModel):
    """A choice as OpenAI's library returns it."""

    index: int
    message: Message


class Completion(BaseModel):
    """A completion as OpenAI's library returns it."""

    id: str
    model: str
    choices: list[Choice]


def test_a_chat_is_logged_as_it_is(client: Client) -> None:
    """An OpenAI request and its response need no change, and the completion's id names it."""
    answer = client.log_chat("chat", CHAT_REQUEST, CHAT_RESPONSE, tags={"page": "sky"})
    assert answer.model_version == "m-1-2026"
    receipt = client.about("chat", external_id="chatcmpl-1").correct("Blue, by day.")
    assert receipt.prediction_id == answer.prediction_id
    record = client.prediction(receipt.prediction_id)["prediction"]
    assert record["parameters"] == {"model": "m-1", "temperature": 0.2}
    assert record["tags"] == {"page": "sky"}


def test_the_objects_of_openai_are_taken(client: Client) -> None:
    """Objects with `model_dump` are sent as what they hold, inside the request as well."""
    before = Message(role="assistant", content="Ask me.")
    request = {"messages": [before, {"role": "user", "content": "Colour?"}]}
    message = Message(role="assistant", content="Red.")
    response = Completion(id="c-2", model="m-2", choices=[Choice(index=0, message=message)])
    answer = client.log_chat("chat", request, response)
    record = client.prediction(str(answer.prediction_id))["prediction"]
    assert record["features"]["messages"][0] == {"role": "assistant", "content": "Ask me."}
    assert record["options"][0]["features"] == {"text": "Red."}


# --- comparisons and rewards ------------------------------------------------------------------


async def test_two_answers_are_compared(
    service: Any, client: Client, eventually: Callable[..., Awaitable[None]]
) -> None:
    """A preference between two answers teaches the reward model; the receipt follows it."""
    first = client.log("judge", prompt="Hi", outputs=["Hello!"])
    second = client.log("judge", prompt="Hi", outputs=["What?"])
    receipt = client.prefer(first, str(second.prediction_id), user_id="ada")
    assert client.receipt(str(receipt.feedback_id)).status == "accepted"
    await service.turn()
    fate = client.receipt(str(receipt.feedback_id))
    assert (fate.status, fate.superseded_by) == ("learned", None)
    assert fate.learned_at is not None

    def scores() -> list[float]:
        return client.score("judge", prompt="Hi", outputs=["What?", {"text": "Hello!"}])

    await eventually(lambda: scores() == [-1.0, 1.0])
    best = client.log("judge", prompt="Hi", outputs=["What?", "Hello!"])
    assert [option.id for option in best.ranking] == ["1", "0"]
    served = client.receipt(str(receipt.feedback_id)).served
    assert served is not None
    assert served.step == fate.step
    assert served.at >= fate.learned_at - 1


def test_answers_of_two_models_are_not_compared(client: Client) -> None:
    """A preference is between answers of one model, and needs both to be in the log."""
    mine = client.log("judge", prompt="Hi", outputs=["Hello!"])
    other = client.log("chat", prompt="Hi", outputs=["Hello!"])
    with pytest.raises(ApiError, match="/rejected"):
        client.prefer(mine, other)
    unlogged = Answer.read(mine._send, {**mine.raw, "prediction_id": None})
    with pytest.raises(PredictionGone):
        client.prefer(mine, unlogged)


async def test_a_changed_mind(client: Client) -> None:
    """A second opinion of the same kind takes the place of the first, and both receipts say so."""
    answer = client.log("chat", prompt="Hi", outputs=["Hello!"])
    first = client.receipt(str(answer.rate(2, user_id="ada").feedback_id))
    second = client.receipt(str(answer.rate(5, user_id="ada").feedback_id))
    assert (first.supersedes, first.superseded_by) == (None, None)
    assert second.supersedes is not None
    replaced = client.receipt(first.feedback_id).superseded_by
    assert replaced is not None
    assert replaced != second.supersedes


async def test_options_are_ranked_by_what_was_taken(
    service: Any, client: Client, eventually: Callable[..., Awaitable[None]]
) -> None:
    """Options go with the question, come back in order, and the one that is taken rises."""
    options = [{"id": name, "features": {"text": name}} for name in ("a", "b", "c")]

    def ask() -> Answer[Receipt]:
        return client.predict("search", {"query": "q"}, options=options)

    answer = ask()
    assert answer.output == [option.id for option in answer.ranking] == ["a", "b", "c"]
    assert answer.select("c").status == "accepted"
    await service.turn()
    await eventually(lambda: ask().output == ["c", "a", "b"])
    best = ask().ranking[0]
    assert (best.score, best.propensity) == (1.0, 1.0)
    with pytest.raises(ApiError, match="not_served"):
        answer.select("d")


def test_a_kind_that_means_nothing_is_refused(client: Client) -> None:
    """Where a kind means nothing for the task, the error says which kinds do."""
    answer = client.predict("rent", {"rooms": 2})
    with pytest.raises(ApiError, match="kind_not_applicable") as caught:
        answer.rank(["a", "b"])
    assert "correction" in caught.value.detail
    for receipt in (answer.rate(2), answer.categorize("helpful"), answer.implicit("click")):
        assert receipt.status == "accepted"


# --- TRL --------------------------------------------------------------------------------------


class Counting(httpx2.HTTPTransport):
    """A network that counts the questions."""

    asked = 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it on."""
        self.asked += 1
        return super().handle_request(request)


@pytest.fixture(scope="module")
def tastes(start_service: Callable[..., Any]) -> Any:
    """Return a service whose reward model likes one text better than another."""
    service = start_service(judge={"task": "generation", **TASTES})
    with Client(service.url, service.key) as client:
        client.log("judge", prompt="Hi", outputs=["good", "bad"]).prefer("0", "1")
        asyncio.run(service.turn())
        deadline = time.monotonic() + 5
        while client.score("judge", prompt="Hi", outputs=["good"]) != [1.0]:
            assert time.monotonic() < deadline
    return service


def test_the_reward_model_is_a_reward_function_of_trl(tastes: Any) -> None:
    """Called as TRL calls it, it returns rewards in order, with one question a prompt."""
    network = Counting()
    with Client(tastes.url, tastes.key, transport=network) as client:
        reward = client.reward_func("judge")
        found = reward(
            prompts=["p", "q", "p", "q"],
            completions=["good", "bad", "new", "good"],
            completion_ids=[[1], [2], [3], [4]],
            trainer_state=None,
            ground_truth=["a", "b", "c", "d"],
        )
    assert found == [1.0, -1.0, 0.0, 1.0]
    assert network.asked == 2
    assert reward.__name__ == "judge"
    assert not inspect.iscoroutinefunction(reward)


def test_a_reward_function_takes_chats(tastes: Any) -> None:
    """Prompts and completions may be the messages of chats; a tool's turns are one text."""
    question = [{"role": "user", "content": "Hi"}]
    turns = [{"role": "assistant", "content": None}, {"role": "tool", "content": "42"}]
    completions = [[{"role": "assistant", "content": text}] for text in ("bad", "good")]
    with Client(tastes.url, tastes.key) as client:
        reward = client.reward_func("judge")
        found = reward(prompts=[question] * 3, completions=[*completions, turns])
    assert found == [-1.0, 1.0, 0.0]


async def test_a_reward_function_to_be_awaited(tastes: Any) -> None:
    """The asynchronous client's is a coroutine function, as TRL takes them too."""
    async with AsyncClient(tastes.url, tastes.key) as client:
        reward = client.reward_func("judge")
        assert inspect.iscoroutinefunction(reward)
        assert await reward(prompts=["p", "q"], completions=["bad", "good"]) == [-1.0, 1.0]
        assert await client.score("judge", prompt="p", outputs=["good"]) == [1.0]


def test_rewards_are_for_models_that_rank(client: Client) -> None:
    """A classifier gives no rewards, and prompts and completions go in pairs."""
    with pytest.raises(ApiError, match="no rewards"):
        client.score("web", prompt="p", outputs=["a"])
    with pytest.raises(ValueError, match="shorter"):
        client.reward_func("judge")(prompts=["p", "q"], completions=["a"])


async def test_the_asynchronous_client_says_the_same(async_client: AsyncClient) -> None:
    """Logging, comparing and naming answers are there to be awaited as well."""
    one = await async_client.log("chat", prompt="Hi", outputs=["Hello!"], external_id="a-1")
    two = await async_client.log_chat("chat", CHAT_REQUEST, CHAT_RESPONSE)
    assert (await one.rate(4)).status == "accepted"
    assert (await async_client.prefer(one, two)).status == "accepted"
    named: NamedAnswer[Awaitable[Receipt]] = async_client.about("chat", external_id="a-1")
    receipt = await named.flag("secrets", severity="note")
    assert receipt.prediction_id == one.prediction_id
    assert (await async_client.feedback(receipt.prediction_id, "thumbs", True)).status == "accepted"
