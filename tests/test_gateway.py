"""The HTTP contract, on the real application over a real store; no learner runs beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from the_service import bearer, problem

from online_learner import auth, config
from online_learner.ids import Address, Keyring
from online_learner.settings import ModelSpec
from online_learner.stages import Stages
from online_learner.store import open_store
from online_learner.store.embedded import EmbeddedServer

JSON = {"content-type": "application/json"}
FEATURES = {"https": 0.0, "ip_in_url": 1, "long": True}


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service with a classifier of two, one of three, and a regression."""
    return start_service(web={}, topic={}, rent={}, max_body_bytes=1 << 16)


def predict(http: httpx2.Client, model: str = "web", **features: Any) -> dict[str, Any]:
    """Return one answer."""
    reply = http.post(f"/v1/models/{model}/predict", json={"features": features or FEATURES})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def thumbs(prediction_id: str, **fields: Any) -> dict[str, Any]:
    """Return a body of feedback."""
    return {"prediction_id": prediction_id, "kind": "thumbs", "value": False, **fields}


# --- answers ----------------------------------------------------------------------------------


def test_an_answer_has_every_promised_field(http: httpx2.Client) -> None:
    """A prediction carries what the contract lists, and says until when feedback is taken."""
    answer = predict(http)
    assert set(answer) == {
        "prediction_id", "model", "version", "step", "role", "output", "scores", "uncertainty",
        "propensity", "ask", "flags", "blocked", "feedback_expires_at",
    }  # fmt: skip
    assert answer["output"] in (False, True)
    assert set(answer["scores"]) == {"false", "true"}
    assert answer["ask"] == {"reason": "audit", "probability": 1.0}
    assert answer["feedback_expires_at"].endswith("Z")


def test_a_regression_answers_with_a_number(http: httpx2.Client) -> None:
    """The output of a regression is a number, and there are no scores."""
    answer = predict(http, "rent", rooms=2)
    assert isinstance(answer["output"], float)
    assert answer["scores"] == {}


def test_top_k_leaves_the_best_scores(http: httpx2.Client) -> None:
    """`top_k` shortens the scores, and nothing else."""
    reply = http.post("/v1/models/topic/predict", json={"features": {"x": 1.0}, "top_k": 2})
    assert len(reply.json()["scores"]) == 2


def test_answers_without_a_learner(http: httpx2.Client) -> None:
    """Predictions are answered where no learner runs, and readiness says that none does."""
    assert predict(http)["version"] == 0
    ready = http.get("/readyz")
    assert ready.status_code == 503
    web = ready.json()["models"]["web"]
    assert web == {"weights": True, "learner": False, "gatekeeper": False}
    assert http.get("/livez").json() == {"live": True}


async def test_a_signal_is_learned_and_explained(
    service: Any, http: httpx2.Client, eventually: Callable[..., Awaitable[None]]
) -> None:
    """A receipt goes from accepted to learned, and the answer's story tells of it."""
    answer = predict(http, "rent", rooms=3)
    body = {"prediction_id": answer["prediction_id"], "kind": "correction", "value": 950}
    receipt = http.post("/v1/feedback", json=body)
    assert receipt.status_code == 202
    found = receipt.json()
    assert (found["status"], found["durability"], found["model"]) == ("accepted", "fsynced", "rent")
    path = f"/v1/feedback/{found['feedback_id']}"
    assert http.get(path).json()["status"] == "accepted"
    await service.turn()
    assert http.get(path).json()["status"] == "learned"
    story = http.get(f"/v1/predictions/{answer['prediction_id']}").json()
    assert story["prediction"]["features"] == {"rooms": 3}
    assert [signal["value"] for signal in story["feedback"]] == [950]
    assert story["feedback"][0]["status"] == "learned"


def test_a_story_outlives_the_window(service: Any, http: httpx2.Client) -> None:
    """An answer can be explained after its feedback window has closed; only feedback is refused."""
    keyring = Keyring.load(service.data_dir)
    old = Address(ms=int((time.time() - 90_000) * 1000), seq=0, nonce="00ff00ff")
    prediction_id = keyring.seal("prediction", "web", old)
    problem(http.post("/v1/feedback", json=thumbs(prediction_id)), 410, "feedback_window_closed")
    problem(http.get(f"/v1/predictions/{prediction_id}"), 404, "unknown_prediction")


