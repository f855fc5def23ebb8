"""Datasets compiled of a loop's log: what is in them, as rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from online_learner.archive.place import Place
from online_learner.dataset.compiling import compile_dataset
from online_learner.dataset.manifest import Manifest
from online_learner.dataset.query import Query
from online_learner.dataset.reading import rows
from online_learner.dataset.running import Here
from online_learner.dataset.versions import Versions
from online_learner.loop import Loop

NOW = 1_800_000_000.0


async def compiled(
    loop: Loop, model: str, folder: Path, format_: Any = "supervised", **wishes: Any
) -> tuple[Manifest, list[dict[str, Any]]]:
    """Return a version of a model's dataset, and its rows; none is held out unless that is asked.

    `config`, `watermarks` and `advance` are taken as such; all else belongs to the query.
    """
    stages = loop.stages(model)
    spec = wishes.pop("config", stages.spec)
    others = {name: wishes.pop(name) for name in ("watermarks", "advance") if name in wishes}
    place = Place.open(folder)
    manifest = await compile_dataset(
        stages.log,
        spec,
        stages.keyring,
        Query(model=model, format=format_, **{"validation": 0.0} | wishes),
        datasets=place,
        runner=Here(),
        now=NOW,
        **others,
    )
    return manifest, list(rows(Versions(place), manifest.id, "all"))


def bytes_of(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """Return all files of a version but the manifest, by path."""
    return {file.path: (folder / manifest.id / file.path).read_bytes() for file in manifest.files}


def left(folder: Path) -> list[str]:
    """Return the names of all that is in the folder of a model's versions, hidden or not."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
