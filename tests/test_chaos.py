"""Chaos, in short: writes in doubt, paused writers, kill -9. More is in `benchmarks.chaos`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterator

import pytest

from benchmarks.chaos.bench import Bench, bench, open_door, until
from benchmarks.chaos.clients import MODEL, Clients, InProcess
from benchmarks.chaos.doubt import in_doubt
from benchmarks.chaos.harm import HARM
from benchmarks.chaos.ledger import MARK, Audit, Ledger, audit
from benchmarks.chaos.paused import Commits, lane
from benchmarks.chaos.proxy import Exchange, Proxy, command, frame_end
from benchmarks.chaos.writer import kill, spawn, writer
from online_learner.loop import Loop
from online_learner.stages import Stages
from online_learner.store import Store

TIMES = 1  # the store and the learner are killed


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep the writers from telling of each doubt."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def clean(found: Audit) -> bool:
    """Tell whether something was acknowledged and compared, and nothing is wrong."""
    assert found.acknowledged > 50
    assert found.digests > 0
    return found.clean


async def test_writes_in_doubt_are_neither_lost_nor_doubled() -> None:
    """All that a proxy can do to a signal, an answer, a step and a decision, done to each."""
    writes = ("ingest", "journal", "commit_step", "decide")
    found = await in_doubt(dict.fromkeys(writes, 1), doors=4)
    assert found.done == {(harm, write): 1 for harm in HARM for write in writes}
    assert found.in_doubt >= len(HARM) - 1  # a delay leaves no doubt
    assert found.audit.settled > 0
    assert clean(found.audit), found.audit


async def test_a_paused_learner_commits_nothing_when_it_wakes_up() -> None:
    """Its commit reaches the server when a successor has committed, and is refused."""
    found = await lane(1, pause_s=0.5, roles=["learner"])
    assert found.fenced["learner", True] == found.pauses["learner", True] == 1
    assert found.stale == 0
    assert clean(found.audit), found.audit


async def test_kill_9_of_store_and_learner_under_load() -> None:
    """What was acknowledged is there, and learned once, whichever of them was killed."""
    async with bench() as place, await open_door(place) as door:
        clients = Clients()
        watching = asyncio.create_task(clients.ledger.watch(place.stages().registry))
        learner = spawn("learner", place.server.url, place.home)
        for _ in range(4):
            clients.enter(InProcess(door), size=4)
        try:
            for _ in range(TIMES):
                await _learns_on(place)
                assert place.server.process is not None
                place.server.process.kill()
                await _learns_on(place)
                kill(learner)
                learner = spawn("learner", place.server.url, place.home)
            await clients.leave()
            found = await place.audit(clients)
        finally:
            kill(learner)
            watching.cancel()
    assert found.restarts >= 2 + TIMES
    assert clean(found), found


async def test_a_writer_waits_for_its_store() -> None:
    """A learner that starts while the store is away goes to work once it is there."""
    asked = asyncio.Event()

    def refuse(_reader: asyncio.StreamReader, end: asyncio.StreamWriter) -> None:
        asked.set()
        end.transport.abort()

    async with bench() as place:
        path = place.home / "late"
        async with await asyncio.start_unix_server(refuse, path):
            learner = writer("learner", f"unix://{path}", place.home)
            await asyncio.wait_for(asked.wait(), 10.0)
        path.unlink()
        async with Proxy(path, place.server.socket_path):
            beat = place.stages().registry.keys.heartbeat("learner")

            async def works() -> bool:
                learner.check()
                return bool(await place.store.call("EXISTS", beat))

            await until(works, 20.0, "the learner to find its store")
            await learner.stop()


async def _learns_on(place: Bench) -> None:
    """Wait until some more steps are recorded."""
    steps, before = place.stages().registry.keys.steps, ""

    async def more() -> bool:
        nonlocal before
        with contextlib.suppress(Exception):
            [(newest, _)] = await place.store.latest(steps)
            before = before or newest
            return newest != before
        return False

    await until(more, 20.0, "a step")


# --- the audit itself can fail ----------------------------------------------------------------


async def _lose(store: Store, stages: Stages, ledger: Ledger) -> None:
    _, address = stages.keyring.open("feedback", ledger.receipts["mark 3"])
    await store.call("XDEL", stages.registry.keys.feedback, address.entry)


async def _lose_an_answer(store: Store, stages: Stages, ledger: Ledger) -> None:
    _, address = stages.keyring.open("prediction", ledger.predictions[4])
    await store.call("XDEL", stages.registry.keys.predictions, address.entry)


async def _double(store: Store, stages: Stages, ledger: Ledger) -> None:
    [(_, fields)] = await store.latest(stages.registry.keys.feedback)
    parts = [part for pair in fields.items() for part in pair]
    await store.call("XADD", stages.registry.keys.feedback, "*", *parts)
    await stages.trainer.turn()


async def _rename(store: Store, stages: Stages, ledger: Ledger) -> None:
    ledger.acknowledge("mark 3", ledger.receipts["mark 4"])


async def _forget_a_step(store: Store, stages: Stages, ledger: Ledger) -> None:
    [(newest, _)] = await store.latest(stages.registry.keys.steps)
    await store.call("XDEL", stages.registry.keys.steps, newest)


async def _learn_twice(store: Store, stages: Stages, ledger: Ledger) -> None:
    """Let the last step begin where the first one did."""
    steps = stages.registry.keys.steps
    kept = [(entry, json.loads(fields[b"s"])) for entry, fields in await store.range(steps)]
    kept[-1][1]["after"] = kept[0][1]["after"]
    await store.call("DEL", steps)
    for entry, step in kept:
        await store.call("XADD", steps, entry, "s", json.dumps(step))


async def _other_weights(store: Store, stages: Stages, ledger: Ledger) -> None:
    ledger.published[2].add("other weights")


async def _judge_twice(store: Store, stages: Stages, ledger: Ledger) -> None:
    evidence = stages.registry.keys.evidence
    [(_, fields)] = await store.latest(evidence)
    await store.call("XADD", evidence, "*", "e", fields[b"e"])


@pytest.mark.parametrize(
    ("plant", "what"),
    [
        (_lose, "lost"),
        (_lose_an_answer, "lost"),
        (_double, "doubled"),
        (_rename, "doubled"),
        (_forget_a_step, "unlearned"),
        (_learn_twice, "learned_twice"),
        (_other_weights, "unequal"),
        (_judge_twice, "judged_wrong"),
    ],
)
async def test_what_is_wrong_is_found(
    loop: Loop,
    plant: Callable[[Store, Stages, Ledger], Awaitable[None]],
    what: str,
) -> None:
    """One thing that is lost, doubled, or not as recorded, is seen; without it all is well."""
    ledger, stages = Ledger(), loop.stages(MODEL)
    for number in range(9):
        answer = await loop.predict(MODEL, {"a": float(number)})
        ledger.predictions.append(answer["prediction_id"])
        mark = f"mark {number}"
        receipt = await loop.feedback(
            answer["prediction_id"], "correction", value=number > 4, tags={MARK: mark}
        )
        ledger.acknowledge(mark, str(receipt.feedback_id))
        if number % 3 == 2:
            await loop.turn(MODEL)
    assert (await audit(_fresh(stages), ledger)).clean
    await plant(loop.store, stages, ledger)
    found = await audit(_fresh(stages), ledger)
    assert getattr(found, what) > 0, found
    assert not found.clean


def _fresh(stages: Stages) -> Stages:
    return Stages(stages.store, stages.keyring, stages.model, stages.spec)


def test_a_stale_commit_is_found() -> None:
    """A commit under an older fence than one before it, and accepted, is stale."""
    commits = Commits()
    for fence, reply in ((1, b"ok"), (2, b"ok"), (1, b"fenced"), (2, b"old")):
        commits.see("commit_step", 7, b'{"fence": "%d"}' % fence, reply)
    assert commits.stale == 0
    commits.see("decide", 7, b'{"fence": "1"}', b"ok")
    assert commits.stale == 0, "each writer has a fence of its own"
    commits.see("commit_step", 7, b'{"fence": "1"}', b"ok")
    assert commits.stale == 1


# --- the proxy --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"+OK\r\n", 5),
        (b"$5\r\nhallo\r\n", 11),
        (b"$5\r\nhallo", -1),
        (b"$-1\r\n", 5),
        (b"*0\r\n", 4),
        (b"*2\r\n*1\r\n:1\r\n$1\r\na\r\n+more", 19),
        (b"*2\r\n:1\r\n", -1),
        (b"", -1),
    ],
)
def test_frames(data: bytes, end: int) -> None:
    """A value of the protocol ends where it ends, however it is nested and cut."""
    assert frame_end(bytearray(data), 0) == end


async def test_a_trap_takes_one_command_and_no_other() -> None:
    """A trap goes by the name of the command, the process, and what is in it."""
    async with bench() as place, await open_door(place) as door:
        got: list[bytes] = []

        async def note(exchange: Exchange) -> None:
            got.append(exchange.request)
            exchange.send()
            exchange.give(await exchange.reply())

        place.proxy.trap("GET", note, pid=1)
        trap = place.proxy.trap("GET", note, with_=b"this")
        await door.store.call("SET", "this", "1")
        assert await door.store.call("GET", "that") is None
        assert not trap.sprung.is_set()
        assert await door.store.call("GET", "this") == b"1"
        assert await door.store.call("GET", "this") == b"1"
        assert trap.over.is_set()
        assert [command(request) for request in got] == ["GET"]