# --- keys -------------------------------------------------------------------------------------

ROUTES = [
    ("POST", "/v1/models/web/predict"),
    ("POST", "/v1/models/web/predict_batch"),
    ("POST", "/v1/models/web/log"),
    ("POST", "/v1/models/web/score"),
    ("POST", "/v1/feedback"),
    ("POST", "/v1/feedback_batch"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/web"),
    ("GET", "/v1/models/web/versions"),
    ("GET", "/v1/models/web/verdicts"),
    ("GET", "/v1/predictions/x"),
    ("GET", "/v1/feedback/x"),
    ("POST", "/v1/models/web/promote"),
    ("POST", "/v1/models/web/rollback"),
    ("POST", "/v1/models/web/freeze"),
    ("POST", "/v1/models/web/thaw"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("header", [None, "Bearer ol_wrong", "Basic b2w6b2w=", "Bearer", ""])
def test_no_route_without_a_key(service: Any, method: str, path: str, header: str | None) -> None:
    """Every route under /v1 refuses a missing or unknown key, whatever the body is."""
    headers = {} if header is None else {"authorization": header}
    content = b"{" if method == "POST" else None
    reply = httpx2.request(method, service.url + path, content=content, headers=headers | JSON)
    body = problem(reply, 401, "unauthorized")
    assert reply.headers["www-authenticate"] == "Bearer"
    assert "ol_wrong" not in json.dumps(body)


async def test_a_key_does_what_its_scopes_allow(
    service: Any, eventually: Callable[..., Awaitable[None]]
) -> None:
    """A key with one scope is let in there, and nowhere else; it works within seconds."""
    async with await open_store(service.server.url) as store:
        await auth.allow(store, "ol_only_predicts", name="page", scopes=("predict",))
    body: dict[str, Any] = {"features": {}}
    with service.client("ol_only_predicts") as http:
        await eventually(lambda: http.post("/v1/models/web/predict", json=body).status_code == 200)
        refused = problem(http.post("/v1/feedback", json=thumbs("x")), 403, "forbidden")
        assert "'feedback'" in refused["detail"]
        problem(http.get("/v1/models"), 403, "forbidden")
        problem(http.post("/v1/models/web/freeze"), 403, "forbidden")


async def key_of(
    service: Any, eventually: Callable[..., Awaitable[None]], name: str, *scopes: auth.Scope
) -> dict[str, str]:
    """Let in a key with these scopes; returns its header once the service knows of it."""
    async with await open_store(service.server.url) as store:
        await auth.allow(store, f"ol_{name}", name=name, scopes=scopes)
    headers = bearer(f"ol_{name}")

    def known() -> bool:
        reply = httpx2.post(f"{service.url}/v1/models/web/predict", json={}, headers=headers)
        return reply.status_code != 401

    await eventually(known)
    return headers


async def test_an_auditors_word_is_known_by_the_key_alone(
    service: Any, http: httpx2.Client, eventually: Callable[..., Awaitable[None]]
) -> None:
    """The scope `audit` of the key makes an auditor, and nothing that a body says."""
    auditor = await key_of(service, eventually, "auditor", "feedback", "audit")
    body = thumbs(predict(http)["prediction_id"], user_id="ada")
    several = {"items": [thumbs(predict(http)["prediction_id"])]}
    said = {}
    for name, headers in (("users", http.headers), ("auditors", auditor)):
        one = http.post("/v1/feedback", json=body, headers=headers).json()
        # In the same name, it is more than what the user said: not a duplicate of it.
        assert one["status"] == "accepted"
        assert http.post("/v1/feedback", json=body, headers=headers).json()["status"] == "duplicate"
        [many] = http.post("/v1/feedback_batch", json=several, headers=headers).json()["results"]
        receipts = [http.get(f"/v1/feedback/{found['feedback_id']}") for found in (one, many)]
        said[name] = [receipt.json()["feedback"]["auditor"] for receipt in receipts]
    assert said == {"users": [False, False], "auditors": [True, True]}
    for headers in (http.headers, auditor):
        reply = http.post("/v1/feedback", json=body | {"auditor": True}, headers=headers)
        assert problem(reply, 422, "unknown_field")["errors"][0]["pointer"] == ""


async def test_why_a_label_is_asked_for_is_not_for_everyone(
    service: Any, http: httpx2.Client, eventually: Callable[..., Awaitable[None]]
) -> None:
    """A key that may not read learns that a label is wanted, and not that it is evidence."""
    public = await key_of(service, eventually, "page2", "predict", "feedback")
    body = {"features": FEATURES}
    answer = http.post("/v1/models/web/predict", json=body, headers=public).json()
    batch = {"instances": [body]}
    found = http.post("/v1/models/web/predict_batch", json=batch, headers=public).json()
    for hidden in (answer, *found["predictions"]):
        assert hidden["ask"] == {"reason": "label", "probability": None}
        path = f"/v1/predictions/{hidden['prediction_id']}"
        problem(http.get(path, headers=public), 403, "forbidden")
        story = http.get(path).json()
        assert story["prediction"]["ask"] == {"reason": "audit", "probability": 1.0}
    assert predict(http)["ask"]["reason"] == "audit"


# --- what is wrong with a body ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["wbe", "web2", "we"])
def test_an_unknown_model_is_suggested(http: httpx2.Client, name: str) -> None:
    """A misspelt model is a 404 that names the one that was meant."""
    for method, path in (("POST", "predict"), ("POST", "predict_batch"), ("GET", "versions")):
        reply = http.request(method, f"/v1/models/{name}/{path}", json={"features": {}})
        assert "Did you mean 'web'?" in problem(reply, 404, "unknown_model")["detail"]


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e308", "1e999", "-1e16", "1" + "0" * 20]
)
def test_a_number_that_ruins_a_model_is_refused(http: httpx2.Client, number: str) -> None:
    """NaN, infinities and huge numbers are refused in features and corrections alike."""
    content = f'{{"features": {{"x": {number}}}}}'
    reply = http.post("/v1/models/web/predict", content=content, headers=JSON)
    assert reply.status_code in (400, 422)
    problem(reply, reply.status_code, reply.json()["code"])
    answer = predict(http, "rent", rooms=1)
    content = json.dumps(thumbs(answer["prediction_id"], kind="correction"))
    content = content.replace('"value": false', f'"value": {number}')
    reply = http.post("/v1/feedback", content=content, headers=JSON)
    assert reply.status_code in (400, 422), reply.text
    problem(reply, reply.status_code, reply.json()["code"])


@pytest.mark.parametrize(
    ("features", "pointer"),
    [
        ({"a/b": None}, "/features"),
        ({"x": ["a"]}, "/features"),
        ({"x": []}, "/features"),
        ({"x": {"y": 1}}, "/features"),
        ([1], "/features"),
        ("x", "/features"),
    ],
)
def test_a_wrong_feature_is_pointed_at(http: httpx2.Client, features: Any, pointer: str) -> None:
    """A feature that is no scalar is refused with a pointer to its place."""
    reply = http.post("/v1/models/web/predict", json={"features": features})
    body = problem(reply, 422, "invalid_value")
    assert body["errors"][0]["pointer"] == pointer


def test_an_unknown_field_is_suggested(http: httpx2.Client) -> None:
    """A misspelt field is refused, and the right one is named."""
    reply = http.post("/v1/models/web/predict", json={"features": {}, "sesion_id": "a"})
    body = problem(reply, 422, "unknown_field")
    assert body["errors"][0]["pointer"] == ""
    assert "session_id" in body["detail"]
    answer = predict(http)
    reply = http.post("/v1/feedback", json=thumbs(answer["prediction_id"], coment="x"))
    assert "comment" in problem(reply, 422, "unknown_field")["detail"]
    reply = http.post("/v1/models/web/promote", json={"version": 1, "dryrun": True})
    problem(reply, 422, "unknown_field")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"nul", b'{"features": }'])
