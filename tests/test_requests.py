"""Bodies of `log`, `score` and several signals at once; OpenAI chats as they come."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from online_learner.chat import chat_text, shared_context
from online_learner.errors import ServiceError
from online_learner.requests import (
    LogRequest,
    PredictRequest,
    Request,
    ScoreRequest,
    SeveralSignals,
    parse_feedback,
    read_chat,
    read_feedback,
)
from online_learner.requests.telling import Correction, Preference, Rating
from online_learner.requests.values import MAX_DEPTH, MAX_FIELDS
from online_learner.schema import Option
from serve_app.http import parse

HELLO = [{"role": "user", "content": "Hello"}]


def logged(document: dict[str, Any]) -> LogRequest:
    """Return a log request as the route reads it, with its question and options checked."""
    found = read_chat(parse(LogRequest, json.dumps(document).encode()))
    found.asked()
    found.made()
    return found


def chat(*choices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return an OpenAI request and response as the SDK dumps them."""
    response = {
        "id": "chatcmpl-9",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": "gpt-x-2026-01-01",
        "choices": list(choices),
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
        "system_fingerprint": None,
    }
    request = {"model": "gpt-x", "messages": HELLO, "temperature": 0.7, "top_p": 0.9, "user": "ada"}
    return {"request": request | fields, "response": response}


def choice(content: Any, index: int | None = 0, **message: Any) -> dict[str, Any]:
    """Return one choice of a response."""
    said = {"role": "assistant", "content": content, "refusal": None, **message}
    return {"index": index, "message": said, "finish_reason": "stop", "logprobs": None}


def scored(document: dict[str, Any]) -> ScoreRequest:
    """Return a score request as the route reads it, with its outputs checked."""
    found = parse(ScoreRequest, json.dumps(document).encode())
    found.options()
    return found


def asked(document: dict[str, Any]) -> PredictRequest:
    """Return a request for a prediction as the route reads it."""
    return parse(PredictRequest, json.dumps(document).encode())


def told(document: dict[str, Any]) -> Any:
    """Return feedback as the route reads it."""
    return parse_feedback(json.dumps(document).encode())


def refusal(read: Callable[[dict[str, Any]], Any], document: dict[str, Any]) -> dict[str, str]:
    """Return the one place that is wrong with a body."""
    with pytest.raises(ServiceError) as caught:
        read(document)
    [place] = caught.value.errors
    assert place["code"] == caught.value.code
    return place


# --- chats ------------------------------------------------------------------------------------


def test_a_chat_is_taken_as_it_is() -> None:
    """Messages, choices, parameters, model, completion id and user find their places."""
    found = logged(chat(choice("Hi")))
    assert found.asked() == {"messages": HELLO}
    assert found.made() == [Option(id="0", features={"text": "Hi"})]
    assert found.parameters == {"model": "gpt-x", "temperature": 0.7, "top_p": 0.9, "user": "ada"}
    assert found.model_version == "gpt-x-2026-01-01"
    assert (found.external_id, found.user_id) == ("chatcmpl-9", "ada")


def test_what_is_sent_beside_a_chat_wins() -> None:
    """The caller's own names stand, and its parameters join those of the request."""
    own = {"model_version": "v7", "external_id": "mine", "user_id": "bob", "session_id": "s"}
    found = logged(chat(choice("Hi")) | own | {"parameters": {"template": 3}, "latency_ms": 12})
    assert (found.model_version, found.external_id, found.user_id) == ("v7", "mine", "bob")
    assert (found.session_id, found.latency_ms) == ("s", 12.0)
    assert found.parameters["template"] == 3
    assert found.parameters["temperature"] == 0.7


