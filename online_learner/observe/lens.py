"""What an observer has to do; `policies.lens` has a base class that does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from online_learner.schema import Raised, Scaling, Settled, Sighting, Signal
from online_learner.weigh import Weigher


class Lens(Weigher, Protocol):
    """Looks on as answers are given, judged and settled; see `policies.lens`."""

    def see(self, sighting: Sighting, /) -> None:
        """Take in an answer after its window."""

    def hear(self, signal: Signal, /) -> None:
        """Take in a signal of any kind."""

    def settle(self, entry: str, settled: Settled, /) -> None:
        """Take in an audit that has settled."""

    def report(self) -> dict[str, Any]:
        """Return what operators are told."""

    def alarms(self) -> list[Raised]:
        """Return what has been raised since this was last asked."""

    def table(self) -> dict[str, Any]:
        """Return what the learner's instance is to adopt."""

    def scalings(self) -> dict[str, Scaling]:
        """Return by which scalings served scores should be corrected, by place."""

    def ask(self) -> float:
        """Return by how much the budget of active learning should be multiplied now."""

    def state(self) -> dict[str, Any]:
        """Return all that has to survive a restart."""

    def restore(self, state: Mapping[str, Any], /) -> None:
        """Take back what `state` returned."""
