"""What is refused, and who goes on meanwhile: learner, gatekeeper and gateway on harmed stores."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from benchmarks.hostile import checkpoints, numbers
from online_learner import config
from online_learner.errors import StateError
from online_learner.loop import Loop
from online_learner.schema import GateState
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store.keys import Keys
from serve_app import writer as writer_module
from serve_app.service import Service
from serve_app.writer import Writer

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]
Eventually = Callable[..., Awaitable[None]]

MANUAL = {"promotion": {"policy": "policies.promotion:Manual", "snapshot_every": 4}}
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
    for key in (Keys("web").checkpoint("learner"), Keys("web").version(0)):
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
    if wrong == "digest":
        meta = meta.model_copy(update={"state_digest": "0" * 32})
    else:
        blob = blob.replace(b'"signals":{', b'"signals":7,"x":{')
        length = int.from_bytes(blob[4:8], "big") + len(b"7,") + len(b'"x":')
        blob = blob[:4] + length.to_bytes(4, "big") + blob[8:]
    sealed = trainer.registry.seal("checkpoint", meta, blob=blob).fields()
    pairs = [part for pair in sealed.items() for part in pair]
    await loop.store.call("HSET", trainer.keys.checkpoint("learner"), *pairs, "blob", blob)
    spec = loop.settings.model("web")
    other = Stages(loop.store, loop.keyring, "web", spec).trainer
    with pytest.raises(StateError):
        await other.load_published()
    await other.load_newest()
    while await other.replay_step():
        pass
    assert other.learner.digest() == trainer.learner.digest()


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


# --- mutations, in short ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pipeline", "hidden", "ranking", checkpoints.GATE])
async def test_mutated_checkpoints_are_refused(name: str, loop: Loop, data_dir: Path) -> None:
    """Whatever was changed, with the secret or without: no other weights, and nothing is run."""
    models = {k: v for k, v in checkpoints.MODELS.items() if k in ("pipeline", "hidden", "ranking")}
    document = {"store": loop.settings.store, "data_dir": str(data_dir), "models": models}
    settings = Settings.parse(document)
    await checkpoints.prepare(settings, count=8)
    found = await checkpoints.try_some(settings, name, seed=1, count=60)
    assert found.total() == 60
    assert {came for _, came in found} <= {"refused", "the same weights", "code that was run"}
    assert found["all", "code that was run"] == 0
    assert not [t for t, came in found if t.startswith("without") and came != "refused"]


@pytest.mark.parametrize("kind", numbers.KINDS, ids=lambda kind: kind.title)
def test_no_update_leaves_a_number_that_is_none(kind: numbers.Kind) -> None:
    """Numbers at the edge of what is admitted are learned, or refused without a trace."""
    taught = numbers.teach(kind, 320, seed=3)
    assert (taught.updates, taught.ruined, taught.answers) == (320, 0, 1)
