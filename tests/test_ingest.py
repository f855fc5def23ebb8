"""Ingest: each signal is taken exactly once or refused with a reason, and joined to its answer."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from online_learner.errors import Invalid, NotFound, ServiceError, Unavailable, WindowClosed
from online_learner.ids import Address, Keyring
from online_learner.ingest import GROUP_MAX, Ingest, Receipt
from online_learner.ingest.admit import Admission, target_value
from online_learner.ingest.speaker import Speaker
from online_learner.journal import Journal
from online_learner.loop import Loop
from online_learner.requests import read_feedback
from online_learner.schema import Feedback, Prediction
from online_learner.settings import ModelSpec, Settings
from online_learner.stages import make_rules, make_signals
from online_learner.store import Store, open_store
from online_learner.store.keys import Keys

FOREVER_S = 3600.0
WEB = ModelSpec(task="classification", learner="a:b", labels=[False, True])
TOPIC = ModelSpec(task="classification", learner="a:b", labels=None)
RENT = ModelSpec(task="regression", learner="a:b")
PAGES = ModelSpec(task="ranking", learner="a:b")
LLM = ModelSpec(task="generation", learner="a:b")
MODELS = {"web": WEB, "topic": TOPIC, "rent": RENT, "pages": PAGES, "llm": LLM}
ADMISSIONS = {
    name: Admission(spec, make_signals(spec), make_rules(spec)) for name, spec in MODELS.items()
}


class Door:
    """An `Ingest` with the journal of each model beside it."""

    def __init__(self, store: Store, keyring: Keyring, clock: Callable[[], float]) -> None:
        self.store = store
        self.keyring = keyring
        self.ingest = Ingest(store, keyring, ADMISSIONS, FOREVER_S, clock=clock)

    async def predict(self, model: str = "web", **fields: Any) -> str:
        """Log an answer; returns its id."""
        known = {"features": {"a": 1.0}, "output": True, "version": 3, "lineage": 1, "step": 0}
        record = Prediction(model=model, **(known | fields))
        [address] = await Journal(self.store, model, window_s=FOREVER_S).append([record])
        return self.keyring.seal("prediction", model, address)

    async def say(self, prediction_id: str, *said: Any, **fields: Any) -> Receipt:
        """Send one signal: `kind, value`, or thumbs up.

        `speaker` and `key` are the request's, all other fields the body's.
        """
        request = {name: fields.pop(name) for name in ("speaker", "key") if name in fields}
        body = {"prediction_id": prediction_id, "kind": "thumbs", "value": True}
        body |= dict(zip(("kind", "value"), said, strict=False)) | fields
        return await self.ingest.accept(read_feedback(body), **request)

    async def say_all(
        self, prediction_id: str, signals: list[dict[str, Any]], **fields: Any
    ) -> Receipt:
        """Send several signals in one payload."""
        body = {"prediction_id": prediction_id, "signals": signals, **fields}
        return await self.ingest.accept(read_feedback(body))

    async def taken(self, model: str = "web") -> list[dict[bytes, bytes]]:
        """Return the entries of the feedback stream."""
        return [fields for _, fields in await self.store.range(Keys(model).feedback)]


@pytest.fixture
def door(store: Store, keyring: Keyring, clock: Callable[[], float]) -> Door:
    """Return a door on the empty server."""
    return Door(store, keyring, clock)


async def outcomes(*calls: Awaitable[Receipt]) -> list[str]:
    """Return the status or the error's code of calls that run at once."""
    replies = await asyncio.gather(*calls, return_exceptions=True)
    return [
        reply.code if isinstance(reply, ServiceError) else reply.status  # type: ignore[union-attr]
        for reply in replies
    ]


# --- taken ------------------------------------------------------------------------------------


async def test_a_signal_is_joined_to_its_answer(door: Door) -> None:
    """The entry holds the signal, the address of the prediction and its very record."""
    prediction_id = await door.predict(session_id="s")
    receipt = await door.say(
        prediction_id,
        user_id="ada",
        comment="ü\0",
        reasons=["slow"],
        tags={"b": "1", "a": "2"},
        interface={"id": "page", "position": 2},
        observed_at="2026-01-01T00:00:00Z",
    )
    [(entry, fields)] = await door.store.range(Keys("web").feedback)
    [(answered, record)] = await door.store.range(Keys("web").predictions)
    assert fields[b"p"].decode() == answered
    assert fields[b"r"] == record[b"r"]
    assert b"s" not in fields
    said = Feedback.model_validate_json(fields[b"f"])
    assert (said.kind, said.value, said.source) == ("thumbs", True, "human:ada")
    assert (said.prediction_id, said.comment, said.reasons) == (prediction_id, "ü\0", ["slow"])
    assert said.tags == {"a": "2", "b": "1"}
    assert said.interface == {"id": "page", "variant": None, "position": 2}
    assert said.observed_at == "2026-01-01T00:00:00Z"
    _, address = door.keyring.open("feedback", receipt.feedback_id or "")
    assert address.entry == entry
    assert address.nonce == fields[b"n"].decode()


async def test_the_receipt_says_what_became_of_it(door: Door) -> None:
    """Ids, model, status and durability, as the client gets them."""
    door.ingest.durability = "fsynced"
    prediction_id = await door.predict()
    receipt = await door.say(prediction_id)
    assert receipt.render() == {
        "feedback_id": receipt.feedback_id,
        "prediction_id": prediction_id,
        "model": "web",
        "status": "accepted",
        "durability": "fsynced",
    }


async def test_the_loop_hands_on_what_the_store_promises(loop: Loop) -> None:
    """Through the loop, a receipt carries the durability class of the server."""
    answer = await loop.predict("web", {"a": 1.0})
    receipt = await loop.feedback(answer["prediction_id"], "thumbs", value=True)
    assert (receipt.status, receipt.durability) == ("accepted", "fsynced")


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        ({}, "key:k1"),
        ({"user_id": "ada"}, "human:ada"),
        ({"source": {"id": "ada"}}, "human:ada"),
        ({"source": {"type": "system", "id": "rules"}}, "system:rules"),
        ({"source": {"type": "model", "id": "judge"}, "user_id": "ada"}, "model:judge"),
    ],
)
def test_who_says_it(fields: dict[str, Any], source: str) -> None:
    """The source of the body, else its user, else the API key itself."""
    body = {"prediction_id": "x", "kind": "thumbs", "value": True, **fields}
    assert Speaker("k1").source(read_feedback(body), None, "1-0") == source


# --- once -------------------------------------------------------------------------------------


