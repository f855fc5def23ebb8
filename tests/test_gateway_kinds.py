"""Every kind of answer and feedback over HTTP: rankings, logged answers, rules, whole stories."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

Poll = Callable[..., Awaitable[None]]

ALWAYS = {"promotion": {"policy": "policies.promotion:Always"}}
RULES = [
    {"rule": "personal_data", "kinds": ["email"], "on": ["input", "feedback"], "severity": "block"},
    {"rule": "vocabulary", "values": ["sport", "science"], "severity": "block", "name": "known"},
]
PAGES = [{"id": name, "features": {"title": f"page {name}"}} for name in "abc"]
OUTPUTS = [{"id": "0", "text": "a bird"}, {"id": "1", "text": "a bill"}]
LABELS = {"news", "sport", "science"}


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service with a ranking, a reward model, a number, and labels with rules."""
    rules = {"rules": RULES, "fallback": {"ask": "a person"}}
    return start_service(
        pages=ALWAYS, llm=ALWAYS, rent=ALWAYS, topic=ALWAYS | rules, web={}, max_body_bytes=1 << 21
    )


def post(http: httpx2.Client, path: str, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    """Return the reply to a body."""
    reply = http.post(f"/v1/{path}", json=body)
    assert reply.status_code == status, reply.text
    return dict(reply.json())


def refused(http: httpx2.Client, path: str, body: dict[str, Any]) -> tuple[str, str]:
    """Return the place and the code with which a body is refused."""
    [place] = post(http, path, body, 422)["errors"]
    return place["pointer"], place["code"]


def rank(http: httpx2.Client, **fields: Any) -> dict[str, Any]:
    """Return a ranking of the pages."""
    body = {"features": {"query": "x"}, "options": PAGES, **fields}
    return post(http, "models/pages/predict", body)


def log(http: httpx2.Client, **fields: Any) -> dict[str, Any]:
    """Log an answer that was made elsewhere."""
    return post(http, "models/llm/log", {"prompt": "x", "outputs": OUTPUTS, **fields})


def say(http: httpx2.Client, **body: Any) -> dict[str, Any]:
    """Say something; returns the receipt."""
    return post(http, "feedback", body, 202)


def story(http: httpx2.Client, prediction_id: str) -> dict[str, Any]:
    """Return the story of an answer."""
    return dict(http.get(f"/v1/predictions/{prediction_id}").json())


# --- rankings ---------------------------------------------------------------------------------


def test_a_ranking_is_an_answer_with_its_options(http: httpx2.Client) -> None:
    """Ids best first, with score, probability and propensity of each; the rest is as ever."""
    answer = rank(http)
    assert sorted(answer["output"]) == ["a", "b", "c"]
    assert [item["id"] for item in answer["ranking"]] == answer["output"]
    assert sum(item["probability"] for item in answer["ranking"]) == pytest.approx(1.0)
    assert all(set(i) == {"id", "score", "probability", "propensity"} for i in answer["ranking"])
    assert answer["scores"] == {item["id"]: item["score"] for item in answer["ranking"]}
    assert 0.0 <= answer["uncertainty"] < 1.0


def test_top_k_is_what_was_shown(http: httpx2.Client) -> None:
    """The answer has as many as were asked for, and feedback may speak of these alone."""
    answer = rank(http, top_k=2)
    assert len(answer["output"]) == len(answer["ranking"]) == len(answer["scores"]) == 2
    [hidden] = {"a", "b", "c"} - set(answer["output"])
    body = {"prediction_id": answer["prediction_id"], "kind": "selection"}
    assert refused(http, "feedback", body | {"value": hidden}) == ("/value", "not_served")
    say(http, **body, value=answer["output"][1])


def test_a_batch_of_rankings_succeeds_in_part(http: httpx2.Client) -> None:
    """Each instance has its own options; what is wrong with one is pointed at in its place."""
    good = {"features": {}, "options": PAGES}
    bad = {"features": {}, "options": [*PAGES, PAGES[0]]}
    body = {"instances": [good, bad, {"features": {}}, good]}
    found = post(http, "models/pages/predict_batch", body)["predictions"]
    assert len(found[0]["ranking"]) == len(found[3]["ranking"]) == 3
    assert found[1]["errors"][0]["pointer"] == "/1/options/3/id"
    assert found[2]["errors"][0]["pointer"] == "/2/options"


# --- answers made elsewhere -------------------------------------------------------------------


def test_an_answer_made_elsewhere_is_logged_whole(http: httpx2.Client) -> None:
    """Prompt, outputs, parameters, version, latency and names come back in its story."""
    answer = log(
        http,
        parameters={"temperature": 0.7, "top_p": 0.9, "seed": 2**62},
        model_version="llm-7",
        latency_ms=812.5,
        user_id="ada",
        tags={"page": "home"},
    )
    assert (answer["role"], answer["model_version"]) == ("external", "llm-7")
    record = story(http, answer["prediction_id"])["prediction"]
    assert record["features"] == {"prompt": "x"}
    assert [option["features"]["text"] for option in record["options"]] == ["a bird", "a bill"]
    assert record["parameters"] == {"temperature": 0.7, "top_p": 0.9, "seed": 2**62}
    assert (record["model_version"], record["latency_ms"]) == ("llm-7", 812.5)
    assert (record["user_id"], record["tags"]) == ("ada", {"page": "home"})


def test_a_chat_is_found_by_its_completion_id(http: httpx2.Client) -> None:
    """An OpenAI request and response go in unchanged; feedback joins by the completion's id."""
    messages = [{"role": "user", "content": "Hi"}]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    choices = [
        {"index": 0, "message": {"role": "assistant", "content": "Hello"}},
        {"index": 1, "message": {"role": "assistant", "content": None, "tool_calls": [call]}},
    ]
    body = {
        "request": {"model": "gpt-x", "messages": messages, "n": 2},
        "response": {"id": "chatcmpl-1", "model": "gpt-x-1", "choices": choices},
    }
    logged = post(http, "models/llm/log", body)
    said = say(http, model="llm", external_id="chatcmpl-1", kind="selection", value=1)
    assert said["prediction_id"] == logged["prediction_id"]
    record = story(http, logged["prediction_id"])["prediction"]
    assert record["features"] == {"messages": messages}
    assert json.loads(record["options"][1]["features"]["json"])["tool_calls"] == [call]


async def test_a_reward_model_learns_what_it_is_asked_for(
    service: Any, http: httpx2.Client, eventually: Poll
) -> None:
    """What was edited, compared and taken raises the rewards; logging sorts by them."""
    answer = log(http)
    say(http, prediction_id=answer["prediction_id"], kind="correction", value="an invoice")
    say(http, prediction_id=answer["prediction_id"], kind="preference", chosen="1", rejected="0")
    await service.turn()

    def rewards() -> list[float]:
        outputs = ["an invoice", {"id": "x", "text": "a bill"}, "a bird"]
        return list(post(http, "models/llm/score", {"prompt": "x", "outputs": outputs})["rewards"])

    await eventually(lambda: len(set(rewards())) == 3)
    found = rewards()
    assert found == sorted(found, reverse=True)
    again = log(http)
    assert again["output"] == ["0", "1"]
    assert [item["id"] for item in again["ranking"]] == ["1", "0"]
    assert again["scores"]["1"] > again["scores"]["0"]


@pytest.mark.parametrize("model", ["topic", "rent", "pages"])
def test_only_a_generator_is_logged(http: httpx2.Client, model: str) -> None:
    """A task whose answers are made here takes none from elsewhere, and says which task does."""
    body = {"prompt": "x", "outputs": OUTPUTS}
    assert "generation" in post(http, f"models/{model}/log", body, 422)["detail"]


def test_only_rankers_give_rewards(http: httpx2.Client) -> None:
    """A classifier scores no outputs; a ranking does."""
    body = {"prompt": "x", "outputs": ["a"]}
    assert refused(http, "models/topic/score", body) == ("", "invalid_value")
    assert len(post(http, "models/pages/score", body)["rewards"]) == 1


# --- rules ------------------------------------------------------------------------------------


def test_a_blocked_answer_is_the_fallback(http: httpx2.Client) -> None:
    """The fallback stands in the answer's place; the log keeps both, and why."""
    answer = post(http, "models/topic/predict", {"features": {"text": "ask ada@example.org"}})
    assert (answer["blocked"], answer["output"], answer["scores"]) == (
        True,
        {"ask": "a person"},
        {},
    )
    assert {flag["where"] for flag in answer["flags"]} >= {"input"}
    assert "ada@" not in json.dumps(answer)
    record = story(http, answer["prediction_id"])["prediction"]
    assert record["output"] in LABELS
    assert (record["blocked"], record["fallback"]) == (True, {"ask": "a person"})
    body = {"prediction_id": answer["prediction_id"], "kind": "selection", "value": "sport"}
    assert refused(http, "feedback", body) == ("/value", "not_served")
    say(http, prediction_id=answer["prediction_id"], kind="correction", value="sport")


def test_a_comment_may_be_refused(http: httpx2.Client) -> None:
    """A rule on feedback refuses what people should not send, and nothing of it is kept."""
    answer = post(http, "models/topic/predict", {"features": {"n": 1}})
    body = {"prediction_id": answer["prediction_id"], "comment": "mail ada@example.org"}
    one = body | {"kind": "thumbs", "value": True}
    several = body | {"signals": [{"kind": "thumbs", "value": True}]}
    for said in (one, several):
        assert refused(http, "feedback", said) == ("/comment", "blocked_by_rule")
    signals = story(http, answer["prediction_id"])["feedback"]
    assert [signal for signal in signals if signal["kind"] != "flag"] == []


# --- the whole story --------------------------------------------------------------------------


async def test_a_receipt_is_complete(service: Any, http: httpx2.Client, eventually: Poll) -> None:
    """Accepted, learned, served, superseded: each in its time, and the ids lead on."""
    answer = rank(http, session_id="s")
    said = {"kind": "selection", "user_id": "ada"}
    first = say(http, prediction_id=answer["prediction_id"], value="a", **said)["feedback_id"]
    second = say(http, model="pages", session_id="s", value="b", **said)["feedback_id"]

    def fate(feedback_id: str) -> dict[str, Any]:
        return dict(http.get(f"/v1/feedback/{feedback_id}").json())

    assert fate(first)["status"] == fate(second)["status"] == "accepted"
    assert (fate(first)["superseded_by"], fate(second)["supersedes"]) == (second, first)
    await service.turn()
    assert fate(first)["status"] == fate(second)["status"] == "learned"

    def served() -> Any:
        rank(http)
        return fate(second)["served"]

    await eventually(served)
    found = fate(second)
    assert found["served"]["step"] >= found["step"]
    assert found["served"]["at"] >= found["learned_at"] - 0.01
    told = story(http, answer["prediction_id"])["feedback"]
    assert [signal["feedback_id"] for signal in told] == [first, second]
    assert [signal["status"] for signal in told] == ["learned", "learned"]


def test_several_signals_have_receipts_of_their_own(http: httpx2.Client) -> None:
    """A rating and an edit in one payload are two signals, and each can be followed."""
    answer = log(http)
    signals: list[dict[str, Any]] = [
        {"kind": "rating", "value": 2},
        {"kind": "correction", "value": "an invoice"},
    ]
    receipt = say(http, prediction_id=answer["prediction_id"], signals=signals, reasons=["vague"])
    assert receipt["feedback_id"] == receipt["signals"][0]["feedback_id"]
    for sent, signal in zip(signals, receipt["signals"], strict=True):
        found = http.get(f"/v1/feedback/{signal['feedback_id']}").json()["feedback"]
        assert (found["kind"], found["reasons"]) == (sent["kind"], ["vague"])


def test_a_batch_takes_every_way_to_name_an_answer(http: httpx2.Client) -> None:
    """By id, by session, by the caller's own id, by a pair: each item stands for itself."""
    one, two = log(http, session_id="t"), log(http, external_id="mine")
    ids = {"chosen": two["prediction_id"], "rejected": one["prediction_id"]}
    thumb = {"kind": "thumbs", "value": True}
    items = [
        {"prediction_id": one["prediction_id"], "signals": [thumb, {"kind": "rating", "value": 5}]},
        {"model": "llm", "session_id": "t"} | thumb,
        {"model": "llm", "external_id": "mine"} | thumb,
        {"kind": "preference"} | ids,
        {"model": "llm", "session_id": "nobody"} | thumb,
        {"prediction_id": one["prediction_id"], "kind": "ranking", "value": ["0", "2"]},
    ]
    found = post(http, "feedback_batch", {"items": items}, 202)
    assert (found["accepted"], found["duplicates"], found["rejected"]) == (3, 1, 2)
    assert [r.get("status") for r in found["results"][:4]] == [
        "accepted",
        "duplicate",
        "accepted",
        "accepted",
    ]
    assert found["results"][4]["code"] == "unknown_prediction"
    assert found["results"][5]["errors"][0]["pointer"] == "/5/value/1"


# --- bad input --------------------------------------------------------------------------------

LONG = "x" * 65_537
BAD_FEEDBACK = [
    ("pages", {"kind": "selection", "value": "z"}, "/value", "not_served"),
    ("pages", {"kind": "ranking", "value": ["a", "z"]}, "/value/1", "not_served"),
    ("pages", {"kind": "ranking", "value": ["a", "b", "a"]}, "/value/2", "invalid_value"),
    ("pages", {"kind": "ranking", "value": ["a"]}, "/value", "invalid_value"),
    ("pages", {"kind": "rating", "value": 6}, "/value", "invalid_value"),
    ("pages", {"kind": "preference", "chosen": "a"}, "/rejected", "invalid_value"),
    ("pages", {"kind": "correction", "value": {"id": "n"}}, "/value", "invalid_value"),
    ("llm", {"kind": "preference", "chosen": "0", "rejected": "9"}, "/rejected", "not_served"),
    ("llm", {"kind": "category", "value": "good"}, "/value", "invalid_value"),
    ("topic", {"kind": "correction", "value": "sports"}, "/value", "invalid_value"),
    ("topic", {"kind": "correction", "value": "x" * (1 << 20)}, "/value", "invalid_value"),
    ("topic", {"kind": "thumbs", "value": 1}, "/value", "invalid_value"),
    ("topic", {"kind": "thumbs", "value": True, "comment": LONG}, "/comment", "invalid_value"),
    ("topic", {"kind": "ranking", "value": ["news", "sport"]}, "/kind", "kind_not_applicable"),
    ("rent", {"kind": "selection", "value": "a"}, "/kind", "kind_not_applicable"),
    ("rent", {"kind": "correction", "value": 1e300}, "/value", "invalid_value"),
]  # fmt: skip


async def ask(http: httpx2.Client, model: str) -> str:
    """Return the id of a fresh answer of a model."""
    if model == "pages":
        return str(rank(http)["prediction_id"])
    if model == "llm":
        return str(log(http)["prediction_id"])
    return str(post(http, f"models/{model}/predict", {"features": {"n": 1}})["prediction_id"])


@pytest.mark.parametrize(("model", "said", "pointer", "code"), BAD_FEEDBACK)
async def test_bad_feedback_is_a_named_problem_and_leaves_no_trace(
    http: httpx2.Client, model: str, said: dict[str, Any], pointer: str, code: str
) -> None:
    """The place and the code are told; nothing of it is kept, and the answer takes what is good."""
    prediction_id = await ask(http, model)
    before = story(http, prediction_id)["feedback"]
    assert refused(http, "feedback", {"prediction_id": prediction_id, **said}) == (pointer, code)
    assert story(http, prediction_id)["feedback"] == before
    say(http, prediction_id=prediction_id, kind="rating", value=4)


async def test_answers_of_two_models_are_not_compared(http: httpx2.Client) -> None:
    """A preference between answers of two models has no common scale."""
    body = {"kind": "preference", "chosen": await ask(http, "pages")}
    body["rejected"] = await ask(http, "llm")
    assert refused(http, "feedback", body) == ("/rejected", "invalid_value")


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        (None, "/options"),
        ([], "/options"),
        ([{"id": str(n)} for n in range(10_000)], "/options"),
        ([PAGES[0], PAGES[0]], "/options/1/id"),
        ([{"id": "a", "features": {"title": "x" * 65_537}}], "/options/0/features"),
        ([{"id": "a", "features": {"vector": []}}], "/options/0/features"),
    ],
)
def test_bad_options_are_a_named_problem(http: httpx2.Client, options: Any, pointer: str) -> None:
    """No options, none of them, ten thousand, the same twice, or one that cannot be taken."""
    body = {"features": {"query": "x"}} | ({} if options is None else {"options": options})
    assert refused(http, "models/pages/predict", body) == (pointer, "invalid_value")


