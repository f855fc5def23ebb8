"""The gatekeeper: judges and promotes for one model, as a Serve deployment."""

from __future__ import annotations

from typing import Any

from serve_app.telemetry.logs import join_serve
from serve_app.writer import Writer


class Gatekeeper:
    """Settles audits, keeps the evidence, moves the aliases. One replica, fenced by an epoch.

    Parameters
    ----------
    learner
        The handle of the model's feedback actor, so that both are one application.
    """

    def __init__(self, model: str, store_url: str, data_dir: str, learner: Any = None) -> None:
        join_serve(model)
        self.learner = learner
        self._writer = Writer(
            "gatekeeper", model, store_url, data_dir, lambda stages: stages.gatekeeper
        )

    def check_health(self) -> None:
        """Raise where the gatekeeper is dead or stuck."""
        self._writer.check()

    async def __del__(self) -> None:
        await self._writer.stop()
