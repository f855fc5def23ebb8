"""Observers: what they are shown, what is kept of it, and what follows for learner and answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from the_learner import heir, steps_of
from the_lens import OFF, say, watched

from online_learner.explore import CHAMPION
from online_learner.loop import Loop
from online_learner.schema import Raised, Scaling, place_of
from online_learner.settings import Settings
from online_learner.stages import Stages

Opener = Callable[..., Awaitable[Loop]]
Make = Callable[..., Settings]


def notes(loop: Loop) -> Any:
    """Return the observer of the model, as it looks on in this process."""
    return loop.stages("web").observer.lenses["raters"]


# --- what they are shown ----------------------------------------------------------------------


async def test_an_answer_is_seen_once_its_window_is_over(
    open_loop: Opener, make_settings: Make, clock: Any
) -> None:
    """It comes with what was said of it; who said nothing is silent, and nothing is seen twice."""
    loop = await open_loop(watched(make_settings))
    spoken = await say(loop, "ada")
    silent = loop.keyring.open("prediction", (await loop.predict("web", {}))["prediction_id"])[1]
    await loop.turn("web")
    assert notes(loop).seen == []
    clock.advance(90)
    await loop.turn("web")
    await loop.turn("web")
    assert notes(loop).seen == [(spoken, ["correction"]), (silent.entry, [])]


async def test_what_is_said_after_the_window_does_not_count(
    open_loop: Opener, make_settings: Make, clock: Any
) -> None:
    """Who speaks up late was silent when it was looked at, and is heard all the same."""
    loop = await open_loop(watched(make_settings, window_s=0.001))
    answer = await loop.predict("web", {"a": 1.0})
    address = loop.keyring.open("prediction", answer["prediction_id"])[1]
    while await now_ms(loop) <= address.ms + 2:
        pass
    await loop.feedback(answer["prediction_id"], "thumbs", True, user_id="ada")
    clock.advance(5)
    await loop.turn("web")
    assert notes(loop).seen == [(address.entry, [])]
    assert notes(loop).heard == {"human:ada": 1}


async def now_ms(loop: Loop) -> int:
    """Return the store's time, in milliseconds."""
    seconds, micros = await loop.store.call("TIME")
    return int(seconds) * 1000 + int(micros) // 1000


async def test_of_very_many_answers_a_sample_is_seen(
    open_loop: Opener, make_settings: Make, clock: Any
) -> None:
    """No more than asked for are looked at, and what is left out is not made up for later."""
    loop = await open_loop(watched(make_settings, more={"most_per_s": 5.0}))
    stages = loop.stages("web")
    await stages.observer.turn()
    for n in range(40):
        await loop.predict("web", {"a": float(n)})
    clock.advance(90)
    stages.observer._turned_at = clock() - 2.0
    await stages.observer.turn(at_once=False)
    assert 1 <= len(notes(loop).seen) <= 10
    before = list(notes(loop).seen)
    await stages.observer.turn()
    assert notes(loop).seen == before


async def test_less_than_one_answer_a_second_is_seen_where_that_is_asked_for(
    open_loop: Opener, make_settings: Make, clock: Any
) -> None:
    """What is too little for one turn adds up."""
    loop = await open_loop(watched(make_settings, more={"most_per_s": 0.25}))
    observer = loop.stages("web").observer
    await observer.turn()
    for n in range(9):
        await loop.predict("web", {"a": float(n)})
    clock.advance(60.5)
    observer._turned_at, observer._may_see = clock(), 0.0
    seen = []
    for _ in range(4):
        clock.advance(1.0)
        await observer.turn(at_once=False)
        seen.append(len(notes(loop).seen))
    assert seen == [0, 0, 0, 1]


async def test_audits_are_shown_as_they_settle(open_loop: Opener, make_settings: Make) -> None:
    """Each audit that was labelled is shown once, in the order of the answers."""
    loop = await open_loop(watched(make_settings))
    entries = [await say(loop, "ada", a=float(n)) for n in range(3)]
    await loop.turn("web")
    assert notes(loop).settled == entries


# --- what is kept -----------------------------------------------------------------------------


async def test_another_process_goes_on_where_the_last_commit_stood(
    open_loop: Opener, make_settings: Make
) -> None:
    """What was observed survives, and is neither observed again nor left out."""
    settings = watched(make_settings)
    loop = await open_loop(settings)
    await say(loop, "ada")
    await loop.turn("web")
    other = await open_loop(settings)
    await say(other, "ada")
    await say(other, "bob")
    await other.turn("web")
    assert notes(other).heard == {"human:ada": 2, "human:bob": 1}


