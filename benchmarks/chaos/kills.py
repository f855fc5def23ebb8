"""kill -9 of every part of the running system, under load, at random and at the worst moments.

Two kinds of systems are run. The first is all as `online-learner up` starts it, and its parts are
killed at random moments, `up` itself among them. In the second, a proxy stands before the store; it
kills whoever was named when the store has done a write, and nobody knows yet: the sender gets no
reply, and messages to the gateways are lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import httpx2

from benchmarks import report
from benchmarks.chaos.bench import WEB, until
from benchmarks.chaos.clients import MODEL, Clients, OverHttp, Prober
from benchmarks.chaos.ledger import Audit, audit, caught_up
from benchmarks.chaos.proxy import Exchange, Proxy
from benchmarks.chaos.system import GATEWAYS, Part, System
from benchmarks.chaos.writer import SCRIPTS
from benchmarks.report import Bar
from benchmarks.sections import Found
from online_learner.ids import Keyring
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import Store, open_store
from online_learner.store.embedded import EmbeddedServer
from online_learner.store.keys import Keys

TITLE = "Kills"
TALKERS = 4
SIZE = 50
PAUSE_S = 0.1
WELL_S = 120.0
CATCHES_UP_S = 180.0
SERVED_S = 10.0
ASKS = 8  # of which each gateway gets some
CALM_S = (0.1, 1.0)
QUIET_S = 2.0  # all is well when no answer has failed for so long
MESSAGE = b'"publish"'
ALWAYS = {"policy": "policies.promotion:Always"}

Point: TypeAlias = tuple[Part, str]  # who is killed, and when which write is done

APPENDED: tuple[Point, ...] = (
    ("gateway", "ingest"),
    ("gateway", "journal"),
    ("store", "ingest"),
    ("haproxy", "ingest"),
)
COMMITTED: tuple[Point, ...] = (
    ("learner", "commit_step"),
    ("store", "commit_step"),
    ("gatekeeper", "decide"),
)
WRITES = {
    "ingest": "signals appended, no reply yet",
    "journal": "answers appended, no reply yet",
    "commit_step": "step committed, no message yet",
    "decide": "decision committed, no message yet",
}
WRITERS = {
    "ingest": "gateway",
    "journal": "gateway",
    "commit_step": "learner",
    "decide": "gatekeeper",
}
ANY = "at random"


@dataclass(slots=True)
class Outcome:
    """What the kills of one system did.

    Attributes
    ----------
    kills
        How many, by part and moment.
    away_s
        For how long each part was away, or not yet well again, at worst.
    asked, answered
        Predictions asked for, and answered, while the learner or the gatekeeper was dead.
    """

    kills: Counter[tuple[Part, str]] = field(default_factory=Counter)
    away_s: dict[tuple[Part, str], float] = field(default_factory=dict)
    asked: int = 0
    answered: int = 0
    in_doubt: int = 0
    strange: Counter[int] = field(default_factory=Counter)
    audit: Audit = field(default_factory=Audit)


class Killer:
    """Kills parts of one system under load, each when all is well again after the one before.

    Parameters
    ----------
    store
        Goes past the proxy, where there is one.
    """

    def __init__(self, system: System, store: Store, clients: Clients, prober: Prober) -> None:
        self.system = system
        self.store = store
        self.clients = clients
        self.prober = prober
        self.found = Outcome()
        self._fences: dict[Part, int] = {}

    async def at_random(self, part: Part, rng: random.Random) -> None:
        """Kill a part some time from now."""
        await asyncio.sleep(rng.uniform(*CALM_S))
        await self._note_fences()
        started = time.monotonic()
        pid = self.system.kill(part)
        if part == "driver":
            await asyncio.to_thread(self.system.start)
        await self._recovers(part, ANY, pid, started)

    async def at_point(self, part: Part, write: str, proxy: Proxy) -> None:
        """Kill a part when the store has done its write, before anybody hears of it."""
        killed = 0
        started = 0.0

        async def act(exchange: Exchange) -> None:
            nonlocal killed, started
            exchange.send()
            reply = await exchange.reply()
            started = time.monotonic()
            killed = self.system.kill(part, exchange.pid if part == WRITERS[write] else None)
            if part == "haproxy":
                exchange.give(reply)
            else:
                exchange.reset()

        await self._note_fences()
        message = MESSAGE if (part, write) in COMMITTED else b""
        proxy.deaf = bool(message)
        [writer] = self.system.pids(part) if message and part != "store" else [None]
        trap = proxy.trap(write, act, pid=writer, with_=message)
        try:
            if write == "decide":
                await self._provoke()
            await asyncio.wait_for(trap.over.wait(), WELL_S)
            await self._recovers(part, write, killed, started)
            if write == "commit_step":
                await self._serves_newest()
        finally:
            proxy.deaf = False

    async def _note_fences(self) -> None:
        self._fences = {writer: await self._fence(writer) for writer in SCRIPTS}

    async def _fence(self, writer: Part) -> int:
        """Return how often a writer has started to work."""
        return int(await self.store.call("GET", Keys(MODEL).fence(writer)) or 0)

    async def _provoke(self) -> None:
        """Give the gatekeeper something to decide: roll back, and thaw."""
        for word in ("rollback", "thaw"):

            async def done(path: str = f"/v1/models/{MODEL}/{word}") -> bool:
                found = await self._ask("POST", path)
                return found is not None and found.is_success

            await until(done, WELL_S, f"a {word}")

    async def _serves_newest(self) -> None:
        """Wait until all gateways answer with the newest weights, which no message told of."""
        meta = await self.store.call("HGET", Keys(MODEL).checkpoint("learner"), "meta")
        newest, path = json.loads(meta)["step"], f"/v1/models/{MODEL}/predict"

        async def served() -> bool:
            body = {"features": {"a": 0.0}}
            found = await asyncio.gather(*(self._ask("POST", path, body) for _ in range(ASKS)))
            steps = [answer.json().get("step", -1) for answer in found if answer is not None]
            return len(steps) == ASKS and min(steps) >= newest

        await until(served, SERVED_S, "the gateways to find the newest weights")

    async def _recovers(self, part: Part, moment: str, pid: int, started: float) -> None:
        """Wait until a successor of `pid` works and all is well; note how long that took."""

        async def well() -> bool:
            self.clients.check()
            return await self._is_well(part, pid)

        await until(well, WELL_S, f"the {part} to come back", every_s=0.05)
        now = time.monotonic()
        found = self.found
        found.kills[part, moment] += 1
        found.away_s[part, moment] = max(found.away_s.get((part, moment), 0.0), now - started)
        told = f"{found.kills.total()}: {part}, {moment}, {now - started:.1f} s"
        print(told, len(self.clients.ledger.receipts), file=sys.stderr, flush=True)
        if part in self._fences:
            asked, missed = self.prober.between(started, now)
            found.asked += asked
            found.answered += asked - len(missed)
            if missed:
                print(f"not answered meanwhile: {missed}", file=sys.stderr, flush=True)

    async def _is_well(self, part: Part, pid: int) -> bool:
        if part not in {"driver", "store"} and pid in self.system.pids(part):
            return False
        if len(self.system.pids("gateway")) < GATEWAYS:
            return False
        if part in self._fences and await self._fence(part) <= self._fences[part]:
            return False
        now = time.monotonic()
        asked, missed = self.prober.between(now - QUIET_S, now)
        told = await self._ask("GET", "/readyz")
        return asked > 0 and not missed and told is not None and told.is_success

    async def _ask(self, method: str, path: str, body: Any = None) -> httpx2.Response | None:
        """Return a reply to a request by a client of its own, or None where there is none."""
        async with self.system.client() as http:
            with contextlib.suppress(httpx2.HTTPError):
                return await http.request(method, path, json=body)
        return None


# --- the systems ------------------------------------------------------------------------------


async def randomly(plan: Sequence[Part], rng: random.Random, *, acknowledge: int) -> Outcome:
    """Kill parts of the system as it comes, in a random order."""
    order = rng.sample(plan, len(plan))
    with tempfile.TemporaryDirectory(prefix="ol-") as folder:
        async with _loaded(System(Path(folder), **WEB)) as killer:
            for part in order:
                await killer.at_random(part, rng)
            await _enough(killer, acknowledge)
        return killer.found


async def at_points(plan: Sequence[Point], rng: random.Random, *, acknowledge: int) -> Outcome:
    """Kill parts of a system whose store is behind a proxy, at named moments."""
    order = rng.sample(plan, len(plan))
    with tempfile.TemporaryDirectory(prefix="ol-") as folder:
        home = Path(folder)
        server = EmbeddedServer.ensure(home)
        server.keep_running()
        try:
            async with Proxy(home / "proxy", server.socket_path) as proxy:
                system = _BehindProxy(home, server, proxy, **WEB, promotion=ALWAYS)
                async with _loaded(system) as killer:
                    for point in order:
                        await killer.at_point(*point, proxy)
                    await _enough(killer, acknowledge)
                return killer.found
        finally:
            await asyncio.to_thread(server.stop)


class _BehindProxy(System):
    """A system whose store is kept running by this process."""

    def __init__(self, home: Path, server: EmbeddedServer, proxy: Proxy, **model: Any) -> None:
        super().__init__(home, store=proxy.url, **model)
        self._server = server

    @property
    def store_url(self) -> str:
        """Past the proxy."""
        return self._server.url

    def pids(self, part: Part) -> list[int]:
        """Return the processes of a part."""
        if part != "store":
            return super().pids(part)
        return [] if self._server.process is None else [self._server.process.pid]


@contextlib.asynccontextmanager
async def _loaded(system: System) -> AsyncIterator[Killer]:
    """Run a system under load; in the end, audit it."""
    clients, prober = Clients(), Prober()
    try:
        await asyncio.to_thread(system.start)
        async with (
            await open_store(system.store_url) as store,
            system.client() as http,
            system.client() as other,
        ):
            stages = _stages(system, store)
            probing = asyncio.create_task(prober.probe(other, clients.leaving))
            watching = asyncio.create_task(clients.ledger.watch(stages.registry))
            door, killer = OverHttp(http), Killer(system, store, clients, prober)
            for _ in range(TALKERS):
                clients.enter(door, size=SIZE, pause_s=PAUSE_S)
            yield killer
            await clients.leave()
            await probing
            await until(lambda: caught_up(store, stages), CATCHES_UP_S, "the learner to catch up")
            killer.found.in_doubt, killer.found.strange = clients.in_doubt, door.strange
            killer.found.audit = await audit(stages, clients.ledger)
            print(killer.found.audit, file=sys.stderr, flush=True)
            watching.cancel()
    finally:
        clients.leaving.set()
        await asyncio.to_thread(system.stop)


def _stages(system: System, store: Store) -> Stages:
    settings = Settings.parse(system.document | {"store": system.store_url})
    return Stages(store, Keyring.load(system.data_dir), MODEL, settings.model(MODEL))


async def _enough(killer: Killer, acknowledge: int) -> None:
    """Let the load go on until so many signals are acknowledged."""
    while len(killer.clients.ledger.receipts) < acknowledge:
        killer.clients.check()
        await asyncio.sleep(0.1)


# --- the table --------------------------------------------------------------------------------


def section(full: bool) -> Found:
    """Kill parts of both systems."""
    logging.disable(logging.WARNING)
    each, drivers, at_each, lives, acknowledge = (
        (12, 4, 10, 2, 34_000) if full else (1, 1, 1, 1, 500)
    )
    parts: list[Part] = ["store", "learner", "gatekeeper", "gateway", "haproxy"]
    plan: list[Part] = [*parts * each, *["driver"] * drivers]  # type: ignore[list-item]
    points = [*APPENDED, *COMMITTED] * at_each
    rng = random.Random(3)
    outcomes = [asyncio.run(randomly(plan, rng, acknowledge=acknowledge))]
    outcomes += [asyncio.run(at_points(points, rng, acknowledge=acknowledge)) for _ in range(lives)]
    kills = sum((outcome.kills for outcome in outcomes), Counter())
    rows = [_row(*which, count, outcomes) for which, count in sorted(kills.items())]
    table = report.table(["killed", "when", "times", "well again, at worst"], rows)
    return f"{table}\n\n{_words(outcomes)}", _bars(outcomes, full=full)


def _row(part: Part, moment: str, kills: int, outcomes: Sequence[Outcome]) -> list[str]:
    away_s = max(outcome.away_s.get((part, moment), 0.0) for outcome in outcomes)
    return [part, WRITES.get(moment, moment), f"{kills}", f"{away_s:.1f} s"]


def _bars(outcomes: Sequence[Outcome], *, full: bool) -> list[Bar]:
    wrong = sum((outcome.audit for outcome in outcomes), Audit())
    kills = sum((outcome.kills for outcome in outcomes), Counter())
    points = [kills[point] for point in (*APPENDED, *COMMITTED)]
    asked = sum(outcome.asked for outcome in outcomes)
    answered = sum(outcome.answered for outcome in outcomes)
    return [
        Bar("kill -9", kills.total(), 200 if full else 10),
        Bar("at each named moment, at least", min(points), 20 if full else 1),
        Bar("signals acknowledged", wrong.acknowledged, 100_000 if full else 1_000),
        Bar("of them lost", wrong.lost + wrong.unlearned + wrong.misplaced, 0, at_most=True),
        Bar("applied twice", wrong.twice, 0, at_most=True),
        Bar("digests unlike the replay's", wrong.unequal, 0, at_most=True),
        Bar(
            "answered while learner or gatekeeper was dead",
            100 * answered / max(1, asked),
            100,
            "%",
        ),
    ]


def _words(outcomes: Sequence[Outcome]) -> str:
    wrong = sum((outcome.audit for outcome in outcomes), Audit())
    asked = sum(outcome.asked for outcome in outcomes)
    in_doubt = sum(outcome.in_doubt for outcome in outcomes)
    strange = sum((outcome.strange for outcome in outcomes), Counter())
    return (
        f"{wrong.acknowledged:,} signals acknowledged; {in_doubt:,} of them had been in doubt "
        "for their clients, and were sent again under the same key. "
        f"{wrong.digests:,} digests of published weights were compared with the replay from the "
        "first version along the steps; "
        f"the learners started {wrong.restarts:,} times, and {wrong.settled:,} audits settled. "
        f"{asked:,} predictions were asked for while learner or gatekeeper was dead. Well again: "
        f"from the kill until a successor is at work, /readyz is 200, and no answer has failed for "
        f"{QUIET_S:g} s. "
        f"Replies that were not the service's own, but of what stands before it: {_told(strange)}."
    )


def _told(statuses: Counter[int]) -> str:
    return ", ".join(f"{n} with {status}" for status, n in sorted(statuses.items())) or "none"
