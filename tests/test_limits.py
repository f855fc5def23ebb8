"""Rate limits: so many signals of one API key and of one source, counted in the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest

from online_learner.errors import Invalid, RateLimited, Unavailable
from online_learner.ids import Keyring
from online_learner.ingest import Ingest, Receipt
from online_learner.ingest.admit import Admission
from online_learner.ingest.speaker import LOCAL, Speaker
from online_learner.journal import Journal
from online_learner.loop import Loop
from online_learner.requests import read_feedback
from online_learner.schema import Prediction
from online_learner.settings import ModelSpec, Settings
from online_learner.stages import make_rules, make_signals
from online_learner.store import Store, open_store
from online_learner.store.keys import Keys

FOREVER_S = 3600.0
SLOW = 0.01  # signals a second: within a test, what is spent stays spent
SHOP, OTHER = Speaker("shop"), Speaker("other")
BOTH = [{"kind": "thumbs", "value": True}, {"kind": "correction", "value": True}]


def limits(**changes: Any) -> dict[str, Any]:
    """Return limits: `key=3` is three at once of one API key; what is not named is not limited."""
    return {f"per_{of}": at for of, at in ({"key": None, "source": None} | changes).items()}


def burst(count: int, rate: float = SLOW) -> dict[str, Any]:
    """Return so many at once."""
    return {"rate": rate, "burst": count}


class Door:
    """The door of one process, on a store that others share."""

    def __init__(self, store: Store, keyring: Keyring, **changes: Any) -> None:
        spec = {"task": "classification", "learner": "a:b", "labels": [False, True]}
        self.store = store
        self.keyring = keyring
        self.admissions = {
            name: Admission(model, make_signals(model), make_rules(model))
            for name in ("web", "topic")
            for model in [ModelSpec.model_validate(spec | {"limits": limits(**changes)})]
        }
        self.ingest = Ingest(store, keyring, self.admissions, FOREVER_S)

    async def predict(self, model: str = "web", **fields: Any) -> str:
        """Log an answer; returns its id."""
        known = {"features": {"a": 1.0}, "output": True, "version": 3, "lineage": 1, "step": 0}
        record = Prediction(model=model, **(known | fields))
        [address] = await Journal(self.store, model, window_s=FOREVER_S).append([record])
        return self.keyring.seal("prediction", model, address)

    async def say(self, prediction_id: str, speaker: Speaker = SHOP, **fields: Any) -> Receipt:
        """Send thumbs up, or what the fields say."""
        said = {} if "signals" in fields else {"kind": "thumbs", "value": True}
        body = {"prediction_id": prediction_id, **said, **fields}
        return await self.ingest.accept(read_feedback(body), speaker)

    async def flood(self, count: int, speaker: Speaker = SHOP, **fields: Any) -> list[str]:
        """Say something of so many answers, one after the other; returns what came of each."""
        found = []
        for _ in range(count):
            try:
                receipt = await self.say(await self.predict(), speaker, **fields)
                found.append(receipt.status)
            except RateLimited as error:
                found.append(error.code)
        return found

    async def taken(self, model: str = "web") -> int:
        """Return how many signals are in the stream."""
        return int(await self.store.call("XLEN", Keys(model).feedback))


@pytest.fixture
def make_door(store: Store, keyring: Keyring) -> Callable[..., Door]:
    """Return a factory of doors on the empty server: `make_door(key=burst(3))`."""
    return lambda **changes: Door(store, keyring, **changes)


@pytest.fixture
async def second_store(store: Store) -> AsyncIterator[Store]:
    """Return another process's connection to the same server."""
    async with await open_store(store.url) as opened:
        yield opened


TAKEN, LIMITED = "accepted", "rate_limited"


# --- whose limit it is ------------------------------------------------------------------------


