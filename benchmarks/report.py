"""Plain tables: to the terminal, and to `results/` as the table that is committed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
MACHINE = "2 cores, everything on one machine"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, padded so that it reads as text too; the first column is left.

    >>> print(table(["what", "n"], [["a", "10"]]))
    | what |  n |
    |------|---:|
    | a    | 10 |
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    lines = [_line(head, widths), "|" + "|".join(rule) + "|"]
    return "\n".join(lines + [_line(row, widths) for row in rows])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "| " + " | ".join([first, *rest]) + " |"


def bars(rows: Sequence[tuple[str, float, float, str]]) -> str:
    """Return the table of what was aimed at: (what, measured, aim, unit), more being better."""
    cells = [
        [
            what,
            f"{number(measured)}{unit}",
            f"{number(aim)}{unit}",
            "reached" if measured >= aim else "short",
        ]
        for what, measured, aim, unit in rows
    ]
    return table(["bar", "measured", "aim", ""], cells)


def number(value: float) -> str:
    """Return a number with three digits that matter.

    >>> number(5612.3), number(0.6512), number(17.04)
    ('5,612', '0.651', '17.0')
    """
    return (
        f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if value < 10 else f"{value:.1f}"
    )


def publish(name: str, title: str, text: str, *, command: str, keep: bool) -> None:
    """Print a report, and write it to `results/<name>.md` where it is to be kept."""
    print(f"\n{title}\n\n{text}\n", flush=True)
    if keep:
        RESULTS.mkdir(exist_ok=True)
        page = f"# {title}\n\n{MACHINE}. Made by `{command}`.\n\n{text}\n"
        (RESULTS / f"{name}.md").write_text(page)
