"""The whole story: what became of a signal and of an answer, told from the record alone."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from online_learner import explain
from online_learner.bring import bring_trained
from online_learner.errors import NotFound
from online_learner.explain import archived
from online_learner.ids import Address
from online_learner.loop import Loop
from online_learner.operate import operate
from online_learner.requests import ScoreRequest, read_feedback
from online_learner.schema import Trained, Verdict
from online_learner.settings import Settings

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

ALWAYS = {"promotion": {"policy": "policies.promotion:Always"}}
MANUAL = {"promotion": {"policy": "policies.promotion:Manual", "snapshot_every": 2}}
OPTIONS = [{"id": name, "features": {"title": name}} for name in "abc"]
OUTPUTS = [{"id": "0", "text": "a bird"}, {"id": "1", "text": "a bill"}]


@pytest.fixture
async def pages(open_loop: OpenLoop, make_settings: MakeSettings) -> Loop:
    """Return a loop with a ranking that serves every step, and answers that are logged."""
    return await open_loop(make_settings(pages=ALWAYS, llm=ALWAYS | {"audit": 1.0}))


async def ask(loop: Loop, model: str = "pages", **fields: Any) -> str:
    """Return the id of a fresh answer."""
    answer = await loop.predict(model, {"query": "x"}, options=OPTIONS, **fields)
    return str(answer["prediction_id"])


async def say(loop: Loop, prediction_id: str, *said: Any, **fields: Any) -> str:
    """Say something about an answer; returns the id of the feedback."""
    receipt = await loop.feedback(prediction_id, *said, **fields)
    assert receipt.feedback_id is not None
    return receipt.feedback_id


async def receipt(loop: Loop, feedback_id: str, model: str = "pages") -> dict[str, Any]:
    """Return what became of a signal."""
    _, address = loop.keyring.open("feedback", feedback_id)
    return await explain.receipt(loop.stages(model).registry, address)


async def story(loop: Loop, prediction_id: str, model: str = "pages") -> dict[str, Any]:
    """Return the story of an answer."""
    _, address = loop.keyring.open("prediction", prediction_id)
    stages = loop.stages(model)
    return await explain.story(stages.registry, address, await stages.journal.read(address))


async def next_ms(loop: Loop) -> None:
    """Wait for the server's next millisecond: within one, no stream says which entry was first."""

    async def now() -> int:
        seconds, micros = map(int, await loop.store.call("TIME"))
        return seconds * 1000 + micros // 1000

    start = await now()
    while await now() == start:
        pass


# --- receipts ---------------------------------------------------------------------------------


async def test_a_receipt_follows_a_signal_to_the_first_answer(pages: Loop) -> None:
    """Accepted, then learned at a step, then served: by which weights, and when."""
    first = await ask(pages)
    said = await say(pages, first, "selection", "c")
    found = await receipt(pages, said)
    assert (found["status"], found["model"]) == ("accepted", "pages")
    assert (found["feedback"]["kind"], found["feedback"]["value"]) == ("selection", "c")
    assert found["feedback"]["prediction_id"] == first
    await pages.turn("pages")
    found = await receipt(pages, said)
    assert (found["status"], found["served"], found["version"]) == ("learned", None, None)
    assert (found["lineage"], found["step"]) == (1, 1)
    assert found["learned_at"] == pages.ingest.clock()
    ids = [await ask(pages) for _ in range(2)]
    served = (await receipt(pages, said))["served"]
    _, address = pages.keyring.open("prediction", ids[0])
    assert served == {"version": 0, "step": 1, "at": address.ms / 1000}


async def test_a_later_step_serves_what_was_learned_before(pages: Loop) -> None:
    """The first answer that rests on a signal may come steps after it was learned."""
    signals = [await say(pages, await ask(pages), "selection", name) for name in "cb"]
    for _ in signals:
        await pages.turn("pages")
    last = await say(pages, await ask(pages), "selection", "a")
    fates = [await receipt(pages, said) for said in signals]
    assert fates[0]["served"] == fates[1]["served"]
    assert fates[0]["served"]["step"] >= fates[1]["step"] >= fates[0]["step"]
    assert (await receipt(pages, last))["status"] == "accepted"


