"""What is refused, and who goes on meanwhile: learner, gatekeeper and gateway on harmed stores."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from benchmarks.hostile import checkpoints, numbers
from online_learner import config, learn
from online_learner.errors import StateError
from online_learner.explain import status
from online_learner.learn import Trainer
from online_learner.learners.state import pack_memory
from online_learner.loop import Loop
from online_learner.retain import Retention
from online_learner.schema import Control, GateState, Signal, Step
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store.keys import Keys
from policies.validation import Accept
from serve_app import writer as writer_module
from serve_app.service import Service
from serve_app.writer import Writer

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]
Eventually = Callable[..., Awaitable[None]]

MANUAL = {"promotion": {"policy": "policies.promotion:Manual", "snapshot_every": 4}}
ALWAYS = {"promotion": {"policy": "policies.promotion:Always"}, "audit": 0.0}
HARMED = {"blob": b"\x80\x04K\x01."}


async def say(loop: Loop, count: int, model: str = "web") -> None:
    """Correct answers, always the same ones, and learn from each."""
    for number in range(count):
        answer = await loop.predict(model, {"a": float(number % 3), "b": 1.0})
        await loop.feedback(answer["prediction_id"], "correction", number % 2 == 0)
        await loop.turn(model)


async def harm(loop: Loop, key: str) -> None:
    """Change what is stored under a key."""
    for field, value in HARMED.items():
        await loop.store.call("HSET", key, field, value)


def errors_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged as an error."""
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


# --- the learner ------------------------------------------------------------------------------