@pytest.mark.parametrize("path", ["models/web/predict", "feedback", "feedback_batch"])
def test_broken_json_is_malformed(http: httpx2.Client, path: str, content: bytes) -> None:
    """A body that is not JSON is a 400."""
    reply = http.post(f"/v1/{path}", content=content, headers=JSON)
    problem(reply, 400, "malformed")


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b'"x"'])
@pytest.mark.parametrize("path", ["models/web/predict", "feedback", "feedback_batch"])
def test_json_that_is_no_object_is_refused(http: httpx2.Client, path: str, content: bytes) -> None:
    """JSON that is not an object is the client's error, never a defect of the server."""
    reply = http.post(f"/v1/{path}", content=content, headers=JSON)
    assert reply.status_code in (400, 422), reply.text
    problem(reply, reply.status_code, reply.json()["code"])


def test_a_wrong_content_type_is_refused(http: httpx2.Client) -> None:
    """A body that is declared as something else is a 415; a charset beside JSON is fine."""
    content = json.dumps({"features": {}})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml"):
        reply = http.post("/v1/models/web/predict", content=content, headers={"content-type": kind})
        problem(reply, 415, "unsupported_media_type")
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    reply = http.post("/v1/models/web/predict", content=content, headers=headers)
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("path", ["models/web/predict", "feedback", "models/web/predict_batch"])
def test_a_body_that_is_too_long_is_refused(service: Any, path: str) -> None:
    """Ten megabytes are a 413, declared or sent in chunks."""
    whole = b'{"features": {"x": "' + b"a" * 10_000_000 + b'"}}'
    chunks = (whole[i : i + 65536] for i in range(0, len(whole), 65536))
    for content in (whole, chunks):
        with service.client() as http:
            reply = http.post(f"/v1/{path}", content=content, headers=JSON)
            problem(reply, 413, "too_large")