async def test_an_api_key_sends_so_many_and_no_more(make_door: Callable[..., Door]) -> None:
    """A key is limited whoever its users are; others are not. What is refused is not in the log."""
    door = make_door(key=burst(3))
    assert await door.flood(2, user_id="ada") == [TAKEN] * 2
    assert await door.flood(3, user_id="bob") == [TAKEN, LIMITED, LIMITED]
    assert await door.flood(1, OTHER, user_id="bob") == [TAKEN]
    assert await door.taken() == 4


async def test_a_source_sends_so_many_and_no_more(make_door: Callable[..., Door]) -> None:
    """A source is limited by whichever key it speaks; others of the same key are not held back."""
    door = make_door(source=burst(3))
    assert await door.flood(2, SHOP, user_id="ada") == [TAKEN] * 2
    assert await door.flood(2, OTHER, user_id="ada") == [TAKEN, LIMITED]
    assert await door.flood(1, SHOP, user_id="bob") == [TAKEN]
    assert await door.flood(4, SHOP) == [TAKEN] * 4, "a key that names nobody is no source"


async def test_what_one_limit_refuses_costs_the_other_nothing(
    make_door: Callable[..., Door],
) -> None:
    """A source that is over its limit does not use up what its key may send."""
    door = make_door(key=burst(3), source=burst(1))
    assert await door.flood(20, user_id="ada") == [TAKEN] + [LIMITED] * 19
    assert await door.flood(1, user_id="bob") == [TAKEN]
    receipt = await door.say(await door.predict(), user_id="eve")
    assert [(s.limit.of, s.left) for s in receipt.standings] == [("key", 0), ("source", 0)]


async def test_each_model_counts_for_itself(make_door: Callable[..., Door]) -> None:
    """Limits are a model's own: what is sent to one leaves the other's untouched."""
    door = make_door(key=burst(1))
    assert await door.flood(2) == [TAKEN, LIMITED]
    assert (await door.say(await door.predict("topic"))).status == TAKEN


async def test_the_application_itself_is_not_limited(make_door: Callable[..., Door]) -> None:
    """In one process nobody is kept out, and there is nothing to tell of limits."""
    door = make_door(key=burst(1), source=burst(1))
    assert await door.flood(5, LOCAL, user_id="ada") == [TAKEN] * 5
    receipt = await door.say(await door.predict(), LOCAL)
    assert receipt.headers == {}


async def test_the_loop_is_not_limited(
    open_loop: Callable[..., Awaitable[Loop]], make_settings: Callable[..., Settings]
) -> None:
    """Through the loop, every signal is taken."""
    loop = await open_loop(make_settings(web={"limits": limits(key=burst(1), source=burst(1))}))
    for _ in range(5):
        answer = await loop.predict("web", {"a": 1.0})
        receipt = await loop.feedback(answer["prediction_id"], "thumbs", value=True, user_id="ada")
        assert receipt.status == TAKEN


# --- across processes -------------------------------------------------------------------------


@pytest.mark.parametrize(("of", "fields"), [("key", {}), ("source", {"user_id": "ada"})])
async def test_processes_share_the_limits(
    make_door: Callable[..., Door],
    second_store: Store,
    keyring: Keyring,
    of: str,
    fields: dict[str, Any],
) -> None:
    """Sixty signals at once by two processes: exactly twenty are taken, as the limit says."""
    one = make_door(**{of: burst(20)})
    doors = [one, Door(second_store, keyring, **{of: burst(20)})]
    ids = [await one.predict() for _ in range(60)]
    calls = [doors[n % 2].say(id_, **fields) for n, id_ in enumerate(ids)]
    replies = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(reply, Receipt) for reply in replies) == 20
    assert sum(isinstance(reply, RateLimited) for reply in replies) == 40
    assert await one.taken() == 20


async def test_what_was_sent_leaks_out_by_the_servers_clock(
    make_door: Callable[..., Door],
) -> None:
    """A burst of 5 lets through 5 at once, and then 40 a second, not more."""
    door = make_door(key=burst(5, rate=40.0))
    door.ingest.clock = lambda: time.time() + 1000.0  # what a replica believes does not matter
    taken, started = 0, time.monotonic()
    while taken < 25:
        assert time.monotonic() - started < 10
        try:
            taken += (await door.say(await door.predict())).status == TAKEN
        except RateLimited:
            await asyncio.sleep(0.005)
    assert taken <= 5 + 40 * (time.monotonic() - started) + 1


