"""Observers for the tests: one that notes what it is shown, one that fails, and whom they watch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from online_learner.loop import Loop
from online_learner.schema import Raised, Scaling, Settled, Sighting, Signal
from online_learner.settings import Settings
from policies.lens import Lens

OFF: dict[str, Any] = dict.fromkeys(("response", "raters", "drift", "implicit", "scores"))
NOTES = "the_lens:Notes"


class Notes(Lens):
    """Counts what it is shown, and tells the learner to believe those whom it has heard twice less.

    Parameters
    ----------
    doubt
        The factor of a source's lessons once it has spoken twice; None tells the learner nothing.
    ask
        By how much more is asked once an audit has settled.
    """

    def __init__(
        self, *args: Any, doubt: float | None = None, ask: float = 1.0, **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self.doubt = doubt
        self.more = ask
        self.seen: list[tuple[str, list[str]]] = []
        self.heard: dict[str, int] = {}
        self.settled: list[str] = []
        self._raised: list[Raised] = []
        self._table: Mapping[str, Any] = {}

    def see(self, sighting: Sighting) -> None:
        """Note the answer, and the kinds of what was said of it."""
        self.seen.append((sighting.entry, sorted(said.kind for said in sighting.signals)))

    def hear(self, signal: Signal) -> None:
        """Count the source; raise an alarm at its second word."""
        source = signal.feedback.source
        self.heard[source] = self.heard.get(source, 0) + 1
        if self.heard[source] == 2:
            self._raised.append(Raised(by="", about="rater", sentence=f"{source} speaks again"))

    def settle(self, entry: str, settled: Settled) -> None:
        """Note the audit."""
        self.settled.append(entry)

    def report(self) -> dict[str, Any]:
        """Return the counts."""
        return {"seen": len(self.seen), "heard": self.heard, "settled": len(self.settled)}

    def alarms(self) -> list[Raised]:
        """Return what was raised, once."""
        found, self._raised = self._raised, []
        return found

    def table(self) -> dict[str, Any]:
        """Return whom to believe less."""
        if self.doubt is None:
            return {}
        return {source: self.doubt for source, n in self.heard.items() if n > 1}

    def scalings(self) -> dict[str, Scaling]:
        """Return a scaling of the first version's scores, once an audit has settled."""
        return {"champion:0": Scaling(slope=0.5)} if self.settled and self.more > 1 else {}

    def ask(self) -> float:
        """Return by how much more is to be asked."""
        return self.more if self.settled else 1.0

    def adopt(self, table: Mapping[str, Any]) -> None:
        """Believe some less."""
        self._table = table

    def factor(self, signal: Signal) -> float:
        """Return how far a source is believed."""
        return float(self._table.get(signal.feedback.source, 1.0))

    def state(self) -> dict[str, Any]:
        """Return all of it."""
        return {"seen": self.seen, "heard": self.heard, "settled": self.settled}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.seen = [(entry, kinds) for entry, kinds in state.get("seen", [])]
        self.heard = dict(state.get("heard", {}))
        self.settled = list(state.get("settled", []))


class Blind(Lens):
    """Fails at whatever it is shown."""

    def hear(self, signal: Signal) -> None:
        """Fail."""
        raise ZeroDivisionError(signal.answer)


def watched(
    make_settings: Callable[..., Settings],
    *,
    window_s: float = 60.0,
    more: Any = None,
    **options: Any,
) -> Any:
    """Return settings of a model that one observer looks at, besides the one that always does."""
    observe = OFF | {"raters": {"use": NOTES, **options}, "window_s": window_s} | (more or {})
    return make_settings(web={"observe": observe, "audit": 1.0})


async def say(loop: Loop, source: str, *, value: bool = True, **features: Any) -> str:
    """Have an answer corrected by a source; returns the answer's entry."""
    answer = await loop.predict("web", features or {"a": 1.0})
    await loop.feedback(answer["prediction_id"], "correction", value, user_id=source)
    return loop.keyring.open("prediction", answer["prediction_id"])[1].entry
