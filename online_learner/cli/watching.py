"""`watch`: what happens to a model, as it happens."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from online_learner.cli.completing import ModelName
from online_learner.cli.output import AsJson, cell, connect, visible

if TYPE_CHECKING:
    from online_learner.client import Event


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(watch)


def watch(
    model: ModelName,
    *,
    events: Annotated[
        str, typer.Option(help="Some of metrics, feedback, verdict, swap, alarm and quality.")
    ] = "metrics,feedback,verdict,swap,alarm",
    after: Annotated[
        str | None, typer.Option(help="The id of an event: begin after it, instead of now.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what happens to a model as it happens, a line an event, until Ctrl-C.

    With --json, each line is an object, and its `id` is for --after.
    """
    with connect() as client, contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        client.model(model)  # says at once where nobody answers, or there is no such model
        heard = client.stream(model, events.split(","), after=after)
        with contextlib.closing(heard):
            for event in itertools.islice(heard, count):
                typer.echo(_as_json(event) if as_json else _line(event))
                sys.stdout.flush()


def _as_json(event: Event) -> str:
    found = {"id": event.id, "event": event.kind, "model": event.model, "at": event.at}
    return json.dumps(found | {"data": event.data}, ensure_ascii=False)


def _line(event: Event) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(event.at))
    return f"{at}  {event.kind:<8}  {_told(event.kind, event.data)}"


def _told(kind: str, data: dict[str, Any]) -> str:
    """Return what an event says, in words.

    >>> _told("swap", {"version": 3, "lineage": 1, "step": 70})
    'version 3, step 70 of lineage 1 answers'
    >>> _told("metrics", {"predictions": 9, "feedback": 2, "learned": 2, "loop_ms": {"p50": 31.4}})
    '9 answers, 2 signals, 2 learned, heard to served in 31 ms (p50)'
    >>> _told("alarm", {"about": "loss", "sentence": "It rose.", "effects": ["ask x 2"]})
    'loss: It rose. (ask x 2)'
    >>> _told("quality", {"figures": {"champion.accuracy": 0.75}})
    'champion.accuracy 0.75'
    """
    told: str = data.get("detail", "")
    match kind:
        case "metrics":
            counts = "{predictions} answers, {feedback} signals, {learned} learned"
            loop = data["loop_ms"]
            after = f", heard to served in {loop['p50']:.0f} ms (p50)" if loop else ""
            told = counts.format_map(data) + after
        case "feedback":
            about = f" on {data['prediction_id']}" if data["prediction_id"] else ""
            told = f"{data['kind']}{about}"
        case "verdict":
            told = f"{data['action']} {cell(data['version'])}: {data['sentence']}"
        case "swap":
            told = "version {version}, step {step} of lineage {lineage} answers".format_map(data)
        case "alarm":
            effects = f" ({', '.join(data['effects'])})" if data["effects"] else ""
            told = f"{data['about']}: {data['sentence']}{effects}"
        case "quality":
            told = ", ".join(f"{name} {cell(n)}" for name, n in data["figures"].items())
    return visible(told)
