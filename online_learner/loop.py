"""READ FIRST: the whole loop in one process, without Ray and without HTTP.

    predict -> journal -> ingest -> learn -> judge -> promote -> predict      (retain: what goes)
                            observe: who speaks, whom to believe, what has moved

The same stages run as Serve deployments in `serve_app`. Here they are called in turn:

    async with await Loop.open(Settings.load("loop.yaml")) as loop:
        answer = await loop.predict("phishing", {"https": 0.0, "ip_in_url": 1})
        await loop.feedback(answer["prediction_id"], "correction", True)
        await loop.turn("phishing")
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self, cast

from online_learner.bundle import Bundle
from online_learner.errors import Fenced, NotFound, did_you_mean
from online_learner.ids import Keyring
from online_learner.ingest import LOCAL, Ingest, Receipt
from online_learner.learners import Learner, Ranker
from online_learner.render import render
from online_learner.requests import LogRequest, PredictRequest, read_chat, read_feedback
from online_learner.schema import Prediction
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import Store, open_store

LOOK_S = 1.0  # how old may be what is known of the store


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
        self._looked_at = 0.0
        window_s = settings.window_s
        self.models = {
            model: Stages(
                store,
                keyring,
                model,
                spec,
                window_s=window_s,
                data_dir=settings.data_dir,
                clock=clock,
                rng=rng or random.Random(),  # noqa: S311
            )
            for model, spec in settings.models.items()
        }
        admissions = {model: stages.admission for model, stages in self.models.items()}
        self.ingest = Ingest(store, keyring, admissions, window_s, clock=clock)

    @classmethod
    async def open(cls, settings: Settings, **options: Any) -> Loop:
        """Open the store, found or restore every model, and load its weights."""
        store = await open_store(
            settings.store,
            data_dir=settings.data_dir,
            maxmemory_bytes=settings.maxmemory_bytes,
        )
        try:
            loop = cls(settings, store, Keyring.load(settings.data_dir), **options)
            loop.ingest.durability = store.health.durability
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
            raise NotFound(f"there is no such model here.{hint}", code="unknown_model")
        return self.models[model]

    async def predict(self, model: str, features: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """Answer one request. The answer is in the log before it is returned."""
        request = PredictRequest(features=features, **fields)
        return await self._log(model, self.stages(model).predictor.answer(request))

    async def log(self, model: str, **fields: Any) -> dict[str, Any]:
        """Log an answer made elsewhere: `prompt` and `outputs`, or `features` and `output`."""
        request = read_chat(LogRequest(**fields))
        record = self.stages(model).predictor.record(request)
        if request.dry_run:
            return render(record, None, None, window_s=self.settings.window_s)
        return await self._log(model, record, once=request.once)

    async def _log(self, model: str, record: Prediction, *, once: bool = False) -> dict[str, Any]:
        full = self.store.health.no_room(audited=record.audited)
        if full is not None:
            raise full
        [address] = await self.stages(model).journal.append([record], [once])
        prediction_id = self.keyring.seal("prediction", model, address)
        return render(record, prediction_id, address, window_s=self.settings.window_s)

    async def feedback(
        self,
        prediction_id: str,
        kind: str,
        value: Any = None,
        *,
        auditor: bool = False,
        **fields: Any,
    ) -> Receipt:
        """Accept one signal. It is durable, and will be learned once, when this returns.

        `value` is left out where the kind has other fields: `chosen` and `rejected`, say. The word
        of an `auditor` is taken as drawn without bias.
        """
        body = {"prediction_id": prediction_id, "kind": kind, **fields}
        if value is not None or kind == "selection":
            body["value"] = value
        return await self.ingest.accept(read_feedback(body), replace(LOCAL, auditor=auditor))

    async def turn(self, model: str) -> None:
        """Learn all that has arrived, judge it, promote on evidence, and swap the weights in."""
        stages = self.stages(model)
        await self.learn(model)
        if await stages.unlearning.turn():
            await self.learn(model)
        await stages.trainer.publish()
        while await stages.gatekeeper.turn():
            pass
        await stages.observer.turn()
        await stages.follower.refresh()
        await self.tend(model)
        if self.live:
            stages.predictor.bundle = _alive(stages)

    async def tend(self, model: str) -> None:
        """Ask the store how it is, archive and trim what is no longer needed, where that is due."""
        stages, now = self.stages(model), time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self.ingest.durability = (await self.store.look()).durability
        if stages.archiver is not None:
            with contextlib.suppress(Fenced):  # a service archives, or another loop does
                await stages.archiver.turn_when_due()
        await stages.retention.trim_when_due()

    async def learn(self, model: str) -> None:
        """Learn all that has arrived, and no more; in a live loop the next answer rests on it."""
        stages = self.stages(model)
        while await stages.trainer.turn() == stages.spec.batch_max:
            pass
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
    at, learner = trainer.at, cast("Learner | Ranker", trainer.learner)
    champion = replace(bundle.champion, lineage=at.lineage, step=at.step, learner=learner)
    return replace(bundle, champion=champion)
