"""Events of a model over HTTP: told once, in order, through all that breaks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeAlias

import httpx2
import pytest
from the_service import bearer, problem

from online_learner import auth
from online_learner.errors import Invalid, Unavailable
from online_learner.ids import entry_order
from online_learner.loop import Loop
from online_learner.metrics import Tally
from online_learner.retain import Retention
from online_learner.schema import Served
from online_learner.store import Store, open_store
from online_learner.store.keys import Keys
from serve_app.stream import feed as feeds
from serve_app.stream import response, streams
from serve_app.stream.cursor import KINDS, Cursor, at_moment, pack, unpack
from serve_app.stream.listener import Listener
from serve_app.stream.response import EventStream
from serve_app.stream.streams import Streams, is_leaving
from serve_app.stream.telling import Event, Telling

Poll: TypeAlias = Callable[..., Awaitable[None]]
Heard: TypeAlias = tuple[str, str, dict[str, Any]]  # id, kind, data
KEYS = Keys("web")


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service."""
    return start_service(web={}, rent={})


@pytest.fixture(scope="module")
def mortal(start_service: Callable[..., Any]) -> Any:
    """Return another one, whose store is started again when it dies."""
    found = start_service(web={})
    found.server.keep_running()
    return found


@pytest.fixture(scope="module")
def orphan(start_service: Callable[..., Any]) -> Any:
    """Return another one, whose store is gone."""
    found = start_service(web={})
    found.server.stop()
    return found


