"""The follower: what answers is what the aliases say, swapped as one, and loaded once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from online_learner.bundle import Bundle
from online_learner.errors import StateError
from online_learner.loop import Loop
from online_learner.operate import operate
from online_learner.schema import Aliases
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.swap import Follower

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

MANUAL = {"promotion": {"policy": "policies.promotion:Manual", "snapshot_every": 4}}
ALWAYS = {"promotion": {"policy": "policies.promotion:Always"}}
OPTIONS = [{"id": name, "features": {"title": name}} for name in "abc"]


async def say(loop: Loop, count: int, taken: str = "c") -> None:
    """Have an option taken again and again, and learn each time."""
    for _ in range(count):
        answer = await loop.predict("pages", {"query": "x"}, options=OPTIONS)
        await loop.feedback(answer["prediction_id"], "selection", taken)
        await loop.turn("pages")


def held(loop: Loop) -> Bundle:
    """Return the bundle that answers."""
    bundle = loop.stages("pages").predictor.bundle
    assert bundle is not None
    return bundle


def follower(loop: Loop) -> Follower:
    """Return the part under test."""
    return loop.stages("pages").follower


async def by_hand(loop: Loop, action: str, **options: Any) -> Aliases:
    """Do what an operator does; the learner has not heard of it yet."""
    registry = loop.stages("pages").registry
    after, _ = await operate(registry, action, by="test", now=loop.ingest.clock(), **options)
    return after


@pytest.fixture
async def pages(open_loop: OpenLoop, make_settings: MakeSettings) -> Loop:
    """Return a loop with a ranking that is promoted by hand."""
    return await open_loop(make_settings(pages=MANUAL))


async def test_before_a_model_is_founded_there_is_nothing_to_swap(
    pages: Loop, make_settings: MakeSettings
) -> None:
    """Without aliases there is no bundle, and asking again is no error."""
    spec = make_settings(pages={}).model("pages")
    stages = Stages(pages.store, pages.keyring, "unheard-of", spec)
    assert await stages.follower.refresh() is False
    assert stages.predictor.bundle is None


async def test_what_has_not_changed_is_not_swapped(pages: Loop) -> None:
    """The bundle stays the very object that it is until something moves."""
    before = held(pages)
    assert await follower(pages).refresh() is False
    assert held(pages) is before
    await say(pages, 1)
    assert held(pages) is not before


async def test_under_a_policy_by_hand_the_learner_stays_in_the_shadows(pages: Loop) -> None:
    """The champion answers as it was; the newest step answers unseen beside it."""
    await say(pages, 3)
    bundle = held(pages)
    assert (bundle.champion.version, bundle.champion.step, bundle.untrained) == (0, 0, True)
    assert [role for role, _ in bundle.shadows] == ["latest"]
    assert bundle.shadows[0][1].step == pages.stages("pages").trainer.at.step
    options = [option for option in OPTIONS if option["id"] != "b"]
    answer = await pages.predict("pages", {"query": "x"}, options=options)
    assert answer["output"] == ["a", "c"]
    _, address = pages.keyring.open("prediction", answer["prediction_id"])
    record = await pages.stages("pages").journal.read(address)
    assert record.shadows["latest"].output == ["c", "a"]


async def test_a_promoted_version_answers_with_its_own_weights(pages: Loop) -> None:
    """Promotion swaps in the snapshot, not what the learner has learned since."""
    await say(pages, 4, "c")
    await say(pages, 8, "b")
    await by_hand(pages, "promote", version=1)
    assert await follower(pages).refresh() is True
    bundle = held(pages)
    snapshot = await pages.stages("pages").registry.version(1)
    assert (bundle.champion.version, bundle.champion.step) == (1, snapshot.step)
    assert bundle.champion.learner.digest() == snapshot.state_digest
    assert not bundle.untrained
    answer = await pages.predict("pages", {"query": "x"}, options=OPTIONS)
    assert (answer["output"][0], answer["version"]) == ("c", 1)


async def test_a_version_is_loaded_once(pages: Loop) -> None:
    """Versions do not change: a swap that keeps one does not fetch it again."""
    await say(pages, 4)
    await by_hand(pages, "promote", version=1)
    await follower(pages).refresh()
    kept = held(pages).champion
    await pages.store.call("DEL", pages.stages("pages").registry.keys.version(1))
    await say(pages, 1)
    assert held(pages).champion is kept


async def test_the_leash_serves_every_step(open_loop: OpenLoop, make_settings: Any) -> None:
    """Who follows the learner answers with its newest step, under the last blessed version."""
    loop = await open_loop(make_settings(pages=ALWAYS))
    for _ in range(3):
        await say(loop, 1)
        bundle, at = held(loop), loop.stages("pages").trainer.at
        assert (bundle.champion.version, bundle.champion.step) == (0, at.step)
        assert bundle.champion.learner.digest() == loop.stages("pages").trainer.learner.digest()
        assert not bundle.untrained
        assert "latest" not in dict(bundle.shadows)


async def test_a_step_of_an_old_lineage_does_not_answer(
    open_loop: OpenLoop, make_settings: Any
) -> None:
    """After a rollback, what a learner that has not heard of it publishes is not swapped in."""
    loop = await open_loop(make_settings(pages=ALWAYS))
    await say(loop, 3)
    aliases = await by_hand(loop, "rollback", version=0)
    await follower(loop).refresh()
    bundle = held(loop)
    assert bundle.aliases == aliases
    assert (bundle.champion.version, bundle.champion.step) == (0, 0)
    assert "latest" not in dict(bundle.shadows)
    await loop.turn("pages")
    assert dict(held(loop).shadows)["latest"].lineage == aliases.lineage


async def test_a_pinned_step_goes_on_answering(open_loop: OpenLoop, make_settings: Any) -> None:
    """Frozen on the leash, the step of that moment answers; a restarted process finds it too."""
    loop = await open_loop(make_settings(pages=ALWAYS))
    await say(loop, 2)
    frozen = held(loop).champion
    await by_hand(loop, "freeze")
    await say(loop, 2, "b")
    restarted = await open_loop(make_settings(pages=ALWAYS))
    for found in (held(loop).champion, held(restarted).champion):
        assert found.step == frozen.step
        assert found.learner.digest() == frozen.learner.digest()


async def test_an_answer_keeps_the_bundle_that_it_began_with(pages: Loop) -> None:
    """A swap replaces the reference; the old bundle is what it was, for who still holds it."""
    await say(pages, 2)
    before = held(pages)
    digest = dict(before.shadows)["latest"].learner.digest()
    await say(pages, 4, "a")
    assert dict(before.shadows)["latest"].learner.digest() == digest
    assert dict(held(pages).shadows)["latest"].learner.digest() != digest


# --- what cannot be loaded --------------------------------------------------------------------


async def damage(loop: Loop, key: str) -> None:
    """Put other bytes in the place of some weights."""
    await loop.store.call("HSET", key, "blob", "damaged")
    await loop.store.call("HSET", key, "meta", "{}")


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the follower warned of, and forget it."""
    found = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    caplog.clear()
    return found