def test_every_choice_is_an_output() -> None:
    """With `n` there are several, under their own indexes, in the order of the response."""
    options = logged(chat(choice("b", 1), choice("a", 0), choice("c", None), n=3)).made()
    assert [(option.id, option.features["text"]) for option in options] == [
        ("1", "b"),
        ("0", "a"),
        ("2", "c"),
    ]


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ({"content": None, "tool_calls": [CALL]}, {"role": "assistant", "tool_calls": [CALL]}),
        (
            {"content": "Let me look.", "tool_calls": [CALL]},
            {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]},
        ),
        (
            {"content": None, "refusal": "I cannot."},
            {"role": "assistant", "refusal": "I cannot."},
        ),
        (
            {"content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]},
        ),
        (
            {"content": "", "function_call": {"name": "f", "arguments": ""}},
            {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": ""}},
        ),
    ],
    ids=["tool calls", "text and tool calls", "refusal", "parts", "function call"],
)
def test_what_is_more_than_a_text_is_kept_as_json(message: Any, kept: Any) -> None:
    """Tool calls, refusals and parts are kept whole; what is null is left out."""
    [option] = logged(chat(choice(**message))).made()
    assert json.loads(option.features["json"]) == kept


def test_log_probabilities_are_kept_by_token() -> None:
    """Those of the tokens taken; the alternatives and bytes are not kept."""
    tokens = [
        {"token": "H", "logprob": -0.5, "bytes": [72], "top_logprobs": []},
        {"token": "i", "logprob": -9999.0, "bytes": [105], "top_logprobs": []},
    ]
    made = choice("Hi") | {"logprobs": {"content": tokens, "refusal": None}}
    assert logged(chat(made)).made()[0].logprobs == [-0.5, -9999.0]
    for none in (None, {}, {"content": None}, {"content": [{"token": "H"}]}):
        assert logged(chat(choice("Hi") | {"logprobs": none})).made()[0].logprobs is None


def test_large_integers_of_a_chat_are_kept() -> None:
    """A seed or a token id of 64 bits is nothing to learn from, and no reason to refuse."""
    assert logged(chat(choice("Hi"), seed=2**63 - 1)).parameters["seed"] == 2**63 - 1


def test_names_that_are_too_long_are_cut() -> None:
    """What a provider calls itself is never a reason to refuse its answer."""
    found = chat(choice("Hi"), user="u" * 300)
    found["response"] |= {"id": "i" * 300, "model": ""}
    read = logged(found)
    assert (read.external_id, read.user_id, read.model_version) == ("i" * 256, "u" * 256, None)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"response": None}, "/request"),
        ({"request": None}, "/request"),
        ({"request": {"model": "x"}}, "/request/messages"),
        ({"request": {"messages": []}}, "/request/messages"),
        ({"request": {"messages": ["Hello"]}}, "/request/messages"),
        ({"response": {"id": "x"}}, "/response/choices"),
        ({"response": {"choices": []}}, "/response/choices"),
        ({"response": {"choices": {"0": {}}}}, "/response/choices"),
        ({"response": {"choices": [choice("a")] * 1001}}, "/response/choices"),
        ({"response": {"choices": [choice("a"), {"text": "b"}]}}, "/response/choices/1/message"),
        ({"response": {"choices": [choice("a"), "b"]}}, "/response/choices/1/message"),
        ({"response": {"choices": [choice("a"), choice("b")]}}, "/outputs/1/id"),
        (
            {"response": {"choices": [choice("a") | {"index": "x" * 300}]}},
            "/response/choices/0/id",
        ),
        (
            {
                "response": {
                    "choices": [choice("a") | {"logprobs": {"content": [{"logprob": "inf"}]}}]
                }
            },
            "/response/choices/0/logprobs/0",
        ),
        ({"outputs": [{"id": "0", "text": "a"}]}, "/outputs"),
        ({"messages": HELLO}, "/outputs"),
        ({"prompt": "Hello"}, "/prompt"),
    ],
)
def test_what_is_no_chat_is_pointed_at(change: dict[str, Any], pointer: str) -> None:
    """Half a chat, another endpoint's body, or a chat with outputs beside it names the place."""
    place = refusal(logged, chat(choice("a")) | change)
    assert (place["pointer"], place["code"]) == (pointer, "invalid_value")


