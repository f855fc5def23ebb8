"""`dataset`: compile what was said into rows to train on, and look at what was compiled."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar, cast

import typer

from online_learner.cli.compiled import COLUMNS, described, line, tell
from online_learner.cli.completing import ModelName
from online_learner.cli.here import Config, in_store, settings_here
from online_learner.cli.moments import moment
from online_learner.cli.output import AsJson, progress, show, table

if TYPE_CHECKING:
    from online_learner.dataset.manifest import Manifest
    from online_learner.dataset.query import Query
    from online_learner.dataset.running import Runner
    from online_learner.dataset.versions import Versions
    from online_learner.stages import Stages
    from online_learner.store import Store

T = TypeVar("T")

MANY = 5_000_000  # entries of the log from which on Ray is worth its start
WISHES = {"since", "until", "where", "split", "validation", "seed", "file_format"}

PlaceOf: TypeAlias = Annotated[
    str | None,
    typer.Option("--place", help="A path or a URL: where the versions are, if not with the log."),
]
VersionName: TypeAlias = Annotated[
    str, typer.Argument(help="An id, the beginning of one, or `latest`.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="Datasets: compile them from the log; list, show, compare and verify versions.",
        no_args_is_help=True,
    )
    group.command("compile")(compile_version)
    group.command("list")(list_versions)
    group.command("show")(show_version)
    group.command("diff")(diff_versions)
    group.command("verify")(verify_versions)
    group.command("remove")(remove_version)
    app.add_typer(group, name="dataset")


# --- compile ----------------------------------------------------------------------------------


def compile_version(
    context: typer.Context,
    model: ModelName,
    *,
    format_: Annotated[
        Literal["supervised", "preference", "unpaired", "reward", "sft", "tabular"] | None,
        typer.Option("--format", help="What a row is: see docs/datasets.md."),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="Signals from then on: a date, a time, or 7d.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Signals before then.")] = None,
    where: Annotated[
        str | None, typer.Option(help="A filter: \"kind = 'correction' and weight >= 0.5\".")
    ] = None,
    split: Annotated[
        Literal["hash", "time", "user"], typer.Option(help="How rows are held out.")
    ] = "hash",
    validation: Annotated[
        float, typer.Option(min=0, max=0.99, help="The share that is held out.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Another one holds out others.")] = 0,
    file_format: Annotated[Literal["parquet", "jsonl"], typer.Option()] = "parquet",
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes, by Ray Data; 0: this one. Else as the log is long."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="A path or a URL, where the version goes instead.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="A version: the same again, of the log as far as it went then."),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Compile a version of a dataset from all that was answered and said.

    Equal wishes on an equal log give an equal version, byte for byte, however many work on it.
    """
    if (format_ is None) == (like is None):
        raise typer.BadParameter("give either --format, or --like VERSION")
    if like is not None and (wishes := _wished(context)):
        raise typer.BadParameter(
            f"--like takes all that was wished for from the version: leave out {', '.join(wishes)}"
        )
    now = time.time()
    bounds = {"since": moment(since, now), "until": moment(until, now)}

    async def work(stages: Stages, versions: Versions) -> dict[str, Any]:
        from online_learner.dataset.query import Query

        before = None if like is None else versions.get(like)
        query = (
            before.query
            if before is not None
            else Query(
                model=model,
                format=cast("Any", format_),
                file_format=file_format,
                where=where,
                split_by=split,
                validation=validation,
                seed=seed,
                **bounds,
            )
        )
        manifest = await _compile(stages, versions, query, before, workers)
        found = described(versions, manifest)
        return found if before is None else {**found, "same": manifest.id == before.id}

    found = _in(model, config, out, work)
    show(found, as_json=as_json, text=lambda: tell(found))
    if found.get("same") is False:
        typer.secho(
            f"this is not {like} again: something was retracted or erased since, or the "
            f"configuration or the code is another; see `online-learner dataset diff {model} "
            f"{like} {found['id']}`",
            fg="red",
            err=True,
        )
        raise typer.Exit(1)


def _wished(context: typer.Context) -> list[str]:
    """Return the options of what a version is to hold that were given on the command line."""
    given = {name for name in WISHES if _source(context, name) == "COMMANDLINE"}
    return [option.opts[0] for option in context.command.params if option.name in given]


def _source(context: typer.Context, name: str) -> str:
    found = context.get_parameter_source(name)
    return "" if found is None else found.name


async def _compile(
    stages: Stages, versions: Versions, query: Query, like: Manifest | None, workers: int | None
) -> Manifest:
    from online_learner.dataset.compiling import compile_dataset

    count = workers if workers is not None else await _fitting(stages)
    with _runner(count) as runner, progress(None) as advance:
        return await compile_dataset(
            stages.log,
            stages.spec,
            stages.keyring,
            query,
            datasets=versions.datasets,
            runner=runner,
            advance=advance,
            now=time.time(),
            watermarks=None if like is None else like.watermarks,
        )


async def _fitting(stages: Stages) -> int:
    """Return how many processes are worth it: none, where the log is short."""
    from online_learner.archive.segments import Segments

    registry, segments, entries = stages.registry, Segments(stages.registry), 0
    for stream in ("predictions", "feedback", "late"):
        entries += sum(segment.rows for segment in await segments.all(stream))
        entries += int(await registry.store.call("XLEN", getattr(registry.keys, stream)))
    return 0 if entries < MANY or not _has_ray_data() else os.cpu_count() or 1


