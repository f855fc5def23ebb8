"""The way to the service, and how results are shown.

JSON where asked for, a table on a terminal, plain columns elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias

import typer

if TYPE_CHECKING:
    from online_learner.client import Client

CONFIG_FILES = ("online_learner.yaml", "loop.yaml")

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Row: TypeAlias = Sequence[object]


class Advance(Protocol):
    """Shows that something has come further."""

    def __call__(self, steps: int, text: str = "") -> None:
        """Take note of so many steps more, and of what there is to say."""


def connect(data_dir: Path | None = None, **options: Any) -> Client:
    """Return a client of the service that runs on `data_dir`, or on the one configured here."""
    from online_learner.client import Client
    from online_learner.client.place import locate

    place = locate(folder=data_dir or configured_data_dir())
    return Client(place.url, place.key, **options)


def connect_as_auditor() -> Client | None:
    """Return a client that speaks as an auditor, or None where no key of auditors is known.

    It is the one in `OL_AUDIT_KEY`, else the one that `up` made in its data directory.
    """
    from online_learner.client import Client
    from online_learner.client.place import data_dir, locate
    from online_learner.note import Note
    from online_learner.secret import from_environment

    folder = configured_data_dir() or data_dir()
    place, key = locate(folder=folder), from_environment("OL_AUDIT_KEY")
    if key is None:
        noted = Note.read(folder)
        if noted is None or noted.url != place.url:  # it is for nobody but the service beside it
            return None
        with contextlib.suppress(OSError):
            key = (folder / "audit_key").read_text().strip()
    return None if key is None else Client(place.url, key)


def progress(total: int | None) -> contextlib.AbstractContextManager[Advance]:
    """Return what shows how far something is: a bar on a terminal, nothing elsewhere.

    It is entered, and what is then returned is called as `advance(steps, text)`.
    """
    if not sys.stderr.isatty():
        return contextlib.nullcontext(lambda _steps, _text="": None)
    return _bar(total)


@contextlib.contextmanager
def _bar(total: int | None) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    columns = (BarColumn(), MofNCompleteColumn(), Left(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=total)

        def advance(steps: int, text: str = "") -> None:
            shown.update(task, advance=steps, description=text)

        yield advance


def configured_data_dir() -> Path | None:
    """Return the data directory that the configuration here names, where the environment does not.

    The file is not checked: it is not what a read is about.
    """
    import yaml

    if os.environ.get("OL_DATA_DIR"):
        return None
    for name in CONFIG_FILES:
        with contextlib.suppress(OSError, yaml.YAMLError, AttributeError):
            named = yaml.safe_load(Path(name).read_text()).get("data_dir")
            return None if named is None else Path(str(named))
    return None


def show(data: Any, *, as_json: bool, text: Callable[[], None]) -> None:
    """Print data as JSON, or as text."""
    if as_json:
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        text()


def table(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Print rows: boxed on a terminal, in plain columns elsewhere."""
    cells = [[cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _boxed(columns, cells)
    else:
        plain(columns, cells)


def pairs(items: Mapping[str, object]) -> None:
    """Print names and values, one pair a line."""
    width = max(map(len, items))
    for name, value in items.items():
        typer.echo(f"{name:<{width}}  {cell(value)}")


def plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns that are as wide as they need to be."""
    lines = [[name.upper() for name in columns], *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(padded).rstrip())


def _boxed(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    found = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        found.add_row(*row)
    Console(markup=False, highlight=False).print(found)


def cell(value: object) -> str:
    """Return a value as people read it.

    >>> cell(None), cell(True), cell(0.123456), cell("spam")
    ('-', 'true', '0.1235', 'spam')
    """
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return json.dumps(value)
    return f"{value:.4g}" if isinstance(value, float) else visible(str(value))


def visible(text: str) -> str:
    r"""Return a text with every character shown that would tell a terminal to do something.

    >>> visible("a\x1b[2Jb\n"), visible("Grüße")
    ('a\\x1b[2Jb\n', 'Grüße')
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def said(value: Any) -> str:
    """Return an output or the value of a signal as people read it.

    >>> said(["b", "a"]), said({"value": 4.0, "scale": [1.0, 5.0]})
    ('b > a', '4 of 1 to 5')
    >>> said({"chosen": "a", "rejected": "b"}), said({"event": "dwell", "value": 31.0})
    ('a > b', 'event dwell, value 31')
    """
    match value:
        case list():
            return " > ".join(map(cell, value))
        case {"value": rating, "scale": [low, high]}:
            return f"{cell(rating)} of {cell(low)} to {cell(high)}"
        case {"chosen": chosen, "rejected": rejected}:
            return f"{chosen} > {rejected}"
        case dict():
            known = {name: part for name, part in value.items() if part is not None}
            return ", ".join(f"{name} {cell(part)}" for name, part in known.items())
        case _:
            return cell(value)


def when(seconds: float) -> str:
    """Return a time as people here read it.

    >>> when(0)
    '-'
    """
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "-"
