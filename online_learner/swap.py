"""Stage 7: swap weights in between two answers, as the aliases say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace

from online_learner.bundle import ANCHOR, CHAMPION, LATEST, Bundle, Weights
from online_learner.errors import NotFound, StateError
from online_learner.learners import Learner, Ranker
from online_learner.learners.state import unpack_state
from online_learner.predict import Predictor
from online_learner.registry import Registry
from online_learner.schema import Advice, Aliases, Checkpoint

log = logging.getLogger(__name__)

MOST_TRIED = 10  # versions, where the champion cannot be loaded


class Follower:
    """Keeps a predictor's bundle what the aliases say.

    What cannot be loaded is said once, and tried again at each refresh. Meanwhile a shadow is left
    out, and where it is the champion, what answered goes on answering; where nothing did, the
    champion's predecessors are tried.
    """

    def __init__(self, registry: Registry, predictor: Predictor, like: Learner | Ranker) -> None:
        self._registry = registry
        self._predictor = predictor
        self._like = like
        self._versions: dict[int, Weights] = {}  # by number; they do not change, but by unlearning
        self._rebuilt = 0  # by when they were read
        self._latest: tuple[bytes, Checkpoint, Learner | Ranker] | None = None
        self._left_out: dict[str, str] = {}

    @property
    def refused(self) -> str | None:
        """Why what answers is not what should, or None where it is."""
        return self._left_out.get(CHAMPION)

    async def refresh(self) -> bool:
        """Load what is new and swap it in, as one. Tells whether anything changed.

        Raises
        ------
        StateError
            There are no weights that can answer.
        """
        left_out: dict[str, Exception] = {}
        current = self._predictor.bundle
        try:
            bundle = await self._newer(current, left_out)
        except (StateError, NotFound) as error:
            left_out[CHAMPION] = error
            if current is None:
                raise
            bundle = current
        finally:
            self._report(left_out)
        if bundle == current:
            return False
        self._predictor.bundle = bundle
        return True

    async def _newer(self, current: Bundle | None, left_out: dict[str, Exception]) -> Bundle | None:
        """Return the bundle as it should be now; the very same one where nothing has changed."""
        aliases = await self._registry.aliases()
        if aliases is None:
            return current
        newer = await self._fetch_latest(aliases, left_out)
        advice = await self._advice(left_out)
        same = current is not None and current.aliases == aliases and not newer
        if current is not None and same and not self._left_out and not left_out:
            return current if current.advice == advice else replace(current, advice=advice)
        return replace(await self._bundle(aliases, left_out), advice=advice)

    async def _advice(self, left_out: dict[str, Exception]) -> Advice:
        """Return what observers advise; where that is damaged, nothing."""
        try:
            return await self._registry.advice()
        except StateError as error:
            left_out["the observers' advice"] = error
            return Advice()

    def _report(self, left_out: dict[str, Exception]) -> None:
        told = {what: str(error) for what, error in left_out.items()}
        for what, why in told.items():
            if self._left_out.get(what) != why:  # once, not at each refresh
                meanwhile = "what can answers meanwhile" if what == CHAMPION else "is left out"
                log.log(
                    logging.ERROR if what == CHAMPION else logging.WARNING,
                    "%s of '%s' cannot be loaded, and %s: %s",
                    what,
                    self._registry.model,
                    meanwhile,
                    why,
                )
        self._left_out = told

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
            if aliases.following and not aliases.pinned:  # the step before it goes on answering
                left_out[CHAMPION] = error
            else:
                left_out["the newest step"], self._latest = error, None
            return False
        self._latest = (state[0].pack(), state[0], learner)
        return True

    def _open(self, blob: bytes) -> Learner | Ranker:
        return unpack_state(blob, self._like)

    async def _bundle(self, aliases: Aliases, left_out: dict[str, Exception]) -> Bundle:
        if aliases.rebuilt != self._rebuilt:
            self._versions, self._rebuilt = {}, aliases.rebuilt
        latest = self._lineage_latest(aliases)
        roles = {f"challenger:{n}": n for n in aliases.challengers}
        if aliases.following and aliases.anchor is not None:
            roles[ANCHOR] = aliases.anchor
        try:
            champion = await self._champion(aliases, latest)
        except (StateError, NotFound) as error:
            stand_in = None if self._predictor.bundle else await self._stand_in(aliases)
            if stand_in is None:
                raise
            left_out[CHAMPION] = error
            return Bundle(aliases, stand_in)  # without shadows: nothing is compared to it
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

    async def _stand_in(self, aliases: Aliases) -> Weights | None:
        """Return the weights of the champion's nearest predecessor that can be loaded."""
        blessed = await self._registry.blessed()
        near = [aliases.champion, aliases.anchor, aliases.previous, *blessed[:MOST_TRIED]]
        for number in dict.fromkeys(number for number in near if number is not None):
            with contextlib.suppress(StateError, NotFound):
                return await self._version(number)
        return None

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
