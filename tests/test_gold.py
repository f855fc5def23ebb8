"""Planted questions: answered as any other, asked among the others, and nobody can tell."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from online_learner.errors import Conflict, Invalid, StoreFull, Unavailable
from online_learner.explain.fates import fates
from online_learner.ids import Address
from online_learner.loop import Loop
from online_learner.queue import ASK, Planted, Queue, gold, plant
from online_learner.render import render
from online_learner.requests import PredictRequest
from online_learner.schema import Ask, Prediction
from online_learner.settings import Settings

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

ADA, BOB = "human:ada", "human:bob"
OPTIONS = [{"id": name, "features": {"title": name}} for name in "abc"]


def queue_of(loop: Loop, model: str = "web", *, seed: int = 0) -> Queue:
    """Return the queue of a model."""
    room = loop.stages(model)
    how: dict[str, Any] = {"clock": room.clock, "rng": random.Random(seed)}
    return Queue(room.registry, room.spec, room.window_s, inputs=room.inputs, **how)


async def ask(loop: Loop, count: int) -> list[str]:
    """Have questions asked that are not planted; returns their ids."""
    room = loop.stages("web")
    record = room.predictor.answer(PredictRequest(features={"a": 1.0}, tags={}))
    why = Ask(reason="uncertain", probability=0.5)
    asked = record.model_copy(update={"ask": why, "uncertainty": 0.5, "shadows": {}})
    addresses = await room.journal.append([asked] * count)
    return [loop.keyring.seal("prediction", "web", address) for address in addresses]


async def planted(loop: Loop, *, value: Any = True, model: str = "web", **asked: Any) -> Planted:
    """Plant a question."""
    request = PredictRequest(**{"features": {"a": 3.0}, "tags": {}} | asked)
    return await plant(loop.stages(model), loop.ingest, request, value, by="ops")


def place(loop: Loop, prediction_id: str) -> Address:
    """Return where an answer is."""
    return loop.keyring.open("prediction", prediction_id)[1]


async def leased(loop: Loop, holder: str, count: int = 100, *, seed: int = 0) -> list[str]:
    """Return the ids of what is leased to somebody who is no auditor."""
    queue = queue_of(loop, seed=seed)
    items = await queue.lease((ASK,), holder=holder, count=count, gold=True)
    return [item["prediction_id"] for item in items]


async def test_it_is_answered_logged_and_known(loop: Loop) -> None:
    """The model answers it, no shadow does, and an auditor has said what is right."""
    done = await planted(loop)
    room = loop.stages("web")
    record = await room.journal.read(place(loop, done.prediction_id))
    assert record.ask == Ask(reason="gold", probability=1.0)
    assert record.shadows == record.chances == {}
    assert (record.features, record.output) == ({"a": 3.0}, done.output)
    [(_, fields)] = await loop.store.range(room.registry.keys.feedback)
    assert b'"source":"key:ops"' in fields[b"f"]
    assert b'"auditor":true' in fields[b"f"]
    assert await loop.store.call("XLEN", room.registry.keys.audits) == 0
    assert done.open_until == place(loop, done.prediction_id).ms / 1000 + room.spec.ask_for_s


async def test_the_truth_is_learned_and_what_raters_say_is_not(loop: Loop) -> None:
    """What the operator says teaches; what raters say of it is set aside, with the reason."""
    done = await planted(loop)
    await loop.feedback(done.prediction_id, "correction", False, user_id="ada")
    await loop.turn("web")
    registry = loop.stages("web").registry
    entries = await loop.store.range(registry.keys.feedback)
    told = await fates(registry, [entry for entry, _ in entries])
    assert [told[entry].status for entry, _ in entries] == ["learned", "kept"]
    assert "planted question" in told[entries[1][0]].reason


async def test_a_wrong_truth_is_refused_before_anything_is_logged(loop: Loop) -> None:
    """What is no label, and what the model cannot take, leaves nothing behind."""
    keys = loop.stages("web").registry.keys
    with pytest.raises(Invalid, match="not a label"):
        await planted(loop, value="spam")
    with pytest.raises(Invalid, match="for models that rank"):
        await planted(loop, options=OPTIONS)
    for stream in (keys.predictions, keys.feedback, keys.asked, keys.gold):
        assert await loop.store.call("EXISTS", stream) == 0


async def test_a_full_store_takes_none(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where answers without evidence are refused for want of room, so is this."""
    health = loop.stages("web").store.health

    def full(_: Any, *, audited: bool) -> Unavailable | None:
        return None if audited else StoreFull("no room")

    monkeypatch.setattr(type(health), "no_room", full)
    with pytest.raises(StoreFull):
        await planted(loop)
    assert await loop.store.call("EXISTS", loop.stages("web").registry.keys.predictions) == 0