@pytest.fixture
async def client(service: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """Return a client with the key."""
    async with connect(service) as http:
        yield http


@pytest.fixture
async def its_store(service: Any) -> AsyncIterator[Store]:
    """Return the service's own store."""
    async with await open_store(service.server.url) as opened:
        yield opened


def connect(service: Any, key: str | None = None) -> httpx2.AsyncClient:
    """Return a client of a service; it waits longer than the service is silent."""
    headers = bearer(key or service.key)
    return httpx2.AsyncClient(base_url=service.url, headers=headers, timeout=20.0, verify=False)


def read(text: str) -> list[Heard]:
    """Return the events of what was sent, as far as they are whole; the last id with them."""
    found = []
    for block in text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append(
            (fields.get("id", ""), fields.get("event", ""), json.loads(fields.get("data", "{}")))
        )
    return found


async def listen(http: httpx2.AsyncClient, **asked: Any) -> AsyncIterator[Heard]:
    """Yield the greeting, as an event of no kind, and then what is told."""
    asked = {"model": "web", **asked}
    async with http.stream("GET", "/v1/stream", params=asked) as reply:
        assert reply.status_code == 200, await reply.aread()
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-accel-buffering"] == "no"
        rest = ""
        async for text in reply.aiter_text():
            rest += text
            for heard in read(rest):
                yield heard
            rest = rest.rpartition("\n\n")[2]


async def hear(http: httpx2.AsyncClient, count: int, **asked: Any) -> list[Heard]:
    """Return the first events after a cursor."""
    found: list[Heard] = []
    async with asyncio.timeout(20), contextlib.aclosing(listen(http, **asked)) as events:
        async for heard in events:
            found += [heard] if heard[1] else []
            if len(found) == count:
                break
    return found


async def say(http: httpx2.AsyncClient, count: int = 1) -> list[str]:
    """Give one answer, and say so many things about it; returns the ids of the signals."""
    reply = await http.post("/v1/models/web/predict", json={"features": {"x": 1.0}})
    answer = reply.raise_for_status().json()["prediction_id"]
    items = [
        {"prediction_id": answer, "kind": "thumbs", "value": True, "user_id": f"u{n}"}
        for n in range(count)
    ]
    reply = await http.post("/v1/feedback_batch", json={"items": items})
    return [item["feedback_id"] for item in reply.raise_for_status().json()["results"]]


async def switch(http: httpx2.AsyncClient, action: str) -> None:
    """Freeze or thaw the model: a verdict."""
    (await http.post(f"/v1/models/web/{action}", json={})).raise_for_status()


def by_kind(heard: list[Heard]) -> dict[str, list[dict[str, Any]]]:
    """Return the data of events by kind, in the order in which they were told."""
    found = defaultdict(list)
    for _, kind, data in heard:
        found[kind].append(data)
    return dict(found)


# --- what is told -----------------------------------------------------------------------------


async def test_what_happens_is_told(client: httpx2.AsyncClient) -> None:
    """An answer by new weights, a signal and a decision are told as they are read elsewhere."""
    async with contextlib.aclosing(listen(client, events="feedback,verdict")) as events:
        await anext(events)
        [said] = await say(client)
        await switch(client, "freeze")
        told = by_kind([await anext(events), await anext(events)])
    [decided] = (await client.get("/v1/models/web/verdicts?count=1")).json()["verdicts"]
    assert told["verdict"] == [{"model": "web", **decided}]
    [signal] = told["feedback"]
    receipt = (await client.get(f"/v1/feedback/{said}")).json()
    assert signal["feedback_id"] == said
    assert signal["prediction_id"] == receipt["feedback"]["prediction_id"]
    assert signal["kind"] == "thumbs"
    assert set(signal) == {"model", "at", "feedback_id", "prediction_id", "kind"}


async def test_it_begins_now(client: httpx2.AsyncClient) -> None:
    """Without a cursor, nothing is told of what was before; the first id is one to come back to."""
    before = await say(client, 3)
    async with contextlib.aclosing(listen(client, events="feedback")) as events:
        start, kind, _ = await anext(events)
        assert kind == ""
        after = await say(client, 2)
        found = [(await anext(events))[2]["feedback_id"] for _ in after]
    assert found == after
    assert not set(found) & set(before)
    again = await hear(client, 2, events="feedback", after=start)
    assert [data["feedback_id"] for _, _, data in again] == after


async def test_only_what_was_asked_for(client: httpx2.AsyncClient) -> None:
    """Of several kinds, those are told that were named."""
    start = (await hear_greeting(client))[0]
    await say(client)
    await switch(client, "thaw")
    await say(client)
    await switch(client, "freeze")
    found = await hear(client, 2, events="verdict,verdict", after=start)
    assert [(kind, data["action"]) for _, kind, data in found] == [
        ("verdict", "thaw"),
        ("verdict", "freeze"),
    ]


async def test_what_was_counted_is_told_by_the_second(client: httpx2.AsyncClient) -> None:
    """The answers of a replica are told within some seconds, all of them once."""
    asked = {"features": {"x": 1.0}}
    async with contextlib.aclosing(listen(client, model="rent", events="metrics")) as events:
        await anext(events)
        for _ in range(5):
            (await client.post("/v1/models/rent/predict", json=asked)).raise_for_status()
        predictions = 0
        while predictions < 5:
            _, _, data = await anext(events)
            assert set(data) == {"model", "at", "predictions", "feedback", "learned", "loop_ms"}
            predictions += data["predictions"]
    assert predictions == 5


# --- who may listen ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({}, 422, "invalid_value"),
        ({"model": "weg"}, 404, "unknown_model"),
        ({"model": "web", "events": "verdict,gossip"}, 422, "invalid_value"),
        ({"model": "web", "after": "0-0"}, 422, "invalid_value"),
        ({"model": "web", "after": "!" * 86}, 422, "invalid_value"),
    ],
)
async def test_what_cannot_be_told_is_refused(
    client: httpx2.AsyncClient, asked: dict[str, str], status: int, code: str
) -> None:
    """What is no model, no kind and no cursor is a problem, before anything is streamed."""
    problem(await client.get("/v1/stream", params=asked), status, code)


async def test_the_console_listens_by_its_cookie(service: Any, client: httpx2.AsyncClient) -> None:
    """The cookie of a session is enough, and the browser's header says where to go on."""
    start = (await hear_greeting(client))[0]
    [said] = await say(client)
    async with httpx2.AsyncClient(base_url=service.url, timeout=20.0, verify=False) as browser:
        await browser.post("/v1/session", headers=bearer(service.key))
        browser.headers["last-event-id"] = start
        [(_, _, data)] = await hear(browser, 1, events="feedback", after=pack(at_moment(1)))
    assert data["feedback_id"] == said


