"""Is each rule of the gate needed? With one of them left out, a bar that is kept turns red.

The mistakes are made here, in subclasses; the gate itself has no switch to make them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import report
from benchmarks.gate.traps import WORSE
from benchmarks.gate.world import Crowd, Gate, Pair, Told, World, lives, promoted
from benchmarks.report import Bar
from online_learner.evidence import Terms
from online_learner.judge import Judge, _Pending
from online_learner.schema import Ask, Prediction, Said, Settled

EVEN = Pair(0.0, differ=0.4)  # equal, and often of another opinion: what is feigned shows soon


class Unaudited(Gate):
    """Whatever was labelled counts, and not only what a coin drew."""

    def ask(self, entry: str, question: Prediction) -> None:
        """Take every question for one that the coin drew."""
        drawn = Ask(reason="audit", probability=1.0)
        super().ask(entry, question.model_copy(update={"ask": drawn}))


class _LabelledFirst(Judge):
    def see_signal(self, entry: str, said: Said, **who: Any) -> None:
        super().see_signal(entry, said, **who)
        if entry in self._pending:
            self._pending.move_to_end(entry, last=False)


class ByArrival(Gate):
    """Labels count in the order in which they come."""

    judges = _LabelledFirst


class EachSignal(Gate):
    """Every signal makes a point, the fifth on one answer too."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.places = itertools.count()

    def ask(self, entry: str, question: Prediction) -> None:
        """Wait for the signals."""

    def hear(self, entry: str, question: Prediction, told: Told) -> None:
        """Ask again for each."""
        again = f"{entry.partition('-')[0]}-{next(self.places)}"
        super().ask(again, question)
        super().hear(again, question, told)


class _AskedLate(Judge):
    def _settled(self, pending: _Pending) -> Settled:
        right, roles = pending.standing.said.right, pending.audit.roles
        late = roles["latest"].model_copy(update={"output": right})
        audit = pending.audit.model_copy(update={"roles": roles | {"latest": late}})
        return super()._settled(replace(pending, audit=audit))


class ScoredLate(Gate):
    """The candidate is asked when the label is there, and has learned it."""

    judges = _AskedLate


class Unraised(Gate):
    """The null is not raised."""

    def __init__(self, world: World) -> None:
        super().__init__(replace(world, terms=replace(world.terms, gamma=1.0, malice=0.0)))


class Uncapped(Gate):
    """One rater may give all of the evidence."""

    def __init__(self, world: World) -> None:
        super().__init__(replace(world, terms=replace(world.terms, rater_share=1.0)))


@dataclass(frozen=True, slots=True)
class Mutation:
    """A rule left out, and the bar that it keeps: the share of lives that end in a promotion."""

    title: str
    gate: type[Gate]
    bar: str
    world: World


MUTATIONS = (
    Mutation(
        "evidence not audited",
        Unaudited,
        "corrections volunteered where the champion was wrong",
        World(WORSE, Crowd(audit=0.1, volunteered=(1.0, 0.0)), audits=100),
    ),
    Mutation(
        "the queue taken for an audit",
        Unaudited,
        "uncertain answers labelled through the queue",
        World(WORSE, Crowd(audit=0.1, queued=(0.9, 0.05)), audits=100),
    ),
    Mutation(
        "evidence taken by arrival",
        ByArrival,
        "equal, errors labelled at once and right answers 50-500 later",
        World(EVEN, Crowd(delays=(0.0, 500.0)), audits=400),
    ),
    Mutation(
        "several points a prediction",
        EachSignal,
        "equal, five raters on one answer",
        World(EVEN, Crowd(opinions=5), audits=150, terms=Terms(rater_share=0.1)),
    ),
    Mutation(
        "shadow scored after the label", ScoredLate, "worse by 4 points", World(WORSE, audits=200)
    ),
    Mutation(
        "null lowered to m = 0",
        Unraised,
        "equal, 60 % answered where wrong and 40 % where right",
        World(EVEN, Crowd(audited=(0.6, 0.4)), audits=1_000),
    ),
    Mutation(
        "cap removed",
        Uncapped,
        "one loud rater among 40 seeks disagreement",
        World(WORSE, Crowd(malice=0.3, eves=1), audits=400),
    ),
)


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return the table of the mutations, and the bars."""
    runs = 500 if full else 50
    rows, bars = [], []
    for mutation in MUTATIONS:
        kept = promoted(lives(mutation.world, runs))
        broken = promoted(lives(mutation.world, runs, mutation.gate))
        rows.append([mutation.title, mutation.bar, f"{kept:.3f}", f"{broken:.3f}"])
        bars.append(Bar(f"{mutation.title}: the bar is kept", kept, 0.01, at_most=True))
        bars.append(Bar(f"{mutation.title}: the mutation shows", broken, 0.1))
    head = ["left out", "bar", "as it is", "mutated"]
    text = f"Share of {runs:,} lives that end in a promotion.\n\n{report.table(head, rows)}"
    return text, bars
