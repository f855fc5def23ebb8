"""Feedback without a key: the signed id of an answer speaks about that answer, and no other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from the_service import bearer, problem

from online_learner import auth
from online_learner.client import ApiError, Client
from online_learner.ids import Address, Keyring
from online_learner.settings import CorsSpec
from online_learner.store import open_store

PAGE = "https://page.example.org"
BURST = 5


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a service where `web` and `pages` take feedback by the id alone, and `topic` not."""
    slow = {"per_key": None, "per_source": {"rate": 0.01, "burst": BURST}}
    return start_service(
        web={"public_feedback": True, "limits": slow},
        pages={"public_feedback": True},
        topic={},
        cors=CorsSpec(origins=[PAGE]),
    )


@pytest.fixture(scope="module")
def private(start_service: Callable[..., Any]) -> Any:
    """Return a service where no model takes feedback without a key."""
    return start_service(web={})


def ask(service: Any, model: str = "web", **fields: Any) -> str:
    """Ask for an answer as the application does; returns its id."""
    body = {"features": {"x": 1.0}, **fields}
    with service.client() as http:
        reply = http.post(f"/v1/models/{model}/predict", json=body)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["prediction_id"])


def thumbs(prediction_id: str, **fields: Any) -> dict[str, Any]:
    """Return a body of feedback."""
    return {"prediction_id": prediction_id, "kind": "thumbs", "value": True, **fields}


def said(service: Any, reply: httpx2.Response) -> dict[str, Any]:
    """Return the signal of a receipt, as it is kept."""
    assert reply.status_code == 202, reply.text
    with service.client() as http:
        receipt = http.get(f"/v1/feedback/{reply.json()['feedback_id']}").json()
    return dict(receipt["feedback"])


# --- who is heard -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "source"),
    [
        ({"user_id": "ada"}, "human:ada"),
        ({"session_id": "s1"}, "session:s1"),
        ({"user_id": "bob", "session_id": "s1"}, "human:bob"),
    ],
)
def test_whom_the_answer_was_given_to_speaks(
    service: Any, bare: httpx2.Client, asked: dict[str, str], source: str
) -> None:
    """The record says whose answer it is, and so whose word; the sender is no auditor."""
    kept = said(service, bare.post("/v1/feedback", json=thumbs(ask(service, **asked))))
    assert (kept["source"], kept["auditor"]) == (source, False)


def test_an_answer_given_to_nobody_speaks_for_itself(service: Any, bare: httpx2.Client) -> None:
    """Without a user or a session, each answer is a source of its own."""
    one, other = (
        said(service, bare.post("/v1/feedback", json=thumbs(ask(service))))["source"]
        for _ in range(2)
    )
    assert one.startswith("prediction:")
    assert one != other


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user_id", "eve"),
        ("source", {"id": "eve"}),
        ("source", {"type": "system", "id": "rules"}),
        ("model", "web"),
    ],
)
def test_no_body_says_who_speaks(service: Any, bare: httpx2.Client, field: str, value: Any) -> None:
    """A name in the body is refused, and not merely passed over: 403 that points at it."""
    prediction_id = ask(service, user_id="victim")
    reply = bare.post("/v1/feedback", json=thumbs(prediction_id, **{field: value}))
    [place] = problem(reply, 403, "forbidden")["errors"]
    assert place["pointer"] == f"/{field}"
    assert "eve" not in reply.text
    assert bare.post("/v1/feedback", json=thumbs(prediction_id)).json()["status"] == "accepted"


def test_a_flag_needs_a_key(service: Any, bare: httpx2.Client) -> None:
    """What rules of the system find is said by the system, not by a page."""
    flag = {"prediction_id": ask(service, "pages", options=[{"id": "a"}]), "kind": "flag"}
    problem(bare.post("/v1/feedback", json=flag | {"rule": "toxic"}), 403, "forbidden")
    several = {"prediction_id": flag["prediction_id"], "signals": [{"kind": "flag", "rule": "r"}]}
    problem(bare.post("/v1/feedback", json=several), 403, "forbidden")


