"""`doctor`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from online_learner.cli.here import find_config, settings_here
from online_learner.cli.output import CONFIG_FILES, AsJson, show

if TYPE_CHECKING:
    from online_learner.cli.finding import Finding
    from online_learner.settings import Settings

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    *,
    config: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
    host: Annotated[str, typer.Option(help="Where `up` would listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    as_json: AsJson = False,
) -> None:
    """Look at everything that can be wrong, and say how to cure it. Changes nothing."""
    from online_learner.cli.doctor import examine

    settings, first = _settings(config)
    findings = [first, *examine(settings, host=host, port=port)]
    problems = sum(finding.level == "problem" for finding in findings)
    data = {"problems": problems, "findings": [asdict(finding) for finding in findings]}
    show(data, as_json=as_json, text=lambda: _tell(findings))
    if problems:
        raise typer.Exit(1)


def _settings(config: Path | None) -> tuple[Settings, Finding]:
    """Return the configuration, or the defaults where it cannot be read; and which it was."""
    from online_learner.cli.finding import Finding
    from online_learner.errors import ConfigError
    from online_learner.settings import Settings

    try:
        settings, file = settings_here(config)
    except ConfigError as error:
        defaults = Settings.parse({"models": {}}, name="the environment")
        return defaults, Finding("config", "problem", str(error), f"correct {find_config(config)}")
    if file is None:
        message = f"no {' or '.join(CONFIG_FILES)} is here"
        return settings, Finding("config", "warning", message, "`online-learner up` says how")
    return settings, Finding("config", "ok", f"{file} ({len(settings.models)} models)")


def _tell(findings: list[Finding]) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        level = typer.style(f"{finding.level:<7}", fg=_COLOURS[finding.level])
        typer.echo(f"{level}  {finding.check:<{width}}  {finding.message}")
        if finding.cure:
            typer.echo(f"{'':<{width + 9}}  -> {finding.cure}")