async def test_nothing_is_kept_of_whoever_is_quiet(make_door: Callable[..., Door]) -> None:
    """The state of a limit lives until all of its burst is free again, and not longer."""
    door = make_door(key=burst(10, rate=0.1), source=burst(100, rate=0.5))
    await door.flood(4, user_id="ada")
    lives = [
        await door.store.call("PTTL", Keys("web").rate(of, name))
        for of, name in (("key", "shop"), ("source", "human:ada"))
    ]
    assert 30_000 < lives[0] <= 40_000
    assert 0 < lives[1] <= 8_000


@pytest.mark.parametrize("change", ["lowered", "clock set back", "nonsense"])
async def test_nobody_is_shut_out_by_what_was_before(
    make_door: Callable[..., Door], change: str
) -> None:
    """A lower limit or an odd clock costs one burst at most, and never shuts anyone out."""
    door, key = make_door(key=burst(1000, rate=1.0)), Keys("web").rate("key", "shop")
    assert await door.flood(1) == [TAKEN]
    now = int("".join(f"{int(part):06}" for part in await door.store.call("TIME")))
    if change == "lowered":
        await door.store.call("SET", key, f"900 {now}")
        door = make_door(key=burst(5))
        with pytest.raises(RateLimited) as caught:
            await door.say(await door.predict())
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s <= 1 / SLOW
    else:
        ahead = f"5 {now + 3600 * 10**6}"
        await door.store.call("SET", key, ahead if change == "clock set back" else "x")
        door = make_door(key=burst(5))
        assert await door.flood(6) == [TAKEN] * 5 + [LIMITED]


async def test_a_damaged_limit_lets_nothing_half_through(make_door: Callable[..., Door]) -> None:
    """Where the store holds something else in its place, the signal is refused as a whole."""
    door = make_door(source=burst(5), key=burst(5))
    prediction_id = await door.predict()
    await door.store.call("RPUSH", Keys("web").rate("source", "human:ada"), "x")
    before = sorted(await door.store.call("KEYS", "*"))
    with pytest.raises(Unavailable, match="refused the signal"):
        await door.say(prediction_id, user_id="ada", idempotency_key="k")
    assert sorted(await door.store.call("KEYS", "*")) == before
    assert (await door.say(prediction_id, user_id="bob", idempotency_key="k")).status == TAKEN


# --- what counts ------------------------------------------------------------------------------


async def test_what_is_not_taken_costs_nothing(make_door: Callable[..., Door]) -> None:
    """Duplicates, with a key and without, dry runs and whatever is refused are free."""
    door = make_door(key=burst(4))
    prediction_id = await door.predict()
    assert (await door.say(prediction_id)).status == TAKEN
    assert (await door.say(prediction_id, idempotency_key="k", value=False)).status == TAKEN
    for _ in range(5):
        assert (await door.say(prediction_id, idempotency_key="k", value=False)).status != TAKEN
        assert (await door.say(prediction_id, value=False)).status == "duplicate"
        assert (await door.say(prediction_id, dry_run=True, value=True)).status == TAKEN
        for wrong in ({"model_version": 9}, {"idempotency_key": "k", "comment": "other"}):
            with pytest.raises(Invalid):
                await door.say(prediction_id, **wrong)
    assert await door.flood(3) == [TAKEN, TAKEN, LIMITED]


async def test_a_duplicate_is_told_so_by_whoever_is_over_the_limit(
    make_door: Callable[..., Door],
) -> None:
    """A retry of what was taken is never refused: else its sender could not learn that it was."""
    door = make_door(key=burst(1))
    prediction_id = await door.predict()
    first = await door.say(prediction_id, idempotency_key="k")
    assert await door.flood(1) == [LIMITED]
    for fields in ({"idempotency_key": "k"}, {}):
        again = await door.say(prediction_id, **fields)
        assert (again.status, again.feedback_id) == ("duplicate", first.feedback_id)


