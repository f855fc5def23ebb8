"""`import`: predictions made elsewhere, and what was said of them, into a model's log."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from online_learner.cli.completing import ModelName
from online_learner.cli.operating import DryRun
from online_learner.cli.output import AsJson, connect, progress, show
from online_learner.errors import OnlineLearnerError

if TYPE_CHECKING:
    from online_learner.importing import Import

MOST_TOLD = 20  # rows that were refused
AGAIN = "Run it again to go on: nothing is added twice."


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="import")(import_files)


def import_files(
    model: ModelName,
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="JSON Lines or Parquet: a prediction a row, or something that was said.",
        ),
    ],
    *,
    feedback: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A second file: what was said of them."),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Import predictions that were made elsewhere, and feedback, into a model's log.

    A prediction is a row as `POST /v1/models/MODEL/log` takes it: features (or prompt, or messages)
    and output (or outputs), and where there are any options, scores, model_version, external_id,
    user_id, session_id, tags, observed_at; `feedback` in it is what was said of it. What was said
    is a row as `POST /v1/feedback` takes it, by the external_id of a prediction or its id.

    Each row is checked as a request is. Feedback is learned from as usual; the gate and the
    observers leave what was made elsewhere alone. Run it again and it goes on where it was stopped:
    a row is known by its external_id, else by the file's digest and its number, for as long as
    feedback is taken (`window_s`).

    Exit code 1: some rows were refused; each is named with its number.
    """
    from online_learner.importing import Import, count_rows

    files = [file, *([feedback] if feedback else [])]
    total = sum(map(count_rows, files))
    began, stopped = time.monotonic(), False
    with connect() as client, progress(total) as advance:
        task = client.model(model)["task"]
        work = Import(client, model, task, dry_run, advance)
        try:
            for each in files:
                work.add(each)
        except KeyboardInterrupt:
            stopped = True
        except OnlineLearnerError:
            typer.echo(f"{work.counts['rows']} of {total} rows were looked at. {AGAIN}", err=True)
            raise
    found = _report(work, stopped=stopped, seconds=time.monotonic() - began)
    show(found, as_json=as_json, text=lambda: _tell(found))
    if work.refused or stopped:
        raise typer.Exit(1)


def _report(work: Import, *, stopped: bool, seconds: float) -> dict[str, Any]:
    names = ("rows", "logged", "known", "accepted", "archived_only", "duplicate")
    return {
        "dry_run": work.dry_run,
        **{name: work.counts[name] for name in names},
        "refused": [
            {"file": one.file, "row": one.row, "reason": one.reason} for one in work.refused
        ],
        "stopped": stopped,
        "rows_per_s": round(work.counts["rows"] / max(seconds, 1e-9)),
    }


def _tell(found: dict[str, Any]) -> None:
    done = {
        "logged": "predictions logged",
        "known": "known before",
        "accepted": "signals accepted",
        "archived_only": "signals on file alone",
        "duplicate": "signals known before",
    }
    parts = [f"{found[name]:,} {words}" for name, words in done.items() if found[name]]
    parts += [f"{len(found['refused']):,} refused"] if found["refused"] else []
    prefix = "Dry run, nothing was added: " if found["dry_run"] else ""
    typer.echo(f"{prefix}{found['rows']:,} rows: {', '.join(parts) or 'nothing in them'}.")
    for item in found["refused"][:MOST_TOLD]:
        typer.echo(f"  {item['file']}, row {item['row']}: {item['reason']}", err=True)
    if len(found["refused"]) > MOST_TOLD:
        typer.echo(f"  and {len(found['refused']) - MOST_TOLD} more: --json has all", err=True)
    if found["stopped"]:
        typer.echo(f"Stopped. {AGAIN}")
