"""Stage 7: swap weights in between two answers, as the aliases say."""

from __future__ import annotations

import asyncio

from online_learner.bundle import Bundle, Weights
from online_learner.learners import Learner, Ranker
from online_learner.learners.state import unpack_state
from online_learner.predict import Predictor
from online_learner.registry import Registry
from online_learner.schema import Aliases, Checkpoint

LATEST = "latest"  # the lineage's newest step, in the shadows
ANCHOR = "anchor"


class Follower:
    """Keeps a predictor's bundle what the aliases say."""

    def __init__(self, registry: Registry, predictor: Predictor, like: Learner | Ranker) -> None:
        self._registry = registry
        self._predictor = predictor
        self._like = like
        self._versions: dict[int, tuple[Weights, bool]] = {}  # by number; versions do not change
        self._latest: tuple[bytes, Checkpoint, Learner | Ranker] | None = None

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
        learner = await asyncio.to_thread(self._open, state[1])
        self._latest = (state[0].pack(), state[0], learner)
        return True

    def _open(self, blob: bytes) -> Learner | Ranker:
        return unpack_state(blob, self._like)[0]

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
        learner = await asyncio.to_thread(self._open, blob)
        return Weights(aliases.champion, meta.lineage, meta.step, learner)


def _present(number: int | None) -> tuple[int, ...]:
    return () if number is None else (number,)
