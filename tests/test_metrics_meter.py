"""The meter: each signal is counted once on its way, whoever counts and however often it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from online_learner import config
from online_learner.errors import Unavailable
from online_learner.loop import Loop
from online_learner.metrics import Tally, series
from online_learner.metrics import meter as meter_module
from online_learner.metrics.ledger import MOST, Ledger
from online_learner.metrics.meter import Meter
from online_learner.metrics.teller import Teller
from online_learner.operate import operate
from online_learner.release import release_rolled_back
from online_learner.schema import Served, Step
from online_learner.settings import Settings
from online_learner.store import Store, open_store
from online_learner.store.keys import Keys
from serve_app.telemetry import ray_metrics
from serve_app.writer import Writer

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

ALWAYS = {"promotion": {"policy": "policies.promotion:Always"}, "publish_s": 0.0}
NAME = "predictions_total"
OPTIONS = [{"id": name, "features": {"title": name}} for name in "abc"]


@pytest.fixture
async def pages(open_loop: OpenLoop, make_settings: MakeSettings) -> Loop:
    """Return a loop with a ranking that serves every step."""
    return await open_loop(make_settings(pages=ALWAYS | {"audit": 1.0}))


def meter_of(loop: Loop) -> Meter:
    """Return a fresh meter, as after a restart."""
    return Meter(loop.stages("pages").registry, clock=loop.ingest.clock)


async def counted(loop: Loop) -> Tally:
    """Return the sum of all that was written down."""
    found = Tally()
    for _, fields in await loop.store.range(Keys("pages").metrics):
        found.add(Tally.unpack(fields[b"t"]))
    return found


def figures(tally: Tally) -> tuple[dict[Any, int], dict[Any, int]]:
    """Return all counts, and how many times there are of each."""
    return dict(tally.counts), {name: times.n for name, times in tally.times.items()}


async def ask(loop: Loop) -> str:
    """Return the id of a fresh answer."""
    return str((await loop.predict("pages", {"query": "x"}, options=OPTIONS))["prediction_id"])


async def say(loop: Loop, kind: str = "selection", value: Any = "c", **fields: Any) -> None:
    """Say something of a fresh answer."""
    await loop.feedback(await ask(loop), kind, value, **fields)


async def poison(loop: Loop, length: int) -> None:
    """Send a vector; another length than the first ruins the model."""
    await say(loop, "correction", {"id": "n", "features": {"vector": [1.0] * length}})


async def undo(loop: Loop) -> None:
    """Roll back to the first version."""
    registry = loop.stages("pages").registry
    await operate(registry, "rollback", by="x", now=loop.ingest.clock(), version=0)
    await loop.turn("pages")


# --- the funnel -------------------------------------------------------------------------------


async def test_each_signal_is_counted_on_its_way(pages: Loop) -> None:
    """Accepted, learned, served and their delays: the counts are those of what was done."""
    for _ in range(4):
        await say(pages)
    await say(pages, "thumbs", value=True)
    await say(pages, "implicit", None, event="click")
    await pages.turn("pages")
    await ask(pages)
    await meter_of(pages).turn()
    found = await counted(pages)
    assert found.by("feedback_total", "kind") == {"selection": 4, "thumbs": 1, "implicit": 1}
    assert found.by("implicit_total", "event") == {"click": 1}
    assert found.by("set_aside_total", "reason") == {"nothing_to_learn": 1}
    assert found.total("learned_total") == found.total("served_total") == 5
    names = ("join_delay_seconds", "learn_delay_seconds", "loop_seconds")
    assert [found.distribution(name).n for name in names] == [6, 5, 5]
    assert found.total("swaps_total") == 2


async def test_what_is_lost_on_the_way_is_told_with_its_reason(pages: Loop) -> None:
    """What ruins the model is set aside, and what a rollback undoes was learned before."""
    await poison(pages, 2)
    await poison(pages, 3)
    await poison(pages, 2)
    await pages.turn("pages")
    await ask(pages)
    await undo(pages)
    meter = meter_of(pages)
    await meter.turn()
    found = await counted(pages)
    assert found.total("learned_total") == 2
    assert found.by("set_aside_total", "reason") == {"poison": 1, "rolled_back": 2}
    assert found.total("verdicts_total", action="rollback") == 1
    await undo(pages)  # there is nothing left to undo
    await meter.turn()
    assert (await counted(pages)).total("set_aside_total", reason="rolled_back") == 2


async def test_what_is_released_goes_its_way_again(pages: Loop) -> None:
    """A signal that was rolled back and released is learned once more, and served once more."""
    await say(pages)
    await pages.turn("pages")
    await undo(pages)
    registry = pages.stages("pages").registry
    await release_rolled_back(registry, by="x", reason="", dry_run=False)
    await pages.turn("pages")
    await operate(registry, "thaw", by="x", now=pages.ingest.clock())
    await pages.turn("pages")
    await ask(pages)
    await meter_of(pages).turn()
    found = await counted(pages)
    assert found.total("feedback_total") == 1
    assert found.total("learned_total") == 2
    assert found.total("served_total") == 1


async def test_a_signal_that_nobody_is_served_has_no_loop(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """While the learner is not followed, signals are learned, and their loop is not timed."""
    manual = {"promotion": {"policy": "policies.promotion:Manual"}}
    loop = await open_loop(make_settings(pages=manual))
    await say(loop)
    await loop.turn("pages")
    await ask(loop)
    await meter_of(loop).turn()
    found = await counted(loop)
    assert found.total("learned_total") == 1
    assert found.total("served_total") == 0
    assert found.distribution("loop_seconds").n == 0


async def test_it_says_how_it_stands(pages: Loop) -> None:
    """Levels tell who answers, what waits, what is in quarantine, and how the store is."""
    await say(pages)
    await meter_of(pages).turn(waiting=3)
    levels = (await counted(pages)).levels
    assert levels["champion_version",] == 0
    assert levels["following",] == 1
    assert levels["queue_length", "audit"] == 3
    assert levels["quarantined",] == 0
    assert levels["learner_lag_seconds",] >= 0
    assert sum(v for series_, v in levels.items() if series_[0] == "durability") == 1
    assert 0 < levels["store_memory_ratio",] < 1


async def test_the_lag_is_the_learners_and_not_the_meters(
    pages: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A meter that is far behind does not say that the learner is."""
    for _ in range(3):
        await say(pages)
    await pages.turn("pages")
    monkeypatch.setattr(meter_module, "READ_MAX", 1)
    monkeypatch.setattr(meter_module, "PAGES", 1)
    meter = Meter(pages.stages("pages").registry, clock=lambda: time.time() + 100.0)
    assert (await meter.turn()).levels["learner_lag_seconds",] == 0.0
    await meter.turn()
    await meter.turn()
    await pages.store.call("DEL", Keys("pages").steps)  # as if trimmed
    assert (await meter.turn()).levels["learner_lag_seconds",] == 0.0
    await say(pages)
    assert (await meter.turn()).levels["learner_lag_seconds",] >= 100.0


