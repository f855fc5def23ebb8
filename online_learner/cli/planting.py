"""`gold`: plant the rows of a file as questions whose right answer is known, to learn of raters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from online_learner.cli.completing import ModelName
from online_learner.cli.output import AsJson, connect, progress, show, when
from online_learner.cli.rows import Columns, Rows
from online_learner.cli.truths import reader_of

if TYPE_CHECKING:
    from online_learner.client import Client

Refused = tuple[int, str]  # the line of a row, and why it was not taken
MOST_TOLD = 20  # rows that were refused


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(gold)


def gold(
    model: ModelName,
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="CSV with a header, or .jsonl.")
    ],
    *,
    label: Annotated[str, typer.Option(help="The column with the right answer.")],
    feature: Annotated[
        list[str] | None, typer.Option(help="A column to ask with; again for more. Default: all.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="A column that is text even where it looks otherwise.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Plant questions whose right answer you know: what raters say of them tells about raters.

    The model answers each row as any other question, and learns your answer. For as long as a
    question stays open (`ask_for_s`) it is among those that named raters are handed (`label --rater
    NAME --lane ask`, and `POST .../queue/lease`) until they have answered it, and nothing tells it
    from the others but its time: plant a few at a time. A row is planted again each time that you
    run this.

    Exit code 1: some rows could not be planted; each is named with its line.
    """
    columns = Columns(label, tuple(feature) if feature else None, tuple(text or ()))
    with connect() as client:
        about = client.model(model)
        if about["task"] not in ("classification", "regression"):
            raise typer.BadParameter(
                f"'{model}' does {about['task']}, which no column of a file is the right answer "
                "to: send each to POST /v1/models/{model}/gold"
            )
        rows = Rows(file, columns, reader_of(about["task"], about["labels"]))
        planted: list[dict[str, Any]] = []
        refused: list[Refused] = []
        with progress(rows.count) as advance:
            for found in _plant(client, model, rows):
                planted += [found] if isinstance(found, dict) else []
                refused += [] if isinstance(found, dict) else [found]
                advance(1)
    told = {
        "planted": planted,
        "refused": [{"line": line, "reason": reason} for line, reason in refused],
    }
    show(told, as_json=as_json, text=lambda: _tell(planted, refused))
    if refused:
        raise typer.Exit(1)


def _plant(client: Client, model: str, rows: Rows) -> Iterator[dict[str, Any] | Refused]:
    """Yield what was planted, or why a row was not."""
    from online_learner.client import ApiError

    for row in rows:
        if row.wrong is not None:
            yield row.line, row.wrong
            continue
        try:
            yield client.gold(model, row.features, row.label)
        except ApiError as error:
            if error.status in (401, 403, 404):  # none of the others will fare better
                raise
            if error.status == 409:  # there is no room for any
                yield row.line, f"{error}: the rows after it were not tried"
                return
            yield row.line, str(error)


def _tell(planted: list[dict[str, Any]], refused: list[Refused]) -> None:
    until = f", open until {when(planted[-1]['open_until'])}" if planted else ""
    typer.echo(f"{len(planted)} questions planted{until}.")
    for line, reason in refused[:MOST_TOLD]:
        typer.echo(f"  line {line}: {reason}", err=True)
    if len(refused) > MOST_TOLD:
        typer.echo(f"  and {len(refused) - MOST_TOLD} more were refused", err=True)