def test_who_posts_through_many_answers_is_one_rater(service: Any, bare: httpx2.Client) -> None:
    """The limit of a source holds over all that one user says, by ids and by key alike."""
    statuses = []
    for n in range(BURST + 2):
        body = thumbs(ask(service, user_id="mallory", session_id=f"s{n}"))
        statuses.append(bare.post("/v1/feedback", json=body).status_code)
    assert statuses == [202] * BURST + [429] * 2
    keyed = thumbs(ask(service), user_id="mallory")
    reply = bare.post("/v1/feedback", json=keyed, headers=bearer(service.key))
    assert problem(reply, 429, "rate_limited")["retryable"]
    assert int(reply.headers["retry-after"]) > 1
    others = bare.post("/v1/feedback", json=thumbs(ask(service, user_id="trent")))
    assert others.status_code == 202
    assert others.headers["ratelimit-policy"].startswith('"source";')


def test_saying_it_with_a_key_and_without_is_saying_it_once(
    service: Any, bare: httpx2.Client
) -> None:
    """The user is the same source by both ways: a duplicate, not a second voice."""
    prediction_id = ask(service, user_id="carol")
    first = bare.post("/v1/feedback", json=thumbs(prediction_id)).json()
    keyed = thumbs(prediction_id, user_id="carol")
    again = bare.post("/v1/feedback", json=keyed, headers=bearer(service.key))
    assert (first["status"], again.json()["status"]) == ("accepted", "duplicate")
    assert first["feedback_id"] == again.json()["feedback_id"]


# --- idempotency ------------------------------------------------------------------------------


def test_idempotency_keys_belong_to_the_answer(service: Any, bare: httpx2.Client) -> None:
    """Pages may all use the same key: on one answer it is a retry, on another it is new."""
    one, other = ask(service, user_id="k1"), ask(service, user_id="k2")
    key = {"idempotency-key": "click-1"}
    replies = [
        bare.post("/v1/feedback", json=thumbs(prediction_id), headers=key).json()
        for prediction_id in (one, one, other)
    ]
    assert [reply["status"] for reply in replies] == ["accepted", "duplicate", "accepted"]
    changed = bare.post("/v1/feedback", json=thumbs(one, value=False), headers=key)
    problem(changed, 422, "idempotency_key_reused")


def test_no_page_uses_up_the_keys_of_the_application(service: Any, bare: httpx2.Client) -> None:
    """What a page sends under a key is not what the application sends under the same one."""
    prediction_id, key = ask(service, user_id="dan"), {"idempotency-key": "shared"}
    assert bare.post("/v1/feedback", json=thumbs(prediction_id), headers=key).status_code == 202
    keyed = thumbs(prediction_id, user_id="dan", value=False)
    headers = bearer(service.key) | key
    reply = bare.post("/v1/feedback", json=keyed, headers=headers)
    assert reply.json()["status"] == "accepted"


# --- who is not -------------------------------------------------------------------------------


def strangers(service: Any) -> dict[str, dict[str, Any]]:
    """Return bodies whose sender holds no id that is good for anything."""
    keyring = Keyring.load(service.data_dir)
    good, address = ask(service), Address(1, 0, "00ff00ff")
    return {
        "forged": thumbs("x" * 50),
        "changed": thumbs(good[:20] + ("A" if good[20] != "A" else "B") + good[21:]),
        "cut": thumbs(good[:-1]),
        "foreign": thumbs(Keyring({1: bytes(32)}).seal("prediction", "web", address)),
        "of a private model": thumbs(ask(service, "topic")),
        "of a private model, old": thumbs(keyring.seal("prediction", "topic", address)),
        "of no model": thumbs(keyring.seal("prediction", "gone", address)),
        "of feedback": thumbs(keyring.seal("feedback", "web", address)),
        "a session": {"model": "web", "session_id": "s1", "kind": "thumbs", "value": True},
        "nothing": {"kind": "thumbs", "value": True},
    }


