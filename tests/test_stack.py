"""The whole stack, over HTTP: real Ray, Serve, HAProxy and Valkey. All tests share one `up`."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from the_service import bearer
from the_stack import MODELS, Stack, start, stop

from online_learner.ids import Keyring
from online_learner.learn import Trainer
from online_learner.schema import Step
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import Store

pytestmark = pytest.mark.ray

Poll = Callable[..., Awaitable[None]]
FEATURES = {"https": 0.0, "ip_in_url": 1, "age_of_domain": 1, "long_url": -1.0}


async def predict(http: httpx2.AsyncClient, model: str, features: dict[str, Any]) -> dict[str, Any]:
    """Ask for an answer, which must come."""
    reply = await http.post(f"/v1/models/{model}/predict", json={"features": features})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def correct(
    http: httpx2.AsyncClient, answer: dict[str, Any], value: bool, **fields: Any
) -> dict[str, Any]:
    """Correct an answer, which must be accepted."""
    body = {"prediction_id": answer["prediction_id"], "kind": "correction", "value": value}
    reply = await http.post("/v1/feedback", json=body | fields)
    assert reply.status_code == 202, reply.text
    found: dict[str, Any] = reply.json()
    return found


def some_features(rng: random.Random) -> dict[str, Any]:
    """Return features that vary."""
    return {name: rng.choice([-1.0, 0.0, 1.0]) for name in FEATURES}


async def replayed(stack: Stack, store: Store, model: str) -> Trainer:
    """Return a trainer that was rebuilt from the first version along the recorded steps."""
    settings = Settings.parse({"store": stack.store_url, "models": MODELS})
    keyring = Keyring.load(stack.data_dir)
    trainer = Stages(store, keyring, model, settings.model(model)).trainer
    await trainer.rewind()
    return trainer


async def learned_all(store: Store, model: str) -> bool:
    """Tell whether the last step covers the last feedback."""
    feedback = await store.latest(f"ol:{{{model}}}:feedback")
    steps = await store.latest(f"ol:{{{model}}}:steps")
    return bool(feedback) and bool(steps) and feedback[0][0] == steps[0][0]


async def test_feedback_reaches_the_served_weights(
    stack_http: httpx2.AsyncClient, eventually: Poll
) -> None:
    """Under `Always`, what is taught answers soon after, and the receipt says so."""
    first = await predict(stack_http, "eager", FEATURES)
    receipt = await correct(stack_http, first, True, user_id="ada")
    assert receipt["status"] == "accepted"
    assert receipt["durability"] == "fsynced"

    async def served() -> bool:
        now = await predict(stack_http, "eager", FEATURES)
        return bool(now["step"] > first["step"] and now["scores"]["true"] > first["scores"]["true"])

    await eventually(served, within_s=20)
    found = (await stack_http.get(f"/v1/feedback/{receipt['feedback_id']}")).json()
    assert found["status"] == "learned"
    assert found["feedback"]["source"] == "human:ada"


async def test_an_untrained_champion_answers_as_version_0(stack_http: httpx2.AsyncClient) -> None:
    """Before anything was learned and promoted, the answer is of version 0 and audited."""
    answer = await predict(stack_http, "careful", FEATURES)
    assert answer["version"] == 0
    assert answer["ask"] == {"reason": "audit", "probability": 1.0}
    status = (await stack_http.get("/v1/models/careful")).json()
    assert status["untrained"] is True


async def test_a_post_is_accepted_once_however_often_it_is_sent(
    stack_http: httpx2.AsyncClient,
) -> None:
    """Ten copies of one post, at once, are one signal."""
    answer = await predict(stack_http, "careful", FEATURES)
    posts = [correct(stack_http, answer, True, idempotency_key="ten-copies") for _ in range(10)]
    receipts = await asyncio.gather(*posts)
    assert sorted(r["status"] for r in receipts) == ["accepted"] + ["duplicate"] * 9
    assert len({r["feedback_id"] for r in receipts}) == 1


async def test_swaps_under_load_fail_nothing_and_mix_nothing(
    stack: Stack, stack_http: httpx2.AsyncClient, raw: Store, eventually: Poll
) -> None:
    """Under a stream of swaps, each answer is that of the step that it names, bit for bit."""
    rng, done = random.Random(7), asyncio.Event()
    answers: list[dict[str, Any]] = []

    async def ask() -> None:
        while not done.is_set():
            features = some_features(rng)
            answers.append(await predict(stack_http, "eager", features) | {"features": features})

    async def teach() -> None:
        for _ in range(300):
            answer = await predict(stack_http, "eager", some_features(rng))
            await correct(stack_http, answer, rng.random() < 0.5)
        done.set()

    await asyncio.gather(teach(), *(ask() for _ in range(6)))
    await eventually(lambda: learned_all(raw, "eager"), within_s=30)
    by_step: dict[int, list[dict[str, Any]]] = {}
    for answer in answers:
        by_step.setdefault(answer["step"], []).append(answer)
    assert len(by_step) > 5, "there were too few swaps for this to show anything"

    trainer = await replayed(stack, raw, "eager")
    checked = 0
    while True:
        for answer in by_step.get(trainer.at.step, []):
            [again] = trainer.learner.predict([answer["features"]])
            assert again.scores == answer["scores"]
            checked += 1
        if not await trainer.replay_step():
            break
    assert checked == len(answers)


async def test_a_learner_killed_in_the_middle_loses_and_doubles_nothing(
    stack: Stack, stack_http: httpx2.AsyncClient, raw: Store, eventually: Poll
) -> None:
    """After kill -9 under load the weights equal the replay along the recorded steps."""
    rng = random.Random(3)
    before = (await stack_http.get("/v1/models/careful")).json()["learner"]["pid"]
    accepted = []
    for number in range(200):
        answer = await predict(stack_http, "careful", some_features(rng))
        accepted.append((await correct(stack_http, answer, rng.random() < 0.5))["feedback_id"])
        if number == 100:
            os.kill(before, signal.SIGKILL)

    async def replaced() -> bool:
        learner = (await stack_http.get("/v1/models/careful")).json()["learner"]
        return learner is not None and learner["pid"] != before

    await eventually(replaced, within_s=60)
    await eventually(lambda: learned_all(raw, "careful"), within_s=30)
    assert len(set(accepted)) == 200
    steps = [
        Step.model_validate_json(fields[b"s"])
        for _, fields in await raw.range("ol:{careful}:steps")
    ]
    signals = await raw.range("ol:{careful}:feedback")
    assert sum(step.signals for step in steps) == len(signals)
    assert all(a.to == b.after for a, b in itertools.pairwise(steps))

    trainer = await replayed(stack, raw, "careful")
    while await trainer.replay_step():
        pass

    async def published() -> bool:
        meta = await trainer.registry.checkpoint_meta()
        return meta is not None and json.loads(meta)["step"] == trainer.at.step

    await eventually(published, within_s=10)
    meta = await trainer.registry.checkpoint_meta()
    assert meta is not None
    assert json.loads(meta)["state_digest"] == trainer.learner.digest()


async def test_the_store_killed_is_503_and_comes_back(
    stack_http: httpx2.AsyncClient, raw: Store, eventually: Poll
) -> None:
    """With the store dead, requests are refused within 2 s with Retry-After; then it heals."""
    answer = await predict(stack_http, "careful", FEATURES)
    info = await raw.call("INFO", "server")
    text = (
        info
        if isinstance(info, dict)
        else dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    )
    store_pid = int(text["process_id"])
    os.kill(store_pid, signal.SIGSTOP)
    started = time.monotonic()
    try:
        asked = stack_http.post("/v1/models/careful/predict", json={"features": FEATURES})
        body = {"prediction_id": answer["prediction_id"], "kind": "correction", "value": True}
        replies = await asyncio.gather(asked, stack_http.post("/v1/feedback", json=body))
        took_s = time.monotonic() - started
    finally:
        os.kill(store_pid, signal.SIGKILL)
    for reply in replies:
        assert reply.status_code == 503, reply.text
        assert reply.headers["content-type"] == "application/problem+json"
        assert int(reply.headers["retry-after"]) >= 1
    assert took_s < 2.5

    async def healed() -> bool:
        url = "/v1/models/careful/predict"
        return bool((await stack_http.post(url, json={"features": FEATURES})).status_code == 200)

    await eventually(healed, within_s=30)
    receipt = await correct(stack_http, answer, True, user_id="after the crash")
    assert receipt["status"] == "accepted"

    async def learned() -> bool:
        found = (await stack_http.get(f"/v1/feedback/{receipt['feedback_id']}")).json()
        return bool(found.get("status") == "learned")

    await eventually(learned, within_s=60)


@pytest.mark.parametrize(
    ("path", "content", "status", "code"),
    [
        ("/v1/models/eagre/predict", b'{"features": {}}', 404, "unknown_model"),
        ("/v1/models/eager/predict", b'{"features": {"x": NaN}}', 400, "malformed"),
        ("/v1/models/eager/predict", b'{"features": {"x": 1e308}}', 422, "invalid_value"),
        ("/v1/models/eager/predict", b'{"features": {}, "sesion_id": "a"}', 422, "unknown_field"),
        ("/v1/models/eager/predict", b'{"features": ', 400, "malformed"),
        ("/v1/models/eager/predict", b" " * 10_000_000, 413, "too_large"),
        (
            "/v1/feedback",
            b'{"prediction_id": "forged", "kind": "thumbs", "value": true}',
            404,
            "unknown_prediction",
        ),
    ],
)
async def test_bad_input_is_a_problem_that_says_what_to_do(
    stack_http: httpx2.AsyncClient, path: str, content: bytes, status: int, code: str
) -> None:
    """Through the whole ingress, bad input is problem+json, and the next request is unharmed."""
    headers = {"content-type": "application/json"}
    reply = await stack_http.post(path, content=content, headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["detail"]
    await predict(stack_http, "eager", FEATURES)


async def test_no_key_no_answer(stack: Stack) -> None:
    """Every route but the health checks asks for a key."""
    async with httpx2.AsyncClient(base_url=stack.url) as stranger:
        reply = await stranger.post("/v1/models/eager/predict", json={"features": {}})
        assert reply.status_code == 401
        assert (await stranger.get("/v1/models")).status_code == 401
        assert (await stranger.get("/livez")).status_code == 200
        ready = await stranger.get("/readyz")
        assert ready.json()["durability"] == "fsynced"


async def test_operators_promote_and_roll_back(
    stack_http: httpx2.AsyncClient, eventually: Poll
) -> None:
    """A rollback by hand answers from the version before, is recorded, and freezes the gate."""
    status = (await stack_http.get("/v1/models/eager")).json()
    assert status["aliases"]["following"]
    planned = (await stack_http.post("/v1/models/eager/rollback", json={"dry_run": True})).json()
    assert planned["dry_run"]
    assert (await stack_http.get("/v1/models/eager")).json()["aliases"] == status["aliases"]
    done = await stack_http.post("/v1/models/eager/rollback")
    assert done.status_code == 200, done.text

    async def rolled_back() -> bool:
        return bool((await predict(stack_http, "eager", FEATURES))["step"] == 0)

    await eventually(rolled_back, within_s=20)
    verdict = (await stack_http.get("/v1/models/eager/verdicts")).json()["verdicts"][0]
    assert verdict["action"] == "rollback"
    assert verdict["by"] == "key:up"
    assert (await stack_http.post("/v1/models/eager/thaw")).status_code == 200


def test_the_plain_profile_works_and_leaves_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """On Ray's own proxy, beside another cluster, the loop runs; Ctrl-C leaves nothing."""
    models = {"eager": MODELS["eager"]}
    running = start(tmp_path_factory.mktemp("plain"), "plain", models)
    try:
        headers = bearer(running.key)
        with httpx2.Client(base_url=running.url, headers=headers, timeout=15.0) as client:
            url = "/v1/models/eager/predict"
            answer = client.post(url, json={"features": FEATURES}).json()
            body = {"prediction_id": answer["prediction_id"], "kind": "thumbs", "value": True}
            assert client.post("/v1/feedback", json=body).status_code == 202
    finally:
        stop(running)
    assert running.process.returncode == 0, running.log.read_text()
    assert not (running.data_dir / "endpoint.json").exists()
    left = subprocess.run(
        ["pgrep", "-f", str(running.data_dir)], capture_output=True, text=True, check=False
    )
    assert left.stdout == ""
