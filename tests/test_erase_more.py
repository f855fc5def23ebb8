"""What an erasure leaves nowhere: in datasets, of dead learners; and a gate that still agrees."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from the_datasets import compiled
from the_forgotten import take_back
from the_learner import process, run

from online_learner.archive.place import Place
from online_learner.bring import bring_trained
from online_learner.dataset.versions import Versions
from online_learner.errors import DataError
from online_learner.forget import proof
from online_learner.forget.erase import Eraser, Wish
from online_learner.forget.looking import look
from online_learner.forget.person import Person
from online_learner.forget.unlearn import Unlearning
from online_learner.loop import Loop
from online_learner.recheck import recheck
from online_learner.schema import Trained
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import Store

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

ADA, EVE = "ada-lovelace", "eve"
PLAIN = {"publish_s": 0.0, "audit": 0.0, "promotion": {"policy": "policies.promotion:Always"}}


async def nothing(_: int) -> None:
    """Let it read on."""


async def told(loop: Loop, user: str, *, value: bool = True, **features: Any) -> str:
    """Have somebody ask and say what is right; returns the id of what was said."""
    answer = await loop.predict("web", features or {"a": 1.0}, user_id=user)
    said = await loop.feedback(answer["prediction_id"], "correction", value, user_id=user)
    return str(said.feedback_id)


# --- the archive ------------------------------------------------------------------------------


async def test_an_archive_that_was_switched_off_is_not_passed_over(
    open_loop: OpenLoop, make_settings: MakeSettings, clock: Any, tmp_path: Path
) -> None:
    """What lies on file cannot be erased from where the files are not known: nothing is."""
    loop = await open_loop(make_settings(web=PLAIN | {"archive": str(tmp_path)}))
    await told(loop, ADA)
    await loop.turn("web")
    await loop.stages("web").archiver.flush()
    off = await open_loop(make_settings(web=PLAIN | {"archive": None}))
    with pytest.raises(DataError, match="name its place again") as refused:
        await Eraser.of(off.stages("web"), ADA).erase(Wish())
    assert refused.value.code == "missing"
    assert (await Eraser.of(loop.stages("web"), ADA).find()).any


# --- datasets ---------------------------------------------------------------------------------


async def test_datasets_that_hold_what_was_said_late_are_found(
    open_loop: OpenLoop,
    make_settings: MakeSettings,
    clock: Any,
    tmp_path: Path,
) -> None:
    """A row of a late signal has a name of its own; the proof knows it, and so does a look."""
    loop = await open_loop(make_settings(window_s=60, web=PLAIN | {"archive": str(tmp_path)}))
    stages = loop.stages("web")
    answer = await loop.predict("web", {"a": 1.0}, user_id=EVE)
    await told(loop, EVE, a=2.0)
    await loop.turn("web")
    clock.advance(61)
    late = await loop.feedback(answer["prediction_id"], "correction", True, user_id=ADA)
    assert late.status == "archived_only"
    manifest, rows = await compiled(loop, "web", tmp_path / "datasets" / "web")
    assert any(str(row["signal"]).startswith("L") for row in rows)
    versions = Versions(Place.open(tmp_path).at("datasets", "web"))
    kept = await Eraser.of(stages, ADA, datasets=versions).erase(Wish())
    assert kept.proof.datasets == [manifest.id]
    ada = Person.named(stages.keyring, "web", ADA)
    assert await look(stages.log, ada, nothing, versions) == {"datasets": 1}
    kept = await Eraser.of(stages, ADA, datasets=versions).erase(Wish(drop_datasets=True))
    assert (kept.proof.datasets, kept.proof.removed) == ([], [manifest.id])
    assert await look(stages.log, ada, nothing, versions) == {}


async def test_datasets_that_were_filtered_by_their_name_are_found(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """A filter stands in the manifest, though no row is theirs; part of another word is no name."""
    loop = await open_loop(make_settings(web=PLAIN))
    stages = loop.stages("web")
    await told(loop, EVE)
    folder = tmp_path / "web"
    without, _ = await compiled(loop, "web", folder, where=f"user != '{ADA}'")
    by_source, _ = await compiled(loop, "web", folder, where=f"source != 'human:{ADA}'")
    await compiled(loop, "web", folder, where=f"source != 'human:x{ADA}'")
    await told(loop, ADA)
    kept = await Eraser.of(stages, ADA, datasets=Versions(Place.open(folder))).erase(Wish())
    assert set(kept.proof.datasets) == {without.id, by_source.id}


# --- weights ----------------------------------------------------------------------------------


async def test_what_cannot_be_unlearned_is_told_in_the_proof(
    open_loop: OpenLoop, make_settings: MakeSettings, store: Store
) -> None:
    """Beyond the record it is impossible, and stays so once nothing tells of it in the stream."""
    loop = await open_loop(make_settings(web=PLAIN))
    stages = loop.stages("web")
    await told(loop, ADA)
    await told(loop, EVE)
    await loop.turn("web")
    await store.call("HSET", stages.registry.keys.trimmed, "feedback", "999999999999998-0")
    kept = await Eraser.of(stages, ADA).erase(Wish())
    await loop.turn("web")
    assert kept.proof.unlearned == "impossible"
    assert "retrain" in kept.proof.todo
    assert await proof.unlearned_by_now(stages.log, kept.proof) == "impossible"
    await store.call("XTRIM", stages.registry.keys.feedback, "MAXLEN", 0)
    assert await proof.unlearned_by_now(stages.log, kept.proof) == "impossible"


async def test_what_waits_for_a_learner_that_died_is_removed(
    open_loop: OpenLoop, make_settings: MakeSettings, store: Store
) -> None:
    """It has what was remembered of raters, and nobody comes for it."""
    spec = {"policy": "policies.promotion:Sequential", "snapshot_every": 4}
    loop = await open_loop(make_settings(web={"promotion": spec, "batch_max": 2}))
    stages = loop.stages("web")
    ids = [await told(loop, user, value=bool(n % 2)) for n, user in enumerate([ADA, EVE] * 6)]
    await loop.turn("web")
    await take_back(loop, ids[1])
    await loop.learn("web")
    mortal = process(loop)
    await run(mortal)
    beside = Stages(store, loop.keyring, "web", stages.spec, clock=loop.ingest.clock)
    assert await Unlearning(beside.registry, mortal, beside.replay_afresh, gather_s=0.0).turn()
    assert await store.call("KEYS", "*:without:*")
    ada = Person.named(stages.keyring, "web", ADA)
    heir = process(loop)
    await heir.restore()
    await Eraser.of(stages, ADA).erase(Wish())
    assert await store.call("KEYS", "*:without:*") == []
    await run(heir)
    await Unlearning(stages.registry, heir, stages.replay_afresh, gather_s=0.0).turn()
    await run(heir)
    assert await look(stages.log, ada, nothing) == {}


# --- versions that were made elsewhere --------------------------------------------------------


async def test_versions_trained_on_what_was_said_late_are_marked(
    open_loop: OpenLoop, make_settings: MakeSettings, clock: Any, tmp_path: Path
) -> None:
    """No learner hears of a late signal; a version of a dataset may hold it all the same."""
    loop = await open_loop(make_settings(window_s=60, web=PLAIN | {"archive": str(tmp_path)}))
    stages = loop.stages("web")
    registry = stages.registry
    answer = await loop.predict("web", {"a": 1.0}, user_id=EVE)
    await told(loop, EVE, a=2.0)
    await loop.turn("web")
    clock.advance(61)
    await loop.feedback(answer["prediction_id"], "correction", True, user_id=ADA)
    trained = Trained(dataset="d", job="j")
    brought = await bring_trained(registry, stages.trainer.learner, trained, now=4e9)
    number = brought.version.version
    assert not (await registry.version(number)).tainted
    kept = await Eraser.of(stages, ADA).erase(Wish())
    assert (await registry.version(number)).tainted
    assert kept.proof.tainted == [number]
    before = await registry.aliases()
    await Eraser.of(stages, ADA).erase(Wish())
    assert await registry.aliases() == before


# --- the gate ---------------------------------------------------------------------------------


async def test_verdicts_are_computed_again_from_what_an_erasure_left(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Evidence has numbers alone: each decision comes out as it was, the person gone."""
    spec = {
        "promotion": {"policy": "policies.promotion:Sequential", "snapshot_every": 30},
        "audit": 1.0,
        "batch_max": 5,
    }
    loop = await open_loop(make_settings(web=spec))
    stages = loop.stages("web")
    rng, users = random.Random(1), itertools.cycle([ADA, EVE, "bob", "dan"])
    for n in range(400):
        a = rng.gauss(0, 1)
        answer = await loop.predict("web", {"a": a}, user_id=next(users))
        said = {"user_id": next(users)}
        await loop.feedback(answer["prediction_id"], "correction", a > 0, auditor=True, **said)
        if n % 20 == 19:
            await loop.turn("web")
    before, verdicts = await recheck(stages.log)
    assert before.checked > 0
    await Eraser.of(stages, ADA).erase(Wish())
    await loop.turn("web")
    await loop.turn("web")
    after, more = await recheck(stages.log)
    assert (after.checked, after.too_old, after.wrong) == (before.checked, 0, [])
    assert more > verdicts  # versions had learned from them


