"""From the entries of a model's streams to what listeners are told.

Signals, verdicts and alarms are told one by one, and so is how good the answers are. Tallies of the
same second are told as their sum, and of sets of weights that follow each other quickly only the
last: what is left out is no loss.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_jsonable_python

from online_learner.errors import trace
from online_learner.explain.signals import feedback_id
from online_learner.metrics import Tally
from online_learner.registry import Registry
from online_learner.schema import Raised, Served, Verdict
from online_learner.store import Fields
from serve_app.stream.cursor import Place, entry_of

log = logging.getLogger(__name__)

SECOND_MS = 1000
SWAP_MS = 500  # the shortest time between two swaps that are told


@dataclass(frozen=True, slots=True)
class Event:
    """What a listener is told.

    Parameters
    ----------
    place
        Of the last entry that it rests on.
    text
        Its lines as they are sent, but for the id.
    """

    kind: str
    place: Place
    text: bytes

    @classmethod
    def of(cls, kind: str, place: Place, data: dict[str, Any]) -> Event:
        """Return the event of some data; it is ASCII, so that no reader takes it for two lines."""
        line = json.dumps(to_jsonable_python(data, inf_nan_mode="null"), separators=(",", ":"))
        return cls(kind, place, f"event: {kind}\ndata: {line}\n".encode())


@dataclass(slots=True)
class _Waiting:
    """What may yet be added to, or replaced, until it is told."""

    place: Place
    until_ms: int  # by the store's clock
    due_at: float  # by ours
    found: Any


class Telling:
    """Turns entries into events, in the order in which it is given them.

    Parameters
    ----------
    clock
        Seconds, from any moment on.
    """

    def __init__(self, registry: Registry, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._clock = clock
        self._second: _Waiting | None = None
        self._swap: _Waiting | None = None
        self._served: Served | None = None  # that was told last
        self._quiet_ms = 0  # until when no swap is told
        self._takes = {
            "metrics": self._take_tally,
            "feedback": self._take_signal,
            "verdict": self._take_verdict,
            "swap": self._take_served,
            "alarm": self._take_alarm,
            "quality": self._take_quality,
        }

    def take(self, kind: str, place: Place, fields: Fields) -> list[Event]:
        """Return what is to be told now that an entry has come; what is none of ours is passed."""
        try:
            return list(self._takes[kind](place, fields))
        except Exception as error:  # who else writes to the store may write anything
            log.debug("an entry of %s cannot be told\n%s", kind, trace(error))
            return []

    def wait_s(self) -> float:
        """Return how long until something is due that waits, in seconds."""
        waiting = [found.due_at for found in (self._second, self._swap) if found is not None]
        return max(0.0, min(waiting, default=math.inf) - self._clock())

    def waits(self, kind: str) -> bool:
        """Tell whether something of a kind waits."""
        waiting = {"metrics": self._second, "swap": self._swap}
        return waiting.get(kind) is not None

    def due(self) -> list[Event]:
        """Return what waited, and is due."""
        return list(self._told(self._clock()))

    def rest(self) -> list[Event]:
        """Return what waits, due or not."""
        return list(self._told(math.inf))

    def _told(self, now: float) -> Iterator[Event]:
        if self._second is not None and self._second.due_at <= now:
            yield from self._tell_second(self._second)
        if self._swap is not None and self._swap.due_at <= now:
            yield self._tell_swap(self._swap)

    # --- one by one ---------------------------------------------------------------------------

    def _take_signal(self, place: Place, fields: Fields) -> Iterator[Event]:
        if b"n" not in fields:  # a control entry
            return
        said = json.loads(fields[b"f"])
        yield self._event(
            "feedback",
            place,
            feedback_id=feedback_id(self._registry, entry_of(place), fields),
            prediction_id=said["prediction_id"] or None,  # a rule's flag names none
            kind=said["kind"],
        )

    def _take_verdict(self, place: Place, fields: Fields) -> Iterator[Event]:
        verdict = Verdict.model_validate_json(fields[b"v"])
        yield self._event("verdict", place, id=entry_of(place), **verdict.model_dump())

    def _take_alarm(self, place: Place, fields: Fields) -> Iterator[Event]:
        raised = Raised.model_validate_json(fields[b"a"])
        yield self._event("alarm", place, id=entry_of(place), **raised.model_dump())

    def _take_quality(self, place: Place, fields: Fields) -> Iterator[Event]:
        figures = dict(json.loads(fields[b"q"]))
        yield self._event("quality", place, at=figures.pop("at", None), figures=figures)

    # --- gathered -----------------------------------------------------------------------------

    def _take_tally(self, place: Place, fields: Fields) -> Iterator[Event]:
        tally = Tally.unpack(fields[b"t"])
        if self._second is not None and place[0] >= self._second.until_ms:
            yield from self._tell_second(self._second)
        if self._second is None:
            until_ms = (place[0] // SECOND_MS + 1) * SECOND_MS
            due_at = self._clock() + SECOND_MS / 1000
            self._second = _Waiting(place, until_ms, due_at, Tally())
        self._second.found.add(tally)
        self._second.place = place

    def _tell_second(self, second: _Waiting) -> Iterator[Event]:
        self._second = None
        tally: Tally = second.found
        loop = tally.distribution("loop_seconds")
        counts = {
            "predictions": tally.total("predictions_total"),
            "feedback": tally.total("feedback_total", outcome="accepted"),
            "learned": tally.total("learned_total"),
        }
        if not any(counts.values()) and not loop.n:  # gauges alone
            return
        quantiles = {name: 1000 * loop.quantile(q) for name, q in (("p50", 0.5), ("p99", 0.99))}
        loop_ms = quantiles if loop.n else None
        yield self._event("metrics", second.place, **counts, loop_ms=loop_ms)

    def _take_served(self, place: Place, fields: Fields) -> Iterator[Event]:
        served = Served.model_validate_json(fields[b"w"])
        if self._swap is not None and place[0] >= self._swap.until_ms:
            yield self._tell_swap(self._swap)
        last = self._served if self._swap is None else self._swap.found
        if served == last:  # another replica has them now
            return
        due_at = self._clock() + SWAP_MS / 1000
        self._swap = _Waiting(place, self._quiet_ms, due_at, served)
        if place[0] >= self._quiet_ms:
            yield self._tell_swap(self._swap)

    def _tell_swap(self, swap: _Waiting) -> Event:
        self._swap, self._served = None, swap.found
        self._quiet_ms = swap.place[0] + SWAP_MS
        return self._event("swap", swap.place, **swap.found.model_dump())

    def _event(self, of: str, place: Place, /, **data: Any) -> Event:
        at = {"at": data.pop("at", None) or place[0] / 1000}
        return Event.of(of, place, {"model": self._registry.model, **at, **data})
