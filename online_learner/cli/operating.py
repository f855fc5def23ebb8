"""`promote`, `rollback`, `freeze`, `thaw`, `release`."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import typer

from online_learner.cli.completing import ModelName
from online_learner.cli.output import AsJson, connect, show

DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Tell what would be done, and do nothing.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (promote, rollback, freeze, thaw, release):
        app.command()(command)


def promote(
    model: ModelName, version: int, *, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Let a version answer, by hand."""
    with connect() as client:
        _report(client.promote(model, version, dry_run=dry_run), as_json=as_json)


def rollback(
    model: ModelName,
    *,
    to: Annotated[int | None, typer.Option(help="The version; else the one before.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Go back to the version before, and promote nothing until `thaw`."""
    with connect() as client:
        _report(client.rollback(model, to, dry_run=dry_run), as_json=as_json)


def freeze(model: ModelName, *, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Let what answers now go on answering: nothing is promoted."""
    with connect() as client:
        _report(client.freeze(model, dry_run=dry_run), as_json=as_json)


def thaw(model: ModelName, *, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Let the gate decide again."""
    with connect() as client:
        _report(client.thaw(model, dry_run=dry_run), as_json=as_json)


def release(
    model: ModelName,
    feedback_ids: Annotated[
        list[str] | None, typer.Argument(help="As `quarantine` lists them; all or none.")
    ] = None,
    *,
    rolled_back: Annotated[
        bool, typer.Option("--rolled-back", help="All that the last pull or rollback undid.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Have learned what was set aside or rolled back, after all."""
    if rolled_back == bool(feedback_ids):
        raise typer.BadParameter("name feedback ids, or say --rolled-back")
    with connect() as client:
        done = client.release(
            model, feedback_ids or (), rolled_back=rolled_back, reason=reason, dry_run=dry_run
        )
    verb = "would be" if dry_run else "will be"
    signals = "1 signal" if done["released"] == 1 else f"{done['released']} signals"
    show(done, as_json=as_json, text=lambda: typer.echo(f"{signals} {verb} learned after all."))


def _report(done: dict[str, Any], *, as_json: bool) -> None:
    prefix = "Dry run, nothing was changed: " if done["dry_run"] else ""
    show(done, as_json=as_json, text=lambda: typer.echo(prefix + done["verdict"]["sentence"]))
