"""Stage 1: answer with the champion, let the shadows answer unseen, and check it by the rules.

A `Bundle` is immutable: aliases, champion and shadows of one moment. An answer takes one bundle and
keeps it, so that no answer mixes two versions; `swap` replaces the reference.

The champion answers, unless a role under test is drawn to (`exposure`), or it cannot: then the
anchor does, where one walks behind. What is audited, by a coin, is answered by every role.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from online_learner.bundle import CANNOT_TAKE, CHAMPION, Bundle, Panel, Weights
from online_learner.chat import shared_context
from online_learner.elsewhere import check_generated, read_made
from online_learner.errors import Invalid, Unavailable, Unfit
from online_learner.explore import chances, draw, draw_role, softmax
from online_learner.inputs import FULL, Inputs
from online_learner.learners import Answer
from online_learner.requests import LogRequest, PredictRequest, ScoreRequest
from online_learner.schema import Ask, Flag, Option, Prediction, Scaling, label_key
from online_learner.settings import ModelSpec

SLOW_MS = 1.0
EXTERNAL = "external"  # the role of an answer that was made elsewhere
RANKS = ("ranking", "generation")


class Rules(Protocol):
    """Checks on inputs and outputs; see `policies.rules`. Falsy where there are none."""

    def of_input(self, features: Mapping[str, Any], options: Sequence[Option] = ()) -> list[Flag]:
        """Return what the rules find in a question."""

    def of_output(self, output: Any) -> list[Flag]:
        """Return what the rules find in an answer."""


class Sampling(Protocol):
    """Of which answers a label is asked, beside the audits; see `policies.sampling`."""

    def ask(
        self, scores: Mapping[str, float], rng: random.Random, *, factor: float = 1.0
    ) -> float | None:
        """Return the probability with which it asks, where it does; None where it does not.

        Parameters
        ----------
        scores
            By label or option id; empty where the model gives none.
        factor
            By how much the budget is multiplied now.
        """


Reply: TypeAlias = tuple[Weights, Answer, dict[str, Any]]
"""Who answers, what, and the fields of the record that say by what chance, and what others say."""


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
        Draws the audit coin, who answers, and the order of options where it is explored.
    clock
        Seconds, to measure latency.
    inputs
        What the model sees of what is asked, and what the record keeps.
    sampling
        Of which answers a label is asked, beside the audits; None asks none.
    """

    model: str
    spec: ModelSpec
    rules: Rules | None = None
    rng: random.Random = field(default_factory=random.Random)
    clock: Callable[[], float] = time.perf_counter
    inputs: Inputs = FULL
    sampling: Sampling | None = None
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
        sent = self._options(request)
        features, options = self.inputs.seen(request.features), self.inputs.seen_options(sent)
        try:
            weights, answer, how = self._reply(bundle, features, options, self.spec.exposure)
        except CANNOT_TAKE as error:
            raise self._refusal(error) from error
        flags = self._flags(request.features, sent, answer)
        scaling = bundle.scaling(how.get("role", CHAMPION))
        shown = self._shown(answer, request.top_k, scaling)
        return self._record(
            bundle,
            weights,
            started,
            top_k=request.top_k,
            **self.inputs.kept(request, features, options),
            **shown,
            **self._blocking(flags),
            **self._asking(how, shown["scores"], bundle),
        )

    def record(self, request: LogRequest) -> Prediction:
        """Return the record of an answer that was made elsewhere, scored by the reward model.

        Of other tasks than `generation`, it is kept as it is; see `elsewhere`.

        Raises
        ------
        Unavailable
            No weights are loaded yet.
        Invalid
            It is not complete, or none that a model of this task can give.
        """
        if self.spec.task != "generation":
            return self._imported(request)
        check_generated(request)
        bundle, started = self._ready(), self.clock()
        sent = request.asked()
        flags = self._flags(shared_context(sent), (), None) + self._flags_of_outputs(request)
        features = self.inputs.seen(sent)
        options = self.inputs.seen_options(request.made())
        weights, answer, how = self._rewarded(bundle, shared_context(features), options)
        found = self._record(
            bundle,
            weights,
            started,
            output=[option.id for option in options],
            scores=answer.scores,
            model_version=request.model_version,
            observed_at=request.observed_at,
            **self.inputs.kept(request, features, options),
            **self._blocking(flags),
            **self._asking(how, answer.scores, bundle) | {"role": EXTERNAL},
        )
        if request.latency_ms is None:
            return found
        return found.model_copy(update={"latency_ms": request.latency_ms})

    def _imported(self, request: LogRequest) -> Prediction:
        made = read_made(request, self.spec)
        flags = self._flags(made.features, made.options, Answer(made.output, made.scores))
        features, options = self.inputs.seen(made.features), self.inputs.seen_options(made.options)
        return Prediction(
            model=self.model,
            version=0,
            lineage=0,
            step=0,
            role=EXTERNAL,
            output=made.output,
            scores=made.scores,
            uncertainty=made.uncertainty,
            model_version=request.model_version,
            observed_at=request.observed_at,
            latency_ms=request.latency_ms or 0.0,
            **self.inputs.kept(request, features, options),
            **self._blocking(flags),
        )

    def score(self, request: ScoreRequest) -> dict[str, Any]:
        """Return the rewards of some outputs; nothing is logged."""
        bundle, started = self._ready(), self.clock()
        if self.spec.task not in RANKS:
            raise Invalid.at("", f"a model of the task {self.spec.task} gives no rewards")
        features = shared_context(self.inputs.seen(request.asked()))
        options = self.inputs.seen(request.options())
        try:
            weights, rewards = bundle.attempt(lambda weights: weights.score(features, options))
        except CANNOT_TAKE as error:
            raise self._refusal(error) from error
        self._took(started)
        return {
            "model": self.model,
            "version": weights.version,
            "step": weights.step,
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
        why = error if isinstance(error, Unfit) else type(error).__name__
        return Invalid.at("/features", f"'{self.model}' cannot take these features: {why}")

    def _rewarded(self, bundle: Bundle, features: dict[str, Any], options: list[Option]) -> Reply:
        """Return the outputs by their rewards, or no output where the model cannot take them."""
        try:
            return self._reply(bundle, features, options, exposure=0.0)
        except CANNOT_TAKE:  # what was answered elsewhere is logged all the same
            return bundle.champion, Answer([]), {}

    def _options(self, request: PredictRequest) -> list[Option]:
        if self.spec.task in RANKS:
            if request.options is None:
                raise Invalid.at("/options", "this model ranks: send the options to choose from")
            return [Option(id=o.id, features=o.features) for o in request.options]
        if request.options is not None:
            raise Invalid.at("/options", f"are for models that rank; the task is {self.spec.task}")
        return []

    def _shown(self, answer: Answer, top_k: int | None, scaling: Scaling | None) -> dict[str, Any]:
        """Return output, scores and propensities; a ranking may be varied here, to learn from.

        Scaling makes the scores mean what they say. It never changes the output.
        """
        if scaling is not None and answer.scores and not isinstance(answer.output, list):
            scores = scaling.apply(answer.scores)
            uncertainty = 1.0 - scores.get(label_key(answer.output), 0.0)
            shown = {"output": answer.output, "scores": scores, "scaling": scaling}
            return shown | {"uncertainty": uncertainty}
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

    def _asking(
        self, how: dict[str, Any], scores: Mapping[str, float], bundle: Bundle
    ) -> dict[str, Any]:
        """Add a question to an answer, where one is asked; the coin of the audits came first."""
        if self.sampling is None or not self.spec.ask_budget or "ask" in how:
            return how
        probability = self.sampling.ask(scores, self.rng, factor=bundle.advice.ask)
        if probability is None:
            return how
        return how | {"ask": Ask(reason="uncertain", probability=round(probability, 12))}

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

    def _record(
        self, bundle: Bundle, weights: Weights, started: float, **fields: Any
    ) -> Prediction:
        latency_ms = self._took(started)
        return Prediction(
            model=self.model,
            version=weights.version,
            lineage=weights.lineage,
            step=weights.step,
            generation=bundle.aliases.generation,
            latency_ms=round(latency_ms, 3),
            **fields,
        )

    def _took(self, started: float) -> float:
        """Note how long an answer took, and return it, in milliseconds."""
        took_ms = (self.clock() - started) * 1000
        self.mean_ms += 0.05 * (took_ms - self.mean_ms)
        return took_ms

    # --- who answers --------------------------------------------------------------------------

    def _reply(
        self, bundle: Bundle, features: dict[str, Any], options: Sequence[Option], exposure: float
    ) -> Reply:
        """Draw who answers and whether it is audited, and ask; raises what the champion does."""
        aliases = bundle.aliases
        if exposure and (aliases.frozen or not bundle.shadows):
            exposure = 0.0
        drawn = draw_role(bundle, exposure, self.rng) if exposure else CHAMPION
        # Until trust is earned, and while it is in doubt, everything is audited.
        audit = self.spec.audit if aliases.trusted and aliases.doubt is None else 1.0
        if drawn == CHAMPION and (not audit or self.rng.random() >= audit):
            try:
                answer = bundle.champion.answer(features, options)
                return bundle.champion, answer, {"exposure": 1.0 - exposure} if exposure else {}
            except Exception as error:
                if bundle.stand_in(error) is None:
                    raise
        panel = Panel.of(bundle, features, options, self.clock)
        return self._audited(panel, drawn, exposure, audit)

    def _audited(self, panel: Panel, drawn: str, exposure: float, audit: float) -> Reply:
        role = panel.who(drawn)
        if role is None:
            raise panel.errors[CHAMPION]
        found = chances(panel, exposure=exposure, audit=audit)
        how = {
            "role": role,
            "exposure": found.shown[role],
            "chances": found.audited if exposure else {},
            "ask": Ask(reason="audit", probability=round(found.asked[role], 12)),
            "shadows": panel.shadows,
        }
        return panel.bundle.roles[role], panel.answers[role], how
