"""The commands on datasets: on the store itself, whether a service runs or not."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from online_learner import config, store
from online_learner.cli import app
from online_learner.dataset.manifest import MANIFEST
from online_learner.forget.retract import retract
from online_learner.loop import Loop
from online_learner.settings import Settings
from online_learner.store.embedded import EmbeddedServer

OK, REFUSED, USAGE = 0, 1, 2
SIGNALS = 80
MODEL = {
    "task": "classification",
    "labels": [False, True],
    "learner": "river.linear_model:LogisticRegression",
}

Run = Callable[..., Result]


def settings(home: Path, server: EmbeddedServer) -> Settings:
    """Return the settings of a model on a store."""
    models = dict.fromkeys(("web", "quiet", "later", "taken"), MODEL)
    return Settings.parse({"store": server.url, "data_dir": home, "models": models})


async def talk(known: Settings, model: str, signals: int = SIGNALS) -> None:
    """Answer, and have each answer spoken of."""
    rng = random.Random(0)
    async with await Loop.open(known) as loop:
        await config.publish(loop.store, loop.keyring, known)
        for n in range(signals):
            answer = await loop.predict(model, {"a": rng.gauss(0, 1), "n": float(n)})
            said = ("thumbs", n % 4 == 0) if n % 2 else ("correction", n % 3 == 0)
            await loop.feedback(answer["prediction_id"], *said)


@pytest.fixture(scope="module")
def known() -> Iterator[Settings]:
    """Return the settings of a store in which people have spoken; no service runs."""
    # Its path is short enough for the store's socket to be in it.
    with pytest.MonkeyPatch.context() as patched, tempfile.TemporaryDirectory() as folder:
        patched.setattr(store, "TIMEOUT_S", 10.0)
        home = Path(folder).resolve()
        server = EmbeddedServer.ensure(home)
        try:
            found = settings(home, server)
            asyncio.run(talk(found, "web"))
            yield found
        finally:
            server.stop()


@pytest.fixture
def home(known: Settings) -> Iterator[Path]:
    """Return the data directory, in which no dataset is."""
    yield known.data_dir
    shutil.rmtree(known.data_dir / "datasets", ignore_errors=True)


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return `run(*arguments)`: a command of the group, in this data directory."""
    monkeypatch.setenv("OL_DATA_DIR", str(home))
    monkeypatch.setattr(store, "TIMEOUT_S", 10.0)
    monkeypatch.chdir(home)

    def invoke(command: str, *arguments: str, model: str = "web") -> Result:
        return CliRunner().invoke(app, ["dataset", command, model, *arguments])

    return invoke


def printed(result: Result) -> Any:
    """Return what a command printed as JSON."""
    assert result.exit_code == OK, result.output
    return json.loads(result.stdout)


def compiled(run: Run, *arguments: str, model: str = "web") -> Any:
    """Compile a supervised version, and return what was told of it."""
    return printed(run("compile", "--format", "supervised", "--json", *arguments, model=model))


def test_a_version_is_compiled_shown_listed_and_removed(run: Run, home: Path) -> None:
    """From the log to files and back, and each command tells the same as JSON and as text."""
    found = compiled(run)
    path = home / "datasets" / "web" / found["id"]
    assert found["path"] == str(path)
    assert found["counts"]["signals"] == found["counts"]["rows"] == SIGNALS
    assert sum(found["splits"].values()) == SIGNALS
    assert json.loads((path / MANIFEST).read_text())["id"] == found["id"]
    again = run("compile", "--format", "supervised", "--workers", "0")
    assert again.exit_code == OK
    for part in (found["id"], str(path), "datasets.load_dataset(", "correction", "rows"):
        assert part in again.stdout
    [listed] = printed(run("list", "--json"))["versions"]
    assert {**listed, "load": 0} == {**found, "load": 0}
    assert found["id"] in run("list").stdout
    assert printed(run("show", found["id"][:6], "--json"))["id"] == found["id"]
    assert printed(run("show", "--json"))["id"] == found["id"]
    assert run("show", "latest", "--card").stdout.startswith("---\npretty_name:")
    assert printed(run("verify", found["id"], "--json")) == {found["id"]: []}
    assert "is removed" in run("remove", found["id"]).stdout
    assert printed(run("list", "--json")) == {"versions": [], "damaged": {}}