def test_a_chat_is_read_as_one_text() -> None:
    """What a reward model sees: role and content of each message, texts of the parts alone."""
    parts = [{"type": "text", "text": "What"}, {"type": "image_url"}, {"type": "text", "text": "?"}]
    messages: list[dict[str, Any]] = [
        *HELLO,
        {"role": "assistant", "content": None},
        {"role": "user", "content": parts},
    ]
    assert chat_text(messages) == "user: Hello\nassistant: \nuser: What  ?"
    assert shared_context({"messages": messages}) == {"prompt": chat_text(messages)}


@pytest.mark.parametrize("value", ["unread", 3.0, [1.0, 2.0], True])
def test_a_feature_named_messages_is_no_chat(value: Any) -> None:
    """A ranking may have a feature of that name: it is what it was when it was predicted from."""
    features = {"messages": value, "query": "x"}
    assert shared_context(features) == features


# --- log and score ----------------------------------------------------------------------------

OUTPUTS = [{"id": "a", "text": "one", "logprobs": [-0.1]}, {"id": "b", "json": {"y": 1, "x": None}}]


def test_a_log_keeps_texts_and_json() -> None:
    """An output is a text or JSON, which is kept as text that is equal for equal values."""
    found = logged({"prompt": "p", "outputs": OUTPUTS})
    assert found.asked() == {"prompt": "p"}
    assert found.made() == [
        Option(id="a", features={"text": "one"}, logprobs=[-0.1]),
        Option(id="b", features={"json": '{"x": null, "y": 1}'}),
    ]
    assert [output.value() for output in found.outputs] == ["one", {"y": 1, "x": None}]
    [null] = logged({"prompt": "p", "outputs": [{"id": "a", "json": None}]}).made()
    assert null.features == {"json": "null"}


@pytest.mark.parametrize(
    ("read", "change", "pointer"),
    [
        (logged, {"outputs": []}, "/outputs"),
        (logged, {"outputs": [{"id": "a"}]}, "/outputs/0"),
        (logged, {"outputs": [{"id": "a", "text": "x", "json": 1}]}, "/outputs/0"),
        (logged, {"outputs": [OUTPUTS[0], OUTPUTS[0]]}, "/outputs/1/id"),
        (logged, {"outputs": [{"id": "", "text": "x"}]}, "/outputs/0/id"),
        (logged, {"outputs": ["one"]}, "/outputs/0"),
        (logged, {"messages": HELLO}, "/prompt"),
        (logged, {"prompt": None}, "/prompt"),
        (logged, {"latency_ms": -1}, "/latency_ms"),
        (logged, {"model_version": 3}, "/model_version"),
        (scored, {"outputs": []}, "/outputs"),
        (scored, {"outputs": ["one", 3]}, "/outputs/1"),
        (scored, {"outputs": [{"text": "one"}]}, "/outputs/0/id"),
        (scored, {"outputs": [{"id": "a"}]}, "/outputs/0"),
        (scored, {"outputs": ["x"] * 1001}, "/outputs"),
        (scored, {"outputs": {"a": "one"}}, "/outputs"),
    ],
)
def test_what_is_wrong_with_outputs_is_pointed_at(
    read: Callable[[dict[str, Any]], Any], change: dict[str, Any], pointer: str
) -> None:
    """One place of the body is named, by a pointer that leads there."""
    place = refusal(read, {"prompt": "p", "outputs": OUTPUTS} | change)
    assert (place["pointer"], place["code"]) == (pointer, "invalid_value")


