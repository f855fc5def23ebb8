"""`replay`: the weights rebuilt from the record, or what another learner would have answered."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from online_learner.cli.completing import ModelName
from online_learner.cli.here import Config
from online_learner.cli.moments import moment
from online_learner.cli.output import AsJson, connect, pairs, progress, show, table, when
from online_learner.cli.retraining import with_stages

if TYPE_CHECKING:
    from online_learner.learners import Model
    from online_learner.replay.retrace import Retraced
    from online_learner.settings import ModelSpec
    from online_learner.stages import Stages
    from online_learner.whatif import Row, WhatIf

_ENTRY = re.compile(r"\d{1,15}-\d{1,19}")
_LAST = (1 << 63) - 1

File: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--instead",
        exists=True,
        dir_okay=False,
        help="A configuration file: had this model been configured as there.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    model: ModelName,
    *,
    from_version: Annotated[
        int | None, typer.Option(min=0, help="Begin there, and not with the first version.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="An entry of the record, a date, a time, or 7d.")
    ] = None,
    learner: Annotated[
        str | None, typer.Option(help="Had this learner been configured: as `learner:`.")
    ] = None,
    changed: Annotated[
        list[str] | None,
        typer.Option("--set", help="An argument of the learner: `l2=0.1`. Say it once each."),
    ] = None,
    instead: File = None,
    windows: Annotated[int, typer.Option(min=1, max=100, help="Rows of the table in time.")] = 10,
    save: Annotated[
        Path | None, typer.Option(help="Write the weights to a file that `register` takes.")
    ] = None,
    register_it: Annotated[
        bool, typer.Option("--register", help="Hand the weights to the service as a candidate.")
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild a model's weights from its record, and compare them with what was recorded.

    It reads archive and store, and needs no running service. Exit code 1: the weights differ.

    With --learner, --set or --instead it tells what would have happened: for each answer of which
    the right one was told, in order, what was served, and what the other learner would have said.
    """
    if save is not None and save.exists():
        raise typer.BadParameter("the file to --save to is there already: name another one")
    if save is not None and not save.resolve().parent.is_dir():
        raise typer.BadParameter("there is no such folder to --save to: make it first")
    other = learner is not None or bool(changed) or instead is not None
    if other and from_version is not None:
        raise typer.BadParameter("another learner begins with nothing: leave --from-version out")
    if instead is not None and (learner is not None or changed):
        raise typer.BadParameter("say --instead, or --learner and --set")
    end = _entry(until)

    def give(weights: Model) -> dict[str, Any]:
        return _give(model, weights, save, register_it=register_it)

    if other:
        spec_of = _spec_of(model, learner, changed or [], instead)
        what, weights = with_stages(
            model, config, lambda stages: _what_if(stages, spec_of, end, windows)
        )
        told: dict[str, Any] = {"model": model, **asdict(what)} | give(weights)
        show(told, as_json=as_json, text=lambda: _tell_what_if(what, told))
        return
    found = with_stages(model, config, lambda stages: _retrace(stages, from_version, end))
    told = {"model": model, **_facts(found)} | give(found.replay.learner)
    show(told, as_json=as_json, text=lambda: _tell(found, told))
    if found.differs is not None:
        raise typer.Exit(1)


def _entry(until: str | None) -> str:
    """Return the entry up to which a replay goes.

    >>> _entry("1700000000000-3"), _entry(None), _entry("1970-01-01T00:00:01Z")
    ('1700000000000-3', '+', '1000-9223372036854775807')
    """
    if until is None or _ENTRY.fullmatch(until.strip()):
        return "+" if until is None else until.strip()
    seconds = moment(until, time.time())
    return "+" if seconds is None else f"{max(0, int(seconds * 1000))}-{_LAST}"


# --- the weights, rebuilt -----------------------------------------------------------------------


async def _retrace(stages: Stages, from_version: int | None, until: str) -> Retraced:
    from online_learner.replay.retrace import retrace

    published = await stages.registry.published()
    with progress(None if published is None else published.step) as advance:
        return await retrace(
            stages,
            from_version=from_version,
            until=until,
            advance=lambda _signals: advance(1, "steps"),
        )


def _facts(found: Retraced) -> dict[str, Any]:
    at = found.replay.at
    return {
        "begun": found.begun,
        "offset": at.offset,
        "lineage": at.lineage,
        "step": at.step,
        "learned": at.learned,
        "steps": found.steps,
        "signals": found.signals,
        "forgotten": len(found.replay.forgotten),
        "compared": found.compared,
        "differs": found.differs,
        "state_digest": found.replay.learner.digest(),
        "took_s": found.took_s,
        "signals_a_second": found.a_second,
    }


def _tell(found: Retraced, told: dict[str, Any]) -> None:
    pairs(
        {
            "begun with": f"the state as of {found.begun}",
            "learned again": f"{found.signals:,} signals in {found.steps:,} steps",
            "left out": f"{told['forgotten']:,} signals that were unlearned",
            "stands at": f"step {told['step']}, lineage {told['lineage']}, {told['offset']}",
            "took": f"{found.took_s:.1f} s, {found.a_second:,.0f} signals a second",
            "weights": told["state_digest"],
        }
    )
    if found.differs is not None:
        typer.secho(
            f"\nThe weights differ from step {found.differs} on: they were learned under another "
            "configuration, or another release of a library.",
            fg="red",
            err=True,
        )
    elif found.compared:
        typer.echo(
            f"\nThe same, bit for bit: {found.compared:,} recorded states were compared with."
        )
    else:
        typer.echo("\nNo state was recorded on the way that they could be compared with.")
    _tell_given(told)


