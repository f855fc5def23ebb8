"""Starts the system, plays both streams at once, kills the learner, and says how it went."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from examples.demo import accounting, report, streams
from examples.demo.crowd import SLOWEST
from examples.demo.replay import Player
from online_learner.client import AsyncClient
from online_learner.settings import Settings

PLAY_S = 60.0
KILL_AT = 0.3  # of the stream
SETTLE_S = 60.0


def run(
    *,
    seed: int = 1,
    keep: bool = False,
    port: int = 8000,
    data_dir: Path | None = None,
    out: Path = Path("out"),
) -> int:
    """Run the demo; returns the exit status: 0 where every goal was reached."""
    from serve_app.local import running

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ol-demo-", ignore_cleanup_errors=True) as scratch:
        place = data_dir or Path(scratch)
        console.print("Starting the store, Ray and Serve ...")
        started = time.monotonic()
        with running(_settings(seed, place), port=port) as endpoint:
            console.print(
                f"Serving on [bold]{endpoint.url}[/bold] after {time.monotonic() - started:.0f} s"
            )
            results = asyncio.run(_play(console, endpoint.url, endpoint.key, endpoint.store, seed))
            report.show(console, results)
            path = out / "demo.png"
            report.plot(results, path)
            console.print(f"The curves are in [bold]{path}[/bold].")
            if keep:
                _wait(console, endpoint.url, endpoint.key)
    reached = all(all(result.goals.values()) for result in results)
    console.print("All goals were reached." if reached else "[red]Some goals were missed.[/red]")
    return 0 if reached else 1


def _settings(seed: int, data_dir: Path) -> Settings:
    models = {
        stream.name: {
            "task": "classification",
            "labels": stream.labels,
            "learner": f"examples.demo.streams:{stream.name}",
            "audit": 0.5,
            "audit_deadline_s": round(1.2 * SLOWEST * PLAY_S / len(stream.rows), 2),
            "gamma": 1.1,  # the raters answer nearly every audit, whatever they think of it
            # The streams are short: a lineage that learned the old world is judged anew after 250.
            "promotion": {
                "policy": "policies.promotion:Leash",
                "alpha": 0.01,
                "restart_after": 250,
            },
        }
        for stream in streams.load(seed)
    }
    return Settings.parse({"data_dir": data_dir, "models": models}, name="demo")


async def _play(console: Console, url: str, key: str, store: str, seed: int) -> list[report.Result]:
    async with AsyncClient(url, key) as client:
        players = [
            Player(stream, client, seed, len(stream.rows) / PLAY_S) for stream in streams.load(seed)
        ]
        with Progress(
            TextColumn("{task.description:10}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[line]}"),
            console=console,
        ) as progress:
            await _watch(client, players, progress)
        return [await _settle(client, player, store) for player in players]


async def _watch(client: AsyncClient, players: Sequence[Player], progress: Progress) -> None:
    """Play all streams at once, show how they go, and kill a learner in the middle."""
    bars: dict[str, TaskID] = {
        p.stream.name: progress.add_task(p.stream.name, total=len(p.stream.rows), line="")
        for p in players
    }
    promotions = dict.fromkeys(bars, 0)

    def on_row(player: Player) -> None:
        name = player.stream.name
        line = report.live_line(player, promotions[name])
        progress.update(bars[name], completed=player.done, line=line)

    async def count_promotions() -> None:
        while True:
            for name in promotions:
                verdicts = await client.verdicts(name)
                promotions[name] = sum(v["action"] in _UP for v in verdicts)
            await asyncio.sleep(1.0)

    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(count_promotions())
        killer = group.create_task(_kill_learner(client, players[0], progress.console))
        plays = [group.create_task(player.play(on_row)) for player in players]
        await asyncio.gather(*plays, killer)
        watcher.cancel()


_UP = ("promote", "follow", "bless")


async def _kill_learner(client: AsyncClient, player: Player, console: Console) -> None:
    """Kill -9 the learner in mid-stream; Serve starts another, which goes on where it stopped."""
    while player.done < KILL_AT * len(player.stream.rows):
        await asyncio.sleep(0.1)
    before = (await client.model(player.stream.name))["learner"]["pid"]
    os.kill(before, signal.SIGKILL)
    killed = time.monotonic()
    console.print(f"Killed the learner of {player.stream.name} (pid {before}, kill -9) ...")
    while True:
        learner = (await client.model(player.stream.name))["learner"]
        if learner is not None and learner["pid"] != before:
            break
        await asyncio.sleep(0.1)
    console.print(f"... and pid {learner['pid']} goes on after {time.monotonic() - killed:.1f} s.")


async def _settle(client: AsyncClient, player: Player, store: str) -> report.Result:
    """Wait until the learner has come to the end, then add up."""
    model = player.stream.name
    deadline = time.monotonic() + SETTLE_S
    while not accounting.all_covered(store, model) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    verdicts = [
        {**verdict, "row": player.row_at(verdict["at"])}
        for verdict in reversed(await client.verdicts(model))
    ]
    return report.Result(player, verdicts, accounting.account(store, model, player.ledger))


def _wait(console: Console, url: str, key: str) -> None:
    console.print(f"Still running on {url} with key {key}. Ctrl-C stops it.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        console.print("Stopping ...")