def test_scores_are_asked_for_texts_or_outputs() -> None:
    """Mere texts and whole outputs may be mixed; a reward model sees their content alone."""
    body = {"prompt": "p", "outputs": ["zero", {"id": "x", "text": "one"}, OUTPUTS[1]]}
    expected = [{"text": "zero"}, {"text": "one"}, {"json": '{"x": null, "y": 1}'}]
    assert scored(body).options() == expected


@pytest.mark.parametrize(
    ("options", "pointer", "words"),
    [
        ([], "/options", "empty"),
        ([{"id": "a"}] * 2, "/options/1/id", "twice"),
        ([{"id": str(n)} for n in range(10_000)], "/options", "at most 1000"),
        (
            [{"id": "a"}, {"id": "b", "features": {"x": None}}],
            "/options/1/features",
            "place 1, as sent, must be",
        ),
        ([{"id": "a", "features": {"x": [1, "2"]}}], "/options/0/features", "finite numbers"),
        ([{"id": "a", "feature": {}}], "/options/0", "Did you mean 'features'"),
        ([{"features": {}}], "/options/0/id", "required"),
        (["a"], "/options/0", "object"),
    ],
)
def test_what_is_wrong_with_options_is_pointed_at(
    options: list[Any], pointer: str, words: str
) -> None:
    """Empty, doubled, too many, or with a feature that cannot be taken: the place is named."""
    with pytest.raises(ServiceError, match=words) as caught:
        parse(PredictRequest, json.dumps({"features": {}, "options": options}).encode())
    assert caught.value.errors[0]["pointer"] == pointer


# --- several signals --------------------------------------------------------------------------

SEVERAL = {
    "prediction_id": "x",
    "comment": "c",
    "signals": [
        {"kind": "rating", "value": 2},
        {"kind": "correction", "value": "y"},
        {"kind": "preference", "chosen": "a", "rejected": "b"},
    ],
}


def test_several_signals_share_what_is_said_beside_them() -> None:
    """The payload has the common fields, each signal its own kind and value."""
    found = read_feedback(SEVERAL)
    assert isinstance(found, SeveralSignals)
    assert found.comment == "c"
    assert [type(signal) for signal in found.said()] == [Rating, Correction, Preference]
    assert told(SEVERAL) == found


def test_one_signal_says_itself() -> None:
    """A payload of one kind is its own signal."""
    found = read_feedback({"prediction_id": "x", "kind": "thumbs", "value": True})
    assert found.said() == [found]


THUMB = {"kind": "thumbs", "value": True}


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"signals": []}, "/signals", "invalid_value"),
        ({"signals": [THUMB] * 17}, "/signals", "invalid_value"),
        ({"signals": {"0": THUMB}}, "/signals", "invalid_value"),
        ({"signals": ["thumbs"]}, "/signals/0", "invalid_value"),
        ({"signals": [THUMB, {"kind": "thumb"}]}, "/signals/1/kind", "kind_not_applicable"),
        ({"signals": [THUMB, {"value": True}]}, "/signals/1/kind", "invalid_value"),
        ({"signals": [{"kind": "thumbs", "value": 1}]}, "/signals/0/value", "invalid_value"),
        ({"signals": [THUMB | {"comment": "c"}]}, "/signals/0", "unknown_field"),
        ({"kind": "thumbs", "value": True}, "", "unknown_field"),
        ({"value": True}, "", "unknown_field"),
        ({"coment": "c"}, "", "unknown_field"),
    ],
)
def test_what_is_wrong_with_several_signals_is_pointed_at(
    change: dict[str, Any], pointer: str, code: str
) -> None:
    """The signal is named by its place; a kind that is none has the code that it has alone."""
    place = refusal(told, SEVERAL | change)
    assert (place["pointer"], place["code"]) == (pointer, code)


MANY = {f"k{n}": 1e99 for n in range(5000)}


