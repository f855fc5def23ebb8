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

from online_learner.archive.segments import ERA
from online_learner.errors import StateError, trace
from online_learner.ids import entry_order
from online_learner.interpret import Signals
from online_learner.observe.findings import Findings, joined
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

READ_MAX = 200  # entries of a stream at once: the process does nothing else for some 50 ms
PAGES = 50  # in one turn
LOOK_S = 0.4  # after which a turn reads no further page: the process has other work, too
SEE_MAX = 500  # answers
EVERY_S = 1.0  # between two turns
COMMIT_S = 2.0  # between two commits: what was observed since is observed again after a crash
BYTES_PER_S = 100_000  # of state that are written, on average
MOST_ALARMS, MOST_POINTS = 1000, 5000
FLOWS = ("feedback", "evidence", "predictions")
OPEN_SHARE = 0.9  # of the time in which answers take feedback: then what was said is forgotten
KEYS = ("observer", "advice", "alarms", "quality", "feedback", "archive")

# As what is passed on is never: so it is passed on anew.
UNKNOWN, UNKNOWN_ADVICE = {"unknown": True}, Advice(ask=-1.0)

Lenses: TypeAlias = Mapping[str, Lens]


class Observer:
    """Lets the observers of one model look on.

    Parameters
    ----------
    lenses
        By name, each built anew; what they knew is restored.
    signals
        What a signal says of its answer.
    window_s
        For how many seconds an answer takes feedback.
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
        window_s: float = 86_400.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._store = registry.store
        self._keys = registry.keys
        self._spec = spec
        self._window_s = spec.seen_after_s(window_s)
        self._open_s = OPEN_SHARE * window_s
        self._build = build
        self._signals = signals
        self._clock = clock
        self._rng = random.Random()  # noqa: S311 (it draws a sample)
        self.lenses: Lenses = {}
        self.at: Observed | None = None
        self._turned_at = self._committed_at = 0.0
        self._commit_s = COMMIT_S
        self._may_see = 0.0  # answers, by the time that has passed
        self._news = False
        self._states: dict[str, str] = {}  # as they were kept last
        self._era = "0"  # moves when a stream is rebuilt: what was read before it is not kept

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
        self._may_see = min(SEE_MAX, self._may_see + self._spec.most_per_s * elapsed_s)
        count = SEE_MAX if at_once else int(self._may_see)
        try:
            if self.at is None:
                await self._restore()
            until = time.monotonic() + LOOK_S
            for _ in range(PAGES):
                if not await self._look() or (not at_once and time.monotonic() >= until):
                    break
            if count:
                self._may_see -= min(count, self._may_see)
                await self._see(now, count=count)
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
        before = self._at.places["predictions"]
        found, place = await sightings(
            self._registry,
            after=before,
            due_ms=int((now - self._window_s) * 1000),
            open_ms=int((now - self._open_s) * 1000),
            window_ms=int(self._window_s * 1000),
            count=count,
            rng=self._rng,
        )
        for sighting in found:
            self._show(partial(_shown, sighting))
        if place != before:
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
        before, found = self._at, self._findings()
        tables = {name: its.table for name, its in found.items() if its.table}
        changed = {
            name: tables.get(name, {})
            for name in tables.keys() | before.tables.keys()
            if tables.get(name) != before.tables.get(name)
        }
        advice = self._advice(found, now)
        raised = [
            alarm.model_copy(update={"by": name, "at": now})
            for name, its in found.items()
            for alarm in its.alarms
        ]
        update = {"n": before.n + 1, "tables": tables, "advice": advice, "at": now}
        self.at = before.model_copy(update=update | {"window_s": self._window_s})
        self._states |= {name: its.state for name, its in found.items()}
        states = joined(self._states)
        told = joined({name: its.told for name, its in found.items()})
        sealed = self._registry.seal("observer", self.at, blob=states, memory=told)
        head: dict[str, Any] = {
            "after": str(before.n),
            "era": self._era,
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
        if point := self._point({name: its.report for name, its in found.items()}):
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

    def _findings(self) -> dict[str, Findings]:
        """Return what follows, by observer; one that cannot say it looks no further."""
        found = {}
        for name, lens in list(self.lenses.items()):
            try:
                found[name] = Findings.of(lens)
            except Exception as error:
                self._close_eyes(name, error)
        return found

    def _advice(self, found: Mapping[str, Findings], now: float) -> Advice:
        before = self._at.advice
        scalings = {place: it for its in found.values() for place, it in its.scalings.items()}
        ask = max((its.ask for its in found.values()), default=1.0)
        if (scalings, ask) == (before.scalings, before.ask):
            return before
        return Advice(n=before.n + 1, scalings=scalings, ask=ask, at=now)

    async def _restore(self) -> None:
        """Take up where the last commit stood; what is damaged is begun anew, from now on."""
        self.lenses = self._build()
        self._news, self._states = False, {}
        era = await self._store.call("HGET", self._keys.archive, ERA)
        self._era = "0" if era is None else era.decode()
        try:
            kept = await self._registry.observed()
        except StateError as error:
            log.error("what was observed of '%s' is refused: %s", self._registry.model, error)  # noqa: TRY400
            kept = None
        if kept is None:
            await self._begin_anew()
            return
        self.at, states = kept
        self._states = {name: json.dumps(states[name]) for name in self.lenses if name in states}
        for name, lens in self.lenses.items():
            try:
                lens.restore(states.get(name, {}))
            except Exception:  # of another release, or configured otherwise
                log.warning("what '%s' has observed is not of this release, and dropped", name)
                self.lenses = {**self.lenses, name: self._build()[name]}

    async def _begin_anew(self) -> None:
        """Look on from now on; what was told before, and is not known any more, is taken back.

        An audit is an entry at its answer's place, and comes when that settles: so those that come
        are behind the newest there is.
        """
        start = f"{max(0, int((self._clock() - self._window_s) * 1000))}-0"
        n = int(await self._store.call("HGET", self._keys.observer, "n") or 0)
        places = dict.fromkeys(FLOWS, start)
        settled = await self._store.latest(self._keys.evidence)
        places["evidence"] = min([start, *(entry for entry, _ in settled)], key=entry_order)
        self.at = Observed(n=n, places=places)
        if n:
            tables = dict.fromkeys(self.lenses, UNKNOWN)
            self.at = self.at.model_copy(update={"tables": tables, "advice": UNKNOWN_ADVICE})


def _shown(sighting: Sighting, lens: Lens) -> None:
    lens.see(sighting)


def signal_of(entry: str, fields: Fields, signals: Signals) -> Signal | None:
    """Return a signal as observers and the learner see it; None where it is none, or unreadable.

    Nor is one on an answer that was imported: it tells nothing of ours.
    """
    try:
        feedback = Feedback.model_validate_json(fields[b"f"])
        prediction = Prediction.model_validate_json(fields[b"r"])
        if prediction.imported:
            return None
        said = signals.said(feedback, prediction)
        return Signal(feedback, prediction, said, fields[b"p"].decode(), entry_order(entry)[0])
    except Exception:  # control, or what the learner sets aside, with the reason
        return None
