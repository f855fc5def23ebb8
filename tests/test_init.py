"""`init`: what it writes is taken as it stands, learns, and is never written over."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner, Result

from online_learner.checks import check_learner
from online_learner.cli import app
from online_learner.learners.factory import make_learner
from online_learner.loop import Loop
from online_learner.schema import Example, Task
from online_learner.settings import ModelSpec, Settings
from online_learner.stages import check_model
from online_learner.store.embedded import EmbeddedServer

TASKS = get_args(Task)
OK, USAGE = 0, 2
SMALL = {
    "check_weights_scale": "River's one-against-the-rest takes no weights",
    "check_bounded_by_labels": "and any label; the service lets in the configured ones only",
}


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Return `init(*arguments)`, in an empty folder that is on the path, as `up` has it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_learner", None)
    yield lambda *arguments: CliRunner().invoke(app, ["init", *arguments])
    sys.modules.pop("my_learner", None)


def written(model: str = "my_model") -> ModelSpec:
    """Return the model in the configuration that was written here."""
    return Settings.load("online_learner.yaml").model(model)


@pytest.mark.parametrize("task", TASKS)
def test_what_it_writes_is_taken(init: Callable[..., Result], task: str) -> None:
    """Of each task, the configuration is valid, and all that it names can be made."""
    done = init("--task", task)
    assert done.exit_code == OK, done.output
    spec = written()
    check_model(spec)
    assert spec.task == task
    assert not make_learner(spec).fitted
    assert "online-learner up" in done.stdout


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_its_learner_keeps_the_laws(
    init: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """What one begins with passes the checks that a learner of one's own has to pass."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # one law has another process make it
    init("--task", task, *(["--labels", "a,b"] if task == "classification" else []))
    rng = random.Random(1)
    examples = []
    for n in range(50):
        x = rng.gauss(0, 1)
        features = {"text": f"word {n % 7}", "x": x, "y": rng.random(), "channel": "mail"}
        examples.append(Example(features, x if task == "regression" else "ab"[x > 0]))
    mine = tmp_path / "my_learner.py"  # as one does: with fewer buckets, the laws take less time
    mine.write_text(re.sub(r"BUCKETS = 1 << \d+", "BUCKETS = 1 << 5", mine.read_text()))
    known = SMALL if task == "classification" else {}
    make = partial(make_learner, written())
    check_learner(make, examples, max_bytes=1 << 15, expected_failed_checks=known)


def test_it_learns_text_numbers_and_choices(init: Callable[..., Result]) -> None:
    """The example tells labels apart by words, and by numbers of any size, after a few lessons."""
    init("--labels", "a,b,c")
    learner: Any = make_learner(written())
    rows = [
        ({"text": "Apple pie!", "size": 1e6}, "a"),
        ({"text": "blue sky", "size": -5.0}, "b"),
        ({"text": "cold tea", "channel": "mail"}, "c"),
    ]
    for _ in range(20):
        learner.learn([Example(features, label) for features, label in rows])
    assert [answer.output for answer in learner.predict([features for features, _ in rows])] == [
        "a",
        "b",
        "c",
    ]


async def test_it_runs(init: Callable[..., Result], server: EmbeddedServer, store: Any) -> None:
    """A loop on it answers, learns, and promotes what it has learned, all by its own settings."""
    init("--labels", "billing,bug,praise", "--model", "tickets")
    settings = Settings.load("online_learner.yaml")
    settings = settings.model_copy(update={"store": server.url})
    texts = {"billing": "an invoice", "bug": "it crashes", "praise": "I love it"}
    async with await Loop.open(settings) as loop:
        for _ in range(40):
            for label, text in texts.items():
                answer = await loop.predict("tickets", {"text": text})
                name = answer["prediction_id"]
                await loop.feedback(name, "correction", label, auditor=True)
            await loop.turn("tickets")
        assert (await loop.predict("tickets", {"text": "an invoice"}))["output"] == "billing"
        aliases = await loop.models["tickets"].registry.aliases()
        assert aliases is not None
        assert aliases.following


def test_it_writes_into_a_folder_of_its_own(init: Callable[..., Result], tmp_path: Path) -> None:
    """The folder is made, and how to go on from here is said."""
    done = init("deep/er", "--labels", "yes,no")
    assert done.exit_code == OK
    found = sorted(file.name for file in (tmp_path / "deep" / "er").iterdir())
    assert found == ["my_learner.py", "online_learner.yaml"]
    assert "cd deep/er; online-learner up" in done.stdout


@pytest.mark.parametrize("there", ["online_learner.yaml", "my_learner.py"])
def test_it_overwrites_nothing(init: Callable[..., Result], tmp_path: Path, there: str) -> None:
    """Where one of the files is there, it is left as it is, and so is all else."""
    (tmp_path / there).write_text("mine")
    done = init()
    assert done.exit_code == USAGE
    assert f"{there} is there already" in " ".join(done.output.split())
    assert [file.name for file in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--labels", "a"], "two labels or more"),
        (["--labels", "a,,b"], "two labels or more"),
        (["--labels", "a,b,a"], "each once"),
        (["--task", "regression", "--labels", "a,b"], "the task is regression"),
        (["--model", "a b"], "is no name"),
        (["--task", "poetry"], "classification"),
    ],
)
def test_what_cannot_be_is_refused(
    init: Callable[..., Result], tmp_path: Path, arguments: list[str], why: str
) -> None:
    """What no configuration could hold is wrong usage, and nothing is written."""
    done = init(*arguments)
    assert done.exit_code == USAGE
    assert why in " ".join(done.output.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_labels_are_text_whatever_they_look_like(init: Callable[..., Result]) -> None:
    """Labels that YAML would read as something else stay the words that were typed."""
    init("--labels", "yes,no,null,3, it's ")
    assert written().labels == ["yes", "no", "null", "3", "it's"]
