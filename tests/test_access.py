"""Who gets in, on the real application: every route, the console's session, other origins."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from starlette.routing import Route
from the_service import bearer, problem

from benchmarks.hostile import access as hostile
from online_learner import auth, config
from online_learner.errors import ConfigError, Unauthorized
from online_learner.ids import Keyring
from online_learner.settings import CorsSpec, Settings
from online_learner.store import open_store
from serve_app import access, session
from serve_app.access import declared
from serve_app.gateway import create_app
from serve_app.session import COOKIE, LASTS_S, TOKEN_HEADER, Session

HOUR_S = 3600

# What the contract says. A route that is added is added here, or the test fails.
CONTRACT = {
    ("POST", "/v1/models/{model}/predict"): "predict",
    ("POST", "/v1/models/{model}/predict_batch"): "predict",
    ("POST", "/v1/models/{model}/log"): "predict",
    ("POST", "/v1/models/{model}/log_batch"): "predict",
    ("POST", "/v1/models/{model}/score"): "predict",
    ("POST", "/v1/feedback"): "feedback",
    ("POST", "/v1/feedback_batch"): "feedback",
    ("GET", "/v1/feedback/{feedback_id}"): "read",
    ("DELETE", "/v1/feedback/{feedback_id}"): "feedback",
    ("GET", "/v1/predictions/{prediction_id}"): "read",
    ("GET", "/v1/models"): "read",
    ("GET", "/v1/models/{model}"): "read",
    ("GET", "/v1/models/{model}/versions"): "read",
    ("POST", "/v1/models/{model}/versions"): "operate",
    ("GET", "/v1/models/{model}/verdicts"): "read",
    ("GET", "/v1/models/{model}/evidence"): "read",
    ("GET", "/v1/models/{model}/feedback"): "read",
    ("GET", "/v1/models/{model}/metrics"): "read",
    ("GET", "/v1/models/{model}/bias"): "read",
    ("GET", "/v1/models/{model}/alarms"): "read",
    ("GET", "/v1/models/{model}/quarantine"): "read",
    ("GET", "/v1/models/{model}/queue"): "audit",
    ("POST", "/v1/models/{model}/queue/lease"): "label",
    ("POST", "/v1/models/{model}/queue/skip"): "label",
    ("POST", "/v1/models/{model}/gold"): "operate",
    ("POST", "/v1/models/{model}/promote"): "operate",
    ("POST", "/v1/models/{model}/rollback"): "operate",
    ("POST", "/v1/models/{model}/freeze"): "operate",
    ("POST", "/v1/models/{model}/thaw"): "operate",
    ("POST", "/v1/models/{model}/quarantine/release"): "operate",
    ("POST", "/v1/models/{model}/quarantine/{feedback_id}/release"): "operate",
    ("GET", "/v1/stream"): "read",
    ("GET", "/v1/models/{model}/versions/{first}/diff/{second}"): "read",
    ("GET", "/console/{model}/{panels}"): "read",
    ("GET", "/console/{model}/answers/{prediction_id}"): "read",
    ("GET", "/console/{model}/diff/{first}/{second}"): "read",
    ("GET", "/"): "nothing",
    ("GET", "/static/{name}"): "nothing",
    ("POST", "/login"): "nothing",
    ("POST", "/logout"): "nothing",
    ("POST", "/v1/session"): "key",
    ("GET", "/v1/session"): "any",
    ("DELETE", "/v1/session"): "any",
    ("GET", "/livez"): "nothing",
    ("GET", "/readyz"): "nothing",
    ("GET", "/openapi.json"): "nothing",
    ("GET", "/docs"): "nothing",
    ("GET", "/docs/{part}"): "nothing",
    ("GET", "/widget.js"): "nothing",
}


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service."""
    return start_service(web={})


async def new_key(service: Any, name: str, **options: Any) -> tuple[str, auth.Credential]:
    """Let in a fresh key, and wait until the service knows it."""
    key = auth.new_key()
    async with await open_store(service.server.url) as store:
        made = await auth.allow(store, key, name=name, **options)
    deadline = time.monotonic() + 5
    with service.client(key) as http:
        while http.get("/v1/session").status_code != 200:
            assert time.monotonic() < deadline
    return key, made


# --- every route ------------------------------------------------------------------------------


def test_every_route_says_what_it_needs(service: Any) -> None:
    """The application declares what the contract says, for every route of its document."""
    found = declared(create_app(service.server.url, str(service.data_dir)).routes)
    assert found == CONTRACT
    document = httpx2.get(f"{service.url}/openapi.json").json()
    described = {(method.upper(), path) for path, on in document["paths"].items() for method in on}
    assert described == set(found)


