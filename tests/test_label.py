"""`label`: the audit queue in the terminal, a key a label, on a real terminal and from a pipe."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from online_learner import auth
from online_learner.cli import app, labelling
from online_learner.cli.choices import choices_for
from online_learner.client import Client
from online_learner.store import open_store

AUDITOR = "ol_the_auditors_key"
COMMAND = Path(sys.executable).with_name("online-learner")
WITHIN_S = 20.0
MANY = [f"label {n}" for n in range(12)]


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service with a model of each task."""
    topic = {"task": "classification", "labels": ["news", "sport", "science"]}
    learner = {"learner": "river.naive_bayes:GaussianNB"}
    started = start_service(
        keys=topic | learner,
        undo=topic | learner,
        piped=topic | learner,
        quiet=topic | learner,
        long=topic | learner,
        shared=topic | learner,
        many=topic | learner | {"labels": MANY},
        rent={},
        pages={},
        llm={},
    )
    asyncio.run(_admit_auditor(started))
    return started


async def _admit_auditor(service: Any) -> None:
    """Let an auditor in, and wait until the service knows the key."""
    async with await open_store(service.server.url) as store:
        await auth.allow(store, AUDITOR, name="auditor", scopes=auth.AUDITOR)
    deadline = time.monotonic() + WITHIN_S
    with service.client(AUDITOR) as http:
        while http.get("/v1/session").status_code != 200:
            assert time.monotonic() < deadline


@pytest.fixture
def client(service: Any) -> Iterator[Client]:
    """Return a client of it."""
    with Client(service.url, service.key) as found:
        yield found


def _own_terminal() -> None:
    """Let Ctrl-C on the terminal reach the process, even where the tests themselves ignore it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A command on a terminal of its own: what it shows, and the keys that are pressed."""

    def __init__(self, *arguments: str, service: Any, term: str = "xterm") -> None:
        self._terminal, side = pty.openpty()
        self.shown = ""
        environment = {"OL_URL": service.url, "OL_API_KEY": service.key, "TERM": term}
        self.process = subprocess.Popen(
            [COMMAND, *arguments],
            stdin=side,
            stdout=side,
            stderr=side,
            env=os.environ | environment | {"OL_AUDIT_KEY": AUDITOR},
            preexec_fn=_own_terminal,  # noqa: PLW1509
            start_new_session=True,
        )
        os.close(side)

    def expect(self, pattern: str) -> str:
        """Wait until something new is shown, and return it with all before it."""
        deadline = time.monotonic() + WITHIN_S
        while (found := re.search(pattern, self.shown)) is None:
            assert time.monotonic() < deadline, self.shown
            if select.select([self._terminal], [], [], 0.1)[0]:
                try:
                    piece = os.read(self._terminal, 1 << 16)
                except OSError:  # the other side is closed
                    piece = b""
                assert piece, f"it ended, and showed {self.shown}"
                self.shown += piece.decode()
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._terminal, keys.encode())

    def ended(self) -> int:
        """Wait for the end, and return the exit code."""
        return self.process.wait(timeout=WITHIN_S)

    def close(self) -> None:
        """End it, if it has not."""
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


@pytest.fixture
def open_terminal(service: Any) -> Iterator[Callable[..., Terminal]]:
    """Return a factory of commands on terminals of their own; all are ended after the test."""
    with ExitStack() as opened:

        def start(*arguments: str, term: str = "xterm") -> Terminal:
            terminal = Terminal(*arguments, service=service, term=term)
            opened.callback(terminal.close)
            return terminal

        yield start


def ask(client: Client, model: str, count: int, **fields: Any) -> list[str]:
    """Ask so many questions; all of them are audited, since nothing is trusted yet."""
    found = [client.predict(model, {"a": float(n)}, **fields).prediction_id for n in range(count)]
    return [str(name) for name in found]