@pytest.mark.parametrize(
    ("model", "value", "asked"),
    [
        ("rent", 12.5, {}),
        ("pages", "b", {"options": OPTIONS, "top_k": 3}),
        ("pages", {"id": "z", "features": {"title": "z"}}, {"options": OPTIONS}),
        ("topic", "sport", {}),
    ],
)
async def test_every_task_has_them(
    open_loop: OpenLoop,
    make_settings: MakeSettings,
    model: str,
    value: Any,
    asked: dict[str, Any],
) -> None:
    """Numbers, labels, and options: what a correction may say can be the truth."""
    loop = await open_loop(make_settings(**{model: {}}))
    done = await planted(loop, value=value, model=model, features={"rooms": 1.0}, **asked)
    assert done.output == (await record_of(loop, model, done)).output
    assert done.feedback_id is not None


async def record_of(loop: Loop, model: str, done: Planted) -> Prediction:
    """Return the record of a planted question."""
    return await loop.stages(model).journal.read(place(loop, done.prediction_id))


async def test_many_have_it_at_once(loop: Loop) -> None:
    """Two hold it, whatever the other does; nobody is handed what they hold already."""
    done = await planted(loop)
    await ask(loop, 120)
    for holder in (ADA, BOB):
        assert (await leased(loop, holder, count=40)).count(done.prediction_id) == 1
    for holder in (ADA, BOB):
        assert done.prediction_id not in await leased(loop, holder, count=10)


async def test_whoever_has_answered_it_is_not_asked_again(loop: Loop, clock: Any) -> None:
    """What they said of it, or that they skipped it, ends it for them alone."""
    done = await planted(loop)
    await ask(loop, 240)
    for holder in (ADA, BOB, "human:cid"):
        assert done.prediction_id in await leased(loop, holder, count=40)
    await loop.feedback(done.prediction_id, "correction", False, user_id="ada")
    address = place(loop, done.prediction_id)
    await queue_of(loop).give_back([address], holder=ADA, again=True)
    await queue_of(loop).give_back([address], holder=BOB)
    clock.advance(301.0)  # the leases have run out
    assert done.prediction_id not in await leased(loop, ADA, count=40)
    assert done.prediction_id not in await leased(loop, BOB, count=40)
    assert done.prediction_id in await leased(loop, "human:cid", count=40)


async def test_what_is_done_with_a_lease_does_not_tell_it(loop: Loop, clock: Any) -> None:
    """Renewed, given back, run out or skipped: a planted question fares as those beside it do."""
    done = await planted(loop)
    await ask(loop, 60)
    how: dict[str, Any] = {"holder": ADA, "gold": True}
    ids = await leased(loop, ADA, count=61)
    assert done.prediction_id in ids
    addresses = [place(loop, name) for name in ids]
    queue = queue_of(loop)

    async def renewed(**more: Any) -> list[str]:
        items = await queue.renew(addresses, (ASK,), **how, **more)
        assert len({item["leased_until"] for item in items}) <= 1
        return [item["prediction_id"] for item in items]

    assert await renewed() == ids  # in the order in which they are asked for
    clock.advance(250.0)
    assert await renewed(seconds=100.0) == ids
    clock.advance(101.0)
    assert await queue.give_back(addresses, holder=ADA) == 0  # they have run out
    assert set(await leased(loop, ADA, count=61)) == set(ids)
    assert await queue.give_back(addresses, holder=ADA, again=True) == 61
    assert await queue.give_back(addresses, holder=ADA, again=True) == 0
    assert await renewed() == ids
    assert await queue.give_back(addresses, holder=ADA) == 61
    assert await queue.give_back(addresses, holder=ADA) == 0
    assert await leased(loop, ADA) == await renewed() == []


async def test_names_are_hashed_as_those_who_answer(
    open_loop: OpenLoop, make_settings: MakeSettings, clock: Any
) -> None:
    """Where the log keeps hashes of people, what they have answered is known all the same."""
    loop = await open_loop(make_settings(web={"log_inputs": "hashed"}))
    done = await planted(loop)
    await ask(loop, 60)
    assert done.prediction_id in await leased(loop, ADA, count=60)
    await loop.feedback(done.prediction_id, "correction", False, user_id="ada")
    clock.advance(301.0)
    assert done.prediction_id not in await leased(loop, ADA)


