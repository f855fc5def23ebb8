"""The way of each signal through the loop: accepted, learned, served; how long each part took.

It holds no connection: it is told what is in the streams, in their order, and counts into a tally.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from online_learner.ids import entry_order
from online_learner.interpret import ERASED
from online_learner.metrics.names import EVENTS, KINDS, REASONS, known
from online_learner.metrics.tally import Tally
from online_learner.schema import Served, Step
from online_learner.store import Fields

MOST = 20_000  # signals that are followed at once: some 2 MB; of more, the oldest are let go
SWAP_MS = 10_000  # within which one set of weights begins to answer in every gateway


@dataclass(frozen=True, slots=True)
class Learned:
    """One step that no answer rests on yet.

    Parameters
    ----------
    after, to
        The feedback entries between which its signals are.
    count
        How many signals it learned.
    followed
        Whether its weights were to answer at once.
    at_ms
        When those signals were accepted of which that is known.
    """

    lineage: int
    step: int
    after: str
    to: tuple[int, int]
    count: int
    followed: bool
    at_ms: tuple[int, ...]


@dataclass(slots=True)
class Ledger:
    """What is under way of one model.

    Attributes
    ----------
    unlearned
        Signals that no step covers yet, oldest first.
    unserved
        Steps that no answer rests on yet, oldest first.
    """

    unlearned: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=MOST))
    unserved: deque[Learned] = field(default_factory=deque)
    _held: int = 0
    _answering: dict[tuple[int, int, int], int] = field(default_factory=dict)

    def hear(self, entry: str, fields: Fields, tally: Tally) -> None:
        """Take in one entry of the feedback stream."""
        if b"c" in fields or ERASED in fields:
            return
        at = entry_order(entry)
        self.unlearned.append(at)
        kind, event, by_rule = _read(fields)
        tally.count("feedback_total", kind=kind, outcome="accepted")
        if event is not None:
            tally.count("implicit_total", event=event)
        answer = fields.get(b"p", b"").partition(b"-")[0]
        if answer.isdigit() and not by_rule:
            tally.time("join_delay_seconds", max(0, at[0] - int(answer)) / 1000)

    def learn(self, step: Step, tally: Tally, *, following: bool) -> None:
        """Take in a step that learned."""
        to, aside = entry_order(step.to), step.set_aside
        heard = self._covered(to)
        if step.released:  # whose way begins anew where an operator released them
            at_ms = (to[0],) * (step.signals - len(aside))
        else:
            at_ms = tuple(at[0] for at in heard if f"{at[0]}-{at[1]}" not in aside)
        for reason in aside.values():
            word = reason.partition(":")[0].partition(" ")[0]
            tally.count("set_aside_total", reason=known(word, REASONS))
        for ms in at_ms:
            tally.time("learn_delay_seconds", max(0.0, step.at - ms / 1000))
        count = step.signals - len(aside)
        if count:
            tally.count("learned_total", count)
            self._hold(Learned(step.lineage, step.step, step.after, to, count, following, at_ms))

    def _covered(self, to: tuple[int, int]) -> Iterable[tuple[int, int]]:
        found = []
        while self.unlearned and self.unlearned[0] <= to:
            found.append(self.unlearned.popleft())
        return found

    def _hold(self, learned: Learned) -> None:
        self.unserved.append(learned)
        self._held += max(1, len(learned.at_ms))
        while self._held > MOST:
            self._release()

    def _release(self) -> Learned:
        learned = self.unserved.popleft()
        self._held -= max(1, len(learned.at_ms))
        return learned

    def undo(self, entry: str, kept: str, lineage: int) -> None:
        """Take in a reset, at `entry`, to what had been learned up to `kept`."""
        for _ in self._covered(entry_order(entry)):
            pass
        back_to = entry_order(kept)
        left = [s for s in self.unserved if s.to <= back_to or s.lineage >= lineage]
        self.unserved = deque(left)
        self._held = sum(max(1, len(learned.at_ms)) for learned in left)

    def serve(self, entry: str, weights: Served, tally: Tally) -> None:
        """Take in the first answer that a set of weights gave somewhere."""
        ms = entry_order(entry)[0]
        if self.meet(ms, weights):
            tally.count("swaps_total")
        while self.unserved and (
            self.unserved[0].step <= weights.step and self.unserved[0].lineage <= weights.lineage
        ):
            learned = self._release()
            tally.count("served_total", learned.count)
            if learned.followed:
                for at_ms in learned.at_ms:
                    tally.time("loop_seconds", max(0, ms - at_ms) / 1000)

    def meet(self, ms: int, weights: Served) -> bool:
        """Tell whether a set of weights begins to answer; in each gateway it does so once."""
        name = (weights.version, weights.lineage, weights.step)
        before = self._answering.pop(name, None)
        known_ms = self._answering
        self._answering = {n: at for n, at in known_ms.items() if ms - at < SWAP_MS}
        self._answering[name] = ms
        return before is None or ms - before >= SWAP_MS

    def begins(self, steps: str) -> str:
        """Return the entry after which the signals are that are under way."""
        return self.unserved[0].after if self.unserved else steps


def _read(fields: Fields) -> tuple[str, str | None, bool]:
    """Return a signal's kind, its event where it is implicit, and whether a rule gave it."""
    try:
        said = json.loads(fields[b"f"])
        kind, by_rule = known(said["kind"], KINDS), said["source"].startswith("system:")
        event = known(said["value"]["event"], EVENTS) if kind == "implicit" else None
    except (AttributeError, KeyError, TypeError, ValueError):  # what none of us wrote
        return known(None, KINDS), None, False
    return kind, event, by_rule