def test_options_are_for_rankings(http: httpx2.Client) -> None:
    """A classifier that is sent options says what it is."""
    body = {"features": {}, "options": PAGES}
    assert refused(http, "models/topic/predict", body) == ("/options", "invalid_value")


async def test_a_vector_of_another_length_is_a_named_problem(
    service: Any, http: httpx2.Client, eventually: Poll
) -> None:
    """Once two numbers were learned from, three are refused: asked for, and said."""

    def option(*vector: float) -> dict[str, Any]:
        return {"id": "v", "features": {"vector": list(vector)}}

    def asked() -> int:
        body = {"features": {}, "options": [option(1, 2, 3)]}
        return http.post("/v1/models/pages/predict", json=body).status_code

    prediction_id = rank(http)["prediction_id"]
    say(http, prediction_id=prediction_id, kind="correction", value=option(1, 2), user_id="a")
    await service.turn()
    await eventually(lambda: asked() == 422)
    body = {"features": {}, "options": [option(1, 2, 3)]}
    assert "had 2 numbers before" in post(http, "models/pages/predict", body, 422)["detail"]
    wrong = {"kind": "correction", "value": option(1, 2, 3), "user_id": "b"}
    said = say(http, prediction_id=prediction_id, **wrong)["feedback_id"]
    await service.turn()
    fate = http.get(f"/v1/feedback/{said}").json()
    assert fate["status"] == "quarantined"
    assert "had 2 numbers before" in fate["reason"]


def test_a_text_of_a_megabyte_is_a_named_problem(http: httpx2.Client) -> None:
    """As a feature it is too long; as the text of an output it is taken, and one more is not."""
    body = {"features": {"text": "x" * (1 << 20)}}
    assert refused(http, "models/rent/predict", body) == ("/features", "invalid_value")
    whole = [{"id": "0", "text": "x" * (1 << 20)}]
    assert log(http, outputs=whole)["output"] == ["0"]
    longer = {"prompt": "x", "outputs": [{"id": "0", "text": "x" * ((1 << 20) + 1)}]}
    assert refused(http, "models/llm/log", longer) == ("/outputs/0/text", "invalid_value")