async def test_a_refused_signal_leaves_no_trace(make_door: Callable[..., Door]) -> None:
    """No entry, no mark, no key spent: what is sent again later is new."""
    door = make_door(key=burst(1))
    assert await door.flood(1) == [TAKEN]
    prediction_id = await door.predict()
    before = sorted(await door.store.call("KEYS", "*"))
    with pytest.raises(RateLimited):
        await door.say(prediction_id, idempotency_key="k")
    assert sorted(await door.store.call("KEYS", "*")) == before
    await door.store.call("DEL", Keys("web").rate("key", "shop"))
    assert (await door.say(prediction_id, idempotency_key="k")).status == TAKEN


async def test_each_signal_of_a_payload_counts(make_door: Callable[..., Door]) -> None:
    """Two in one payload are two; where only one is left, neither is taken."""
    door = make_door(key=burst(3))
    receipt = await door.say(await door.predict(), signals=BOTH)
    [standing] = receipt.standings
    assert standing.left == 1
    with pytest.raises(RateLimited):
        await door.say(await door.predict(), signals=BOTH)
    assert await door.taken() == 2
    assert await door.flood(2) == [TAKEN, LIMITED]


async def test_what_can_never_be_taken_is_not_promised_for_later(
    make_door: Callable[..., Door],
) -> None:
    """More signals in one payload than a burst holds: 422 that says so, and no `Retry-After`."""
    door = make_door(source=burst(1))
    with pytest.raises(Invalid, match=r"at most 1 .*limits\.per_source") as caught:
        await door.say(await door.predict(), signals=BOTH, user_id="ada")
    assert caught.value.errors[0]["pointer"] == "/signals"
    assert await door.taken() == 0


async def test_a_refusal_says_when_it_would_be_taken(make_door: Callable[..., Door]) -> None:
    """The wait is right: a while before its end the signal is refused, at its end it is taken."""
    door, key = make_door(key=burst(4)), Keys("web").rate("key", "shop")
    assert await door.flood(4) == [TAKEN] * 4
    with pytest.raises(RateLimited, match=r"0\.01 signals a second, and 4 at once") as caught:
        await door.say(await door.predict(), signals=BOTH)
    wait_s = caught.value.retry_after_s
    assert wait_s is not None
    assert 150 < wait_s <= 200

    async def rewind(seconds: float) -> None:
        spent, moment = (await door.store.call("GET", key)).decode().split()
        await door.store.call("SET", key, f"{spent} {int(moment) - int(seconds * 1e6)}")

    await rewind(wait_s - 20)
    with pytest.raises(RateLimited):
        await door.say(await door.predict(), signals=BOTH)
    await rewind(20)
    assert (await door.say(await door.predict(), signals=BOTH)).status == TAKEN


# --- over HTTP --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a service on which nobody says much."""
    few = {"limits": limits(key=burst(40), source=burst(3, rate=0.25))}
    return start_service(web=few, topic={}, rent={"limits": limits()})


def thumbs(http: httpx2.Client, model: str = "web", **fields: Any) -> dict[str, Any]:
    """Ask for an answer, and return a body of feedback on it."""
    answer = http.post(f"/v1/models/{model}/predict", json={"features": {"x": 1.0}}).json()
    return {"prediction_id": answer["prediction_id"], "kind": "thumbs", "value": True, **fields}


def parsed(field: str) -> dict[str, dict[str, int]]:
    """Return what a `RateLimit` field says, by the name of the limit."""
    items = [item.split(";") for item in field.split(", ")]
    return {
        name.strip('"'): {key: int(value) for key, value in (p.split("=") for p in parameters)}
        for name, *parameters in items
    }


