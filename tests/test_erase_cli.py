"""`online-learner erase` beside a running service: the store's own files, datasets, and proofs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from the_service import Service, problem
from typer.testing import CliRunner, Result

from online_learner.cli import app
from online_learner.store import open_store
from online_learner.store.probe import mapping

PLANTED = "Zanzibarquux"
ADA = f"ada-{PLANTED}"
OK, FOUND, USAGE = 0, 1, 2


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Service]) -> Service:
    """Return a running service with a model whose log is archived beside it."""
    return start_service(web={"archive": "auto"}, other={**_WEB})


_WEB = {
    "task": "classification",
    "labels": [False, True],
    "learner": "river.linear_model:LogisticRegression",
}


@pytest.fixture
def run(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Return `run(*arguments)`: `erase` in a directory without a configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OL_DATA_DIR", str(service.data_dir))

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["erase", *arguments])

    return invoke


def tell(http: httpx2.Client, user: str, words: str) -> str:
    """Have somebody ask and speak; returns the prediction id."""
    body = {
        "features": {words: 1.0, "length": 2.0},
        "user_id": user,
        "session_id": f"s-{user}",
        "tags": {"note": words},
    }
    answer = http.post("/v1/models/web/predict", json=body).raise_for_status().json()
    said = {"prediction_id": answer["prediction_id"], "user_id": user, "comment": f"says {words}"}
    http.post("/v1/feedback", json=said | {"kind": "correction", "value": True}).raise_for_status()
    return str(answer["prediction_id"])


def on_disk(service: Service) -> bool:
    """Tell whether the planted text is in a file of the store, as it stands there."""
    files = [path for path in (service.data_dir / "store").rglob("*") if path.is_file()]
    assert any(path.suffix == ".aof" for path in files)
    return any(PLANTED.encode() in path.read_bytes() for path in files)


async def command(service: Service, *words: str) -> None:
    """Send a command to the server."""
    async with await open_store(service.server.url) as store:
        await store.call(*words)


def test_the_text_is_in_no_file_of_the_store(
    service: Service,
    http: httpx2.Client,
    run: Callable[..., Result],
) -> None:
    """Neither in the log of the store, as raw bytes, nor in the archive, nor anywhere else."""
    asyncio.run(
        command(service, "CONFIG", "SET", "rdbcompression", "no")
    )  # so that raw bytes can be searched
    [*_, last] = [tell(http, ADA, PLANTED) for _ in range(5)]
    kept = tell(http, "eve", "plain")
    asyncio.run(service.turn())
    assert on_disk(service)
    assert run("--user", ADA, "--check").exit_code == FOUND

    planned = json.loads(run("--user", ADA, "--dry-run", "--json").output)
    assert planned == {"web": {"predictions": 5, "feedback": 5, "late": 0}}
    assert on_disk(service)

    done = run("--user", ADA, "--by", "Grace", "--json")
    assert done.exit_code == OK, done.output
    proof = json.loads(done.output)["web"]
    assert proof["aof"] == "rewritten"
    assert proof["rdb"] == "none"
    assert proof["unlearned"] == "pending"  # no learner runs here
    assert ADA not in done.output
    asyncio.run(service.turn())

    found = problem(http.get(f"/v1/predictions/{last}"), 410, "erased")
    assert PLANTED not in json.dumps(found)
    said = {"prediction_id": last, "kind": "thumbs", "value": True}
    problem(http.post("/v1/feedback", json=said), 410, "erased")
    http.get(f"/v1/predictions/{kept}").raise_for_status()

    again = json.loads(run("--user", ADA, "--json").output)["web"]  # the weights are new by now
    assert again["first"] == proof["id"]
    assert again["todo"] == ""
    deadline = time.monotonic() + 30  # the server unlinks old files in its own time
    while on_disk(service):
        assert time.monotonic() < deadline, "the text is on the disk still"
    assert run("--user", ADA, "--check").exit_code == OK
    assert run("--user", "eve", "--check").exit_code == FOUND

    told = json.loads(run("--status", proof["id"], "--json").output)["web"]
    assert told["unlearned_now"] == "done"
    every = json.loads(run("--status", "all", "--json").output)["web"]
    assert [one["id"] for one in every] == [proof["id"], again["id"]]
    Path("proof.json").write_text(done.output)
    verified = run("--verify", "proof.json")
    assert verified.exit_code == OK, verified.output
    Path("proof.json").write_text(done.output.replace("Grace", "Grade"))
    assert run("--verify", "proof.json").exit_code == 1
    tell(http, ADA, PLANTED)  # they come back: that is found, and is new
    Path("proof.json").write_text(done.output)
    assert run("--verify", "proof.json").exit_code == FOUND


def test_who_is_not_here_is_told_of_without_the_name(run: Callable[..., Result]) -> None:
    """An unknown user is an error; nothing is named, and nothing was touched."""
    result = run("--user", "nobody-77")
    assert result.exit_code == 1
    assert "Nothing was touched" in result.output
    assert "nobody-77" not in result.output


def test_one_thing_at_a_time(run: Callable[..., Result]) -> None:
    """Without a user, or with a proof as well, nothing is done."""
    assert run().exit_code == USAGE
    assert run("--user", "a", "--status", "all").exit_code == USAGE
    Path("no.json").write_text("[1]")
    assert run("--verify", "no.json").exit_code == USAGE
    Path("no.json").write_text('{"web": {"id": "1-1"}}')
    assert run("--verify", "no.json").exit_code == 1
    assert run("--status", "1-1").exit_code == 1
    assert run("--status", "this").exit_code == 1


def test_a_server_that_forbids_it_leaves_it_unproven(
    service: Service, http: httpx2.Client, run: Callable[..., Result]
) -> None:
    """The proof says so, and what the operator has to do."""
    tell(http, "ida", "idaswords")
    asyncio.run(command(service, "ACL", "SETUSER", "default", "-bgrewriteaof"))
    try:
        done = run("--user", "ida", "--json")
    finally:
        asyncio.run(command(service, "ACL", "SETUSER", "default", "+bgrewriteaof"))
    proof = json.loads(done.output)["web"]
    assert proof["aof"] == "unproven"
    assert "BGREWRITEAOF" in proof["todo"]
    assert proof["erased"]["predictions"] == 1


def test_datasets_that_hold_it_are_named_and_removed_on_demand(
    service: Service, http: httpx2.Client, run: Callable[..., Result]
) -> None:
    """Versions compiled before are in the proof; those that come later hold nothing of it."""
    for n in range(30):
        tell(http, f"user-{n}", f"word{n}")
    for _ in range(3):
        tell(http, "uma", "umaswords")
    asyncio.run(service.turn())
    line = ["dataset", "compile", "web", "--format", "supervised", "--workers", "0", "--json"]
    before = CliRunner().invoke(app, line)
    assert before.exit_code == OK, before.output
    version = json.loads(before.output)["id"]
    proof = json.loads(run("--user", "uma", "--json").output)["web"]
    assert proof["datasets"] == [version]
    asyncio.run(service.turn())
    later = CliRunner().invoke(app, line)
    assert later.exit_code == OK, later.output
    folder = service.data_dir / "datasets" / "web"
    assert (folder / version).is_dir()
    proof = json.loads(run("--user", "uma", "--drop-datasets", "--json").output)["web"]
    assert proof["removed"] == [version]
    assert not (folder / version).exists()
    assert json.loads(later.output)["id"] != version


async def test_facts_of_the_server_are_what_is_relied_on(service: Service) -> None:
    """It counts rewrites, by which a new one is told from an old one."""
    async with await open_store(service.server.url) as store:
        info = mapping(await store.call("INFO", "persistence"))
    assert {"aof_rewrites", "rdb_saves", "aof_last_bgrewrite_status"} <= info.keys()