async def test_a_champion_that_cannot_be_loaded_is_not_swapped_in(
    open_loop: OpenLoop, make_settings: Any
) -> None:
    """State without a valid seal is refused; what answered goes on answering."""
    loop = await open_loop(make_settings(pages=ALWAYS))
    await say(loop, 1)
    before, keys = held(loop), loop.stages("pages").registry.keys
    await damage(loop, keys.checkpoint("learner"))
    for _ in range(2):
        assert await follower(loop).refresh() is False
        assert held(loop) is before
    assert "no valid seal" in str(follower(loop).refused)


async def test_a_promoted_version_that_cannot_be_loaded_is_not_swapped_in(pages: Loop) -> None:
    """The aliases have moved, and what answered goes on until the weights can be read."""
    await say(pages, 4)
    registry = pages.stages("pages").registry
    reader = Stages(
        pages.store, pages.keyring, "pages", pages.settings.model("pages"), trains=False
    )
    await reader.follower.refresh()
    before = reader.predictor.bundle
    kept = await pages.store.call("DUMP", registry.keys.version(1))
    await by_hand(pages, "promote", version=1)
    await damage(pages, registry.keys.version(1))
    reader.follower._versions.clear()
    assert await reader.follower.refresh() is False
    assert reader.predictor.bundle is before
    assert "version 1" in str(reader.follower.refused)
    await pages.store.call("RESTORE", registry.keys.version(1), 0, kept, "REPLACE")
    assert await reader.follower.refresh() is True
    assert reader.predictor.bundle is not None
    assert reader.predictor.bundle.champion.version == 1
    assert reader.follower.refused is None


