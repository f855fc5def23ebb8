"""What is here: the configuration, and the store that the service uses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

import typer

from online_learner.cli.output import CONFIG_FILES
from online_learner.note import Note

if TYPE_CHECKING:
    from online_learner.settings import Settings
    from online_learner.store import Store

T = TypeVar("T")

Config: TypeAlias = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="The configuration file.")
]

_EXAMPLE = """\
models:
  phishing:
    task: classification
    labels: [false, true]
    learner: examples.phishing:learner
"""


def find_config(given: Path | None) -> Path:
    """Return the configuration file: the one given, or the one that is here."""
    for path in (given,) if given else map(Path, CONFIG_FILES):
        if path.is_file():
            return path
    raise typer.BadParameter(
        f"no {' or '.join(CONFIG_FILES)} is here: give --config FILE, or write one like this:\n\n"
        f"{_EXAMPLE}"
    )


def settings_here(config: Path | None) -> tuple[Settings, Path | None]:
    """Return the configuration and its file; where none is here, what the environment says."""
    from online_learner.settings import Settings

    try:
        file = find_config(config)
    except typer.BadParameter:
        return Settings.parse({"models": {}}, name="the environment"), None
    return Settings.load(file), file


def in_store(config: Path | None, work: Callable[[Store], Awaitable[T]]) -> T:
    """Do some work in the store that the service uses, whether the service runs or not."""
    from online_learner.store import open_store

    url, data_dir = _place(config)

    async def run() -> T:
        async with await open_store(url, data_dir=data_dir) as store:
            return await work(store)

    return asyncio.run(run())


def _place(config: Path | None) -> tuple[str, Path]:
    """Return the store and the data directory: of the configuration, else of what runs here."""
    settings, file = settings_here(config)
    data_dir = settings.data_dir.resolve()
    if settings.store != "auto":
        return settings.store, data_dir
    note = Note.read(data_dir)
    if note is None and file is None and not (data_dir / "store").is_dir():
        raise typer.BadParameter(
            "no store is known: give --config FILE, or set REDIS_URL, or OL_DATA_DIR to the data "
            "directory of the service"
        )
    return "auto" if note is None else note.store, data_dir