async def hear_greeting(http: httpx2.AsyncClient) -> Heard:
    """Connect, and return the greeting."""
    async with contextlib.aclosing(listen(http)) as events:
        return await anext(events)


async def test_a_stream_ends_with_its_key(service: Any, its_store: Store, eventually: Poll) -> None:
    """Once a key is revoked, its stream ends, and it does not get another."""
    key, made = await auth.create(its_store, name="reader", scopes=("read",))
    async with connect(service, key) as http:

        async def let_in() -> bool:
            return (await http.get("/v1/session")).status_code == 200

        await eventually(let_in)
        async with contextlib.aclosing(listen(http)) as events:
            await anext(events)
            await auth.revoke(its_store, made.id)
            assert [heard async for heard in events if heard[1]] == []
        problem(await http.get("/v1/stream?model=web"), 401, "unauthorized")


async def test_there_is_a_limit(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, eventually: Poll
) -> None:
    """Beyond so many listeners a replica refuses; who leaves makes room."""
    monkeypatch.setattr(streams, "MOST", 3)
    async with contextlib.AsyncExitStack() as open_ones:
        for _ in range(2):
            events = listen(client)
            await open_ones.enter_async_context(contextlib.aclosing(events))
            await anext(events)
        async with contextlib.aclosing(listen(client)) as third:
            await anext(third)
            refused = await client.get("/v1/stream?model=web")
            problem(refused, 503, "too_many_streams")

        async def has_room() -> bool:
            async with client.stream("GET", "/v1/stream?model=web") as reply:
                return reply.status_code == 200

        await eventually(has_room)


# --- coming back ------------------------------------------------------------------------------


async def test_nothing_is_lost_wherever_it_breaks(client: httpx2.AsyncClient) -> None:
    """Cut off after any byte, and back with the last id: each event is told once, and in order."""
    start = (await hear_greeting(client))[0]
    for action in ("thaw", "freeze", "thaw"):
        await say(client, 4)
        await switch(client, action)
    whole = await hear(client, 15, events="feedback,verdict", after=start)
    assert {kind: len(found) for kind, found in by_kind(whole).items()} == {
        "feedback": 12,
        "verdict": 3,
    }
    assert [data["at"] for _, _, data in whole] == sorted(data["at"] for _, _, data in whole)
    texts = [f"event: {kind}\ndata: {json.dumps(data)}\nid: {at}\n\n" for at, kind, data in whole]
    text = "".join(texts)
    after = {
        at: await hear(client, 15 - n, events="feedback,verdict", after=at)
        for n, at in enumerate([start, *(at for at, _, _ in whole[:-1])])
    }
    for cut in range(len(text)):
        head = read(text[:cut])
        found = head + after[head[-1][0] if head else start]
        assert [event[1:] for event in found] == [event[1:] for event in whole]


