"""`predict` and `feedback`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from online_learner.cli.output import AsJson, connect, pairs, show


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(predict)
    app.command()(feedback)


def predict(
    model: str,
    features: Annotated[
        str, typer.Argument(help="A JSON object; @FILE reads a file, - reads standard input.")
    ],
    *,
    top_k: Annotated[int | None, typer.Option(help="Only the K best scores.")] = None,
    user_id: Annotated[str | None, typer.Option(help="Who asks.")] = None,
    session_id: Annotated[str | None, typer.Option(help="In which session.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a model for one answer."""
    asked: dict[str, Any] = {"top_k": top_k, "user_id": user_id, "session_id": session_id}
    fields = {name: value for name, value in asked.items() if value is not None}
    given = read_object(features)
    with connect() as client:
        answer = client.predict(model, given, **fields)
    scores = ", ".join(f"{label} {score:.3g}" for label, score in answer.scores.items())
    lines = {
        "output": answer.output,
        "scores": scores,
        "version": f"{answer.version}, step {answer.step}",
        "prediction id": answer.prediction_id,
        "feedback until": answer.feedback_expires_at,
    }
    show(dict(answer.raw), as_json=as_json, text=lambda: pairs(lines))


def feedback(
    prediction_id: str,
    kind: Annotated[str, typer.Argument(help="thumbs or correction")],
    value: Annotated[
        str,
        typer.Argument(
            help="JSON (true, 3.5, '\"3\"'); what is not JSON is a string. Thumbs take up and down."
        ),
    ],
    *,
    user_id: Annotated[str | None, typer.Option(help="Who says it.")] = None,
    comment: Annotated[str | None, typer.Option(help="In their own words.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it, accept nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is right or wrong about an answer."""
    said: dict[str, Any] = {"user_id": user_id, "comment": comment, "dry_run": dry_run or None}
    fields = {name: value for name, value in said.items() if value is not None}
    with connect() as client:
        receipt = client.feedback(prediction_id, kind, read_value(value, kind), **fields)
    lines = {
        "status": "it would be accepted" if dry_run else receipt.status,
        "durability": receipt.durability,
        "feedback id": receipt.feedback_id,
    }
    show(asdict(receipt), as_json=as_json, text=lambda: pairs(lines))


def read_value(text: str, kind: str) -> Any:
    """Return a value as it is meant.

    >>> read_value("true", "correction"), read_value("3.5", "correction")
    (True, 3.5)
    >>> read_value("spam", "correction"), read_value('"3"', "correction")
    ('spam', '3')
    >>> read_value("down", "thumbs")
    False
    """
    if kind == "thumbs" and text in ("up", "down"):
        return text == "up"
    try:
        return json.loads(text, parse_constant=_not_a_number)
    except ValueError:
        return text


def read_object(text: str) -> dict[str, Any]:
    """Return the JSON object in an argument, a file (`@file`) or standard input (`-`).

    >>> read_object('{"links": 3}')
    {'links': 3}
    """
    try:
        source = _source(text)
        found = json.loads(source, parse_constant=_not_a_number)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{error}. Write '{{\"name\": 1}}', @FILE or -") from None
    if not isinstance(found, dict):
        raise typer.BadParameter("the features are an object: '{\"name\": 1}'")
    return found


def _source(text: str) -> str:
    if text == "-":
        return sys.stdin.read()
    return Path(text[1:]).read_text() if text.startswith("@") else text


def _not_a_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number that can be sent")
