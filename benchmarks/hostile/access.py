"""Every route, asked by everyone: who gets in is as declared, and who is thrown out is out at once.

The routes and what each needs are taken from the application itself. Every caller asks every route,
with an empty body; let in is whoever gets neither 401 nor 403. Revocation is timed from the store's
word that it took place until no replica lets the key in.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import numpy as np

from benchmarks import report
from benchmarks.report import Bar
from benchmarks.stack import free_port
from online_learner import auth, config
from online_learner.ids import Keyring
from online_learner.loop import Loop
from online_learner.settings import Settings
from online_learner.store import Store, open_store
from online_learner.store.embedded import EmbeddedServer
from serve_app.access import Need, declared
from serve_app.gateway import create_app
from serve_app.session import COOKIE, TOKEN_HEADER, Session

Routes = Mapping[tuple[str, str], Need]

REVOCATIONS = 50
REPLICAS = 2
IN, UNKNOWN, REFUSED = "in", 401, 403
_SAFE = ("GET", "HEAD", "OPTIONS")
_PARTS = {"{model}": "web", "{prediction_id}": "x" * 50, "{feedback_id}": "x" * 50}
_QUERIES = {"/v1/models/{model}/queue": {"lane": "audit"}}
_WEB = {
    "task": "classification",
    "labels": [False, True],
    "learner": "river.linear_model:LogisticRegression",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Someone who asks, and what is to come of it.

    Parameters
    ----------
    scopes
        Of a key that is good; None where there is none.
    cookie, token
        The key is behind a session, and its token stands beside the cookie.
    """

    title: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    scopes: tuple[auth.Scope, ...] | None = None
    cookie: bool = False
    token: bool = False

    def fate(self, method: str, need: Need) -> int | str:
        """Return what is declared: 401, 403, or `in`."""
        if need == "nothing":
            return IN
        if self.scopes is None or (self.cookie and need == "key"):
            return UNKNOWN
        if self.cookie and not self.token and method not in _SAFE:
            return REFUSED
        return IN if need in (*self.scopes, "any", "key") else REFUSED


async def callers(store: Store, keyring: Keyring) -> list[Caller]:
    """Make one key of each kind, and return those who hold them."""

    async def key_of(name: str, *scopes: auth.Scope, **options: float) -> str:
        key = auth.new_key()
        await auth.allow(store, key, name=name, scopes=scopes or auth.SCOPES, **options)
        return key

    async def revoked(name: str) -> tuple[str, auth.Credential]:
        key = auth.new_key()
        credential = await auth.allow(store, key, name=name, scopes=auth.SCOPES)
        await auth.revoke(store, credential.id)
        return key, credential

    key, gone = await revoked("revoked")
    everyone = [
        Caller("no key"),
        Caller("malformed", {"authorization": f"Basic {auth.new_key()}"}),
        Caller("mistyped", _bearer(_mistyped())),
        Caller("unknown", _bearer(auth.new_key())),
        Caller("expired", _bearer(await key_of("expired", expires_at=time.time() - 1))),
        Caller("revoked", _bearer(key)),
    ]
    everyone += [
        Caller(scope, _bearer(await key_of(scope, scope)), scopes=(scope,)) for scope in auth.SCOPES
    ]
    holder = await auth.allow(store, auth.new_key(), name="console", scopes=auth.SCOPES)
    session, over = (Session.begin(of, now=time.time()) for of in (holder, gone))
    cookie, token = _cookie(session.seal(keyring)), {TOKEN_HEADER: session.token(keyring)}
    wrong = {TOKEN_HEADER: over.token(keyring)}
    dead = _cookie(over.seal(keyring)) | wrong
    foreign = Keyring({1: b"somebody else's!"})
    forged = _cookie(session.seal(foreign)) | {TOKEN_HEADER: session.token(foreign)}
    return [
        *everyone,
        Caller("cookie alone", cookie, auth.SCOPES, cookie=True),
        Caller("cookie, wrong token", cookie | wrong, auth.SCOPES, cookie=True),
        Caller("cookie and token", cookie | token, auth.SCOPES, cookie=True, token=True),
        Caller("forged cookie", forged),
        Caller("cookie, key revoked", dead),
        # A header wins over a cookie, and a bad one is not made good by it.
        Caller("bad key, good cookie", cookie | token | _bearer(auth.new_key())),
    ]


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def _cookie(text: str) -> dict[str, str]:
    return {"cookie": f"{COOKIE}={text}"}


def _mistyped() -> str:
    key = auth.new_key()
    return key[:10] + ("a" if key[10] != "a" else "b") + key[11:]


# --- the table --------------------------------------------------------------------------------


def ask(http: httpx2.Client, method: str, path: str, caller: Caller) -> httpx2.Response:
    """Ask a route once, with an empty body."""
    url = path
    for part, value in _PARTS.items():
        url = url.replace(part, value)
    content = None if method in _SAFE else b"{}"
    headers = {"content-type": "application/json", **caller.headers}
    return http.request(method, url, params=_QUERIES.get(path), content=content, headers=headers)


def is_as_declared(reply: httpx2.Response, caller: Caller, fate: int | str) -> bool:
    """Tell whether a reply is what was declared, and repeats nothing of what was sent."""
    if fate == IN:
        return reply.status_code not in (UNKNOWN, REFUSED, 500)
    secrets = [re.split("[ =]", text)[-1] for text in caller.headers.values()]
    return (
        reply.status_code == fate
        and reply.headers["content-type"] == "application/problem+json"
        and not any(secret in reply.text for secret in secrets)
        and (fate == REFUSED or reply.headers["www-authenticate"] == "Bearer")
    )


