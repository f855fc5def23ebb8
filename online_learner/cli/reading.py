"""`status`, `versions`, `verdicts`, `quarantine`, `audits`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from online_learner.cli.completing import ModelName
from online_learner.cli.output import AsJson, cell, connect, said, show, table, when


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (status, versions, verdicts, quarantine, audits):
        app.command()(command)


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
        for model in models:
            for test in model.get("gate", {}).get("tests", []):
                pair = f"{test['challenger']} against {test['reference']}"
                typer.echo(f"{model['model']}, {pair}: {test['sentence']}")

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


def versions(model: ModelName, *, as_json: AsJson = False) -> None:
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
    model: ModelName,
    *,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    recheck: Annotated[
        bool, typer.Option("--recheck", help="Compute every one again, from the evidence.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the newest decisions about a model, and why they were taken.

    With `--recheck`, exit code 1: some do not follow from the evidence.
    """
    if recheck:
        _recheck(model, as_json=as_json)
        return
    with connect() as client:
        found = client.verdicts(model, count=count)
    rows = [
        (when(item["at"]), item["action"], item["version"], item["by"], item["sentence"])
        for item in found
    ]
    columns = ("at", "action", "version", "by", "why")
    show(found, as_json=as_json, text=lambda: table(columns, rows))


def _recheck(model: str, *, as_json: bool) -> None:
    from online_learner.ids import entry_order
    from online_learner.recheck import TOLERANCE, Recheck
    from online_learner.schema import Settled, Verdict

    with connect() as client:
        decided = [Verdict.model_validate(item) for item in _all(client.verdicts, model)]
        begins = client.model(model).get("trimmed", {}).get("evidence", "0-0")
        report = Recheck(decided, begins=begins)
        for item in _all(client.evidence, model):
            report.hear(item["id"], Settled.model_validate(item))
        report.end()
    found = {
        "checked": report.checked,
        "too_old": report.too_old,
        "worst": report.worst,
        "wrong": report.wrong,
    }

    def text() -> None:
        typer.echo(
            f"{report.checked} of {len(decided)} verdicts rest on a test, and were computed again "
            f"from the evidence: the largest difference is {report.worst:.1e}."
        )
        if report.too_old:
            typer.echo(
                f"{report.too_old} more are too old to be computed again: the evidence of before "
                f"{when(entry_order(begins)[0] / 1000)} has been trimmed."
            )
        for line in report.wrong:
            typer.echo(f"DIFFERS: {line}")

    show(found, as_json=as_json, text=text)
    if report.wrong or not report.worst <= TOLERANCE:
        raise typer.Exit(1)


def _all(read: Callable[..., list[dict[str, Any]]], model: str) -> Iterator[dict[str, Any]]:
    """Yield all pages of a list, oldest first."""
    after = "0-0"
    while page := read(model, count=1000, after=after):
        yield from page
        after = page[-1]["id"]


def quarantine(
    model: ModelName,
    *,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 100,
    after: Annotated[str | None, typer.Option(help="Where the list before ended.")] = None,
    as_json: AsJson = False,
) -> None:
    """List what was set aside or rolled back; `release` has it learned after all."""
    with connect() as client:
        page = client.quarantine(model, after=after, count=count)
    columns = ("said at", "kind", "value", "source", "status", "why", "feedback id")

    def text() -> None:
        table(columns, map(_aside_row, page["quarantine"]))
        if page["next"] is not None:
            typer.echo(f"There may be more: --after {page['next']}")

    show(page, as_json=as_json, text=text)


def _aside_row(signal: dict[str, Any]) -> tuple[object, ...]:
    status = f"{signal['status']}, released" if signal["released"] else signal["status"]
    value, why = said(signal["value"]), signal.get("reason")
    at = when(signal["at"])
    return at, signal["kind"], value, signal["source"], status, why, signal["feedback_id"]


def audits(
    model: ModelName,
    *,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List answers that the gate waits for a label of, in random order: leave none out."""
    with connect() as client:
        found = client.audits(model, count=count)
    rows = [
        (item["prediction_id"], said(item["output"]), _asked(item), when(item["expires_at"]))
        for item in found
    ]
    columns = ("prediction id", "shown", "features", "until")
    show(found, as_json=as_json, text=lambda: table(columns, rows))


def _asked(item: dict[str, Any]) -> str:
    from online_learner.chat import shared_context

    features = shared_context(item["features"])
    return ", ".join(f"{name}={cell(value)}" for name, value in features.items())