def _has_ray_data() -> bool:
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in ("ray", "pandas"))


@contextlib.contextmanager
def _runner(workers: int) -> Iterator[Runner]:
    """Enter what does the work: this process, or as many by Ray Data."""
    from online_learner.dataset.running import Here
    from online_learner.errors import ConfigError

    if workers == 0:
        yield Here()
        return
    if not _has_ray_data():
        raise ConfigError(
            "Ray Data is not installed here: pip install 'online-learner[data]', or --workers 0"
        )
    from serve_app.jobs.runner import RayRunner

    with RayRunner(workers) as runner:
        yield runner


# --- look -------------------------------------------------------------------------------------


def list_versions(
    model: ModelName, *, place: PlaceOf = None, config: Config = None, as_json: AsJson = False
) -> None:
    """List the versions that there are, the newest first."""

    async def work(_: Stages | None, versions: Versions) -> dict[str, Any]:
        listed = [described(versions, manifest) for manifest in versions.list()]
        return {"versions": listed, "damaged": versions.damaged()}

    found = _in(model, config, place, work)

    def text() -> None:
        table(COLUMNS, map(line, found["versions"]))
        for name, why in found["damaged"].items():
            typer.secho(f"{name}: {why}", fg="red", err=True)

    show(found, as_json=as_json, text=text)


def show_version(
    model: ModelName,
    version: VersionName = "latest",
    *,
    card: Annotated[bool, typer.Option("--card", help="Print its card, as Markdown.")] = False,
    place: PlaceOf = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show what a version is made of: its query, its counts, what was left out and why."""

    async def work(_: Stages | None, versions: Versions) -> tuple[dict[str, Any], str]:
        from online_learner.dataset.card import render

        manifest = versions.get(version)
        return described(versions, manifest), render(manifest)

    found, written = _in(model, config, place, work)
    text = (lambda: typer.echo(written)) if card else (lambda: tell(found))
    show(found, as_json=as_json, text=text)


def diff_versions(
    model: ModelName,
    a: VersionName,
    b: VersionName,
    *,
    place: PlaceOf = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Tell what differs between two versions: what they are of, and rows added and removed."""

    async def work(_: Stages | None, versions: Versions) -> dict[str, Any]:
        return versions.diff(a, b).model_dump(mode="json")

    found = _in(model, config, place, work)

    def text() -> None:
        typer.echo(
            f"From {found['a']} to {found['b']}: {found['added']:,} rows added, "
            f"{found['removed']:,} removed, {found['changed']:,} changed, {found['same']:,} equal."
        )
        rows = [row for name, value in found["fields"].items() for row in _differing(name, value)]
        if rows:
            table(("what", "before", "after"), rows)

    show(found, as_json=as_json, text=text)


def _differing(name: str, value: Any) -> list[tuple[object, object, object]]:
    if isinstance(value, dict):
        return [(f"{name}.{part}", old, new) for part, (old, new) in value.items()]
    return [(name, *value)]


def verify_versions(
    model: ModelName,
    version: Annotated[str | None, typer.Argument(help="An id, or how one begins.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All that there are.")] = False,
    place: PlaceOf = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Look at every byte of a version: it is as it was written, or this tells what is not."""
    if (version is None) != every:
        raise typer.BadParameter("give either a version, or --all")

    async def work(_: Stages | None, versions: Versions) -> dict[str, list[str]]:
        names = versions.folders() if version is None else [versions.find(version)]
        return {name: versions.verify(name) for name in names}

    found = _in(model, config, place, work)

    def text() -> None:
        for name, problems in found.items():
            for problem in problems or ["sound"]:
                typer.secho(f"{name}: {problem}", fg="red" if problems else None)

    show(found, as_json=as_json, text=text)
    if any(found.values()):
        raise typer.Exit(1)


def remove_version(
    model: ModelName,
    version: Annotated[str, typer.Argument(help="An id, or how one begins.")],
    *,
    place: PlaceOf = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Remove a version, sound or damaged. The log stays: the same can be compiled again."""

    async def work(_: Stages | None, versions: Versions) -> dict[str, str]:
        name = versions.resolve(version)
        versions.remove(name)
        return {"removed": name}

    found = _in(model, config, place, work)
    show(found, as_json=as_json, text=lambda: typer.echo(f"{found['removed']} is removed."))


# --- what they share --------------------------------------------------------------------------


def _in(
    model: str,
    config: Path | None,
    place: str | None,
    work: Callable[[Any, Versions], Awaitable[T]],
) -> T:
    """Do some work on a model's versions, in the store that the service uses."""
    from online_learner.archive.place import Place
    from online_learner.config import fetch
    from online_learner.dataset.versions import Versions
    from online_learner.errors import ConfigError
    from online_learner.ids import Keyring
    from online_learner.stages import Stages, data_place

    data_dir = settings_here(config)[0].data_dir.resolve()

    async def run(store: Store) -> T:
        keyring = Keyring.load(data_dir)
        settings = await fetch(store, keyring)
        spec = settings.model(model)
        stages = Stages(store, keyring, model, spec, window_s=settings.window_s, data_dir=data_dir)
        root = data_place(spec, data_dir)
        if root is None:
            raise ConfigError("no place is known for datasets: give one")
        datasets = root.at("datasets", model) if place is None else Place.open(place)
        return await work(stages, Versions(datasets))

    return in_store(config, run)
