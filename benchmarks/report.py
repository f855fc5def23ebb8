"""Plain tables: to the terminal, and to `results/` as the table that is committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Bar:
    """What was measured, and what was aimed at."""

    what: str
    measured: float
    aim: float
    unit: str = ""
    at_most: bool = False

    @property
    def reached(self) -> bool:
        """Whether the aim was reached."""
        gap = self.measured - self.aim
        return gap <= 0 if self.at_most else gap >= 0

    def row(self) -> list[str]:
        """Return the cells of the table."""
        aim = f"{'<=' if self.at_most else '>='} {number(self.aim)}{self.unit}"
        measured = f"{number(self.measured)}{self.unit}"
        return [self.what, measured, aim, "reached" if self.reached else "short"]


def bars(found: Sequence[Bar]) -> str:
    """Return the table of what was aimed at."""
    return table(["bar", "measured", "aim", ""], [bar.row() for bar in found])


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


def sections(name: str) -> dict[str, str]:
    """Return the sections of a page that was kept, by title; none where there is no page."""
    path = RESULTS / f"{name}.md"
    _, *parts = f"\n{path.read_text()}".split("\n## ") if path.exists() else ("",)
    return {title: text.strip() for title, _, text in (part.partition("\n") for part in parts)}