def test_the_operator_routes_bound_their_bodies_too(service: Any) -> None:
    """An operator's body is bounded like any other."""
    with service.client() as http:
        content = b'{"version": 1, "x": "' + b"a" * 10_000_000 + b'"}'
        reply = http.post("/v1/models/web/promote", content=content, headers=JSON)
        problem(reply, 413, "too_large")


@pytest.mark.parametrize("path", ["/v1/nope", "/v2/models", "/v1/models/web/nope", "/nope"])
def test_an_unknown_route_is_a_problem(http: httpx2.Client, path: str) -> None:
    """An unknown route is a 404 with a body like every other error."""
    problem(http.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/feedback"),
        ("GET", "/v1/models/web/predict"),
        ("DELETE", "/v1/models"),
        ("POST", "/v1/models/web/verdicts"),
        ("GET", "/v1/models/web/promote"),
        ("POST", "/livez"),
    ],
)
def test_a_wrong_method_is_a_problem(http: httpx2.Client, method: str, path: str) -> None:
    """A method that a route does not take is a 405 that names those that it does."""
    reply = http.request(method, path)
    problem(reply, 405, "method_not_allowed")
    assert reply.headers["allow"]


# --- feedback ---------------------------------------------------------------------------------


def test_a_forged_id_is_unknown(service: Any, http: httpx2.Client) -> None:
    """Forged, foreign, truncated and misused ids are 404, without a word on which it was."""
    good = predict(http)["prediction_id"]
    flipped = good[:20] + ("A" if good[20] != "A" else "B") + good[21:]
    foreign = Keyring({1: bytes(32)}).seal("prediction", "web", Address(1, 0, "00000000"))
    receipt = http.post("/v1/feedback", json=thumbs(good)).json()
    for wrong in (flipped, foreign, good[:-1], good + "A", "", "ä" * 50, receipt["feedback_id"]):
        reply = http.post("/v1/feedback", json=thumbs(wrong))
        problem(reply, 404, "unknown_prediction")
    other = Keyring.load(service.data_dir)
    gone = other.seal("prediction", "removed", Address(int(time.time() * 1000), 0, "00000000"))
    problem(http.post("/v1/feedback", json=thumbs(gone)), 404, "unknown_prediction")
    problem(http.get(f"/v1/feedback/{good}"), 404, "unknown_feedback")


def test_a_signed_id_without_a_record_is_unknown(service: Any, http: httpx2.Client) -> None:
    """An id that was signed here, in its window, whose record is gone, is said to be lost."""
    keyring = Keyring.load(service.data_dir)
    lost = keyring.seal("prediction", "web", Address(int(time.time() * 1000), 7, "0badcafe"))
    body = problem(http.post("/v1/feedback", json=thumbs(lost)), 404, "unknown_prediction")
    assert "lost" in body["detail"]


def test_a_late_signal_is_gone(service: Any, http: httpx2.Client) -> None:
    """A signal after the window is a 410, told apart from an unknown id."""
    old = Address(ms=int((time.time() - 90_000) * 1000), seq=0, nonce="00ff00ff")
    late = Keyring.load(service.data_dir).seal("prediction", "web", old)
    body = problem(http.post("/v1/feedback", json=thumbs(late)), 410, "feedback_window_closed")
    assert not body["retryable"]