def test_a_route_that_does_not_say_is_an_error() -> None:
    """A handler without a declared need is found, and lets nobody in."""

    async def handler(request: Any) -> None:
        access.admitted(request)

    with pytest.raises(LookupError, match="/v1/new does not say"):
        declared([Route("/v1/new", handler)])
    request = httpx2.Request("GET", "http://x/v1/new")
    scope = {"type": "http", "endpoint": handler, "headers": [], "method": request.method}
    with pytest.raises(AttributeError):
        asyncio.run(handler(access.Request(scope)))


async def test_everyone_is_let_in_where_declared_and_nowhere_else(
    service: Any, eventually: Callable[..., Awaitable[None]]
) -> None:
    """Every route, asked with every kind of key and cookie, good and bad: all as declared."""
    async with await open_store(service.server.url) as store:
        everyone = await hostile.callers(store, Keyring.load(service.data_dir))
    with service.client(key=None) as http:
        [known] = [caller for caller in everyone if caller.title == "cookie and token"]
        path = "/v1/session"
        await eventually(lambda: hostile.ask(http, "GET", path, known).status_code == 200)
    _, wrong = await asyncio.to_thread(hostile.table, service.url, CONTRACT, everyone)
    assert wrong == []


async def test_a_revoked_key_is_out_within_a_second(service: Any) -> None:
    """A revoked key is refused within a second, even while in use."""
    async with await open_store(service.server.url) as store:
        felt = await hostile.revocations(store, [service.url], 3)
    assert max(felt) <= 1.0


def test_what_decides_reads_no_setting() -> None:
    """Neither the configuration nor the environment can leave the keys out."""
    for module in (access, session, inspect.getmodule(auth.Keychain)):
        assert module is not None
        source = inspect.getsource(module)
        assert "environ" not in source
        assert "settings" not in source


