"""Taking back over HTTP on real Ray: what was learned is soon in no weights, whoever dies."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
from test_stack import correct, predict, some_features
from the_forgotten import by_hand
from the_stack import MODELS, Stack

from online_learner.ids import Keyring
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import Store

Poll = Callable[..., Awaitable[None]]


async def outcome(http: httpx2.AsyncClient, feedback_id: str) -> dict[str, Any]:
    """Return what became of a signal."""
    return dict((await http.get(f"/v1/feedback/{feedback_id}")).json())


async def test_a_signal_is_unlearned_while_others_are_learned(
    stack: Stack, stack_http: httpx2.AsyncClient, raw: Store, eventually: Poll
) -> None:
    """The learner is killed in between, too: in the end the weights are as though never said."""
    http, rng = stack_http, random.Random(6)
    keyring = Keyring.load(stack.data_dir)
    settings = Settings.parse({"store": stack.store_url, "models": MODELS})
    stages = Stages(raw, keyring, "careful", settings.models["careful"])
    said = []
    for _ in range(12):
        answer = await predict(http, "careful", some_features(rng))
        said.append((await correct(http, answer, rng.random() < 0.5))["feedback_id"])

    async def learned() -> bool:
        return (await outcome(http, said[-1]))["status"] == "learned"

    await eventually(learned, within_s=20.0)
    gone = said[2:9:3]
    for feedback_id in gone:
        reply = await http.delete(f"/v1/feedback/{feedback_id}")
        assert reply.status_code == 202, reply.text
        assert reply.json()["unlearned"] in {"pending", "done"}
    beat = json.loads(await raw.call("GET", stages.registry.keys.heartbeat("learner")))
    with contextlib.suppress(ProcessLookupError):
        os.kill(beat["pid"], signal.SIGKILL)

    async def unlearned() -> bool:
        answer = await predict(http, "careful", some_features(rng))
        await correct(http, answer, rng.random() < 0.5)
        return all([(await outcome(http, one))["unlearned"] == "done" for one in gone])

    await eventually(unlearned, within_s=90.0)

    async def as_by_hand() -> bool:
        state = await stages.registry.published()
        assert state is not None
        entries = [keyring.open("feedback", one)[1].entry for one in gone]
        digests = await by_hand(stages, entries)
        return digests.get(state.step) == state.state_digest

    await eventually(as_by_hand, within_s=20.0)