@pytest.mark.parametrize(
    ("model", "value"),
    [
        ("web", "true"),
        ("web", 1),
        ("web", 1.0),
        ("web", None),
        ("topic", "sports"),
        ("topic", True),
        ("topic", 0),
        ("rent", "950"),
        ("rent", True),
        ("rent", [1]),
    ],
)
def test_a_wrong_label_is_refused(http: httpx2.Client, model: str, value: Any) -> None:
    """A correction has to be a label of the model, by type as well, or a number."""
    body = thumbs(predict(http, model, x=1.0)["prediction_id"], kind="correction", value=value)
    found = problem(http.post("/v1/feedback", json=body), 422, "invalid_value")
    assert found["errors"][0]["pointer"] == "/value"


@pytest.mark.parametrize("kind", ["thumb", "", "CORRECTION"])
def test_an_unknown_kind_is_refused(http: httpx2.Client, kind: str) -> None:
    """A kind that is not taken is refused, and those that are get named."""
    body = thumbs(predict(http)["prediction_id"], kind=kind)
    found = problem(http.post("/v1/feedback", json=body), 422, "kind_not_applicable")
    assert "correction" in found["detail"]


@pytest.mark.parametrize("kind", [3, None, ["thumbs"]])
def test_a_kind_that_is_no_string_is_refused(http: httpx2.Client, kind: Any) -> None:
    """A kind that is no string, or is missing, is pointed at."""
    body = thumbs(predict(http)["prediction_id"], kind=kind)
    found = problem(http.post("/v1/feedback", json=body), 422, "invalid_value")
    assert found["errors"][0]["pointer"] == "/kind"


def test_an_idempotency_key_counts_a_signal_once(http: httpx2.Client) -> None:
    """The same key with the same body is a duplicate with the same receipt; another body is not."""
    body = thumbs(predict(http)["prediction_id"])
    headers = {"idempotency-key": "once"}
    first = http.post("/v1/feedback", json=body, headers=headers).json()
    again = http.post("/v1/feedback", json=body, headers=headers).json()
    in_body = http.post("/v1/feedback", json={**body, "idempotency_key": "once"}).json()
    assert (first["status"], again["status"], in_body["status"]) == (
        "accepted",
        "duplicate",
        "duplicate",
    )
    assert first["feedback_id"] == again["feedback_id"] == in_body["feedback_id"]
    reply = http.post("/v1/feedback", json={**body, "value": True}, headers=headers)
    problem(reply, 422, "idempotency_key_reused")


def test_without_a_key_the_latest_signal_decides(http: httpx2.Client) -> None:
    """The same signal of the same source is a duplicate, another one supersedes it."""
    body = thumbs(predict(http)["prediction_id"], user_id="ada")
    first = http.post("/v1/feedback", json=body).json()
    again = http.post("/v1/feedback", json=body).json()
    changed = http.post("/v1/feedback", json={**body, "value": True}).json()
    statuses = [first["status"], again["status"], changed["status"]]
    assert statuses == ["accepted", "duplicate", "accepted"]
    found = http.get(f"/v1/feedback/{changed['feedback_id']}").json()
    assert found["supersedes"] is not None


def test_a_version_that_did_not_answer_is_refused(http: httpx2.Client) -> None:
    """`model_version` is checked against the record."""
    answer = predict(http)
    right = thumbs(answer["prediction_id"], model_version=answer["version"])
    assert http.post("/v1/feedback", json=right).status_code == 202
    wrong = thumbs(answer["prediction_id"], model_version=99)
    problem(http.post("/v1/feedback", json=wrong), 422, "version_mismatch")


def test_a_dry_run_accepts_nothing(http: httpx2.Client) -> None:
    """A dry run checks a signal and leaves no trace."""
    answer = predict(http)
    body = thumbs(answer["prediction_id"], dry_run=True)
    assert http.post("/v1/feedback", json=body).json()["feedback_id"] is None
    story = http.get(f"/v1/predictions/{answer['prediction_id']}").json()
    assert story["feedback"] == []


def test_an_empty_key_is_none(http: httpx2.Client) -> None:
    """A header without a value stands for no body: it does not tie signals together."""
    for _ in range(2):
        body = thumbs(predict(http)["prediction_id"])
        reply = http.post("/v1/feedback", json=body, headers={"idempotency-key": ""})
        assert reply.status_code == 202, reply.text