def test_no_good_id_is_as_no_key(service: Any, bare: httpx2.Client, private: Any) -> None:
    """Which ids are real is not told to whoever may not use them: all get the very same reply."""
    told = set()
    bodies = strangers(service)
    for body in bodies.values():
        reply = bare.post("/v1/feedback", json=body)
        assert reply.headers["www-authenticate"] == "Bearer"
        told.add(problem(reply, 401, "unauthorized")["detail"])
    reply = httpx2.post(f"{private.url}/v1/feedback", json=thumbs(ask(private)))
    told.add(problem(reply, 401, "unauthorized")["detail"])
    assert len(told) == 1
    keyed = bare.post("/v1/feedback", json=bodies["forged"], headers=bearer(service.key))
    problem(keyed, 404, "unknown_prediction")


@pytest.mark.parametrize("header", ["Bearer ol_wrong", "Bearer", "", "Basic b2w6b2w="])
def test_a_wrong_key_is_not_made_good_by_an_id(
    service: Any, bare: httpx2.Client, header: str
) -> None:
    """Whoever says who they are has to be right: else they would believe their key works."""
    body = thumbs(ask(service, user_id="ada"))
    reply = bare.post("/v1/feedback", json=body, headers={"authorization": header})
    problem(reply, 401, "unauthorized")


def test_an_id_opens_nothing_else(service: Any, bare: httpx2.Client) -> None:
    """An id opens no batch, not the answer's own story, and not the fate of what was said."""
    prediction_id = ask(service, user_id="frank")
    receipt = bare.post("/v1/feedback", json=thumbs(prediction_id)).json()
    problem(
        bare.post("/v1/feedback_batch", json={"items": [thumbs(prediction_id)]}),
        401,
        "unauthorized",
    )
    problem(bare.get(f"/v1/predictions/{prediction_id}"), 401, "unauthorized")
    problem(bare.get(f"/v1/feedback/{receipt['feedback_id']}"), 401, "unauthorized")


def test_an_own_answer_is_checked_as_any_other(service: Any, bare: httpx2.Client) -> None:
    """What is wrong with the body is said, also where there is no key."""
    prediction_id = ask(service, user_id="gina")
    wrong = {"kind": "correction", "value": "neither"}
    problem(bare.post("/v1/feedback", json=thumbs(prediction_id) | wrong), 422, "invalid_value")
    problem(bare.post("/v1/feedback", json=thumbs(prediction_id, coment="x")), 422, "unknown_field")
    problem(bare.post("/v1/feedback", content=b"{"), 400, "malformed")
    old = Keyring.load(service.data_dir).seal("prediction", "web", Address(1, 0, "00ff00ff"))
    problem(bare.post("/v1/feedback", json=thumbs(old)), 410, "feedback_window_closed")


def test_a_preference_stays_within_the_answer(service: Any, bare: httpx2.Client) -> None:
    """Of the options of one's own answer one may be preferred; other answers are not at hand."""
    options = [{"id": "a", "features": {"x": 1.0}}, {"id": "b", "features": {"x": 2.0}}]
    one, other = (ask(service, "pages", options=options, user_id="hal") for _ in range(2))
    pair = {"kind": "preference", "chosen": "a", "rejected": "b"}
    assert bare.post("/v1/feedback", json=pair | {"prediction_id": one}).status_code == 202
    across = {"kind": "preference", "chosen": one, "rejected": other}
    problem(bare.post("/v1/feedback", json=across), 401, "unauthorized")
    problem(bare.post("/v1/feedback", json=across | {"prediction_id": one}), 422, "not_served")


# --- from a page ------------------------------------------------------------------------------


