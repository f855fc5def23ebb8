"""Completion in the shell: the names of models, from the running service or the configuration.

Quickly, and in silence: a shell that is asked for a completion wants no error and no wait.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

TIMEOUT_S = 0.5


def model_names(incomplete: str) -> list[str]:
    """Return the models whose name begins with what was typed."""
    found: list[str] = []
    for source in (_served, _configured):
        with contextlib.suppress(Exception):
            found = list(source())
        if found:
            break
    return sorted(name for name in found if name.startswith(incomplete))


def _served() -> Iterator[str]:
    import httpx2

    from online_learner.cli.output import configured_data_dir
    from online_learner.client.place import locate

    place = locate(folder=configured_data_dir())
    with httpx2.Client(**place.options(TIMEOUT_S)) as client:
        for model in client.get("/v1/models").raise_for_status().json()["models"]:
            yield str(model["model"])


def _configured() -> Iterator[str]:
    import yaml

    from online_learner.cli.output import CONFIG_FILES

    for name in CONFIG_FILES:
        if Path(name).is_file():
            yield from yaml.safe_load(Path(name).read_text())["models"]
            return


ModelName: TypeAlias = Annotated[
    str, typer.Argument(help="As the configuration names it.", autocompletion=model_names)
]
