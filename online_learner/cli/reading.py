"""`status`, `versions`, `verdicts`, `explain`, `config show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from online_learner.cli.output import AsJson, cell, connect, pairs, show, table, when


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (status, versions, verdicts, explain):
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


def explain(prediction_id: str, *, as_json: AsJson = False) -> None:
    """Tell the whole story of one answer: what it saw, who said what, what became of that."""
    with connect() as client:
        story = client.prediction(prediction_id)
    show(story, as_json=as_json, text=lambda: _tell(story))


def _tell(story: dict[str, Any]) -> None:
    record = story["prediction"]
    pairs(
        {
            "model": record["model"],
            "answer": record["output"],
            "scores": ", ".join(f"{key} {score:.3g}" for key, score in record["scores"].items()),
            "by": f"{record['role']}, version {record['version']}, step {record['step']}",
            "asked for a label": (record["ask"] or {}).get("reason"),
            "user": record["user_id"],
            "features": ", ".join(
                f"{key}={cell(value)}" for key, value in record["features"].items()
            ),
        }
    )
    for role, shadow in record["shadows"].items():
        said = cell(shadow["output"])
        typer.echo(f"unseen, {role} (version {shadow['version']}, step {shadow['step']}): {said}")
    if not story["feedback"]:
        typer.echo("Nothing has been said about it.")
        return
    columns = ("kind", "value", "source", "status", "why", "comment")
    table(columns, map(_signal_row, story["feedback"]))


def _signal_row(signal: dict[str, Any]) -> tuple[object, ...]:
    status = signal["status"]
    if "step" in signal:
        status += f" at step {signal['step']}"
    source, comment = signal["source"], signal["comment"]
    return signal["kind"], signal["value"], source, status, signal.get("reason"), comment


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
