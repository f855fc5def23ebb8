"""What all tests share: one real server for the session, and a loop on it with a clock to turn.

`server`, `data_dir` and `start_server` live for the session; `store`, `keyring`, `clock`,
`make_settings`, `open_loop` and `loop` for one test. Whoever asks for `store`, `open_loop` or
`loop` finds the server empty. `start_service` runs the HTTP application for the tests of one file;
`http` and `bare` are clients of the `service` that a file makes with it.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import hypothesis
import pytest
import pytest_asyncio
from the_cluster import Cluster
from the_cluster import running as run_cluster
from the_service import Service, unused_port
from the_stack import Stack
from the_stack import start as start_stack
from the_stack import stop as stop_stack

from online_learner import store as store_module
from online_learner.ids import Keyring
from online_learner.loop import Loop
from online_learner.settings import Settings
from online_learner.store import Store, embedded, open_store
from online_learner.store.embedded import EmbeddedServer

hypothesis.settings.register_profile(
    "house", deadline=None, database=None, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("house")

WEB = {
    "task": "classification",
    "labels": [False, True],
    "learner": "river.linear_model:LogisticRegression",
}
TOPIC = {
    "task": "classification",
    "labels": ["news", "sport", "science"],
    "learner": "river.naive_bayes:GaussianNB",
}
RENT = {"task": "regression", "learner": "river.linear_model:LinearRegression"}
PAGES = {"task": "ranking", "learner": "tiny_ranker:ranker"}
LLM = {"task": "generation", "learner": "tiny_ranker:ranker"}


class ManualClock:
    """Seconds since the epoch that pass only when a test says so; starts at the real time.

    The server stamps entries with its own clock, so ages are only right near the real time.
    """

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on a Ray of its own or on the shared one, so that it can be left for later."""
    for item in items:
        if {"stack", "cluster"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.ray)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OL_") or name == "REDIS_URL":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data directory of the session: the server's files and the signing secret."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def server(data_dir: Path) -> Iterator[EmbeddedServer]:
    """Run the bundled server for the whole session."""
    running = EmbeddedServer.ensure(data_dir)
    yield running
    running.stop()


@dataclass(frozen=True, slots=True)
class TcpServer:
    """A server of a test's own, listening on a port of this machine."""

    url: str
    process: subprocess.Popen[bytes]

    def answers(self) -> bool:
        """Tell whether it answers PING."""
        host, _, port = self.url.removeprefix("redis://").partition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=1.0) as client:
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def stop(self) -> None:
        """Stop it, even where a test has paused it."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def start_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., TcpServer]]:
    """Return a factory of servers on free ports; all of them are stopped after the session.

    `start_server(appendfsync="always")` runs the bundled binary, `binary=` another one. Nothing is
    persisted unless options say so.
    """
    with ExitStack() as running:

        def start(binary: str = "", **options: str) -> TcpServer:
            port = unused_port()
            home = tmp_path_factory.mktemp("server")
            known = {"port": str(port), "bind": "127.0.0.1", "dir": str(home), "save": ""}
            arguments = [part for k, v in (known | options).items() for part in (f"--{k}", v)]
            with (home / "log").open("wb") as log:
                process = subprocess.Popen(
                    [binary or embedded.server_binary(), *arguments],
                    stdout=log,
                    stderr=log,
                    preexec_fn=embedded.die_with_parent,  # noqa: PLW1509
                )
            server = TcpServer(f"redis://127.0.0.1:{options.get('port', port)}", process)
            running.callback(server.stop)
            deadline = time.monotonic() + 10
            while not server.answers():
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail((home / "log").read_text())
                time.sleep(0.005)
            return server

        yield start


@pytest.fixture(name="unused_port")
def _unused_port() -> int:
    """Return a port that nobody listens on."""
    return unused_port()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a store that syncs slowly, beside others on one disk, take longer than a request may."""
    monkeypatch.setattr(store_module, "TIMEOUT_S", 10.0)


@pytest.fixture
async def store(server: EmbeddedServer, patient: None) -> AsyncIterator[Store]:
    """Return an open store on the session's server, which is emptied first."""
    async with await open_store(server.url) as opened:
        await opened.call("FLUSHALL")
        yield opened