async def test_the_same_key_and_body_is_a_duplicate(door: Door) -> None:
    """A retry gets the first receipt again, and nothing is appended."""
    prediction_id = await door.predict()
    fields = {"idempotency_key": "k", "comment": "c", "tags": {"a": "1", "b": "2"}}
    first = await door.say(prediction_id, **fields)
    again = await door.say(prediction_id, **(fields | {"tags": {"b": "2", "a": "1"}}))
    assert (first.status, again.status) == ("accepted", "duplicate")
    assert again.feedback_id == first.feedback_id
    assert len(await door.taken()) == 1


@pytest.mark.parametrize(
    "change", [{"value": False}, {"comment": "d"}, {"user_id": "bob"}, {"tags": {"a": "b"}}]
)
async def test_the_same_key_with_another_body_is_refused(
    door: Door, change: dict[str, Any]
) -> None:
    """A key stands for one body: 422 with its own code, and nothing is appended."""
    prediction_id = await door.predict()
    fields = {"value": True, "comment": "c", "user_id": "ada", "idempotency_key": "k"}
    await door.say(prediction_id, **fields)
    with pytest.raises(Invalid) as caught:
        await door.say(prediction_id, **(fields | change))
    assert caught.value.code == "idempotency_key_reused"
    assert caught.value.errors[0]["pointer"] == "/idempotency_key"
    assert len(await door.taken()) == 1


async def test_a_key_is_not_moved_to_another_prediction(door: Door) -> None:
    """The prediction is part of the body that the key stands for."""
    one, other = await door.predict(), await door.predict()
    await door.say(one, idempotency_key="k")
    assert await outcomes(door.say(other, idempotency_key="k")) == ["idempotency_key_reused"]


async def test_idempotency_keys_belong_to_an_api_key_and_a_model(door: Door) -> None:
    """Two clients, or one client on two models, may use the same key."""
    web, topic = await door.predict(), await door.predict("topic")
    for name in ("k1", "k2"):
        for prediction_id in (web, topic):
            receipt = await door.say(prediction_id, speaker=Speaker(name), idempotency_key="k")
            assert receipt.status == "accepted"
    assert len(await door.taken()) == 2
    assert len(await door.taken("topic")) == 2


async def test_the_header_is_a_key_where_the_body_has_none(door: Door) -> None:
    """Body and header mean the same; the body wins."""
    prediction_id = await door.predict()
    await door.say(prediction_id, key="k")
    assert await outcomes(door.say(prediction_id, idempotency_key="k")) == ["duplicate"]
    assert await outcomes(door.say(prediction_id, key="k")) == ["duplicate"]
    other = door.say(prediction_id, value=False, key="k", idempotency_key="k2")
    assert await outcomes(other) == ["accepted"]


async def test_without_a_key_the_same_signal_is_a_duplicate(door: Door) -> None:
    """Who presses the same button twice has said it once, whatever the comment."""
    prediction_id = await door.predict()
    first = await door.say(prediction_id)
    again = await door.say(prediction_id, comment="really")
    assert (first.status, again.status) == ("accepted", "duplicate")
    assert again.feedback_id == first.feedback_id
    assert len(await door.taken()) == 1


