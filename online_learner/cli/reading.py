"""`status`, `versions`, `verdicts`, `config show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from online_learner.cli.output import AsJson, connect, show, table, when


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (status, versions, verdicts):
        app.command()(command)
    config = typer.Typer(help="The configuration.", no_args_is_help=True)
    config.command("show")(config_show)
    config.callback()(lambda: None)
    app.add_typer(config, name="config")


def status(*, as_json: AsJson = False) -> None:
    """Tell who answers, how far the learners are, and who is alive. Exit code 1: not ready."""
    with connect() as client:
        ready = client.ready()
        models = client.models()
        url = client.url

    def text() -> None:
        state = "ready" if ready["ready"] else "NOT READY: see `online-learner doctor`"
        typer.echo(f"{url} is {state}; what is acknowledged is {ready.get('durability')}.")
        columns = ("model", "version", "step", "state", "learned", "lag", "learner", "gatekeeper")
        table(columns, map(_status_row, models))

    show({"url": url, **ready, "models": models}, as_json=as_json, text=text)
    if not ready["ready"]:
        raise typer.Exit(1)


def _status_row(model: dict[str, Any]) -> tuple[object, ...]:
    if not model["ready"]:
        return (model["model"], None, None, "loading", None, None, None, None)
    return (
        model["model"],
        model["version"],
        model["step"],
        _state(model),
        model["learned"],
        f"{model['lag_ms'] / 1000:.1f} s",
        _alive(model["learner"]),
        _alive(model["gatekeeper"]),
    )


def _state(model: dict[str, Any]) -> str:
    aliases = model["aliases"]
    if model["untrained"]:
        found = "untrained"
    elif aliases["following"]:
        found = "on the leash"
    else:
        found = "snapshot"
    return f"{found}, frozen" if aliases["frozen"] else found


def _alive(beat: dict[str, Any] | None) -> str:
    return "no heartbeat" if beat is None else "alive"


def versions(model: str, *, as_json: AsJson = False) -> None:
    """List the kept snapshots of a model."""
    with connect() as client:
        found = client.versions(model)
        aliases = client.model(model).get("aliases", {})
    columns = ("version", "role", "status", "lineage", "step", "learned", "parent", "cut at")
    rows = [
        (
            version["version"],
            _roles(version["version"], aliases),
            version["status"],
            version["lineage"],
            version["step"],
            version["learned"],
            version["parent"],
            when(version["cut_at"]),
        )
        for version in found
    ]
    show(found, as_json=as_json, text=lambda: table(columns, rows))


def _roles(number: int, aliases: dict[str, Any]) -> str:
    """Return what a version is there for.

    >>> _roles(3, {"champion": 3, "anchor": 3, "challengers": [4]})
    'champion, anchor'
    """
    roles = [role for role in ("champion", "anchor", "previous") if aliases.get(role) == number]
    return ", ".join(roles + ["challenger"] * (number in aliases.get("challengers", ())))


def verdicts(
    model: str,
    *,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest decisions about a model, and why they were taken."""
    with connect() as client:
        found = client.verdicts(model, count=count)
    rows = [
        (when(item["at"]), item["action"], item["version"], item["by"], item["sentence"])
        for item in found
    ]
    columns = ("at", "action", "version", "by", "why")
    show(found, as_json=as_json, text=lambda: table(columns, rows))


def config_show(
    *,
    config: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Print the configuration as it takes effect, the environment included; no secrets."""
    import yaml

    from online_learner.cli.starting import find_config
    from online_learner.settings import Settings

    file = find_config(config)
    found = Settings.load(file).model_dump(mode="json")
    found["store"] = without_password(found["store"])

    def text() -> None:
        typer.echo(f"# {file}, and OL_* of the environment")
        typer.echo(yaml.safe_dump(found, sort_keys=False).rstrip())

    show(found, as_json=as_json, text=text)


def without_password(url: str) -> str:
    """Return a URL that may be shown.

    >>> without_password("redis://app:hunter2@db:6379/0")
    'redis://app:***@db:6379/0'
    """
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}:***@{host}").geturl()