def test_a_page_of_a_known_origin_may_post(service: Any, bare: httpx2.Client) -> None:
    """The browser asks first, without a key or an id, and may then read the receipt and headers."""
    asking = {
        "origin": PAGE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,idempotency-key",
    }
    first = bare.options("/v1/feedback", headers=asking)
    assert first.status_code == 200
    assert first.headers["access-control-allow-origin"] == PAGE
    body = thumbs(ask(service, user_id="ivy"))
    reply = bare.post("/v1/feedback", json=body, headers={"origin": PAGE, "idempotency-key": "k"})
    assert reply.status_code == 202
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert "ratelimit" in reply.headers["access-control-expose-headers"].lower()
    refused = bare.post("/v1/feedback", json=thumbs("x" * 50), headers={"origin": PAGE})
    problem(refused, 401, "unauthorized")
    assert refused.headers["access-control-allow-origin"] == PAGE


def test_the_client_library_needs_no_key(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one, it says what it has to say by the id; what it may not say is an error."""
    monkeypatch.delenv("OL_API_KEY", raising=False)
    prediction_id = ask(service, user_id="june")
    with Client(service.url) as client:
        assert client.feedback(prediction_id, "thumbs", True).status == "accepted"
        with pytest.raises(ApiError, match="leave this out"):
            client.feedback(prediction_id, "thumbs", True, user_id="eve")
        with pytest.raises(ApiError, match="send a key"):
            client.feedback(ask(service, "topic"), "thumbs", True)


# --- whose word counts for more ---------------------------------------------------------------


@pytest.fixture
def new_key(
    service: Any, eventually: Callable[..., Awaitable[None]]
) -> Callable[..., Awaitable[dict[str, str]]]:
    """Return a function that lets in a key, and returns its header once the service knows it."""

    async def make(name: str, *scopes: auth.Scope) -> dict[str, str]:
        key = auth.new_key()
        async with await open_store(service.server.url) as store:
            await auth.allow(store, key, name=name, scopes=scopes)
        with service.client(key) as http:
            await eventually(lambda: http.get("/v1/session").status_code == 200)
        return bearer(key)

    return make


async def test_to_speak_for_the_system_takes_the_scope(
    service: Any, bare: httpx2.Client, new_key: Callable[..., Awaitable[dict[str, str]]]
) -> None:
    """A source of type `system` is 403 without it; of type `model` or `human` it is not."""
    page = await new_key("page", "feedback")
    system = await new_key("rules", "feedback", "system")
    path = "/v1/feedback"
    rules = {"source": {"type": "system", "id": "rules"}}
    prediction_id = ask(service)
    reply = bare.post(path, json=thumbs(prediction_id, **rules), headers=page)
    [place] = problem(reply, 403, "forbidden")["errors"]
    assert place["pointer"] == "/source/type"
    batch = {"items": [thumbs(prediction_id, **rules), thumbs(prediction_id)]}
    found = bare.post(f"{path}_batch", json=batch, headers=page).json()
    assert [item["status"] for item in found["results"]] == [403, "accepted"]
    kept = said(service, bare.post(path, json=thumbs(prediction_id, **rules), headers=system))
    assert (kept["source"], kept["auditor"]) == ("system:rules", False)
    judge = thumbs(prediction_id, source={"type": "model", "id": "judge"})
    assert said(service, bare.post(path, json=judge, headers=page))["source"] == "model:judge"


async def test_an_auditor_is_known_by_the_scope(
    service: Any, bare: httpx2.Client, new_key: Callable[..., Awaitable[dict[str, str]]]
) -> None:
    """The key's scope `audit` makes an auditor, by whatever name they speak."""
    auditor = await new_key("auditor", "feedback", "audit")
    for fields in ({}, {"user_id": "nora"}):
        body = thumbs(ask(service), **fields)
        reply = bare.post("/v1/feedback", json=body, headers=auditor)
        assert said(service, reply)["auditor"] is True