async def test_without_a_key_another_value_supersedes(door: Door) -> None:
    """Changing one's mind is appended each time, and names what it replaces."""
    prediction_id = await door.predict()
    for value in (True, False, True):
        assert (await door.say(prediction_id, value=value)).status == "accepted"
    entries = [entry for entry, _ in await door.store.range(Keys("web").feedback)]
    found = [fields.get(b"s", b"").decode() for fields in await door.taken()]
    assert found == ["", entries[0], entries[1]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"user_id": "ada"}, {"user_id": "bob"}),
        ({"user_id": "ada"}, {"source": {"type": "system", "id": "ada"}}),
        ({"speaker": Speaker("k1")}, {"speaker": Speaker("k2")}),
        ({}, {"kind": "correction"}),
        ({"user_id": "a|b"}, {"user_id": "a"}),
        ({"user_id": "a\0b"}, {"user_id": "a"}),
        ({"idempotency_key": "k1"}, {"idempotency_key": "k2"}),
    ],
)
async def test_what_is_said_by_others_or_otherwise_is_no_duplicate(
    door: Door, one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Another source, another kind and another key are signals of their own."""
    prediction_id = await door.predict()
    assert (await door.say(prediction_id, **one)).status == "accepted"
    assert (await door.say(prediction_id, **other)).status == "accepted"
    assert len(await door.taken()) == 2


async def test_equal_values_of_different_types_are_different(door: Door) -> None:
    """`true`, 1 and "1" are three labels; each corrects the one before."""
    prediction_id = await door.predict("topic")
    for value in (True, 1, "1", "true"):
        assert (await door.say(prediction_id, "correction", value)).status == "accepted"
    values = [Feedback.model_validate_json(f[b"f"]).value for f in await door.taken("topic")]
    assert [repr(value) for value in values] == ["True", "1", "'1'", "'true'"]


async def test_numbers_are_compared_as_numbers(door: Door) -> None:
    """For a model that answers with numbers, 3 and 3.0 are the same correction."""
    prediction_id = await door.predict("rent")
    assert (await door.say(prediction_id, "correction", 3)).status == "accepted"
    assert (await door.say(prediction_id, "correction", 3.0)).status == "duplicate"


async def test_a_duplicate_is_known_to_every_process(
    door: Door, keyring: Keyring, clock: Callable[[], float]
) -> None:
    """What was taken is remembered in the store, not in the process that took it."""
    prediction_id = await door.predict()
    await door.say(prediction_id, idempotency_key="k")
    async with await open_store(door.store.url) as store:
        other = Door(store, keyring, clock)
        assert (await other.say(prediction_id, idempotency_key="k")).status == "duplicate"
        assert (await other.say(prediction_id)).status == "duplicate"


async def test_what_was_taken_is_remembered_as_long_as_feedback_is_taken(
    door: Door, clock: Any
) -> None:
    """The marks live to the end of the prediction's window, and not much longer."""
    prediction_id = await door.predict()
    clock.advance(FOREVER_S / 2)
    await door.say(prediction_id, idempotency_key="k")
    marks = await door.store.call("KEYS", "*:s[ea][ei]*")
    assert len(marks) == 2
    for mark in marks:
        assert FOREVER_S / 2 - 5 < await door.store.call("TTL", mark) <= FOREVER_S / 2 + 2


# --- races ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"idempotency_key": "k"}])
async def test_of_fifty_equal_signals_at_once_one_is_taken(
    door: Door, keyring: Keyring, clock: Callable[[], float], fields: dict[str, Any]
) -> None:
    """Two processes get the same signal twenty-five times each: one is accepted, 49 are not."""
    prediction_id = await door.predict()
    async with await open_store(door.store.url) as store:
        doors = [door, Door(store, keyring, clock)]
        receipts = await asyncio.gather(
            *(doors[n % 2].say(prediction_id, **fields) for n in range(50))
        )
    assert sorted(r.status for r in receipts) == ["accepted"] + ["duplicate"] * 49
    assert len({receipt.feedback_id for receipt in receipts}) == 1
    assert len(await door.taken()) == 1


async def test_of_fifty_bodies_with_one_key_one_is_taken(door: Door) -> None:
    """Whoever comes first has the key; all others are told so."""
    prediction_id = await door.predict()
    calls = [door.say(prediction_id, comment=str(n), idempotency_key="k") for n in range(50)]
    assert sorted(await outcomes(*calls)) == ["accepted"] + ["idempotency_key_reused"] * 49
    assert len(await door.taken()) == 1


async def test_fifty_people_at_once_are_all_heard(door: Door) -> None:
    """Signals of different sources do not get into each other's way."""
    prediction_id = await door.predict()
    calls = [door.say(prediction_id, user_id=f"user{n}") for n in range(50)]
    assert await outcomes(*calls) == ["accepted"] * 50
    sources = {Feedback.model_validate_json(f[b"f"]).source for f in await door.taken()}
    assert sources == {f"human:user{n}" for n in range(50)}


async def test_changes_of_mind_at_once_form_one_chain(door: Door) -> None:
    """Of fifty alternating signals each taken one names its predecessor: none is lost between."""
    prediction_id = await door.predict("rent")
    calls = [door.say(prediction_id, "correction", n) for n in range(50)]
    assert await outcomes(*calls) == ["accepted"] * 50
    entries = [entry for entry, _ in await door.store.range(Keys("rent").feedback)]
    found = [fields.get(b"s", b"").decode() for fields in await door.taken("rent")]
    assert found == ["", *entries[:-1]]


async def test_more_signals_than_a_group_holds_are_all_taken(door: Door) -> None:
    """Groups are a matter of round trips, not of limits."""
    prediction_id = await door.predict("rent")
    count = 2 * GROUP_MAX + 1
    calls = [door.say(prediction_id, "correction", n, user_id=str(n)) for n in range(count)]
    assert await outcomes(*calls) == ["accepted"] * count
    assert len(await door.taken("rent")) == count


# --- several at once --------------------------------------------------------------------------

BOTH: list[dict[str, Any]] = [
    {"kind": "thumbs", "value": False},
    {"kind": "correction", "value": True},
]


async def test_several_signals_are_taken_together(door: Door) -> None:
    """Each is an entry of its own with an id of its own, and they share what was said beside."""
    prediction_id = await door.predict()
    receipt = await door.say_all(prediction_id, BOTH, user_id="ada", comment="c")
    found = [Feedback.model_validate_json(fields[b"f"]) for fields in await door.taken()]
    assert [(said.kind, said.value) for said in found] == [("thumbs", False), ("correction", True)]
    assert {(said.source, said.comment) for said in found} == {("human:ada", "c")}
    body = receipt.render()
    assert [(s["kind"], s["status"]) for s in body["signals"]] == [
        ("thumbs", "accepted"),
        ("correction", "accepted"),
    ]
    entries = [entry for entry, _ in await door.store.range(Keys("web").feedback)]
    ids = [str(signal["feedback_id"]) for signal in body["signals"]]
    assert [door.keyring.open("feedback", id_)[1].entry for id_ in ids] == entries
    assert body["feedback_id"] == ids[0]


@pytest.mark.parametrize(
    ("wrong", "pointer", "code"),
    [
        ({"kind": "correction", "value": "true"}, "/signals/2/value", "invalid_value"),
        ({"kind": "selection", "value": "maybe"}, "/signals/2/value", "not_served"),
        ({"kind": "ranking", "value": ["a", "b"]}, "/signals/2/kind", "kind_not_applicable"),
    ],
)
async def test_one_wrong_signal_of_several_refuses_all(
    door: Door, wrong: dict[str, Any], pointer: str, code: str
) -> None:
    """All are taken or none: the wrong one is named, nothing is written, no key is spent."""
    prediction_id = await door.predict()
    with pytest.raises(Invalid) as caught:
        await door.say_all(prediction_id, [*BOTH, wrong], idempotency_key="k")
    assert (caught.value.errors[0]["pointer"], caught.value.code) == (pointer, code)
    assert await door.taken() == []
    assert (await door.say_all(prediction_id, BOTH, idempotency_key="k")).status == "accepted"


async def test_a_comment_on_several_signals_is_refused_once(
    store: Store, keyring: Keyring, clock: Callable[[], float]
) -> None:
    """A rule on comments points at the payload's comment, not at a signal in it."""
    card = {"rule": "personal_data", "kinds": ["card"], "on": ["feedback"], "severity": "block"}
    spec = WEB.model_copy(update={"rules": [card]})
    door = Door(store, keyring, clock)
    door.ingest.admissions = {"web": Admission(spec, make_signals(spec), make_rules(spec))}
    prediction_id = await door.predict()
    with pytest.raises(Invalid) as caught:
        await door.say_all(prediction_id, BOTH, comment="4111 1111 1111 1111")
    [place] = caught.value.errors
    assert (place["pointer"], place["code"]) == ("/comment", "blocked_by_rule")


async def test_a_retry_is_known_when_the_rules_have_changed(
    store: Store, keyring: Keyring, clock: Callable[[], float]
) -> None:
    """What the rules of the moment say of a comment is no part of what an idempotency key names."""
    door = Door(store, keyring, clock)
    fields = {"comment": "4111 1111 1111 1111", "idempotency_key": "k"}
    prediction_id = await door.predict()
    first = await door.say(prediction_id, **fields)
    spec = WEB.model_copy(update={"rules": [{"rule": "personal_data"}]})
    door.ingest.admissions = {"web": Admission(spec, make_signals(spec), make_rules(spec))}
    again = await door.say(prediction_id, **fields)
    assert (again.status, again.feedback_id) == ("duplicate", first.feedback_id)


async def test_a_retry_about_a_session_is_known_when_the_session_has_gone_on(door: Door) -> None:
    """The key names what was sent: the receipt is that of the first time, about the same answer."""
    first = await door.predict(session_id="s")
    body = {"model": "web", "session_id": "s", "kind": "thumbs", "value": True}
    request = read_feedback(body | {"idempotency_key": "k"})
    one = await door.ingest.accept(request)
    await door.predict(session_id="s")
    again = await door.ingest.accept(request)
    assert one.prediction_id == first
    assert again == replace(one, status="duplicate")
    other = read_feedback(body | {"session_id": "t", "idempotency_key": "k"})
    await door.predict(session_id="t")
    with pytest.raises(Invalid, match="used before"):
        await door.ingest.accept(other)


async def test_a_retry_is_known_though_the_session_was_shown_something_else(door: Door) -> None:
    """What was right of the answer of that time is not held against the latest one."""
    first = await door.predict("pages", **SHOWN, session_id="s")
    body = {"model": "pages", "session_id": "s", "kind": "selection", "value": "a"}
    request = read_feedback(body | {"idempotency_key": "k"})
    one = await door.ingest.accept(request)
    options = [{"id": name, "features": {}} for name in ("x", "y")]
    await door.predict("pages", options=options, output=["x", "y"], session_id="s")
    again = await door.ingest.accept(request)
    assert one.prediction_id == first
    assert again == replace(one, status="duplicate")
    with pytest.raises(Invalid):
        await door.ingest.accept(read_feedback(body | {"idempotency_key": "another"}))
    with pytest.raises(Invalid, match="used before"):
        await door.ingest.accept(read_feedback(body | {"value": "b", "idempotency_key": "k"}))


async def test_a_retry_of_several_signals_gets_all_receipts_again(door: Door) -> None:
    """With a key, and without one, the ids are those of the first time, in the same order."""
    prediction_id = await door.predict()
    first = await door.say_all(prediction_id, BOTH, idempotency_key="k")
    for fields in ({"idempotency_key": "k"}, {}):
        again = await door.say_all(prediction_id, BOTH, **fields)
        assert again.status == "duplicate"
        assert [s["feedback_id"] for s in again.signals] == [
            s["feedback_id"] for s in first.signals
        ]
        assert {s["status"] for s in again.signals} == {"duplicate"}
    assert len(await door.taken()) == 2
    turned = door.say_all(prediction_id, BOTH[::-1], idempotency_key="k")
    assert await outcomes(turned) == ["idempotency_key_reused"]


async def test_what_is_new_of_several_is_taken(door: Door) -> None:
    """Without a key, each signal is known or new by itself, and the receipt says which."""
    prediction_id = await door.predict()
    first = await door.say(prediction_id, "thumbs", False)
    receipt = await door.say_all(prediction_id, BOTH)
    assert receipt.status == "accepted"
    assert [signal["status"] for signal in receipt.signals] == ["duplicate", "accepted"]
    assert receipt.signals[0]["feedback_id"] == first.feedback_id
    assert len(await door.taken()) == 2


async def test_the_last_of_two_equal_kinds_stands(door: Door) -> None:
    """Who says two things of one kind in one payload has changed their mind within it."""
    prediction_id = await door.predict()
    said = [{"kind": "thumbs", "value": value} for value in (True, False)]
    await door.say_all(prediction_id, said)
    (first, _), (_, second) = await door.store.range(Keys("web").feedback)
    assert second[b"s"].decode() == first


async def test_several_signals_can_be_rehearsed(door: Door) -> None:
    """A dry run checks all of them, and writes none."""
    prediction_id = await door.predict()
    assert (await door.say_all(prediction_id, BOTH, dry_run=True)).signals == ()
    wrong = [*BOTH, {"kind": "rating", "value": 9}]
    assert await outcomes(door.say_all(prediction_id, wrong, dry_run=True)) == ["invalid_value"]
    assert await door.taken() == []


@pytest.mark.parametrize("fields", [{}, {"idempotency_key": "k"}])
async def test_of_many_equal_payloads_at_once_one_is_taken(
    door: Door, fields: dict[str, Any]
) -> None:
    """Payloads do not come apart in a race: one is accepted whole, the others are duplicates."""
    prediction_id = await door.predict()
    calls = [door.say_all(prediction_id, BOTH, **fields) for _ in range(20)]
    receipts = await asyncio.gather(*calls)
    assert sorted(r.status for r in receipts) == ["accepted"] + ["duplicate"] * 19
    assert len({tuple(s["feedback_id"] for s in r.signals) for r in receipts}) == 1
    assert len(await door.taken()) == 2


# --- what takes the place of what -------------------------------------------------------------

SHOWN: dict[str, Any] = {
    "output": ["a", "b", "c"],
    "options": [{"id": name} for name in "abc"],
}
CLICK: dict[str, Any] = {"kind": "implicit", "event": "click"}


def pair(chosen: str, rejected: str) -> dict[str, Any]:
    """Return a preference."""
    return {"kind": "preference", "chosen": chosen, "rejected": rejected}


@pytest.mark.parametrize(
    ("said", "superseded"),
    [
        ([pair("a", "b"), pair("b", "a")], [None, 0]),
        ([pair("a", "b"), pair("b", "c"), pair("a", "c")], [None, None, None]),
        ([pair("a", "b"), pair("b", "c"), pair("b", "a"), pair("c", "b")], [None, None, 0, 1]),
        ([CLICK, CLICK | {"event": "purchase"}], [None, None]),
        ([CLICK | {"event": "dwell", "value": v} for v in (3, 9)], [None, 0]),
        ([{"kind": "flag", "rule": rule} for rule in ("toxic", "stale")], [None, None]),
        ([{"kind": "flag", "rule": "r", "severity": s} for s in ("note", "warn")], [None, 0]),
        ([{"kind": "rating", "value": 3, "scale": s} for s in ([1, 5], [0, 10])], [None, 0]),
        ([{"kind": "selection", "value": v} for v in ("a", None)], [None, 0]),
        ([{"kind": "ranking", "value": v} for v in (["a", "b"], ["a", "b", "c"])], [None, 0]),
    ],
)
async def test_a_second_opinion_takes_the_place_of_the_first(
    door: Door, said: list[dict[str, Any]], superseded: list[int | None]
) -> None:
    """Of one kind and one subject the last stands: another pair, rule or event is no second one."""
    prediction_id = await door.predict("pages", **SHOWN)
    for one in said:
        assert (await door.say_all(prediction_id, [one])).status == "accepted"
        assert (await door.say_all(prediction_id, [one])).status == "duplicate"
    entries = [entry for entry, _ in await door.store.range(Keys("pages").feedback)]
    found = [fields.get(b"s", b"").decode() for fields in await door.taken("pages")]
    assert found == ["" if place is None else entries[place] for place in superseded]


# --- by other names ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["session_id", "external_id"])
async def test_feedback_finds_its_answer_by_another_name(door: Door, kind: str) -> None:
    """The latest answer of the session, or under the caller's own id, is the one that is meant."""
    await door.predict(**{kind: "s"})
    latest = await door.predict(**{kind: "s"})
    await door.predict(**{kind: "other"})
    await door.predict()
    body = {"model": "web", kind: "s", "kind": "thumbs", "value": True}
    receipt = await door.ingest.accept(read_feedback(body))
    assert receipt.prediction_id == latest
    [fields] = await door.taken()
    assert Feedback.model_validate_json(fields[b"f"]).prediction_id == latest
    newer = await door.predict(**{kind: "s"})
    again = await door.ingest.accept(read_feedback(body))
    assert (again.status, again.prediction_id) == ("accepted", newer)


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"session_id": "s"}, "invalid_value", "/model"),
        ({"external_id": "x"}, "invalid_value", "/model"),
        ({"session_id": "x", "model": "web"}, "unknown_prediction", "under this session_id"),
        ({"session_id": "s", "model": "topic"}, "unknown_prediction", "'topic'"),
        ({"external_id": "s", "model": "web"}, "unknown_prediction", "this external_id"),
        ({"session_id": "s", "model": "wbe"}, "unknown_model", "Did you mean 'web'"),
        ({"session_id": "s", "external_id": "s", "model": "web"}, "invalid_value", "once"),
        ({"session_id": "s", "prediction_id": "x", "model": "web"}, "invalid_value", "once"),
        ({"model": "web"}, "invalid_value", "/prediction_id"),
        ({}, "invalid_value", "/prediction_id"),
    ],
)
async def test_a_name_that_leads_nowhere_is_refused(
    door: Door, body: dict[str, Any], code: str, words: str
) -> None:
    """A session without its model, an unknown name, or two ways to one answer: said as it is."""
    await door.predict(session_id="s")
    request = read_feedback({"kind": "thumbs", "value": True, **body})
    with pytest.raises(ServiceError, match=words) as caught:
        await door.ingest.accept(request)
    assert caught.value.code == code
    assert await door.taken() == []


