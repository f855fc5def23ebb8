"""What was taken back is soon in no weights: those of a replay in which it was never said."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from the_forgotten import by_hand, check_unlearned, take_back
from the_learner import Faulty, Killed, entry_of, process, run, say, steps_of

from online_learner import explain
from online_learner.errors import Unavailable
from online_learner.forget.rebuild import pending
from online_learner.forget.retract import retract
from online_learner.forget.unlearn import Unlearning
from online_learner.learn import Trainer
from online_learner.learners.state import pack_state
from online_learner.loop import Loop
from online_learner.operate import operate
from online_learner.schema import Aliases, Control, Trained, Verdict, Version
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import Store
from serve_app.unlearner import Unlearner

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

SEQUENTIAL = {"policy": "policies.promotion:Sequential", "snapshot_every": 4}
WEB = {"promotion": SEQUENTIAL, "batch_max": 2, "publish_s": 0.0}
FOLLOWING = {"promotion": {"policy": "policies.promotion:Always"}, "batch_max": 2, "publish_s": 0.0}


@pytest.fixture
async def web(open_loop: OpenLoop, make_settings: MakeSettings) -> Loop:
    """Return a loop that cuts a version every four signals."""
    return await open_loop(make_settings(web=WEB))


async def receipt(loop: Loop, feedback_id: str) -> dict[str, Any]:
    """Return what became of a signal."""
    stages = loop.models["web"]
    address = loop.keyring.open("feedback", feedback_id)[1]
    return await explain.receipt(stages.registry, address, log=stages.log)


async def verdicts(stages: Stages) -> list[Verdict]:
    """Return what was decided."""
    found = await stages.store.range(stages.registry.keys.verdicts)
    return [Verdict.model_validate_json(fields[b"v"]) for _, fields in found]


async def aliases_of(stages: Stages) -> Aliases:
    """Return who answers."""
    found = await stages.registry.aliases()
    assert found is not None
    return found


# --- weights ----------------------------------------------------------------------------------


async def test_a_receipt_goes_from_pending_to_done(web: Loop) -> None:
    """What was learned is pending, and then done, with the step; the weights are without it."""
    stages = web.models["web"]
    ids = await say(web, 12)
    await web.turn("web")
    had = stages.trainer.learner.digest()
    await take_back(web, ids[2])
    await web.learn("web")
    told = await receipt(web, ids[2])
    assert (told["status"], told["was"], told["unlearned"]) == ("retracted", "learned", "pending")
    assert told["retracted"]["by"] == "test"
    assert stages.trainer.learner.digest() == had
    await web.turn("web")
    told = await receipt(web, ids[2])
    assert (told["status"], told["unlearned"]) == ("retracted", "done")
    assert told["unlearned_by"]["step"] == stages.trainer.at.step
    assert stages.trainer.learner.digest() != had
    await check_unlearned(stages, [entry_of(web, ids[2])])
    assert (await receipt(web, ids[3]))["status"] == "learned"


async def test_what_is_learned_by_hand_with_it_is_other_weights(web: Loop) -> None:
    """The check by hand can fail: with the signal it leads to other weights."""
    stages = web.models["web"]
    ids = await say(web, 6)
    await take_back(web, ids[0])
    await web.turn("web")
    step = stages.trainer.at.step
    assert (await by_hand(stages, []))[step] != stages.trainer.learner.digest()
    assert (await by_hand(stages, [entry_of(web, ids[0])]))[step] == stages.trainer.learner.digest()


async def test_many_retractions_take_one_rebuild(web: Loop) -> None:
    """What comes before the rebuild goes with it; what comes later takes the next one."""
    stages = web.models["web"]
    ids = await say(web, 20)
    await web.turn("web")
    for feedback_id in ids[3:13]:
        await take_back(web, feedback_id)
    await web.turn("web")
    assert stages.unlearning.rebuilds == 1
    gone = [entry_of(web, one) for one in ids[3:13]]
    await check_unlearned(stages, gone)
    await take_back(web, ids[0], ids[15])
    stages.unlearning._rests_until = 0.0
    await say(web, 3, seed=3)
    await web.turn("web")
    assert stages.unlearning.rebuilds == 2
    await check_unlearned(stages, [*gone, entry_of(web, ids[0]), entry_of(web, ids[15])])


async def test_retractions_are_gathered_for_a_moment(web: Loop, clock: Any) -> None:
    """Nothing is rebuilt before more of them have been waited for."""
    stages = web.models["web"]
    [first, second] = await say(web, 2)
    await take_back(web, first)
    await web.learn("web")
    patient = Unlearning(
        stages.registry, stages.trainer, stages.replay_afresh, gather_s=2.0, clock=clock
    )
    assert not await patient.turn()
    clock.advance(1.0)
    await take_back(web, second)
    await web.learn("web")
    assert not await patient.turn()
    clock.advance(1.1)
    assert await patient.turn()
    await web.learn("web")
    assert await pending(stages.registry) == {}
    assert patient.rebuilds == 1


async def test_after_the_rebuild_a_process_recovers_to_the_same_bits(web: Loop) -> None:
    """Another process takes the newest state, the second one, or a version: all are without it."""
    stages = web.models["web"]
    ids = await say(web, 14)
    await web.turn("web")
    await take_back(web, ids[1], ids[9])
    await web.turn("web")
    await say(web, 3, seed=2)
    await web.turn("web")
    wanted, keys = stages.trainer.learner.digest(), stages.registry.keys
    for damaged in ((), (keys.checkpoint("learner"),), (keys.checkpoint("learner"), keys.before)):
        for key in damaged:
            await web.store.call("HSET", key, "blob", b"damaged")
        trainer = process(web)
        await trainer.restore()
        assert trainer.learner.digest() == wanted, damaged
        assert trainer.differs is None


async def test_resets_between_lead_to_the_version_without_it(web: Loop) -> None:
    """The weights went back to a version that had learned it: the version is another one now."""
    stages = web.models["web"]
    ids = await say(web, 9)
    await web.turn("web")
    versions = [v.version for v in await stages.registry.versions() if v.status == "candidate"]
    assert len(versions) == 2
    before, stream = await stages.registry.version(versions[1]), stages.registry.keys.feedback
    reset = Control(action="reset", to_version=versions[1], lineage=1)
    await web.store.call("XADD", stream, "*", "c", reset.pack())
    ids += await say(web, 3, seed=4)
    await web.learn("web")
    tables = Control(action="tables", tables={"raters": {}})
    await web.store.call("XADD", stream, "*", "c", tables.pack())
    release = Control(action="release", entries=[entry_of(web, ids[8])])
    await web.store.call("XADD", stream, "*", "c", release.pack())
    await web.learn("web")
    gone = [ids[1], ids[8], ids[10]]
    await take_back(web, *gone)
    await web.turn("web")
    await check_unlearned(stages, [entry_of(web, one) for one in gone])
    assert (await stages.registry.version(versions[1])).state_digest != before.state_digest


async def test_learning_goes_on_while_it_is_rebuilt(
    open_loop: OpenLoop,
    make_settings: MakeSettings,
    eventually: Callable[..., Awaitable[None]],
) -> None:
    """On a thread of its own, as in the service: what is said meanwhile is learned, in order."""
    loop = await open_loop(make_settings(web=WEB))
    stages = loop.models["web"]
    ids = await say(loop, 60)
    await loop.learn("web")
    await take_back(loop, ids[5], ids[40])
    beside = Unlearner("web", loop.settings.store, loop.settings.data_dir)
    beside.serve(stages.trainer, stages.spec, loop.settings.window_s)
    said: list[str] = []

    async def goes_on() -> bool:
        said.extend(await say(loop, 1, seed=len(said)))
        await loop.learn("web")
        return not await pending(stages.registry)

    try:
        await eventually(goes_on, within_s=30.0)
    finally:
        beside.stop()
    await check_unlearned(stages, [entry_of(loop, ids[5]), entry_of(loop, ids[40])])
    steps = [step for _, step in await steps_of(stages.registry)]
    kinds = [(bool(step.retracted), bool(step.unlearned)) for step in steps]
    between = steps[kinds.index((True, False)) + 1 : kinds.index((False, True))]
    assert sum(step.signals for step in between) > 0
    assert len(said) == sum(step.signals for step in steps) - 60


# --- versions ---------------------------------------------------------------------------------


async def test_versions_that_had_learned_it_are_replaced(web: Loop) -> None:
    """Under the same number, with who answers by them: and the verdict says so in words."""
    stages = web.models["web"]
    ids = await say(web, 9)
    await web.turn("web")
    await operate(stages.registry, "promote", by="me", now=0.0, version=1)
    await web.turn("web")
    answering = stages.predictor.bundle
    assert answering is not None
    assert answering.champion.version == 1
    before = await aliases_of(stages)
    old = await stages.registry.version(1)
    await take_back(web, ids[0], ids[8])
    await web.turn("web")
    new, after = await stages.registry.version(1), await aliases_of(stages)
    assert (new.unlearned, new.learned) == (1, old.learned - 1)
    assert new.status == "blessed"
    assert (after.rebuilt, after.generation) == (before.rebuilt + 1, before.generation + 1)
    now = stages.predictor.bundle
    assert now is not None
    assert now.champion.learner.digest() == new.state_digest != old.state_digest
    assert answering.champion.learner.digest() == old.state_digest
    told = [verdict for verdict in await verdicts(stages) if verdict.action == "forget"]
    assert [verdict.numbers["signals"] for verdict in told] == [2]
    assert "2 signals, taken back, are in the learner's weights no more." in told[0].sentence
    assert "Versions 1, 2 were learned anew without them." in told[0].sentence
    assert "Tests under way begin anew." in told[0].sentence
    await check_unlearned(stages, [entry_of(web, ids[0]), entry_of(web, ids[8])])


async def test_versions_from_before_it_stay_as_they_are(web: Loop) -> None:
    """Nothing is said, and no test begins anew, where no kept version had learned it."""
    stages = web.models["web"]
    ids = await say(web, 5)
    await web.turn("web")
    before, old = await aliases_of(stages), await stages.registry.version(1)
    await take_back(web, ids[4])
    await web.turn("web")
    assert await aliases_of(stages) == before
    assert await stages.registry.version(1) == old
    assert all(verdict.action != "forget" for verdict in await verdicts(stages))
    await check_unlearned(stages, [entry_of(web, ids[4])])


async def test_on_the_leash_the_next_answer_is_without_it(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Where the newest weights answer, those without it do so at once."""
    loop = await open_loop(make_settings(web=FOLLOWING))
    stages = loop.models["web"]
    ids = await say(loop, 7)
    await loop.turn("web")
    await take_back(loop, ids[2])
    await loop.turn("web")
    bundle = stages.predictor.bundle
    assert bundle is not None
    assert bundle.aliases.following
    assert bundle.champion.learner.digest() == stages.trainer.learner.digest()
    await check_unlearned(stages, [entry_of(loop, ids[2])])


