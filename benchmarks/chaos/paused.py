"""Writers that stop for a while, and wake up when a successor has taken over.

A process that is paused (SIGSTOP) cannot know it. In half of the pauses it has just sent a commit,
which reaches the server when the successor has committed: the worst moment there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks import report
from benchmarks.chaos.bench import Bench, bench, open_door, until
from benchmarks.chaos.clients import MODEL, Clients, InProcess
from benchmarks.chaos.ledger import Audit
from benchmarks.chaos.proxy import Exchange
from benchmarks.chaos.writer import SCRIPTS, kill, spawn
from benchmarks.report import Bar
from benchmarks.sections import Found
from benchmarks.writers import Role
from online_learner.errors import Unavailable
from online_learner.loop import Loop

TITLE = "Paused writers"
PAUSE_S = 5.0
PATIENCE_S = 60.0
LANES = 3
_FENCE = re.compile(rb'"fence": "(\d+)"')


@dataclass(slots=True)
class Commits:
    """The commits that came by, and those among them that should not have.

    Attributes
    ----------
    accepted, fenced
        How many, by process.
    stale
        How many were accepted though a newer writer had committed before.
    """

    accepted: Counter[int] = field(default_factory=Counter)
    fenced: Counter[int] = field(default_factory=Counter)
    stale: int = 0
    _newest: Counter[str] = field(default_factory=Counter)

    def see(self, name: str, pid: int, request: bytes, reply: bytes) -> None:
        """Look at one command and its reply."""
        if name not in SCRIPTS.values():
            return
        found = _FENCE.search(request)
        fence = int(found[1]) if found else 0
        if b"fenced" in reply:
            self.fenced[pid] += 1
        elif b"ok" in reply or b"old" in reply:
            self.accepted[pid] += 1
            self.stale += fence < self._newest[name]
            self._newest[name] = max(fence, self._newest[name])


@dataclass(slots=True)
class Outcome:
    """What came of so many pauses."""

    pauses: Counter[tuple[Role, bool]] = field(default_factory=Counter)
    fenced: Counter[tuple[Role, bool]] = field(default_factory=Counter)
    stale: int = 0
    audit: Audit = field(default_factory=Audit)

    def add(self, other: Outcome) -> None:
        """Take in another."""
        self.pauses += other.pauses
        self.fenced += other.fenced
        self.stale += other.stale
        self.audit += other.audit


class Lane:
    """One model on a server of its own, under load, whose writers are paused in turn."""

    def __init__(self, place: Bench, rng: random.Random, pause_s: float) -> None:
        self.place = place
        self.commits = Commits()
        self.found = Outcome()
        self._rng = rng
        self._pause_s = pause_s
        self._running: dict[Role, subprocess.Popen[bytes]] = {}
        place.proxy.watcher = self.commits.see

    def start(self, role: Role) -> subprocess.Popen[bytes]:
        """Start a writer; it is the one that is paused next."""
        process = spawn(role, self.place.proxy.url, self.place.home)
        self._running[role] = process
        return process

    def stop(self) -> None:
        """End the writers."""
        for process in self._running.values():
            kill(process)

    async def pause(self, role: Role, *, in_commit: bool) -> None:
        """Pause a writer, let a successor commit, wake it up, and wait until it has found out."""
        first = self._running[role]
        await self._commits(first)
        woken = asyncio.Event()
        if in_commit:
            told = await self._stop_in_commit(role, first, woken)
        else:
            await asyncio.sleep(self._rng.uniform(0.0, 0.2))
            first.send_signal(signal.SIGSTOP)
        until_s = time.monotonic() + self._pause_s
        try:
            await self._commits(self.start(role))
            await asyncio.sleep(max(0.0, until_s - time.monotonic()))
            first.send_signal(signal.SIGCONT)
            woken.set()
            if in_commit:
                await asyncio.wait_for(told.wait(), PATIENCE_S)
            await self._comes_around(role, first)
        finally:
            kill(first)
        self.found.pauses[role, in_commit] += 1
        self.found.fenced[role, in_commit] += self.commits.fenced[first.pid] > 0

    async def _stop_in_commit(
        self, role: Role, process: subprocess.Popen[bytes], woken: asyncio.Event
    ) -> asyncio.Event:
        """Stop it when it has sent a commit; the server gets it once the writer is `woken`."""

        async def hold(exchange: Exchange) -> None:
            os.kill(process.pid, signal.SIGSTOP)
            await woken.wait()
            exchange.send()
            reply = await exchange.reply()
            self.commits.see(SCRIPTS[role], process.pid, exchange.request, reply)
            exchange.give(reply)

        trap = self.place.proxy.trap(SCRIPTS[role], hold, pid=process.pid)
        await asyncio.wait_for(trap.sprung.wait(), PATIENCE_S)
        return trap.over

    async def _commits(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until a writer has committed once more."""
        before = self.commits.accepted[process.pid]

        async def has() -> bool:
            return self.commits.accepted[process.pid] > before

        await until(has, PATIENCE_S, "a commit")

    async def _comes_around(self, role: Role, process: subprocess.Popen[bytes]) -> None:
        """Wait until a writer that woke up has been refused, or has lawfully taken over again."""
        before = self.commits.accepted[process.pid]

        async def has() -> bool:
            pid = process.pid
            return self.commits.fenced[pid] > 0 or self.commits.accepted[pid] > before

        await until(has, PATIENCE_S, f"a paused {role} to come around")


