"""`import`: rows of a file become answers and signals, once each, and none is lost unseen."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner, Result

from online_learner import importing
from online_learner.cli import app
from online_learner.client import Client, NotReachable
from online_learner.importing import rows
from online_learner.schema import Feedback, Prediction
from online_learner.store import open_store
from online_learner.store.keys import Keys

OK, PROBLEM, USAGE, UNREACHABLE = 0, 1, 2, 3
TOPIC = {
    "task": "classification",
    "labels": ["news", "sport", "science"],
    "learner": "river.naive_bayes:GaussianNB",
}


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service; each test has a model of its own."""
    names = (
        "once",
        "wrong",
        "stops",
        "dry",
        "told",
        "cells",
        "large",
        "learned",
        "chat",
        "again",
        "mark",
    )
    return start_service(**dict.fromkeys(names, TOPIC), rent={}, pages={}, llm={})


@pytest.fixture
def client(service: Any) -> Iterator[Client]:
    """Return a client of it."""
    with Client(service.url, service.key) as found:
        yield found


@pytest.fixture
def bring(service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return `bring(model, lines, *arguments)`: the command on a file, and what it says as JSON."""
    monkeypatch.setenv("OL_URL", service.url)
    monkeypatch.setenv("OL_API_KEY", service.key)
    monkeypatch.chdir(tmp_path)

    def run(model: str, file: str, *arguments: str, code: int = OK) -> dict[str, Any]:
        done = CliRunner().invoke(app, ["import", model, file, "--json", *arguments])
        assert done.exit_code == code, done.output
        return dict(json.loads(done.stdout))

    return run


def write(name: str, lines: list[Any]) -> str:
    """Write a file of JSON Lines; a text is a line as it is."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    Path(name).write_text("".join(f"{text}\n" for text in texts))
    return name


def answer(n: int, **more: Any) -> dict[str, Any]:
    """Return a row that was answered elsewhere."""
    return {"features": {"n": float(n)}, "output": "news", "version": 3, **more}


def stream(service: Any, model: str, name: str) -> list[dict[bytes, bytes]]:
    """Return what is in one of a model's streams."""

    async def read() -> list[dict[bytes, bytes]]:
        async with await open_store(service.server.url) as store:
            return [fields for _, fields in await store.range(getattr(Keys(model), name))]

    return asyncio.run(read())


def records(service: Any, model: str) -> list[Prediction]:
    """Return the answers in a model's log."""
    found = stream(service, model, "predictions")
    return [Prediction.model_validate_json(fields[b"r"]) for fields in found]


def signals(service: Any, model: str) -> list[Feedback]:
    """Return what was said of a model's answers."""
    found = stream(service, model, "feedback")
    return [Feedback.model_validate_json(fields[b"f"]) for fields in found]


def test_a_file_is_added_once(service: Any, bring: Any) -> None:
    """Answers with what was said of them; the second time nothing is new."""
    lines = [
        answer(n, user_id="ada", feedback=[{"kind": "correction", "value": "sport"}])
        for n in range(600)
    ]
    file = write("rows.jsonl", lines)
    found = bring("once", file)
    assert (found["rows"], found["logged"], found["accepted"]) == (600, 600, 600)
    again = bring("once", file)
    assert (again["logged"], again["known"], again["accepted"]) == (0, 600, 0)
    assert again["duplicate"] == 600
    kept = records(service, "once")
    assert [record.features["n"] for record in kept] == [float(n) for n in range(600)]
    assert {(r.role, r.model_version, r.user_id) for r in kept} == {("external", "3", "ada")}
    assert len(signals(service, "once")) == 600


def test_what_is_wrong_is_named_and_nothing_else_lost(service: Any, bring: Any) -> None:
    """By its row; the others are added."""
    lines = [
        answer(1),
        {**answer(2), "output": "wether"},
        '{"features": {"n": 3}, "output": "news"',
        "[1, 2]",
        {**answer(5), "fetures": {}},
        "",
        answer(7, feedback={"kind": "correction", "value": "wether"}),
        answer(8, feedback=["good"]),
        {"features": {"n": 9}},
        '{"features": {"n": NaN}, "output": "news"}',
        '{"features": {"n": 1}, "features": {"n": 2}, "output": "news"}',
        {"kind": "thumbs", "value": True, "external_id": "nobody"},
        {"features": {"n": "x" * 70_000}, "output": "news"},
        answer(14),
    ]
    found = bring("wrong", write("rows.jsonl", lines), code=PROBLEM)
    places = {item["row"]: item["reason"] for item in found["refused"]}
    assert sorted(places) == [2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13]
    assert "/output" in places[2]
    assert "JSON" in places[3]
    assert "did you mean 'features'" in places[5].lower()
    assert places[7].startswith("feedback: ")
    assert "`feedback`" in places[8]
    assert "twice" in places[11]
    assert "known under this external_id" in places[12]
    assert all("xxx" not in reason for reason in places.values())
    assert [record.features["n"] for record in records(service, "wrong")] == [1.0, 7.0, 14.0]
    assert found["logged"] == 3


def test_it_goes_on_where_it_stopped(
    service: Any, bring: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was acknowledged stays, the rest follows, in order."""
    monkeypatch.setattr(rows, "BATCH", 10)
    monkeypatch.setattr(importing, "BATCH", 10)
    said = [{"kind": "thumbs", "value": False}]
    file = write("rows.jsonl", [answer(n, feedback=said) for n in range(50)])
    send, calls = Client.feedback_batch, []

    def go_away(self: Client, items: Any) -> Any:
        calls.append(items)
        if len(calls) == 3:
            raise NotReachable("no answer")
        return send(self, items)

    with monkeypatch.context() as patch:
        patch.setattr(Client, "feedback_batch", go_away)
        done = CliRunner().invoke(app, ["import", "stops", file])
    assert done.exit_code == UNREACHABLE
    assert "20 of 50 rows" in done.output
    found = bring("stops", file)
    assert (found["known"], found["logged"]) == (30, 20)
    assert (found["duplicate"], found["accepted"]) == (20, 30)
    assert len(records(service, "stops")) == len(signals(service, "stops")) == 50


def test_a_dry_run_adds_nothing(service: Any, bring: Any) -> None:
    """What can be checked is: what was said of an answer that is not there, by its form."""
    good = {"kind": "correction", "value": "sport"}
    lines = [
        answer(1, external_id="x-1", feedback=[good]),
        answer(2, feedback=[{"kind": "corection", "value": "sport"}]),
        {**answer(3), "output": "wether"},
        {**good, "external_id": "x-1"},
        {**good, "external_id": "x-2"},
    ]
    found = bring("dry", write("rows.jsonl", lines), "--dry-run", code=PROBLEM)
    assert (found["dry_run"], found["logged"], found["accepted"]) == (True, 2, 2)
    assert [item["row"] for item in found["refused"]] == [2, 3, 5]
    assert records(service, "dry") == []
    assert signals(service, "dry") == []


def test_what_was_said_may_be_in_a_second_file(service: Any, bring: Any) -> None:
    """By the external id, with several signals in one, in the words of the API."""
    first = write("answers.jsonl", [answer(n, external_id=f"x-{n}") for n in range(3)])
    said = [
        {"external_id": "x-0", "kind": "correction", "value": "sport", "user_id": "ada"},
        {
            "external_id": "x-1",
            "user_id": "bob",
            "signals": [{"kind": "thumbs", "value": False}, {"kind": "rating", "value": 2}],
        },
    ]
    found = bring("told", first, "--feedback", write("said.jsonl", said))
    assert (found["rows"], found["logged"], found["accepted"]) == (5, 3, 2)
    kept = {(one.kind, one.source) for one in signals(service, "told")}
    assert kept == {("correction", "human:ada"), ("thumbs", "human:bob"), ("rating", "human:bob")}
    again = bring("told", "said.jsonl")
    assert (again["accepted"], again["duplicate"]) == (0, 2)


def test_the_last_word_in_the_file_counts(service: Any, bring: Any) -> None:
    """What a source says of one answer again and again arrives in the order of the rows."""
    values = [("news", "sport", "science")[n % 3] for n in range(12)]
    said = [{"kind": "correction", "value": value, "user_id": "ada"} for value in values]
    first = [answer(n, external_id=f"x-{n}", feedback=said[:6]) for n in range(40)]
    bring("again", write("answers.jsonl", first))
    more = [{**one, "external_id": f"x-{n}"} for one in said[6:] for n in range(40)]
    bring("again", write("said.jsonl", more))
    found: dict[str, list[Any]] = {}
    for one in signals(service, "again"):
        found.setdefault(one.prediction_id, []).append(one.value)
    assert list(found.values()) == [values] * 40


def test_parquet_is_read_as_it_is(service: Any, bring: Any) -> None:
    """Structs, maps, JSON in a text, times, empty cells: as the API takes them."""
    at = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
    table = pa.table(
        {
            "features": pa.array([{"a": 1.5, "b": None}, {"a": None, "b": "x"}]),
            "output": ["news", "sport"],
            "scores": pa.array(['{"news": 0.75}', None]),
            "tags": pa.array([[("shop", "x")], None], pa.map_(pa.string(), pa.string())),
            "observed_at": pa.array([at, None], pa.timestamp("ms", tz="UTC")),
            "feedback": pa.array([[{"kind": "correction", "value": "science"}], None]),
        }
    )
    parquet.write_table(table, "rows.parquet")
    assert bring("cells", "rows.parquet")["logged"] == 2
    first, second = records(service, "cells")
    assert (first.features, second.features) == ({"a": 1.5}, {"b": "x"})
    assert (first.scores, first.tags) == ({"news": 0.75}, {"shop": "x"})
    assert dt.datetime.fromisoformat(first.observed_at or "") == at
    assert [one.value for one in signals(service, "cells")] == ["science"]
    assert bring("cells", "rows.parquet")["known"] == 2


def test_features_may_be_json_in_a_text(bring: Any) -> None:
    """As our own datasets have them; a text that is none is named."""
    table = pa.table({"features": ['{"rooms": 3}', "rooms=3"], "output": [900.0, float("nan")]})
    parquet.write_table(table, "rows.parquet")
    found = bring("rent", "rows.parquet", code=PROBLEM)
    assert found["logged"] == 1
    assert [item["row"] for item in found["refused"]] == [2]


def test_a_cell_without_a_value_is_its_rows_business(bring: Any) -> None:
    """A name that stands twice, a year that no calendar has, bytes that are no text."""
    pairs, text = pa.map_(pa.string(), pa.float64()), pa.array([b"ok", b"\xff", b"ok", b"ok"])
    table = pa.table(
        {
            "features": pa.array([[("a", 1.0)], [("a", 1.0)], [("a", 1.0), ("a", 2.0)], []], pairs),
            "output": pa.array([1.0, 2.0, 3.0, 4.0]),
            "user_id": pa.Array.from_buffers(pa.string(), 4, text.buffers()),
            "observed_at": pa.array([1, 2, 3, 1 << 50], pa.int64()).cast(pa.timestamp("ms")),
        }
    )
    parquet.write_table(table, "rows.parquet")
    found = bring("rent", "rows.parquet", code=PROBLEM)
    assert found["logged"] == 1
    assert [item["row"] for item in found["refused"]] == [2, 3, 4]


def test_a_file_may_begin_with_a_byte_order_mark(bring: Any) -> None:
    """Some editors write one before the first row."""
    Path("rows.jsonl").write_text(
        f"{json.dumps(answer(1))}\n{json.dumps(answer(2))}\n", "utf-8-sig"
    )
    assert bring("mark", "rows.jsonl")["logged"] == 2


def test_a_damaged_file_is_named(bring: Any, tmp_path: Path) -> None:
    """Nothing of it is read."""
    parquet.write_table(pa.table({"output": [1.0]}), "rows.parquet")
    file = tmp_path / "rows.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    done = CliRunner().invoke(app, ["import", "rent", "rows.parquet"])
    assert done.exit_code == PROBLEM
    assert "rows.parquet" in done.output


def test_rows_that_are_too_large_together_are_sent_apart(service: Any, bring: Any) -> None:
    """A batch is halved until it fits; one that never does is named."""
    wide = {f"f{n}": "x" * 60_000 for n in range(3)}
    huge = {f"f{n}": "x" * 60_000 for n in range(30)}
    lines = [{"features": wide, "output": "news"} for _ in range(20)]
    lines.insert(7, {"features": huge, "output": "news"})
    found = bring("large", write("rows.jsonl", lines), code=PROBLEM)
    assert [item["row"] for item in found["refused"]] == [8]
    assert len(records(service, "large")) == 20


def test_generated_texts_and_chats_are_brought_in(service: Any, bring: Any) -> None:
    """With one output or several; a chat as it is."""
    chat = {
        "request": {"model": "m", "messages": [{"role": "user", "content": "2 + 2?"}]},
        "response": {
            "id": "chatcmpl-7",
            "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "4"}}],
        },
    }
    lines = [
        {"prompt": "2 + 2?", "output": "4", "feedback": [{"kind": "thumbs", "value": True}]},
        {"messages": [{"role": "user", "content": "Hi"}], "outputs": ["Hello", {"text": "Yo"}]},
        chat,
        {"prompt": "nothing"},
    ]
    found = bring("llm", write("rows.jsonl", lines), code=PROBLEM)
    assert [item["row"] for item in found["refused"]] == [4]
    kept = records(service, "llm")
    assert [record.output for record in kept] == [["0"], ["0", "1"], ["0"]]
    assert kept[2].model_version == "m"
    assert len(signals(service, "llm")) == 1
    assert bring("llm", "rows.jsonl", code=PROBLEM)["known"] == 3


def test_rankings_are_brought_in(service: Any, bring: Any) -> None:
    """With the options that there were."""
    options = [{"id": name, "features": {"x": x}} for x, name in enumerate("abc")]
    row = {"features": {"q": "x"}, "options": options, "output": ["b", "a"]}
    said = {"kind": "selection", "value": "a"}
    found = bring("pages", write("rows.jsonl", [row | {"feedback": said}]))
    assert (found["logged"], found["accepted"]) == (1, 1)
    wrong = row | {"feedback": {"kind": "selection", "value": "c"}}  # was not shown
    assert bring("pages", write("more.jsonl", [wrong]), code=PROBLEM)["refused"]


def test_it_is_learned(service: Any, bring: Any, client: Client) -> None:
    """As anything is that people say."""
    lines = []
    for n in range(60):
        said = {"kind": "correction", "value": ("sport", "science")[n % 2], "user_id": f"u{n}"}
        lines.append({"features": {"n": float(n % 2)}, "output": "news", "feedback": [said]})
    bring("learned", write("rows.jsonl", lines))
    asyncio.run(service.turn())
    model = client.model("learned")
    assert model["learned"] == 60
    assert model["gate"]["answered"] == 0


def test_people_are_told_in_words(bring: Any) -> None:
    """How many, and the first that were refused."""
    lines = [{**answer(n), "output": "wether"} for n in range(30)]
    done: Result = CliRunner().invoke(app, ["import", "again", write("rows.jsonl", lines)])
    assert done.exit_code == PROBLEM
    assert "30 rows: 30 refused." in done.output
    assert "rows.jsonl, row 1: " in done.output
    assert "and 10 more" in done.output
    done = CliRunner().invoke(app, ["import", "nobody", "rows.jsonl"])
    assert done.exit_code == PROBLEM
    assert CliRunner().invoke(app, ["import", "again", "nowhere.jsonl"]).exit_code == USAGE
