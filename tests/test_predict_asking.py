"""Questions beside the audits: of which answers they are asked, and that they are no evidence."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from online_learner.loop import Loop
from online_learner.render import render
from online_learner.schema import Advice, Ask
from online_learner.settings import Settings

ALWAYS = {"policy": "policies.promotion:Always"}

Opener = Callable[..., Awaitable[Loop]]
Make = Callable[..., Settings]


class Curious:
    """Asks about every answer, and notes what it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[dict[str, float], float]] = []

    def ask(self, scores: Mapping[str, float], _rng: Any, *, factor: float = 1.0) -> float | None:
        """Return the probability with which it asks."""
        self.shown.append((dict(scores), factor))
        return 0.25


async def curious(
    open_loop: Opener, settings: Settings, model: str = "web"
) -> tuple[Loop, Curious]:
    """Return a loop that asks about every answer that is not audited."""
    loop, sampling = await open_loop(settings), Curious()
    loop.stages(model).predictor.sampling = sampling
    return loop, sampling


async def test_what_is_asked_is_logged_with_its_probability(
    open_loop: Opener, make_settings: Make
) -> None:
    """The answer says so, the record has it, and the question is in the lane of its own."""
    settings = make_settings(web={"audit": 0.0, "promotion": ALWAYS})
    loop, _ = await curious(open_loop, settings)
    answer = await loop.predict("web", {"a": 1.0})
    assert answer["ask"] == {"reason": "uncertain", "probability": 0.25}
    _, address = loop.keyring.open("prediction", answer["prediction_id"])
    stages = loop.stages("web")
    record = await stages.journal.read(address)
    assert record.ask == Ask(reason="uncertain", probability=0.25)
    [(entry, fields)] = await loop.store.range(stages.registry.keys.asked)
    assert entry == address.entry
    assert json.loads(fields[b"q"]) == {"reason": "uncertain", "value": record.uncertainty}
    assert await loop.store.call("XLEN", stages.registry.keys.audits) == 0


async def test_the_coin_of_the_audits_comes_first(open_loop: Opener, make_settings: Make) -> None:
    """Of what is audited nothing else is asked, and the policy is not even shown it."""
    loop, sampling = await curious(open_loop, make_settings(web={"audit": 1.0}))
    answers = [await loop.predict("web", {"a": float(n)}) for n in range(5)]
    assert [answer["ask"]["reason"] for answer in answers] == ["audit"] * 5
    assert sampling.shown == []


async def test_the_label_of_a_question_is_learned_and_is_no_evidence(
    open_loop: Opener, make_settings: Make
) -> None:
    """Which answers are asked about no coin alone has drawn: the gate settles none of them."""
    settings = make_settings(web={"audit": 0.0, "promotion": ALWAYS})
    loop, _ = await curious(open_loop, settings)
    for n in range(3):
        answer = await loop.predict("web", {"a": float(n)})
        await loop.feedback(answer["prediction_id"], "correction", True)
        await loop.turn("web")
    stages = loop.stages("web")
    assert stages.trainer.at.learned == 3
    assert await loop.store.call("XLEN", stages.registry.keys.evidence) == 0


async def test_without_a_budget_nothing_is_asked(open_loop: Opener, make_settings: Make) -> None:
    """The policy is not shown the answers then."""
    settings = make_settings(web={"audit": 0.0, "promotion": ALWAYS, "ask_budget": 0.0})
    loop, sampling = await curious(open_loop, settings)
    assert (await loop.predict("web", {"a": 1.0}))["ask"] is None
    assert sampling.shown == []


async def test_what_could_not_be_learned_is_not_asked(
    open_loop: Opener, make_settings: Make
) -> None:
    """Where the log keeps nothing of what is asked, a label would teach nothing."""
    some = {"audit": 0.0, "promotion": ALWAYS, "ask_budget": 1.0}
    random = some | {"sampling": "policies.sampling:Random"}
    for mode, asked in (("full", "uncertain"), ("none", None)):
        loop = await open_loop(make_settings(web=random | {"log_inputs": mode}))
        ask = (await loop.predict("web", {"a": 1.0}))["ask"]
        assert (ask["reason"] if ask else None) == asked


async def test_observers_may_have_more_asked(open_loop: Opener, make_settings: Make) -> None:
    """The policy is told by how much, with the answers that the advice came with."""
    settings = make_settings(web={"audit": 0.0, "promotion": ALWAYS})
    loop, sampling = await curious(open_loop, settings)
    stages = loop.stages("web")
    advice = Advice(n=1, ask=3.0)
    sealed = stages.registry.seal("advice", advice, sha="-").fields()
    await loop.store.call("HSET", stages.registry.keys.advice, *sum(sealed.items(), ()))
    await stages.follower.refresh()
    await loop.predict("web", {"a": 1.0})
    assert [factor for _, factor in sampling.shown] == [3.0]


async def test_answers_made_elsewhere_are_asked_about_too(
    open_loop: Opener, make_settings: Make
) -> None:
    """The policy is shown the rewards of the outputs."""
    settings = make_settings(llm={"audit": 0.0, "promotion": ALWAYS})
    loop, sampling = await curious(open_loop, settings, "llm")
    outputs = [{"id": "a", "text": "yes"}, {"id": "b", "text": "no"}]
    answer = await loop.log("llm", prompt="is it?", outputs=outputs)
    assert answer["ask"]["reason"] == "uncertain"
    assert [set(scores) for scores, _ in sampling.shown] == [{"a", "b"}]


@pytest.mark.parametrize("reason", ["audit", "uncertain", "gold"])
async def test_who_may_not_read_is_not_told_why(
    open_loop: Opener, make_settings: Make, reason: Any
) -> None:
    """Whatever the reason, a label is asked for, and nothing tells one question from another."""
    loop = await open_loop(make_settings(web={"audit": 1.0}))
    answer = await loop.predict("web", {"a": 1.0})
    _, address = loop.keyring.open("prediction", answer["prediction_id"])
    record = await loop.stages("web").journal.read(address)
    asked = record.model_copy(update={"ask": Ask(reason=reason, probability=0.5)})
    shown = render(asked, answer["prediction_id"], address, window_s=60.0, reader=False)
    assert shown["ask"] == {"reason": "label", "probability": None}


async def test_a_planted_question_teaches_nothing_but_by_an_auditor(
    open_loop: Opener, make_settings: Make
) -> None:
    """Raters' answers to it are kept, since many speak of one input; the operator's is learned."""
    loop = await open_loop(make_settings(web={"audit": 1.0}))
    stages = loop.stages("web")
    await loop.turn("web")
    [first] = [await loop.predict("web", {"a": 1.0})]
    _, address = loop.keyring.open("prediction", first["prediction_id"])
    record = await stages.journal.read(address)
    gold = record.model_copy(update={"ask": Ask(reason="gold", probability=1.0), "shadows": {}})
    [place] = await stages.journal.append([gold])
    planted = loop.keyring.seal("prediction", "web", place)
    await loop.feedback(planted, "correction", True, auditor=True, user_id="operator")
    await loop.turn("web")
    assert stages.trainer.at.learned == 1
    await loop.feedback(planted, "correction", False, user_id="ada")
    await loop.feedback(planted, "thumbs", False, user_id="bob")
    await loop.turn("web")
    assert stages.trainer.at.learned == 1
    assert await loop.store.call("XLEN", stages.registry.keys.quarantine) == 0
