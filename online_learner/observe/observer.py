"""The observers of one model at work: they are shown what comes, and what follows is kept."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from pydantic import ValidationError

from online_learner.errors import StateError, trace
from online_learner.ids import entry_order
from online_learner.interpret import Signals
from online_learner.observe.lens import Lens
from online_learner.observe.quality import estimates
from online_learner.observe.sightings import sightings
from online_learner.registry import Registry
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

log = logging.getLogger(__name__)

READ_MAX = 500  # entries of a stream at once
PAGES, PAGES_AT_ONCE = 4, 20  # in one turn: of the gatekeeper's time, it may take some
SEE_MAX = 500  # answers
EVERY_S = 1.0  # between two turns
COMMIT_S = 2.0  # between two commits: what was observed since is observed again after a crash
BYTES_PER_S = 200_000  # of state that are written, on average
MOST_ALARMS, MOST_POINTS = 1000, 5000
FLOWS = ("feedback", "evidence", "predictions")
KEYS = ("observer", "advice", "alarms", "quality", "feedback")

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
        self._commit_s = COMMIT_S
        self._news = False

    async def turn_when_due(self) -> bool:
        """Look on, unless that was done a moment ago; tells whether it was done now."""
        due = not 0 <= self._clock() - self._turned_at < EVERY_S
        if due:
            await self.turn(at_once=False)
        return due

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
        count = SEE_MAX if at_once else int(self._spec.most_per_s * elapsed_s)
        try:
            if self.at is None:
                await self._restore()
            for _ in range(PAGES_AT_ONCE if at_once else PAGES):
                if not await self._look():
                    break
            await self._see(now, count=max(1, min(SEE_MAX, count)))
            waited_s = now - self._committed_at
            if self._news and (at_once or not 0 <= waited_s < self._commit_s):
                await self._commit(now)
        except BaseException:
            self.at = None  # memory may be ahead of what is kept
            raise

    # --- what is observed ---------------------------------------------------------------------

    async def _look(self) -> bool:
        """Take in a page of signals and of audits; tells whether there may be more."""
        keys, places = self._keys, self._at.places
        offsets = {keys.feedback: places["feedback"], keys.evidence: places["evidence"]}
        found = await self._store.read(offsets, count=READ_MAX)
        said, audits = found.get(keys.feedback, []), found.get(keys.evidence, [])
        for entry, fields in said:
            self._hear(entry, fields)
        for entry, fields in audits:
            self._settle(entry, fields)
        for flow, entries in (("feedback", said), ("evidence", audits)):
            if entries:
                self._came_to(flow, entries[-1][0])
        return len(said) == READ_MAX or len(audits) == READ_MAX

    async def _see(self, now: float, *, count: int) -> None:
        """Take in answers whose window is over, `count` at most."""
        found, place = await sightings(
            self._registry,
            after=self._at.places["predictions"],
            due_ms=int((now - self._spec.window_s) * 1000),
            window_ms=int(self._spec.window_s * 1000),
            count=count,
            rng=self._rng,
        )
        for sighting in found:
            self._show(partial(_shown, sighting))
        if found:
            self._came_to("predictions", place, seen=len(found))

    def _came_to(self, flow: str, place: str, *, seen: int = 0) -> None:
        at = self._at
        self.at = at.model_copy(
            update={"places": {**at.places, flow: place}, "seen": at.seen + seen}
        )
        self._news = True

    @property
    def _at(self) -> Observed:
        assert self.at is not None
        return self.at

    def _hear(self, entry: str, fields: Fields) -> None:
        signal = signal_of(entry, fields, self._signals)
        if signal is not None:
            self._show(lambda lens: lens.hear(signal))

    def _settle(self, entry: str, fields: Fields) -> None:
        try:
            settled = Settled.model_validate_json(fields[b"e"])
        except (KeyError, ValidationError):
            return
        self._show(lambda lens: lens.settle(entry, settled))

    def _show(self, what: Callable[[Lens], None]) -> None:
        """Show something to all; one that fails, as a team's own may, looks no further."""
        for name, lens in list(self.lenses.items()):
            try:
                what(lens)
            except Exception as error:
                self._close_eyes(name, error)

    def _close_eyes(self, name: str, error: Exception) -> None:
        log.error(
            "the observer '%s' of '%s' failed, and looks no further until it is started again\n%s",
            name,
            self._registry.model,
            trace(error),
        )
        self.lenses = {other: lens for other, lens in self.lenses.items() if other != name}

    # --- what is kept -------------------------------------------------------------------------

    async def _commit(self, now: float) -> None:
        before = self._at
        tables = json.loads(json.dumps({n: lens.table() for n, lens in self.lenses.items()}))
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
        self._commit_s = max(COMMIT_S, len(states) / BYTES_PER_S)

    def _point(self, reports: Mapping[str, Any]) -> dict[str, Any]:
        """Return the figures of a moment: how good the answers are, and by whom that is told."""
        quality: dict[str, Any] = reports.get("quality", {}).get("point", {})
        told = {name: value["score"] for name, value in estimates(reports).items() if value}
        return quality | {f"champion.{name}": score for name, score in told.items()}

    def _advice(self, now: float) -> Advice:
        before = self._at.advice
        scalings = {p: s for lens in self.lenses.values() for p, s in lens.scalings().items()}
        ask = max((lens.ask() for lens in self.lenses.values()), default=1.0)
        if (scalings, ask) == (before.scalings, before.ask):
            return before
        return Advice(n=before.n + 1, scalings=scalings, ask=ask, at=now)

    async def _restore(self) -> None:
        """Take up where the last commit stood; what is damaged is begun anew, from now on."""
        self.lenses = self._build()
        self._news = False
        try:
            kept = await self._registry.observed()
        except StateError as error:
            log.error("what was observed of '%s' is refused: %s", self._registry.model, error)  # noqa: TRY400
            kept = None
        if kept is None:
            start = f"{max(0, int((self._clock() - self._spec.window_s) * 1000))}-0"
            n = int(await self._store.call("HGET", self._keys.observer, "n") or 0)
            self.at = Observed(n=n, places=dict.fromkeys(FLOWS, start))
            return
        self.at, states = kept
        for name, lens in self.lenses.items():
            try:
                lens.restore(states.get(name, {}))
            except Exception:  # of another release, or configured otherwise
                log.warning("what '%s' has observed is not of this release, and dropped", name)
                self.lenses = {**self.lenses, name: self._build()[name]}


def _shown(sighting: Sighting, lens: Lens) -> None:
    lens.see(sighting)


def signal_of(entry: str, fields: Fields, signals: Signals) -> Signal | None:
    """Return a signal as observers and the learner see it; None where it is none, or unreadable."""
    try:
        feedback = Feedback.model_validate_json(fields[b"f"])
        prediction = Prediction.model_validate_json(fields[b"r"])
        said = signals.said(feedback, prediction)
        return Signal(feedback, prediction, said, fields[b"p"].decode(), entry_order(entry)[0])
    except Exception:  # control, or what the learner sets aside, with the reason
        return None