async def test_a_learner_goes_on_from_the_version_before(
    open_loop: OpenLoop, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """With its newest state harmed, it has the same weights, and learns on; said once."""
    loop = await open_loop(make_settings(web=MANUAL))
    await say(loop, 10)
    trainer = loop.models["web"].trainer
    await harm(loop, trainer.keys.checkpoint("learner"))
    again = await open_loop(make_settings(web=MANUAL))
    assert again.models["web"].trainer.learner.digest() == trainer.learner.digest()
    assert again.models["web"].trainer.at == trainer.at
    [error] = errors_of(caplog)
    assert "the newest state of 'web' is refused" in error
    await say(again, 1)
    assert again.models["web"].trainer.at.learned == 11


async def test_a_version_that_is_harmed_too_is_passed_over(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Of the versions before, the newest that is sound is taken; the steps lead on from there."""
    loop = await open_loop(make_settings(web=MANUAL))
    await say(loop, 10)
    trainer, keys = loop.models["web"].trainer, Keys("web")
    assert await trainer.registry.last_version() == 2
    await harm(loop, keys.checkpoint("learner"))
    await loop.store.call("HSET", keys.version(2), "meta", "{}")
    await harm(loop, keys.version(1))
    again = await open_loop(make_settings(web=MANUAL))
    assert again.models["web"].trainer.learner.digest() == trainer.learner.digest()


async def test_with_nothing_sound_left_a_learner_says_so(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """It does not begin with empty weights as if nothing had been."""
    loop = await open_loop(make_settings(web=MANUAL))
    await say(loop, 2)
    keys = Keys("web")
    for key in (keys.checkpoint("learner"), keys.before, keys.version(0)):
        await harm(loop, key)
    with pytest.raises(StateError, match="only the learner's newest state"):
        await open_loop(make_settings(web=MANUAL))


@pytest.mark.parametrize("wrong", ["digest", "memory"])
async def test_a_sealed_state_that_is_not_what_its_metadata_say_is_refused(
    loop: Loop, wrong: str
) -> None:
    """Weights of another digest, and a memory that no policy takes, are as good as harmed."""
    await say(loop, 3)
    trainer = loop.models["web"].trainer
    state = await trainer.registry.checkpoint()
    assert state is not None
    meta, blob = state
    memory = pack_memory(trainer.memory() if wrong == "digest" else {"signals": 7})
    if wrong == "digest":
        meta = meta.model_copy(update={"state_digest": "0" * 32})
    sealed = trainer.registry.seal("checkpoint", meta, blob=blob, memory=memory).fields()
    pairs = [part for pair in sealed.items() for part in pair] + ["memory", memory]
    await loop.store.call("HSET", trainer.keys.checkpoint("learner"), *pairs, "blob", blob)
    spec = loop.settings.model("web")
    other = Stages(loop.store, loop.keyring, "web", spec).trainer
    with pytest.raises(StateError):
        await other.load_published()
    await other.load_newest()
    while await other.replay_step():
        pass
    assert other.learner.digest() == trainer.learner.digest()


@pytest.mark.parametrize("wanted", ["damaged", "gone", "other bits"])
async def test_a_learner_that_cannot_go_back_there_goes_back_further(
    open_loop: OpenLoop,
    make_settings: MakeSettings,
    caplog: pytest.LogCaptureFixture,
    wanted: str,
) -> None:
    """It takes what was champion before, says so, learns on; a replay finds the same bits."""
    loop = await promoted(await open_loop(make_settings(web=MANUAL)))
    await say(loop, 4)
    trainer, keys = loop.models["web"].trainer, Keys("web")
    assert await trainer.registry.last_version() == 3
    if wanted == "damaged":
        await harm(loop, keys.version(2))
    elif wanted == "gone":
        await loop.store.call("DEL", keys.version(2))
    else:
        registry = trainer.registry
        meta, blob, memory = await registry.whole(2)
        meta = meta.model_copy(update={"state_digest": "0" * 32})
        sealed = registry.seal("version 2", meta, blob=blob, memory=memory).fields()
        pairs = [part for pair in sealed.items() for part in pair]
        await loop.store.call("HSET", keys.version(2), *pairs)
    kept = await loop.store.call("DUMP", keys.checkpoint("learner"))
    control = {"action": "reset", "to_version": 2, "lineage": 2, "reason": "It was bad."}
    await loop.store.call("XADD", keys.feedback, "*", "c", json.dumps(control))
    await say(loop, 3)
    version, then = await trainer.registry.load_version(1, trainer.learner)
    assert trainer.at.learned == version.learned + 3
    [(entry, reset)] = [
        (entry, step)
        for entry, fields in await loop.store.range(keys.steps)
        if (step := Step.model_validate_json(fields[b"s"])).reset_to is not None
    ]
    assert (reset.reset_to, reset.lineage, reset.state_digest) == (1, 2, then.digest())
    [(at, fields)] = await loop.store.range(keys.resets)
    instead = "Version 2 cannot be loaded; the learner took 1."
    mark = {"lineage": 2, "kept": version.offset, "reason": f"It was bad. {instead}"}
    assert (at, json.loads(fields[b"r"])) == (entry, mark)
    assert [error for error in errors_of(caplog) if instead in error]
    await loop.store.call("RESTORE", keys.checkpoint("learner"), 0, kept, "REPLACE")
    heir = Stages(loop.store, loop.keyring, "web", loop.settings.model("web")).trainer
    await heir.restore()
    assert heir.learner.digest() == trainer.learner.digest()
    assert heir.at == trainer.at


async def test_a_learner_that_can_go_back_nowhere_says_so(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """It does not go on with the weights that were to go."""
    loop = await open_loop(make_settings(web=MANUAL))
    await say(loop, 2)
    trainer, keys = loop.models["web"].trainer, Keys("web")
    await harm(loop, keys.version(0))
    control = {"action": "reset", "to_version": 0, "lineage": 2}
    await loop.store.call("XADD", keys.feedback, "*", "c", json.dumps(control))
    for _ in range(2):
        with pytest.raises(StateError, match="nor any other can be loaded"):
            await trainer.turn()


# --- who answers ------------------------------------------------------------------------------


async def cold(loop: Loop) -> Stages:
    """Return the stages of a gateway that has just started."""
    stages = Stages(loop.store, loop.keyring, "web", loop.settings.model("web"), trains=False)
    await stages.follower.refresh()
    return stages


async def promoted(loop: Loop) -> Loop:
    """Have version 2 for champion, after version 1."""
    from online_learner.operate import operate

    await say(loop, 10)
    for version in (1, 2):
        registry = loop.models["web"].registry
        await operate(registry, "promote", by="test", now=loop.ingest.clock(), version=version)
        await loop.turn("web")
    return loop


async def test_a_gateway_that_starts_with_a_bad_champion_has_the_one_before_answer(
    open_loop: OpenLoop, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer says which version gave it, nothing is compared to it, and it is said once."""
    loop = await promoted(await open_loop(make_settings(web=MANUAL)))
    key = Keys("web").version(2)
    kept = await loop.store.call("DUMP", key)
    await harm(loop, key)
    stages = await cold(loop)
    bundle = stages.predictor.bundle
    assert bundle is not None
    assert (bundle.champion.version, bundle.shadows) == (1, ())
    assert "version 2" in str(stages.follower.refused)
    for _ in range(3):
        await stages.follower.refresh()
    assert len(errors_of(caplog)) == 1
    await loop.store.call("RESTORE", key, 0, kept, "REPLACE")
    assert await stages.follower.refresh() is True
    assert stages.predictor.bundle is not None
    assert stages.predictor.bundle.champion.version == 2
    assert stages.follower.refused is None


async def test_a_gateway_with_nothing_sound_has_no_weights(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """It raises, and answers nothing, rather than anything."""
    loop = await open_loop(make_settings(web=MANUAL))
    await harm(loop, Keys("web").version(0))
    with pytest.raises(StateError):
        await cold(loop)


async def test_readyz_says_what_is_refused(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A service that has the version before answer is there, and says so."""
    settings = make_settings(web=MANUAL)
    loop = await promoted(await open_loop(settings))
    await config.publish(loop.store, loop.keyring, settings)
    await harm(loop, Keys("web").version(2))
    trouble = json.dumps({"pid": 1, "at": 0.0, "trouble": "its state is refused"})
    await loop.store.call("SET", Keys("web").heartbeat("learner"), trouble)
    service = await Service.open(settings.store, settings.data_dir)
    try:
        ready = await service.ready()
        assert ready["refused"] == ["the champion of web", "the state of web's learner"]
        assert ready["models"]["web"] == {"weights": True, "learner": False, "gatekeeper": False}
    finally:
        await service.close()


# --- the gatekeeper ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["unsealed", "hollow trial", "another form"])
async def test_a_gatekeeper_begins_its_tests_anew(
    open_loop: OpenLoop, make_settings: MakeSettings, how: str
) -> None:
    """Nothing settles twice, and what it does count promotes nothing sooner than before."""
    loop = await open_loop(make_settings(web={"audit": 1.0}))
    await say(loop, 6)
    registry = loop.models["web"].registry
    before = await registry.gate()
    assert before is not None
    key = registry.keys.checkpoint("gatekeeper")
    if how == "unsealed":
        await loop.store.call("HSET", key, "mac", "00")
    else:
        change = {"trials": {"x": {}}} if how == "hollow trial" else {"watch": {"x": 1}}
        made = GateState.model_construct(**before.model_dump() | change)
        sealed = registry.seal("gate", made).fields()
        await loop.store.call("HSET", key, *(part for pair in sealed.items() for part in pair))
    again = await open_loop(make_settings(web={"audit": 1.0}))
    await say(again, 2)
    after = await registry.gate()
    assert after is not None
    assert after.candidates > before.candidates
    assert after.promotions == 0
    settled = await loop.store.range(registry.keys.evidence, "-")
    assert len(settled) == before.answered + 2
    assert after.answered == len(settled)


# --- nothing loops in crashes -----------------------------------------------------------------


async def test_a_writer_that_cannot_go_on_waits_and_is_seen(
    open_loop: OpenLoop,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It stays alive, says once why, tries again ever more rarely, and goes on when it can."""
    monkeypatch.setattr(writer_module, "LEAST_WAIT_S", 0.01)
    monkeypatch.setattr(writer_module, "MOST_WAIT_S", 0.05)
    settings = make_settings(web=MANUAL)
    loop = await open_loop(settings)
    await say(loop, 3)
    await config.publish(loop.store, loop.keyring, settings)
    aliases = Keys("web").aliases
    kept = await loop.store.call("DUMP", aliases)
    await loop.store.call("HSET", aliases, "mac", "00")
    writer = Writer(
        "learner", "web", settings.store, str(settings.data_dir), lambda stages: stages.trainer
    )
    try:

        async def trouble() -> str:
            beat = await loop.store.call("GET", Keys("web").heartbeat("learner"))
            return str(json.loads(beat or b"{}").get("trouble", "none yet"))

        async def told() -> bool:
            return "no valid seal" in await trouble()

        await eventually(told)
        epochs = [int(await loop.store.call("GET", Keys("web").fence("learner")))]

        async def tried_again() -> bool:
            return int(await loop.store.call("GET", Keys("web").fence("learner"))) > epochs[0] + 2

        await eventually(tried_again)
        writer.check()
        assert len([e for e in errors_of(caplog) if "cannot go on" in e]) == 1
        await loop.store.call("RESTORE", aliases, 0, kept, "REPLACE")

        async def well() -> bool:
            return await trouble() == ""

        await eventually(well)
        writer.check()
    finally:
        await writer.stop()


@pytest.mark.parametrize("how", ["another type", "no step"])
async def test_a_writer_outlives_whatever_it_reads(
    open_loop: OpenLoop, make_settings: MakeSettings, eventually: Eventually, how: str
) -> None:
    """A key that is another's, and a record of no form: it waits, and says what is wrong."""
    settings = make_settings(web=MANUAL)
    loop = await open_loop(settings)
    await say(loop, 3)
    await config.publish(loop.store, loop.keyring, settings)
    keys = Keys("web")
    if how == "another type":
        await loop.store.call("DEL", keys.feedback)
        await loop.store.call("SET", keys.feedback, "mine")
    else:
        await loop.store.call("XADD", keys.steps, "*", "s", "s3cret")
    place = (settings.store, str(settings.data_dir))
    writer = Writer("learner", "web", *place, lambda stages: stages.trainer)
    try:

        async def told() -> bool:
            writer.check()
            beat = await loop.store.call("GET", keys.heartbeat("learner"))
            trouble = str(json.loads(beat or b"{}").get("trouble", ""))
            assert "s3cret" not in trouble
            return bool(trouble)

        await eventually(told, within_s=10)
        writer.check()
    finally:
        await writer.stop()


async def test_a_writer_is_seen_to_live_while_it_replays(
    open_loop: OpenLoop,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    """However many steps there are to learn again, each of them shows that it is not stuck."""
    settings = make_settings(web={"audit": 0.0})
    loop = await open_loop(settings)
    await say(loop, 6)
    await config.publish(loop.store, loop.keyring, settings)
    keys = Keys("web")
    gone = (keys.checkpoint("learner"), keys.before, keys.heartbeat("learner"))
    await loop.store.call("DEL", *gone)
    monkeypatch.setattr(writer_module, "BEAT_S", 0.0)
    seen: list[tuple[float, float]] = []
    replay_step = Trainer.replay_step

    async def watched(trainer: Trainer) -> bool:
        beat = json.loads(await trainer.store.call("GET", keys.heartbeat("learner")))
        seen.append((writer._came_around, beat["at"]))
        return await replay_step(trainer)

    monkeypatch.setattr(Trainer, "replay_step", watched)
    place = (settings.store, str(settings.data_dir))
    writer = Writer("learner", "web", *place, lambda stages: stages.trainer)
    try:

        async def published() -> bool:
            return bool(await loop.store.call("EXISTS", keys.checkpoint("learner")))

        await eventually(published, within_s=10)
    finally:
        await writer.stop()
    assert len(seen) == 7
    for times in zip(*seen, strict=True):
        assert sorted(set(times)) == list(times), "each is later than the one before"


# --- mutations, in short ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pipeline", "hidden", "ranking", checkpoints.GATE])
async def test_mutated_checkpoints_are_refused(name: str, loop: Loop, data_dir: Path) -> None:
    """Whatever was changed, with the secret or without: no other weights, and nothing is run."""
    models = {k: v for k, v in checkpoints.MODELS.items() if k in ("pipeline", "hidden", "ranking")}
    document = {"store": loop.settings.store, "data_dir": str(data_dir), "models": models}
    settings = Settings.parse(document)
    await checkpoints.prepare(settings, count=8)
    found = await checkpoints.try_some(settings, name, seed=1, count=40)
    assert found.total() == 40
    assert {came for _, came in found} <= {"refused", "the same weights", "code that was run"}
    assert found["all", "code that was run"] == 0
    assert not [t for t, came in found if t.startswith("without") and came != "refused"]


@pytest.mark.parametrize("kind", numbers.KINDS, ids=lambda kind: kind.title)
def test_no_update_leaves_a_number_that_is_none(kind: numbers.Kind) -> None:
    """Numbers at the edge of what is admitted are learned, or refused without a trace."""
    taught = numbers.teach(kind, 320, seed=3)
    assert (taught.updates, taught.ruined, taught.answers) == (320, 0, 1)


# --- the second state of the learner ----------------------------------------------------------


async def without_the_log(loop: Loop) -> None:
    """Trim as if all had passed the window; then say more, which is not trimmed."""
    keys = loop.models["web"].registry.keys
    loop.ingest.clock.advance(10.0**6)  # type: ignore[attr-defined]
    later = lambda: loop.ingest.clock() + 10.0**6  # noqa: E731
    await Retention(loop.store, "web", window_s=86_400.0, clock=later).trim()
    assert (await loop.store.hash(keys.trimmed))[b"feedback"] != b"0-0"


@pytest.mark.parametrize("since", [0, 5])
async def test_a_learner_without_versions_survives_one_damaged_state(
    open_loop: OpenLoop,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    since: int,
) -> None:
    """Where no version is cut and the log is trimmed, a second state leads to the same weights."""
    settings = make_settings(web=ALWAYS)
    loop = await open_loop(settings)
    await loop.store.call("CONFIG", "SET", "stream-node-max-entries", "1")
    await say(loop, 12)
    monkeypatch.setattr(learn, "KEPT_MS", 0)
    await say(loop, 1)
    monkeypatch.undo()
    await say(loop, since)
    await without_the_log(loop)
    await loop.store.call("CONFIG", "SET", "stream-node-max-entries", "100")
    trainer = loop.models["web"].trainer
    assert len(await loop.store.range(trainer.keys.steps)) == since + 1
    await harm(loop, trainer.keys.checkpoint("learner"))
    again = await open_loop(settings)
    found = again.models["web"].trainer
    assert (found.learner.digest(), found.at) == (trainer.learner.digest(), trainer.at)
    assert found.memory() == trainer.memory()
    assert len(errors_of(caplog)) == 1
    await harm(loop, trainer.keys.checkpoint("learner"))
    await open_loop(settings)  # the second state was written anew as well


async def test_the_second_state_is_renewed_now_and_then(
    open_loop: OpenLoop, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each publish: after a minute of the stream, so many steps, a reset, and a start."""
    loop = await open_loop(make_settings(web=MANUAL))
    trainer, registry = loop.models["web"].trainer, loop.models["web"].registry

    async def behind() -> int:
        newest, before = await registry.published(), await registry.before()
        assert newest is not None
        assert before is not None
        return newest.step - before.step

    await say(loop, 1)
    assert await behind() == 0
    await say(loop, 4)
    assert await behind() == 4
    monkeypatch.setattr(learn, "KEPT_STEPS", 5)
    await say(loop, 1)
    assert await behind() == 0
    await say(loop, 1)
    assert await behind() == 1
    reset = Control(action="reset", to_version=1, lineage=2).pack()
    await loop.store.call("XADD", trainer.keys.feedback, "*", "c", reset)
    await loop.turn("web")
    assert await behind() == 0
    await say(loop, 2)
    assert await behind() == 2
    await open_loop(make_settings(web=MANUAL))
    assert await behind() == 0


# --- another configuration --------------------------------------------------------------------


async def test_a_replay_that_meets_other_weights_than_were_recorded_says_so(
    open_loop: OpenLoop, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """Under another validation it goes on, tells where it parted, and does so until a reset."""
    loop = await open_loop(make_settings(web=ALWAYS | {"publish_s": 0.0}))
    await say(loop, 30)
    old, keys = loop.models["web"].trainer, Keys("web")
    recorded = await loop.store.range(keys.steps)
    changed = make_settings(web=ALWAYS | {"publish_s": 0.0, "validation": f"{__name__}:Half"})
    taken_up = await open_loop(changed)
    assert taken_up.models["web"].trainer.learner.digest() == old.learner.digest()
    assert errors_of(caplog) == []
    for key in (keys.checkpoint("learner"), keys.before):
        await harm(loop, key)
    again = await open_loop(changed)
    trainer = again.models["web"].trainer
    assert trainer.at.digest == old.at.digest
    assert trainer.learner.digest() != old.learner.digest()
    [_, error] = errors_of(caplog)
    assert "not those recorded at step 1" in error
    published = await trainer.registry.published()
    assert published is not None
    assert (published.differs, published.state_digest) == (1, trainer.learner.digest())
    told = await status(trainer.registry, again.models["web"].policy, now=0.0)
    assert told["differs"] == 1
    assert await loop.store.range(keys.steps) == recorded
    await say(again, 1)
    assert trainer.at.learned == 31
    successor = (await open_loop(changed)).models["web"].trainer
    assert (successor.differs, successor.learner.digest()) == (1, trainer.learner.digest())
    reset = Control(action="reset", to_version=0, lineage=2).pack()
    await loop.store.call("XADD", keys.feedback, "*", "c", reset)
    while await successor.turn():
        pass
    published = await trainer.registry.published()
    assert published is not None
    assert published.differs is None


class Half(Accept):
    """Believes everybody by half."""

    def weigh(self, _signal: Signal, weight: float) -> float:
        """Return half the weight."""
        return weight / 2


async def test_a_learner_waits_for_an_archive_that_is_away(
    open_loop: OpenLoop,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    """Where it has to read there it stays alive, says why, and goes on when it can."""
    monkeypatch.setattr(writer_module, "LEAST_WAIT_S", 0.01)
    monkeypatch.setattr(writer_module, "MOST_WAIT_S", 0.05)
    place = tmp_path / "archive"
    settings = make_settings(web=MANUAL | {"archive": str(place)})
    loop = await open_loop(settings)
    stages, keys = loop.models["web"], Keys("web")
    await say(loop, 6)
    await loop.turn("web")
    assert stages.archiver is not None
    await stages.archiver.flush()
    wanted = stages.trainer.learner.digest()
    await loop.store.call("DEL", keys.checkpoint("learner"), keys.before)
    for version in await stages.registry.versions():
        if version.version:
            await loop.store.call("HDEL", keys.version(version.version), "blob")
    for stream in (keys.feedback, keys.steps):
        await loop.store.call("XTRIM", stream, "MAXLEN", 1)
    place.rename(tmp_path / "away")
    await config.publish(loop.store, loop.keyring, settings)
    writer = Writer(
        "learner", "web", settings.store, str(settings.data_dir), lambda stages: stages.trainer
    )
    try:

        async def trouble() -> str:
            beat = await loop.store.call("GET", keys.heartbeat("learner"))
            return str(json.loads(beat or b"{}").get("trouble", "none yet"))

        async def told() -> bool:
            return await trouble() not in ("", "none yet")

        await eventually(told)
        writer.check()
        (tmp_path / "away").rename(place)

        async def well() -> bool:
            state = await stages.registry.published()
            return state is not None and state.state_digest == wanted

        await eventually(well)
        writer.check()
    finally:
        await writer.stop()
