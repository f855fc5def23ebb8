"""`init`: a commented configuration, and a learner of one's own to change."""

from __future__ import annotations

import re
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Annotated, TypeAlias

import typer

from online_learner.schema import Task

CONFIG, LEARNER = "online_learner.yaml", "my_learner.py"
RANKS = ("ranking", "generation")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}")

Folder: TypeAlias = Annotated[Path, typer.Argument(file_okay=False, help="It is made.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(init)


def init(
    folder: Folder = Path(),
    *,
    task: Annotated[Task, typer.Option(help="What the model does.")] = "classification",
    labels: Annotated[
        str | None, typer.Option(help="Of a classification, as in a,b,c. Default: as they come.")
    ] = None,
    model: Annotated[str, typer.Option(help="What the model is called.")] = "my_model",
) -> None:
    """Begin a model of one's own: a commented configuration, and a learner that you can change."""
    given = _labels(labels, task)
    if not _NAME.fullmatch(model):
        raise typer.BadParameter(f"'{model}' is no name: letters, digits, and . _ - in between")
    files = {CONFIG: _config(model, task, given), LEARNER: _template(f"{_kind(task)}.py.txt")}
    for name in files:
        if (folder / name).exists():
            raise typer.BadParameter(f"{folder / name} is there already: it is left as it is")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        with (folder / name).open("x") as file:
            file.write(text)
        typer.echo(f"Wrote {folder / name}")
    _next(folder, model, task)


def _labels(text: str | None, task: str) -> list[str]:
    if text is None:
        return []
    if task != "classification":
        raise typer.BadParameter(f"labels are of a classification, and the task is {task}")
    found = [label.strip() for label in text.split(",")]
    if len(set(found)) < len(found) or len(found) < 2 or "" in found:
        raise typer.BadParameter("name two labels or more, each once: --labels a,b,c")
    return found


def _config(model: str, task: str, labels: list[str]) -> str:
    import json

    told = f"[{', '.join(map(json.dumps, labels))}]" if labels else "[a, b]"
    line = f"    {'' if labels else '# '}labels: {told}"
    head = line if task == "classification" else None
    text = Template(_template("online_learner.yaml")).substitute(
        model=model, task=task, labels=f"{head}\n" if head else "", about=_ABOUT[task]
    )
    return text.rstrip() + "\n"


def _template(name: str) -> str:
    return (resources.files("online_learner") / "templates" / name).read_text()


def _kind(task: str) -> str:
    return "ranking" if task in RANKS else task


def _next(folder: Path, model: str, task: str) -> None:
    if task in RANKS and find_spec("torch") is None:
        typer.echo("It needs torch, which is not installed: pip install 'online-learner[torch]'")
    here = "" if folder == Path() else f"cd {folder}; "
    typer.echo(f"\nNext:\n  {here}online-learner up")
    typer.echo(f"and, while that runs, in another terminal there:\n  {_ASK[task].format(model)}")


_ABOUT = {
    "classification": "one label out of several",
    "regression": "a number",
    "ranking": "an order over options that come with the request",
    "generation": "answers made elsewhere and logged, and a reward model that learns from ratings",
}
_ASK = {
    "classification": "online-learner teach {} FILE.csv --label COLUMN",
    "regression": "online-learner teach {} FILE.csv --label COLUMN",
    "ranking": "online-learner predict {} '{{}}' --options "
    '\'[{{"id": "a", "features": {{"x": 1}}}}, {{"id": "b", "features": {{"x": 2}}}}]\'',
    "generation": "online-learner log {} 'Why is the sky blue?' 'It scatters.' 'It is paint.'",
}