async def test_versions_that_were_made_elsewhere_are_no_first_snapshot(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """They lie between the others by number, and at no step: the others are found all the same."""
    loop = await open_loop(make_settings(pages=MANUAL))
    stages, said = loop.stages("pages"), []
    for number, name in enumerate("abcac"):
        said.append(await say(loop, await ask(loop), "selection", name))
        await loop.turn("pages")
        learner, trained = stages.trainer.learner, Trained(dataset=f"d{number}", job="j")
        await bring_trained(stages.registry, learner, trained, now=loop.ingest.clock())
    versions = {v.version: v for v in await stages.registry.versions() if not v.brought}
    for one in said:
        fate = await receipt(loop, one)
        first = next((n for n, v in versions.items() if v.step >= fate["step"]), None)
        assert fate["version"] == first


async def test_a_receipt_names_the_first_snapshot(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Under a policy with snapshots, the first version that has learned a signal is named."""
    loop = await open_loop(make_settings(pages=MANUAL))
    said = []
    for name in "abca":
        said.append(await say(loop, await ask(loop), "selection", name))
        await loop.turn("pages")
    fates = [await receipt(loop, one) for one in said]
    assert [fate["version"] for fate in fates] == [1, 1, 2, 2]
    assert {fate["served"] for fate in fates} == {None}
    now = loop.ingest.clock()
    await operate(loop.stages("pages").registry, "promote", by="x", now=now, version=1)
    await loop.turn("pages")
    await ask(loop)
    fates = [await receipt(loop, one) for one in said]
    assert [fate["served"] and fate["served"]["version"] for fate in fates] == [1, 1, None, None]


async def test_what_teaches_nothing_is_kept(pages: Loop) -> None:
    """A signal that means nothing for the weights says why, and is not called learned."""
    said = await say(pages, await ask(pages), "selection", None)
    await pages.turn("pages")
    found = await receipt(pages, said)
    assert found["status"] == "kept"
    assert found["reason"].startswith("nothing_to_learn: this selection teaches nothing")


async def test_what_ruins_the_model_is_quarantined(pages: Loop) -> None:
    """A vector of another length is set aside with the reason; those around it are learned."""
    said = []
    for vector in ([1.0, 2.0], [1.0, 2.0, 3.0], [3.0, 4.0]):
        option = {"id": "n", "features": {"vector": vector}}
        said.append(await say(pages, await ask(pages), "correction", option))
    await pages.turn("pages")
    fates = [await receipt(pages, one) for one in said]
    assert [fate["status"] for fate in fates] == ["learned", "quarantined", "learned"]
    assert "had 2 numbers before, and has 3 now" in fates[1]["reason"]


async def test_a_rollback_is_told(pages: Loop) -> None:
    """What was learned after the version that was gone back to counts as rolled back."""
    said = await say(pages, await ask(pages), "selection", "c")
    await pages.turn("pages")
    now = pages.ingest.clock()
    await operate(pages.stages("pages").registry, "rollback", by="x", now=now, version=0)
    await pages.turn("pages")
    later = await say(pages, await ask(pages), "selection", "b")
    await pages.turn("pages")
    assert (await receipt(pages, said))["status"] == "rolled_back"
    found = await receipt(pages, later)
    assert (found["status"], found["lineage"]) == ("learned", 2)


async def test_going_forward_again_brings_back_what_was_rolled_back(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """What counts is the version that was gone to last: what it had learned is learned again."""
    loop = await open_loop(make_settings(pages=MANUAL))
    registry, said = loop.stages("pages").registry, []
    for name in "abca":
        said.append(await say(loop, await ask(loop), "selection", name))
        await loop.turn("pages")
    told = []
    for version in (0, 2, 1):
        await operate(registry, "rollback", by="x", now=loop.ingest.clock(), version=version)
        await loop.turn("pages")
        told.append([(await receipt(loop, one))["status"] for one in said])
    assert told[0] == ["rolled_back"] * 4
    assert told[1] == ["learned"] * 4
    assert told[2] == ["learned"] * 2 + ["rolled_back"] * 2


async def test_a_changed_mind_is_told_by_both_receipts(pages: Loop) -> None:
    """Each opinion names the id of the one before and of the one after; others do not mix in."""
    prediction_id = await ask(pages)
    said = [await say(pages, prediction_id, "selection", name, user_id="ada") for name in "abc"]
    other = await say(pages, prediction_id, "selection", "a", user_id="bob")
    rating = await say(pages, prediction_id, "rating", 5, user_id="ada")
    fates = [await receipt(pages, one) for one in said]
    assert [fate["supersedes"] for fate in fates] == [None, said[0], said[1]]
    assert [fate["superseded_by"] for fate in fates] == [said[1], said[2], None]
    for alone in (other, rating):
        fate = await receipt(pages, alone)
        assert (fate["supersedes"], fate["superseded_by"]) == (None, None)


async def test_a_receipt_that_leads_nowhere_is_unknown(pages: Loop) -> None:
    """A lost entry, or another in its place, is not the feedback that was meant."""
    said = await say(pages, await ask(pages), "selection", "c")
    _, address = pages.keyring.open("feedback", said)
    registry = pages.stages("pages").registry
    for wrong in (Address(address.ms, address.seq + 9, address.nonce), Address(1, 0, "00000000")):
        with pytest.raises(NotFound) as caught:
            await explain.receipt(registry, wrong)
        assert caught.value.code == "unknown_feedback"
    with pytest.raises(NotFound):
        await explain.receipt(registry, Address(address.ms, address.seq, "0badcafe"))


# --- stories ----------------------------------------------------------------------------------


async def test_a_story_tells_all_that_was_said(pages: Loop) -> None:
    """Every signal in the order of arrival, superseded ones too, each with its fate."""
    prediction_id = await ask(pages, session_id="s", tags={"page": "home"})
    said = [
        await say(pages, prediction_id, "selection", "a", user_id="ada"),
        await say(pages, prediction_id, "rating", 2, user_id="bob"),
        await say(pages, prediction_id, "selection", "b", user_id="ada", comment="rather"),
        await say(pages, prediction_id, "selection", None, user_id="eve"),
    ]
    await say(pages, await ask(pages), "selection", "c", user_id="ada")
    await pages.turn("pages")
    await ask(pages)
    found = await story(pages, prediction_id)
    signals = found["feedback"]
    assert [signal["feedback_id"] for signal in signals] == said
    assert [signal["source"][6:] for signal in signals] == ["ada", "bob", "ada", "eve"]
    assert [signal["supersedes"] for signal in signals] == [None, None, said[0], None]
    assert [signal["status"] for signal in signals] == ["learned", "learned", "learned", "kept"]
    assert signals[2]["comment"] == "rather"
    assert signals[0]["served"]["step"] == 1
    assert found["prediction"]["session_id"] == "s"
    assert found["prediction"]["tags"] == {"page": "home"}
    assert [option["id"] for option in found["prediction"]["options"]] == ["a", "b", "c"]


@pytest.mark.parametrize("archive", [True, False])
async def test_a_story_is_told_once_its_window_has_closed(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path, clock: Any, *, archive: bool
) -> None:
    """Streams are trimmed by whole nodes: the answer may be there long after the index is gone."""
    place = str(tmp_path) if archive else None
    loop = await open_loop(make_settings(web=ALWAYS | {"archive": place}, window_s=60))
    stages = loop.stages("web")
    one = str((await loop.predict("web", {"a": 1}))["prediction_id"])
    said = await say(loop, one, "correction", True, user_id="ada")
    await loop.turn("web")
    other = str((await loop.predict("web", {"a": 2}))["prediction_id"])
    await say(loop, other, "correction", False, user_id="ada")
    if stages.archiver is not None:
        await stages.archiver.flush()
    _, address = loop.keyring.open("prediction", one)
    assert await loop.store.call("DEL", stages.registry.keys.said(address.entry)) == 1  # expires
    clock.advance(61)
    told = await explain.answer(stages.log, address, window_s=60, now_s=clock())
    [signal] = told["feedback"]
    assert (signal["feedback_id"], signal["status"]) == (said, "learned")
    assert signal["served"]["step"] == 1
    assert "archived" not in told
    assert "incomplete" not in told


async def test_a_story_is_not_looked_for_without_end(
    loop: Loop, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where very much was said since, it says that it does not tell all."""
    monkeypatch.setattr(archived, "MOST_ENTRIES", 1)
    one = str((await loop.predict("web", {"a": 1}))["prediction_id"])
    await say(loop, one, "correction", True, user_id="ada")
    await say(loop, one, "correction", True, user_id="eve")
    _, address = loop.keyring.open("prediction", one)
    log, window_s = loop.stages("web").log, loop.settings.window_s
    clock.advance(window_s + 1)
    told = await explain.answer(log, address, window_s=window_s, now_s=clock())
    assert told["feedback"] == []
    assert "too much was said" in told["incomplete"]


async def test_a_story_says_why_its_version_was_live(pages: Loop) -> None:
    """The decision before the answer, not one that came after it."""
    registry = pages.stages("pages").registry
    before, now = await ask(pages), pages.ingest.clock()
    await next_ms(pages)
    await operate(registry, "freeze", by="key:x", now=now)
    await next_ms(pages)
    between = await ask(pages)
    await next_ms(pages)
    await operate(registry, "thaw", by="key:x", now=now)
    stories = [await story(pages, prediction_id) for prediction_id in (before, between)]
    assert "asks for no evidence" in stories[0]["live_because"]["sentence"]
    assert stories[1]["live_because"]["action"] == "freeze"


@pytest.mark.parametrize("action", ["admit", "restart", "reject", "doubt", "trust"])
async def test_what_moves_nobody_is_no_reason(pages: Loop, action: Any) -> None:
    """What did not move who answers does not explain who answered, however much there is of it."""
    registry = pages.stages("pages").registry
    other = Verdict(action=action, by="Leash", sentence="Something about version 9.", version=9)
    pipe = pages.store.redis.pipeline()
    for _ in range(1200):
        pipe.xadd(registry.keys.verdicts, {"v": other.pack()})
    await pipe.execute()
    await next_ms(pages)
    told = await story(pages, await ask(pages))
    assert "asks for no evidence" in told["live_because"]["sentence"]


async def test_the_first_version_needs_no_reason(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Before any decision there is none to tell of."""
    loop = await open_loop(make_settings(pages=MANUAL))
    found = await story(loop, await ask(loop))
    assert (found["live_because"], found["feedback"], found["learned_by"]) == (None, [], [])


async def test_a_story_names_the_versions_that_learned_from_it(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Each snapshot that was the first to hold one of its signals, once and in order."""
    loop = await open_loop(make_settings(pages=MANUAL))
    prediction_id = await ask(loop)
    for n in range(5):
        await say(loop, prediction_id, "selection", "a", user_id=str(n))
        await loop.turn("pages")
    assert (await story(loop, prediction_id))["learned_by"] == [1, 2]


async def test_what_rules_said_is_in_the_story(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A flag on the output is a signal of the system, and learned like one."""
    rules = [{"rule": "range", "high": 0.0, "severity": "block", "name": "sane"}]
    loop = await open_loop(make_settings(rent=ALWAYS | {"rules": rules, "fallback": "ask"}))
    plain = (await loop.predict("rent", {"rooms": 1.0}))["prediction_id"]
    await loop.feedback(plain, "correction", 900.0)
    await loop.turn("rent")
    blocked = await loop.predict("rent", {"rooms": 1.0})
    assert (blocked["blocked"], blocked["output"]) == (True, "ask")
    await loop.feedback(blocked["prediction_id"], "correction", 800.0, user_id="ada")
    await loop.turn("rent")
    found = await story(loop, blocked["prediction_id"], "rent")
    assert (found["prediction"]["blocked"], found["prediction"]["fallback"]) == (True, "ask")
    assert found["prediction"]["output"] > 0.0
    assert [(s["kind"], s["source"], s["status"]) for s in found["feedback"]] == [
        ("flag", "system:sane", "kept"),
        ("correction", "human:ada", "learned"),
    ]
    assert [s["kind"] for s in (await story(loop, plain, "rent"))["feedback"]] == ["correction"]
    flag = await receipt(loop, found["feedback"][0]["feedback_id"], "rent")
    assert flag["feedback"]["value"]["severity"] == "block"


async def test_a_flag_lowers_the_output_that_it_speaks_of(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Of several logged outputs the flagged one loses to the others, whichever is first."""
    rules = [{"rule": "blocklist", "words": ["bill"], "on": "output"}]
    loop = await open_loop(make_settings(llm=ALWAYS | {"rules": rules}))
    answer = await loop.log("llm", prompt="x", outputs=OUTPUTS)
    assert [flag["option"] for flag in answer["flags"]] == ["1"]
    await loop.turn("llm")
    again = await loop.log("llm", prompt="x", outputs=OUTPUTS)
    assert again["scores"]["1"] < 0.0 < again["scores"]["0"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_preference_is_in_the_stories_of_both_answers(
    pages: Loop, order: tuple[int, int]
) -> None:
    """What compares two answers is told with either, and learned once."""
    ids = []
    for output in OUTPUTS:
        logged = await pages.log("llm", prompt="what is an invoice?", outputs=[output])
        ids.append(logged["prediction_id"])
    chosen, rejected = (ids[place] for place in order)
    body = {"kind": "preference", "chosen": chosen, "rejected": rejected, "user_id": "ada"}
    said = await pages.ingest.accept(read_feedback(body))
    await pages.turn("llm")
    for prediction_id in ids:
        [signal] = (await story(pages, prediction_id, "llm"))["feedback"]
        assert signal["feedback_id"] == said.feedback_id
        assert signal["status"] == "learned"
    assert pages.stages("llm").trainer.at.learned == 1
    first, second = (OUTPUTS[place] for place in order)
    scores = (await pages.log("llm", prompt="x", outputs=OUTPUTS))["scores"]
    assert scores[first["id"]] > scores[second["id"]]


async def test_an_answer_that_the_model_cannot_score_is_logged(pages: Loop) -> None:
    """What was made elsewhere is kept though the reward model fails on it, without scores."""
    outputs = [OUTPUTS[0], {"id": "1", "text": "a \0 bill"}]
    answer = await pages.log("llm", prompt="x", outputs=outputs)
    assert (answer["output"], answer["scores"], answer["ask"]) == (["0", "1"], {}, None)
    said = await say(pages, answer["prediction_id"], "thumbs", value=True)
    await pages.turn("llm")
    found = await story(pages, answer["prediction_id"], "llm")
    assert [signal["feedback_id"] for signal in found["feedback"]] == [said]
    assert found["feedback"][0]["status"] == "quarantined"


async def test_a_feature_named_messages_stops_nobody(pages: Loop) -> None:
    """A ranking may have a feature of that name; what is said about it is learned all the same."""
    for value in ("unread", [1.0, 2.0]):
        answer = await pages.predict("pages", {"messages": value}, options=OPTIONS)
        said = await say(pages, answer["prediction_id"], "selection", "c")
        await pages.turn("pages")
        assert (await receipt(pages, said))["status"] == "learned"


def test_scoring_counts_towards_how_slow_answers_are(pages: Loop) -> None:
    """A model that is only asked for rewards leaves the event loop as well where it takes long."""
    predictor, ticks = pages.stages("llm").predictor, itertools.count()
    predictor.clock = lambda: float(next(ticks))  # a second passes whenever it is looked at
    assert not predictor.slow
    predictor.score(ScoreRequest.model_validate({"prompt": "Hi", "outputs": ["a", "b"]}))
    assert predictor.slow


async def test_the_lag_is_the_age_of_what_waits(loop: Loop) -> None:
    """A signal after a quiet spell lags by its own age, and what is learned by none."""
    registry = loop.stages("web").registry
    answer = await loop.predict("web", {"x": 1.0})
    await loop.feedback(answer["prediction_id"], "thumbs", value=True, user_id="ada")
    [(entry, _)] = await loop.store.latest(registry.keys.feedback)
    said_at = int(entry.partition("-")[0]) / 1000
    assert await explain.lag_s(registry, now=said_at + 7.0) == pytest.approx(7.0)
    await loop.turn("web")
    assert await explain.lag_s(registry, now=said_at + 7.0) == 0.0
