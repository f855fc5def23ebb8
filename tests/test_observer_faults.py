"""Observers that fail, stores that fail under them, and tables that a learner cannot take."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from the_learner import Faulty, Killed, heir, process, run, steps_of
from the_lens import Notes, say, watched

from online_learner.loop import Loop
from online_learner.observe import findings
from online_learner.observe.observer import Observer
from online_learner.operate import operate
from online_learner.release import release_rolled_back
from online_learner.schema import Control, Scaling
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import Store
from policies.lens import Lens

Opener = Callable[..., Awaitable[Loop]]
Make = Callable[..., Settings]

SAYS: dict[str, Callable[[Any], Any]] = {
    "report": lambda _: {"raters": {"ada"}},
    "table": lambda _: {"ada": math.nan},
    "state": lambda _: {"a": object()},
    "ask": lambda _: math.inf,
    "scalings": lambda _: {"champion:0": Scaling(shifts={"true": math.inf})},
    "alarms": lambda _: 1 / 0,
}


def notes(observer: Observer) -> Any:
    """Return the observer that is watched."""
    return observer.lenses["raters"]


def another(loop: Loop, *, store: Store | None = None) -> Observer:
    """Return the observer of another process of the same service."""
    spec, clock = loop.settings.models["web"], loop.ingest.clock
    return Stages(store or loop.store, loop.keyring, "web", spec, clock=clock).observer


# --- observers that fail ----------------------------------------------------------------------


@pytest.mark.parametrize("what", SAYS)
async def test_what_cannot_be_kept_closes_one_pair_of_eyes(
    open_loop: Opener,
    make_settings: Make,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    """It is said once, in all turns and commits that follow, and the others are kept."""
    monkeypatch.setattr(Lens, what, SAYS[what])
    loop = await open_loop(watched(make_settings, more={"drift": "policies.lens:Lens"}))
    for _ in range(3):
        await say(loop, "ada")
        await loop.turn("web")
    assert caplog.text.count("the observer 'drift' of 'web' failed") == 1
    kept = await loop.stages("web").registry.observations()
    assert kept is not None
    assert kept[1]["raters"]["heard"] == {"human:ada": 3}
    assert "drift" not in kept[1]


async def test_a_table_that_is_too_large_is_not_passed_on(
    open_loop: Opener,
    make_settings: Make,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would be in the stream, and in each checkpoint, and is taken back where it grew."""
    monkeypatch.setattr(findings, "MOST_TABLE_BYTES", 30)
    loop = await open_loop(watched(make_settings, doubt=0.5))
    for source in ("ada", "ada", "bob", "bob"):
        await say(loop, source)
        await loop.turn("web")
    assert caplog.text.count("the observer 'raters' of 'web' failed") == 1
    await loop.turn("web")
    assert loop.stages("web").trainer.interpreter.corrections.tables == {}


