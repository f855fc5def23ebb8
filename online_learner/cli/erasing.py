"""`erase`: all that a person sent, from the log, the archive and the weights, with a proof."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from online_learner.cli.here import in_store, settings_here
from online_learner.cli.output import AsJson, pairs, progress, show

if TYPE_CHECKING:
    from online_learner.dataset.versions import Versions
    from online_learner.forget.erase import Eraser
    from online_learner.forget.proof import Kept
    from online_learner.stages import Stages
    from online_learner.store import Store

T = TypeVar("T")

FOUND = 1  # exit status of --check and --verify where something is found


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(erase)


@dataclass(frozen=True, slots=True)
class _Here:
    """The models that the service has, and where their datasets are."""

    store: Store
    stages: dict[str, Stages]

    def eraser(self, model: str, user: str, advance: Callable[[int], None]) -> Eraser:
        from online_learner.forget.erase import Eraser

        datasets = self.datasets(model)
        return Eraser.of(self.stages[model], user, datasets=datasets, alive=advance)

    def datasets(self, model: str) -> Versions | None:
        from online_learner.dataset.versions import Versions
        from online_learner.stages import data_place

        stages = self.stages[model]
        root = data_place(stages.spec, stages.data_dir)
        return None if root is None else Versions(root.at("datasets", model))


def erase(
    *,
    user: Annotated[str | None, typer.Option(help="Their user id, as it was sent.")] = None,
    model: Annotated[str | None, typer.Option(help="Of this model alone; else of all.")] = None,
    drop_datasets: Annotated[
        bool, typer.Option("--drop-datasets", help="Remove datasets that hold their signals.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what is theirs, and erase nothing.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Look for them everywhere; exit 1 where they are found.")
    ] = False,
    status: Annotated[
        str | None, typer.Option(help="How an erasure stands: its id, or `all`.")
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A proof as --json printed it: look again."),
    ] = None,
    by: Annotated[str, typer.Option(help="Who wants it, for the record.")] = "operator",
    wait_s: Annotated[float, typer.Option(min=0, help="Seconds to wait for the weights.")] = 60.0,
    config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The configuration file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Erase what a person sent: from the log, the archive, the store's own files and the weights.

    What stays of it is its place in the log, and a sealed proof without their name. Datasets that
    were compiled before are listed; later ones are without. It works beside a running service, and
    again where it was cut short.
    """
    if sum(wish is not None for wish in (user, status, verify)) != 1:
        raise typer.BadParameter("give one of --user, --status and --verify")
    if status is not None:
        done = _within(config, model, lambda here: _status(here, str(status)))
        show(done, as_json=as_json, text=lambda: _tell_all(done))
        return
    if verify is not None:
        document = _document(verify)
        found = _within(config, None, lambda here: _verify(here, document))
        show(found, as_json=as_json, text=lambda: _tell_found(found["found"]))
        raise typer.Exit(FOUND if found["found"] else 0)
    assert user is not None
    if check:
        where = _within(config, model, lambda here: _check(here, user))
        show({"found": where}, as_json=as_json, text=lambda: _tell_found(where))
        raise typer.Exit(FOUND if where else 0)
    if dry_run:
        theirs = _within(config, model, lambda here: _dry_run(here, user))
        show(theirs, as_json=as_json, text=lambda: _tell_theirs(theirs))
        return
    from online_learner.forget.erase import Wish

    wish = Wish(by=by, wait_s=wait_s, drop_datasets=drop_datasets)
    proofs = _within(config, model, lambda here: _erase(here, user, wish))
    show(proofs, as_json=as_json, text=lambda: _tell_all(proofs))


# --- what is done -----------------------------------------------------------------------------


async def _erase(here: _Here, user: str, wish: Any) -> dict[str, Any]:
    """Erase from each model that has anything; raises `NotFound` where none has."""

    async def one(eraser: Eraser) -> dict[str, Any]:
        return (await eraser.erase(wish)).render()

    return await _each(here, user, one)


async def _dry_run(here: _Here, user: str) -> dict[str, Any]:
    async def one(eraser: Eraser) -> dict[str, Any]:
        return dict((await eraser.find()).counts())

    return await _each(here, user, one)


