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
from dataclasses import dataclass, replace
from typing import Any, Self

from online_learner.admit import Admission
from online_learner.bundle import Bundle
from online_learner.errors import NotFound, did_you_mean
from online_learner.ids import Keyring
from online_learner.ingest import Ingest, Receipt
from online_learner.journal import Journal
from online_learner.learn import Trainer
from online_learner.learners import Learner, Ranker
from online_learner.learners.factory import make_learner
from online_learner.predict import Predictor
from online_learner.promote import Gatekeeper
from online_learner.registry import Registry
from online_learner.render import render
from online_learner.requests import LogRequest, PredictRequest, read_chat, read_feedback
from online_learner.schema import Prediction
from online_learner.settings import ModelSpec, Settings
from online_learner.store import Store, open_store
from online_learner.swap import Follower
from online_learner.tuned import make_policy, make_rules, make_signals


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of one model, wired to one store."""

    registry: Registry
    predictor: Predictor  # 1 answer
    journal: Journal  # 2 log
    admission: Admission  # 3 accept
    trainer: Trainer  # 4 learn
    gatekeeper: Gatekeeper  # 5 judge, 6 promote
    follower: Follower  # 7 swap


def wire(
    store: Store,
    keyring: Keyring,
    model: str,
    spec: ModelSpec,
    *,
    window_s: float = 86_400.0,
    trains: bool = True,
    clock: Callable[[], float] = time.time,
    rng: random.Random | None = None,
) -> Stages:
    """Build the stages of one model; what a team tunes is imported by the paths in its spec.

    Where it only answers and does not train, the weights stay on the CPU.
    """
    registry = Registry(store, keyring, model)
    learner = make_learner(spec if trains else spec.on_cpu())
    signals = make_signals(spec)
    policy = make_policy(spec)
    rules = make_rules(spec)
    predictor = Predictor(model, spec, rules, rng or random.Random())  # noqa: S311
    return Stages(
        registry=registry,
        predictor=predictor,
        journal=Journal(store, model, window_s=window_s),
        admission=Admission(spec, signals, rules),
        trainer=Trainer(
            registry, spec, learner, signals, policy, trusted=policy.trusted_at_once, clock=clock
        ),
        gatekeeper=Gatekeeper(registry, spec, policy, signals, clock=clock),
        follower=Follower(registry, predictor, learner),
    )


class Loop:
    """The loop of all configured models, on one store.

    Parameters
    ----------
    live
        Let a champion that follows the learner answer with the very weights that learn, instead of
        the published copy: in one process every answer then rests on all that was said before.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        keyring: Keyring,
        *,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        live: bool = False,
    ) -> None:
        self.settings = settings
        self.store = store
        self.keyring = keyring
        self.live = live
        window_s = settings.window_s
        self.models = {
            model: wire(store, keyring, model, spec, window_s=window_s, clock=clock, rng=rng)
            for model, spec in settings.models.items()
        }
        admissions = {model: stages.admission for model, stages in self.models.items()}
        self.ingest = Ingest(store, keyring, admissions, window_s, clock=clock)

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
        request = PredictRequest(features=features, **fields)
        return await self._log(model, self.stages(model).predictor.answer(request))

    async def log(self, model: str, **fields: Any) -> dict[str, Any]:
        """Log an answer that was made elsewhere: `prompt` and `outputs`, or a chat."""
        request = read_chat(LogRequest(**fields))
        return await self._log(model, self.stages(model).predictor.record(request))

    async def _log(self, model: str, record: Prediction) -> dict[str, Any]:
        [address] = await self.stages(model).journal.append([record])
        prediction_id = self.keyring.seal("prediction", model, address)
        return render(record, prediction_id, address, window_s=self.settings.window_s)

    async def feedback(
        self, prediction_id: str, kind: str, value: Any = None, **fields: Any
    ) -> Receipt:
        """Accept one signal. It is durable, and will be learned once, when this returns.

        `value` is left out where the kind has other fields: `chosen` and `rejected`, say.
        """
        body = {"prediction_id": prediction_id, "kind": kind, **fields}
        if value is not None or kind == "selection":
            body["value"] = value
        return await self.ingest.accept(read_feedback(body))

    async def turn(self, model: str) -> None:
        """Learn all that has arrived, judge it, promote on evidence, and swap the weights in."""
        stages = self.stages(model)
        while await stages.trainer.turn():
            pass
        if not self.live:
            await stages.trainer.publish()
        while await stages.gatekeeper.turn():
            pass
        await stages.follower.refresh()
        if self.live:
            stages.predictor.bundle = _alive(stages)

    async def close(self) -> None:
        """Close the store."""
        await self.store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


def _alive(stages: Stages) -> Bundle | None:
    """Return the bundle with the learner itself in the place of its published copy."""
    bundle, trainer = stages.predictor.bundle, stages.trainer
    if bundle is None or not bundle.aliases.following or bundle.aliases.pinned:
        return bundle
    at, learner = trainer.at, trainer.learner
    assert isinstance(learner, Learner | Ranker)
    champion = replace(bundle.champion, lineage=at.lineage, step=at.step, learner=learner)
    return replace(bundle, champion=champion)