async def test_the_window_closes_by_any_name(door: Door, clock: Any) -> None:
    """An answer that is found by its session is no younger for that."""
    await door.predict(session_id="s")
    clock.advance(FOREVER_S + 1)
    body = {"model": "web", "session_id": "s", "kind": "thumbs", "value": True}
    with pytest.raises(WindowClosed):
        await door.ingest.accept(read_feedback(body))


async def test_the_model_beside_an_id_has_to_be_its_own(door: Door) -> None:
    """A model is checked where it is named, though the id says it."""
    prediction_id = await door.predict()
    assert (await door.say(prediction_id, model="web")).status == "accepted"
    with pytest.raises(Invalid, match="of the model 'web'") as caught:
        await door.say(prediction_id, model="topic")
    assert caught.value.errors[0]["pointer"] == "/model"


async def test_an_answer_made_elsewhere_has_its_own_version(door: Door) -> None:
    """What made it is what feedback may name, not the reward model that scored it."""
    await door.predict("llm", **SHOWN, external_id="c", model_version="gpt-x", role="external")
    body = {"model": "llm", "external_id": "c", "kind": "thumbs", "value": True}
    assert (await door.ingest.accept(read_feedback(body | {"model_version": "gpt-x"}))).feedback_id
    with pytest.raises(Invalid, match="by another version"):
        await door.ingest.accept(read_feedback(body | {"model_version": 3}))