async def test_a_newest_step_that_cannot_be_loaded_is_left_out(
    pages: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    """Who only looks on in the shadows holds up nobody; said once, and back when it can be read."""
    await say(pages, 2)
    key = pages.stages("pages").registry.keys.checkpoint("learner")
    await damage(pages, key)
    assert await follower(pages).refresh() is True
    assert held(pages).shadows == ()
    assert await follower(pages).refresh() is False
    [warning] = warned(caplog)
    assert "the newest step of 'pages' cannot be loaded, and is left out" in warning
    await by_hand(pages, "freeze")
    assert await follower(pages).refresh() is True
    assert held(pages).aliases.frozen
    await by_hand(pages, "thaw")
    await say(pages, 1)
    assert [role for role, _ in held(pages).shadows] == ["latest"]


@pytest.mark.parametrize("gone", ["damaged", "dropped"])
async def test_a_challenger_that_cannot_be_loaded_is_left_out_until_it_can(
    pages: Loop, caplog: pytest.LogCaptureFixture, gone: str
) -> None:
    """The others answer meanwhile, and take up what the learner publishes."""
    await say(pages, 8)
    registry = pages.stages("pages").registry
    assert (await registry.aliases() or Aliases(champion=0)).challengers == (1, 2)
    spec = pages.settings.model("pages")
    reader = Stages(pages.store, pages.keyring, "pages", spec, trains=False)
    key = registry.keys.version(1)
    kept = await pages.store.call("DUMP", key)
    await (damage(pages, key) if gone == "damaged" else pages.store.call("DEL", key))
    assert await reader.follower.refresh() is True

    def roles() -> list[str]:
        assert reader.predictor.bundle is not None
        return [role for role, _ in reader.predictor.bundle.shadows]

    assert roles() == ["challenger:2", "latest"]
    assert await reader.follower.refresh() is False
    [warning] = warned(caplog)
    assert "version 1 of 'pages' cannot be loaded, and is left out" in warning
    await pages.store.call("RESTORE", key, 0, kept, "REPLACE")
    assert await reader.follower.refresh() is True
    assert roles() == ["challenger:1", "challenger:2", "latest"]
    assert await reader.follower.refresh() is False
    assert warned(caplog) == []


async def test_an_anchor_that_cannot_be_loaded_does_not_hold_up_the_leash(
    open_loop: OpenLoop, make_settings: Any
) -> None:
    """The champion follows on, without its anchor in the shadows."""
    loop = await open_loop(make_settings(pages=ALWAYS))
    await say(loop, 1)
    assert [role for role, _ in held(loop).shadows] == ["anchor"]
    await damage(loop, loop.stages("pages").registry.keys.version(0))
    spec = loop.settings.model("pages")
    reader = Stages(loop.store, loop.keyring, "pages", spec, trains=False)
    for _ in range(2):
        await say(loop, 1)
        assert await reader.follower.refresh() is True
        assert reader.predictor.bundle is not None
        assert reader.predictor.bundle.champion.step == held(loop).champion.step
        assert reader.predictor.bundle.shadows == ()


async def test_who_answers_does_not_read_what_is_remembered_of_the_raters(
    open_loop: OpenLoop, make_settings: Any
) -> None:
    """Only who learns reads it, refuses it where it is damaged, and takes the state beside it."""
    loop = await open_loop(make_settings(pages=ALWAYS))
    await say(loop, 3)
    registry, trainer = loop.stages("pages").registry, loop.stages("pages").trainer
    keys = registry.keys
    for key in (keys.checkpoint("learner"), keys.version(0)):
        await loop.store.call("HSET", key, "memory", "damaged")
    spec = loop.settings.model("pages")
    reader = Stages(loop.store, loop.keyring, "pages", spec, trains=False)
    assert await reader.follower.refresh() is True
    assert reader.predictor.bundle is not None
    assert reader.predictor.bundle.champion.step == trainer.at.step
    assert reader.predictor.bundle.champion.learner.digest() == trainer.learner.digest()
    assert [role for role, _ in reader.predictor.bundle.shadows] == ["anchor"]
    with pytest.raises(StateError, match="damaged"):
        await registry.load_newest(trainer.learner)
    with pytest.raises(StateError, match="damaged"):
        await registry.load_state(0, trainer.learner)
    again = await open_loop(make_settings(pages=ALWAYS))
    assert again.stages("pages").trainer.learner.digest() == trainer.learner.digest()


async def test_two_refreshes_at_once_agree(open_loop: OpenLoop, make_settings: Any) -> None:
    """A message and the poll may come together: the bundle is the newest either way."""
    loop = await open_loop(make_settings(pages=ALWAYS))
    spec = loop.settings.model("pages")
    reader = Stages(loop.store, loop.keyring, "pages", spec, trains=False)
    await say(loop, 3)
    await asyncio.gather(*(reader.follower.refresh() for _ in range(4)))
    assert reader.predictor.bundle is not None
    found, newest = reader.predictor.bundle.champion, held(loop).champion
    assert (found.step, found.learner.digest()) == (newest.step, newest.learner.digest())
