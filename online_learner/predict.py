"""Stage 1: answer with the champion, let the shadows answer unseen, and check it by the rules.

A `Bundle` is immutable: aliases, champion and shadows of one moment. An answer takes one bundle and
keeps it, so that no answer mixes two versions; `swap` replaces the reference.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from online_learner.bundle import CANNOT_TAKE, Bundle
from online_learner.chat import shared_context
from online_learner.errors import Invalid, Unavailable
from online_learner.explore import draw, softmax
from online_learner.learners import Answer
from online_learner.requests import LogRequest, PredictRequest, ScoreRequest
from online_learner.schema import Ask, Flag, Option, Prediction, Shadow
from online_learner.settings import ModelSpec

SLOW_MS = 1.0
CHAMPION = "champion"
EXTERNAL = "external"  # the role of an answer that was made elsewhere
RANKS = ("ranking", "generation")


class Rules(Protocol):
    """Checks on inputs and outputs; see `policies.rules`. Falsy where there are none."""

    def of_input(self, features: Mapping[str, Any], options: Sequence[Option] = ()) -> list[Flag]:
        """Return what the rules find in a question."""

    def of_output(self, output: Any) -> list[Flag]:
        """Return what the rules find in an answer."""


@dataclass(slots=True)
class Predictor:
    """Answers requests for one model from the weights that it holds.

    Parameters
    ----------
    spec
        The model's configuration.
    rules
        What makes flags, and may block an answer.
    rng
        Draws the audit coin, and the order of options where it is explored.
    clock
        Seconds, to measure latency.
    """

    model: str
    spec: ModelSpec
    rules: Rules | None = None
    rng: random.Random = field(default_factory=random.Random)
    clock: Callable[[], float] = time.perf_counter
    bundle: Bundle | None = None
    mean_ms: float = 0.0  # moving average of the time that an answer takes

    @property
    def slow(self) -> bool:
        """Whether answering takes so long that it should not be done on the event loop."""
        return self.mean_ms > SLOW_MS

    def answer(self, request: PredictRequest) -> Prediction:
        """Answer one request and return the record to be logged.

        Raises
        ------
        Unavailable
            No weights are loaded yet.
        Invalid
            The model cannot take these features or options.
        """
        bundle, started = self._ready(), self.clock()
        options = self._options(request)
        try:
            answer = bundle.champion.answer(request.features, options)
        except CANNOT_TAKE as error:
            raise self._refusal(error) from error
        flags = self._flags(request.features, options, answer)
        ask, shadows = self._audit(bundle, answer, request.features, options)
        return self._record(
            bundle,
            started,
            features=request.features,
            options=options,
            ask=ask,
            shadows=shadows,
            top_k=request.top_k,
            **_names(request),
            **self._shown(answer, request.top_k),
            **self._blocking(flags),
        )

    def record(self, request: LogRequest) -> Prediction:
        """Return the record of an answer that was made elsewhere, scored by the reward model.

        Raises
        ------
        Unavailable
            No weights are loaded yet.
        Invalid
            The model does not take such answers, or they are not complete.
        """
        bundle, started = self._ready(), self.clock()
        if self.spec.task != "generation":
            raise Invalid.at("/", f"answers are logged for task: generation, not {self.spec.task}")
        features, options = request.features(), request.options()
        context = shared_context(features)
        answer = self._rewarded(bundle, context, options)
        flags = self._flags(context, (), None) + self._flags_of_outputs(request)
        ask, shadows = self._audit(bundle, answer, context, options)
        found = self._record(
            bundle,
            started,
            role=EXTERNAL,
            features=features,
            options=options,
            output=[option.id for option in options],
            scores=answer.scores,
            ask=ask,
            shadows=shadows,
            model_version=request.model_version,
            parameters=request.parameters,
            **_names(request),
            **self._blocking(flags),
        )
        if request.latency_ms is None:
            return found
        return found.model_copy(update={"latency_ms": request.latency_ms})

    def score(self, request: ScoreRequest) -> dict[str, Any]:
        """Return the rewards of some outputs; nothing is logged."""
        bundle, started = self._ready(), self.clock()
        if self.spec.task not in RANKS:
            raise Invalid.at("/", f"a model of the task {self.spec.task} gives no rewards")
        try:
            rewards = bundle.champion.score(shared_context(request.features()), request.options())
        except CANNOT_TAKE as error:
            raise self._refusal(error) from error
        self._took(started)
        champion = bundle.champion
        return {
            "model": self.model,
            "version": champion.version,
            "step": champion.step,
            "rewards": rewards,
        }

    # --- the parts of an answer ---------------------------------------------------------------

    def _ready(self) -> Bundle:
        if self.bundle is None:
            raise Unavailable(
                f"'{self.model}' is still loading its weights; try again in a second",
                code="not_ready",
            )
        return self.bundle

    def _refusal(self, error: Exception) -> Invalid:
        return Invalid.at("/features", f"'{self.model}' cannot take these features: {error}")

    def _rewarded(self, bundle: Bundle, features: dict[str, Any], options: list[Option]) -> Answer:
        """Return the outputs by their rewards, or no output where the model cannot take them."""
        try:
            return bundle.champion.answer(features, options)
        except CANNOT_TAKE:  # what was answered elsewhere is logged all the same
            return Answer([])

    def _options(self, request: PredictRequest) -> list[Option]:
        if self.spec.task in RANKS:
            if request.options is None:
                raise Invalid.at("/options", "this model ranks: send the options to choose from")
            return [Option(id=o.id, features=o.features) for o in request.options]
        if request.options is not None:
            raise Invalid.at("/options", f"are for models that rank; the task is {self.spec.task}")
        return []

    def _shown(self, answer: Answer, top_k: int | None) -> dict[str, Any]:
        """Return output, scores and propensities; a ranking may be varied here, to learn from."""
        found: dict[str, Any] = {"output": answer.output, "scores": answer.scores}
        if not isinstance(answer.output, list):
            return found | {"uncertainty": answer.uncertainty}
        order = draw(
            answer.scores, self.spec.exploration, self.rng, top=top_k or len(answer.output)
        )
        return found | {
            "output": order.ids,
            "propensities": order.propensities,
            "propensity": order.propensities[0],
            "explored": order.explored,
            "uncertainty": 1.0 - max(softmax(answer.scores).values()),
        }

    def _flags(
        self, features: dict[str, Any], options: Sequence[Option], answer: Answer | None
    ) -> list[Flag]:
        if not self.rules:
            return []
        flags = list(self.rules.of_input(features, options))
        if answer is not None and not isinstance(answer.output, list):
            flags += self.rules.of_output(answer.output)
        return flags

    def _flags_of_outputs(self, request: LogRequest) -> list[Flag]:
        """Return what the rules find in each output; a flag names the one that it speaks of."""
        if not self.rules:
            return []
        return [
            flag.model_copy(update={"option": output.id})
            for output in request.outputs
            for flag in self.rules.of_output(output.value())
        ]

    def _blocking(self, flags: list[Flag]) -> dict[str, Any]:
        if not flags:
            return {}
        blocked = any(flag.severity == "block" for flag in flags)
        fallback = self.spec.fallback if blocked else None
        return {"flags": flags, "blocked": blocked, "fallback": fallback}

    def _record(self, bundle: Bundle, started: float, **fields: Any) -> Prediction:
        latency_ms = self._took(started)
        champion = bundle.champion
        return Prediction(
            model=self.model,
            version=champion.version,
            lineage=champion.lineage,
            step=champion.step,
            generation=bundle.aliases.generation,
            latency_ms=round(latency_ms, 3),
            **fields,
        )

    def _took(self, started: float) -> float:
        """Note how long an answer took, and return it, in milliseconds."""
        took_ms = (self.clock() - started) * 1000
        self.mean_ms += 0.05 * (took_ms - self.mean_ms)
        return took_ms

    def _audit(
        self, bundle: Bundle, answer: Answer, features: dict[str, Any], options: Sequence[Option]
    ) -> tuple[Ask | None, dict[str, Shadow]]:
        share = self.spec.audit if bundle.aliases.trusted else 1.0
        if share <= 0.0 or answer.output == [] or self.rng.random() >= share:
            return None, {}
        shadows = {CHAMPION: bundle.champion.shadow(answer)}
        for role, weights in bundle.shadows:
            # A shadow that fails has no answer here, and no evidence; the client has one.
            with contextlib.suppress(*CANNOT_TAKE):
                shadows[role] = weights.shadow(weights.answer(features, options))
        return Ask(reason="audit", probability=share), shadows


def _names(request: PredictRequest | LogRequest) -> dict[str, Any]:
    """Return by what the caller will find an answer again."""
    return {
        "session_id": request.session_id,
        "user_id": request.user_id,
        "external_id": request.external_id,
        "tags": request.tags,
    }
