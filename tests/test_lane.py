"""The audit lane: what the gate waits for, in random order, and nothing that could sway a rater."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from online_learner.loop import Loop
from online_learner.queue import AUDIT, Queue
from online_learner.settings import Settings

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

OPTIONS = [{"id": name, "features": {"title": name}} for name in "abc"]


async def queue(loop: Loop, model: str = "web", *, count: int = 1000) -> list[dict[str, Any]]:
    """Return what the lane holds."""
    room = loop.stages(model)
    found = Queue(room.registry, room.spec, room.window_s, clock=room.clock)
    return await found.waiting((AUDIT,), count=count)


async def waiting(loop: Loop, model: str = "web", **options: Any) -> list[str]:
    """Return the ids of what the lane holds."""
    return [item["prediction_id"] for item in await queue(loop, model, **options)]


async def ask(loop: Loop, count: int = 1) -> list[str]:
    """Return the ids of fresh answers."""
    answers = [await loop.predict("web", {"a": float(n)}) for n in range(count)]
    return [str(answer["prediction_id"]) for answer in answers]


async def test_what_was_answered_or_settled_is_not_in_the_lane(loop: Loop) -> None:
    """An audit is in it until somebody has answered it; what has settled is gone as well."""
    ids = await ask(loop, 4)
    assert sorted(await waiting(loop)) == sorted(ids)
    await loop.feedback(ids[0], "correction", value=True)
    assert sorted(await waiting(loop)) == sorted(ids[1:])
    await loop.turn("web")
    assert sorted(await waiting(loop)) == sorted(ids[1:])
    await loop.feedback(ids[1], "thumbs", value=False)
    assert sorted(await waiting(loop)) == sorted(ids[2:])


async def test_what_users_do_is_no_answer(loop: Loop) -> None:
    """A click or a flag leaves an audit open: the gate goes on waiting for it."""
    ids = await ask(loop, 2)
    await loop.feedback(ids[0], "implicit", event="click")
    await loop.feedback(ids[1], "flag", rule="rude")
    assert sorted(await waiting(loop)) == sorted(ids)


async def test_only_audited_answers_are_in_the_lane(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """What was not drawn by the coin is not asked for here."""
    always = {"policy": "policies.promotion:Always"}
    loop = await open_loop(make_settings(web={"audit": 0.5, "promotion": always}))
    answers = [await loop.predict("web", {"a": 1.0}) for _ in range(40)]
    audited = [a["prediction_id"] for a in answers if (a["ask"] or {}).get("reason") == "audit"]
    assert 5 < len(audited) < 35
    assert sorted(await waiting(loop)) == sorted(audited)


async def test_the_order_is_random_and_stays(loop: Loop) -> None:
    """Neither age nor score orders it; two auditors see the same, and a shorter list its head."""
    ids = await ask(loop, 60)
    order = await waiting(loop)
    assert sorted(order) == sorted(ids)
    assert await waiting(loop) == order
    assert await waiting(loop, count=7) == order[:7]
    places = [ids.index(one) for one in order]
    inversions = sum(a > b for n, a in enumerate(places) for b in places[n + 1 :])
    assert 0.35 < inversions / (60 * 59 / 2) < 0.65
    await loop.feedback(order[3], "thumbs", value=True)
    assert await waiting(loop) == order[:3] + order[4:]


async def test_nothing_sways_a_rater(open_loop: OpenLoop, make_settings: MakeSettings) -> None:
    """The question and what was shown: no scores, no versions, nothing that a shadow answered."""
    loop = await open_loop(make_settings(pages={}))
    answer = await loop.predict("pages", {"query": "x"}, options=OPTIONS, user_id="ada", top_k=2)
    [item] = await queue(loop, "pages")
    assert item.keys() == {
        "prediction_id", "features", "options", "output", "lane", "asked_at", "expires_at",
        "leased_until",
    }  # fmt: skip
    assert (item["features"], item["output"]) == ({"query": "x"}, answer["output"])
    assert item["options"] == OPTIONS
    _, address = loop.keyring.open("prediction", item["prediction_id"])
    assert item["asked_at"] == address.ms / 1000
    assert item["expires_at"] == item["asked_at"] + loop.settings.models["pages"].audit_deadline_s


async def test_a_blocked_answer_shows_the_fallback(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """The rater sees what the user saw."""
    rules = [{"rule": "range", "low": 1.0, "severity": "block", "name": "sane"}]
    loop = await open_loop(make_settings(rent={"rules": rules, "fallback": "ask"}))
    assert (await loop.predict("rent", {"rooms": 1.0}))["blocked"]
    [item] = await queue(loop, "rent")
    assert item["output"] == "ask"


@pytest.mark.parametrize(
    "change", [{"web": {"audit_deadline_s": 60.0}}, {"web": {}, "window_s": 60}]
)
async def test_what_comes_too_late_is_not_asked_for(
    open_loop: OpenLoop, make_settings: MakeSettings, clock: Any, change: dict[str, Any]
) -> None:
    """Past the deadline, or the feedback window, a label would not count."""
    loop = await open_loop(make_settings(**change))
    await ask(loop, 2)
    [first, _] = await queue(loop)
    assert first["expires_at"] == first["asked_at"] + 60.0
    clock.advance(61.0)
    assert await waiting(loop) == []


async def test_of_many_one_in_each_slice_of_time(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    """Of a long backlog the lane looks at a part that is spread over all of its time, and stays."""
    monkeypatch.setattr("online_learner.queue.audits.LOOK_AT", 20)
    registry, now_ms = loop.stages("web").registry, int(clock.now * 1000)
    [pattern] = await ask(loop)
    address = loop.keyring.open("prediction", pattern)[1]
    keys = registry.keys
    [(_, record)] = await loop.store.range(keys.predictions, address.entry, address.entry)
    await loop.store.call("DEL", keys.predictions, keys.audits)
    for n in range(400):  # over an hour, more and more of them
        entry = f"{now_ms - int(3_500_000 * (1 - (n / 400) ** 2))}-{n}"
        await loop.store.call("XADD", keys.predictions, entry, "n", record[b"n"], "r", record[b"r"])
        await loop.store.call("XADD", keys.audits, entry, "a", "{}")
    found = await queue(loop)
    assert 15 <= len(found) <= 22
    ages = sorted(clock.now - item["asked_at"] for item in found)
    assert ages[0] < 400
    assert ages[-1] > 3000
    assert max(later - one for one, later in itertools.pairwise(ages)) < 500
    clock.advance(1.0)
    again = await waiting(loop)
    assert len(set(again) ^ {item["prediction_id"] for item in found}) <= 2


async def test_the_lane_of_a_new_model_is_empty(loop: Loop) -> None:
    """Before the first answer there is nothing to label."""
    assert await queue(loop) == []