async def lane(
    rounds: int, *, pause_s: float, roles: Sequence[Role] = tuple(SCRIPTS), seed: int = 0
) -> Outcome:
    """Pause the writers of one model so often each, in half of the pauses within a commit."""
    async with bench() as place, await open_door(place) as door:
        lane = Lane(place, random.Random(seed), pause_s)
        clients = Clients()
        beside = [
            asyncio.create_task(_follow(door)),
            asyncio.create_task(clients.ledger.watch(place.stages().registry)),
        ]
        try:
            for role in SCRIPTS:
                lane.start(role)
            clients.enter(InProcess(door), size=4, pause_s=0.02)
            for number in range(rounds):
                for role in roles:
                    await lane.pause(role, in_commit=number % 2 == 0)
                    clients.check()
            await clients.leave()
            lane.found.audit = await place.audit(clients)
        finally:
            for task in beside:
                task.cancel()
            lane.stop()
        lane.found.stale = lane.commits.stale
        return lane.found


async def _follow(door: Loop) -> None:
    while True:
        with contextlib.suppress(Unavailable):
            await door.stages(MODEL).follower.refresh()
        await asyncio.sleep(0.2)


# --- the table --------------------------------------------------------------------------------


def section(full: bool) -> Found:
    """Pause writers."""
    logging.disable(logging.WARNING)
    rounds, lanes = (7, LANES) if full else (2, 2)

    async def run() -> Outcome:
        found = Outcome()
        parts = [lane(rounds, pause_s=PAUSE_S, seed=seed) for seed in range(lanes)]
        for part in await asyncio.gather(*parts):
            found.add(part)
        return found

    found = asyncio.run(run())
    rows = [
        [f"{role}, {'within a commit' if in_commit else 'at random'}", f"{n}", f"{fenced}"]
        for (role, in_commit), n in sorted(found.pauses.items())
        for fenced in [found.fenced[role, in_commit]]
    ]
    table = report.table(["paused", "times", "refused when it woke up"], rows)
    wrong = found.audit
    least = min(sum(n for (r, _), n in found.pauses.items() if r == role) for role in SCRIPTS)
    bars = [
        Bar("pauses of each writer", least, 20 if full else 4),
        Bar("stale commits", found.stale, 0, at_most=True),
        Bar("acknowledged and lost by pauses", wrong.lost + wrong.unlearned, 0, at_most=True),
        Bar("taken twice by pauses", wrong.twice, 0, at_most=True),
        Bar("weights unlike the replay after pauses", wrong.unequal, 0, at_most=True),
    ]
    words = (
        f"Each for {PAUSE_S:g} s, while a successor started and committed; {wrong.acknowledged:,} "
        "signals were acknowledged meanwhile. Who was not refused had found its connection timed "
        "out, and had started anew from the store, as the newest writer then. "
        f"{wrong.digests:,} digests of published weights were compared with the replay."
    )
    return f"{table}\n\n{words}", bars
