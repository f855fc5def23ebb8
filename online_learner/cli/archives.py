"""Whether the log goes on file where it should: what is not there is not trimmed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from online_learner.cli.costs import models_of
from online_learner.cli.finding import Finding
from online_learner.cli.machine import ray_processes
from online_learner.settings import Settings
from online_learner.store import Store
from online_learner.store.keys import Keys

LAG_WARNING_S = 7200.0  # twice as long as an entry waits


async def archives(store: Store, settings: Settings) -> AsyncIterator[Finding]:
    """Look at the archive of each model that has one, as far as its writers run."""
    for model in await models_of(store):
        keys, spec = Keys(model), settings.models.get(model)
        beat, runs, began = await store.many(
            [
                ("GET", keys.heartbeat("archive")),
                ("EXISTS", keys.heartbeat("gatekeeper")),
                ("EXISTS", keys.archive),
            ]
        )
        if not (spec.archive is not None if spec is not None else began):
            continue
        if spec is not None and spec.archive == "auto" and ray_processes():
            message = f"the archive of {model} is on the disk of the node that archives"
            cure = "set `archive` to s3://, gs://, or a folder that all nodes share"
            yield Finding("archive", "warning", message, cure)
        if beat is not None:
            yield _told(model, json.loads(beat))
        elif runs:
            message = f"nobody archives {model}: nothing of it is trimmed, and the store fills up"
            cure = "deploy the application `archive` (see serve_app/serve.yaml), or `archive: null`"
            yield Finding("archive", "problem", message, cure)


def _told(model: str, beat: dict[str, object]) -> Finding:
    lag_s = float(str(beat.get("lag_s", 0.0)))
    if beat.get("trouble"):
        cure = "nothing is lost, and nothing is trimmed until it is archived again"
        return Finding("archive", "problem", f"{model}: {beat['trouble']}", cure)
    if lag_s > LAG_WARNING_S:
        message = f"{model}: an entry has waited for {lag_s:,.0f} s"
        return Finding("archive", "warning", message, "see the log of the archivist")
    return Finding("archive", "ok", f"{model} is archived, by pid {beat.get('pid')}")
