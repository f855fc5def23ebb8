"""`retrain`, `jobs`, `evaluate`: on the store itself, whether a service runs or not."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from online_learner import config, store
from online_learner.cli import app
from online_learner.cli.retraining import _search
from online_learner.loop import Loop
from online_learner.settings import Settings
from online_learner.store.embedded import EmbeddedServer

OK, REFUSED, USAGE = 0, 1, 2
SIGNALS = 300
MODEL = {
    "task": "classification",
    "labels": [False, True],
    "learner": "river:preprocessing.StandardScaler | linear_model.LogisticRegression",
    "guard_segments": ["n"],
}

Run = Callable[..., Result]


async def talk(known: Settings) -> None:
    """Answer, and have each answer corrected."""
    rng = random.Random(0)
    async with await Loop.open(known) as loop:
        await config.publish(loop.store, loop.keyring, known)
        for n in range(SIGNALS):
            a = rng.gauss(0, 1)
            answer = await loop.predict("web", {"a": a, "n": n % 3})
            await loop.feedback(answer["prediction_id"], "correction", a > 0)
        await loop.turn("web")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Return the data directory of a store in which people have spoken; no service runs."""
    with pytest.MonkeyPatch.context() as patched, tempfile.TemporaryDirectory() as folder:
        patched.setattr(store, "TIMEOUT_S", 10.0)
        found = Path(folder).resolve()
        server = EmbeddedServer.ensure(found)
        try:
            models = {"web": MODEL, "quiet": MODEL}
            document = {"store": server.url, "data_dir": found, "models": models}
            asyncio.run(talk(Settings.parse(document)))
            yield found
        finally:
            server.stop()


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return `run(*arguments)`: a command, in this data directory."""
    monkeypatch.setenv("OL_DATA_DIR", str(home))
    monkeypatch.setattr(store, "TIMEOUT_S", 10.0)
    monkeypatch.chdir(home)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments])

    return invoke


def told(found: Result) -> Any:
    """Return what a command printed as JSON; it must have succeeded."""
    assert found.exit_code == OK, found.output
    return json.loads(found.stdout)


def test_from_the_log_to_a_candidate_and_its_numbers(run: Run) -> None:
    """Train, look at the job, and evaluate what came of it against who answers."""
    options = ("--search", "optimizer__lr=0.1,0.5", "--search", "epochs=2", "--workers", "0")
    dry = told(run("retrain", "web", *options, "--dry-run", "--json"))
    assert (dry["state"], told(run("jobs", "web", "--json"))) == ("done", [])
    job = told(run("retrain", "web", *options, "--json"))
    assert [one["configuration"] for one in job["tried"]] == [
        {"epochs": 1},
        {"optimizer__lr": 0.1, "epochs": 2},
        {"optimizer__lr": 0.5, "epochs": 2},
    ]
    assert job["dataset"] == dry["dataset"]
    held = job["rows"]["validation"]
    assert held in (60, 61)  # what was said in the millisecond of the cut
    assert job["champion_learned"] == 0  # it was never trained
    [kept] = told(run("jobs", "web", "--json"))
    assert kept == job
    number = str(job["version"])
    found = told(run("evaluate", "web", "--version", number, "--against", "champion", "--json"))
    assert found["all"]["accuracy"] > 0.85
    assert found["learned_rows"] == found["against"]["all"]["rows"] == held
    assert (found["against"]["version"], found["against"]["learned_rows"]) == (0, 0)
    assert set(found["segments"]["features.n"]) == {"0", "1", "2"}
    text = run("evaluate", "web", "--version", number, "--by", "source", "--split", "all")
    assert text.exit_code == OK, text.output
    assert "these numbers flatter it" in text.stdout
    assert "By source:" in text.stdout
    assert "Of those so sure" in text.stdout
    assert job["id"] in run("jobs", "web").stdout
    shown = run("retrain", "web", "--dataset", job["dataset"], "--workers", "0")
    assert "who answers now" in shown.stdout
    assert "chosen" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("retrain", "web", "--search", "rate=1"), REFUSED, "no argument of that name"),
        (("retrain", "web", "--search", "l2"), USAGE, "lr=0.01,0.1"),
        (("retrain", "web", "--dataset", "latest", "--from", "7d"), USAGE, "no --dataset"),
        (("retrain", "web", "--dataset", "latest", "--split", "user"), USAGE, "no --dataset"),
        (("retrain", "web", "--dataset", "ffff0000"), REFUSED, "no such version"),
        (("retrain", "quiet"), REFUSED, "nothing was said"),
        (("retrain", "webb"), REFUSED, "web"),
        (("evaluate", "web", "--version", "new"), USAGE, "a version is a number"),
        (("evaluate", "web", "--version", "99"), REFUSED, "no version 99"),
        (("evaluate", "web", "--by", "colour"), REFUSED, "cannot be parted by that"),
        (("evaluate", "quiet"), REFUSED, "no version yet"),
    ],
)
def test_what_cannot_be_done_says_what_to_do(
    run: Run, arguments: tuple[str, ...], code: int, words: str
) -> None:
    """The exit code tells whose fault it was."""
    if arguments[:2] == ("evaluate", "web"):
        told(run("dataset", "compile", "web", "--format", "supervised", "--json"))
    found = run(*arguments, *(("--workers", "0") if arguments[0] == "retrain" else ()))
    assert found.exit_code == code, found.output
    assert words in " ".join(found.output.replace("│", " ").split())


def test_values_of_a_search_are_read_as_they_are_meant() -> None:
    """Numbers, booleans and words; said twice, an argument has both."""
    assert _search(["lr=1e-3,0.5", "context=true", "lr=2", "loss=huber"]) == {
        "lr": [0.001, 0.5, 2],
        "context": [True],
        "loss": ["huber"],
    }