async def test_of_two_who_observe_at_once_one_is_too_late(
    open_loop: Opener, make_settings: Make
) -> None:
    """It drops what it found, takes over what the other kept, and nothing is counted twice."""
    settings = watched(make_settings)
    loop = await open_loop(settings)
    await loop.turn("web")
    spec = loop.settings.models["web"]
    rival = Stages(loop.store, loop.keyring, "web", spec, clock=loop.ingest.clock).observer
    await rival.turn()
    await say(loop, "ada")
    await loop.stages("web").observer.turn()
    await rival.turn()
    await say(loop, "ada")
    await rival.turn()
    await loop.stages("web").observer.turn()
    await loop.stages("web").observer.turn()
    kept = await loop.stages("web").registry.observations()
    assert kept is not None
    assert kept[1]["raters"]["heard"] == {"human:ada": 2}
    assert await loop.store.call("XLEN", rival._keys.alarms) == 1


async def test_what_was_tampered_with_is_begun_anew(
    open_loop: Opener, make_settings: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """A state without a valid seal is refused and said so; the next commit takes its place."""
    settings = watched(make_settings)
    loop = await open_loop(settings)
    await say(loop, "ada")
    await loop.turn("web")
    keys = loop.stages("web").registry.keys
    await loop.store.call("HSET", keys.observer, "blob", json.dumps({"raters": {"heard": {}}}))
    other = await open_loop(settings)
    await say(other, "bob")
    await other.turn("web")
    assert "is refused" in caplog.text
    assert notes(other).heard == {"human:ada": 1, "human:bob": 1}  # from the stream, once more
    assert await other.stages("web").registry.observed() is not None


async def test_one_observer_that_fails_blinds_no_other(
    open_loop: Opener, make_settings: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """It looks no further, which is logged once, and the others go on."""
    loop = await open_loop(watched(make_settings, more={"drift": "the_lens:Blind"}))
    for _ in range(3):
        await say(loop, "ada")
        await loop.turn("web")
    assert notes(loop).heard == {"human:ada": 3}
    assert caplog.text.count("the observer 'drift' of 'web' failed") == 1


async def test_an_alarm_is_an_entry_of_its_stream(open_loop: Opener, make_settings: Make) -> None:
    """It says who raised it, and when, and is there once."""
    loop = await open_loop(watched(make_settings))
    for _ in range(3):
        await say(loop, "ada")
        await loop.turn("web")
    [(_, fields)] = await loop.store.range(loop.stages("web").registry.keys.alarms)
    raised = Raised.model_validate_json(fields[b"a"])
    assert (raised.by, raised.sentence) == ("raters", "human:ada speaks again")
    assert raised.at == loop.ingest.clock()


# --- what the learner is told -----------------------------------------------------------------


async def test_the_learner_weighs_by_what_it_was_told(
    open_loop: Opener, make_settings: Make
) -> None:
    """From the entry of the stream on, and not before; the step says what each lesson weighed."""
    loop = await open_loop(watched(make_settings, doubt=0.25))
    for _ in range(3):
        await say(loop, "ada")
        await loop.turn("web")
    await loop.turn("web")
    await say(loop, "ada")
    await say(loop, "bob")
    await loop.turn("web")
    steps = [step for _, step in await steps_of(loop.stages("web").registry)]
    told = next(number for number, step in enumerate(steps) if step.tables)
    factors = [
        [weighed.factors for weighed in step.weighed.values() if weighed.factors] for step in steps
    ]
    assert not any(factors[:told])
    assert [{"raters": 0.25}] in factors[told:]
    last = steps[-1].weighed.values()
    assert next(weighed.given / weighed.raw for weighed in last if weighed.factors) < 0.6


async def test_a_replay_weighs_as_it_was_weighed(open_loop: Opener, make_settings: Make) -> None:
    """With tables in between, and a crash before the last, the weights are the same bits."""
    settings = watched(make_settings, doubt=0.25)
    loop = await open_loop(settings)
    for n in range(6):
        await say(loop, "ada", value=n % 2 == 0, a=float(n))
        await say(loop, "bob", value=n % 2 == 1, a=float(-n))
        await loop.turn("web")
    trainer = loop.stages("web").trainer
    other = heir(loop)
    await other.rewind()
    while await other.replay_step():
        pass
    assert other.differs is None
    assert (other.at.digest, other.learner.digest()) == (
        trainer.at.digest,
        trainer.learner.digest(),
    )
    assert other.memory() == trainer.memory()
    assert other.interpreter.corrections.tables["raters"] == {"human:ada": 0.25, "human:bob": 0.25}


async def test_what_it_was_told_survives_a_restart_and_a_rollback(
    open_loop: Opener, make_settings: Make
) -> None:
    """A learner of another process knows the tables; going back to a version does not undo them."""
    settings = watched(make_settings, doubt=0.25)
    loop = await open_loop(settings)
    for _ in range(3):
        await say(loop, "ada")
        await loop.turn("web")
    await loop.turn("web")
    other = heir(loop)
    await other.restore()
    assert other.interpreter.corrections.tables == {"raters": {"human:ada": 0.25}}
    await other.reset(other.at.offset, 0, 2)
    assert other.interpreter.corrections.tables == {"raters": {"human:ada": 0.25}}


async def test_an_observer_that_is_switched_off_takes_its_table_back(
    open_loop: Opener, make_settings: Make
) -> None:
    """The learner is told by an entry like any other, and weighs as if nothing had been said."""
    loop = await open_loop(watched(make_settings, doubt=0.25))
    for _ in range(3):
        await say(loop, "ada")
        await loop.turn("web")
    off = await open_loop(watched(make_settings, more={"raters": None}))
    await say(off, "ada")
    await off.turn("web")
    await off.turn("web")
    assert off.stages("web").trainer.interpreter.corrections.tables == {}


async def test_a_factor_that_is_no_number_sets_the_signal_aside(
    open_loop: Opener, make_settings: Make
) -> None:
    """Neither the learner nor the others suffer for it, and the reason names the observer."""
    loop = await open_loop(watched(make_settings, doubt=-1.0))
    for _ in range(4):
        await say(loop, "ada")
        await loop.turn("web")
    keys = loop.stages("web").registry.keys
    reasons = [json.loads(f[b"q"])["reason"] for _, f in await loop.store.range(keys.quarantine)]
    assert reasons
    assert all("the observer 'raters' gave it a factor of -1" in reason for reason in reasons)


# --- what those who answer heed ---------------------------------------------------------------


async def test_answers_heed_what_observers_advise(open_loop: Opener, make_settings: Make) -> None:
    """Scores are scaled, and recorded as such; output and shadows are as they were."""
    loop = await open_loop(watched(make_settings, ask=2.0))
    for n in range(4):
        await say(loop, "ada", a=1.0 + n)
    await loop.turn("web")
    bundle = loop.stages("web").predictor.bundle
    assert bundle is not None
    assert (bundle.advice.ask, bundle.advice.n) == (2.0, 1)
    scaling = bundle.scaling(CHAMPION)
    answer = await loop.predict("web", {"a": 3.0})
    _, address = loop.keyring.open("prediction", answer["prediction_id"])
    record = await loop.stages("web").journal.read(address)
    place = place_of(CHAMPION, record.version)
    assert (scaling is None) == (place not in bundle.advice.scalings)
    raw = record.shadows[CHAMPION].scores
    if scaling is not None:
        assert record.scaling == scaling == Scaling(slope=0.5)
        assert record.scores == pytest.approx(scaling.apply(raw))
        assert record.raw_scores() == pytest.approx(raw)
    assert answer["output"] == record.shadows[CHAMPION].output


async def test_a_scaling_is_applied_to_no_other_weights(
    open_loop: Opener, make_settings: Make
) -> None:
    """From the first answer after the leash is taken up, or pulled, it is that of those weights."""
    scaled = OFF | {"scores": {"apply": "on"}}
    prior = {"learner": "river.dummy:PriorClassifier", "publish_s": 0.0, "audit": 1.0}
    loop = await open_loop(make_settings(web={"observe": scaled, **prior}))
    found = []
    for n, value in enumerate([True] * 45 + [False] * 45):
        answer = await loop.predict("web", {"a": 1.0})
        rater = f"rater-{n % 30}"
        await loop.feedback(answer["prediction_id"], "correction", value, user_id=rater)
        await loop.turn("web")
        bundle = loop.stages("web").predictor.bundle
        assert bundle is not None
        place = "latest" if bundle.aliases.following else "champion:0"
        assert bundle.scaling(CHAMPION) == bundle.advice.scalings.get(place)
        found.append((bundle.aliases.following, bundle.advice.scalings))
    pulled = max(n for n, (following, _) in enumerate(found) if following) + 1
    steps, version = (found[pulled][1].get(place) for place in ("latest", "champion:0"))
    assert steps is not None
    assert version is not None
    assert steps != version


async def test_advice_that_was_tampered_with_is_not_heeded(
    open_loop: Opener, make_settings: Make
) -> None:
    """Without a valid seal it is as if nothing had been advised, and answers go on."""
    loop = await open_loop(watched(make_settings, ask=2.0))
    await say(loop, "ada")
    await loop.turn("web")
    keys, follower = loop.stages("web").registry.keys, loop.stages("web").follower
    await loop.store.call("HSET", keys.advice, "meta", json.dumps({"n": 9, "ask": 99.0}))
    await follower.refresh()
    bundle = loop.stages("web").predictor.bundle
    assert bundle is not None
    assert bundle.advice.ask == 1.0
    assert await loop.predict("web", {"a": 1.0})


def test_scaling_is_undone_by_its_inverse() -> None:
    """What was scaled comes back, whatever the slope and the shifts; the sums are 1."""
    scores = {"a": 0.7, "b": 0.2, "c": 0.1}
    for scaling in (Scaling(), Scaling(slope=0.3, shifts={"a": 1.5}), Scaling(slope=4.0)):
        scaled = scaling.apply(scores)
        assert sum(scaled.values()) == pytest.approx(1.0)
        assert scaling.undo(scaled) == pytest.approx(scores)
