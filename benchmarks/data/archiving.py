"""Archiving under load, while archiver and store are killed: every record is there, once.

Clients ask and answer all the time. One process learns, archives and trims, and is killed with
`kill -9` again and again; so is the store, whose log is on disk before it acknowledges anything. In
the end all that was acknowledged has to be in the record, and the record has to have as many
entries as the store says that it was ever given.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import archived, report
from benchmarks.chaos.servers import ALWAYS, Server, built
from benchmarks.report import Bar
from online_learner.archive.form import STREAMS
from online_learner.archive.log import Log
from online_learner.archive.segments import Segments
from online_learner.errors import Fenced, ServiceError, Unavailable
from online_learner.ids import Address, Kind, entry_order
from online_learner.loop import Loop

FULL_S, QUICK_S = 60.0, 12.0
CLIENTS = 8
PAUSE_S = 0.02  # of each, between two answers
ARCHIVER_S = (0.02, 0.8)  # between two of its kills, at least and at most, in seconds
STORE_S = (2.0, 6.0)


@dataclass(slots=True)
class Tally:
    """What was acknowledged, by the entry that it is, with the nonce; and what became of it."""

    predictions: dict[str, str] = field(default_factory=dict)
    feedback: dict[str, str] = field(default_factory=dict)
    unknown: int = 0
    archiver_kills: int = 0
    store_kills: int = 0


def section(full: bool) -> tuple[str, list[Bar]]:
    """Kill archiver and store for a minute, and count."""
    with tempfile.TemporaryDirectory(prefix="ol-") as folder, built() as library:
        return asyncio.run(measure(Path(folder), library, FULL_S if full else QUICK_S))


async def measure(folder: Path, library: Path, load_s: float) -> tuple[str, list[Bar]]:
    """Put load on, kill, and then compare what was acknowledged with the record."""
    (folder / "s").mkdir()
    server = Server(ALWAYS, folder / "s", library)
    server.start()
    archiver = Archiver(server.url, folder / "data")
    try:
        loop = await Loop.open(archived.settings(server.url, str(folder / "data")))
        async with loop:
            tally, rng = Tally(), random.Random(8)
            until = time.monotonic() + load_s
            async with asyncio.TaskGroup() as group:
                for _ in range(CLIENTS):
                    group.create_task(_speak(loop, tally, until))
                group.create_task(_kill_archiver(archiver, tally, rng, until))
                group.create_task(_kill_store(server, tally, rng, until))
            archiver.kill()
            return await _compared(loop, tally)
    finally:
        archiver.kill()
        server.kill()


class Archiver:
    """The process that archives."""

    def __init__(self, url: str, data_dir: Path) -> None:
        self._command = [sys.executable, "-m", "benchmarks.archived", url, str(data_dir)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it is at work."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.communicate()
            self._process = None


async def _speak(loop: Loop, tally: Tally, until: float) -> None:
    while time.monotonic() < until:
        try:
            answer = await loop.predict("web", {"a": random.random()}, user_id="ada")
            address = _address(loop, "prediction", answer["prediction_id"])
            tally.predictions[address.entry] = address.nonce
            receipt = await loop.feedback(answer["prediction_id"], "correction", value=True)
            address = _address(loop, "feedback", receipt.feedback_id)
            if not address.shard:  # else it was late
                tally.feedback[address.entry] = address.nonce
            await asyncio.sleep(PAUSE_S)
        except Unavailable:  # whether it took place is unknown
            tally.unknown += 1
            await asyncio.sleep(0.05)
        except ServiceError:
            await asyncio.sleep(0.01)


def _address(loop: Loop, kind: Kind, text: str) -> Address:
    return loop.keyring.open(kind, text)[1]


async def _kill_archiver(
    archiver: Archiver, tally: Tally, rng: random.Random, until: float
) -> None:
    while time.monotonic() < until:
        await asyncio.to_thread(archiver.start)
        await asyncio.sleep(rng.uniform(*ARCHIVER_S))
        archiver.kill()
        tally.archiver_kills += 1


async def _kill_store(server: Server, tally: Tally, rng: random.Random, until: float) -> None:
    while time.monotonic() < until:
        await asyncio.sleep(rng.uniform(*STORE_S))
        server.kill()
        await asyncio.to_thread(server.start)
        tally.store_kills += 1


# --- what came of it --------------------------------------------------------------------------


async def _compared(loop: Loop, tally: Tally) -> tuple[str, list[Bar]]:
    stages = loop.stages("web")
    log, keys, store = stages.log, stages.registry.keys, loop.store
    assert stages.archiver is not None
    await _again(stages.archiver.flush)
    rows, lost, doubled, off = [], 0, 0, 0
    for stream in STREAMS:
        seen = Counter[str]()
        nonces: dict[str, str] = {}
        async for page in log.pages(stream):
            for entry, fields in page:
                seen[entry] += 1
                nonces[entry] = fields.get(b"n", b"").decode()
        given = await _given(log, stream)
        acknowledged = getattr(tally, stream, {})
        missing = sum(nonces.get(entry) != nonce for entry, nonce in acknowledged.items())
        twice = sum(count - 1 for count in seen.values())
        assert sorted(seen, key=entry_order) == list(seen), "it is in order"
        files = await Segments(stages.registry).all(stream)
        left = int(await store.call("XLEN", getattr(keys, stream)))
        lost, doubled, off = lost + missing, doubled + twice, off + abs(given - sum(seen.values()))
        told = f"{len(acknowledged):,}" if hasattr(tally, stream) else "-"
        cells = [told, f"{given:,}", f"{sum(seen.values()):,}", f"{len(files):,}", f"{left:,}"]
        rows.append([stream, *cells, str(missing), str(twice)])
    head = ["stream", "acknowledged", "ever", "record", "files", "in the store", "lost", "twice"]
    assert log.place is not None
    orphans = set(log.place.files()) - {
        f.path for stream in STREAMS for f in await Segments(stages.registry).all(stream)
    }
    text = (
        f"{tally.archiver_kills} kills of the archiver and {tally.store_kills} of the store; of "
        f"{tally.unknown:,} requests it is unknown whether they took place. {len(orphans)} files "
        "are in no list."
    )
    bars = [
        Bar("records lost", lost, 0, at_most=True),
        Bar("records twice", doubled, 0, at_most=True),
        Bar("more or fewer than the store was given", off, 0, at_most=True),
    ]
    return f"{report.table(head, rows)}\n\n{text}", bars


async def _given(log: Log, stream: str) -> int:
    """Return how many entries a stream was ever given, as the store says."""
    registry = log.registry
    key = getattr(registry.keys, stream)
    if not await registry.store.call("EXISTS", key):
        return 0
    info = await registry.store.call("XINFO", "STREAM", key)
    return int(info[info.index(b"entries-added") + 1])


async def _again(work: Callable[[], Awaitable[object]]) -> None:
    """Do something, and again where somebody who has died since had been faster."""
    for _ in range(50):
        try:
            await work()
        except (Fenced, Unavailable):
            await asyncio.sleep(0.1)
        else:
            return
    raise RuntimeError("it cannot be archived")
