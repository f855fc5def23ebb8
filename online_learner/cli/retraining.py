"""`retrain` and `jobs`: fresh learners on a dataset, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from online_learner.cli.completing import ModelName
from online_learner.cli.here import Config, in_store, settings_here
from online_learner.cli.moments import moment
from online_learner.cli.operating import DryRun
from online_learner.cli.output import AsJson, cell, progress, show, table, when

if TYPE_CHECKING:
    from online_learner.dataset.running import Runner
    from online_learner.retrain.fitting import Fits
    from online_learner.retrain.records import Job
    from online_learner.stages import Stages
    from online_learner.store import Store

T = TypeVar("T")

MANY = 20_000  # learned signals, from which on it is worth it to start Ray

SHOWN = ("weighted_accuracy", "weighted_mae", "weighted_pair_accuracy", "log_loss")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(retrain)
    app.command()(jobs)


def retrain(
    model: ModelName,
    *,
    dataset: Annotated[
        str | None, typer.Option(help="A version, or `latest`; else one is compiled first.")
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(help="Values to try of an argument: `lr=0.01,0.1`. Say it once an argument."),
    ] = None,
    split: Annotated[
        Literal["time", "hash", "user"] | None,
        typer.Option(help="How rows are held out to choose by: by time, if not said."),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="Signals from then on: a date, a time, or 7d.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Signals before then.")] = None,
    where: Annotated[str | None, typer.Option(help="A filter, as of `dataset compile`.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes, by Ray; 0: this one. Else as there is work."),
    ] = None,
    dry_run: DryRun = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Train fresh learners on a dataset, and hand the best to the gatekeeper as a candidate.

    The configured one is tried first, and every combination of what is searched beside it. Rows
    that are held out choose among them; then the best learns those as well. It answers when the
    evidence says that it is better, like any other candidate.
    """
    from online_learner.retrain.job import Request

    now = time.time()
    if dataset is not None and any(option is not None for option in (since, until, where, split)):
        raise typer.BadParameter(
            "--from, --to, --where and --split are for what is compiled: no --dataset"
        )
    request = Request(
        dataset=dataset,
        search=_search(search) if search else None,
        split_by=split or "time",
        since=moment(since, now),
        until=moment(until, now),
        where=where,
        by="the command line",
        dry_run=dry_run,
    )
    found = with_stages(model, config, lambda stages: _run(stages, request, workers))
    show(found.model_dump(), as_json=as_json, text=lambda: _tell(found, dry_run=dry_run))
    if found.state != "done":
        raise typer.Exit(1)


async def _run(stages: Stages, request: Any, workers: int | None) -> Job:
    from online_learner.retrain.job import retrain as train

    count = await _fitting(stages) if workers is None else workers
    with _workers(count) as (fits, runner), progress(None) as advance:
        return await train(
            stages, request, fits=fits, runner=runner, told=lambda text: advance(1, text)
        )


async def _fitting(stages: Stages) -> int:
    """Return how many processes are worth it: none, where little was learned."""
    from importlib.util import find_spec

    published = await stages.registry.published()
    few = published is None or published.learned < MANY or find_spec("ray") is None
    return 0 if few else len(os.sched_getaffinity(0))


@contextlib.contextmanager
def _workers(count: int) -> Iterator[tuple[Fits, Runner]]:
    """Enter what does the work: this process, or as many by Ray."""
    if count == 0:
        from online_learner.dataset.running import Here as RunHere
        from online_learner.retrain.fitting import Here

        yield Here(), RunHere()
        return
    from serve_app.jobs.retraining import RayFits
    from serve_app.jobs.runner import RayRunner

    with RayRunner(count) as runner:
        yield RayFits(runner), runner


def _search(given: list[str]) -> dict[str, list[Any]]:
    """Return values by argument.

    >>> _search(["lr=0.01,0.1", "epochs=1,3", "loss=huber"])
    {'lr': [0.01, 0.1], 'epochs': [1, 3], 'loss': ['huber']}
    """
    import yaml

    found: dict[str, list[Any]] = {}
    for one in given:
        name, sign, values = one.partition("=")
        if not sign or not name.strip() or not values.strip():
            raise typer.BadParameter("write --search as in lr=0.01,0.1")
        try:
            parsed = yaml.safe_load(f"[{values}]")
        except yaml.YAMLError:
            raise typer.BadParameter("write values of --search as in 0.01,0.1 or true") from None
        found.setdefault(name.strip(), []).extend(map(_number, parsed))
    return found


def _number(value: Any) -> Any:
    """Return a value, and a number where YAML sees a word: `1e-3`."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _tell(job: Job, *, dry_run: bool) -> None:
    held = ", ".join(f"{count:,} {split}" for split, count in job.rows.items())
    if job.dataset:
        typer.echo(f"Dataset {job.dataset}: {held}.")
    if job.tried:
        names = [name for name in SHOWN if any(name in one.scores for one in job.tried)]
        head = ("", *(name.replace("_", " ") for name in names), "learned", "seconds", "")
        table(head, _score_rows(job, names))
    if job.state != "done":
        typer.secho(f"No candidate: {job.why}", fg="red", err=True)
        return
    prefix = "Dry run, nothing was handed over: " if dry_run else ""
    typer.echo(f"{prefix}{job.sentence}")


def _score_rows(job: Job, names: list[str]) -> Iterator[tuple[object, ...]]:
    for number, one in enumerate(job.tried):
        scores = [one.scores.get(name) for name in names]
        end = "chosen" if number == job.chosen else one.failed
        yield named(one.configuration), *scores, one.learned, round(one.took_s, 1), end
    for name, found in (("who answers now", job.champion), ("always the same", job.constant)):
        if found:
            knew = (
                ""
                if found is not job.champion or not job.champion_learned
                else (f"had learned {job.champion_learned:,} of these rows")
            )
            yield name, *(found.get(each) for each in names), None, None, knew


def named(configuration: dict[str, Any]) -> str:
    """Return a configuration in a few words.

    >>> named({"lr": 0.1, "epochs": 2}), named({"epochs": 1})
    ('lr 0.1, epochs 2', 'as configured, epochs 1')
    """
    changed = ", ".join(f"{n} {cell(v)}" for n, v in configuration.items() if n != "epochs")
    return f"{changed or 'as configured'}, epochs {configuration.get('epochs', 1)}"


def jobs(
    model: ModelName,
    *,
    count: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 20,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the training jobs of a model, the newest first, and what came of each."""
    from online_learner.retrain.records import jobs as read

    found = with_stages(model, config, lambda stages: read(stages.registry, count=count))
    columns = ("job", "began", "state", "because", "dataset", "version", "why")
    rows = [
        (
            job.id,
            when(job.started_at),
            job.state,
            job.because,
            job.dataset,
            job.version,
            job.why or None,
        )
        for job in found
    ]
    told = [job.model_dump() for job in found]
    show(told, as_json=as_json, text=lambda: table(columns, rows))


def with_stages(model: str, config: Path | None, work: Callable[[Stages], Awaitable[T]]) -> T:
    """Do some work on one model, in the store that the service uses, whether it runs or not."""
    from online_learner.config import fetch
    from online_learner.ids import Keyring
    from online_learner.stages import Stages

    data_dir = settings_here(config)[0].data_dir.resolve()

    async def run(store: Store) -> T:
        keyring = await asyncio.to_thread(Keyring.load, data_dir)
        settings = await fetch(store, keyring)
        stages = Stages(
            store,
            keyring,
            model,
            settings.model(model),
            window_s=settings.window_s,
            trains=False,
            data_dir=data_dir,
        )
        return await work(stages)

    return in_store(config, run)