# --- batches ----------------------------------------------------------------------------------


def test_a_batch_of_predictions_succeeds_in_part(http: httpx2.Client) -> None:
    """Each instance is answered by itself, in order; errors stand in their places."""
    instances: list[Any] = [{"features": {"x": 1}}, {"features": {"x": None}}, 3, {"features": {}}]
    reply = http.post("/v1/models/web/predict_batch", json={"instances": instances})
    assert reply.status_code == 200
    first, second, third, fourth = reply.json()["predictions"]
    assert first["prediction_id"] != fourth["prediction_id"]
    assert second["code"] == third["code"] == "invalid_value"
    assert second["errors"][0]["pointer"] == "/1/features"


def test_a_batch_of_feedback_succeeds_in_part(http: httpx2.Client) -> None:
    """Each signal is accepted by itself; the counts add up."""
    one, two = (predict(http)["prediction_id"] for _ in range(2))
    items: list[Any] = [
        thumbs(one, idempotency_key="batch"),
        thumbs("forged"),
        thumbs(two, value="yes"),
        thumbs(one, idempotency_key="batch"),
        None,
        {},
    ]
    reply = http.post("/v1/feedback_batch", json={"items": items})
    assert reply.status_code == 202
    body = reply.json()
    assert (body["accepted"], body["duplicates"], body["rejected"]) == (1, 1, 4)
    codes = [result.get("code") for result in body["results"]]
    assert codes[:4] == [None, "unknown_prediction", "invalid_value", None]
    assert body["results"][2]["errors"][0]["pointer"] == "/2/value"
    assert body["results"][0]["feedback_id"] == body["results"][3]["feedback_id"]


@pytest.mark.parametrize("count", [0, 1025])
def test_a_batch_is_bounded(http: httpx2.Client, count: int) -> None:
    """An empty batch and one that is too long are refused."""
    reply = http.post("/v1/models/web/predict_batch", json={"instances": [{}] * count})
    problem(reply, 422, "invalid_value")


# --- the rest ---------------------------------------------------------------------------------


def test_the_document_covers_every_route(service: Any) -> None:
    """One OpenAPI document lists all routes; it needs no key, and its references resolve."""
    document = httpx2.get(f"{service.url}/openapi.json").json()
    listed = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    wanted = {
        (
            method,
            path.replace("/web", "/{model}")
            .replace("predictions/x", "predictions/{prediction_id}")
            .replace("feedback/x", "feedback/{feedback_id}"),
        )
        for method, path in ROUTES
    }
    assert wanted | {("GET", "/livez"), ("GET", "/readyz")} <= listed
    for reference in _references(document):
        _, _, kind, name = reference.split("/")
        assert name in document["components"][kind]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def test_a_request_id_is_given_back(http: httpx2.Client) -> None:
    """The caller's own id stands in the problem where it is one: anything else may be a secret."""
    reply = http.get("/v1/models/nope", headers={"x-request-id": "hunter2"})
    assert problem(reply, 404, "unknown_model")["request_id"] != "hunter2"
    reply = http.get(
        "/v1/models/nope", headers={"x-request-id": "4bf92f3577b34da6a3ce929d0e0e4736"}
    )
    assert problem(reply, 404, "unknown_model")["request_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


async def test_models_are_added_and_changed_while_it_serves(
    service: Any, http: httpx2.Client, eventually: Callable[..., Awaitable[None]]
) -> None:
    """A model that is added is served soon; one that is changed answers all the while."""

    def answers(model: str) -> bool:
        return http.post(f"/v1/models/{model}/predict", json={"features": {}}).status_code == 200

    spec, keyring = service.settings.model("web"), Keyring.load(service.data_dir)
    changed = spec.model_copy(update={"audit": 0.5})
    async with await open_store(service.server.url) as store:
        await config.publish_model(store, keyring, "added", spec)
        await config.publish_model(store, keyring, "web", changed)
        await Stages(store, keyring, "added", spec).trainer.turn()

    def added() -> bool:
        assert answers("web")
        return answers("added")

    await eventually(added)


@pytest.mark.parametrize(
    "change",
    [
        {"learner": {"use": "torch:dense"}},  # the stored weights are of another family
        {"rules": [{"rule": "nowhere.to.be:found"}]},
    ],
)
async def test_a_change_that_cannot_be_served_stops_nobody(
    start_service: Any, eventually: Callable[..., Awaitable[None]], change: dict[str, Any]
) -> None:
    """The model goes on as it was configured before, and changes after that are taken up."""
    service = await asyncio.to_thread(start_service, web={})
    spec, keyring = service.settings.model("web"), Keyring.load(service.data_dir)
    wrong = ModelSpec.model_validate(spec.model_dump() | change)
    with service.client() as http:
        async with await open_store(service.server.url) as store:
            await config.publish_model(store, keyring, "web", wrong)
            await config.publish_model(store, keyring, "added", spec)
            await Stages(store, keyring, "added", spec).trainer.turn()

        def added() -> bool:
            assert predict(http)["version"] == 0
            reply = http.post("/v1/models/added/predict", json={"features": {}})
            return bool(reply.status_code == 200)

        await eventually(added)
        prediction_id = predict(http)["prediction_id"]
        body = {"prediction_id": prediction_id, "kind": "thumbs", "value": True}
        assert http.post("/v1/feedback", json=body).status_code == 202


def test_many_clients_at_once(service: Any) -> None:
    """Concurrent predictions share round trips, and each has an id of its own."""
    with service.client() as http, ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(lambda i: predict(http, x=i)["prediction_id"], range(200)))
    assert len(set(ids)) == 200


