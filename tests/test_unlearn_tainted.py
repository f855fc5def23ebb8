"""What cannot be learned anew is marked, and so is what was learned on from there."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from the_forgotten import check_unlearned, take_back
from the_learner import Every, entry_of, say

from online_learner import explain
from online_learner.bring import bring
from online_learner.forget.rebuild import pending
from online_learner.forget.unlearn import Unlearning
from online_learner.learners.state import pack_state
from online_learner.loop import Loop
from online_learner.registry import Registry
from online_learner.schema import Control, Verdict
from online_learner.settings import Settings

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

SEQUENTIAL = {"policy": "policies.promotion:Sequential", "snapshot_every": 4}
WEB: dict[str, Any] = {"promotion": SEQUENTIAL, "batch_max": 2, "publish_s": 0.0}


async def brought(loop: Loop) -> int:
    """Bring the learner's weights back as a file; returns the version."""
    stages = loop.models["web"]
    blob = pack_state(stages.trainer.learner)
    how = {"by": "me", "now": 4e9, "candidate": True}
    taken = await bring(stages.registry, stages.learner, blob, **how)
    return taken.version.version


async def back_to(loop: Loop, number: int) -> None:
    """Have the learner go back to a version."""
    registry = loop.models["web"].registry
    reset = Control(action="reset", to_version=number, lineage=1)
    await loop.store.call("XADD", registry.keys.feedback, "*", "c", reset.pack())


async def tainted(registry: Registry) -> set[int]:
    """Return the versions that are marked."""
    return {version.version for version in await registry.versions() if version.tainted}


async def test_what_is_learned_on_from_a_file_that_may_hold_it_is_marked(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A file may hold it; so may versions that were cut once the learner went on from it."""
    loop = await open_loop(make_settings(web=WEB))
    stages = loop.models["web"]
    registry, stages.trainer._snapshots = stages.registry, Every(4)
    ids = await say(loop, 6)
    await loop.turn("web")
    file = await brought(loop)
    await back_to(loop, file)
    await say(loop, 5, seed=2)
    await loop.turn("web")
    cut = await registry.last_version()
    assert cut > file
    await take_back(loop, ids[1])
    await loop.turn("web")
    assert await tainted(registry) == {file, cut}
    published = await registry.published()
    assert published is not None
    assert published.tainted
    [_, fields] = (await loop.store.latest(registry.keys.verdicts))[0]
    told = Verdict.model_validate_json(fields[b"v"])
    assert told.action == "forget"
    assert f"Versions {cut}, {file} may hold them and cannot be learned anew." in told.sentence
    assert "The learner goes on from there." in told.sentence
    address = loop.keyring.open("feedback", ids[1])[1]
    receipt = await explain.receipt(registry, address, log=stages.log)
    assert receipt["unlearned"] == "impossible"
    assert f"version {file}, {cut} may hold it" in receipt["unlearned_why"]

    # What is cut from then on is marked too; after another process took over as well.
    stages.trainer._fence = None
    await say(loop, 4, seed=3)
    await loop.turn("web")
    assert await registry.last_version() == cut + 1
    assert cut + 1 in await tainted(registry)
    # And no more once it went back to one from before.
    await back_to(loop, 1)
    await say(loop, 4, seed=4)
    await loop.turn("web")
    assert await registry.last_version() == cut + 2
    assert cut + 2 not in await tainted(registry)


async def test_what_never_came_of_it_is_not_marked(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Weights from a file that was brought before it was said do not hold it."""
    loop = await open_loop(make_settings(web=WEB))
    stages = loop.models["web"]
    await say(loop, 3)
    await loop.turn("web")
    blob = pack_state(stages.trainer.learner)
    how = {"by": "me", "now": 1.0, "candidate": True}
    file = (await bring(stages.registry, stages.learner, blob, **how)).version.version
    await back_to(loop, file)
    ids = await say(loop, 6, seed=2)
    await loop.turn("web")
    await take_back(loop, ids[1])
    await loop.turn("web")
    assert await tainted(stages.registry) == set()
    assert await pending(stages.registry) == {}


async def test_an_archive_that_is_away_is_waited_for(
    open_loop: OpenLoop,
    make_settings: MakeSettings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is given up while the record cannot be read; once it is back, it is unlearned."""
    place = tmp_path / "archive"
    loop = await open_loop(make_settings(web=WEB | {"archive": str(place)}))
    stages = loop.models["web"]
    ids = await say(loop, 9)
    await loop.turn("web")
    assert stages.archiver is not None
    await stages.archiver.flush()
    for stream in ("feedback", "steps"):
        await loop.store.call("XTRIM", getattr(stages.registry.keys, stream), "MAXLEN", 1)
    await take_back(loop, ids[1])
    await loop.learn("web")
    shutil.move(place, tmp_path / "away")
    unlearning = Unlearning(stages.registry, stages.trainer, stages.replay_afresh, gather_s=0.0)
    assert not await unlearning.turn()
    assert "waits to be unlearned" in caplog.text
    assert await loop.store.call("KEYS", "*:without:*") == []
    shutil.move(tmp_path / "away", place)
    unlearning._rests_until = 0.0
    assert await unlearning.turn()
    await loop.learn("web")
    assert await pending(stages.registry) == {}


async def test_what_was_handed_over_and_is_of_no_use_leaves_nothing(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Where the learner had done it in place meanwhile, what waits for it goes."""
    loop = await open_loop(make_settings(web=WEB))
    stages = loop.models["web"]
    ids = await say(loop, 9)
    await loop.turn("web")
    await take_back(loop, ids[1])
    await loop.learn("web")
    gone = [entry_of(loop, ids[1])]
    told = Control(action="unlearn", entries=gone)
    await loop.store.call("XADD", stages.registry.keys.feedback, "*", "c", told.pack())
    assert await stages.unlearning.turn()
    ready, stages.trainer.handover.ready = stages.trainer.handover.ready, None
    stages.trainer._fence = None  # it begins anew, and knows what it stages by another mark
    await loop.store.call("XADD", stages.registry.keys.feedback, "*", "c", told.pack())
    while await stages.trainer.turn():
        if not await pending(stages.registry):
            stages.trainer.handover.ready = ready or stages.trainer.handover.ready
            ready = None
    assert stages.trainer.handover.ready is None
    assert await loop.store.call("KEYS", "*:without:*") == []
    await check_unlearned(stages, gone)
