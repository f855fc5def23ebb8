"""Served accuracy on drifting streams, against the same learner without a gate.

Beside it the learner frozen as it started, and the no-change and majority baselines. Labels are
complete and true, and come from 40 raters. By default they might still be selective by a factor of
1.5 (`gamma`), so that a learner has to win 60 % of its disagreements with what answers. `gamma: 1`
says that all is answered, or by auditors.

The hardest case is Agrawal with a linear model, which cannot learn the first two concepts. In the
second it wins 55 to 59 % of its disagreements with the start: too little for the default, and about
1,800 labels for `gamma: 1`, whatever the test: that many tell a coin of 57 % from a fair one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import report, streams
from benchmarks.drift import world
from benchmarks.drift.world import SEED, Case, Gate, Size
from benchmarks.report import Bar

DELAYS = (0, 100)
GATES = [
    Gate("Leash, audit .05", 0.05),
    Gate("Leash, audit .2", 0.2),
    Gate("gamma 1, audit .05", 0.05, gamma=1.0),
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Accuracy of everything that was run on a case, and what the gates decided."""

    case: Case
    accuracy: dict[str, float]
    decisions: dict[str, list[tuple[int, str]]]

    def share(self, gate: str) -> float:
        """Return the accuracy under a gate as a share of the ungated."""
        return self.accuracy[gate] / self.accuracy["ungated"]

    def gain(self, gate: str) -> float:
        """Return by how many points a gate is above the frozen start."""
        return self.accuracy[gate] - self.accuracy["frozen"]


def cases(size: Size) -> Iterator[tuple[Case, list[Gate]]]:
    """Yield what is run, and under which gates."""
    for learner in ("LR", "tree") if size.full else ("LR",):
        for stream in list(streams.STREAMS)[: 2 if size.quick else None]:
            for delay in DELAYS:
                yield Case(stream, learner, delay, size.n, SEED), GATES


def run(task: tuple[Case, list[Gate]]) -> Outcome:
    """Run everything on one case."""
    case, gates = task
    rows = case.rows()
    labels = [y for _, y in rows]
    accuracy = {
        "ungated": world.ungated(rows, case.delay).accuracy(),
        "frozen": world.frozen(rows).accuracy(),
        "no change": world.no_change(labels, case.delay),
        "majority": world.majority(labels, case.delay),
    }
    decisions = {}
    for gate in gates:
        course = world.gated(rows, case.delay, gate)
        accuracy[gate.name], decisions[gate.name] = course.accuracy(), course.decisions
    return Outcome(case, accuracy, decisions)


# --- what is told -------------------------------------------------------------------------------


def render(outcomes: Sequence[Outcome]) -> str:
    """Return the tables: accuracies with their shares of ungated, bars, and decisions."""
    gates = list(outcomes[0].decisions)
    names = [name for name in outcomes[0].accuracy if name not in gates]
    head = ["stream", "learner", "rows", "seed", "delay", *names, *gates]
    cells = [
        [*_title(o), *(f"{o.accuracy[n]:.1f}" for n in names), *(_cell(o, g) for g in gates)]
        for o in outcomes
    ]
    told = [o for o in outcomes if o.case.n == outcomes[0].case.n and o.case.seed == SEED]
    return "\n\n".join(
        [
            "## Served accuracy",
            str(__doc__).partition("\n\n")[2].strip(),
            "In percent; under a gate also as a share of the ungated.",
            report.table(head, cells),
            report.bars([bar for gate in gates for bar in _bars(outcomes, gate)]),
            "What the gate decided, after which row (snapshots admitted and retired left out):",
            "\n".join(_told(o, gate) for o in told for gate in gates),
        ]
    )


def _title(outcome: Outcome) -> list[str]:
    case = outcome.case
    return [case.stream, case.learner, f"{case.n:,}", str(case.seed), str(case.delay)]


def _cell(outcome: Outcome, gate: str) -> str:
    return f"{outcome.accuracy[gate]:.1f} / {outcome.share(gate):.3f}"


def _bars(outcomes: Sequence[Outcome], gate: str) -> list[Bar]:
    shares, gains = [o.share(gate) for o in outcomes], [o.gain(gate) for o in outcomes]
    return [
        Bar(f"{gate}: {_reach(shares, 0.98)} of ungated, worst share", min(shares), 0.98),
        Bar(f"{gate}: {_reach(gains, 0.0)} above frozen, worst points", min(gains), 0.0),
    ]


def _reach(found: Sequence[float], aim: float) -> str:
    reached = sum(value >= aim for value in found)
    return f"{reached} of {len(found)} reach {aim:g}"


def _told(outcome: Outcome, gate: str) -> str:
    case, moves = outcome.case, [f"{action}@{row}" for row, action in outcome.decisions[gate]]
    name = f"{case.stream}, {case.learner}, delay {case.delay}, {gate}"
    return f"- {name}: {' '.join(moves) or 'nothing moved'}"
