"""`replay`, and verdicts rechecked from the archive, on the command line."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from online_learner import bring
from online_learner.archive.archiver import Archiver
from online_learner.cli import app
from online_learner.learners.factory import make_learner
from online_learner.loop import Loop

OK, REFUSED, USAGE = 0, 1, 2
SCALED = "river:preprocessing.StandardScaler | linear_model.LogisticRegression"
WEB = {"learner": SCALED, "archive": "auto", "publish_s": 0.0, "audit": 1.0}
MAJORITY = {"learner": "river.dummy:PriorClassifier", "publish_s": 0.0, "audit": 1.0}
SIGNALS = 60

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service whose record is in the archive, and no more in the store."""
    known = {"task": "classification", "labels": [False, True], "archive": "auto"}
    service = start_service(web=WEB, sure={**known, **MAJORITY}, quiet={**known, **MAJORITY})
    asyncio.run(live(service))
    return service


async def live(service: Any) -> None:
    """Have answers put right, and all of it archived."""
    rng = random.Random(0)
    async with await Loop.open(service.settings) as loop:
        for n in range(SIGNALS):
            a = rng.gauss(0, 1)
            for model, truth in (("web", a > 0), ("sure", True)):
                answer = await loop.predict(model, {"a": a})
                who = {"user_id": f"rater-{n % 30}"}
                await loop.feedback(answer["prediction_id"], "correction", truth, **who)
                await loop.turn(model)
        for stages in loop.models.values():
            archiver, keys = stages.archiver, stages.registry.keys
            assert isinstance(archiver, Archiver)
            await archiver.flush()
            for stream in (keys.feedback, keys.steps, keys.evidence):
                newest = await loop.store.latest(stream)
                await loop.store.call("XTRIM", stream, "MAXLEN", 0)
                if stream == keys.evidence and newest:
                    await loop.store.call("HSET", keys.trimmed, "evidence", newest[0][0])


@pytest.fixture
def ask(service: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Return `ask(*arguments)`: a command beside the service's data directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OL_URL", service.url)
    monkeypatch.setenv("OL_API_KEY", service.key)
    monkeypatch.setenv("OL_DATA_DIR", str(service.data_dir))
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def told(found: Result) -> Any:
    """Return what a command printed as JSON; it must have succeeded."""
    assert found.exit_code == OK, found.output
    return json.loads(found.stdout)


def test_the_weights_are_those_recorded(ask: Run) -> None:
    """It tells where it began and stands, how many states are the same, and how fast it was."""
    text = ask("replay", "web")
    assert text.exit_code == OK, text.output
    assert "The same, bit for bit:" in text.stdout
    found = told(ask("replay", "web", "--json"))
    assert (found["signals"], found["learned"], found["differs"]) == (SIGNALS, SIGNALS, None)
    assert found["compared"] >= 2
    assert found["begun"] == "0-0"
    assert found["signals_a_second"] > 0
    assert found["state_digest"] in text.stdout


def test_it_can_stop_earlier(ask: Run) -> None:
    """Up to an entry, a time, or so long ago."""
    whole = told(ask("replay", "web", "--json"))
    same = told(ask("replay", "web", "--until", whole["offset"], "--json"))
    assert same["state_digest"] == whole["state_digest"]
    ago = told(ask("replay", "web", "--until", "1d", "--json"))
    assert (ago["signals"], ago["offset"]) == (0, "0-0")
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    assert told(ask("replay", "web", "--until", now, "--json"))["signals"] == SIGNALS


def test_another_learner_side_by_side(ask: Run) -> None:
    """The served answers, and those of another learner, with the difference and its interval."""
    text = ask("replay", "sure", "--learner", "river.linear_model:LogisticRegression")
    assert text.exit_code == OK, text.output
    assert "In time:" in text.stdout
    found = told(ask("replay", "web", "--set", "l2=0.5", "--windows", "4", "--json"))
    everything, audited = found["comparison"]["rows"]
    assert (everything["n"], audited["n"]) == (SIGNALS, SIGNALS)
    assert len(found["comparison"]["windows"]) == 4
    assert everything["low"] <= everything["difference"] <= everything["high"]
    assert found["passed"]["lessons"] == SIGNALS


def test_another_configuration_file(ask: Run, tmp_path: Path) -> None:
    """The model of that name in another file; where there is none, it is told."""
    other = tmp_path / "other.yaml"
    other.write_text(
        "models:\n  web:\n    task: classification\n    labels: [false, true]\n"
        "    learner: river.naive_bayes:GaussianNB\n"
    )
    found = told(ask("replay", "web", "--instead", str(other), "--json"))
    assert found["comparison"]["rows"][0]["n"] == SIGNALS
    assert ask("replay", "sure", "--instead", str(other)).exit_code == REFUSED


def test_the_weights_go_to_a_file_and_to_the_service(
    ask: Run, service: Any, tmp_path: Path
) -> None:
    """What is saved is what `register` takes; what is registered is a candidate."""
    file = tmp_path / "weights.bin"
    found = told(ask("replay", "web", "--save", str(file), "--register", "--json"))
    like = make_learner(service.settings.models["web"])
    assert bring.read_model(file.read_bytes(), like).digest() == found["state_digest"]
    assert found["registered"]["becomes"] == "candidate"
    before = file.read_bytes()
    again = ask("replay", "web", "--save", str(file))
    assert again.exit_code == USAGE
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["nobody"], REFUSED, "nobody"),
        (["web", "--from-version", "77"], REFUSED, "no version 77"),
        (["web", "--until", "yesterday-ish"], USAGE, "a moment is"),
        (["web", "--learner", "x:y", "--from-version", "0"], USAGE, "leave --from-version out"),
        (["web", "--learner", "no_such_module:y"], REFUSED, "cannot import"),
        (["web", "--set", "l2"], USAGE, "write --set as in"),
        (["web", "--set", "nothing=1"], REFUSED, "cannot be called so"),
        (["web", "--save", "/nowhere/at/all.bin"], USAGE, "there is no such folder"),
    ],
)
def test_what_is_wrong_is_told(ask: Run, arguments: list[str], code: int, text: str) -> None:
    """Each mistake has its exit code, and a sentence that says what to do."""
    found = ask("replay", *arguments)
    assert found.exit_code == code, found.output
    words = " ".join(found.output.replace("│", " ").split())
    assert text in words
    assert "Traceback" not in found.output


