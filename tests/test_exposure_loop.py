"""Thumbs alone, in the whole loop: they decide where a coin lets both models be seen."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from online_learner.loop import Loop
from online_learner.schema import Aliases, Verdict
from online_learner.settings import Settings

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

OPTIONS = [{"id": name, "features": {"text": name}} for name in ("spam", "eggs", "ham")]
PAGES = {"publish_s": 0.0, "promotion": {"alpha": 0.05}}
BLOCK = 20


async def thumbs(loop: Loop, liked: str, blocks: int, seed: int = 1) -> list[dict[str, Any]]:
    """Ask, and have raters like one option at the top, and nothing else; returns the answers."""
    rng, found = random.Random(seed), []
    for _ in range(blocks):
        for n in range(BLOCK):
            options = rng.sample(OPTIONS, 3)
            answer = await loop.predict("pages", {}, options=options)
            up = answer["output"][0] == liked
            await loop.feedback(answer["prediction_id"], "thumbs", up, user_id=f"rater-{n}")
            found.append(answer)
        await loop.turn("pages")
    return found


async def state_of(loop: Loop) -> tuple[Aliases, list[Verdict]]:
    """Return the aliases and all verdicts."""
    registry = loop.models["pages"].registry
    aliases = await registry.aliases()
    assert aliases is not None
    found = await registry.store.range(registry.keys.verdicts)
    return aliases, [Verdict.model_validate_json(fields[b"v"]) for _, fields in found]


@pytest.mark.parametrize("exposure", [0.0, 0.4])
async def test_thumbs_promote_only_what_is_seen(
    open_loop: OpenLoop, make_settings: MakeSettings, exposure: float
) -> None:
    """A ranker that learned what is liked is followed with exposure, and never without."""
    loop = await open_loop(make_settings(pages=PAGES | {"exposure": exposure}))
    answers = await thumbs(loop, "ham", blocks=12)
    aliases, verdicts = await state_of(loop)
    if not exposure:
        assert (aliases.following, verdicts) == (False, [])
        assert {answer["role"] for answer in answers} == {"champion"}
        return
    assert aliases.following
    assert verdicts[0].action == "follow"
    gain = verdicts[0].numbers["reward_gain"]
    assert isinstance(gain, float)
    assert 0.3 < gain < 1.0
    shown = [answer["role"] for answer in answers[BLOCK:]]
    assert {"champion", "latest"} <= set(shown)


async def test_thumbs_pull_the_leash(open_loop: OpenLoop, make_settings: MakeSettings) -> None:
    """On the leash, an anchor that is liked better than what is served comes back."""
    loop = await open_loop(make_settings(pages=PAGES | {"exposure": 0.4, "audit": 1.0}))
    await thumbs(loop, "ham", blocks=12)
    aliases, _ = await state_of(loop)
    assert aliases.following
    stages = loop.models["pages"]
    for _ in range(30):  # the world now likes eggs, and the learner is told nothing of it
        for n in range(BLOCK):
            answer = await loop.predict("pages", {}, options=OPTIONS[1::-1] + OPTIONS[2:])
            up = answer["output"][0] == "eggs"
            await loop.feedback(answer["prediction_id"], "thumbs", up, user_id=f"rater-{n}")
        while await stages.gatekeeper.turn():
            pass
        await stages.follower.refresh()
        aliases, verdicts = await state_of(loop)
        if verdicts[-1].action == "pull":
            break
    assert verdicts[-1].action == "pull"
    assert not aliases.following
