"""Writes in doubt: a proxy between us and the server takes what it likes, and the sender retries.

Nobody can tell a command that was lost on its way from a reply that was. So whoever sends a signal
sends it again under the same key, and the learner and the gatekeeper start anew from the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks import report
from benchmarks.chaos.bench import bench, open_door
from benchmarks.chaos.clients import MODEL, Clients, InProcess
from benchmarks.chaos.harm import HARM
from benchmarks.chaos.ledger import Audit
from benchmarks.chaos.proxy import Proxy
from benchmarks.chaos.writer import SCRIPTS, writer
from benchmarks.report import Bar
from benchmarks.sections import Found
from online_learner.errors import Unavailable
from online_learner.loop import Loop

TITLE = "Writes in doubt"
WRITES = {
    "ingest": "signals",
    "journal": "answers",
    "commit_step": "the learner's commits",
    "decide": "the gate's decisions",
    "essential": "fences and heartbeats",
}
QUICK = {"ingest": 20, "journal": 4, "commit_step": 4, "decide": 4, "essential": 1}
FULL = {"ingest": 260, "journal": 40, "commit_step": 30, "decide": 30, "essential": 4}
DOORS = 16
SIZE = 3
TRAPS = 10  # set for signals at any one time
FOLLOW_S = 0.3
CALM_S = 0.05  # between two traps for the same kind of write
PATIENCE_S = 60.0


# --- the harm ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Outcome:
    """What was done to which writes, and what became of them."""

    done: Counter[tuple[str, str]]
    in_doubt: int
    audit: Audit


async def in_doubt(each: Mapping[str, int], *, doors: int = DOORS, seed: int = 0) -> Outcome:
    """Do every harm to so many writes of each kind, under load, and look for what is wrong."""
    async with bench() as place, contextlib.AsyncExitStack() as opened:
        loops = [await opened.enter_async_context(await open_door(place)) for _ in range(doors)]
        writers = [writer(role, place.proxy.url, place.home) for role in SCRIPTS]
        clients = Clients()
        for loop in loops:
            clients.enter(InProcess(loop), size=SIZE)
        watching = clients.ledger.watch(place.stages().registry)
        beside = [asyncio.create_task(work) for work in (_follow(loops), watching)]
        try:
            done = await _harmed(place.proxy, clients, each, random.Random(seed))
        finally:
            await clients.leave()
            for task in beside:
                task.cancel()
        found = await place.audit(clients)
        await asyncio.gather(*(running.stop() for running in writers))
        return Outcome(done, clients.in_doubt, found)


async def _follow(loops: Sequence[Loop]) -> None:
    """Keep the weights of all doors current."""
    while True:
        for loop in loops:
            with contextlib.suppress(Unavailable):
                await loop.stages(MODEL).follower.refresh()
        await asyncio.sleep(FOLLOW_S)


async def _harmed(
    proxy: Proxy, clients: Clients, each: Mapping[str, int], rng: random.Random
) -> Counter[tuple[str, str]]:
    """Set traps of all kinds, some at a time; returns how many of each were sprung."""
    lanes = []
    for write, count in each.items():
        plan = [harm for harm in HARM for _ in range(count)]
        rng.shuffle(plan)
        at_once = TRAPS if write == "ingest" else 1
        lanes += [_lane(proxy, write, plan[n::at_once]) for n in range(at_once)]
    watched = asyncio.gather(*lanes)
    while not watched.done():
        clients.check()
        await asyncio.wait([watched], timeout=1.0)
    return sum(watched.result(), Counter())


async def _lane(proxy: Proxy, write: str, plan: Sequence[str]) -> Counter[tuple[str, str]]:
    """Set one trap after the other."""
    done: Counter[tuple[str, str]] = Counter()
    for harm in plan:
        trap = proxy.trap(write, HARM[harm])
        await asyncio.wait_for(trap.over.wait(), PATIENCE_S)
        done[harm, write] += 1
        await asyncio.sleep(CALM_S)
    return done


# --- the table --------------------------------------------------------------------------------


def section(full: bool) -> Found:
    """Put writes in doubt."""
    logging.disable(logging.WARNING)  # the writers tell of each doubt
    found = asyncio.run(in_doubt(FULL if full else QUICK))
    rows = [
        [harm, *(f"{found.done[harm, write]:,}" for write in WRITES), _no_doubt(harm)]
        for harm in HARM
    ]
    table = report.table(["what the proxy did", *WRITES.values(), "in doubt"], rows)
    return f"{table}\n\n{_words(found)}", bars(found, full=full)


def _no_doubt(harm: str) -> str:
    return "no" if harm == "delay" else "yes"


def bars(found: Outcome, *, full: bool) -> list[Bar]:
    """Return what was aimed at."""
    signals = sum(n for (harm, of), n in found.done.items() if of == "ingest" and harm != "delay")
    wrong = found.audit
    return [
        Bar("signals in doubt, sent again under the same key", signals, 2_000 if full else 100),
        Bar("of what was acknowledged then, lost", wrong.lost + wrong.unlearned, 0, at_most=True),
        Bar("doubled: signals, steps, decisions", wrong.twice, 0, at_most=True),
        Bar("weights that are not those of the replay", wrong.unequal, 0, at_most=True),
    ]


def _words(found: Outcome) -> str:
    wrong = found.audit
    return (
        f"{wrong.acknowledged:,} signals acknowledged, of which {found.in_doubt:,} had been in "
        "doubt for their senders: signals that share a pipeline share its fate. "
        f"{wrong.settled:,} audits settled. The learner started anew {wrong.restarts:,} times; "
        f"{wrong.digests:,} digests of published weights were compared with the replay from the "
        f"first version along the steps, {wrong.unequal} differed. `stall, done later`: the server "
        "got the command after it had been sent again."
    )
