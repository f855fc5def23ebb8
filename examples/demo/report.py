"""What the demo shows: a live line, a table, a plot, and whether it all adds up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from examples.demo.accounting import Account
from examples.demo.replay import RACERS, Player

WINDOW = 100
COLOURS = {
    "served": "#0072B2",
    "ungated": "#009E73",
    "frozen": "#D55E00",
    "majority": "#999999",
    "no change": "#CCBB44",
}


@dataclass(frozen=True)
class Result:
    """One stream, played to the end."""

    player: Player
    verdicts: list[dict[str, Any]]  # oldest first, each with the row at which it fell
    account: Account

    @property
    def goals(self) -> dict[str, bool]:
        """The bars that the demo has to reach, and whether it did."""
        accuracy = {name: self.player.score.accuracy(name) for name in RACERS}
        served = accuracy["served"]
        return {
            "served >= frozen + .10": served >= accuracy["frozen"] + 0.10,
            "served > majority": served > accuracy["majority"],
            "served > no change": served > accuracy["no change"],
            "served >= .90 of ungated": served >= 0.90 * accuracy["ungated"],
            "the accounting adds up": self.account.holds,
        }


def live_line(player: Player, promotions: int) -> str:
    """Return one line about a stream under way."""
    score, recent = player.score, max(0, player.done - WINDOW)
    return (
        f"served {score.accuracy('served', recent):.2f}  "
        f"frozen {score.accuracy('frozen', recent):.2f}  "
        f"ungated {score.accuracy('ungated', recent):.2f}  "
        f"v{score.versions[-1]} step {score.steps[-1]}  promotions {promotions}"
    )


def show(console: Console, results: Sequence[Result]) -> None:
    """Print the tables and the verdicts."""
    console.print(_accuracy_table(results))
    for result in results:
        console.print(f"[bold]{result.player.stream.name}[/bold]: why it was promoted, and when")
        for verdict in (v for v in result.verdicts if v["action"] != "admit"):
            line = f"  row {verdict['row']:>5}  {verdict['sentence']}"
            console.print(line, highlight=False, soft_wrap=True)
    console.print(_account_table(results))
    for result in results:
        for goal, reached in result.goals.items():
            mark = "[green]yes[/green]" if reached else "[red]NO[/red]"
            console.print(f"  {result.player.stream.name:10} {goal:28} {mark}")
        for fault in result.account.faults:
            console.print(f"  [red]{result.player.stream.name}: {fault}[/red]")


def _accuracy_table(results: Sequence[Result]) -> Table:
    table = Table(title="Accuracy against the truth (the labels rotate at half)")
    table.add_column("stream")
    table.add_column("rows", justify="right")
    for name in RACERS:
        table.add_column(name, justify="right")
    table.add_column("of ungated", justify="right")
    for result in results:
        score = result.player.score
        shares = [score.accuracy(name) for name in RACERS]
        table.add_row(
            result.player.stream.name,
            str(result.player.done),
            *(f"{share:.3f}" for share in shares),
            f"{shares[0] / shares[1]:.3f}",
        )
    return table


def _account_table(results: Sequence[Result]) -> Table:
    fields = ("sent", "accepted", "duplicates", "refused", "learned", "set_aside", "rolled_back")
    table = Table(
        title="Accounting: sent = accepted + duplicates + refused; "
        "accepted = learned + set aside + rolled back"
    )
    table.add_column("stream")
    for name in (*fields, "holds"):
        table.add_column(name.replace("_", " "), justify="right")
    for result in results:
        sums = [str(getattr(result.account, name)) for name in fields]
        table.add_row(result.player.stream.name, *sums, "yes" if result.account.holds else "NO")
    return table


def plot(results: Sequence[Result], path: Path) -> None:
    """Draw the curves, with a mark at every promotion."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(len(results), 1, figsize=(10, 4 * len(results)), squeeze=False)
    for panel, result in zip(panels[:, 0], results, strict=True):
        for name in RACERS:
            hits = np.array(result.player.score.hits[name], dtype=float)
            curve = np.convolve(hits, np.ones(WINDOW) / WINDOW, mode="valid")
            rows = np.arange(WINDOW, len(hits) + 1)
            panel.plot(rows, curve, color=COLOURS[name], label=name, linewidth=1.6)
        panel.axvline(result.player.stream.turn, color="#444444", linestyle=":", linewidth=1)
        panel.text(result.player.stream.turn, 1.02, "labels rotate", ha="center", fontsize=8)
        for verdict in result.verdicts:
            if verdict["action"] in ("promote", "follow", "bless"):
                panel.axvline(verdict["row"], color="#0072B2", linewidth=0.7, alpha=0.6)
        panel.set(
            ylim=(0, 1.08), ylabel=f"accuracy, last {WINDOW}", title=result.player.stream.name
        )
        panel.legend(loc="lower left", ncol=len(RACERS), fontsize=8)
    panels[-1, 0].set_xlabel("answers (blue lines: promotions)")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