# --- what would have happened -------------------------------------------------------------------


def _spec_of(
    model: str, learner: str | None, changed: list[str], instead: Path | None
) -> Callable[[ModelSpec], ModelSpec]:
    """Return what makes the other configuration of the one that is in use."""
    arguments = dict(_argument(text) for text in changed)

    def of(spec: ModelSpec) -> ModelSpec:
        from online_learner.errors import ConfigError
        from online_learner.settings import ModelSpec, Settings

        if instead is not None:
            other = Settings.load(instead).model(model).on_cpu()
        else:
            document = spec.model_dump(mode="json")
            known = document["learner"] or {}
            kept = known if learner is None else {"use": learner}
            document["learner"] = kept | arguments
            other = ModelSpec.model_validate(document).on_cpu()
        if other.task != spec.task:
            raise ConfigError(f"the other configuration has another task than {spec.task}")
        return other

    return of


def _argument(text: str) -> tuple[str, Any]:
    """Return an argument and its value.

    >>> _argument("l2=0.1"), _argument("lr=1e-3"), _argument("loss=huber")
    (('l2', 0.1), ('lr', 0.001), ('loss', 'huber'))
    """
    import yaml

    name, sign, value = text.partition("=")
    if not sign or not name.strip().isidentifier():
        raise typer.BadParameter("write --set as in l2=0.1")
    try:
        found = yaml.safe_load(value)
        return name.strip(), float(found) if isinstance(found, str) else found
    except yaml.YAMLError:
        raise typer.BadParameter("write values of --set as in 0.1, true or word") from None
    except ValueError:
        return name.strip(), found


async def _what_if(
    stages: Stages, spec_of: Callable[[ModelSpec], ModelSpec], until: str, windows: int
) -> tuple[WhatIf, Model]:
    from online_learner.whatif import what_if

    with progress(None) as advance:
        return await what_if(
            stages.log,
            spec_of(stages.spec),
            until=until,
            windows=windows,
            advance=lambda answers: advance(answers, "answers"),
        )


def _tell_what_if(what: WhatIf, told: dict[str, Any]) -> None:
    comparison, passed = what.comparison, what.passed
    if not comparison.rows:
        typer.echo("Of no answer the right one was told: there is nothing to compare.")
    else:
        typer.echo(f"What was served, and what the other would have answered: {comparison.measure}")
        _rows(comparison.rows)
        typer.echo("\nIn time:")
        _rows(comparison.windows)
        typer.echo("\nBy who served:")
        _rows(comparison.versions)
    typer.echo(
        f"\nIt learned {passed.lessons:,} lessons in {passed.steps:,} steps, and set "
        f"{passed.aside:,} signals aside. {what.failed:,} answers it could not give."
    )
    if comparison.undecided:
        typer.echo(
            f"{comparison.undecided:,} answers were only told to be wrong, and count nowhere: the "
            "other one may have been right, so this leans towards what was served."
        )
    if passed.resets:
        typer.echo(f"The served weights went back {passed.resets} times; its own did not.")
    _tell_given(told)


def _rows(rows: list[Row]) -> None:
    columns = (
        "answers",
        "since",
        "n",
        "served",
        "other",
        "difference",
        "95 % interval",
        "no change",
        "majority",
    )
    table(columns, map(_cells, rows))


def _cells(row: Row) -> tuple[object, ...]:
    known = row.low is not None and row.high is not None
    return (
        row.name,
        when(row.since_ms / 1000),
        row.n,
        row.served,
        row.other,
        f"{row.difference:+.4f}",
        f"{row.low:+.4f} to {row.high:+.4f}" if known else None,
        row.no_change,
        row.majority,
    )


# --- what becomes of them -----------------------------------------------------------------------


def _give(model: str, weights: Model, save: Path | None, *, register_it: bool) -> dict[str, Any]:
    """Write the weights to a file, and hand them over, where that is wanted."""
    from online_learner.bring import save as write
    from online_learner.errors import DataError

    told: dict[str, Any] = {}
    if save is not None:
        partial = save.with_name(f".partial-{save.name}")
        try:
            write(weights, partial)
            partial.rename(save)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise DataError(
                f"the weights cannot be written to {save}: {error.strerror}", code="not_writable"
            ) from error
        told["saved"] = str(save)
    if register_it:
        with tempfile.TemporaryDirectory() as folder, connect(timeout_s=60.0) as client:
            file = Path(folder) / "model.bin"
            write(weights, file)
            told["registered"] = client.register(
                model, file, note="rebuilt by replaying the record", candidate=True
            )
    return told


def _tell_given(told: dict[str, Any]) -> None:
    if "saved" in told:
        typer.echo(f"\nWritten to {told['saved']}: `online-learner register` takes it.")
    if "registered" in told:
        typer.echo(f"\n{told['registered']['sentence']}")
