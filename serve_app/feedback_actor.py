"""The feedback actor: the learner of one model, as a Serve deployment."""

from __future__ import annotations

from serve_app.telemetry.logs import join_serve
from serve_app.writer import Writer


class FeedbackActor:
    """Learns from one model's feedback, commits, publishes. One replica, fenced by an epoch."""

    def __init__(self, model: str, store_url: str, data_dir: str) -> None:
        join_serve(model)
        self._writer = Writer("learner", model, store_url, data_dir, lambda stages: stages.trainer)

    def check_health(self) -> None:
        """Raise where the learner is dead or stuck."""
        self._writer.check()

    async def __del__(self) -> None:
        await self._writer.stop()
