"""`gold`: the rows of a file become questions whose right answer is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from online_learner.cli import app
from online_learner.client import Client

ROWS = 'a,text,label\n1.5,"01234",news\n2.5,"x",sport\n3.5,"y",weather\n4.5,"z",\n'


SECRET = {
    "task": "classification",
    "labels": ["news", "sport", "science"],
    "learner": "river.naive_bayes:GaussianNB",
    "log_inputs": "none",
}


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service."""
    return start_service(topic={}, pages={}, secret=SECRET)


@pytest.fixture
def client(service: Any) -> Iterator[Client]:
    """Return a client of it."""
    with Client(service.url, service.key) as found:
        yield found


@pytest.fixture
def gold(service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return `gold(model, *arguments)`: the command on a file of four rows."""
    monkeypatch.setenv("OL_URL", service.url)
    monkeypatch.setenv("OL_API_KEY", service.key)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(ROWS)
    return lambda model, *arguments: CliRunner().invoke(
        app, ["gold", model, "rows.csv", "--label", "label", *arguments]
    )


def test_each_row_is_planted(gold: Callable[..., Result], client: Client) -> None:
    """The good ones are, each with its answer; the others are named by their lines."""
    done = gold("topic", "--text", "text", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert [item["line"] for item in found["refused"]] == [4, 5]
    assert "not among the labels" in found["refused"][0]["reason"]
    said = client.signals("topic")["feedback"]
    assert [(s["kind"], s["value"], s["source"]) for s in said] == [
        ("correction", "news", "key:tester"),
        ("correction", "sport", "key:tester"),
    ]
    record = client.prediction(found["planted"][0]["prediction_id"])["prediction"]
    assert record["features"] == {"a": 1.5, "text": "01234"}
    assert record["ask"]["reason"] == "gold"


def test_what_was_done_is_told(gold: Callable[..., Result]) -> None:
    """How many, until when, and what was wrong with the rest."""
    done = gold("topic")
    assert "2 questions planted, open until 20" in done.stdout
    assert "line 4: 'weather' is not among the labels" in done.stderr
    assert "line 5: 'label' is empty" in done.stderr


def test_where_none_can_be_planted_it_ends(gold: Callable[..., Result]) -> None:
    """The first row is told why; those after it would fare no better."""
    done = gold("secret", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["planted"] == []
    [refused] = found["refused"]
    assert "log_inputs: none" in refused["reason"]
    assert "not tried" in refused["reason"]


def test_a_ranking_takes_no_column(gold: Callable[..., Result]) -> None:
    """Where no column can be the right answer, the message says where to send it."""
    done = gold("pages")
    assert done.exit_code == 2
    assert "/gold" in done.stderr


def test_an_unknown_model_is_one(gold: Callable[..., Result]) -> None:
    """A model that is not served is refused as a whole."""
    done = gold("topics")
    assert done.exit_code == 1
    assert "no such model" in done.stderr
