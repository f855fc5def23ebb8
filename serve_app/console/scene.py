"""What the panels of one model show, read from the store once for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from online_learner import explain
from online_learner.auth import Credential
from online_learner.errors import StateError
from online_learner.explain.observations import observed
from online_learner.queue import ASK, LANES
from online_learner.schema import Prediction
from online_learner.stages import Stages
from serve_app.api.queue import holder, queue_of
from serve_app.console.reports import Reports
from serve_app.service import Service

VERDICTS = 200  # that are read, for the marks and for who answers since when
ALARMS = 20
ASKED = 30  # recent answers whose features the playground offers
QUEUED = 20


@dataclass(frozen=True, slots=True)
class Scene:
    """One model, and who looks at it."""

    service: Service
    room: Stages
    who: Credential
    reports: Reports

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.room.model

    def may(self, scope: str) -> bool:
        """Tell whether who looks has a scope."""
        return scope in self.who.scopes


Source: TypeAlias = Callable[[Scene], Awaitable[Any]]


async def read(scene: Scene, panels: Iterable[str]) -> dict[str, Any]:
    """Return all that some panels show, by the name of its source.

    Raises
    ------
    Unavailable
        The store does not answer.
    StateError
        What it keeps is damaged.
    """
    names = sorted({"status"}.union(*(PANELS[panel] for panel in panels)))
    found = await asyncio.gather(*(_SOURCES[name](scene) for name in names))
    return dict(zip(names, found, strict=True))


async def _status(scene: Scene) -> dict[str, Any]:
    registry = scene.room.registry
    found = await explain.status(registry, scene.room.policy, now=time.time())
    published = await registry.published()
    champion = await registry.version(found["version"]) if found["ready"] else None
    return {
        **found,
        **scene.service.store.health.describe(),
        "committed_at": None if published is None else published.at,
        "cut_at": None if champion is None else champion.cut_at,
    }


async def _verdicts(scene: Scene) -> list[dict[str, Any]]:
    return await explain.verdicts(scene.room.registry, count=VERDICTS)


async def _versions(scene: Scene) -> list[dict[str, Any]]:
    return [version.model_dump() for version in await scene.room.registry.versions()]


async def _report(scene: Scene) -> dict[str, Any]:
    return await scene.reports.of(scene.room)


async def _queue(scene: Scene) -> list[dict[str, Any]] | None:
    """Return the answers that wait for a label; None where a key with another scope is needed.

    Who may label, and is no auditor, is shown what active learning asks about.
    """
    if not scene.may("label") and not scene.may("audit"):
        return None
    lanes = LANES if scene.may("audit") else (ASK,)
    found = queue_of(scene.room)
    return await found.waiting(lanes, count=QUEUED, holder=holder(scene.who))


async def _observed(scene: Scene) -> dict[str, Any]:
    """Return what observers report; where that is damaged, why, and no reports."""
    registry, spec = scene.room.registry, scene.room.spec.observe
    found: dict[str, Any] = {"window_s": spec.window_s, "reports": {}, "trouble": ""}
    try:
        _, found["reports"] = await observed(registry)
    except StateError as error:
        found["trouble"] = f"{error}: see `online-learner doctor`."
    return found


async def _alarms(scene: Scene) -> list[dict[str, Any]]:
    return await explain.alarms(scene.room.registry, count=ALARMS)


async def _asked(scene: Scene) -> list[Prediction]:
    """Return the newest answers, newest first."""
    registry = scene.room.registry
    found = await registry.store.latest(registry.keys.predictions, ASKED)
    return [Prediction.model_validate_json(f[b"r"]) for _, f in found if b"r" in f]  # else erased


_SOURCES: dict[str, Source] = {
    "status": _status,
    "verdicts": _verdicts,
    "versions": _versions,
    "report": _report,
    "queue": _queue,
    "asked": _asked,
    "observed": _observed,
    "alarms": _alarms,
}

# In the order of the page.
PANELS: dict[str, tuple[str, ...]] = {
    "tiles": ("report", "verdicts"),
    "score": ("report", "verdicts"),
    "verdicts": ("verdicts",),
    "funnel": ("report",),
    "calibration": ("report", "observed"),
    "drift": ("report",),
    "quality": ("observed",),
    "alarms": ("observed", "alarms"),
    "bias": ("observed",),
    "raters": ("observed",),
    "queue": ("queue",),
    "versions": ("versions",),
    "playground": ("asked",),
}
