"""Completion in the shell: commands, and the names of models, quickly and in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from online_learner.cli import app
from online_learner.cli.completing import model_names

COMMAND = Path(sys.executable).with_name("online-learner")


@pytest.fixture
def complete(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return `complete(words, **environment)`: what bash is told, in an empty folder."""

    def run(words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        asked = {
            "_ONLINE_LEARNER_COMPLETE": "complete_bash",
            "COMP_WORDS": f"online-learner {words}",
            "COMP_CWORD": str(len(f"online-learner {words}".split(" ")) - 1),
        }
        return subprocess.run(
            [COMMAND],
            env=os.environ | asked | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service with two models."""
    return start_service(web={}, rent={})


@pytest.mark.parametrize(
    ("words", "found"),
    [("te", ["teach"]), ("keys r", ["revoke", "rotate"]), ("zz", [])],
)
def test_commands_are_completed(
    complete: Callable[..., subprocess.CompletedProcess[str]], words: str, found: list[str]
) -> None:
    """What was begun is completed to the commands that there are."""
    assert sorted(complete(words).stdout.split()) == found


def test_models_of_the_running_service(
    complete: Callable[..., subprocess.CompletedProcess[str]], service: Any
) -> None:
    """A model's name is completed by what is served."""
    done = complete("versions w", OL_URL=service.url, OL_API_KEY=service.key)
    assert (done.stdout.split(), done.stderr) == (["web"], "")


def test_every_command_on_a_model_completes_it() -> None:
    """Wherever a command takes a model, its name can be completed."""
    commands = get_command(app).commands.items()  # type: ignore[attr-defined]
    found = {
        name: parameter._custom_shell_complete is not None
        for name, command in commands
        for parameter in command.params
        if parameter.name == "model" and parameter.param_type_name == "argument"
    }
    assert set(found) >= {"predict", "teach", "label", "versions", "verdicts", "register"}
    assert [name for name, completes in found.items() if not completes] == []


def test_models_of_the_configuration(
    complete: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Where nothing runs, the configuration here knows the names."""
    (tmp_path / "online_learner.yaml").write_text("models: {tickets: {}, tills: {}, other: {}}")
    assert complete("versions ti").stdout.split() == ["tickets", "tills"]


@pytest.mark.parametrize(
    "broken", ["models: [", "- just\n- a list\n", "models: 3", None], ids=["yaml", "list", "3", "-"]
)
def test_failure_is_silent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    unused_port: int,
    broken: str | None,
) -> None:
    """No service, no key, no configuration or a broken one: nothing is completed, nothing said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OL_URL", f"http://127.0.0.1:{unused_port}")
    if broken is not None:
        (tmp_path / "online_learner.yaml").write_text(broken)
    assert model_names("w") == []
    assert capfd.readouterr() == ("", "")


def test_a_key_that_is_refused_is_silent(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not read the models gets no names."""
    monkeypatch.setenv("OL_URL", service.url)
    monkeypatch.setenv("OL_API_KEY", "ol_wrong")
    assert model_names("") == []


def test_the_shell_is_told_how(tmp_path: Path) -> None:
    """`--install-completion` leaves a script for the shell that runs it, which bash can read."""
    environment = os.environ | {"HOME": str(tmp_path)}
    line = f"{COMMAND} --install-completion; true"
    done = subprocess.run(
        ["bash", "-c", line], env=environment, cwd=tmp_path, capture_output=True, check=False
    )
    [script] = tmp_path.rglob("online-learner.sh")
    assert "_ONLINE_LEARNER_COMPLETE" in script.read_text(), done
    subprocess.run(["bash", "-n", script], check=True)