def test_a_model_of_which_nothing_was_said(ask: Run) -> None:
    """Neither is there anything to compare."""
    assert told(ask("replay", "quiet", "--json"))["signals"] == 0
    text = ask("replay", "quiet", "--set", "x=1")
    assert text.exit_code == REFUSED
    other = ask("replay", "quiet", "--learner", "river.naive_bayes:GaussianNB")
    assert "there is nothing to compare" in other.stdout


def test_verdicts_are_rechecked_from_the_archive(ask: Run) -> None:
    """Where evidence has left the store, archive and store are read as one."""
    found = told(ask("verdicts", "sure", "--recheck", "--json"))
    assert found == {"checked": 1, "too_old": 0, "worst": 0.0, "wrong": []}


def test_without_the_archive_they_are_too_old(
    ask: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who only reaches the service is told that the evidence is gone there."""
    monkeypatch.setenv("OL_DATA_DIR", str(tmp_path))
    result = ask("verdicts", "sure", "--recheck")
    assert result.exit_code == OK, result.output
    assert "1 more are too old" in result.stdout


def test_a_file_says_where_the_archive_is(
    ask: Run, service: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where no configuration is here, `--config` names it."""
    monkeypatch.setenv("OL_DATA_DIR", str(tmp_path))
    assert "give --config" in ask("verdicts", "sure", "--recheck").stdout
    monkeypatch.delenv("OL_DATA_DIR")
    file = tmp_path / "there.yaml"
    file.write_text(f"data_dir: {service.data_dir}\nmodels: {{}}\n")
    found = told(ask("verdicts", "sure", "--recheck", "--config", str(file), "--json"))
    assert (found["checked"], found["too_old"]) == (1, 0)


def test_the_record_of_another_service_is_not_taken(
    ask: Run, start_service: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is here has a model of the same name, and none of these verdicts."""
    other = start_service(sure={"task": "classification", "labels": [False, True], **MAJORITY})
    monkeypatch.setenv("OL_DATA_DIR", str(other.data_dir))
    assert "1 more are too old" in ask("verdicts", "sure", "--recheck").stdout


def test_a_changed_byte_is_found(ask: Run, service: Any) -> None:
    """It says which file of the archive is damaged, and nothing is rebuilt or saved."""
    [file] = Path(service.data_dir).rglob("model=sure/feedback/*/*.parquet")
    data = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    try:
        found = ask("replay", "sure", "--save", "weights.bin")
    finally:
        file.write_bytes(data)
    assert found.exit_code == REFUSED
    assert file.name in found.output
    assert not Path("weights.bin").exists()
