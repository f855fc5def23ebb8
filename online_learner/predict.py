"""Stage 1: answer with the champion, let the shadows answer unseen, and swap weights in between.

A `Bundle` is immutable: aliases, champion and shadows of one moment. An answer takes one bundle and
keeps it, so that no answer mixes two versions; a swap replaces the reference.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from online_learner.errors import Invalid, Unavailable
from online_learner.ids import Address
from online_learner.learners import Answer, Learner
from online_learner.registry import Registry
from online_learner.requests import PredictRequest
from online_learner.schema import Aliases, Ask, Checkpoint, Prediction, Shadow, finite
from online_learner.settings import ModelSpec

LATEST = "latest"  # the lineage's newest step, in the shadows
SLOW_MS = 1.0
ANCHOR = "anchor"
CHAMPION = "champion"


@dataclass(frozen=True, slots=True)
class Weights:
    """One set of weights, and where it comes from."""

    version: int
    lineage: int
    step: int
    learner: Learner

    def answer(self, features: dict[str, bool | int | float | str]) -> Answer:
        """Answer one request; an answer that is not finite is an error, not an answer."""
        found = self.learner.predict([features])[0]
        output = found.output
        if not finite(found.scores.values()) or (
            isinstance(output, float) and not finite([output])
        ):
            raise FloatingPointError(f"version {self.version} gave a score that is not finite")
        return found

    def shadow(self, answer: Answer) -> Shadow:
        """Return an answer as the record keeps it."""
        return Shadow(
            version=self.version,
            lineage=self.lineage,
            step=self.step,
            output=answer.output,
            scores=answer.scores,
        )


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything that one answer needs, of one moment."""

    aliases: Aliases
    champion: Weights
    shadows: tuple[tuple[str, Weights], ...] = ()
    untrained: bool = False


