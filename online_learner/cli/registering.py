"""`register`: bring weights that were trained elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from online_learner.cli.completing import ModelName
from online_learner.cli.operating import DryRun
from online_learner.cli.output import AsJson, connect, show


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="register")(register_file)


def register_file(
    model: ModelName,
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="A pickled River model, a torch head's safetensors, or what bring.save writes.",
        ),
    ],
    *,
    note: Annotated[str, typer.Option(help="Where it is from, for the record.")] = "",
    candidate: Annotated[
        bool, typer.Option("--candidate", help="Test it first, even if nothing was learned yet.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Register a fitted model: it is a first version that answers, or a candidate that is tested.

    It has to be what the configuration names: the same estimators, or the same head, and labels.
    The service reads the file itself, by an allow-list, and runs nothing of it.
    """
    with connect(timeout_s=60.0) as client:
        done = client.register(model, file, note=note, candidate=candidate, dry_run=dry_run)
    prefix = "Dry run, nothing was changed: " if dry_run else ""
    show(done, as_json=as_json, text=lambda: typer.echo(prefix + done["sentence"]))
