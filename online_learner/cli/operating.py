"""`promote`, `rollback`, `freeze`, `thaw`."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import typer

from online_learner.cli.output import AsJson, connect, show

DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Tell what would be done, and do nothing.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (promote, rollback, freeze, thaw):
        app.command()(command)


def promote(model: str, version: int, *, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Let a version answer, by hand."""
    with connect() as client:
        _report(client.promote(model, version, dry_run=dry_run), as_json=as_json)


def rollback(
    model: str,
    *,
    to: Annotated[int | None, typer.Option(help="The version; else the one before.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Go back to the version before, and promote nothing until `thaw`."""
    with connect() as client:
        _report(client.rollback(model, to, dry_run=dry_run), as_json=as_json)


def freeze(model: str, *, as_json: AsJson = False) -> None:
    """Let what answers now go on answering: nothing is promoted."""
    with connect() as client:
        _report(client.freeze(model), as_json=as_json)


def thaw(model: str, *, as_json: AsJson = False) -> None:
    """Let the gate decide again."""
    with connect() as client:
        _report(client.thaw(model), as_json=as_json)


def _report(done: dict[str, Any], *, as_json: bool) -> None:
    prefix = "Dry run, nothing was changed: " if done["dry_run"] else ""
    show(done, as_json=as_json, text=lambda: typer.echo(prefix + done["verdict"]["sentence"]))