async def test_what_a_failed_observer_knew_is_kept(
    open_loop: Opener, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started again, it goes on from there: what came meanwhile is all that it has missed."""
    loop = await open_loop(watched(make_settings))
    await say(loop, "ada")
    await loop.turn("web")
    with monkeypatch.context() as patch:
        patch.setattr(Notes, "hear", lambda _, signal: int(signal.answer))
        await say(loop, "bob")
        await loop.turn("web")
        await loop.turn("web")
    assert "raters" not in loop.stages("web").observer.lenses
    again = another(loop)
    await say(loop, "cid")
    await again.turn()
    assert notes(again).heard == {"human:ada": 1, "human:cid": 1}


async def test_what_was_told_and_is_forgotten_is_taken_back(
    open_loop: Opener, make_settings: Make, clock: Any
) -> None:
    """Where its own state is damaged, learner and gateways do not go on by what nobody knows."""
    loop = await open_loop(watched(make_settings, doubt=0.25, ask=2.0))
    for _ in range(3):
        await say(loop, "ada")
        await loop.turn("web")
    await loop.turn("web")
    registry = loop.stages("web").registry
    assert (await registry.advice()).ask == 2.0
    assert loop.stages("web").trainer.interpreter.corrections.tables
    await loop.store.call("HSET", registry.keys.observer, "blob", "{}")
    clock.advance(3600)
    other = await open_loop(watched(make_settings))
    await say(other, "bob")
    await other.turn("web")
    await other.turn("web")
    assert (await registry.advice()).ask == 1.0
    assert other.stages("web").trainer.interpreter.corrections.tables == {}


# --- answers ----------------------------------------------------------------------------------


async def test_who_could_not_be_found_any_more_is_not_silent(
    open_loop: Opener, make_settings: Make, clock: Any
) -> None:
    """What was said is forgotten once answers take no feedback: after that they are left out."""
    settings = watched(make_settings, window_s=600.0).model_copy(update={"window_s": 100.0})
    loop = await open_loop(settings)
    await say(loop, "ada")
    clock.advance(40)
    await loop.turn("web")
    assert notes(loop.stages("web").observer).seen == []
    clock.advance(15)
    await loop.turn("web")
    assert [kinds for _, kinds in notes(loop.stages("web").observer).seen] == [["correction"]]
    observed = await loop.stages("web").registry.observed()
    assert observed is not None
    assert observed[0].window_s == 50.0
    await say(loop, "bob")
    clock.advance(200)
    await loop.turn("web")
    assert len(notes(loop.stages("web").observer).seen) == 1


async def test_a_clock_that_is_set_back_loses_no_answers(
    open_loop: Opener, make_settings: Make, clock: Any
) -> None:
    """A sample is drawn of what is there, and the next begins behind the last of it."""
    loop = await open_loop(watched(make_settings, more={"most_per_s": 1.0}))
    observer = loop.stages("web").observer
    await observer.turn()
    for n in range(9):
        await loop.predict("web", {"a": float(n)})
    clock.advance(86_000 * 0.8)
    observer._turned_at = clock() - 1.0
    await observer.turn(at_once=False)
    before = len(notes(observer).seen)
    assert before <= 1
    clock.advance(-86_000 * 0.8)
    last = await loop.predict("web", {"a": 1.0})
    clock.advance(90)
    await observer.turn()
    entry = loop.keyring.open("prediction", last["prediction_id"])[1].entry
    assert notes(observer).seen[before:] == [(entry, [])]


async def test_late_words_on_old_answers_are_audits_to_a_new_observer(
    open_loop: Opener, make_settings: Make, clock: Any
) -> None:
    """Where there was none before, those are seen that settle from now on, however old."""
    loop = await open_loop(watched(make_settings))
    early = await loop.predict("web", {"a": 1.0})
    late = await loop.predict("web", {"a": 2.0})
    await loop.feedback(early["prediction_id"], "correction", True)
    await loop.learn("web")
    while await loop.stages("web").gatekeeper.turn():
        pass
    await loop.store.call("DEL", loop.stages("web").registry.keys.observer)
    clock.advance(3600)
    observer = another(loop)
    await observer.turn()
    await loop.feedback(late["prediction_id"], "correction", True)
    while await loop.stages("web").gatekeeper.turn():
        pass
    await observer.turn()
    assert notes(observer).settled == [
        loop.keyring.open("prediction", late["prediction_id"])[1].entry
    ]


# --- stores that fail -------------------------------------------------------------------------


async def test_an_observer_may_die_at_any_command(open_loop: Opener, make_settings: Make) -> None:
    """Killed before or after any command it sends, the next one has seen all of it, once."""
    loop = await open_loop(watched(make_settings, doubt=0.5))
    for source in ("ada", "ada", "bob"):
        await say(loop, source)
    await loop.learn("web")
    keys = loop.stages("web").registry.keys
    names = (keys.observer, keys.advice, keys.alarms, keys.quality, keys.feedback)
    images = [(name, await loop.store.call("DUMP", name)) for name in names]
    at, commands = 0, 1
    while at < commands:
        for done in (False, True):
            for name, image in images:
                await loop.store.call("DEL", name)
                if image is not None:
                    await loop.store.call("RESTORE", name, 0, image)
            faulty = Faulty(loop.store.url, at, done=done, error=Killed())
            with pytest.raises(Killed):
                await another(loop, store=faulty).turn()
            await faulty.close()
            last = another(loop)
            await last.turn()
            assert notes(last).heard == {"human:ada": 2, "human:bob": 1}
            assert await loop.store.call("XLEN", keys.alarms) == 1
            controls = [f for _, f in await loop.store.range(keys.feedback) if b"c" in f]
            assert len(controls) == 1
        counting = Faulty(loop.store.url, -1, done=False, error=Killed())
        await another(loop, store=counting).turn()
        commands = max(commands, counting.commands)
        await counting.close()
        at += 1
    assert commands >= 2


async def test_of_two_observers_the_slower_drops_what_it_found(
    open_loop: Opener, make_settings: Make
) -> None:
    """Nothing is told twice, and it goes on from where the other stands."""
    loop = await open_loop(watched(make_settings, doubt=0.5))
    first, second = another(loop), another(loop)
    await first.turn()
    await second.turn()
    await say(loop, "ada")
    await say(loop, "ada")
    await first.turn()
    await second.turn()
    await second.turn()
    assert notes(second).heard == {"human:ada": 2}
    keys = loop.stages("web").registry.keys
    assert await loop.store.call("XLEN", keys.alarms) == 1
    assert sum(b"c" in fields for _, fields in await loop.store.range(keys.feedback)) == 1


# --- a learner that is told -------------------------------------------------------------------


async def told(loop: Loop, tables: dict[str, dict[str, Any]]) -> None:
    """Tell the learner."""
    control = Control(action="tables", tables=tables).model_dump_json()
    await loop.store.call("XADD", loop.stages("web").registry.keys.feedback, "*", "c", control)


@pytest.mark.parametrize(
    "table",
    [{"weights": "?"}, {"weights": {"human:ada": -1.0}, "default": 1.0}, {"odd": [1, 2]}],
    ids=["a form", "a number", "a key"],
)
async def test_a_table_that_cannot_be_taken_corrects_nothing(
    open_loop: Opener,
    make_settings: Make,
    caplog: pytest.LogCaptureFixture,
    table: dict[str, Any],
) -> None:
    """The learner goes on, and says so; a replay, and another process, end with the same bits."""
    loop = await open_loop(make_settings(web={}))
    await told(loop, {"raters": {"weights": {"human:ada": 0.5}, "default": 1.0}})
    await say(loop, "ada")
    await loop.learn("web")
    await told(loop, {"raters": table})
    await say(loop, "ada", a=2.0)
    await run(loop.stages("web").trainer)
    trainer = loop.stages("web").trainer
    assert trainer.interpreter.corrections.tables == {}
    assert "the observer 'raters' corrects nothing" in caplog.text
    last = [step for _, step in await steps_of(trainer.registry)][-1]
    assert not any(weighed.factors for weighed in last.weighed.values())
    assert not last.set_aside
    other = heir(loop)
    await other.rewind()
    while await other.replay_step():
        pass
    assert (other.differs, other.learner.digest()) == (None, trainer.learner.digest())
    assert other.memory() == trainer.memory()
    again = process(loop)
    await again.restore()
    assert again.learner.digest() == trainer.learner.digest()


@pytest.mark.parametrize("odd", ["soon", None, math.inf, True, [1.0], -5.0])
async def test_effects_of_an_odd_drift_table_are_none(
    open_loop: Opener, make_settings: Make, odd: Any
) -> None:
    """A team's own observer of drift may say anything: the learner goes on as it would."""
    loop = await open_loop(watched(make_settings, more={"drift": "policies.lens:Lens"}))
    trainer = loop.stages("web").trainer
    trainer.interpreter.heed({"drift": {"haste": odd, "suspend_until_ms": odd}})
    assert trainer.interpreter.haste == 1.0
    await say(loop, "ada")
    await loop.turn("web")
    assert [step.signals for _, step in await steps_of(trainer.registry)] == [1]


async def test_a_table_does_not_publish_out_of_turn(
    open_loop: Opener, make_settings: Make, clock: Any
) -> None:
    """Large weights are not written each time an observer speaks; they are when it is due."""
    loop = await open_loop(make_settings(web={"publish_s": 60.0}))
    trainer, registry = loop.stages("web").trainer, loop.stages("web").registry
    before = await registry.published()
    assert before is not None
    for weight in (0.5, 0.6, 0.7):
        await told(loop, {"raters": {"weights": {"human:ada": weight}, "default": 1.0}})
        await trainer.turn()
    published = await registry.published()
    assert published is not None
    assert published.step == before.step
    clock.advance(120)
    await trainer.turn()
    published = await registry.published()
    assert published is not None
    assert published.step == before.step + 3
    other = process(loop)
    await other.restore()
    assert other.interpreter.corrections.tables["raters"]["weights"] == {"human:ada": 0.7}


async def test_what_was_rolled_back_is_released_without_the_tables(
    open_loop: Opener, make_settings: Make
) -> None:
    """A table in between is no signal: it stays in force, and nobody is asked to learn it again."""
    loop = await open_loop(make_settings(web={}))
    registry, trainer = loop.stages("web").registry, loop.stages("web").trainer
    await say(loop, "ada")
    await told(loop, {"raters": {"weights": {"human:ada": 0.5}, "default": 1.0}})
    await say(loop, "ada", a=2.0)
    await run(trainer)
    await operate(registry, "rollback", by="ops", now=loop.ingest.clock(), version=0)
    await run(trainer)
    assert len(await release_rolled_back(registry, by="ops")) == 2
    await run(trainer)
    assert trainer.at.learned == 2
    assert trainer.interpreter.corrections.tables["raters"]["default"] == 1.0
    other = heir(loop)
    await other.rewind()
    while await other.replay_step():
        pass
    assert other.learner.digest() == trainer.learner.digest()


async def test_a_learner_that_is_told_may_die_at_any_command(
    open_loop: Opener, make_settings: Make
) -> None:
    """With tables, and poison, in between: the next one ends with the same weights, and tables."""
    loop = await open_loop(make_settings(web={"learner": "the_learner:Wary", "batch_max": 3}))
    registry, keys = loop.stages("web").registry, loop.stages("web").registry.keys
    for n in range(3):
        await say(loop, "ada", a=float(n))
        weights = {"human:ada": 0.5 + 0.1 * n}
        await told(loop, {"raters": {"weights": weights, "default": 1.0}} if n else {"raters": {}})
        await say(loop, "ada", a=0.5, word="poison")
        await say(loop, "bob", a=float(-n))
    image = {key: await loop.store.call("DUMP", key) for key in await loop.store.call("KEYS", "*")}
    counting = Faulty(loop.store.url, -1, done=False, error=Killed())
    whole = process(loop, store=counting)
    await run(whole)
    await counting.close()
    expected = whole.learner.digest(), whole.interpreter.corrections.tables, whole.at.learned
    assert expected[1]["raters"]["weights"] == {"human:ada": 0.7}
    assert expected[2] == 6
    for at in range(counting.commands):
        for done in (False, True):
            for key, value in image.items():
                await loop.store.call("RESTORE", key, 0, value, "REPLACE")
            await loop.store.call("DEL", keys.steps, keys.quarantine, keys.before)
            faulty = Faulty(loop.store.url, at, done=done, error=Killed())
            with pytest.raises(Killed):
                await run(process(loop, store=faulty))
            await faulty.close()
            trainer = process(loop)
            await run(trainer)
            found = trainer.learner.digest(), trainer.interpreter.corrections.tables
            assert (*found, trainer.at.learned) == expected, (at, done)
            steps = [step for _, step in await steps_of(registry)]
            assert [s.after for s in steps] == ["0-0", *(s.to for s in steps[:-1])]
