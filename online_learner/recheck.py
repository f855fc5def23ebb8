"""Verdicts computed again, from the scalars of the evidence stream alone.

Whoever doubts a decision can repeat it: each test is folded over the evidence once more, and the
numbers that come out are compared with those of the verdict. It takes no model and no trust:
`online-learner verdicts MODEL --recheck` does it over HTTP, and reads archive and store itself
where evidence has left the store meanwhile.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any

from online_learner.archive.log import Log
from online_learner.evidence import Duel, Terms, Trial, log_threshold, log_threshold_spent, numbers
from online_learner.ids import entry_order
from online_learner.promote import CROWNED
from online_learner.schema import Settled, Verdict

TOLERANCE = 1e-9


class Recheck:
    """Takes the verdicts, then all evidence, oldest first; and tells what does not agree.

    Parameters
    ----------
    verdicts
        All there are, oldest first.
    begins
        The entry before which evidence has been trimmed; `0-0` where none has been.

    Attributes
    ----------
    too_old
        Verdicts that rest on evidence which has been trimmed since, at least in part.
    checked
        Verdicts that rest on a test, and were computed again.
    worst
        The largest difference of any number, relative where it is above 1.
    wrong
        What differs by more than 1e-9, in words.
    verdicts
        Those that it was given.
    """

    def __init__(self, verdicts: Iterable[Verdict], *, begins: str = "0-0") -> None:
        self.checked = 0
        self.too_old = 0
        self.worst = 0.0
        self.wrong: list[str] = []
        self.verdicts = list(verdicts)
        self._trimmed = begins != "0-0"
        self._waiting: deque[tuple[Verdict, dict[str, Any], int]] = deque()
        self._heard: defaultdict[str, list[Settled]] = defaultdict(list)
        promotions = 0
        for verdict in self.verdicts:
            if verdict.test is not None:
                self._waiting.append((verdict, verdict.test, promotions))
            promotions += bool(verdict.settled) and verdict.action in CROWNED  # not an operator's

    def hear(self, entry: str, settled: Settled) -> None:
        """Take in the next entry of the evidence; what was decided before it is checked."""
        while self._waiting and entry_order(entry) > entry_order(self._waiting[0][0].settled):
            self._check(*self._waiting.popleft())
        for name in settled.asked:
            self._heard[name].append(settled)

    def end(self) -> None:
        """Check what is left: there is no more evidence."""
        while self._waiting:
            self._check(*self._waiting.popleft())

    def _check(self, verdict: Verdict, test: dict[str, Any], promotions: int) -> None:
        trial = Trial.fresh(Duel(**test["duel"]), k=test["k"], terms=Terms(**test["terms"]))
        for settled in self._heard[test["name"]]:
            trial.fold(test["name"], settled)
        if self._trimmed and trial.audited < int(verdict.numbers["audited"] or 0):
            self.too_old += 1
            return
        goal = _goal(verdict, trial, promotions)
        for name, number in numbers(trial, goal).items():
            self._compare(verdict, name, number)
        if verdict.action in (*CROWNED, "pull") and not trial.reached(goal):
            self.wrong.append(f"{_called(verdict)}: the evidence does not do")
        self.checked += 1

    def _compare(self, verdict: Verdict, name: str, found: object) -> None:
        told = verdict.numbers.get(name)
        if isinstance(found, int | float) and isinstance(told, int | float):
            gap = abs(found - told) / max(1.0, abs(found))
            self.worst = max(self.worst, gap)
            same = gap <= TOLERANCE
        else:
            same = found == told
        if not same:
            self.wrong.append(f"{_called(verdict)}: {name} is {found}, and not {told}")


async def recheck(log: Log) -> tuple[Recheck, int]:
    """Compute all verdicts of a record again; returns the report, and how many there are.

    Raises
    ------
    DataError
        The archive is damaged.
    """
    verdicts = [
        Verdict.model_validate_json(fields[b"v"])
        async for page in log.pages("verdicts")
        for _, fields in page
    ]
    report = Recheck(verdicts, begins=await log.begins("evidence"))
    async for page in log.pages("evidence"):
        for entry, fields in page:
            report.hear(entry, Settled.model_validate_json(fields[b"e"]))
    report.end()
    return report, len(verdicts)


def _called(verdict: Verdict) -> str:
    return f"{verdict.action} (epoch {verdict.epoch})"


def _goal(verdict: Verdict, trial: Trial, promotions: int) -> float:
    """Return the log e-value that was needed: by the default rules, or as the policy said."""
    given: Any = verdict.numbers
    if "alpha" not in given:
        return float(given["log_e_needed"])
    if given["strict"]:
        return log_threshold_spent(given["alpha"], k=trial.k)
    return log_threshold(given["alpha"], k=trial.k, promotions=promotions, fdr=given["fdr"])
