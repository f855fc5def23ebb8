"""The queue: most valuable first, leased to one at a time, and never what nobody waits for."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.exceptions import ResponseError

from online_learner.ids import Address
from online_learner.loop import Loop
from online_learner.queue import ASK, AUDIT, Queue
from online_learner.queue.items import Question
from online_learner.queue.leases import take
from online_learner.registry import Registry
from online_learner.requests import PredictRequest
from online_learner.retain import MARGIN_S, Retention
from online_learner.schema import Ask
from online_learner.settings import Settings
from online_learner.store import Store, open_store

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

ADA, BOB = "human:ada", "human:bob"
NO_AUDITS: dict[str, Any] = {"audit": 0.0, "promotion": {"policy": "policies.promotion:Always"}}


@pytest.fixture
async def loop(open_loop: OpenLoop, make_settings: MakeSettings) -> Loop:
    """Return a loop of which nothing is audited."""
    return await open_loop(make_settings(web=NO_AUDITS))


def queue_of(loop: Loop, *, seed: int = 0) -> Queue:
    """Return the queue of the model."""
    room = loop.stages("web")
    how: dict[str, Any] = {"clock": room.clock, "rng": random.Random(seed)}
    return Queue(room.registry, room.spec, room.window_s, **how)


async def ask(loop: Loop, *uncertain: float, reason: str = "uncertain") -> list[str]:
    """Have questions asked of which the model is so unsure; returns their ids, in order."""
    room = loop.stages("web")
    record = room.predictor.answer(PredictRequest(features={"a": 1.0}, tags={}))
    why = Ask.model_validate({"reason": reason, "probability": 0.5})
    records = [
        record.model_copy(update={"ask": why, "uncertainty": value, "shadows": {}})
        for value in uncertain
    ]
    addresses = await room.journal.append(records)
    return [loop.keyring.seal("prediction", "web", address) for address in addresses]


def place(loop: Loop, prediction_id: str) -> Address:
    """Return where an answer is."""
    return loop.keyring.open("prediction", prediction_id)[1]


async def leased(loop: Loop, holder: str = ADA, count: int = 100, **options: Any) -> list[str]:
    """Return the ids of what is leased to somebody."""
    items = await queue_of(loop).lease(holder=holder, count=count, **options)
    return [item["prediction_id"] for item in items]


async def waiting(loop: Loop, **options: Any) -> list[str]:
    """Return the ids of what waits."""
    items = await queue_of(loop).waiting(count=1000, **options)
    return [item["prediction_id"] for item in items]


# --- the lane -------------------------------------------------------------------------------------


async def test_the_most_valuable_come_first(loop: Loop) -> None:
    """What the model was least sure of is asked about before the rest."""
    ids = await ask(loop, 0.1, 0.4, 0.2, 0.5, 0.3)
    order = [ids[n] for n in (3, 1, 4, 2, 0)]
    assert await waiting(loop) == order
    assert await leased(loop, count=3) == order[:3]
    assert await leased(loop, BOB) == order[3:]


async def test_value_falls_with_age(loop: Loop, clock: Any) -> None:
    """Half as unsure now is worth as much as fully unsure, ln 2 of the time open before."""
    registry = loop.stages("web").registry
    [pattern] = await ask(loop, 0.5)
    entry = place(loop, pattern).entry
    [(_, record)] = await loop.store.range(registry.keys.predictions, entry, entry)
    await loop.store.call("DEL", registry.keys.predictions, registry.keys.asked)
    now_ms, names = int(clock.now * 1000), {}
    for name, age_s, value in (("old", 3000, 1.0), ("mid", 2000, 0.9), ("new", 10, 0.45)):
        put = f"{now_ms - age_s * 1000}-0"
        await loop.store.call(
            "XADD", registry.keys.predictions, put, "n", record[b"n"], "r", record[b"r"]
        )
        question = f'{{"reason": "uncertain", "value": {value}}}'
        await loop.store.call("XADD", registry.keys.asked, put, "q", question)
        names[put] = name
    found = [names[place(loop, name).entry] for name in await waiting(loop)]
    assert found == ["mid", "new", "old"]  # 0.516, 0.449, 0.435


async def test_a_question_says_nothing_of_why(loop: Loop) -> None:
    """No reason, no score, no version: the question, what was shown, and until when."""
    [name] = await ask(loop, 0.4)
    [item] = await queue_of(loop).lease(holder=ADA, count=1, seconds=60.0)
    asked_at = place(loop, name).ms / 1000
    assert item == {
        "prediction_id": name,
        "features": {"a": 1.0},
        "options": [],
        "output": False,
        "lane": "ask",
        "asked_at": asked_at,
        "expires_at": asked_at + 3600.0,
        "leased_until": pytest.approx(loop.ingest.clock() + 60.0, abs=0.002),
    }


@pytest.mark.parametrize(
    "change", [{"web": NO_AUDITS | {"ask_for_s": 60.0}}, {"web": NO_AUDITS, "window_s": 60}]
)
async def test_stale_questions_die(
    open_loop: OpenLoop, make_settings: MakeSettings, clock: Any, change: dict[str, Any]
) -> None:
    """After `ask_for_s`, or when the answer takes no feedback any more, nobody is asked."""
    loop = await open_loop(make_settings(**change))
    await ask(loop, 0.5, 0.5)
    [item] = await queue_of(loop).lease(holder=ADA, count=1, seconds=300.0)
    assert item["leased_until"] == item["expires_at"] == item["asked_at"] + 60.0
    clock.advance(61.0)
    assert await waiting(loop) == []
    assert await leased(loop) == []


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("correction", {"value": True}),
        ("thumbs", {"value": False}),
        ("rating", {"value": 4}),
        ("selection", {"value": True}),
    ],
)
async def test_an_answer_in_any_kind_is_one(loop: Loop, kind: str, fields: dict[str, Any]) -> None:
    """Whatever somebody has said of it, it is asked about no more."""
    ids = await ask(loop, 0.5, 0.4)
    await loop.feedback(ids[0], kind, user_id="cid", **fields)
    assert await leased(loop) == ids[1:]


async def test_what_users_do_is_no_answer(loop: Loop) -> None:
    """A click or a flag leaves a question open."""
    ids = await ask(loop, 0.5, 0.4)
    await loop.feedback(ids[0], "implicit", event="click")
    await loop.feedback(ids[1], "flag", rule="rude")
    assert await leased(loop) == ids


async def test_audits_come_before_questions(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Of both lanes, what the gate waits for is handed out first; each lane is there alone."""
    loop = await open_loop(make_settings(web={"audit": 1.0}))
    asked = await ask(loop, 0.5, 0.4)
    audits = [(await loop.predict("web", {"a": 2.0}))["prediction_id"] for _ in range(3)]
    assert set(await waiting(loop, lanes=(AUDIT,))) == set(audits)
    assert await waiting(loop, lanes=(ASK,)) == asked
    items = await queue_of(loop).lease(holder=ADA, count=4)
    assert [item["lane"] for item in items] == ["audit"] * 3 + ["ask"]


