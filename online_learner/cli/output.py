"""How results are shown: JSON where asked for, a table on a terminal, plain columns elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import typer

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Row: TypeAlias = Sequence[object]


def show(data: Any, *, as_json: bool, text: Callable[[], None]) -> None:
    """Print data as JSON, or as text."""
    if as_json:
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        text()


def table(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Print rows: boxed on a terminal, in plain columns elsewhere."""
    cells = [[_cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _boxed(columns, cells)
    else:
        plain(columns, cells)


def pairs(items: Mapping[str, object]) -> None:
    """Print names and values, one pair a line."""
    width = max(map(len, items))
    for name, value in items.items():
        typer.echo(f"{name:<{width}}  {_cell(value)}")


def plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns that are as wide as they need to be."""
    lines = [[name.upper() for name in columns], *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(padded).rstrip())


def _boxed(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    found = Table(*columns)
    for row in rows:
        found.add_row(*row)
    Console(markup=False, highlight=False).print(found)


def _cell(value: object) -> str:
    """Return a value as people read it.

    >>> _cell(None), _cell(True), _cell(0.123456), _cell("spam")
    ('-', 'true', '0.1235', 'spam')
    """
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return json.dumps(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def when(seconds: float) -> str:
    """Return a time as people here read it.

    >>> when(0)
    '-'
    """
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "-"