@dataclass(slots=True)
class Predictor:
    """Answers requests for one model from the weights that it holds.

    Parameters
    ----------
    spec
        The model's configuration.
    rng
        Draws the audit coin.
    clock
        Seconds, to measure latency.
    """

    model: str
    spec: ModelSpec
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
            The model cannot take these features.
        """
        bundle, started = self.bundle, self.clock()
        if bundle is None:
            raise Unavailable(
                f"'{self.model}' is still loading its weights; try again in a second",
                code="not_ready",
            )
        try:
            answer = bundle.champion.answer(request.features)
        except (TypeError, ValueError, KeyError, ArithmeticError) as error:
            raise Invalid.at(
                "/features", f"'{self.model}' cannot take these features: {error}"
            ) from error
        ask, shadows = self._audit(bundle, answer, request)
        champion = bundle.champion
        latency_ms = (self.clock() - started) * 1000
        self.mean_ms += 0.05 * (latency_ms - self.mean_ms)
        return Prediction(
            model=self.model,
            features=request.features,
            output=answer.output,
            scores=answer.scores,
            uncertainty=answer.uncertainty,
            version=champion.version,
            lineage=champion.lineage,
            step=champion.step,
            generation=bundle.aliases.generation,
            ask=ask,
            shadows=shadows,
            session_id=request.session_id,
            user_id=request.user_id,
            external_id=request.external_id,
            tags=request.tags,
            latency_ms=round(latency_ms, 3),
        )

    def _audit(
        self, bundle: Bundle, answer: Answer, request: PredictRequest
    ) -> tuple[Ask | None, dict[str, Shadow]]:
        share = self.spec.audit if bundle.aliases.trusted else 1.0
        if share <= 0.0 or self.rng.random() >= share:
            return None, {}
        shadows = {CHAMPION: bundle.champion.shadow(answer)}
        for role, weights in bundle.shadows:
            # A shadow that fails has no answer here, and no evidence; the client has one.
            with contextlib.suppress(TypeError, ValueError, KeyError, ArithmeticError):
                shadows[role] = weights.shadow(weights.answer(request.features))
        return Ask(reason="audit", probability=share), shadows


def render(
    record: Prediction,
    prediction_id: str | None,
    address: Address | None,
    *,
    window_s: float,
    top_k: int | None,
) -> dict[str, object]:
    """Return the answer as the client gets it."""
    scores = record.scores
    if top_k is not None:
        scores = dict(sorted(scores.items(), key=lambda item: -item[1])[:top_k])
    return {
        "prediction_id": prediction_id,
        "model": record.model,
        "version": record.version,
        "step": record.step,
        "role": record.role,
        "output": record.output,
        "scores": scores,
        "uncertainty": record.uncertainty,
        "propensity": record.propensity,
        "ask": None if record.ask is None else record.ask.model_dump(),
        "flags": [],
        "blocked": False,
        "feedback_expires_at": None if address is None else _rfc3339(address.ms / 1000 + window_s),
    }


def _rfc3339(seconds: float) -> str:
    whole = int(seconds)
    return f"{_stamp(whole)}.{int((seconds - whole) * 1000):03d}Z"


@functools.lru_cache(maxsize=8)
def _stamp(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


class Follower:
    """Keeps a predictor's bundle what the aliases say."""

    def __init__(self, registry: Registry, predictor: Predictor, like: Learner) -> None:
        self._registry = registry
        self._predictor = predictor
        self._like = like
        self._versions: dict[int, tuple[Weights, bool]] = {}  # by number; versions do not change
        self._latest: tuple[bytes, Checkpoint, Learner] | None = None

    async def refresh(self) -> bool:
        """Load what is new and swap it in, as one. Tells whether anything changed."""
        aliases = await self._registry.aliases()
        if aliases is None:
            return False
        newer = await self._fetch_latest()
        current = self._predictor.bundle
        if current is not None and current.aliases == aliases and not newer:
            return False
        self._predictor.bundle = await self._bundle(aliases)
        return True

    async def _fetch_latest(self) -> bool:
        """Fetch the learner's newest state, unless it is the one that is held."""
        meta = await self._registry.checkpoint_meta()
        if meta is None or (self._latest is not None and self._latest[0] == meta):
            return False
        state = await self._registry.checkpoint()
        if state is None:
            return False
        learner = await asyncio.to_thread(self._like.from_bytes, state[1])
        self._latest = (state[0].pack(), state[0], learner)
        return True

    async def _bundle(self, aliases: Aliases) -> Bundle:
        numbers = {aliases.champion, *aliases.challengers, *_present(aliases.anchor)}
        self._versions = {n: await self._load(n) for n in sorted(numbers)}
        champion, untrained = self._versions[aliases.champion]
        latest = self._lineage_latest(aliases)
        if aliases.pinned:
            champion, untrained = await self._pinned(aliases, champion), False
        elif aliases.following and latest is not None:
            champion, untrained = latest, False
        shadows = [(f"challenger:{n}", self._versions[n][0]) for n in aliases.challengers]
        if aliases.following and aliases.anchor is not None:
            shadows.append((ANCHOR, self._versions[aliases.anchor][0]))
        if latest is not None and not aliases.following:
            shadows.append((LATEST, latest))
        return Bundle(aliases, champion, tuple(shadows), untrained)

    def _lineage_latest(self, aliases: Aliases) -> Weights | None:
        # A learner that has not heard of a reset yet still publishes under the old lineage.
        if self._latest is None or self._latest[1].lineage != aliases.lineage:
            return None
        _, meta, learner = self._latest
        return Weights(aliases.champion, meta.lineage, meta.step, learner)

    async def _load(self, number: int) -> tuple[Weights, bool]:
        if number in self._versions:
            return self._versions[number]
        meta, learner = await self._registry.load_version(number, self._like)
        return Weights(number, meta.lineage, meta.step, learner), meta.untrained

    async def _pinned(self, aliases: Aliases, fallback: Weights) -> Weights:
        state = await self._registry.pinned()
        if state is None:
            return fallback
        meta, blob = state
        learner = await asyncio.to_thread(self._like.from_bytes, blob)
        return Weights(aliases.champion, meta.lineage, meta.step, learner)


def _present(number: int | None) -> tuple[int, ...]:
    return () if number is None else (number,)
