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


async def test_damaged_weights_are_not_swapped_in(pages: Loop) -> None:
    """State without a valid seal is refused; what answered goes on answering."""
    await say(pages, 1)
    before = held(pages)
    key = pages.stages("pages").registry.keys.checkpoint("learner")
    await pages.store.call("HSET", key, "blob", "damaged")
    await pages.store.call("HSET", key, "meta", "{}")
    with pytest.raises(StateError):
        await follower(pages).refresh()
    assert held(pages) is before


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