# --- between two answers ----------------------------------------------------------------------


async def two_answers(door: Door, model: str = "llm") -> tuple[str, str]:
    """Log two answers; returns their ids, the older first."""
    older = await door.predict(model, output=["0"], options=[{"id": "0"}], features={"prompt": "x"})
    newer = await door.predict(model, output=["1"], options=[{"id": "1"}], features={"prompt": "x"})
    return older, newer


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_preference_joins_both_answers(door: Door, order: tuple[int, int]) -> None:
    """The older answer is the one that it is kept with; the newer one's record stands beside."""
    ids = await two_answers(door)
    chosen, rejected = (ids[place] for place in order)
    receipt = await door.ingest.accept(read_feedback(pair(chosen, rejected)))
    assert (receipt.status, receipt.prediction_id) == ("accepted", ids[0])
    [fields] = await door.taken("llm")
    records = [Prediction.model_validate_json(fields[name]) for name in (b"r", b"o")]
    assert [record.output for record in records] == [["0"], ["1"]]
    said = Feedback.model_validate_json(fields[b"f"])
    assert said.prediction_id == ids[0]
    assert said.value == {"chosen": chosen, "rejected": rejected}


async def test_a_preference_between_two_answers_counts_once(door: Door) -> None:
    """Said again it is a duplicate; turned around it takes the first one's place."""
    one, two = await two_answers(door)
    third, _ = await two_answers(door)
    said = [pair(one, two), pair(one, two), pair(two, one), pair(two, third)]
    replies = [await door.ingest.accept(read_feedback(body)) for body in said]
    assert [r.status for r in replies] == ["accepted", "duplicate", "accepted", "accepted"]
    entries = [entry for entry, _ in await door.store.range(Keys("llm").feedback)]
    found = [fields.get(b"s", b"").decode() for fields in await door.taken("llm")]
    assert found == ["", entries[0], ""]


async def test_a_preference_is_known_with_both_answers(door: Door, clock: Any) -> None:
    """It is found from either answer, as long as each of them is open to feedback."""
    older = await door.predict("llm", **SHOWN)
    _, early = door.keyring.open("prediction", older)
    late = Address(early.ms + 1_000_000, 0, early.nonce)
    keys, [(_, record)] = Keys("llm"), await door.store.range(Keys("llm").predictions)
    copy = ("n", late.nonce, "r", record[b"r"])
    await door.store.call("XADD", keys.predictions, late.entry, *copy)
    clock.now = late.ms / 1000
    await door.ingest.accept(
        read_feedback(pair(older, door.keyring.seal("prediction", "llm", late)))
    )
    [(entry, _)] = await door.store.range(keys.feedback)
    for address, left_s in ((early, FOREVER_S - 1000), (late, FOREVER_S)):
        [mark] = (await door.store.hash(keys.said(address.entry))).values()
        assert mark.decode().split("|")[1] == entry
        assert left_s - 5 < await door.store.call("TTL", keys.said(address.entry)) <= left_s + 2


