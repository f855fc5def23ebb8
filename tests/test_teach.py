"""`teach`: rows of a file become questions and corrections, once each, and none is lost unseen."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from online_learner import auth
from online_learner.cli import app, teaching
from online_learner.cli.rows import Columns, Rows, Wrong
from online_learner.cli.score import score_of
from online_learner.cli.truths import reader_of
from online_learner.client import Client, NotReachable
from online_learner.store import open_store

OK, PROBLEM, USAGE, UNREACHABLE = 0, 1, 2, 3


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service."""
    topic = {"labels": ["news", "sport", "science"], "task": "classification"}
    learner = {"learner": "river.naive_bayes:GaussianNB"}
    names = (
        "once",
        "again",
        "bad",
        "who",
        "lines",
        "broken",
        "waits",
        "holes",
        "away",
        "odd",
        "long",
    )
    models = dict.fromkeys(names, topic | learner)
    return start_service(rent={}, pages={}, web={}, **models)


@pytest.fixture
def client(service: Any) -> Iterator[Client]:
    """Return a client of it."""
    with Client(service.url, service.key) as found:
        yield found


@pytest.fixture
def teach(service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return `teach(model, text, *arguments)`: the command on a file with this text."""
    monkeypatch.setenv("OL_URL", service.url)
    monkeypatch.setenv("OL_API_KEY", service.key)
    monkeypatch.setattr(teaching, "CAUGHT_UP_S", 0.0)  # no learner runs here
    monkeypatch.chdir(tmp_path)

    def run(model: str, text: str, *arguments: str, name: str = "rows.csv") -> Result:
        (tmp_path / name).write_text(text)
        given = ["teach", model, name, "--label", "label", "--rate", "0", "--json", *arguments]
        return CliRunner().invoke(app, given)

    return run


def table(count: int) -> str:
    """Return a table in which the sign of a number is the label."""
    rows = [f'{n - count / 2},"{"news" if n % 3 else "sport"}"' for n in range(count)]
    return "\n".join(["a,label", *rows]) + "\n"


def said(client: Client, model: str) -> list[dict[str, Any]]:
    """Return what was said, oldest first."""
    return list(client.signals(model, count=1000)["feedback"])


def report(done: Result, code: int = OK) -> Any:
    """Check the exit code, and return what was printed as JSON."""
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


# --- the loop ---------------------------------------------------------------------------------


def test_each_row_is_asked_and_corrected(
    teach: Callable[..., Result], client: Client, service: Any
) -> None:
    """As many corrections arrive as there are rows, and the learner learns them."""
    found = report(teach("once", table(150)))
    assert (found["rows"], found["taught"], found["refused"]) == (150, 150, [])
    assert Counter(s["value"] for s in said(client, "once")) == {"news": 100, "sport": 50}
    assert found["score"]["n"] == 150
    assert 0.6 < found["score"]["baseline"] < 100 / 150
    asyncio.run(service.turn())
    assert client.model("once")["learned"] == 150


def test_a_second_run_teaches_nothing(teach: Callable[..., Result], client: Client) -> None:
    """The same rows again are known; more rows behind them are taught, those before are not."""
    assert report(teach("again", table(100)))["taught"] == 100
    found = report(teach("again", table(100)))
    assert (found["taught"], found["duplicates"], found["score"]) == (0, 100, None)
    assert len(said(client, "again")) == 100
    assert report(teach("again", table(100), "--feature", "a"))["taught"] == 100  # asked otherwise


def test_it_goes_on_where_it_was_stopped(
    teach: Callable[..., Result], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off between a question and its correction, the next run corrects that very answer."""
    correct, calls = teaching.Lesson._correct, []

    def break_off(lesson: Any, batch: Any) -> Any:
        calls.append(len(batch))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return correct(lesson, batch)

    with monkeypatch.context() as patch:
        patch.setattr(teaching.Lesson, "_correct", break_off)
        stopped = report(teach("broken", table(300)), PROBLEM)
    assert stopped["stopped"]
    assert 0 < stopped["taught"] < 300
    found = report(teach("broken", table(300)))
    assert found["duplicates"] == stopped["taught"]
    assert found["taught"] == 300 - stopped["taught"]
    assert found["score"]["n"] == 300 - stopped["score"]["n"]
    assert len(said(client, "broken")) == 300


def test_it_goes_on_behind_rows_that_were_refused(
    teach: Callable[..., Result], client: Client
) -> None:
    """However many of them come one after the other, no row behind them is asked twice."""
    good = ['{"a": 1, "label": "news"}'] * 20
    bad = ['{"a": {"b": [null]}, "label": "news"}'] * (2 * teaching.MAX_BATCH)
    lines = "\n".join([*good, *bad, *good])
    assert report(teach("holes", lines, name="rows.jsonl"), PROBLEM)["taught"] == 40
    found = report(teach("holes", lines, name="rows.jsonl"), PROBLEM)
    assert (found["taught"], found["duplicates"], found["score"]) == (0, 40, None)
    assert len(said(client, "holes")) == 40


def test_where_nobody_answers_it_says_how_far_it_came(
    teach: Callable[..., Result], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service goes away in the middle: the next run teaches what is left, once."""
    ask, calls = Client.predict_batch, []

    def go_away(self: Client, *given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise NotReachable("nobody answers")
        return ask(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Client, "predict_batch", go_away)
        done = teach("away", table(200))
    assert done.exit_code == UNREACHABLE
    assert "128 rows were taught. Run it again to go on" in done.stderr
    assert report(teach("away", table(200)))["taught"] == 72
    assert len(said(client, "away")) == 200


def test_rows_that_cannot_be_taught_are_named(teach: Callable[..., Result], client: Client) -> None:
    """Each has its line and its reason; the others are taught, and the exit code tells."""
    text = 'a,label\n1,news\n2,wether\n3\n"4\n",sport\n,news\n5,\n6,Sport\n7,science\n'
    found = report(teach("bad", text), PROBLEM)
    refused = {item["line"]: item["reason"] for item in found["refused"]}
    assert found["taught"] == 3
    assert set(refused) == {3, 4, 7, 8, 9}
    assert "'wether' is not among the labels of the model: news, sport, science." in refused[3]
    assert refused[4] == "it has 1 cells, and the first line 2"
    assert "no feature" in refused[7]
    assert "is empty" in refused[8]
    assert "Did you mean 'sport'?" in refused[9]
    assert {s["value"] for s in said(client, "bad")} == {"news", "sport", "science"}


def test_what_the_service_refuses_is_named(teach: Callable[..., Result]) -> None:
    """A feature that no model takes is refused by the service, for this row alone."""
    lines = '{"a": 1, "label": 3}\n{"a": {"b": [null]}, "label": 4}\n{"a": 2, "label": 5.5}\n'
    found = report(teach("rent", lines, name="rows.jsonl"), PROBLEM)
    assert found["taught"] == 2
    [refused] = found["refused"]
    assert refused["line"] == 2


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("rows.csv", "a,label\n1,news\n1e999,news\n2,news\n", {3}),
        ("rows.csv", f"a,label\n1,news\n{'9' * 5000},news\n2,news\n", {3}),
        ("rows.csv", "a,label\nx,news\n\0,news\ny,news\n", {3}),
        ("rows.jsonl", '{"a": 1e999, "label": "news"}\n{"a": 1, "label": "news"}\n', {1}),
        ("rows.jsonl", f'{{"a": {"[" * 2000}\n{{"a": 1, "label": "news"}}\n', {1}),
        ("rows.jsonl", '{"a": "\\ud800", "label": "news"}\n{"a": "b", "label": "news"}\n', {1}),
    ],
    ids=["infinite", "digits", "NUL", "infinite JSON", "deep", "surrogate"],
)
def test_one_row_stops_no_other(
    teach: Callable[..., Result], name: str, text: str, lines: set[int]
) -> None:
    """What cannot be sent, or spoils a whole request, is refused by its line."""
    found = report(teach("odd", text, name=name), PROBLEM)
    assert {item["line"] for item in found["refused"]} == lines
    assert found["taught"] == found["rows"] - len(lines)


def test_long_texts_go_in_smaller_requests(teach: Callable[..., Result], client: Client) -> None:
    """Where a batch is larger than a body may be, it is sent in parts."""
    text = "word " * 5_000
    found = report(teach("long", "a,label\n" + "".join(f"{n} {text},news\n" for n in range(64))))
    assert (found["taught"], found["score"]["n"]) == (64, 64)


def test_raters_are_named(teach: Callable[..., Result], client: Client) -> None:
    """A column says whose word each is, or an option of all; else it is the key's own."""
    report(teach("who", "a,label,by\n1,news,ada\n2,sport,bob\n", "--rater-column", "by"))
    report(teach("who", "a,label\n3,news\n", "--rater", "eve"))
    report(teach("who", "a,label\n4,news\n"))
    found = {signal["source"]: signal["prediction_id"] for signal in said(client, "who")}
    assert set(found) == {"human:ada", "human:bob", "human:eve", "key:tester"}
    assert client.prediction(found["human:ada"])["prediction"]["features"] == {"a": 1}


def test_json_lines_keep_their_types(teach: Callable[..., Result], client: Client) -> None:
    """A JSONL file needs no guess at what its values are."""
    lines = '\n{"a": 1.5, "b": true, "c": "7", "label": "news"}\n'
    assert report(teach("lines", lines, name="rows.jsonl"))["taught"] == 1
    [signal] = said(client, "lines")
    record = client.prediction(signal["prediction_id"])["prediction"]
    assert record["features"] == {"a": 1.5, "b": True, "c": "7"}


@pytest.mark.parametrize(
    ("model", "text", "more", "why"),
    [
        ("web", "a,b\n1,2\n", "", "there is no column 'label'"),
        ("web", "a,label\n1,true\n", "--feature=aa", "Did you mean 'a'?"),
        ("web", "a,a,label\n", "", "'a' twice"),
        ("web", "", "", "name the columns"),
        ("web", 'a,label\n"1,true\n', "", "Is a quote not closed?"),
        ("pages", "a,label\n1,2\n", "", "does ranking"),
    ],
)
def test_files_that_cannot_be_taught(
    teach: Callable[..., Result], model: str, text: str, more: str, why: str
) -> None:
    """A wrong column, header or task is wrong usage, and it says what would be right."""
    done = teach(model, text, *more.split())
    assert done.exit_code == USAGE
    assert why in " ".join(done.output.replace("│", " ").split())


def test_in_words(service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --json, a few lines tell what was taught, how it went, and what is evidence."""
    monkeypatch.setenv("OL_URL", service.url)
    monkeypatch.setenv("OL_API_KEY", service.key)
    monkeypatch.setattr(teaching, "CAUGHT_UP_S", 0.0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("a,label\n1,true\n2,maybe\n")
    done = CliRunner().invoke(app, ["teach", "web", "rows.csv", "--label", "label"])
    assert done.exit_code == PROBLEM
    assert "2 rows: 1 taught, 1 refused." in done.stdout
    assert "line 3: 'maybe' is not among the labels" in done.stderr
    assert "Served: accuracy" in done.stdout
    assert "one rater's word" in done.stdout


def test_it_says_what_the_gate_waits_for(
    teach: Callable[..., Result], client: Client, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that nobody labelled holds up the evidence; an auditor is told how many do."""
    key, ended = "ol_the_auditors_key", threading.Event()
    asyncio.run(let_in(service, key))
    monkeypatch.setenv("OL_AUDIT_KEY", key)
    monkeypatch.setattr(teaching, "CAUGHT_UP_S", 10.0)
    client.predict("waits", {"a": 1.0})

    def learn() -> None:
        while not ended.is_set():
            asyncio.run(service.turn())

    learner = threading.Thread(target=learn)
    learner.start()
    try:
        found = report(teach("waits", table(20)))
    finally:
        ended.set()
        learner.join()
    assert (found["taught"], found["waiting"]) == (20, 1)


async def let_in(service: Any, key: str) -> None:
    """Let an auditor in, and wait until the service knows the key."""
    async with await open_store(service.server.url) as store:
        await auth.allow(store, key, name="auditor", scopes=auth.AUDITOR)
    deadline = time.monotonic() + 10.0
    with service.client(key) as http:
        while http.get("/v1/session").status_code != 200:
            assert time.monotonic() < deadline


# --- cells ------------------------------------------------------------------------------------


def cells(tmp_path: Path, written: str, **columns: Any) -> list[dict[str, Any]]:
    """Return the features of the rows of a table."""
    file = tmp_path / "cells.csv"
    file.write_text(written, encoding="utf-8")
    return [row.features for row in Rows(file, Columns("y", **columns))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x,y\n1,a\n2.5,a\n", [{"x": 1}, {"x": 2.5}]),
        ("x,y\n1,a\ntwo,a\n", [{"x": "1"}, {"x": "two"}]),
        ("x,y\ntrue,a\nFALSE,a\n", [{"x": True}, {"x": False}]),
        ("x,y\ntrue,a\n1,a\n", [{"x": "true"}, {"x": "1"}]),
        ("x,z,y\n01234,,a\n99,1,a\n", [{"x": "01234"}, {"x": "99", "z": 1}]),
        ("x;y\n1,5;a\n", [{"x": "1,5"}]),
        ("x\ty\n1\ta\n", [{"x": 1}]),
        ('x,y\n"a ""b"", c\nd",a\n', [{"x": 'a "b", c\nd'}]),
        ("\ufeffx,y\nnan,a\n\n2,a\n", [{"x": "nan"}, {"x": "2"}]),
    ],
)
def test_cells_are_what_their_column_is(
    tmp_path: Path, text: str, found: list[dict[str, Any]]
) -> None:
    """Numbers and truth values where the whole column is that; quotes, tabs and marks are known."""
    assert cells(tmp_path, text) == found


def test_text_stays_text(tmp_path: Path) -> None:
    """A column that is said to be text is that, though it looks like numbers."""
    assert cells(tmp_path, "x,z,y\n1,2,a\n", text=("x",)) == [{"x": "1", "z": 2}]


def test_a_file_that_is_no_utf8(tmp_path: Path) -> None:
    """Where the bytes are no text, it says where, and what converts them."""
    file = tmp_path / "latin.csv"
    file.write_bytes("x,y\nGrüße,a\n".encode("latin-1"))
    with pytest.raises(typer.BadParameter, match="no UTF-8 at byte"):
        Rows(file, Columns("y"))


@pytest.mark.parametrize(
    ("task", "labels", "cell", "label"),
    [
        ("classification", [False, True], "True", True),
        ("classification", [1, 2], "2", 2),
        ("classification", ["1", "2"], "2", "2"),
        ("classification", ["Yes", "no"], "Yes", "Yes"),
        ("classification", None, "4", 4),
        ("regression", None, "1e2", 100.0),
    ],
)
def test_labels_are_those_of_the_model(
    task: str, labels: list[Any] | None, cell: str, label: Any
) -> None:
    """A cell becomes the very label that the configuration has."""
    found = reader_of(task, labels)(cell)
    assert (found, type(found)) == (label, type(label))


@pytest.mark.parametrize(
    ("task", "labels", "cell"),
    [("regression", None, "true"), ("regression", None, "x"), ("classification", ["Yes"], "yes")],
)
def test_what_is_no_label(task: str, labels: list[Any] | None, cell: str) -> None:
    """What is none says so."""
    with pytest.raises(Wrong):
        reader_of(task, labels)(cell)


def test_the_score_of_numbers() -> None:
    """The error is held against that of always saying the mean so far."""
    score = score_of("regression")
    for output, right in ((1.0, 2.0), (None, 4.0)):
        score.add(output, right)
    found = score.report()
    assert found == {"metric": "mean error", "n": 2, "served": 2.5, "last": 2.5, "baseline": 2.0}
