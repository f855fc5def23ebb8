"""`status`, `versions`, `verdicts`, `quarantine`, `audits`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from online_learner.cli.completing import ModelName
from online_learner.cli.here import Config
from online_learner.cli.output import AsJson, cell, connect, said, show, table, when

if TYPE_CHECKING:
    from online_learner.recheck import Recheck
    from online_learner.schema import Verdict


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
    """List the kept snapshots of a model.

    A version that is tainted may hold what was taken back, and cannot be learned anew.
    """
    with connect() as client:
        found = client.versions(model)
        aliases = client.model(model).get("aliases", {})
    columns = (
        "version",
        "role",
        "status",
        "lineage",
        "step",
        "learned",
        "parent",
        "cut at",
        "from",
    )
    rows = [
        (
            version["version"],
            _roles(version["version"], aliases),
            f"{version['status']}{', tainted' * version['tainted']}",
            version["lineage"],
            version["step"],
            version["learned"],
            version["parent"],
            when(version["cut_at"]),
            origin(version),
        )
        for version in found
    ]
    show(found, as_json=as_json, text=lambda: table(columns, rows))


def origin(version: dict[str, Any]) -> str:
    """Return where the weights of a version are from, in words.

    >>> origin({"trained": {"dataset": "d1", "job": "7f", "parent": 3, "because": "by hand"}})
    'dataset d1, job 7f (by hand), beside version 3'
    >>> origin({"registered": {"by": "key:ada", "note": "of May"}}), origin({"untrained": True})
    ('a file by key:ada (of May)', 'nothing')
    """
    if trained := version.get("trained"):
        beside = "" if trained["parent"] is None else f", beside version {trained['parent']}"
        why = f" ({trained['because']})" if trained["because"] else ""
        return f"dataset {trained['dataset']}, job {trained['job']}{why}{beside}"
    if registered := version.get("registered"):
        note = f" ({registered['note']})" if registered["note"] else ""
        return f"a file by {registered['by']}{note}"
    return "nothing" if version.get("untrained") else "the learner"


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
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the newest decisions about a model, and why they were taken.

    With `--recheck`, exit code 1: some do not follow from the evidence. What the service has
    trimmed of it is read from the archive, which the configuration file names.
    """
    if recheck:
        _recheck(model, config, as_json=as_json)
        return
    with connect() as client:
        found = client.verdicts(model, count=count)
    rows = [
        (when(item["at"]), item["action"], item["version"], item["by"], item["sentence"])
        for item in found
    ]
    columns = ("at", "action", "version", "by", "why")
    show(found, as_json=as_json, text=lambda: table(columns, rows))


def _recheck(model: str, config: Path | None, *, as_json: bool) -> None:
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
    count = len(decided)
    if report.too_old:  # for what the store still has
        report, count = _recheck_here(model, config, decided) or (report, count)
    found = {
        "checked": report.checked,
        "too_old": report.too_old,
        "worst": report.worst,
        "wrong": report.wrong,
    }

    def text() -> None:
        typer.echo(
            f"{report.checked} of {count} verdicts rest on a test, and were computed again "
            f"from the evidence: the largest difference is {report.worst:.1e}."
        )
        if report.too_old:
            typer.echo(
                f"{report.too_old} more are too old to be computed again: the evidence of before "
                f"{when(entry_order(begins)[0] / 1000)} has been trimmed. Where there is an "
                f"archive, give --config: it says where."
            )
        for line in report.wrong:
            typer.echo(f"DIFFERS: {line}")

    show(found, as_json=as_json, text=text)
    if report.wrong or not report.worst <= TOLERANCE:
        raise typer.Exit(1)


def _recheck_here(
    model: str, config: Path | None, decided: Sequence[Verdict]
) -> tuple[Recheck, int] | None:
    """Compute verdicts again from archive and store.

    None where they cannot be reached from here, or where what is here is another service.

    Raises
    ------
    DataError
        The archive is damaged.
    """
    from online_learner.cli.retraining import with_stages
    from online_learner.errors import ConfigError, NotFound, Unavailable
    from online_learner.recheck import recheck

    try:
        report, count = with_stages(model, config, lambda stages: recheck(stages.log))
    except (typer.BadParameter, ConfigError, NotFound, Unavailable):
        if config is not None:
            raise
        return None
    same = report.verdicts[: len(decided)] == list(decided)  # more may have come meanwhile
    return (report, count) if same else None


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