async def test_a_pair_has_to_be_of_one_model(door: Door) -> None:
    """Answers of two models have no common scale: 422, and nothing is kept."""
    one, _ = await two_answers(door)
    other, _ = await two_answers(door, "pages")
    with pytest.raises(
        Invalid, match="of the model 'pages', and the chosen one of 'llm'"
    ) as caught:
        await door.ingest.accept(read_feedback(pair(one, other)))
    assert caught.value.errors[0]["pointer"] == "/rejected"
    assert await door.taken("llm") == await door.taken("pages") == []


async def test_what_is_wrong_with_a_pair_is_said(door: Door, clock: Any) -> None:
    """The same answer twice, forged, lost, of a task without preferences, or too old."""
    one, two = await two_answers(door)
    web = [await door.predict() for _ in range(2)]
    lost = door.keyring.seal("prediction", "llm", Address(int(clock() * 1000), 9, "0badcafe"))

    def prefer(chosen: str, rejected: str, **fields: Any) -> Awaitable[Receipt]:
        return door.ingest.accept(read_feedback(pair(chosen, rejected) | fields))

    assert await outcomes(
        prefer(one, one),
        prefer(one, "x" * 50),
        prefer(one, "0"),
        prefer(one, lost),
        prefer(web[0], web[1]),
        prefer(one, two, model="pages"),
        prefer(one, two, model_version=9),
        prefer(one, two, prediction_id=one),
    ) == [
        "invalid_value",
        "unknown_prediction",
        "unknown_prediction",
        "unknown_prediction",
        "kind_not_applicable",
        "invalid_value",
        "version_mismatch",
        "not_served",
    ]
    clock.advance(FOREVER_S + 1)
    assert await outcomes(prefer(one, two)) == ["feedback_window_closed"]
    assert await door.taken("llm") == []


async def test_a_pair_among_several_signals_needs_an_answer(door: Door) -> None:
    """Alone, a preference says which answers it is about; beside others it does not."""
    one, two = await two_answers(door)
    alone = read_feedback({"signals": [pair(one, two)]})
    assert (await door.ingest.accept(alone)).status == "accepted"
    with pytest.raises(Invalid, match="/prediction_id"):
        await door.ingest.accept(read_feedback({"signals": [pair(two, one), CLICK]}))


# --- refused ----------------------------------------------------------------------------------


async def test_an_id_that_is_not_ours_is_refused_without_the_store(
    keyring: Keyring, clock: Callable[[], float]
) -> None:
    """Forged, foreign and misused ids, and those of unknown models, cost no round trip."""
    nowhere = Store("redis://127.0.0.1:1")
    door = Door(nowhere, keyring, clock)
    address = Address(int(clock() * 1000), 0, "00000000")
    good = keyring.seal("prediction", "web", address)
    wrong = [
        "",
        "x" * 50,
        good[:-1],
        good[:20] + ("A" if good[20] != "A" else "B") + good[21:],
        Keyring({1: b"another key of 32 bytes, or so.."}).seal("prediction", "web", address),
        keyring.seal("feedback", "web", address),
        keyring.seal("prediction", "unheard-of", address),
    ]
    for prediction_id in wrong:
        with pytest.raises(NotFound) as caught:
            await door.say(prediction_id)
        assert caught.value.code == "unknown_prediction"
    with pytest.raises(Unavailable):
        await door.say(good)
    await nowhere.close()


async def test_an_expired_id_is_refused_without_the_store(keyring: Keyring, clock: Any) -> None:
    """Past the window it is 410, and the store is not asked."""
    nowhere = Store("redis://127.0.0.1:1")
    door = Door(nowhere, keyring, clock)
    prediction_id = keyring.seal("prediction", "web", Address(int(clock() * 1000), 0, "00000000"))
    clock.advance(FOREVER_S + 1)
    with pytest.raises(WindowClosed):
        await door.say(prediction_id)
    with pytest.raises(WindowClosed):
        await door.say(prediction_id, dry_run=True)
    await nowhere.close()


async def test_the_window_closes_for_what_was_open(door: Door, clock: Any) -> None:
    """Up to the window's end feedback is taken, after it no more."""
    one = await door.predict()
    clock.advance(FOREVER_S - 5)
    assert (await door.say(one)).status == "accepted"
    clock.advance(10)
    with pytest.raises(WindowClosed):
        await door.say(one, value=False)
    assert len(await door.taken()) == 1


@pytest.mark.parametrize("fields", [{}, {"idempotency_key": "k"}, {"dry_run": True}])
async def test_a_prediction_that_the_store_lost_is_unknown(
    door: Door, fields: dict[str, Any]
) -> None:
    """Signed by us and absent: 404, nothing is written, and the key is not spent."""
    prediction_id = await door.predict()
    await door.store.call("FLUSHALL")
    with pytest.raises(NotFound) as caught:
        await door.say(prediction_id, **fields)
    assert caught.value.code == "unknown_prediction"
    assert await door.store.call("DBSIZE") == 0


async def test_an_address_that_was_used_again_does_not_misjoin(
    door: Door, clock: Callable[[], float]
) -> None:
    """After a loss of data another record may stand at the address: the nonce tells."""
    await door.predict()
    [(entry, _)] = await door.store.range(Keys("web").predictions)
    ms, seq = map(int, entry.split("-"))
    old = door.keyring.seal("prediction", "web", Address(ms, seq, "12345678"))
    assert await outcomes(door.say(old)) == ["unknown_prediction"]
    assert await door.taken() == []


@pytest.mark.parametrize(
    ("spec", "value", "taken"),
    [
        (WEB, True, True),
        (WEB, False, False),
        (WEB, "true", Invalid),
        (WEB, 1, Invalid),
        (WEB, 0, Invalid),
        (WEB, 1.0, Invalid),
        (WEB, "", Invalid),
        (TOPIC, "sport", "sport"),
        (TOPIC, True, True),
        (TOPIC, 7, 7),
        (TOPIC, 7.0, Invalid),
        (RENT, 7, 7.0),
        (RENT, -0.5, -0.5),
        (RENT, True, Invalid),
        (RENT, "7", Invalid),
        (ModelSpec(task="classification", learner="a:b", labels=[1, 2]), 1, 1),
        (ModelSpec(task="classification", learner="a:b", labels=[1, 2]), True, Invalid),
        (ModelSpec(task="classification", learner="a:b", labels=[1, 2]), "1", Invalid),
        (ModelSpec(task="classification", learner="a:b", labels=[1, 2]), 3, Invalid),
        (ModelSpec(task="classification", learner="a:b", labels=["a", "b"]), "b", "b"),
        (ModelSpec(task="classification", learner="a:b", labels=["a", "b"]), "B", Invalid),
        (ModelSpec(task="classification", learner="a:b", labels=["a", "b"]), " b", Invalid),
    ],
)
def test_a_correction_is_an_answer_that_the_model_could_give(
    spec: ModelSpec, value: Any, taken: Any
) -> None:
    """A label of the closed set, by type as well; any label of an open one; or a number."""
    if taken is Invalid:
        with pytest.raises(Invalid) as caught:
            target_value(value, spec)
        assert caught.value.errors[0]["pointer"] == "/value"
    else:
        assert repr(target_value(value, spec)) == repr(taken)


