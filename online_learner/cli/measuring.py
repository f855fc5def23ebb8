"""`metrics`: one model at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from online_learner.cli.completing import ModelName
from online_learner.cli.output import AsJson, cell, connect, show, table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(metrics)


def metrics(
    model: ModelName,
    *,
    window_s: Annotated[
        float, typer.Option("--window", min=1, max=86_400, help="Seconds to look back.")
    ] = 900.0,
    as_json: AsJson = False,
) -> None:
    """Tell how much, how fast and how good, and what was lost on the way."""
    with connect() as client:
        found = client.metrics(model, window_s=window_s)

    def text() -> None:
        rates = found["rates"]
        typer.echo(
            f"{model}, the last {window_s:g} s: {rates['predictions_per_s']:.1f} answers a second, "
            f"{rates['feedback_per_min']:.1f} signals a minute."
        )
        table(("ms", "p50", "p99", "count"), map(_latency_row, found["latency_ms"].items()))
        stages = ("signals", "count", "p50 ms", "p99 ms", "lost before it")
        table(stages, map(_stage_row, found["funnel"]))
        score = found["score"]
        roles = ("role", "version", score["metric"], "from", "to", "answers")
        table(roles, map(_score_row, score["roles"].items()))

    show(found, as_json=as_json, text=text)


def _latency_row(item: tuple[str, Mapping[str, Any] | None]) -> tuple[object, ...]:
    name, found = item
    known = found or {}
    return (name, _ms(known.get("p50")), _ms(known.get("p99")), known.get("count", 0))


def _stage_row(stage: Mapping[str, Any]) -> tuple[object, ...]:
    delay = stage["delay_ms"] or {}
    lost = ", ".join(f"{reason} {n}" for reason, n in sorted(stage["lost"].items()))
    p50, p99 = _ms(delay.get("p50")), _ms(delay.get("p99"))
    return (stage["stage"], stage["count"], p50, p99, lost)


def _score_row(item: tuple[str, Mapping[str, Any]]) -> tuple[object, ...]:
    role, found = item
    shares = (cell(found[name]) for name in ("score", "low", "high"))
    return (role, found["version"], *shares, found["n"])


def _ms(value: float | None) -> str | None:
    """Return milliseconds as people read them.

    >>> _ms(0.4217), _ms(1234.5), _ms(None)
    ('0.42', '1,234', None)
    """
    return None if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.2f}"