def table(url: str, routes: Routes, everyone: list[Caller]) -> tuple[str, list[str]]:
    """Ask every route as everyone; returns the table of statuses, and what is not as declared."""
    rows, wrong = [], []
    with httpx2.Client(base_url=url, timeout=10.0) as http:
        for (method, path), need in routes.items():
            cells = []
            for caller in everyone:
                reply = ask(http, method, path, caller)
                http.cookies.clear()  # each caller brings its own
                good = is_as_declared(reply, caller, caller.fate(method, need))
                cells.append(f"{reply.status_code}{'' if good else ' !'}")
                if not good:
                    wrong.append(f"{method} {path} as {caller.title}: {reply.status_code}")
            rows.append([f"{method} {path}", need, *cells])
    head = ["route", "needs", *(caller.title for caller in everyone)]
    return report.table(head, rows), wrong


# --- revocation -------------------------------------------------------------------------------


async def revocations(store: Store, urls: list[str], count: int) -> list[float]:
    """Return how many seconds each of several revocations took to be felt by every replica."""
    rng = random.Random(5)
    made = [auth.new_key() for _ in range(count)]
    ids = [(await auth.allow(store, key, name=f"k{i}")).id for i, key in enumerate(made)]
    found = []
    with contextlib.ExitStack() as opened:
        doors = [opened.enter_context(httpx2.Client(base_url=url)) for url in urls]
        while not all(_lets_in(door, made[-1]) for door in doors):
            await asyncio.sleep(0.05)
        for key, key_id in zip(made, ids, strict=True):
            await asyncio.sleep(rng.uniform(0.0, 0.5))  # so that it falls anywhere between polls
            if not all(_lets_in(door, key) for door in doors):
                raise RuntimeError("a key is not let in before it was revoked")
            await auth.revoke(store, key_id)
            found.append(_until_out(doors, key))
    return found


def _until_out(doors: list[httpx2.Client], key: str) -> float:
    started = time.perf_counter()
    while sum(_lets_in(door, key) for door in doors):  # each is asked, every time
        if time.perf_counter() - started > 30:
            return float("inf")
    return time.perf_counter() - started


def _lets_in(door: httpx2.Client, key: str) -> bool:
    reply = door.get("/v1/session", headers=_bearer(key))
    return reply.status_code == 200


# --- the section ------------------------------------------------------------------------------


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return the table of who gets in, and how long a revoked key still does."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        server = EmbeddedServer.ensure(Path(folder))
        try:
            return asyncio.run(_measured(server.url, Path(folder), REVOCATIONS))
        finally:
            server.stop()


async def _measured(store_url: str, folder: Path, count: int) -> tuple[str, list[Bar]]:
    settings = Settings(store=store_url, data_dir=folder, models={"web": _WEB})
    async with await open_store(store_url) as store:
        await config.publish(store, Keyring.load(folder), settings)
        async with await Loop.open(settings):  # founds the model
            pass
        everyone = await callers(store, Keyring.load(folder))
        routes = declared(create_app(store_url, str(folder)).routes)
        with contextlib.ExitStack() as running:
            urls = [running.enter_context(replica(store_url, folder)) for _ in range(REPLICAS)]
            await asyncio.to_thread(_until_known, urls[0], everyone)
            text, wrong = await asyncio.to_thread(table, urls[0], routes, everyone)
            felt = await revocations(store, urls, count)
    return _page(text, wrong, routes, everyone, felt)


def _until_known(url: str, everyone: list[Caller]) -> None:
    [known] = [caller for caller in everyone if caller.title == "cookie and token"]
    with httpx2.Client(base_url=url) as http:
        while ask(http, "GET", "/v1/session", known).status_code != 200:
            time.sleep(0.05)


@contextlib.contextmanager
def replica(store_url: str, folder: Path) -> Iterator[str]:
    """Run the application under uvicorn, in a process of its own; yields where it is."""
    port = free_port()
    code = (
        "import sys, uvicorn; from serve_app.gateway import create_app; "
        f"uvicorn.run(create_app(*sys.argv[1:3]), port={port}, log_level='critical')"
    )
    process = subprocess.Popen([sys.executable, "-c", code, store_url, str(folder)])
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/livez", timeout=2):
                break
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _page(
    text: str, wrong: list[str], routes: Routes, everyone: list[Caller], felt: list[float]
) -> tuple[str, list[Bar]]:
    cells = len(routes) * len(everyone)
    p50, worst = float(np.median(felt)), max(felt)
    said = (
        f"{len(routes)} routes, {len(everyone)} callers, {cells} cells. 401 and 403: kept out. Any "
        "other status: let in, with an empty body. (No learner runs: 503 is of /readyz.)\n\n"
        f"{text}\n\n{len(felt)} keys revoked, {REPLICAS} replicas asked until none of them lets "
        f"the key in: p50 {1000 * p50:.0f} ms, at most {1000 * worst:.0f} ms."
    )
    if wrong:
        said += "\n\nNot as declared: " + "; ".join(wrong)
    return said, [
        Bar("who gets in: cells that are not as declared", len(wrong), 0, at_most=True),
        Bar("a revoked key is out everywhere, at most", worst, 1.0, " s", at_most=True),
    ]