async def test_a_wrong_label_is_refused_without_a_trace(door: Door) -> None:
    """The refusal names the labels; nothing is appended and no key is spent."""
    prediction_id = await door.predict()
    with pytest.raises(Invalid, match="false, true"):
        await door.say(prediction_id, "correction", "true", idempotency_key="k")
    assert await door.taken() == []
    receipt = await door.say(prediction_id, "correction", value=True, idempotency_key="k")
    assert receipt.status == "accepted"


async def test_a_signal_for_another_version_is_refused(door: Door) -> None:
    """Who judges version 2 does not speak of an answer of version 3."""
    prediction_id = await door.predict()
    with pytest.raises(Invalid, match="by another version") as caught:
        await door.say(prediction_id, model_version=2)
    assert caught.value.code == "version_mismatch"
    assert await door.taken() == []
    assert (await door.say(prediction_id, model_version=3)).status == "accepted"


async def test_a_dry_run_writes_nothing(door: Door) -> None:
    """Everything is checked as if it counted, and the store stays as it was."""
    prediction_id = await door.predict()
    before = await door.store.call("DBSIZE")
    receipt = await door.say(prediction_id, dry_run=True, idempotency_key="k")
    assert (receipt.status, receipt.feedback_id) == ("accepted", None)
    checks = [
        door.say(prediction_id, dry_run=True, model_version=9),
        door.say(prediction_id, "correction", "no label", dry_run=True),
        door.say("x" * 50, dry_run=True),
    ]
    assert await outcomes(*checks) == ["version_mismatch", "invalid_value", "unknown_prediction"]
    assert await door.store.call("DBSIZE") == before
    assert await door.taken() == []
    assert (await door.say(prediction_id, idempotency_key="k")).status == "accepted"


# --- batches ----------------------------------------------------------------------------------


async def test_a_batch_succeeds_in_parts(door: Door) -> None:
    """Each item is decided by itself; replies stand in the order of the items."""
    one, other = await door.predict(), await door.predict("rent")
    bodies: list[dict[str, Any]] = [
        {"prediction_id": one, "kind": "thumbs", "value": True},
        {"prediction_id": "x" * 50, "kind": "thumbs", "value": True},
        {"prediction_id": one, "kind": "correction", "value": "spam"},
        {"prediction_id": other, "kind": "correction", "value": 7},
        {"prediction_id": one, "kind": "thumbs", "value": True},
    ]
    earlier = Invalid.at("/5/kind", "is not one")
    replies = await door.ingest.accept_many([*map(read_feedback, bodies), earlier])
    found = [r.code if isinstance(r, ServiceError) else r.status for r in replies]
    assert found == [
        "accepted",
        "unknown_prediction",
        "invalid_value",
        "accepted",
        "duplicate",
        "invalid_value",
    ]
    assert replies[5] is earlier
    assert (len(await door.taken()), len(await door.taken("rent"))) == (1, 1)


@pytest.mark.parametrize(
    ("check", "count"), [({}, 1024), ({"model_version": 3}, 1024), ({"dry_run": True}, 0)]
)
async def test_a_large_batch_is_taken_whole(door: Door, check: dict[str, Any], count: int) -> None:
    """A thousand items, whatever is checked of them, are not too many at once."""
    prediction_id = await door.predict()
    said = {"prediction_id": prediction_id, "kind": "thumbs", "value": True} | check
    bodies = [said | {"user_id": str(n)} for n in range(1024)]
    replies = await door.ingest.accept_many([read_feedback(body) for body in bodies])
    assert {r.status if isinstance(r, Receipt) else r.code for r in replies} == {"accepted"}
    assert len(await door.taken()) == count


async def test_trouble_with_one_model_is_not_anothers(door: Door) -> None:
    """A damaged stream refuses its own signals; others of the same group are taken."""
    web, rent = await door.predict(), await door.predict("rent")
    await door.store.call("SET", Keys("rent").feedback, "mine")
    calls = [door.say(web), door.say(rent, "correction", 1), door.say(web, user_id="ada")]
    assert await outcomes(*calls) == ["accepted", "store_unavailable", "accepted"]
    assert len(await door.taken()) == 2


# --- the store is away ------------------------------------------------------------------------


async def test_a_retry_after_a_timeout_is_taken_once(
    start_server: Callable[..., Any], keyring: Keyring, clock: Callable[[], float]
) -> None:
    """A timeout is 503, never 2xx; whether or not the signal got in, the retry settles it."""
    server = start_server()
    async with await open_store(server.url) as store:
        door = Door(store, keyring, clock)
        prediction_id = await door.predict()
        await door.say(await door.predict())
        server.process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        calls = [door.say(prediction_id), door.say(prediction_id, model_version=3)]
        assert await outcomes(*calls) == ["store_unavailable"] * 2
        assert time.monotonic() - started < 2
        server.process.send_signal(signal.SIGCONT)
        first, second = await door.say(prediction_id), await door.say(prediction_id)
        assert first.status in {"accepted", "duplicate"}
        assert second.status == "duplicate"
        assert first.feedback_id == second.feedback_id
        assert len(await door.taken()) == 2


async def test_the_signal_of_a_caller_who_left_is_kept(
    door: Door, eventually: Callable[..., Awaitable[None]]
) -> None:
    """A cancelled request may have been taken, and does not disturb its group."""
    prediction_id = await door.predict()
    await door.say(await door.predict())
    async with await open_store(door.store.url) as control:
        await control.call("CLIENT", "PAUSE", "60000", "WRITE")
        tasks = [asyncio.create_task(door.say(prediction_id, user_id=str(n))) for n in range(3)]
        await asyncio.wait(tasks, timeout=0.1)
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        await control.call("CLIENT", "UNPAUSE")
    async with asyncio.timeout(10):
        assert await outcomes(*tasks[1:]) == ["accepted"] * 2

    async def all_there() -> bool:
        return len(await door.taken()) == 4

    await eventually(all_there)
    assert (await door.say(prediction_id, user_id="0")).status == "duplicate"


# --- the whole door against a plain model of it -----------------------------------------------


