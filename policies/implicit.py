"""Does what users do agree with what people say? Implicit signals beside explicit ones.

Of each answer it is noted which events came (a click, a copy, a long read) and whether people said
that it was good. Where both are known, an event agrees where it likes what people call good, or
dislikes what they call bad; and what agreement would be, if the two had nothing to do with one
another, is known as well. An event whose share is below that speaks against people: it misleads.

Whether it does is tested over time, however often one looks. Judged answers are paired, one with
the event and one without it, each with the latest that has no pair yet; d is the goodness of the
first less that of the second, and has a mean of 0 where the event tells nothing: two e-processes
bet that it is above, and below (a safe test of a 2x2 table [1]). Pairs that are near in time do not
mistake a change of the whole for the work of the event. After each verdict the tests begin anew, so
that an event that comes to mislead later is found as well; what says the opposite of the verdict
takes its place.

It reports, and weighs nothing: implicit signals have the weight that is configured, 0 by default,
and are never evidence. With `mute`, an event that misleads loses what weight it has.

References
----------
[1] R. Turner, A. Ly and P. Grünwald. Generic E-variables for exact sequential k-sample tests that
    allow for optional stopping. J. Statist. Plann. Inference 230 (2024), arXiv 2106.02693.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from online_learner.evidence import BettingTest, RunningMean
from online_learner.schema import Label, Raised, Signal, Task
from policies.arguments import YEAR_S, check_number
from policies.lens import Lens
from policies.opinion import goodness
from policies.signals import DISLIKED, DWELL_S, LIKED

MOST_OPEN = 2000  # answers of which more may be heard
MOST_JUDGED = 200  # of those that people have judged: events may come yet
MOST_COUNTED = 2000  # of those that were counted: what is said of them later counts no more
LEAST_ALPHA = 1e-9
MUTED = 0.01
NO_WEIGHT = "they change no weight"


@dataclass(slots=True)
class Open:
    """An answer of which more may be heard: its events, and how good people called it.

    Parameters
    ----------
    events
        By name, in the order in which they came.
    good
        From 0 to 1; None where nobody has said.
    audited
        Whether an auditor said it: nobody else changes it then.
    judged_ms
        When it was first said.
    """

    events: list[str] = field(default_factory=list)
    good: float | None = None
    audited: bool = False
    judged_ms: int = 0

    def pack(self) -> list[Any]:
        """Return it as plain JSON."""
        return [self.events, self.good, self.audited, self.judged_ms]


@dataclass(slots=True)
class Event:
    """What is known of one event.

    Parameters
    ----------
    n
        How often it came.
    agreement
        Of the answers on which it came and people spoke: whether the two agree.
    above, below
        The bets that answers with the event are better, and worse, than those without.
    unpaired
        The latest judged answer that was not paired: whether the event came, and how good it was.
    verdict
        1 agrees, -1 disagrees, 0 unclear.
    """

    likes: bool
    n: int = 0
    agreement: RunningMean = field(default_factory=RunningMean)
    above: BettingTest = field(default_factory=lambda: BettingTest.fresh(0.0))
    below: BettingTest = field(default_factory=lambda: BettingTest.fresh(0.0))
    unpaired: tuple[bool, float] | None = None
    verdict: int = 0

    def judge(self, good: float, log_goal: float, *, came: bool) -> int:
        """Take in a judged answer on which it came or not; returns a new verdict, or 0."""
        if came:
            self.agreement.add(good if self.likes else 1.0 - good)
        if self.unpaired is None or self.unpaired[0] == came:
            self.unpaired = (came, good)
            return 0
        (_, other), self.unpaired = self.unpaired, None
        d = good - other if came else other - good
        self.above.update(d)
        self.below.update(-d)
        for test, better in ((self.above, True), (self.below, False)):
            if test.log_e >= log_goal:
                verdict = 1 if better == self.likes else -1
                self.above, self.below = BettingTest.fresh(0.0), BettingTest.fresh(0.0)
                changed, self.verdict = verdict != self.verdict, verdict
                return verdict if changed else 0
        return 0

    def pack(self) -> list[Any]:
        """Return it as plain JSON."""
        tests = [test.log_wealth.tolist() for test in (self.above, self.below)]
        return [self.likes, self.n, self.agreement.pack(), *tests, self.unpaired, self.verdict]

    @classmethod
    def unpack(cls, state: Sequence[Any]) -> Event:
        """Return the event that `pack` wrote."""
        likes, n, agreement, above, below, unpaired, verdict = state
        above, below = (
            BettingTest.unpack({"m": 0.0, "log_wealth": found}) for found in (above, below)
        )
        pair = None if unpaired is None else (unpaired[0], unpaired[1])
        return cls(likes, n, RunningMean.unpack(agreement), above, below, pair, verdict)


class Agreement(Lens):
    """Compares what users do with what people say.

    Parameters
    ----------
    alpha
        The probability with which an event that tells nothing is ever given its first verdict.
    wait_s
        For how many seconds of the stream's time after people have judged an answer an event may
        come, before the answer counts as one without it; less where there are very many.
    weight
        What implicit signals weigh, for the report.
    mute
        Whether an event that disagrees loses its weight.

    Raises
    ------
    TypeError, ValueError
        A parameter is outside its range.
    """

    def __init__(
        self,
        task: Task,
        labels: Sequence[Label] | None = None,
        *,
        segments: Sequence[str] = (),
        alpha: float = 0.05,
        wait_s: float = 60.0,
        weight: float = 0.0,
        mute: bool = False,
    ) -> None:
        super().__init__(task, labels, segments=segments)
        check_number("alpha", alpha, LEAST_ALPHA, 1.0 - LEAST_ALPHA)
        check_number("wait_s", wait_s, 0.0, YEAR_S)
        check_number("weight", weight, 0.0, 1.0)
        if not isinstance(mute, bool):
            raise TypeError("mute is true or false")
        self.weight = weight
        self.mute = mute
        self._log_goal = math.log(2.0 / alpha)  # of two tests
        self._wait_ms = round(1000 * wait_s)
        self._muted: frozenset[str] = frozenset()  # what the learner was told
        self._forget()

    def _forget(self) -> None:
        self.events: dict[str, Event] = {}
        self._open: dict[str, Open] = {}  # nobody has judged them yet
        self._judged: dict[str, Open] = {}  # in the order in which they were
        self._counted: dict[str, None] = {}  # in that order too
        self._all = RunningMean()  # of judged answers, how good
        self._others = 0  # signals of events that neither like nor dislike
        self._raised: list[Raised] = []

    # --- what is observed -------------------------------------------------------------------------

    def hear(self, signal: Signal) -> None:
        """Take in what users did, or what people said."""
        self._close(signal.at_ms)
        good = goodness(signal)
        if signal.feedback.kind == "implicit":
            self._happened(signal)
        elif good is not None:
            self._judge(signal, good)

    def _happened(self, signal: Signal) -> None:
        name, likes = meaning_of(signal)
        if likes is None:
            self._others += 1
            return
        self.events.setdefault(name, Event(likes)).n += 1
        if signal.answer in self._counted:
            return
        answer = self._judged.get(signal.answer) or self._open.setdefault(signal.answer, Open())
        if name not in answer.events:
            answer.events.append(name)
        if len(self._open) > MOST_OPEN:
            del self._open[next(iter(self._open))]

    def _judge(self, signal: Signal, good: float) -> None:
        if signal.answer in self._counted:  # again, it would count as one without its events
            return
        answer = self._judged.get(signal.answer)
        if answer is None:
            answer = self._open.pop(signal.answer, None) or Open()
            answer.judged_ms = signal.at_ms
            self._judged[signal.answer] = answer
        if signal.feedback.auditor or not answer.audited:
            answer.good, answer.audited = good, signal.feedback.auditor

    def _close(self, now_ms: int) -> None:
        """Count the answers of which no more is waited for."""
        while self._judged:
            first = next(iter(self._judged))
            due = now_ms - self._judged[first].judged_ms > self._wait_ms
            if not due and len(self._judged) <= MOST_JUDGED:
                return
            self._count(self._judged.pop(first))
            self._counted[first] = None
            if len(self._counted) > MOST_COUNTED:
                del self._counted[next(iter(self._counted))]

    def _count(self, answer: Open) -> None:
        good = answer.good if answer.good is not None else 0.5
        self._all.add(good)
        for name, event in self.events.items():
            verdict = event.judge(good, self._log_goal, came=name in answer.events)
            if verdict < 0:
                self._raise(name, event)

    def _raise(self, name: str, event: Event) -> None:
        numbers = {
            "agreement": event.agreement.mean,
            "expected": self._expected(event),
            "n": event.agreement.n,
        }
        effects = ["mute"] if self.mute else []
        said = sentence(name, event, self._expected(event))
        alarm = Raised(by="implicit", about=name, sentence=said, numbers=numbers, effects=effects)
        self._raised.append(alarm)

    def _expected(self, event: Event) -> float | None:
        """Return what agreement would be if event and judgement were independent."""
        mean = self._all.mean
        return None if mean is None else mean if event.likes else 1.0 - mean

    # --- what follows from it ---------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Return, by event, how it agrees with what people say; bounds hold at every look."""
        told = []
        for name, event in sorted(self.events.items(), key=lambda found: (-found[1].n, found[0])):
            both, expected = event.agreement.n, self._expected(event)
            rate = event.agreement.rate()
            counts = {"event": name, "n": event.n, "with_explicit": both, "agreement": rate}
            told.append({**counts, "expected": expected, "verdict": verdict_of(event)})
        return {
            "weight": self.weight,
            "events": told,
            "others": self._others,
            "muted": self._misleading() if self.mute else [],
            "sentence": self._sentence(),
        }

    def _sentence(self) -> str:
        found = {
            name: sentence(name, event, self._expected(event))
            for name, event in sorted(self.events.items())
            if event.verdict < 0
        }
        weight = NO_WEIGHT if not self.weight else f"each weighs {self.weight:g} of an explicit one"
        if not self.events:
            return "There are no implicit signals."
        if not found:
            return f"No event is found to mislead. Implicit signals are never evidence; {weight}."
        return " ".join([*found.values(), f"Implicit signals are never evidence; {weight}."])

    def alarms(self) -> list[Raised]:
        """Return what has been raised since this was last asked: events that mislead, once each."""
        raised, self._raised = self._raised, []
        return raised

    def table(self) -> dict[str, Any]:
        """Return which events are muted, where that is wanted."""
        muted = self._misleading() if self.mute else []
        return {"muted": muted} if muted else {}

    def _misleading(self) -> list[str]:
        return sorted(name for name, event in self.events.items() if event.verdict < 0)

    # --- in the learner ---------------------------------------------------------------------------

    def adopt(self, table: Mapping[str, Any]) -> None:
        """Mute these events from here on."""
        self._muted = frozenset(table.get("muted", []))

    def factor(self, signal: Signal) -> float:
        """Return next to nothing for an event that is muted, and 1 for all else."""
        if not self._muted or signal.feedback.kind != "implicit":
            return 1.0
        return MUTED if meaning_of(signal)[0] in self._muted else 1.0

    # --- memory -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return all that has to survive a restart, as plain JSON."""
        return {
            "events": {name: event.pack() for name, event in self.events.items()},
            "open": {name: answer.pack() for name, answer in self._open.items()},
            "judged": {name: answer.pack() for name, answer in self._judged.items()},
            "counted": list(self._counted),
            "all": self._all.pack(),
            "others": self._others,
            "raised": [alarm.model_dump() for alarm in self._raised],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        self._forget()
        if not state:
            return
        self.events = {name: Event.unpack(found) for name, found in state["events"].items()}
        self._open = {name: Open(*found) for name, found in state["open"].items()}
        self._judged = {name: Open(*found) for name, found in state["judged"].items()}
        self._counted = dict.fromkeys(state.get("counted", ()))
        self._all = RunningMean.unpack(state["all"])
        self._others = state["others"]
        self._raised = [Raised(**alarm) for alarm in state["raised"]]


def meaning_of(signal: Signal) -> tuple[str, bool | None]:
    """Return the name of an event, and whether it likes what was shown; None where neither.

    Reading is two events: `dwell` of `DWELL_S` seconds or more, which likes, and less, which does
    not tell.
    """
    value = signal.feedback.value
    event = str(value["event"])
    if event == "dwell":
        return event, True if (value.get("value") or 0.0) >= DWELL_S else None
    return event, True if event in LIKED else False if event in DISLIKED else None


def verdict_of(event: Event) -> str:
    """Return what is found, in a word: `agrees`, `disagrees`, `unclear` or `no explicit`."""
    if not event.agreement.n:
        return "no explicit"
    return {1: "agrees", 0: "unclear", -1: "disagrees"}[event.verdict]


def sentence(name: str, event: Event, expected: float | None) -> str:
    """Return in words that an event misleads."""
    share = event.agreement.mean or 0.0
    usual = (
        "" if expected is None else f" ({expected:.0%} if they had nothing to do with one another)"
    )
    kind = "good" if event.likes else "bad"
    return (
        f"'{name}' misleads: of {event.agreement.n} answers with it that people judged, "
        f"{share:.0%} were {kind}{usual}."
    )
