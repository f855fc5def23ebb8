"""READ FIRST: the whole loop in one process, without Ray and without HTTP.

    predict -> journal -> ingest -> learn -> judge -> promote -> predict

The same stages run as Serve deployments in `serve_app`. Here they are called in turn:

    async with await Loop.open(Settings.load("loop.yaml")) as loop:
        answer = await loop.predict("phishing", {"https": 0.0, "ip_in_url": 1})
        await loop.feedback(answer["prediction_id"], "correction", True)
        await loop.turn("phishing")
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from online_learner.errors import ConfigError, NotFound, did_you_mean
from online_learner.ids import Keyring
from online_learner.ingest import Ingest, Receipt
from online_learner.journal import Journal
from online_learner.learn import Trainer
from online_learner.learners import make_learner, resolve
from online_learner.predict import Follower, Predictor, render
from online_learner.promote import Gatekeeper
from online_learner.registry import Registry
from online_learner.requests import SIGNAL, PredictRequest
from online_learner.settings import ModelSpec, Settings
from online_learner.store import Store, open_store


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of one model, wired to one store."""

    registry: Registry
    predictor: Predictor  # 1 answer
    journal: Journal  # 2 log
    trainer: Trainer  # 4 learn
    gatekeeper: Gatekeeper  # 5 judge, 6 promote
    follower: Follower  # 7 swap


def wire(
    store: Store,
    keyring: Keyring,
    model: str,
    spec: ModelSpec,
    *,
    clock: Callable[[], float] = time.time,
    rng: random.Random | None = None,
) -> Stages:
    """Build the stages of one model; what a team tunes is imported by the paths in its spec."""
    registry = Registry(store, keyring, model)
    learner = make_learner(spec)
    signals = resolve(spec.signals)(spec.task, spec.labels)
    policy = make_policy(spec)
    predictor = Predictor(model, spec, rng or random.Random())  # noqa: S311
    return Stages(
        registry=registry,
        predictor=predictor,
        journal=Journal(store, model),
        trainer=Trainer(
            registry, spec, learner, signals, policy, trusted=policy.trusted_at_once, clock=clock
        ),
        gatekeeper=Gatekeeper(registry, spec, policy, signals, clock=clock),
        follower=Follower(registry, predictor, learner),
    )


def make_policy(spec: ModelSpec) -> Any:
    """Build the promotion policy that a spec names."""
    kind = resolve(spec.promotion.policy)
    try:
        return kind(**spec.promotion.arguments)
    except TypeError as error:
        raise ConfigError(
            f"promotion: {spec.promotion.policy} does not take that: {error}"
        ) from error


class Loop:
    """The loop of all configured models, on one store."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        keyring: Keyring,
        *,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self._clock = clock
        self.models = {
            model: wire(store, keyring, model, spec, clock=clock, rng=rng)
            for model, spec in settings.models.items()
        }
        self.keyring = keyring
        self.ingest = Ingest(store, keyring, settings.models, settings.window_s, clock=clock)

    @classmethod
    async def open(cls, settings: Settings, **options: Any) -> Loop:
        """Open the store, found or restore every model, and load its weights."""
        store = await open_store(settings.store, data_dir=settings.data_dir)
        try:
            loop = cls(settings, store, Keyring.load(settings.data_dir), **options)
            loop.ingest.durability = await store.durability()
            for model in loop.models:
                await loop.turn(model)
        except BaseException:
            await store.close()
            raise
        return loop

    def stages(self, model: str) -> Stages:
        """Return the stages of one model; raises `NotFound`."""
        if model not in self.models:
            hint = did_you_mean(model, self.models)
            raise NotFound(f"no model '{model}' here.{hint}", code="unknown_model")
        return self.models[model]

    async def predict(self, model: str, features: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """Answer one request. The answer is in the log before it is returned."""
        stages = self.stages(model)
        request = PredictRequest(features=features, **fields)
        record = stages.predictor.answer(request)
        [address] = await stages.journal.append([record])
        prediction_id = self.keyring.seal("prediction", model, address)
        window_s = self.settings.window_s
        return render(record, prediction_id, address, window_s=window_s, top_k=request.top_k)

    async def feedback(self, prediction_id: str, kind: str, value: Any, **fields: Any) -> Receipt:
        """Accept one signal. It is durable, and will be learned once, when this returns."""
        body = {"prediction_id": prediction_id, "kind": kind, "value": value, **fields}
        return await self.ingest.accept(SIGNAL.validate_python(body))

    async def turn(self, model: str) -> None:
        """Learn all that has arrived, judge it, promote on evidence, and swap the weights in."""
        stages = self.stages(model)
        while await stages.trainer.turn():
            pass
        await stages.trainer.publish()
        while await stages.gatekeeper.turn():
            pass
        await stages.follower.refresh()

    async def close(self) -> None:
        """Close the store."""
        await self.store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