@pytest.mark.parametrize(
    ("read", "change", "pointer"),
    [
        (told, {"signals": [THUMB | MANY]}, "/signals/0"),
        (told, MANY, ""),
        (told, {"tags": MANY}, "/tags"),
        (told, {"source": {"id": "a"} | MANY}, "/source"),
        (
            told,
            {"signals": [THUMB | {"kind": "ranking", "value": [1] * 999}]},
            "/signals/0/value/0",
        ),
        (told, {"reasons": [1] * 5000}, "/reasons"),
        (logged, {"parameters": MANY}, "/parameters"),
        (logged, {"messages": [MANY]}, "/messages/0"),
        (logged, {"messages": [1] * 5000}, "/messages"),
        (logged, {"request": MANY}, "/request"),
        (logged, {"outputs": [{"id": "a"} | MANY]}, "/outputs/0"),
        (logged, {"outputs": [{"id": "a", "logprobs": [None] * 999}]}, "/outputs/0/logprobs/0"),
        (scored, {"outputs": [1] * 5000}, "/outputs"),
        (asked, {"options": [{}] * 5000}, "/options"),
        (asked, {"options": [{}] * 1000}, "/options/0/id"),
        (asked, {"options": [{"id": "a"} | MANY]}, "/options/0"),
    ],
)
def test_of_thousands_of_wrong_parts_one_is_pointed_at(
    read: Callable[[dict[str, Any]], Any], change: dict[str, Any], pointer: str
) -> None:
    """What has far too many parts is refused as a whole, before each is looked at."""
    base = SEVERAL if read is told else {"prompt": "p"} if read is not asked else {"features": {}}
    if read is logged:
        base = base | {"outputs": OUTPUTS}
    assert refusal(read, base | change)["pointer"] == pointer


def test_no_request_comes_near_the_limit_of_fields() -> None:
    """All known fields at once, and as many unknown ones, are looked at."""

    def below(kind: type[Request]) -> list[type[Request]]:
        return [kind, *(found for child in kind.__subclasses__() for found in below(child))]

    kinds = below(Request)
    assert len(kinds) > 20
    assert max(len(kind.model_fields) for kind in kinds) <= MAX_FIELDS // 2


@pytest.mark.parametrize("inner", [1, [], {}, "x"])
def test_a_value_is_as_deep_as_is_told(inner: Any) -> None:
    """Lists and objects lie in each other up to the limit, whatever is in the last."""
    value = inner
    for n in range(MAX_DEPTH - isinstance(inner, list | dict)):
        value = {"a": value} if n % 2 else [value]
    body = {"prediction_id": "x", "kind": "correction"}
    assert told(body | {"value": value}).value == value
    assert "16 deep" in refusal(told, body | {"value": [value]})["message"]


@pytest.mark.parametrize("bad", [1e99, {"a": [1e99]}, [[True, 1e99]]])
def test_a_wrong_part_is_found_wherever_it_lies(bad: Any) -> None:
    """Beside and below what is right."""
    body = {"prediction_id": "x", "kind": "correction", "value": [{"b": None}, "x", bad, [1]]}
    assert "finite number" in refusal(told, body)["message"]


@pytest.mark.parametrize(
    "time",
    ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123+02:00", "2026-01-31 12:00:00+00:00"],
)
def test_a_moment_is_kept_as_it_was_written(time: str) -> None:
    """`observed_at` is a time with its zone."""
    found = told({"prediction_id": "x", "kind": "thumbs", "value": True, "observed_at": time})
    assert found.observed_at == time


@pytest.mark.parametrize(
    "time", ["yesterday", "", "2026-01-31", "2026-01-31T12:00:00", "2026-13-31T12:00:00Z", 1.7e9]
)
def test_what_is_no_moment_is_refused(time: Any) -> None:
    """A word, a day, a time without zone, or a number is pointed at."""
    body = {"prediction_id": "x", "kind": "thumbs", "value": True, "observed_at": time}
    place = refusal(told, body)
    assert (place["pointer"], place["code"]) == ("/observed_at", "invalid_value")