async def test_the_lag_is_that_of_the_oldest_signal_of_any_number(pages: Loop) -> None:
    """More signals may wait than the meter follows: the oldest of them tells the lag."""
    keys = Keys("pages")
    await say(pages)
    [(entry, fields)] = await pages.store.range(keys.feedback)
    parts = [part for pair in fields.items() for part in pair]
    began_ms = int(entry.partition("-")[0])
    more = [("XADD", keys.feedback, f"{began_ms + 1 + n}-0", *parts) for n in range(MOST)]
    await pages.store.many(more)
    meter = Meter(pages.stages("pages").registry, clock=lambda: began_ms / 1000 + 200.0)
    heard, lag_s = 0, 0.0
    while heard <= MOST:
        tally = await meter.turn()
        heard += tally.total("feedback_total")
        lag_s = tally.levels["learner_lag_seconds",]
    assert lag_s == pytest.approx(200.0)


async def test_a_meter_that_is_behind_hurries(pages: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is more than one turn counts, the next is due sooner."""
    monkeypatch.setattr(meter_module, "READ_MAX", 1)
    monkeypatch.setattr(meter_module, "PAGES", 1)
    now, told = 0.0, []
    meter = Meter(pages.stages("pages").registry, clock=lambda: now)
    for _ in range(2):
        await say(pages)
    for now in (1.0, 1.2, 1.4, 1.8, 2.4):  # noqa: B007
        tally = await meter.turn_when_due()
        told.append(tally.total("feedback_total") if tally else None)
    assert told == [1, None, 1, 0, None]


# --- once, and only once ----------------------------------------------------------------------


async def test_a_restart_counts_nothing_twice_and_leaves_nothing_out(pages: Loop) -> None:
    """A meter that dies after each event, and one that sees all at the end, count the same."""

    async def learn() -> None:
        await pages.turn("pages")

    async def answer() -> None:
        await ask(pages)

    async def spoil() -> None:
        await poison(pages, 3)

    steps = [lambda: poison(pages, 2), lambda: say(pages), answer, learn, spoil, learn, answer]
    steps += [lambda: say(pages), learn, lambda: undo(pages), answer, lambda: say(pages), answer]
    for step in steps:
        await step()
        await meter_of(pages).turn()
    found = await counted(pages)
    assert found.distribution("loop_seconds").n == found.total("served_total") == 2
    await pages.store.call("DEL", Keys("pages").metrics, Keys("pages").meter)
    await meter_of(pages).turn()
    del found.times["loop_seconds",]  # by the end nobody follows the learner
    assert figures(found) == figures(await counted(pages))
    assert found.total("learned_total") == 3


async def test_two_meters_at_once_count_once(pages: Loop) -> None:
    """Of two that count the same, one is too late, and goes on from where the other stood."""
    meters = [meter_of(pages), meter_of(pages)]
    for _ in range(5):
        await say(pages)
        await pages.turn("pages")
        await ask(pages)
        told = await asyncio.gather(*(meter.turn() for meter in meters))
        assert sum(tally.total("feedback_total") for tally in told) == 1
    for meter in meters:
        await meter.turn()
    found = await counted(pages)
    assert found.total("feedback_total") == found.total("learned_total") == 5
    assert found.total("served_total") == found.distribution("loop_seconds").n == 5


async def test_what_none_of_us_wrote_is_passed_over(pages: Loop) -> None:
    """Entries that cannot be read in any stream neither stop the meter nor count as known."""
    keys = Keys("pages")
    for stream in (keys.feedback, keys.steps, keys.served, keys.verdicts, keys.evidence):
        await pages.store.call("XADD", stream, "*", "x", "?")
        await pages.store.call("XADD", stream, "*", "f", '{"kind": 1}', "s", "{", "w", "[]")
    meter = meter_of(pages)
    await meter.turn()
    assert set((await counted(pages)).by("feedback_total", "kind")) == {"other"}
    await say(pages)
    await meter.turn()
    assert (await counted(pages)).total("feedback_total", kind="selection") == 1


async def test_nothing_new_writes_nothing(pages: Loop) -> None:
    """Where nothing happens, no second is written."""
    meter = meter_of(pages)
    await meter.turn()
    before = await pages.store.call("XLEN", Keys("pages").metrics)
    for _ in range(3):
        await meter.turn()
    assert await pages.store.call("XLEN", Keys("pages").metrics) == before


def test_memory_is_bounded() -> None:
    """Signals that nobody learns, or that nobody is served, do not pile up without end."""
    ledger, tally = Ledger(), Tally()
    for n in range(MOST + 500):
        ledger.hear(f"{n}-0", {b"f": b"{}", b"p": b"0-0"}, tally)
    assert len(ledger.unlearned) == MOST
    for n in range(MOST + 500):
        step = Step(lineage=1, step=n, after=f"{n}-0", to=f"{n}-1", signals=1, digest="")
        ledger.learn(step, tally, following=True)
    assert len(ledger.unserved) == MOST
    assert tally.total("learned_total") == MOST + 500
    ledger.serve("9999999-0", Served(version=1, lineage=1, step=MOST + 500), tally)
    assert not ledger.unserved


# --- several processes ------------------------------------------------------------------------


async def test_gateways_and_the_meter_add_up(pages: Loop) -> None:
    """What two gateways and the meter wrote in the same seconds is summed by whoever reads it."""
    gateways = [Teller(pages.store), Teller(pages.store)]
    await say(pages)
    for n, gateway in enumerate(gateways, start=1):
        gateway.of("pages").count("predictions_total", n, outcome="ok")
        gateway.of("pages").time("prediction_seconds", 0.001 * n)
        await gateway.tell()
    await meter_of(pages).turn()
    now = pages.ingest.clock()
    points = await series.read(pages.store, Keys("pages"), window_s=60, now=now)
    total = series.total(points)
    assert total.total("predictions_total") == 3
    assert total.distribution("prediction_seconds").n == 2
    assert total.total("feedback_total") == 1


async def test_what_was_told_is_passed_on_once(pages: Loop) -> None:
    """Whoever else is told gets each tally, and one that saw nothing is not told."""
    heard: list[tuple[str, int]] = []
    teller = Teller(pages.store, lambda m, tally: heard.append((m, tally.total("swaps_total"))))
    teller.of("pages").count("swaps_total")
    await teller.tell()
    teller.of("pages")
    await teller.tell()
    assert heard == [("pages", 1)]


async def test_an_outage_is_told_of_every_model(start_server: Callable[..., Any]) -> None:
    """While the store takes nothing, whoever else is told hears of all models, each time."""
    server, heard = start_server(), Counter[str]()
    async with await open_store(server.url) as store:
        await store.call("CONFIG", "SET", "maxmemory", 1)
        teller = Teller(store, lambda model, tally: heard.update({model: tally.total(NAME)}))
        for _ in range(2):
            for model in "abc":
                teller.of(model).count(NAME, outcome="unlogged")
            with pytest.raises(Unavailable):
                await teller.tell()
    assert heard == {"a": 2, "b": 2, "c": 2}


@pytest.mark.parametrize("written", [True, False])
async def test_a_store_that_does_not_answer_makes_nothing_count_twice(
    start_server: Callable[..., Any], eventually: Callable[..., Any], *, written: bool
) -> None:
    """A tally whose write timed out is looked for before it is told again, and nothing is lost."""
    server = start_server()
    async with await open_store(server.url) as store:
        teller = Teller(store)
        teller.of("m").count("swaps_total", 2)
        await store.call("PING")
        if written:
            os.kill(server.process.pid, signal.SIGSTOP)  # what is sent waits, and is then done
        else:
            await store.call("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(Unavailable):
            await teller.tell()
        if written:
            os.kill(server.process.pid, signal.SIGCONT)
            await eventually(lambda: _length(store))
        else:
            await store.call("CONFIG", "SET", "maxmemory", 0)
        teller.of("m").count("swaps_total", 3)
        await teller.tell()
        await teller.tell()
        found = Tally()
        for _, fields in await store.range(Keys("m").metrics):
            found.add(Tally.unpack(fields[b"t"]))
        assert found.total("swaps_total") == 5


async def _length(store: Store) -> int:
    return int(await store.call("XLEN", Keys("m").metrics))


# --- over time --------------------------------------------------------------------------------


async def test_minutes_are_summed_up_once(store: Store) -> None:
    """Each minute that is over is the sum of its seconds, whoever sums it up, and how often."""
    keys, (now_s, _) = Keys("m"), await store.call("TIME")
    minute = int(now_s) // 60 * 60
    second, per_minute = Tally(), Counter[int]()
    second.count("learned_total", 2)
    for at in range(minute - 300, int(now_s), 20):
        await store.call("XADD", keys.metrics, f"{at * 1000}-0", "t", second.pack())
        per_minute[at // 60 * 60] += 2
    await asyncio.gather(series.roll_up(store, keys), series.roll_up(store, keys))
    await series.roll_up(store, keys)
    minutes = [int(entry.partition("-")[0]) // 1000 for entry, _ in await store.range(keys.minutes)]
    assert minutes == [minute - 60 * n for n in range(5, 0, -1)]
    points = await series.read(store, keys, window_s=3600, now=float(now_s))
    assert {int(at): tally.total("learned_total") for at, tally in points} == per_minute
    recent = await series.read(store, keys, window_s=300, now=float(now_s))
    assert all(tally.total("learned_total") == 2 for _, tally in recent)


async def test_old_seconds_go(store: Store) -> None:
    """Seconds older than a quarter of an hour are trimmed as new ones come."""
    keys, tally = Keys("m"), Tally()
    tally.count("swaps_total")
    packed = tally.pack()
    await store.many([("XADD", keys.metrics, f"{n}-0", "t", packed) for n in range(1, 501)])
    teller = Teller(store)
    teller.of("m").count("swaps_total")
    await teller.tell()
    assert await store.call("XLEN", keys.metrics) <= 101


# --- beside the gatekeeper --------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["", "metrics", "metrics:tens"])
async def test_the_gatekeeper_counts_and_is_not_harmed(
    pages: Loop,
    eventually: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
) -> None:
    """The gatekeeper's process counts and exports; what it cannot do it says once, and judges."""
    keys, exported = Keys("pages"), Counter[str]()

    def export(model: str, tally: Tally) -> None:
        exported[model] += tally.total("learned_total")

    monkeypatch.setattr(ray_metrics, "export", export)
    await config.publish(pages.store, pages.keyring, pages.settings)
    if broken:
        await pages.store.call("SET", "ol:{pages}:" + broken, "mine")
    place = (pages.settings.store, str(pages.settings.data_dir))
    writer = Writer("gatekeeper", "pages", *place, lambda stages: stages.gatekeeper)
    try:
        for n in (1, 2, 3):
            await say(pages)
            await pages.learn("pages")

            async def seen(n: int = n) -> bool:
                if broken == "metrics":
                    return int(await pages.store.call("XLEN", keys.evidence)) == n
                return (await counted(pages)).total("learned_total") == n

            await eventually(seen, within_s=10)
        if broken != "metrics":
            await eventually(lambda: exported["pages"] > 0)
        if broken:
            await eventually(lambda: "nothing of 'pages' is counted" in caplog.text, within_s=10)
        assert caplog.text.count("nothing of 'pages' is counted") == bool(broken)
        writer.check()
    finally:
        await writer.stop()
