"""Secrets: where they come from, and that none is written down or shown."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import the_stack
from hypothesis import given as with_any
from hypothesis import strategies as st

from online_learner import config, secret
from online_learner.cli.network import family
from online_learner.errors import ConfigError, Unavailable
from online_learner.ids import Keyring
from online_learner.settings import Settings
from online_learner.store import Store, open_store

PASSWORD = "hunter2-Zanzibarquux"
WEB = {
    "task": "classification",
    "labels": [False, True],
    "learner": "examples.phishing:learner",
    "promotion": {"policy": "policies.promotion:Always"},
}


# --- where they come from ---------------------------------------------------------------------


def test_a_secret_is_in_a_variable_or_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file is named by another variable; white space around it is none of it."""
    assert secret.from_environment("OL_SECRET") is None
    (tmp_path / "it").write_text(f"{PASSWORD}\n")
    monkeypatch.setenv("OL_SECRET_FILE", str(tmp_path / "it"))
    assert secret.from_environment("OL_SECRET") == PASSWORD
    assert secret.origin("OL_SECRET") == "OL_SECRET_FILE"
    monkeypatch.setenv("OL_SECRET_FILE", "")
    monkeypatch.setenv("OL_SECRET", "x")
    assert secret.from_environment("OL_SECRET") == "x"


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"two"])
def test_a_secret_that_cannot_be_read_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    """No file, an empty one, one that is not text, and a variable beside it are errors."""
    if content is not None:
        (tmp_path / "it").write_bytes(content)
    if content == b"two":
        monkeypatch.setenv("OL_SECRET", PASSWORD)
    monkeypatch.setenv("OL_SECRET_FILE", str(tmp_path / "it"))
    with pytest.raises(ConfigError, match="OL_SECRET_FILE") as refused:
        secret.from_environment("OL_SECRET")
    assert PASSWORD not in str(refused.value)


def test_a_kept_secret_is_its_owners(tmp_path: Path) -> None:
    """It is made once, and readable by nobody else."""
    path = tmp_path / "inner" / "key"
    assert (
        secret.read_or_create(path, lambda: "one")
        == secret.read_or_create(path, lambda: "two")
        == "one"
    )
    assert path.stat().st_mode & 0o777 == 0o600


# --- the store's URL --------------------------------------------------------------------------


@with_any(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=6))
def test_no_password_is_shown(word: str) -> None:
    """Whatever the password, and whether it is encoded or not, the URL is shown without it."""
    password = f"{word}Zq"
    for url in (f"redis://:{password}@db:1/0", f"rediss://app:{password}@db:1/0"):
        assert password not in secret.shown(url)
        assert secret.shown(secret.shown(url)) == secret.shown(url)
    if "&" not in word and "@" not in word:
        assert secret.shown(f"redis://db?db=1&password={password}") == "redis://db?db=1"


@pytest.mark.parametrize("name", ["password", "username", "ssl_password", "SSL_PASSWORD"])
def test_no_credential_of_the_query_is_shown(name: str) -> None:
    """Those that the client of the store takes from there."""
    assert secret.shown(f"rediss://db/0?{name}=hunter2&db=1") == "rediss://db/0?db=1"


@pytest.mark.parametrize("value", ["x", ["x"], 123, {"a": "x"}])
@pytest.mark.parametrize("key", ["password", "pin_password", "api-key", "access_key", "auth"])
def test_what_is_told_to_be_secret_is_hidden(key: str, value: Any) -> None:
    """Whatever it is made of; what only sounds like it is shown."""
    assert secret.hide({"of": [{key: value, "tokens": 8, "author": "a"}]}) == {
        "of": [{key: secret.HIDDEN, "tokens": 8, "author": "a"}]
    }


def test_the_environment_gives_the_password_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The password is restored only to the URL that the environment gives."""
    monkeypatch.setenv("REDIS_URL", f"redis://app:{PASSWORD}@db:1")
    monkeypatch.setenv("OL_STORE", "redis://db:1")
    assert secret.complete("redis://db:1") == f"redis://app:{PASSWORD}@db:1"
    assert secret.complete("redis://other:1") == "redis://other:1"
    assert secret.complete("redis://:own@db:1") == "redis://:own@db:1"


def test_settings_hold_no_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment may give one, which is left out; the file may not."""
    url = f"redis://:{PASSWORD}@db:6379"
    with pytest.raises(ConfigError, match=r"store.*OL_STORE_FILE") as refused:
        Settings.parse({"store": url, "models": {}})
    assert PASSWORD not in str(refused.value)
    (tmp_path / "url").write_text(url)
    for name, value in (("OL_STORE", url), ("REDIS_URL", url), ("OL_STORE_FILE", tmp_path / "url")):
        with monkeypatch.context() as patch:
            patch.setenv(name, str(value))
            found = Settings.parse({"models": {}})
            assert found.store == "redis://db:6379"
            assert PASSWORD not in repr(found)
            assert secret.complete(found.store) == url


