"""What the client reads of the models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from online_learner.client import calls
from online_learner.client.sending import Json, Sent

T = TypeVar("T")


class Inspecting(ABC):
    """The calls of `Client` that change nothing, and are about a whole model."""

    @abstractmethod
    def _send(self, what: Sent[T]) -> T:
        """Send something, as often as it takes; returns what it came to."""

    def models(self) -> list[Json]:
        """Tell who answers for each model, how far its learner is, and who is alive."""
        return self._send(calls.models())

    def model(self, model: str) -> Json:
        """Tell the same of one model."""
        return self._send(calls.model(model))

    def versions(self, model: str) -> list[Json]:
        """List the kept snapshots, oldest first."""
        return self._send(calls.versions(model))

    def verdicts(self, model: str, *, count: int = 100, after: str | None = None) -> list[Json]:
        """List the newest decisions with the numbers behind them, newest first.

        With `after`, the `id` of one, those that came after it, oldest first ("0-0": from the
        beginning).
        """
        return self._send(calls.verdicts(model, count=count, after=after))

    def evidence(self, model: str, *, count: int = 1000, after: str = "0-0") -> list[Json]:
        """List settled audits as scalars, oldest first: those after an `id`."""
        return self._send(calls.evidence(model, count=count, after=after))

    def signals(
        self,
        model: str,
        *,
        kind: str | None = None,
        status: str | None = None,
        after: str | None = None,
        count: int = 100,
    ) -> Json:
        """List what was said, oldest first, with its fate: `{"feedback": [...], "next": ...}`.

        Parameters
        ----------
        kind, status
            Only such signals: `thumbs`, say, or `learned`.
        after
            The `next` of the page before; a page without one is the last.
        """
        wanted = {"kind": kind, "status": status, "after": after, "count": count}
        return self._send(calls.signals(model, **wanted))

    def metrics(self, model: str, *, window_s: float = 900.0) -> Json:
        """Tell how much, how fast and how good, of late: what the console shows of a model."""
        return self._send(calls.metrics(model, window_s))

    def bias(self, model: str) -> Json:
        """Tell who speaks and who is silent, whom to believe, and whether weights are corrected.

        `response`, `raters`, `implicit`, `drift` and `scores` are None where nobody looks for that,
        or nothing was found yet.
        """
        return self._send(calls.bias(model))

    def alarms(self, model: str, *, count: int = 100, after: str | None = None) -> list[Json]:
        """List the newest alarms of observers, newest first.

        With `after`, the `id` of one, those that came after it, oldest first ("0-0": from the
        beginning).
        """
        return self._send(calls.alarms(model, count=count, after=after))

    def quarantine(self, model: str, *, after: str | None = None, count: int = 100) -> Json:
        """List what was set aside or rolled back, and why: `{"quarantine": [...], "next": ...}`."""
        return self._send(calls.quarantine(model, after=after, count=count))