# --- the store goes away ----------------------------------------------------------------------


def _refused_in_time(http: httpx2.Client, path: str, body: Any) -> None:
    started = time.monotonic()
    reply = http.post(path, json=body)
    assert time.monotonic() - started < 2.0
    found = problem(reply, 503, "store_unavailable")
    assert found["retryable"]
    assert int(reply.headers["retry-after"]) >= 1


def _recovers(http: httpx2.Client, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    body = {"features": FEATURES}
    while http.post("/v1/models/web/predict", json=body).status_code != 200:
        assert time.monotonic() < deadline, "it did not recover"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "paused"])
def test_a_store_that_is_away_is_a_503(
    start_service: Callable[..., Any], number: signal.Signals
) -> None:
    """Nothing is acknowledged while the store is away; once it is back, all goes on by itself."""
    service = start_service(web={})
    process = service.server.process
    with service.client() as http:
        before = predict(http)["prediction_id"]
        os.kill(process.pid, number)
        try:
            if number == signal.SIGKILL:
                process.wait()
            for _ in range(2 if number == signal.SIGKILL else 1):
                _refused_in_time(http, "/v1/models/web/predict", {"features": FEATURES})
                _refused_in_time(http, "/v1/feedback", thumbs(before))
                items = [thumbs(before), thumbs(before)]
                _refused_in_time(http, "/v1/feedback_batch", {"items": items})
            assert http.get("/livez").status_code == 200
            assert http.get("/readyz").status_code == 503
        finally:
            restarted = _bring_back(service.data_dir, process, number)
        try:
            _recovers(http)
            reply = http.post("/v1/feedback", json=thumbs(before))
            assert reply.status_code == 202
        finally:
            if restarted is not None:
                restarted.stop()


def _bring_back(data_dir: Path, process: Any, number: signal.Signals) -> EmbeddedServer | None:
    if number == signal.SIGSTOP:
        os.kill(process.pid, signal.SIGCONT)
        return None
    return EmbeddedServer.ensure(data_dir)


def test_answers_go_on_unlogged_where_that_is_wanted(start_service: Callable[..., Any]) -> None:
    """With `answer_unlogged`, a store that is away costs the id and not the answer."""
    service = start_service(web={}, on_store_down="answer_unlogged")
    with service.client() as http:
        predict(http)
        service.server.process.kill()
        service.server.process.wait()
        answer = predict(http)
    assert answer["prediction_id"] is None
    assert answer["feedback_expires_at"] is None
    assert answer["output"] in (False, True)


def test_a_client_that_hangs_up_does_no_harm(service: Any, http: httpx2.Client) -> None:
    """A client that leaves in the middle of its body does not disturb the others."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as client:
        head = f"host: x\r\nauthorization: Bearer {service.key}\r\ncontent-length: 100"
        client.sendall(f"POST /v1/models/web/predict HTTP/1.1\r\n{head}\r\n\r\n{{".encode())
    assert predict(http)["prediction_id"]