@dataclass(frozen=True)
class Said:
    """One signal on some prediction, as a client sends it."""

    kind: str
    value: bool
    user_id: str | None
    comment: str | None
    idempotency_key: str | None
    speaker: Speaker

    @property
    def source(self) -> str:
        """Who says it."""
        return f"human:{self.user_id}" if self.user_id else f"key:{self.speaker.name}"

    def fields(self) -> dict[str, Any]:
        """Return the request's fields, without those that are left out."""
        return {name: value for name, value in vars(self).items() if value is not None}


anything_said = st.builds(
    Said,
    kind=st.sampled_from(["thumbs", "correction"]),
    value=st.booleans(),
    user_id=st.sampled_from([None, "ada", "bob"]),
    comment=st.sampled_from([None, "why"]),
    idempotency_key=st.sampled_from([None, None, "k1", "k2"]),
    speaker=st.sampled_from([Speaker("k1"), Speaker("k2")]),
)


class DoorMachine(RuleBasedStateMachine):
    """Signals in any order, with keys and without, against two dicts and a list.

    `seen` is what a key stands for, `standing` the latest signal of a source; `expected` is what
    has to be in the stream, in order.
    """

    predictions = Bundle("predictions")
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.keyring = Keyring({1: bytes(range(32))})
        self.now = time.time()
        self.seen: dict[Any, tuple[Any, str]] = {}
        self.standing: dict[tuple[str, str, str], tuple[Any, str]] = {}
        self.expected: list[tuple[str, str, Any, str, str | None]] = []

    def wait(self, call: Awaitable[Any]) -> Any:
        """Run a coroutine to its end."""

        async def run() -> Any:
            return await call

        return self.runner.run(run())

    def teardown(self) -> None:
        """Close what the example used."""
        self.wait(self.store.close())
        self.runner.close()

    @initialize(target=predictions)
    def open(self) -> Any:
        """Begin with an empty server and two predictions."""
        self.store = self.wait(open_store(self.url))
        self.wait(self.store.call("FLUSHALL"))
        self.door = Door(self.store, self.keyring, lambda: self.now)
        return multiple(self.wait(self.door.predict()), self.wait(self.door.predict()))

    @rule(target=predictions)
    def predict(self) -> str:
        """Log one more answer."""
        return str(self.wait(self.door.predict()))

    @rule(prediction_id=predictions, said=anything_said, copies=st.sampled_from([1, 1, 2, 5]))
    def post(self, prediction_id: str, said: Said, copies: int) -> None:
        """Send a signal, or several equal ones at once."""

        async def send() -> list[Any]:
            calls = [self.door.say(prediction_id, **said.fields()) for _ in range(copies)]
            return await asyncio.gather(*calls, return_exceptions=True)

        replies = self.wait(send())
        wanted = [self.decide(prediction_id, said, replies[0]) for _ in range(copies)]
        assert [r.status if isinstance(r, Receipt) else r.code for r in replies] == wanted
        receipts = {reply.feedback_id for reply in replies if isinstance(reply, Receipt)}
        assert len(receipts) <= 1

    def decide(self, prediction_id: str, said: Said, reply: Any) -> str:
        """Say what has to become of one signal, and take note of it."""
        body = (prediction_id, said.kind, said.value, said.source, said.comment)
        key = said.idempotency_key and (said.speaker, said.idempotency_key)
        if key in self.seen:
            known, feedback_id = self.seen[key]
            if known != body:
                return "idempotency_key_reused"
            assert reply.feedback_id == feedback_id
            return "duplicate"
        place = (said.source, prediction_id, said.kind)
        value, standing = self.standing.get(place, (None, None))
        if key is None and value == said.value:
            assert reply.feedback_id == standing
            return "duplicate"
        self.expected.append((prediction_id, said.kind, said.value, said.source, standing))
        self.standing[place] = (said.value, reply.feedback_id)
        if key is not None:
            self.seen[key] = (body, reply.feedback_id)
        return "accepted"

    @rule(prediction_id=predictions, place=st.integers(0, 49), key=st.sampled_from([None, "k1"]))
    def forge(self, prediction_id: str, place: int, key: str | None) -> None:
        """Send a signal with an id that was changed in one place."""
        other = "A" if prediction_id[place] != "A" else "B"
        forged = prediction_id[:place] + other + prediction_id[place + 1 :]
        assert self.wait(outcomes(self.door.say(forged, key=key))) == ["unknown_prediction"]

    @rule(prediction_id=predictions, key=st.sampled_from([None, "k1"]))
    def come_too_late(self, prediction_id: str, key: str | None) -> None:
        """Send a signal after the window."""
        self.now += FOREVER_S + 60
        reply = self.wait(outcomes(self.door.say(prediction_id, key=key)))
        self.now -= FOREVER_S + 60
        assert reply == ["feedback_window_closed"]

    @rule(prediction_id=predictions, key=st.sampled_from([None, "k1"]))
    def rehearse(self, prediction_id: str, key: str | None) -> None:
        """Send a signal as a dry run."""
        assert self.wait(outcomes(self.door.say(prediction_id, key=key, dry_run=True))) == [
            "accepted"
        ]

    @rule()
    def restart(self) -> None:
        """Put a new process in the place of this one, before a server that forgot the scripts."""
        self.wait(self.store.call("SCRIPT", "FLUSH"))
        self.door = Door(self.store, self.keyring, lambda: self.now)

    @invariant()
    def the_stream_is_what_was_taken(self) -> None:
        """Every accepted signal is in the stream once, in order, and nothing else is."""
        if not hasattr(self, "store"):
            return
        found = []
        entries = self.wait(self.store.range(Keys("web").feedback))
        by_entry: dict[str, str] = {}
        for entry, fields in entries:
            said = Feedback.model_validate_json(fields[b"f"])
            ms, seq = map(int, entry.split("-"))
            address = Address(ms, seq, fields[b"n"].decode())
            by_entry[entry] = self.keyring.seal("feedback", "web", address)
            superseded = by_entry[fields[b"s"].decode()] if b"s" in fields else None
            found.append((said.prediction_id, said.kind, said.value, said.source, superseded))
        assert found == self.expected


def test_the_door_agrees_with_a_plain_model_of_it(make_settings: Callable[..., Settings]) -> None:
    """Whatever comes in whatever order, the stream is what a dict and a list would hold."""

    class Machine(DoorMachine):
        url = make_settings().store

    run_state_machine_as_test(
        Machine,
        settings=hypothesis_settings(
            max_examples=40,
            stateful_step_count=25,
            suppress_health_check=list(HealthCheck),
        ),
    )
