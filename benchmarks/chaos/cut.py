"""Power cuts: kill -9 under load, and of the server's log only what was on disk is left.

`kill -9` alone does not tell a server that syncs from one that does not: the kernel still writes
what it was given. So a small library in the server notes how much of each file every sync has
brought to the disk. After the kill the log is cut there, or, in half of the runs, inside a record
behind it: the disk may have got any part of what was written. The class told in each receipt is
compared with what became of what it acknowledged.

Not simulated: a disk that says that it has synced and has not, and lost directory entries.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from benchmarks import report
from benchmarks.chaos.ledger import patiently
from benchmarks.chaos.servers import ALWAYS, EVERYSEC, Server, Setup, built, setups
from benchmarks.report import Bar
from benchmarks.sections import Found
from online_learner.errors import OnlineLearnerError
from online_learner.loop import Loop
from online_learner.settings import Settings
from online_learner.store import Durability, open_store
from online_learner.store.keys import Keys

TITLE = "Power cut"
WORKERS = 24
LOOK_S = 0.02
HELD_BACK_S = 2.0  # `everysec` keeps writes to itself for so long while a sync is under way
KEYS = Keys("web")
MODELS = {
    "web": {
        "task": "classification",
        "labels": [False, True],
        "learner": "river:dummy.PriorClassifier",
    }
}

How: TypeAlias = Literal["kill", "cut", "torn"]


# --- one cut ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An entry of a stream that somebody holds a 2xx for."""

    stream: str
    entry: str
    told: Durability
    at: float


@dataclass(slots=True)
class Outcome:
    """What one cut did."""

    how: How
    acknowledged: list[Acknowledged]
    lost: list[Acknowledged]

    @property
    def lost_ms(self) -> float:
        """For how long before the end what was acknowledged was lost."""
        if not self.lost:
            return 0.0
        return (max(a.at for a in self.acknowledged) - min(a.at for a in self.lost)) * 1000

    @property
    def broken(self) -> int:
        """How much was lost that was told to survive this."""
        safe_until = max((a.at for a in self.acknowledged), default=0.0) - HELD_BACK_S
        return sum(
            a.told == "fsynced" or (a.told == "os" and self.how == "kill" and a.at < safe_until)
            for a in self.lost
        )


async def one(setup: Setup, how: How, library: Path, rng: random.Random) -> Outcome:
    """Let a server run under load, end it, start it again, and see what is gone."""
    with tempfile.TemporaryDirectory(prefix="ol-cut") as folder:
        server = Server(setup, Path(folder), library)
        itself = how == "torn" and setup.options.get("appendfsync") == "always"
        server.start(die_at=rng.randint(20, 400) if itself else None)
        try:
            acknowledged = await _under_load(server, rng)
            server.kill()
            if how != "kill":
                server.cut(rng, torn=how == "torn")
            server.start()
            return Outcome(how, acknowledged, await _lost(server, acknowledged))
        finally:
            server.kill()


async def _under_load(server: Server, rng: random.Random) -> list[Acknowledged]:
    """Predict and speak, many at once, until the server dies; returns what was acknowledged."""
    document = {"store": server.url, "data_dir": str(server.home), "models": MODELS}
    found: list[Acknowledged] = []
    loop = await patiently(lambda: Loop.open(Settings.parse(document)))
    try:
        await server.setup.prepare(loop.store)
        loop.ingest.durability = (await loop.store.look()).durability
        work = [asyncio.create_task(_speak(loop, found)) for _ in range(WORKERS)]
        work.append(asyncio.create_task(_look(loop)))
        until = time.monotonic() + rng.uniform(*server.setup.load_s)
        while time.monotonic() < until and not server.dead:
            await asyncio.sleep(0.001)
        server.kill()
        await asyncio.gather(*work)
    finally:
        await loop.close()
    return found


async def _speak(loop: Loop, found: list[Acknowledged]) -> None:
    def note(kind: Any, stream: str, id_: str, told: Durability) -> None:
        entry = loop.keyring.open(kind, id_)[1].entry
        found.append(Acknowledged(stream, entry, told, time.monotonic()))

    with contextlib.suppress(OnlineLearnerError):
        while True:
            told = loop.ingest.durability
            prediction_id = (await loop.predict("web", {"a": 1.0}))["prediction_id"]
            note("prediction", KEYS.predictions, prediction_id, told)
            receipt = await loop.feedback(prediction_id, "correction", value=True)
            note("feedback", KEYS.feedback, str(receipt.feedback_id), receipt.durability)


