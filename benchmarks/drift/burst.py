"""A burst of lies: 30 % of the labels outside the audits are flipped for 2,000 rows.

*Random* flips are noise. *One-sided* flips push one class: only labels of the other are flipped,
until they are 30 % of all. Whoever does it cannot tell what is audited, and auditors tell the
truth. `ungated` learns all lies; `same labels` is the learner without a gate on the very labels
that the loop was told, so that the rest is what the leash does. After a pull everything is audited
for a while.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import report
from benchmarks.drift import world
from benchmarks.drift.world import SEED, Case, Course, Gate, Size
from benchmarks.report import Bar
from benchmarks.streams import Row

SHARE = 0.3
LENGTH, AFTER = 1 / 6, 1 / 12  # of the rows
START = 0.71  # where the last concept of each stream has settled
STREAMS = ("SEA, abrupt", "Hyperplane, gradual", "Agrawal, abrupt", "Sine, abrupt")
GATES = (Gate("audit .05", 0.05), Gate("audit .2", 0.2))
KINDS = ("random", "one-sided")
CAPTION = (
    "Accuracy in the burst / in the rows after it, half as many, in percent; the pull, in rows "
    "since the burst began. LR, 12,000 rows, no delay, 40 raters, gamma 1.5."
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a burst: accuracy in it and after it, by who answered, and the pulls."""

    case: Case
    kind: str
    during: dict[str, float]
    after: dict[str, float]
    pulls: dict[str, int | None]

    def margin(self, gate: Gate) -> float:
        """Return by how many points the leash is above the ungated learner, during the burst."""
        return self.during[gate.name] - self.during["ungated"]


def cases(size: Size) -> Iterator[tuple[Case, str]]:
    """Yield what is run."""
    names = STREAMS[: 1 if size.quick else None if size.full else 2]
    for stream in names:
        for kind in KINDS:
            yield Case(stream, "LR", 0, size.n, SEED), kind


def run(task: tuple[Case, str]) -> Outcome:
    """Run one burst."""
    case, kind = task
    rows = case.rows()
    start, end = int(START * case.n), int((START + LENGTH) * case.n)
    lies = flipped(rows, start, end, kind, random.Random(case.seed))
    courses = {
        "no flips": world.ungated(rows, 0),
        "frozen": world.frozen(rows),
        "ungated": world.ungated(rows, 0, lies),
    }
    pulls = {}
    for gate in GATES:
        course = world.gated(rows, 0, gate, lies)
        courses[f"same labels, {gate.name}"] = world.ungated(rows, 0, course.told)
        courses[gate.name], pulls[gate.name] = course, _pulled(course, start)
    during = {name: course.accuracy(start, end) for name, course in courses.items()}
    last = end + int(AFTER * case.n)
    after = {name: course.accuracy(end, last) for name, course in courses.items()}
    return Outcome(case, kind, during, after, pulls)


def flipped(rows: Sequence[Row], start: int, end: int, kind: str, rng: random.Random) -> list[bool]:
    """Return the labels with 30 % of a block flipped: any of them, or only those that are False."""
    labels = [y for _, y in rows]
    count = int(SHARE * (end - start))
    open_to = [i for i in range(start, end) if kind == "random" or not labels[i]]
    for i in rng.sample(open_to, min(count, len(open_to))):
        labels[i] = not labels[i]
    return labels


def _pulled(course: Course, start: int) -> int | None:
    """Return after how many rows of the burst the leash was pulled, or None."""
    pulls = (row - start for row, did in course.decisions if did == "pull" and row > start)
    return next(pulls, None)


# --- what is told -------------------------------------------------------------------------------


def render(outcomes: Sequence[Outcome]) -> str:
    """Return the table, and what was aimed at."""
    names = list(outcomes[0].during)
    head = ["stream", "flips", "seed", *names, *(f"pull, {gate.name}" for gate in GATES)]
    cells = [
        [o.case.stream, o.kind, str(o.case.seed), *(_cell(o, name) for name in names), *_pulls(o)]
        for o in outcomes
    ]
    return "\n\n".join(
        [
            "## A burst of lies",
            str(__doc__).partition("\n\n")[2].strip(),
            CAPTION,
            report.table(head, cells),
            report.bars([bar for kind in KINDS for bar in _bars(outcomes, kind)]),
        ]
    )


def _cell(outcome: Outcome, name: str) -> str:
    return f"{outcome.during[name]:.1f} / {outcome.after[name]:.1f}"


def _pulls(outcome: Outcome) -> list[str]:
    return ["-" if row is None else str(row) for row in outcome.pulls.values()]


def _bars(outcomes: Sequence[Outcome], kind: str) -> Iterator[Bar]:
    for gate in GATES:
        margins = [o.margin(gate) for o in outcomes if o.kind == kind]
        what = f"{kind} flips, {gate.name}: points above ungated"
        yield Bar(f"{what}, mean", sum(margins) / len(margins), 0.0)
        yield Bar(f"{what}, worst", min(margins), 0.0)