def test_the_lines_that_are_printed_load_it(run: Run) -> None:
    """The line for pandas, run as it stands, gives the rows of the split."""
    import pandas as pd

    for file_format in ("parquet", "jsonl"):
        found = compiled(run, "--file-format", file_format)
        frame = eval(found["load"]["pandas"], {"pandas": pd})
        assert len(frame) == found["splits"]["train"]
        assert list(frame.columns) == list(found["columns"])


def test_wishes_make_other_versions_and_diff_tells_them_apart(run: Run) -> None:
    """A filter leaves rows out, and is what differs."""
    everything = compiled(run)
    some = compiled(run, "--where", "kind = 'correction'")
    assert some["counts"]["rows"] == SIGNALS // 2
    assert some["excluded"]["where"] == SIGNALS // 2
    found = printed(run("diff", everything["id"], some["id"], "--json"))
    assert (found["added"], found["removed"]) == (0, SIGNALS // 2)
    assert found["fields"]["query"] == {"where": [None, "kind = 'correction'"]}
    text = run("diff", everything["id"], some["id"]).stdout
    assert f"{SIGNALS // 2} removed" in text
    assert "query.where" in text


def test_the_same_again_has_the_same_name(run: Run, known: Settings) -> None:
    """`--like` compiles the log as far as it went then, and what was said since is not in it."""
    asyncio.run(talk(known, "later", 40))
    wishes = ("--split", "time", "--validation", "0.25")
    first = compiled(run, *wishes, model="later")
    asyncio.run(talk(known, "later", 10))
    assert compiled(run, *wishes, model="later")["id"] != first["id"]
    again = printed(run("compile", "--like", first["id"], "--json", model="later"))
    assert (again["id"], again["same"]) == (first["id"], True)
    assert run("remove", first["id"], model="later").exit_code == OK
    assert run("compile", "--like", first["id"], model="later").exit_code == REFUSED


def test_where_it_cannot_be_the_same_that_is_told(run: Run, known: Settings) -> None:
    """What was retracted since is in no version that is compiled later, and the command says so."""
    asyncio.run(talk(known, "taken", 40))
    first = compiled(run, model="taken")

    async def take_back() -> None:
        async with await Loop.open(known) as loop:
            registry = loop.stages("taken").registry
            [(entry, _)] = await loop.store.range(registry.keys.feedback, count=1)
            await retract(registry, [entry], by="test")

    asyncio.run(take_back())
    result = run("compile", "--like", first["id"], "--json", model="taken")
    assert result.exit_code == REFUSED
    found = json.loads(result.stdout)
    assert found["same"] is False
    assert found["excluded"]["retracted"] == 1
    assert "dataset diff" in result.stderr


def test_a_version_can_go_elsewhere(run: Run, tmp_path: Path) -> None:
    """`--out` takes a folder, and the other commands find it there by `--place`."""
    place = str(tmp_path / "elsewhere")
    found = compiled(run, "--out", place)
    assert found["path"] == f"{place}/{found['id']}"
    assert printed(run("list", "--json"))["versions"] == []
    assert printed(run("show", "latest", "--place", place, "--json"))["id"] == found["id"]
    assert printed(run("verify", "--all", "--place", place, "--json")) == {found["id"]: []}


def test_damage_is_found_and_named(run: Run, home: Path) -> None:
    """`verify` exits with 1, `list` shows what is sound, and nothing else is touched."""
    sound, damaged = compiled(run), compiled(run, "--seed", "1")
    path = home / "datasets" / "web" / damaged["id"] / "train" / "part-00000.parquet"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])
    result = run("verify", "--all", "--json")
    assert result.exit_code == REFUSED
    problems = json.loads(result.stdout)
    assert problems[sound["id"]] == []
    assert "part-00000.parquet" in problems[damaged["id"]][0]
    assert run("verify", damaged["id"]).exit_code == REFUSED
    assert run("verify", sound["id"]).exit_code == OK
    (path.parent.parent / MANIFEST).unlink()
    found = printed(run("list", "--json"))
    assert [version["id"] for version in found["versions"]] == [sound["id"]]
    assert list(found["damaged"]) == [damaged["id"]]
    assert run("remove", damaged["id"]).exit_code == OK
    assert printed(run("verify", "--all", "--json")) == {sound["id"]: []}


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["--format", "supervised", "--where", "kind == "], REFUSED, ""),
        (["--format", "supervised", "--where", "kint = 'x'"], REFUSED, "kind"),
        (["--format", "supervised", "--where", "weight > 99"], REFUSED, "where 80"),
        (["--format", "supervised", "--from", "2999-01-01"], REFUSED, ""),
        (["--format", "supervised", "--from", "yesterday"], USAGE, "2026-01-31"),
        (["--format", "preference"], REFUSED, "supervised"),
        (["--format", "parquet"], USAGE, "supervised"),
        (["--format", "supervised", "--validation", "1"], USAGE, "0.99"),
        ([], USAGE, "--like"),
        (["--format", "sft", "--like", "latest"], USAGE, "--like"),
        (["--like", "latest", "--where", "weight > 0", "--seed", "0"], USAGE, "--where, --seed"),
        (["--format", "sft", "--from", "9" * 400 + "d"], USAGE, "2026-01-31"),
        (["--like", "latest"], REFUSED, "dataset compile"),
        (["--like", "0123456789abcdef"], REFUSED, "dataset list"),
    ],
)
def test_what_cannot_be_compiled_is_refused_in_words(
    run: Run, home: Path, arguments: list[str], code: int, hint: str
) -> None:
    """One line that says what to do, and nothing is left in the place."""
    result = run("compile", *arguments)
    assert result.exit_code == code, result.output
    assert hint in " ".join(result.output.replace("│", " ").split())
    assert "Traceback" not in result.output
    place = home / "datasets" / "web"
    assert not place.exists() or list(place.iterdir()) == []