async def test_what_was_taken_back_long_before_leaves_no_memory_of_them(
    open_loop: OpenLoop, make_settings: MakeSettings, store: Store
) -> None:
    """Nothing is learned anew for it; kept weights forget who was weighed all the same."""
    spec = {
        "observe": {"raters": {"use": "policies.raters:Raters", "weigh": True}},
        "promotion": {"policy": "policies.promotion:Sequential", "snapshot_every": 100},
    }
    loop = await open_loop(make_settings(web=spec))
    stages, ids = loop.stages("web"), []
    for n in range(130):
        answer = await loop.predict("web", {"plain": float(n % 5)})
        for user, value in ((ADA, n % 7 == 0), (EVE, n % 2 == 0), ("bob", n % 2 == 0)):
            body = {"user_id": user}
            said = await loop.feedback(answer["prediction_id"], "correction", value, **body)
            ids += [str(said.feedback_id)] if user == ADA else []
        if n % 40 == 39:
            await loop.turn("web")
    await loop.turn("web")
    await take_back(loop, *ids)
    await loop.turn("web")
    ada = Person.named(stages.keyring, "web", ADA)
    assert (await look(stages.log, ada, nothing))["learner's memory"] >= 2
    digests = {v.version: v.state_digest for v in await stages.registry.versions()}
    await Eraser.of(stages, ADA).erase(Wish())
    await loop.turn("web")
    await stages.trainer.publish()
    assert await look(stages.log, ada, nothing) == {}
    for number, digest in digests.items():
        version, _, memory = await stages.registry.load_state(number, stages.learner)
        assert version.state_digest == digest
        assert number == 0 or EVE in json.dumps(memory)
    replay = stages.replay_afresh()
    await replay.rewind()
    await replay.follow()
    assert replay.learner.digest() == stages.trainer.learner.digest()
    assert replay.differs is None
    assert ADA not in json.dumps(replay.memory())


async def test_an_observer_keeps_nothing_that_it_had_read_before(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """It had heard them, and told nobody yet: it reads again what is left, and keeps that."""
    spec = {"observe": {"raters": {"use": "policies.raters:Raters", "weigh": True}}}
    loop = await open_loop(make_settings(web=PLAIN | spec))
    stages = loop.stages("web")
    await told(loop, EVE)
    await stages.observer.turn()
    ada = Person.named(stages.keyring, "web", ADA)
    for known in (True, False):
        if not known:
            await loop.store.call("DEL", stages.registry.keys.observer)
            stages.observer.at = None
        await told(loop, ADA)
        await loop.learn("web")
        stages.observer._committed_at = loop.ingest.clock()
        await stages.observer.turn(at_once=False)
        await Eraser.of(stages, ADA).erase(Wish())
        for _ in range(3):
            await stages.observer.turn()
            await loop.turn("web")
            stages.unlearning._rests_until = 0.0
        kept = await stages.registry.observed()
        assert kept is not None
        assert f"human:{EVE}" in json.dumps(kept[1])
        assert await look(stages.log, ada, nothing) == {}
