"""The tutorial, as a reader would follow it: every command of it, in order, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from the_service import unused_port

PAGE = Path(__file__).parent.parent / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BIN = Path(sys.executable).parent
UP = "online-learner up"
START_S, COMMAND_S = 120.0, 60.0


@dataclass
class Reader:
    """Who follows the page: one shell to type in, and a second one in which `up` runs."""

    home: Path
    place: Path
    environment: dict[str, str]
    shown: dict[str, str] = field(default_factory=dict)  # command -> what it printed, the last time
    running: subprocess.Popen[bytes] | None = None

    def follow(self) -> None:
        """Do all that the page says."""
        for kind, text in BLOCK.findall(PAGE.read_text()):
            if kind == "python":
                name = re.match(r"# (\S+)", text)
                assert name, "the first line names the file"
                (self.place / name[1]).write_text(text)
                continue
            for command in text.splitlines():
                self.type(command)

    def type(self, command: str) -> None:
        """Run one command as the shell would; `up` goes on in its own terminal."""
        if command == UP:
            self.stop()
            self.start()
            return
        ends = f"{command}\nstatus=$?\npwd > {self.home}/pwd; "
        ends += f"declare -p ID > {self.home}/id 2>/dev/null; exit $status"
        before = f"[ -f {self.home}/id ] && . {self.home}/id\n"
        done = subprocess.run(
            ["bash", "-c", before + ends],
            cwd=self.place,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
        self.shown[command] = done.stdout
        self.place = Path((self.home / "pwd").read_text().strip())

    def start(self) -> None:
        """Start `up`, on a port that is free, and wait until it serves."""
        log = self.place / "up.log"
        with log.open("wb") as output:
            self.running = subprocess.Popen(
                [*shlex.split(UP), "--port", str(unused_port())],
                cwd=self.place,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_S
        while not (self.place / ".online_learner" / "endpoint.json").exists():
            assert self.running.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """Press Ctrl-C where `up` runs."""
        if self.running is not None:
            self.running.send_signal(signal.SIGINT)
            assert self.running.wait(timeout=COMMAND_S) == 0
            self.running = None

    def told(self, beginning: str) -> str:
        """Return what the last command that begins so has printed."""
        return next(text for command, text in reversed(self.shown.items()) if beginning in command)

    def ask(self, *arguments: str) -> Any:
        """Return what a command tells as JSON."""
        done = subprocess.run(
            ["online-learner", *arguments, "--json"],
            cwd=self.place,
            env=self.environment,
            capture_output=True,
            check=True,
        )
        return json.loads(done.stdout)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Return a reader with an empty folder, and the commands of this environment."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    found = Reader(home, tmp_path, environment)
    yield found
    if found.running is not None:  # its guardian clears away what it leaves
        found.running.kill()
        found.running.wait()


@pytest.mark.ray
def test_every_command_works_and_the_model_is_promoted(reader: Reader) -> None:
    """By the page alone a model is promoted and rolled back, and one fitted elsewhere answers."""
    reader.follow()
    assert "0 taught, 400 taught before" in reader.told("teach queue")
    verdicts = reader.told("verdicts queue")
    assert "The champion follows the learner from now on" in verdicts
    assert re.search(r"correction +bug +key:up", reader.told("explain"))
    assert "starts anew" in reader.told("rollback")
    assert "Version 1 answers from now on" in reader.told("register queue fitted.pkl --note")
    assert re.search(r"^output +bug$", reader.told("the report crashes"), re.MULTILINE)
    answers = reader.ask("predict", "queue", '{"text": "thank you, I love the plan"}')
    assert (answers["version"], answers["output"]) == (1, "praise")
    [first, fitted] = reader.ask("versions", "queue")
    assert first["untrained"]
    assert fitted["registered"]["note"] == "400 tickets of spring"
    reader.stop()


def test_the_commands_are_those_of_the_page() -> None:
    """Every command of the page is one that there is, in a block that the test runs."""
    found = BLOCK.findall(PAGE.read_text())
    ran = [line for kind, text in found if kind == "bash" for line in text.splitlines()]
    assert ran.count(UP) == 2
    commands = {match[1] for line in ran if (match := re.search(r"online-learner (\S+)", line))}
    assert commands >= {"init", "up", "teach", "verdicts", "label", "rollback", "thaw", "register"}
    assert "```sh" not in PAGE.read_text()
