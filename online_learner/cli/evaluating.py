"""`evaluate`: how good a version is on a dataset."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from online_learner.cli.completing import ModelName
from online_learner.cli.here import Config
from online_learner.cli.output import AsJson, cell, pairs, show, table
from online_learner.cli.retraining import with_stages

if TYPE_CHECKING:
    from online_learner.dataset.versions import Versions
    from online_learner.evaluate.answering import Kept
    from online_learner.stages import Stages

CHAMPION = "champion"
LEFT_OUT_OF_TABLE = ("calibration", "confusion")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


def evaluate(
    model: ModelName,
    *,
    version: Annotated[
        str, typer.Option(help="A number, or `champion`: the weights that answer now.")
    ] = CHAMPION,
    dataset: Annotated[str, typer.Option(help="A version of a dataset, or `latest`.")] = "latest",
    split: Annotated[
        Literal["validation", "train", "all"], typer.Option(help="Which of its rows.")
    ] = "validation",
    by: Annotated[
        list[str] | None,
        typer.Option(help="Also by segment: kind, source, output, target, or features.NAME."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another version, asked the same, or `champion`.")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Tell how good a version is on a dataset: all rows, by segment, and its calibration.

    Rows are what people spoke about: they are not a fair sample of all answers, which the gate
    draws itself. Without `--by`, the declared `guard_segments` are the segments.
    """

    async def work(stages: Stages) -> dict[str, Any]:
        asked = {"version": version, "dataset": dataset, "split": split}
        return await _evaluate(stages, **asked, by=by, against=against)

    found = with_stages(model, config, work)
    show(found, as_json=as_json, text=lambda: _tell(found))


async def _evaluate(
    stages: Stages,
    *,
    version: str,
    dataset: str,
    split: str,
    by: list[str] | None,
    against: str | None,
) -> dict[str, Any]:
    from online_learner.dataset.lessons import check_format
    from online_learner.dataset.reading import rows
    from online_learner.dataset.versions import Versions
    from online_learner.errors import ConfigError
    from online_learner.evaluate.answering import learned_rows
    from online_learner.evaluate.baselines import Constant
    from online_learner.evaluate.report import default_fields, lessons_of
    from online_learner.evaluate.report import evaluate as measure
    from online_learner.learners.state import unpack_state
    from online_learner.stages import data_place

    spec, place = stages.spec, data_place(stages.spec, stages.data_dir)
    if place is None:
        raise ConfigError("no place is known for datasets: set `data_dir`, or `archive`")
    versions = Versions(place.at("datasets", stages.model))
    manifest = await asyncio.to_thread(versions.get, dataset)
    check_format(spec, manifest.query.format)
    one = await _kept(stages, version, versions)
    other = None if against is None else await _kept(stages, against, versions)
    fields = default_fields(spec) if by is None else by

    def done() -> dict[str, Any]:
        learner = unpack_state(one.blob, stages.learner)
        rival = None if other is None else unpack_state(other.blob, stages.learner)
        base = "train" if manifest.splits.get("train") else split
        constant = Constant.of(spec.task, lessons_of(spec, rows(versions, manifest.id, base)))
        found = rows(versions, manifest.id, split)
        told = measure(spec, learner, found, by=fields, against=rival, constant=constant)
        for side, its in ((told, one), (told.get("against"), other)):
            if side is not None and its is not None:
                side["version"] = its.version
                side["learned_rows"] = learned_rows(its, versions, manifest.id, split)
        return told

    return {"dataset": manifest.id, "split": split} | await asyncio.to_thread(done)


async def _kept(stages: Stages, name: str, versions: Versions) -> Kept:
    """Return a version; of a champion that follows the learner, the step that answers."""
    from online_learner.errors import NotFound
    from online_learner.evaluate.answering import answering, kept

    if name != CHAMPION:
        if not name.isdecimal():
            raise typer.BadParameter("a version is a number, or `champion`")
        return await kept(stages.registry, int(name), versions)
    aliases = await stages.registry.aliases()
    if aliases is None:
        raise NotFound("this model has no weights yet: start the service first")
    return await answering(stages.registry, aliases, versions)


# --- in words ---------------------------------------------------------------------------------


def _tell(found: Mapping[str, Any]) -> None:
    typer.echo(
        f"Version {found['version']} on {found['dataset']}, {found['split']}: "
        f"{found['all']['rows']:,} rows."
    )
    against = found.get("against")
    for side in (found, against):
        if side and side["learned_rows"]:
            typer.secho(
                f"Version {side['version']} has learned {side['learned_rows']:,} of these rows: "
                "these numbers flatter it.",
                fg="yellow",
            )
    _columns(found)
    if against is not None and against["difference"] is not None:
        own = against["difference"]
        typer.echo(
            f"On the same rows it is ahead of version {against['version']} by "
            f"{own['difference']:+.4f}, between {own['low']:+.4f} and {own['high']:+.4f} (95 %)."
        )
    for name, values in found["segments"].items():
        typer.echo(f"\nBy {name}:")
        numbers = _numbers(found["all"])
        table(
            (name, *numbers),
            ([value, *(report.get(n) for n in numbers)] for value, report in values.items()),
        )
    if calibration := found["all"].get("calibration"):
        typer.echo("\nOf those so sure, so many are right:")
        head = ("rows", "sure", "right")
        table(head, ([one[name] for name in head] for one in calibration))
    if confusion := found["all"].get("confusion"):
        typer.echo("\nWhat was right (rows), and what was answered (columns):")
        given = sorted({name for answers in confusion.values() for name in answers})
        table(
            ("", *(name or "(failed)" for name in given)),
            (
                [right, *(answers.get(name, 0) for name in given)]
                for right, answers in confusion.items()
            ),
        )
    if found["left_out"]:
        typer.echo("\nLeft out, by reason:")
        pairs(found["left_out"])


def _columns(found: Mapping[str, Any]) -> None:
    """Print the plain numbers of all that was measured, a column each."""
    sides: dict[str, Mapping[str, Any]] = {f"version {found['version']}": found["all"]}
    if against := found.get("against"):
        sides[f"version {against['version']}"] = against["all"]
    sides |= {name.replace("_", " "): report for name, report in found["baselines"].items()}
    rows = [
        (name.replace("_", " "), *(cell(report.get(name)) for report in sides.values()))
        for name in _numbers(found["all"])
    ]
    table(("", *sides), rows)


def _numbers(report: Mapping[str, Any]) -> list[str]:
    return [name for name in report if name not in LEFT_OUT_OF_TABLE]