async def _look(loop: Loop) -> None:
    """Ask the server how it is, as each gateway does."""
    with contextlib.suppress(OnlineLearnerError):
        while True:
            await asyncio.sleep(LOOK_S)
            loop.ingest.durability = (await loop.store.look()).durability


async def _lost(server: Server, acknowledged: Sequence[Acknowledged]) -> list[Acknowledged]:
    """Return what is no longer there."""
    async with await patiently(lambda: open_store(server.url)) as store:
        places = [(a.stream, a.entry) for a in acknowledged]
        parts = [places[n : n + 1000] for n in range(0, len(places), 1000)]
        found = [f for part in parts for f in await patiently(lambda p=part: store.entries(p))]
    return [a for a, fields in zip(acknowledged, found, strict=True) if fields is None]


# --- the table --------------------------------------------------------------------------------


def cuts(setup: Setup, each: int, library: Path, *, kills: int, seed: int = 0) -> list[Outcome]:
    """Cut a server off `each` times, half of them inside a record, and kill it some times more."""
    plan: list[How] = ["kill"] * kills + ["cut"] * (each - each // 2) + ["torn"] * (each // 2)
    rng = random.Random(f"{setup.name} {seed}")
    return [asyncio.run(one(setup, how, library, rng)) for how in plan]


def section(full: bool) -> Found:
    """Cut servers of all kinds off from their power."""
    rows, found = [], {}
    with built() as library:
        for setup in setups():
            many = setup in (ALWAYS, EVERYSEC)
            each = (100 if many else 20) if full else (6 if many else 2)
            found[setup.name] = cuts(setup, each, library, kills=10 if full else 2)
            rows.append(_row(setup.name, found[setup.name]))
    head = ["server", "told", "acknowledged", "lost: kill -9", "lost: cut", "torn", "ms", "true"]
    outcomes = [outcome for of_setup in found.values() for outcome in of_setup]
    always = [outcome for outcome in found[ALWAYS.name] if outcome.how != "kill"]
    bars = [
        Bar("power cuts of a server that says `fsynced`", len(always), 100 if full else 6),
        Bar("acknowledged and lost in them", _sum(always), 0, at_most=True),
        Bar("servers whose class was not true", _untrue(found.values()), 0, at_most=True),
    ]
    return f"{report.table(head, rows)}\n\n{_words(outcomes)}", bars


def _row(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    told = Counter(a.told for outcome in outcomes for a in outcome.acknowledged)
    total = sum(len(outcome.acknowledged) for outcome in outcomes)
    ways: tuple[How, ...] = ("kill", "cut", "torn")
    by_how = [[outcome for outcome in outcomes if outcome.how == how] for how in ways]
    lost = [f"{_sum(group):,} in {_some(group)} of {len(group)}" for group in by_how]
    worst = max(outcome.lost_ms for outcome in outcomes)
    true = "yes" if not _untrue([outcomes]) else "NO"
    return [name, " ".join(sorted(told)), f"{total:,}", *lost, f"{worst:,.0f}", true]


def _sum(outcomes: Sequence[Outcome]) -> int:
    return sum(len(outcome.lost) for outcome in outcomes)


def _some(outcomes: Sequence[Outcome]) -> int:
    return sum(bool(outcome.lost) for outcome in outcomes)


def _untrue(found: Any) -> int:
    return sum(any(outcome.broken for outcome in outcomes) for outcomes in found)


def _words(outcomes: Sequence[Outcome]) -> str:
    total = sum(len(outcome.acknowledged) for outcome in outcomes)
    return (
        f"{len(outcomes)} servers ended under load, {total:,} answers and signals acknowledged. "
        "`lost`: how many were gone after the next start, and in how many of the runs. `cut`: the "
        "log ends at the last byte that was synced; `torn`: inside a record behind it, where one "
        "was written. `ms`: how long before the end the first that was lost had been acknowledged, "
        "at worst. A class is true where nothing was lost that it told to survive: `fsynced` all "
        "of this; `os` the kill alone, but for the last two seconds: with `everysec`, a server "
        "holds back what it has acknowledged while a sync is under way."
    )