def test_commands_name_what_is_there(run: Run) -> None:
    """A model or a version that is not there is refused with what is; of nothing, nothing."""
    assert "web" in CliRunner().invoke(app, ["dataset", "list", "wep"]).output
    assert CliRunner().invoke(app, ["dataset", "list", "quiet"]).exit_code == OK
    assert "compile one" in run("show").output
    found = compiled(run)
    assert found["id"] in run("show", found["id"][:-2] + "zz").output
    assert run("verify").exit_code == USAGE
    assert run("remove", "nothing").exit_code == REFUSED
    quiet = CliRunner().invoke(app, ["dataset", "compile", "quiet", "--format", "supervised"])
    assert quiet.exit_code == REFUSED
    assert "nothing was said" in quiet.output


def test_two_compiles_at_once_give_one_version(run: Run, home: Path) -> None:
    """Two processes that want the same both succeed, and leave one sound version."""
    asked = ["dataset", "compile", "web", "--format", "supervised", "--json"]
    command = [sys.executable, "-m", "online_learner.cli", *asked]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [subprocess.Popen(command, cwd=home, text=True, **pipes) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [OK, OK], outputs
    first, second = (json.loads(output) for output, _ in outputs)
    assert first == second
    assert [path.name for path in (home / "datasets" / "web").iterdir()] == [first["id"]]
    assert printed(run("verify", "--all", "--json")) == {first["id"]: []}