def said(client: Client, model: str) -> list[Any]:
    """Return what was said, oldest first."""
    return [(s["kind"], s["value"]) for s in client.signals(model)["feedback"]]


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_one_key_a_label(open_terminal: Callable[..., Terminal], client: Client, term: str) -> None:
    """1 to 9 choose a label, without Enter, on a dumb terminal as well; s skips, q ends."""
    before = len(said(client, "keys"))
    ask(client, "keys", 3)
    terminal = open_terminal("label", "keys", "--rater", "ada", term=term)
    assert "1 news   2 sport   3 science   c other" in terminal.expect("q quit")
    terminal.press("2")
    terminal.expect("-> correction sport")
    terminal.expect("q quit")
    terminal.press("s")
    terminal.expect("q quit")
    terminal.press("x")
    terminal.expect("says nothing here")
    terminal.press("q")
    terminal.expect("1 labelled, 1 skipped")
    assert terminal.ended() == 0
    assert said(client, "keys")[before:] == [("correction", "sport")]
    assert client.signals("keys")["feedback"][-1]["source"] == "human:ada"


def test_the_last_one_can_be_taken_back(
    open_terminal: Callable[..., Terminal], client: Client
) -> None:
    """U shows the one before again; a label is sent once there is another, and once only."""
    ask(client, "undo", 2)
    terminal = open_terminal("label", "undo")
    terminal.expect("q quit")
    terminal.press("u")
    terminal.expect("nothing to take back")
    first = terminal.expect("q quit")
    terminal.press("1")
    second = terminal.expect("q quit")
    assert said(client, "undo") == []
    terminal.press("u")
    terminal.expect("Once more")
    again = terminal.expect("q quit")
    assert re.search(r"a +\S+", again).group() == re.search(r"a +\S+", first).group()  # type: ignore[union-attr]
    assert re.search(r"a +\S+", again).group() != re.search(r"a +\S+", second).group()  # type: ignore[union-attr]
    terminal.press("3")
    terminal.expect("q quit")
    terminal.press("c")
    terminal.expect("other: ")
    terminal.press("wether\n")
    terminal.expect("not among the labels")
    terminal.press("c")
    terminal.expect("other: ")
    terminal.press("new\n")
    terminal.expect("2 labelled")
    assert terminal.ended() == 0
    assert said(client, "undo") == [("correction", "science"), ("correction", "news")]


def test_ctrl_c_sends_nothing_more(open_terminal: Callable[..., Terminal], client: Client) -> None:
    """Whoever is startled by their own key may break off: the last label stays unsent."""
    before = said(client, "piped")
    ask(client, "piped", 2)
    terminal = open_terminal("label", "piped")
    terminal.expect("q quit")
    terminal.press("1")
    terminal.expect("q quit")
    terminal.press("\x03")
    terminal.expect("0 labelled. The last label was not sent.")
    assert terminal.ended() != 0
    assert said(client, "piped") == before