async def test_breaks_amid_the_flow_lose_nothing(
    service: Any, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While much is said, a listener that breaks off at random hears all of it once, in order."""
    monkeypatch.setattr(feeds, "RING", 20)
    monkeypatch.setattr(feeds, "PAGE", 7)
    rng, last = random.Random(3), (await hear_greeting(client))[0]
    heard: list[str] = []
    async with connect(service) as speaker:
        said: list[str] = []

        async def speak() -> None:
            for _ in range(30):
                said.extend(await say(speaker, rng.randrange(1, 30)))

        speaking = asyncio.create_task(speak())
        while not speaking.done() or len(heard) < len(said):
            wanted = min(rng.randrange(1, 40), len(said) - len(heard)) if speaking.done() else 3
            for at, _, data in await hear(client, wanted, events="feedback,verdict", after=last):
                last, _ = at, heard.append(data["feedback_id"])
        await speaking
    assert heard == said


async def test_what_was_trimmed_is_called_lost(
    service: Any, client: httpx2.AsyncClient, its_store: Store
) -> None:
    """Where the log was trimmed beyond the cursor, that is told first; what is left comes then."""
    start = (await hear_greeting(client))[0]
    await say(client, 1000)
    await service.turn()
    later = Retention(its_store, "web", window_s=1.0, clock=lambda: time.time() + 120)
    assert await later.trim() > 0
    [last] = await say(client)
    first, *rest = await hear(client, 1, events="feedback", after=start)
    assert (first[1], first[2]["events"], rest) == ("lost", ["feedback"], [])
    found = []
    async with contextlib.aclosing(listen(client, events="feedback", after=first[0])) as events:
        async for _, kind, data in events:
            assert kind != "lost"
            if kind:
                found.append(data["feedback_id"])
            if found[-1:] == [last]:
                break
    assert 0 < len(found) < 1000
    [left] = await its_store.range(KEYS.feedback, count=1)
    assert entry_order(left[0]) > unpack(start)["feedback"]


async def test_a_store_that_comes_back_is_read_on(mortal: Any, eventually: Poll) -> None:
    """A stream stands while the store is away, and tells what happens once it is back."""
    listening = listen(http := connect(mortal), events="feedback")
    async with http, contextlib.aclosing(listening) as events:
        await anext(events)
        before = await say(http)
        mortal.server.process.kill()

        async def is_back() -> bool:
            return (await http.get("/v1/models")).status_code == 200

        async def is_away() -> bool:
            return not await is_back()

        await eventually(is_away)
        await eventually(is_back, within_s=20)
        after = await say(http)
        found = [(await anext(events))[2]["feedback_id"] for _ in range(2)]
    assert found == [*before, *after]


async def test_without_a_store_nobody_waits(orphan: Any) -> None:
    """Who comes while the store is away is told to try again."""
    async with connect(orphan) as http:
        problem(await http.get("/v1/stream?model=web"), 503, "store_unavailable")


async def test_a_replica_that_ends_is_not_held_up(service: Any) -> None:
    """Where the server stops, all streams come to a clean end, and it waits for none of them."""
    another = replace(service)
    async with contextlib.AsyncExitStack() as open_ones:
        with another.serving():
            http = await open_ones.enter_async_context(connect(another))
            listening = [listen(http) for _ in range(5)]
            for events in listening:
                await open_ones.enter_async_context(contextlib.aclosing(events))
                await anext(events)
            rest = [asyncio.create_task(_all(events)) for events in listening]
            assert not await is_leaving(_door(another))
            await asyncio.sleep(0)
        assert [await task for task in rest] == [[]] * 5
        assert await is_leaving(_door(another))


async def _all(events: AsyncIterator[Heard]) -> list[Heard]:
    return [heard async for heard in events if heard[1]]


def _door(service: Any) -> tuple[str, int]:
    host, _, port = service.url.removeprefix("http://").partition(":")
    return host, int(port)


@pytest.mark.parametrize(("status", "leaves"), [(b"503 DRAINING", True), (b"200 OK", False)])
async def test_a_replica_says_that_it_leaves(status: bytes, leaves: bool) -> None:
    """The health of a replica of Serve's tells whether it still takes requests."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"GET /-/healthz HTTP/1.0\r\n"
        writer.write(b"HTTP/1.1 " + status + b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        assert await is_leaving(server.sockets[0].getsockname()) is leaves


# --- one replica's own part -------------------------------------------------------------------


@pytest.fixture
async def house(loop: Loop) -> AsyncIterator[Streams]:
    """Return an empty house of listeners, on the loop's store."""
    opened = Streams()
    yield opened
    await opened.close()


async def join(house: Streams, loop: Loop, cursor: Cursor | None = None) -> Listener:
    """Let one in who listens to everything."""
    return await house.join(loop.stages("web").registry, KINDS, cursor, None)


async def copies(loop: Loop, count: int) -> None:
    """Append so many copies of one signal to the log."""
    answer = await loop.predict("web", {"x": 1.0})
    await loop.feedback(answer["prediction_id"], "thumbs", True)
    [(_, fields)] = await loop.store.latest(KEYS.feedback)
    row = ["XADD", KEYS.feedback, "*", *itertools.chain(*fields.items())]
    for _ in range(count // 500):
        await loop.store.many([row] * 500)


async def drain(listener: Listener, count: int) -> list[Heard]:
    """Return what a listener hears, until there are so many signals."""
    found: list[Heard] = []
    while len(by_kind(found).get("feedback", ())) < count:
        found += read((await listener.hear(5.0)).decode())
    return found


async def test_memory_stays_flat(house: Streams, loop: Loop) -> None:
    """Ten thousand events leave no more behind than two thousand, whoever hears them, or not."""
    quick, _slow = await join(house, loop), await join(house, loop)
    sizes = []
    for count in (2_000, 8_000):
        await copies(loop, count)
        await drain(quick, count)
        gc.collect()
        objects = gc.get_objects()
        sizes.append((len(objects), sum(isinstance(found, Event) for found in objects)))
        del objects
    (before, _), (after, events) = sizes
    assert feeds.RING <= events <= feeds.RING + feeds.PAGE
    assert after - before < 1_000


async def test_who_is_far_behind_hears_it_from_the_log(
    house: Streams, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener who was overtaken by the ring still hears everything once, in order."""
    monkeypatch.setattr(feeds, "RING", 50)
    quick, slow = await join(house, loop), await join(house, loop)
    await copies(loop, 500)
    heard = await drain(quick, 500)
    assert len(house._feeds["web"]._ring) == 50
    late = await drain(slow, 500)
    assert by_kind(late) == by_kind(heard)
    assert len({data["feedback_id"] for data in by_kind(late)["feedback"]}) == 501


async def test_the_log_is_read_once_for_all(house: Streams, loop: Loop, eventually: Poll) -> None:
    """However many listen to a model, one connection waits at its streams; without any, none."""

    async def waiting() -> int:
        clients = (await loop.store.call("CLIENT", "LIST")).decode()
        return sum("cmd=xread" in line and "flags=b" in line for line in clients.splitlines())

    async def one() -> bool:
        return await waiting() == 1

    async def none() -> bool:
        return await waiting() == 0

    for _ in range(20):
        await join(house, loop)
    await eventually(one)
    for _ in range(20):
        house.leave("web")
    await eventually(none)
    assert (house.count, house._feeds) == (0, {})


async def test_who_does_not_keep_up_is_cut_off(
    house: Streams, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that takes nothing more is given up, and its place is free."""
    monkeypatch.setattr(response, "SLOW_S", 0.05)
    left = []

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    connection = EventStream(
        await join(house, loop), check=house.check, leave=lambda: left.append("web")
    )
    await connection({"type": "http"}, receive, send)
    assert left == ["web"]


async def test_a_quiet_stream_shows_that_it_lives(
    house: Streams, loop: Loop, monkeypatch: pytest.MonkeyPatch, eventually: Poll
) -> None:
    """Where nothing happens, a comment comes, with an id that moves on with the time."""
    monkeypatch.setattr(response, "ALIVE_S", 0.0)
    monkeypatch.setattr(response, "CHECK_S", 0.05)
    monkeypatch.setattr(feeds, "LONGEST_S", 0.05)
    sent: list[str] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message.get("body", b"").decode())

    async def receive() -> dict[str, Any]:
        await eventually(lambda: sum(text.startswith(": alive") for text in sent) > 3)
        return {"type": "http.disconnect"}

    listener = await join(house, loop)
    begin = dict(listener.cursor)
    await EventStream(listener, check=house.check, leave=lambda: None)(
        {"type": "http"}, receive, send
    )
    ids = [text.split("id: ")[1].strip() for text in sent if "id: " in text]
    assert unpack(ids[0]) == begin
    assert all(unpack(ids[-1])[kind] > begin[kind] for kind in KINDS)


async def test_a_house_that_closes_lets_nobody_in(house: Streams, loop: Loop) -> None:
    """Once it closes, its listeners are woken, and who comes is told to try again."""
    listener = await join(house, loop)
    hearing = asyncio.create_task(listener.hear(60.0))
    await asyncio.sleep(0)
    house.begin_to_close()
    assert await hearing == b""
    with pytest.raises(Unavailable):
        await join(house, loop)


# --- from entries to events -------------------------------------------------------------------


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def telling(loop: Loop) -> tuple[Telling, Clock]:
    """Return what makes events, and its clock."""
    clock = Clock()
    return Telling(loop.stages("web").registry, clock), clock


def data_of(events: list[Event]) -> list[dict[str, Any]]:
    """Return the data of some events."""
    return [json.loads(event.text.decode().partition("data: ")[2]) for event in events]


def served(step: int) -> dict[bytes, bytes]:
    """Return an entry: the first answer of a step."""
    return {b"w": Served(version=1, lineage=1, step=step).pack()}


async def test_swaps_are_told_twice_a_second_at_most(telling: tuple[Telling, Clock]) -> None:
    """Of a hundred swaps a second, few are told, the last of them always."""
    made, clock = telling
    told = []
    for step in range(100):
        clock.now = step / 100
        told += made.take("swap", (10 * step, 0), served(step))
        told += made.due()
    assert made.due() == []
    clock.now = 2.0
    told += made.due()
    steps = [data["step"] for data in data_of(told)]
    assert steps[0] == 0
    assert steps[-1] == 99
    assert 3 <= len(steps) <= 4
    assert steps == sorted(set(steps))


async def test_the_same_weights_are_told_once(telling: tuple[Telling, Clock]) -> None:
    """That another replica answers with them as well is no swap."""
    made, _ = telling
    assert len(made.take("swap", (1000, 0), served(5))) == 1
    assert made.take("swap", (5000, 0), served(5)) == []
    assert made.rest() == []


async def test_tallies_of_a_second_add_up(telling: tuple[Telling, Clock]) -> None:
    """What several processes counted in one second is one event; gauges alone are none."""
    made, clock = telling
    tally, gauge = Tally(), Tally()
    tally.count("predictions_total", 3, outcome="ok")
    tally.time("loop_seconds", 0.25)
    gauge.level("quarantined", 1.0)
    entry = {b"t": tally.pack()}
    assert made.take("metrics", (1000, 0), entry) == []
    assert made.take("metrics", (1999, 0), entry) == []
    assert 0.0 < made.wait_s() <= 1.0
    [event] = made.take("metrics", (2000, 0), entry)
    [data] = data_of([event])
    assert (event.place, data["predictions"], data["feedback"]) == ((1999, 0), 6, 0)
    assert data["loop_ms"]["p50"] == pytest.approx(250, rel=0.1)
    clock.now = 1.0
    assert [data["predictions"] for data in data_of(made.due())] == [3]
    assert made.take("metrics", (3000, 0), {b"t": gauge.pack()}) == []
    assert made.rest() == []


@pytest.mark.parametrize(
    "fields",
    [{}, {b"f": b"{", b"n": b"00000000"}, {b"n": b"xyz", b"f": b"{}"}, {b"f": b"[]", b"n": b""}],
)
async def test_what_is_none_of_ours_is_passed_over(
    telling: tuple[Telling, Clock], fields: dict[bytes, bytes]
) -> None:
    """Entries that no part of us wrote are no events, and end no stream."""
    made, _ = telling
    for kind in KINDS:
        assert made.take(kind, (1, 1), fields) == []


def test_a_cursor_is_one_word() -> None:
    """It comes back as it was; what is none is refused."""
    cursor = {kind: (1_700_000_000_000 + n, (1 << 64) - 1 - n) for n, kind in enumerate(KINDS)}
    assert unpack(pack(cursor)) == cursor
    for word in ("", "x", "A" * 85, "\u00e9" * 86):
        with pytest.raises(Invalid):
            unpack(word)