def test_whoever_sends_is_told_where_they_stand(http: httpx2.Client) -> None:
    """Accepted signals, duplicates and refusals carry the fields; the numbers are right."""
    body = thumbs(http, user_id="told")
    first, again = (http.post("/v1/feedback", json=body) for _ in range(2))
    assert [reply.json()["status"] for reply in (first, again)] == [TAKEN, "duplicate"]
    for reply in (first, again):
        policy = parsed(reply.headers["ratelimit-policy"])
        assert policy == {"key": {"q": 40, "w": 4000}, "source": {"q": 3, "w": 12}}
        left = parsed(reply.headers["ratelimit"])
        assert left["source"]["r"] == 2
        assert 1 <= left["source"]["t"] <= 4
        assert left["key"].keys() == {"r", "t"}
    wrong = http.post("/v1/feedback", json=thumbs(http, user_id="told", model_version=99))
    assert wrong.status_code == 422
    assert parsed(wrong.headers["ratelimit"])["source"]["r"] == 2


def test_whoever_sends_too_much_is_told_when_to_come_back(http: httpx2.Client) -> None:
    """A complete 429 that may be repeated, with the seconds until it would be taken."""
    for _ in range(3):
        assert http.post("/v1/feedback", json=thumbs(http, user_id="loud")).status_code == 202
    reply = http.post("/v1/feedback", json=thumbs(http, user_id="loud"))
    assert reply.status_code == 429
    assert reply.headers["content-type"] == "application/problem+json"
    body = reply.json()
    assert (body["code"], body["retryable"]) == (LIMITED, True)
    assert 1 <= int(reply.headers["retry-after"]) <= 4
    assert f"in {reply.headers['retry-after']} s" in body["detail"]
    assert "loud" not in reply.text
    left = parsed(reply.headers["ratelimit"])["source"]
    assert left["r"] == 0
    assert 8 <= left["t"] <= 12


def test_items_of_a_batch_are_limited_one_by_one(http: httpx2.Client) -> None:
    """What is over the limit is a 429 in its place, and all else is taken."""
    users = ["many", "many", "one", "many", "many", "one"]
    items = [thumbs(http, user_id=user) for user in users]
    reply = http.post("/v1/feedback_batch", json={"items": items})
    assert reply.status_code == 202
    body = reply.json()
    assert (body["accepted"], body["duplicates"], body["rejected"]) == (5, 0, 1)
    refused = body["results"][4]
    assert (refused["status"], refused["code"], refused["retryable"]) == (429, LIMITED, True)
    assert parsed(reply.headers["ratelimit"])["source"]["r"] == 0
    again = http.post("/v1/feedback_batch", json={"items": items}).json()
    assert (again["accepted"], again["duplicates"], again["rejected"]) == (0, 5, 1)


def test_a_batch_of_which_nothing_is_taken_is_refused_as_a_whole(http: httpx2.Client) -> None:
    """A client that only looks at the status comes back later."""
    items = [thumbs(http, user_id="whole") for _ in range(5)]
    assert http.post("/v1/feedback_batch", json={"items": items}).json()["accepted"] == 3
    reply = http.post("/v1/feedback_batch", json={"items": items[3:]})
    assert reply.status_code == 429
    assert int(reply.headers["retry-after"]) >= 1
    assert parsed(reply.headers["ratelimit"])["source"]["r"] == 0


def test_by_default_people_and_shops_are_not_in_the_way(http: httpx2.Client) -> None:
    """The limits that hold where none are set are told, and far off."""
    reply = http.post("/v1/feedback", json=thumbs(http, "topic", user_id="ada"))
    policy = parsed(reply.headers["ratelimit-policy"])
    assert policy == {"key": {"q": 40_000, "w": 2}, "source": {"q": 1000, "w": 10}}


def test_where_nothing_is_limited_nothing_is_told(http: httpx2.Client) -> None:
    """No limit, no fields."""
    reply = http.post("/v1/feedback", json=thumbs(http, "rent", user_id="ada"))
    assert reply.status_code == 202
    assert not [name for name in reply.headers if name.startswith("ratelimit")]