async def test_what_is_not_logged_is_not_planted(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Where the log keeps nothing of what is asked, there is no question to show."""
    loop = await open_loop(make_settings(web={"log_inputs": "none"}))
    with pytest.raises(Conflict, match="log_inputs: none"):
        await planted(loop)
    assert await loop.store.call("EXISTS", loop.stages("web").registry.keys.predictions) == 0


async def test_an_auditor_cannot_lease_it_by_its_id(loop: Loop) -> None:
    """Whoever is handed none is handed none by name, either."""
    done = await planted(loop)
    address = place(loop, done.prediction_id)
    assert await queue_of(loop).renew([address], holder="key:auditor") == []


async def test_its_share_is_that_of_the_configuration(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """As long as there are any, `gold_share` of what is leased was planted, in random places."""
    loop = await open_loop(make_settings(web={"gold_share": 0.25}))
    golden = {(await planted(loop)).prediction_id for _ in range(150)}
    await ask(loop, 420)
    found = [name for _ in range(4) for name in await leased(loop, ADA)]
    assert len(found) == 400
    drawn = [name in golden for name in found]
    assert 75 < sum(drawn) < 125  # 100 ± 3 standard errors
    assert 30 < sum(drawn[::2]) < 70


async def test_alone_it_is_not_asked(loop: Loop) -> None:
    """Where nothing else is asked there is none: it would be told by that."""
    await planted(loop)
    assert await leased(loop, ADA) == []


async def test_auditors_get_none(loop: Loop) -> None:
    """An auditor's word is the truth: they are not asked, and their list tells of none."""
    done = await planted(loop)
    ids = await ask(loop, 30)
    queue = queue_of(loop)
    assert {item["prediction_id"] for item in await queue.waiting(count=100)} == set(ids)
    items = await queue.lease(holder="key:auditor", count=100)
    assert done.prediction_id not in [item["prediction_id"] for item in items]


async def test_nobody_can_tell(loop: Loop) -> None:
    """In the queue it looks as any other; without the scope `read`, so does the answer itself."""
    done = await planted(loop)
    await ask(loop, 60)
    items = await queue_of(loop).lease((ASK,), holder=ADA, count=60, gold=True)
    [one] = [item for item in items if item["prediction_id"] == done.prediction_id]
    other = next(item for item in items if item is not one)
    assert one.keys() == other.keys()
    assert [type(value) for value in one.values()] == [type(value) for value in other.values()]
    assert one["lane"] == other["lane"] == "ask"
    assert one["expires_at"] - one["asked_at"] == other["expires_at"] - other["asked_at"]
    assert one["leased_until"] == other["leased_until"]
    address = place(loop, done.prediction_id)
    record = await record_of(loop, "web", done)
    shown = render(record, done.prediction_id, address, window_s=60.0, reader=False)
    assert shown["ask"] == {"reason": "label", "probability": None}


async def test_skipping_one_looks_as_with_others(loop: Loop) -> None:
    """It counts as given back, and does not come again."""
    done = await planted(loop)
    await ask(loop, 60)
    assert done.prediction_id in await leased(loop, ADA, count=60)
    queue, address = queue_of(loop), place(loop, done.prediction_id)
    assert await queue.give_back([address], holder=ADA) == 1
    assert await queue.give_back([address], holder=BOB) == 0
    assert done.prediction_id not in await leased(loop, ADA)


async def test_it_ends_as_a_question_does(
    open_loop: OpenLoop, make_settings: MakeSettings, clock: Any
) -> None:
    """After `ask_for_s` nobody is asked any more, and it is forgotten."""
    loop = await open_loop(make_settings(web={"ask_for_s": 60.0}))
    await planted(loop)
    registry = loop.stages("web").registry
    assert len(await gold.planted(registry, now=clock.now)) == 1
    clock.advance(61.0)
    assert await gold.planted(registry, now=clock.now) == []
    assert await loop.store.call("EXISTS", registry.keys.gold) == 0


async def test_there_is_an_end_to_planting(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many are open at once, and no more."""
    monkeypatch.setattr(gold, "MOST_PLANTED", 2)
    for _ in range(2):
        await planted(loop)
    with pytest.raises(Conflict, match="2 planted questions are open"):
        await planted(loop)