@pytest.fixture
def piped(service: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return `piped(lines, *arguments)`: the command with its input from a pipe."""
    monkeypatch.setenv("OL_URL", service.url)
    monkeypatch.setenv("OL_API_KEY", service.key)
    monkeypatch.setenv("OL_AUDIT_KEY", AUDITOR)
    return lambda lines, *arguments: CliRunner().invoke(app, ["label", *arguments], input=lines)


@pytest.mark.parametrize(
    ("model", "lines", "expected"),
    [
        ("piped", "1\n", [("correction", "news")]),
        ("many", "label 11\n", [("correction", "label 11")]),
        ("rent", "many\n12.5\n", [("correction", 12.5)]),
    ],
)
def test_lines_from_a_pipe(
    piped: Callable[..., Result], client: Client, model: str, lines: str, expected: list[Any]
) -> None:
    """From a pipe each line is a key, a label's name or a number; the end of it is the end."""
    before = len(said(client, model))
    ask(client, model, 1)
    done = piped(lines, model, "--count", "1")
    assert done.exit_code == 0, done.output
    assert said(client, model)[before:] == expected
    assert "1 labelled" in done.stdout


def test_a_long_walk_leases_a_few_at_a_time(
    piped: Callable[..., Result], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a page of them, and then the next, up to the last or to so many as are wanted."""
    monkeypatch.setattr(labelling, "PAGE", 2)
    ask(client, "long", 5)
    done = piped("1\n1\n1\n", "long", "--count", "3")
    assert done.exit_code == 0, done.output
    assert "3 labelled" in done.stdout
    done = piped("1\n1\n", "long")
    assert "No answer waits for a label.\n2 labelled" in done.stdout


def test_what_one_has_on_the_screen_no_other_gets(
    open_terminal: Callable[..., Terminal], piped: Callable[..., Result], client: Client
) -> None:
    """Two who label at once share the answers out; who ends gives back what is left."""
    ask(client, "shared", 3)
    terminal = open_terminal("label", "shared", "--rater", "ada")
    terminal.expect("q quit")
    assert "0 labelled." in piped("1\n", "shared", "--rater", "bob").stdout
    terminal.press("1")
    terminal.expect("q quit")
    terminal.press("s")
    terminal.expect("q quit")
    terminal.press("q")
    terminal.expect("1 labelled, 1 skipped")
    assert terminal.ended() == 0
    assert "1 labelled." in piped("1\n", "shared", "--rater", "ada").stdout
    assert "1 labelled." in piped("1\n", "shared", "--rater", "bob").stdout
    assert len(said(client, "shared")) == 3


def test_options_are_chosen(piped: Callable[..., Result], client: Client) -> None:
    """Of an order, the best option is chosen, or none of them."""
    options = [{"id": "a", "features": {"x": 1.0}}, {"id": "b", "features": {"x": 2.0}}]
    ask(client, "pages", 2, options=options)
    done = piped("2\n0\n", "pages", "--count", "2")
    assert done.exit_code == 0, done.output
    assert sorted(map(str, said(client, "pages"))) == ["('selection', 'b')", "('selection', None)"]
    assert "2 b" in done.stdout


def test_texts_are_liked_or_bettered(piped: Callable[..., Result], client: Client) -> None:
    """Where there is no right answer, thumbs, the better of several, or a better text."""
    for outputs in (["Because."], ["It scatters.", "It is paint."], ["Why?"]):
        client.log("llm", prompt="Why is the sky blue?", outputs=outputs)
    done = piped("-\n+\nc\nRayleigh.\n", "llm")
    assert done.exit_code == 0, done.output
    kinds = sorted(str(item) for item in said(client, "llm"))
    assert kinds == ["('correction', 'Rayleigh.')", "('thumbs', False)", "('thumbs', True)"]
    assert "Why is the sky blue?" in done.stdout


def test_the_queue_as_json(piped: Callable[..., Result], client: Client) -> None:
    """`--json` lists what waits, with the labels, and says nothing about any of it."""
    names = ask(client, "quiet", 2)
    done = piped("", "quiet", "--json")
    found = json.loads(done.stdout)
    assert found["labels"] == ["news", "sport", "science"]
    assert sorted(item["prediction_id"] for item in found["queue"]) == sorted(names)
    assert said(client, "quiet") == []


def test_what_users_sent_does_nothing_to_the_terminal(
    open_terminal: Callable[..., Terminal], client: Client
) -> None:
    """A text that would clear the screen is shown as what it is."""
    client.log("llm", prompt="\x1b[2J\x1b]0;title\x07 hello", outputs=["\x1b[31mred"])
    terminal = open_terminal("label", "llm")
    shown = terminal.expect("q quit")
    assert "\\x1b[2J" in shown
    assert "\x1b[2J" not in shown
    assert "\x1b[31m" not in shown
    terminal.press("q")
    assert terminal.ended() == 0


def test_it_takes_an_auditor(
    piped: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a key of auditors, the refusal says which scope it takes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OL_AUDIT_KEY")
    done = piped("", "keys", "--lane", "audit")
    assert done.exit_code == 1
    assert "scope 'audit'" in done.stderr
    done = piped("", "keys", "--lane", "ask")
    assert done.exit_code == 0, done.output
    assert "No answer waits for a label." in done.stdout


def test_choices_without_a_closed_set() -> None:
    """Where labels are learned as they come, one key agrees, and another label is typed."""
    found = choices_for({"task": "classification", "labels": None}, {"options": []})
    assert found.told() == "1 right   c the right label"
