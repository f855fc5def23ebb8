"""Stage 7: swap weights in between two answers, as the aliases say."""

from __future__ import annotations

import asyncio
import logging

from online_learner.bundle import ANCHOR, LATEST, Bundle, Weights
from online_learner.errors import NotFound, StateError
from online_learner.learners import Learner, Ranker
from online_learner.learners.state import unpack_state
from online_learner.predict import Predictor
from online_learner.registry import Registry
from online_learner.schema import Aliases, Checkpoint

log = logging.getLogger(__name__)


class Follower:
    """Keeps a predictor's bundle what the aliases say.

    A shadow that cannot be loaded is left out, and tried again at each refresh.
    """

    def __init__(self, registry: Registry, predictor: Predictor, like: Learner | Ranker) -> None:
        self._registry = registry
        self._predictor = predictor
        self._like = like
        self._versions: dict[int, Weights] = {}  # by number; versions do not change
        self._latest: tuple[bytes, Checkpoint, Learner | Ranker] | None = None
        self._left_out: frozenset[str] = frozenset()

    async def refresh(self) -> bool:
        """Load what is new and swap it in, as one. Tells whether anything changed.

        Raises
        ------
        StateError
            The champion cannot be loaded; what answered goes on answering.
        """
        aliases = await self._registry.aliases()
        if aliases is None:
            return False
        left_out: dict[str, Exception] = {}
        newer = await self._fetch_latest(aliases, left_out)
        current = self._predictor.bundle
        same = current is not None and current.aliases == aliases and not newer
        if same and not self._left_out and not left_out:
            return False
        bundle = await self._bundle(aliases, left_out)
        self._report(left_out)
        self._predictor.bundle = bundle
        return bundle != current

    def _report(self, left_out: dict[str, Exception]) -> None:
        for what in left_out.keys() - self._left_out:  # once, not at each refresh
            log.warning(
                "%s of '%s' cannot be loaded, and is left out: %s",
                what,
                self._registry.model,
                left_out[what],
            )
        self._left_out = frozenset(left_out)

    async def _fetch_latest(self, aliases: Aliases, left_out: dict[str, Exception]) -> bool:
        """Fetch the learner's newest state, unless it is the one that is held."""
        meta = await self._registry.checkpoint_meta()
        if meta is None or (self._latest is not None and self._latest[0] == meta):
            return False
        try:
            state = await self._registry.checkpoint()
            if state is None:
                return False
            learner = await asyncio.to_thread(self._open, state[1])
        except StateError as error:
            if aliases.following and not aliases.pinned:  # it is the champion
                raise
            left_out["the newest step"], self._latest = error, None
            return False
        self._latest = (state[0].pack(), state[0], learner)
        return True

    def _open(self, blob: bytes) -> Learner | Ranker:
        return unpack_state(blob, self._like)[0]

    async def _bundle(self, aliases: Aliases, left_out: dict[str, Exception]) -> Bundle:
        latest = self._lineage_latest(aliases)
        roles = {f"challenger:{n}": n for n in aliases.challengers}
        if aliases.following and aliases.anchor is not None:
            roles[ANCHOR] = aliases.anchor
        champion = await self._champion(aliases, latest)
        shadows = []
        for role, number in roles.items():
            try:
                shadows.append((role, await self._version(number)))
            except (StateError, NotFound) as error:
                left_out[f"version {number}"] = error
        if latest is not None and not aliases.following:
            shadows.append((LATEST, latest))
        kept = {aliases.champion, *roles.values()}
        self._versions = {n: weights for n, weights in self._versions.items() if n in kept}
        return Bundle(aliases, champion, tuple(shadows))

    async def _champion(self, aliases: Aliases, latest: Weights | None) -> Weights:
        pinned = await self._pinned(aliases) if aliases.pinned else None
        if pinned is not None:
            return pinned
        if aliases.following and not aliases.pinned and latest is not None:
            return latest
        return await self._version(aliases.champion)

    def _lineage_latest(self, aliases: Aliases) -> Weights | None:
        # A learner that has not heard of a reset yet still publishes under the old lineage.
        if self._latest is None or self._latest[1].lineage != aliases.lineage:
            return None
        _, meta, learner = self._latest
        return Weights(aliases.champion, meta.lineage, meta.step, learner)

    async def _version(self, number: int) -> Weights:
        if number not in self._versions:
            meta, learner = await self._registry.load_version(number, self._like)
            found = Weights(number, meta.lineage, meta.step, learner, meta.untrained)
            self._versions[number] = found
        return self._versions[number]

    async def _pinned(self, aliases: Aliases) -> Weights | None:
        state = await self._registry.pinned()
        if state is None:
            return None
        meta, blob = state
        learner = await asyncio.to_thread(self._open, blob)
        return Weights(aliases.champion, meta.lineage, meta.step, learner)