async def _each(
    here: _Here, user: str, work: Callable[[Eraser], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    from online_learner.errors import NotFound

    done, unknown = {}, None
    with progress(None) as advance:
        for model in here.stages:
            eraser = here.eraser(model, user, lambda n, m=model: advance(n, m))  # type: ignore[misc]
            try:
                done[model] = await work(eraser)
            except NotFound as error:
                unknown = error
    if unknown is not None and not done:
        raise unknown
    return done


async def _check(here: _Here, user: str) -> dict[str, dict[str, int]]:
    from online_learner.forget.looking import look

    found = {}
    with progress(None) as advance:
        for model, stages in here.stages.items():
            person = here.eraser(model, user, lambda _: None).person

            async def alive(entries: int, model: str = model) -> None:
                advance(entries, model)

            found[model] = await look(stages.log, person, alive, here.datasets(model))
    return {model: where for model, where in found.items() if where}


async def _status(here: _Here, entry: str) -> dict[str, Any]:
    from online_learner.errors import NotFound
    from online_learner.forget import proof

    found: dict[str, Any] = {}
    for model, stages in here.stages.items():
        try:
            kept = (
                await proof.proofs(stages.registry)
                if entry == "all"
                else [await proof.proof(stages.registry, entry)]
            )
        except NotFound:
            continue
        told = [await _now(stages, one) for one in kept]
        if told:
            found[model] = told if entry == "all" else told[0]
    if not found and entry != "all":
        raise NotFound(
            "there is no erasure with this id here: `online-learner erase --status all` lists them",
            code="unknown_erasure",
        )
    return found


async def _now(stages: Stages, kept: Kept) -> dict[str, Any]:
    from online_learner.forget import proof

    now = await proof.unlearned_by_now(stages.log, kept.proof)
    return kept.render() | {"unlearned_now": now}


async def _verify(here: _Here, document: dict[str, Any]) -> dict[str, Any]:
    """Look for the person of each proof of a document; raises `StateError` where one is none."""
    from online_learner.errors import ConfigError
    from online_learner.forget import proof
    from online_learner.forget.looking import look
    from online_learner.forget.person import Person

    async def alive(_: int) -> None:
        return

    found: dict[str, dict[str, int]] = {}
    for model, one in document.items():
        if model not in here.stages or not isinstance(one, dict):
            raise ConfigError("this is a proof of a model that is not here")
        stages = here.stages[model]
        kept = proof.handed_out(stages.registry, one)
        person = Person(stages.keyring, model, kept.proof.pseudonyms)
        where = await look(stages.log, person, alive, here.datasets(model))
        if await proof.unlearned_by_now(stages.log, kept.proof) in ("pending", "impossible"):
            where["weights"] = 1
        if where:
            found[model] = where
    return {"sealed": True, "found": found}


def _within(config: Path | None, model: str | None, work: Callable[[_Here], Awaitable[T]]) -> T:
    """Do some work on the models of the service, in its store, whether it runs or not."""
    from online_learner.config import fetch
    from online_learner.ids import Keyring
    from online_learner.stages import Stages

    data_dir = settings_here(config)[0].data_dir.resolve()

    async def run(store: Store) -> T:
        keyring = Keyring.load(data_dir)
        settings = await fetch(store, keyring)
        names = list(settings.models) if model is None else [model]
        stages = {
            name: Stages(
                store,
                keyring,
                name,
                settings.model(name),
                window_s=settings.window_s,
                data_dir=data_dir,
            )
            for name in names
        }
        return await work(_Here(store, stages))

    return in_store(config, run)


def _document(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise typer.BadParameter("this is no proof: give a file that `erase --json` printed")
    return found


# --- how it is told ---------------------------------------------------------------------------


def _tell_theirs(found: dict[str, Any]) -> None:
    typer.echo("Dry run, nothing was erased. Theirs:")
    pairs({model: _counted(counts) for model, counts in found.items()})


def _tell_found(found: dict[str, dict[str, int]]) -> None:
    if not found:
        typer.echo("Found nowhere.")
        return
    pairs({model: _counted(counts) for model, counts in found.items()})


def _tell_all(found: dict[str, Any]) -> None:
    if not found:
        typer.echo("Nobody was erased.")
    for model, told in found.items():
        for one in told if isinstance(told, list) else [told]:
            _tell(model, one)


def _tell(model: str, one: dict[str, Any]) -> None:
    told: dict[str, object] = {
        "model": model,
        "id": one["id"],
        "erased": _counted(one["erased"]),
        "archive": f"{one['segments']} files written anew",
        "store's log": one["aof"],
        "snapshot": one["rdb"],
        "weights": one.get("unlearned_now", one["unlearned"]),
    }
    if one["datasets"]:
        told["still in datasets"] = ", ".join(one["datasets"])
    if one["removed"]:
        told["datasets removed"] = ", ".join(one["removed"])
    if one["rebuilt"]:
        told["versions learned anew"] = ", ".join(map(str, one["rebuilt"]))
    if one["tainted"]:
        told["versions that hold it"] = ", ".join(map(str, one["tainted"]))
    if one["todo"]:
        told["to do"] = one["todo"]
    pairs(told)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing"