@pytest.fixture
def keyring() -> Keyring:
    """Return a keyring with one fixed key."""
    return Keyring({1: bytes(range(32))})


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock that only the test moves."""
    return ManualClock()


@pytest.fixture
def make_settings(server: EmbeddedServer, data_dir: Path) -> Callable[..., Settings]:
    """Return a factory of settings on the session's server.

    `make_settings(web={"audit": 1.0}, window_s=60)` changes the model `web`, and the window. The
    models are `web` (labels false and true), `topic` (three labels), `rent` (a number), `pages` (a
    ranking) and `llm` (answers made elsewhere); only those named are configured, and `web` where
    none is. A model of another name is taken as given. None has an archive unless it asks for one.
    """

    def make(**changes: Any) -> Settings:
        return _settings(server.url, data_dir, changes)

    return make


def _settings(store_url: str, data_dir: Path, changes: dict[str, Any]) -> Settings:
    known: dict[str, dict[str, Any]] = {
        "web": WEB,
        "topic": TOPIC,
        "rent": RENT,
        "pages": PAGES,
        "llm": LLM,
    }
    models = {
        name: {"archive": None} | known.get(name, {}) | change
        for name, change in changes.items()
        if isinstance(change, dict)
    }
    rest = {name: change for name, change in changes.items() if name not in models}
    document = {
        "store": store_url,
        "data_dir": data_dir,
        "models": models or {"web": {"archive": None} | WEB},
    }
    return Settings.parse(document | rest)


@pytest.fixture
async def open_loop(
    store: Store, make_settings: Callable[..., Settings], clock: ManualClock
) -> AsyncIterator[Callable[..., Awaitable[Loop]]]:
    """Return a factory of loops with the manual clock and a seeded random source.

    All of them share the session's server: a second loop is a second process of the same service.
    They are closed after the test.
    """
    async with AsyncExitStack() as opened:

        async def open_one(
            settings: Settings | None = None, *, seed: int = 0, live: bool = False
        ) -> Loop:
            loop = await Loop.open(
                settings or make_settings(), clock=clock, rng=random.Random(seed), live=live
            )
            return await opened.enter_async_context(loop)

        yield open_one


@pytest.fixture
async def loop(open_loop: Callable[..., Awaitable[Loop]]) -> Loop:
    """Return a loop with the model `web`: `{...} -> false | true`."""
    return await open_loop()


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    """Return `await eventually(condition, within_s=5)`: poll a condition until it holds, or fail.

    The condition may be a plain function or return an awaitable.
    """

    async def poll(condition: Callable[[], Any], *, within_s: float = 5.0) -> None:
        deadline = time.monotonic() + within_s
        while True:
            found = condition()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return
            if time.monotonic() > deadline:
                pytest.fail(f"did not come true within {within_s:g} s")
            await asyncio.sleep(0.005)

    return poll


@pytest.fixture(scope="module")
def start_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Service]]:
    """Return a factory of running services, each with a store of its own.

    `start_service(topic={})` serves the model `topic`; names as in `make_settings`.
    """
    with ExitStack() as running:

        def start(**changes: Any) -> Service:
            folder = tmp_path_factory.mktemp("service")
            server = EmbeddedServer.ensure(folder)
            running.callback(server.stop)
            service = Service(folder, _settings(server.url, folder, changes), server)
            asyncio.run(service.prepare())
            running.enter_context(service.serving())
            return service

        yield start


@pytest.fixture
def http(service: Service) -> Iterator[httpx2.Client]:
    """Return a bare HTTP client of the file's own `service`, with the key."""
    with service.client() as client:
        yield client


@pytest.fixture
def bare(service: Service) -> Iterator[httpx2.Client]:
    """Return a bare HTTP client of the file's own `service`, without a key; it keeps cookies."""
    with service.client(key=None) as client:
        yield client


@pytest.fixture(scope="session")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, start_server: Callable[..., TcpServer]
) -> Iterator[Cluster]:
    """Run two nodes of Ray, and a store with a password, for the whole session; deploys nothing.

    The log is in memory where that can be: starting Ray keeps the disk busy for longer than the
    store may take.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as log:
        options = {"appendonly": "yes", "appendfsync": "always", "requirepass": "Zanzibar"}
        server = start_server(dir=log, **options)
        url = server.url.replace("//", "//:Zanzibar@")
        with run_cluster(tmp_path_factory.mktemp("cluster"), url) as found:
            yield found
        server.stop()


# --- the whole stack --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run `up` on the fast profile for the whole session."""
    running = start_stack(tmp_path_factory.mktemp("fast"), "fast")
    yield running
    stop_stack(running)


@pytest.fixture
async def stack_http(stack: Stack) -> AsyncIterator[httpx2.AsyncClient]:
    """Return a client of the running stack."""
    async with stack.client() as client:
        yield client


@pytest.fixture
async def raw(stack: Stack) -> AsyncIterator[Store]:
    """Return the running stack's own store."""
    async with await open_store(stack.store_url) as store:
        yield store


# --- the browser ------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def browser() -> AsyncIterator[Any]:
    """Return the session's browser; a test is skipped where there is none."""
    the_browser = pytest.importorskip("the_browser", reason="playwright is not installed")
    if the_browser.CHROMIUM is None:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    async with the_browser.run_browser() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Any) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Return a factory of watched pages: `await open_page(url, color_scheme="dark")`.

    After the test they are closed, and it fails where one asked something of another machine, or
    complained on its console.
    """
    the_browser = pytest.importorskip("the_browser")
    opened: list[Any] = []

    async def open_one(url: str = "", **options: Any) -> Any:
        opened.append(await the_browser.watch(browser, url, **options))
        return opened[-1]

    yield open_one
    for watched in opened:
        await watched.page.context.close()
    for watched in opened:
        watched.check()