async def test_questions_go_with_the_log(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too old to take feedback is trimmed from the lane as from the log."""
    await loop.store.call("CONFIG", "SET", "stream-node-max-entries", "1")
    try:
        await ask(loop, 0.5, 0.5)
        keys = loop.stages("web").registry.keys
        for age_s, left in ((86_400.0, 2), (86_400.0 + MARGIN_S + 1.0, 0)):
            clock = lambda age_s=age_s: loop.ingest.clock() + age_s  # noqa: E731
            await Retention(loop.store, "web", window_s=86_400.0, clock=clock).trim()
            assert await loop.store.call("XLEN", keys.asked) == left
    finally:
        await loop.store.call("CONFIG", "SET", "stream-node-max-entries", "100")


# --- leases ---------------------------------------------------------------------------------------


async def test_a_lease_keeps_it_from_everybody(loop: Loop, clock: Any) -> None:
    """Until it runs out, neither another nor the holder is handed it; then whoever asks first."""
    ids = await ask(loop, 0.5)
    assert await leased(loop, seconds=300.0) == ids
    assert await leased(loop, BOB) == await leased(loop) == []
    clock.advance(299.0)
    assert await leased(loop, BOB) == []
    clock.advance(2.0)
    assert await leased(loop, BOB) == ids


async def test_leases_are_seen(loop: Loop) -> None:
    """Who lists what waits sees until when each is leased; a holder sees what they can label."""
    ids = await ask(loop, 0.5, 0.4)
    [item] = await queue_of(loop).lease(holder=ADA, count=1)
    everything = await queue_of(loop).waiting(count=10)
    assert [one["leased_until"] for one in everything] == [item["leased_until"], None]
    assert await waiting(loop, holder=ADA) == ids
    assert await waiting(loop, holder=BOB) == ids[1:]


async def test_what_is_skipped_is_for_others(loop: Loop, clock: Any) -> None:
    """A holder who skips it never gets it again; another one may know."""
    ids = await ask(loop, 0.5)
    queue = queue_of(loop)
    await leased(loop)
    assert await queue.give_back([place(loop, ids[0])], holder=BOB) == 0
    assert await leased(loop, BOB) == []
    assert await queue.give_back([place(loop, ids[0])], holder=ADA) == 1
    assert await leased(loop) == await waiting(loop, holder=ADA) == []
    assert await leased(loop, BOB) == ids
    clock.advance(301.0)
    assert await leased(loop) == []


async def test_what_is_given_back_can_be_had_again(loop: Loop) -> None:
    """Who ends early gives back what they did not come to, and finds it the next time."""
    ids = await ask(loop, 0.5, 0.4)
    await leased(loop)
    addresses = [place(loop, name) for name in ids]
    assert await queue_of(loop).give_back(addresses, holder=ADA, again=True) == 2
    assert await queue_of(loop).give_back(addresses, holder=ADA, again=True) == 0
    assert await leased(loop) == ids


async def test_a_lease_is_renewed_by_its_holder_alone(loop: Loop, clock: Any) -> None:
    """Those that are free or one's own are leased for longer; those of others are left out."""
    ids = await ask(loop, 0.5, 0.4, 0.3)
    addresses = [place(loop, name) for name in ids]
    await leased(loop, BOB, count=1)
    queue = queue_of(loop)
    first = await queue.renew(addresses, holder=ADA, seconds=60.0)
    assert [item["prediction_id"] for item in first] == ids[1:]
    clock.advance(59.0)
    again = await queue.renew(addresses, holder=ADA, seconds=60.0)
    assert [item["prediction_id"] for item in again] == ids[1:]
    assert again[0]["leased_until"] == pytest.approx(first[0]["leased_until"] + 59.0, abs=0.01)


async def test_two_never_get_the_same(loop: Loop, server: Any) -> None:
    """Twelve who ask at once, over connections of their own, share the questions out exactly."""
    ids = await ask(loop, *(n / 600 for n in range(300)))
    room = loop.stages("web")
    async with AsyncExitStack() as opened:
        stores = [await opened.enter_async_context(await open_store(server.url)) for _ in range(4)]

        async def label(n: int) -> list[str]:
            registry = Registry(stores[n % 4], loop.keyring, "web")
            queue = Queue(registry, room.spec, room.window_s, clock=room.clock)
            found: list[str] = []
            while items := await queue.lease(holder=f"human:{n}", count=7):
                found += [item["prediction_id"] for item in items]
            return found

        everyone = await asyncio.gather(*map(label, range(12)))
    given = Counter(name for found in everyone for name in found)
    assert given == Counter(ids)
    assert sum(map(bool, everyone)) > 6


async def test_leases_outlive_who_gave_them(
    loop: Loop, open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """They are in the store: another process heeds them."""
    ids = await ask(loop, 0.5, 0.4)
    assert await leased(loop, count=1) == ids[:1]
    other = await open_loop(make_settings(web=NO_AUDITS))
    assert await leased(other, BOB) == ids[1:]


async def test_leases_are_swept(loop: Loop) -> None:
    """What has run out is forgotten: the store holds little more than what is leased or skipped."""
    registry, store = loop.stages("web").registry, loop.store
    now, sizes = loop.ingest.clock(), []
    for turn in range(40):
        ends_ms = int(now * 1000) + 3_600_000
        some = [Question(f"{turn}-{n}", ASK, ends_ms, planted=n % 2 == 0) for n in range(100)]
        given = await take(registry, some, "ada", count=100, seconds=300.0, now=now)
        assert len(given) == 100
        sizes.append(await store.call("HLEN", registry.keys.leases))
        now += 1200.0
    assert max(sizes) < 600  # of the planted ones 50 a turn are kept, for three turns
    for _ in range(3):
        now += 3600.0
        await take(registry, [], "ada", count=1, seconds=300.0, now=now)
    assert await store.call("HLEN", registry.keys.leases) == 1  # where the sweep goes on
    assert await store.call("PTTL", registry.keys.leases) > 0


@pytest.mark.parametrize("script", ["lease", "give_back"])
async def test_a_key_of_another_kind_is_refused(store: Store, script: str) -> None:
    """What is no hash is left as it is."""
    await store.call("SET", "ol:{web}:leases", "x")
    with pytest.raises(ResponseError, match="is a string"):
        await store.run(script, ["ol:{web}:leases"], ["1", "2", 1, "ada", "next"])
    assert await store.call("GET", "ol:{web}:leases") == b"x"