def test_keys_are_asked_for_whatever_is_configured(
    start_service: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that opens something switched on, only a public word on an answer needs no key."""
    for name in ("OL_AUTH", "OL_NO_AUTH", "OL_AUTH_DISABLED", "OL_INSECURE", "OL_DEBUG"):
        monkeypatch.setenv(name, "off" if name == "OL_AUTH" else "1")
    monkeypatch.setenv("OL_CORS", '{"origins": ["*"]}')
    service = start_service(web={"public_feedback": True}, profile="plain")
    with service.client(key=None) as http:
        for (method, path), need in CONTRACT.items():
            reply = hostile.ask(http, method, path, hostile.Caller("no key"))
            if need != "nothing" and path != "/v1/feedback":
                problem(reply, 401, "unauthorized")


def test_the_methods_of_a_path_are_all_named(bare: httpx2.Client) -> None:
    """A method that is not taken is told those that are."""
    reply = bare.put("/v1/session")
    problem(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "DELETE, GET, POST"


# --- rotation ---------------------------------------------------------------------------------


async def test_what_is_sent_again_with_the_next_key_is_a_duplicate(service: Any) -> None:
    """A retry after a rotation is the same holder's, and counts once."""
    async with await open_store(service.server.url) as store:
        old, was = await auth.create(store, name="shop", scopes=("predict", "feedback"))
        new, _ = await auth.rotate(store, was.id, grace_s=60)
    told = []
    with service.client(key=None) as http:
        deadline = time.monotonic() + 5
        while http.get("/v1/session", headers=bearer(new)).status_code != 200:
            assert time.monotonic() < deadline
        body = {"features": {"x": 1.0}}
        answer = http.post("/v1/models/web/predict", json=body, headers=bearer(old)).json()
        said = {"prediction_id": answer["prediction_id"], "kind": "thumbs", "value": True}
        for key in (old, new):
            headers = bearer(key) | {"idempotency-key": "once"}
            told.append(http.post("/v1/feedback", json=said, headers=headers).json())
    assert [one["status"] for one in told] == ["accepted", "duplicate"]
    assert told[0]["feedback_id"] == told[1]["feedback_id"]


# --- the session ------------------------------------------------------------------------------


def test_a_key_becomes_a_cookie(service: Any, bare: httpx2.Client) -> None:
    """The page gets what it may do and a token; no script gets the cookie, and none the key."""
    reply = bare.post("/v1/session", headers=bearer(service.key))
    told = reply.json()
    assert set(told) == {"name", "key_id", "scopes", "expires_at", "csrf_token"}
    assert (told["name"], told["scopes"]) == ("tester", sorted(auth.OWN))
    value, *flags = reply.headers["set-cookie"].split("; ")
    assert value.startswith(f"{COOKIE}=")
    assert set(flags) == {"HttpOnly", "SameSite=strict", "Path=/", f"Max-Age={LASTS_S}"}
    assert service.key not in str(reply.headers) + reply.text
    assert reply.headers["cache-control"] == "no-store"
    again = bare.get("/v1/session").json()
    assert again == told


@pytest.mark.parametrize(
    ("forwarded", "secure"), [("https", True), ("HTTPS, http", True), ("http", False), ("", False)]
)
def test_behind_tls_the_cookie_stays_there(
    service: Any, bare: httpx2.Client, forwarded: str, secure: bool
) -> None:
    """`Secure` is set where the browser came by https, by what the proxy in front says."""
    headers = bearer(service.key) | ({"x-forwarded-proto": forwarded} if forwarded else {})
    reply = bare.post("/v1/session", headers=headers)
    assert ("Secure" in reply.headers["set-cookie"].split("; ")) == secure


def test_writing_by_cookie_takes_the_token(service: Any, bare: httpx2.Client) -> None:
    """Reads need the cookie alone; what changes something needs the token as well, hot or not."""
    token = bare.post("/v1/session", headers=bearer(service.key)).json()["csrf_token"]
    assert bare.get("/v1/models").status_code == 200
    for path, body in (
        ("/v1/models/web/predict", {"features": {}}),
        ("/v1/models/web/freeze", {"dry_run": True}),
    ):
        for wrong in ({}, {TOKEN_HEADER: ""}, {TOKEN_HEADER: "zz"}, {TOKEN_HEADER: "00" * 32}):
            detail = problem(bare.post(path, json=body, headers=wrong), 403, "csrf")["detail"]
            assert TOKEN_HEADER in detail
        assert bare.post(path, json=body, headers={TOKEN_HEADER: token}).status_code == 200


async def test_a_token_is_of_one_session(service: Any, bare: httpx2.Client) -> None:
    """The token of another session, of the same key even, is none."""
    other = bare.post("/v1/session", headers=bearer(service.key)).json()["csrf_token"]
    mine = bare.post("/v1/session", headers=bearer(service.key)).json()["csrf_token"]
    assert mine != other
    problem(bare.delete("/v1/session", headers={TOKEN_HEADER: other}), 403, "csrf")


def test_a_header_wins_over_a_cookie(service: Any, bare: httpx2.Client) -> None:
    """With both, the key decides: good without a token, bad in spite of the cookie."""
    bare.post("/v1/session", headers=bearer(service.key))
    freeze = {"dry_run": True}
    path = "/v1/models/web/freeze"
    assert bare.post(path, json=freeze, headers=bearer(service.key)).status_code == 200
    problem(bare.post(path, json=freeze, headers=bearer("ol_bad")), 401, "unauthorized")
    assert bare.get("/v1/session", headers=bearer(service.key)).json()["csrf_token"] is None


def test_a_session_is_ended(service: Any, bare: httpx2.Client) -> None:
    """The cookie is taken back, and after that nobody is there."""
    token = bare.post("/v1/session", headers=bearer(service.key)).json()["csrf_token"]
    reply = bare.delete("/v1/session", headers={TOKEN_HEADER: token})
    assert reply.status_code == 204
    assert "Max-Age=0" in reply.headers["set-cookie"]
    assert bare.cookies.get(COOKIE) is None
    problem(bare.get("/v1/session"), 401, "unauthorized")


async def test_a_session_ends_with_its_key(
    service: Any, bare: httpx2.Client, eventually: Callable[..., Awaitable[None]]
) -> None:
    """It has the key's scopes and no longer life than the key; revoked, it is over at once."""
    ends_at = time.time() + HOUR_S
    key, made = await new_key(service, "reader", scopes=("read",), expires_at=ends_at)
    reply = bare.post("/v1/session", headers=bearer(key))
    assert f"Max-Age={HOUR_S}" in reply.headers["set-cookie"].replace(str(HOUR_S - 1), str(HOUR_S))
    token = {TOKEN_HEADER: reply.json()["csrf_token"]}
    assert bare.get("/v1/models").status_code == 200
    problem(bare.post("/v1/models/web/freeze", headers=token), 403, "forbidden")
    async with await open_store(service.server.url) as store:
        await auth.revoke(store, made.id)
    await eventually(lambda: bare.get("/v1/models").status_code == 401, within_s=1.0)


def test_a_session_is_no_longer_than_a_day_at_work(keyring: Keyring) -> None:
    """A session lasts eight hours, to the second; one changed or sealed by others is none."""
    begun = Session.begin(auth.Credential("ab" * 32, "x", frozenset()), now=1e9)
    sealed = begun.seal(keyring)
    assert Session.unseal(keyring, sealed, now=1e9 + LASTS_S - 1) == begun
    for now, text in (
        (1e9 + LASTS_S, sealed),
        (1e9, sealed[:-1]),
        (1e9, ("B" if sealed[0] != "B" else "C") + sealed[1:]),
        (1e9, begun.seal(Keyring({1: b"x" * 32}))),
        (1e9, ""),
        (1e9, "no base64!"),
    ):
        with pytest.raises(Unauthorized, match="has ended"):
            Session.unseal(keyring, text, now=now)


def test_a_session_outlives_a_new_signing_key(keyring: Keyring) -> None:
    """While the old signing key is live, cookies and tokens made with it are good."""
    begun = Session.begin(auth.Credential("ab" * 32, "x", frozenset()), now=1e9)
    rotated = Keyring({1: bytes(range(32)), 2: b"x" * 32})
    found = Session.unseal(rotated, begun.seal(keyring), now=1e9)
    assert found.has_token(rotated, begun.token(keyring))
    assert not found.has_token(rotated, begun.seal(keyring))


# --- other origins ----------------------------------------------------------------------------

PAGE = {"origin": "https://shop.example.org"}
ASKS = {"access-control-request-method": "POST"}


def allowed(reply: httpx2.Response) -> dict[str, str]:
    """Return the headers that a browser goes by."""
    return {k: v for k, v in reply.headers.items() if k.startswith("access-control-")}


def test_no_page_elsewhere_may_call_by_default(service: Any, bare: httpx2.Client) -> None:
    """Without a configuration, a browser is told nothing, and keeps the answer to itself."""
    assert allowed(bare.get("/v1/models", headers=bearer(service.key) | PAGE)) == {}
    asked = bare.options("/v1/models/web/predict", headers=PAGE | ASKS)
    problem(asked, 405, "method_not_allowed")
    assert allowed(asked) == {}


async def test_origins_are_taken_up_from_the_configuration(
    service: Any, eventually: Callable[..., Awaitable[None]]
) -> None:
    """Named origins may call with a key, others may not; nothing is restarted."""
    with service.client(key=None) as http:
        path, sends = "/v1/models/web/predict", {"access-control-request-headers": "authorization"}

        async def publish(*origins: str) -> None:
            settings: Settings = service.settings
            changed = settings.model_copy(update={"cors": CorsSpec(origins=list(origins))})
            async with await open_store(service.server.url) as store:
                await config.publish_settings(store, Keyring.load(service.data_dir), changed)

        def asked(**headers: str) -> httpx2.Response:
            return http.options(path, headers=PAGE | ASKS | headers)

        await publish(PAGE["origin"])
        await eventually(lambda: asked().status_code == 200)
        told = allowed(asked(**sends))
        assert told["access-control-allow-origin"] == PAGE["origin"]
        assert "access-control-allow-credentials" not in told
        sent = told["access-control-allow-headers"].lower().split(", ")
        assert {"authorization", "content-type", "idempotency-key"} <= set(sent)
        assert TOKEN_HEADER not in sent
        for headers in (
            {"origin": "https://evil.example.org"},
            {"access-control-request-headers": TOKEN_HEADER},
            {"access-control-request-method": "PUT"},
        ):
            problem(asked(**headers), 403, "forbidden")
        reply = http.post(path, json={"features": {}}, headers=bearer(service.key) | PAGE)
        assert reply.status_code == 200
        assert allowed(reply)["access-control-allow-origin"] == PAGE["origin"]
        seen = allowed(reply)["access-control-expose-headers"]
        assert seen == "retry-after, ratelimit, ratelimit-policy, x-request-id"
        refused = http.get("/v1/models", headers=PAGE)
        problem(refused, 401, "unauthorized")
        assert allowed(refused)["access-control-allow-origin"] == PAGE["origin"]
        evil = http.get("/v1/models", headers={"origin": "https://evil.example.org"})
        assert "access-control-allow-origin" not in allowed(evil)
        await publish()
        await eventually(lambda: asked().status_code == 405)


@pytest.mark.parametrize("origin", ["https://x.org/", "x.org", "https://*.x.org", "null", ""])
def test_what_is_no_origin_is_refused(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    """An entry that no browser would ever send is a mistake, and not kept quiet about."""
    monkeypatch.setenv("OL_CORS", json.dumps({"origins": ["https://x.org:8443", origin]}))
    with pytest.raises(ConfigError, match=r"cors\.origins\.1"):
        make_settings()