async def test_what_a_freeze_keeps_in_service_is_learned_anew(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """The pinned step goes on answering, without what was taken back."""
    loop = await open_loop(make_settings(web=FOLLOWING))
    stages = loop.models["web"]
    ids = await say(loop, 6)
    await loop.turn("web")
    step = stages.trainer.at.step
    await operate(stages.registry, "freeze", by="me", now=0.0)
    await say(loop, 4, seed=2)
    await loop.turn("web")
    await take_back(loop, ids[1])
    await loop.turn("web")
    pinned = await stages.registry.pinned()
    assert pinned is not None
    assert pinned[0].step == step
    wanted = (await by_hand(stages, [entry_of(loop, ids[1])]))[step]
    assert pinned[0].state_digest == wanted
    bundle = stages.predictor.bundle
    assert bundle is not None
    assert bundle.champion.learner.digest() == wanted
    [told] = [verdict for verdict in await verdicts(stages) if verdict.action == "forget"]
    assert "What the freeze keeps in service was learned anew." in told.sentence


async def test_a_version_trained_on_a_dataset_is_marked(web: Loop) -> None:
    """One that may hold the signal and cannot be learned anew is tainted, and the verdict warns."""
    stages = web.models["web"]
    ids = await say(web, 3)
    await web.turn("web")
    registry = stages.registry
    version = Version(
        version=1,
        lineage=1,
        step=0,
        offset="0-0",
        digest="",
        state_digest=stages.trainer.learner.digest(),
        cut_at=4e9,
        trained=Trained(dataset="d", job="j"),
    )
    blob = pack_state(stages.trainer.learner)
    sealed = registry.seal("version 1", version, blob=blob).fields()
    flat = [part for pair in sealed.items() for part in pair]
    await web.store.call("HSET", registry.keys.version(1), *flat, "blob", blob, "memory", "")
    await web.store.call("HSET", registry.keys.aliases, "versions", 1)
    await operate(registry, "promote", by="me", now=0.0, version=1)
    await take_back(web, ids[1])
    await web.turn("web")
    found = await registry.version(1)
    assert (found.tainted, found.status) == (True, "blessed")
    [told] = [verdict for verdict in await verdicts(stages) if verdict.action == "forget"]
    assert "Version 1 may hold them and cannot be learned anew." in told.sentence
    assert "Version 1 is in use: retrain, or promote another one." in told.sentence
    await registry.check_whole(1)


async def test_a_status_that_moves_meanwhile_is_not_lost(web: Loop) -> None:
    """The gate's word on a version and its replacement do not overwrite each other."""
    stages = web.models["web"]
    await say(web, 5)
    await web.turn("web")
    registry = stages.registry
    change = await registry.retold(1, status="blessed")
    _, other = await registry.restatus(1, "rejected")
    flat = [part for name in ("meta", "sha", "mac") for part in (name, change[name])]
    await web.store.call("HSET", registry.keys.version(1), *flat)
    keys = registry.keys
    names = [keys.fence("gatekeeper"), keys.checkpoint("gatekeeper"), keys.evidence, keys.verdicts]
    names += [keys.aliases, keys.feedback, keys.pinned, keys.checkpoint("learner"), keys.version(1)]
    reply = await web.store.run("decide", names, [json.dumps({"versions": [other]})])
    assert reply == b"conflict"
    assert (await registry.version(1)).status == "blessed"


# --- what cannot be, and what is nothing --------------------------------------------------------


async def test_what_was_never_learned_is_nothing_to_unlearn(web: Loop) -> None:
    """A signal that was set aside is told as nothing; weights and replay are right all the same."""
    stages = web.models["web"]
    ids = await say(web, 4)
    answer = await web.predict("web", {"a": 1.0})
    flag = await web.feedback(answer["prediction_id"], "implicit", event="copied")
    await web.turn("web")
    assert (await receipt(web, str(flag.feedback_id)))["status"] == "kept"
    had = stages.trainer.learner.digest()
    await take_back(web, str(flag.feedback_id))
    await web.turn("web")
    told = await receipt(web, str(flag.feedback_id))
    assert (told["status"], told["was"], told["unlearned"]) == ("retracted", "kept", "nothing")
    assert stages.trainer.learner.digest() == had
    await check_unlearned(stages, [entry_of(web, str(flag.feedback_id))])
    assert (await receipt(web, ids[0]))["status"] == "learned"


async def test_taking_back_twice_is_as_once(web: Loop) -> None:
    """The second time nothing is written, nor rebuilt; an `unlearn` told twice alters nothing."""
    stages = web.models["web"]
    ids = await say(web, 6)
    first = await take_back(web, ids[1])
    assert len(first.entries) == len(first.controls) == 1
    again = await take_back(web, ids[1])
    assert (again.entries, again.controls) == ((), ())
    await web.turn("web")
    wanted = stages.trainer.learner.digest()
    told = Control(action="unlearn", entries=[entry_of(web, ids[1])])
    await web.store.call("XADD", stages.registry.keys.feedback, "*", "c", told.pack())
    await web.turn("web")
    assert stages.unlearning.rebuilds == 1
    assert stages.trainer.learner.digest() == wanted
    await check_unlearned(stages, [entry_of(web, ids[1])])


async def test_beyond_the_record_it_is_told_to_be_impossible(web: Loop) -> None:
    """Without an archive what was trimmed cannot be rebuilt: the receipt says what to do."""
    stages = web.models["web"]
    ids = await say(web, 3)
    await web.turn("web")
    await web.store.call("HSET", stages.registry.keys.trimmed, "feedback", "999999999999998-0")
    await take_back(web, ids[0])
    had = stages.trainer.learner.digest()
    await web.turn("web")
    assert stages.unlearning.rebuilds == 0
    told = await receipt(web, ids[0])
    assert (told["status"], told["unlearned"]) == ("retracted", "impossible")
    assert "retrain" in told["unlearned_why"]
    assert stages.trainer.learner.digest() == had


# --- whatever dies ------------------------------------------------------------------------------


async def image_of(store: Store) -> dict[bytes, bytes]:
    """Return all there is in the store."""
    return {key: await store.call("DUMP", key) for key in await store.call("KEYS", "*")}


async def put_back(store: Store, image: dict[bytes, bytes]) -> None:
    """Make the store what it was."""
    pipe = store.redis.pipeline().flushall()
    for key, value in image.items():
        pipe.restore(key, 0, value)
    await pipe.execute()


async def facts(stages: Stages, trainer: Trainer) -> dict[str, Any]:
    """Return all that must not depend on who died when."""
    registry = stages.registry
    versions = await registry.versions()
    state, aliases = await registry.checkpoint(), await aliases_of(stages)
    assert state is not None
    return {
        "at": (trainer.at.offset, trainer.at.digest, trainer.at.learned),
        "weights": trainer.learner.digest(),
        "published": state[0].state_digest,
        "versions": [(v.version, v.state_digest, v.unlearned, v.learned) for v in versions],
        "rebuilt": (aliases.rebuilt, aliases.generation),
        "pending": await pending(registry),
    }


@pytest.mark.parametrize("error", [None, Unavailable("a timeout")])
async def test_a_learner_may_die_at_any_command(web: Loop, error: Exception | None) -> None:
    """Killed before or after any command, or cut off: weights and versions are the same."""
    stages = web.models["web"]
    ids = await say(web, 9)
    await web.turn("web")
    gone = [entry_of(web, ids[1]), entry_of(web, ids[6])]
    await retract(stages.registry, gone, by="test")
    told = Control(action="unlearn", entries=gone)
    await web.store.call("XADD", stages.registry.keys.feedback, "*", "c", told.pack())
    image = await image_of(web.store)
    counting = Faulty(web.store.url, -1, done=False, error=Killed())
    whole = process(web, store=counting)
    await run(whole)
    expected = await facts(stages, whole)
    assert expected["pending"] == {}
    await counting.close()
    for at in range(counting.commands):
        for done in (False, True):
            await put_back(web.store, image)
            faulty = Faulty(web.store.url, at, done=done, error=error or Killed())
            trainer = process(web, store=faulty)
            with pytest.raises(Killed if error is None else Unavailable):
                await run(trainer)
            if error is None:
                trainer = process(web)
            await run(trainer)
            await faulty.close()
            assert await facts(stages, trainer) == expected, (at, done)
    assert counting.commands > 10


async def test_who_rebuilds_may_die_at_any_command(web: Loop) -> None:
    """Killed before or after any command of the rebuild: the next one ends as it would have."""
    stages = web.models["web"]
    ids = await say(web, 9)
    await web.turn("web")
    await take_back(web, ids[1], ids[6])
    await web.learn("web")
    wanted = (await by_hand(stages, [entry_of(web, ids[1]), entry_of(web, ids[6])]))[
        stages.trainer.at.step
    ]
    image = await image_of(web.store)
    at, died = 0, True
    while died:
        for done in (False, True):
            await put_back(web.store, image)
            faulty = Faulty(web.store.url, at, done=done, error=Killed())
            trainer = process(web)
            await run(trainer)
            beside = Stages(faulty, web.keyring, "web", stages.spec, clock=web.ingest.clock)
            unlearning = Unlearning(beside.registry, trainer, beside.replay_afresh, gather_s=0.0)
            try:
                died = not await unlearning.turn()
            except Killed:
                died = True
            heir = process(web)
            await run(heir)
            last = Unlearning(stages.registry, heir, stages.replay_afresh, gather_s=0.0)
            await last.turn()
            await run(heir)
            await faulty.close()
            assert heir.learner.digest() == wanted, (at, done)
            assert await pending(stages.registry) == {}
        at += 1
    assert at > 10


async def test_what_waits_of_a_rebuild_goes_away_by_itself(web: Loop) -> None:
    """Versions as they will be lie beside the others for a day at most."""
    stages = web.models["web"]
    ids = await say(web, 9)
    await web.turn("web")
    await take_back(web, ids[0])
    await web.learn("web")
    assert await stages.unlearning.turn()
    names = await web.store.call("KEYS", "*:without:*")
    assert len(names) == 2
    assert all([0 < await web.store.call("TTL", name) <= 86_400 for name in names])
    await web.learn("web")
    assert await web.store.call("KEYS", "*:without:*") == []
    kept = [stages.registry.keys.version(number) for number in (1, 2)]
    assert [await web.store.call("TTL", name) for name in kept] == [-1, -1]
