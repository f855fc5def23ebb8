"""The observers of one model at work: they are shown what comes, and what follows is kept."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import ValidationError

from online_learner.errors import StateError
from online_learner.ids import entry_order
from online_learner.observe.lens import Lens
from online_learner.observe.sightings import sightings
from online_learner.registry import Registry
from online_learner.replay import Signals
from online_learner.schema import (
    Advice,
    Control,
    Feedback,
    Observed,
    Prediction,
    Settled,
    Sighting,
    Signal,
)
from online_learner.settings import ObserveSpec
from online_learner.store import Fields

READ_MAX = 500  # entries of a stream in one turn
SEE_MAX = 500  # answers
EVERY_S = 1.0  # between two turns
COMMIT_S = 2.0  # between two commits: what was observed since is observed again after a crash
MOST_ALARMS, MOST_POINTS = 1000, 5000
LENIENT = (ArithmeticError, LookupError, TypeError, ValueError)

Lenses: TypeAlias = Mapping[str, Lens]


class Observer:
    """Lets the observers of one model look on.

    Parameters
    ----------
    lenses
        By name, each built anew; what they knew is restored.
    signals
        What a signal says of its answer.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self,
        registry: Registry,
        spec: ObserveSpec,
        build: Callable[[], Lenses],
        signals: Signals,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._store = registry.store
        self._keys = registry.keys
        self._spec = spec
        self._build = build
        self._signals = signals
        self._clock = clock
        self._rng = random.Random()  # noqa: S311 (it draws a sample)
        self.lenses: Lenses = {}
        self.at: Observed | None = None
        self._turned_at = self._committed_at = 0.0
        self._news = False

    async def turn_when_due(self) -> None:
        """Look on, unless that was done a moment ago."""
        if not 0 <= self._clock() - self._turned_at < EVERY_S:
            await self.turn(at_once=False)

    async def turn(self, *, at_once: bool = True) -> None:
        """Take in what has come since, and keep what follows from it.

        Parameters
        ----------
        at_once
            Whether to commit now; else that is done every `COMMIT_S`.

        Raises
        ------
        Unavailable
            The store does not answer. The next turn starts from the last commit.
        """
        now = self._clock()
        elapsed_s, self._turned_at = max(0.0, now - self._turned_at), now
        try:
            if self.at is None:
                await self._restore()
            for _ in range(1 if not at_once else 20):
                if not await self._look(now, elapsed_s):
                    break
            if self._news and (at_once or not 0 <= now - self._committed_at < COMMIT_S):
                await self._commit(now)
        except BaseException:
            self.at = None  # memory may be ahead of what is kept
            raise

    # --- what is observed ---------------------------------------------------------------------

    async def _look(self, now: float, elapsed_s: float) -> bool:
        """Take in a page of each flow; tells whether there may be more."""
        assert self.at is not None
        places = dict(self.at.places)
        found = await self._store.read(
            {self._keys.feedback: places["feedback"], self._keys.evidence: places["evidence"]},
            count=READ_MAX,
        )
        said = found.get(self._keys.feedback, [])
        audits = found.get(self._keys.evidence, [])
        for entry, fields in said:
            self._hear(entry, fields)
            places["feedback"] = entry
        for entry, fields in audits:
            self._settle(entry, fields)
            places["evidence"] = entry
        seen, places["predictions"] = await self._sightings(places["predictions"], now, elapsed_s)
        for sighting in seen:
            for lens in self.lenses.values():
                lens.see(sighting)
        self.at = self.at.model_copy(update={"places": places, "seen": self.at.seen + len(seen)})
        self._news = self._news or bool(said or audits or seen)
        return len(said) == READ_MAX or len(audits) == READ_MAX

    async def _sightings(
        self, after: str, now: float, elapsed_s: float
    ) -> tuple[Sequence[Sighting], str]:
        due_ms = int((now - self._spec.window_s) * 1000)
        count = max(1, min(SEE_MAX, int(self._spec.most_per_s * elapsed_s)))
        return await sightings(
            self._registry,
            after=after,
            due_ms=due_ms,
            window_ms=int(self._spec.window_s * 1000),
            count=count,
            rng=self._rng,
        )

    def _hear(self, entry: str, fields: Fields) -> None:
        signal = signal_of(entry, fields, self._signals)
        if signal is not None:
            for lens in self.lenses.values():
                lens.hear(signal)

    def _settle(self, entry: str, fields: Fields) -> None:
        try:
            settled = Settled.model_validate_json(fields[b"e"])
        except (KeyError, ValidationError):
            return
        for lens in self.lenses.values():
            lens.settle(entry, settled)

    # --- what is kept -------------------------------------------------------------------------

    async def _commit(self, now: float) -> None:
        assert self.at is not None
        before = self.at
        tables = {name: lens.table() for name, lens in self.lenses.items()}
        tables = {name: table for name, table in tables.items() if table}
        changed = {
            name: tables.get(name, {})
            for name in tables.keys() | before.tables.keys()
            if tables.get(name) != before.tables.get(name)
        }
        advice = self._advice(now)
        raised = [
            alarm.model_copy(update={"by": name, "at": now})
            for name, lens in self.lenses.items()
            for alarm in lens.alarms()
        ]
        update = {"n": before.n + 1, "tables": tables, "advice": advice, "at": now}
        self.at = before.model_copy(update=update)
        states = json.dumps({name: lens.state() for name, lens in self.lenses.items()}).encode()
        reports = {name: lens.report() for name, lens in self.lenses.items()}
        told = json.dumps(reports).encode()
        sealed = self._registry.seal("observer", self.at, blob=states, memory=told)
        head: dict[str, Any] = {
            "after": str(before.n),
            "n": str(self.at.n),
            "state": sealed.fields(),
            "alarms": [alarm.pack().decode() for alarm in raised],
            "most_alarms": MOST_ALARMS,
            "most_points": MOST_POINTS,
            "publish": self._keys.swap,
        }
        if changed:
            control = Control(action="tables", tables=changed, reason=", ".join(sorted(changed)))
            head["control"] = control.model_dump_json()
        if advice != before.advice:
            head["advice"] = self._registry.seal("advice", advice, sha="-").fields()
        if point := self._point(reports):
            head["quality"] = json.dumps({"at": now, **point})
        keys = [getattr(self._keys, name) for name in KEYS]
        if not await self._store.run("observe", keys, [json.dumps(head), states, told]):
            self.at = None
        self._committed_at, self._news = now, False

    def _point(self, reports: Mapping[str, Any]) -> dict[str, Any]:
        quality: dict[str, Any] = reports.get("quality", {}).get("point", {})
        return quality

    def _advice(self, now: float) -> Advice:
        assert self.at is not None
        before = self.at.advice
        scalings = {p: s for lens in self.lenses.values() for p, s in lens.scalings().items()}
        ask = max((lens.ask() for lens in self.lenses.values()), default=1.0)
        if (scalings, ask) == (before.scalings, before.ask):
            return before
        return Advice(n=before.n + 1, scalings=scalings, ask=ask, at=now)

    async def _restore(self) -> None:
        """Take up where the last commit stood; what is damaged is begun anew, from now on."""
        self.lenses = self._build()
        self._news = False
        kept = await self._registry.observed()
        if kept is None:
            start = f"{max(0, int((self._clock() - self._spec.window_s) * 1000))}-0"
            self.at = Observed(places=dict.fromkeys(("feedback", "evidence", "predictions"), start))
            return
        self.at, states = kept
        for name, lens in self.lenses.items():
            try:
                lens.restore(states.get(name, {}))
            except LENIENT as error:  # of another release, or configured otherwise
                raise StateError(f"what '{name}' has observed is not of this release") from error


KEYS = ("observer", "advice", "alarms", "quality", "feedback")


def signal_of(entry: str, fields: Fields, signals: Signals) -> Signal | None:
    """Return a signal as observers and the learner see it; None where it is none, or unreadable."""
    try:
        feedback = Feedback.model_validate_json(fields[b"f"])
        prediction = Prediction.model_validate_json(fields[b"r"])
        said = signals.said(feedback, prediction)
        return Signal(feedback, prediction, said, fields[b"p"].decode(), entry_order(entry)[0])
    except Exception:  # control, or what the learner sets aside, with the reason
        return None