def test_a_broken_file_is_not_repeated(tmp_path: Path) -> None:
    """The error names the place in the file, and not what stands there."""
    (tmp_path / "loop.yaml").write_text(f"models: {{}}\nstore: [{PASSWORD}\n")
    with pytest.raises(ConfigError, match="line 3") as refused:
        Settings.load(tmp_path / "loop.yaml")
    assert PASSWORD not in str(refused.value)


@pytest.fixture
def guarded(start_server: Callable[..., Any]) -> Iterator[Any]:
    """Run a server that asks for a password."""
    server = start_server(requirepass=PASSWORD, appendonly="yes", appendfsync="always")
    yield server
    server.stop()


async def test_a_wrong_password_is_not_repeated(
    guarded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is refused by the store is told what to do, without the password, by any traceback."""
    wrong = "wrong-Zanzibarquux"
    place = guarded.url.removeprefix("redis://")
    for url in (f"redis://:{wrong}@{place}", guarded.url):
        with pytest.raises(Unavailable, match="OL_STORE") as refused:
            await open_store(url)
        assert wrong not in "".join(traceback.format_exception(refused.value))
    for url in (f"redis://:pa/{wrong}@{place}", f"redis://:{wrong}@db:port", f"http://:{wrong}@db"):
        with pytest.raises(ConfigError, match="store") as broken:
            await open_store(url)
        assert wrong not in str(broken.value)
    monkeypatch.setenv("OL_STORE", f"redis://:{PASSWORD}@{place}")
    settings = Settings.parse({"models": {}})
    async with await open_store(settings.store) as store:
        assert store.url == guarded.url
        await config.publish(store, Keyring({1: bytes(32)}), settings)
        assert PASSWORD.encode() not in await _everything(store)


async def _everything(store: Store) -> bytes:
    return b"".join([await store.call("DUMP", key) for key in await store.call("KEYS", "*")])


# --- all of it --------------------------------------------------------------------------------


def test_a_running_system_shows_no_password(
    guarded: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`up` works on a store with a password, which is in no file, argument, answer or log."""
    place = guarded.url.removeprefix("redis://")
    (tmp_path / "url").write_text(f"redis://:{PASSWORD}@{place}")
    monkeypatch.setenv("OL_STORE_FILE", str(tmp_path / "url"))
    stack = the_stack.start(tmp_path, "plain", {"web": WEB})
    try:
        pids = family(stack.process.pid)
        told = asyncio.run(_used(stack)) + _commands(stack.data_dir.parent)
        told += b"".join(_read(Path(f"/proc/{pid}/cmdline")) for pid in pids)
        [folder] = set(re.findall(rb"/(ol-[0-9a-f]{8})/", told))
        ray = Path(tempfile.gettempdir()) / folder.decode()
        files = [*stack.data_dir.rglob("*"), *ray.rglob("*"), stack.log]
        written = {file: _read(file) for file in files if file.is_file()}
    finally:
        the_stack.stop(stack)
    assert place.encode() in told
    assert any(b"gcs" in file.name.encode() and content for file, content in written.items())
    assert PASSWORD.encode() not in told
    assert [file for file, content in written.items() if PASSWORD.encode() in content] == []


async def _used(stack: the_stack.Stack) -> bytes:
    """Predict, say what is right, and read all that the service tells of itself."""
    async with stack.client() as http:
        answer = (await http.post("/v1/models/web/predict", json={"features": {"x": 1}})).json()
        said = {"prediction_id": answer["prediction_id"], "kind": "correction", "value": True}
        replies = [await http.post("/v1/feedback", json=said)]
        assert replies[0].status_code == 202
        routes = ("/readyz", "/v1/models", "/v1/models/web", "/v1/models/web/versions")
        replies += [await http.get(route) for route in (*routes, "/openapi.json")]
    return b"".join(reply.content for reply in replies)


def _commands(here: Path) -> bytes:
    program = str(Path(sys.executable).with_name("online-learner"))
    told = b""
    for words in (["config", "show", "--json"], ["doctor"]):
        done = subprocess.run([program, *words], capture_output=True, check=False, cwd=here)
        assert done.returncode == 0, done.stdout + done.stderr
        told += done.stdout + done.stderr
    return told


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # a socket, or a process that has ended
        return b""
