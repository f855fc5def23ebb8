"""What would have happened with another learner: the record again, with another configuration.

Each answer of which the right one was told is looked at once, in the order in which they were
given: what was served, and what the other learner would have answered at that moment. By then it
has learned the very steps that had been committed, as its own signals table and validation read
them. So neither has seen the answer's own label [1].

truth   which answers were told, and what is right
other   the other learner, along the recorded steps
score   both, side by side, with what costs nothing to know

It is no experiment. Who answers decides what is said: people correct what they were shown, and
answers that were audited, drawn by a coin, are told apart for that reason.

References
----------
[1] A. P. Dawid. Present position and potential developments: some personal views: statistical
    theory: the prequential approach. J. R. Statist. Soc. A 147 (1984).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from online_learner.archive.log import Log
from online_learner.learners import Model
from online_learner.schema import Prediction
from online_learner.settings import ModelSpec
from online_learner.whatif.other import Other, Passed
from online_learner.whatif.score import Comparison, Row, Scored, compared
from online_learner.whatif.truth import Told, told_answers

__all__ = ["Comparison", "Row", "WhatIf", "what_if"]

PAGE = 500
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What was served, and what would have been.

    Parameters
    ----------
    comparison
        Over all answers that were told, and over the audited ones; over time; by version.
    passed
        What of the record the other learner went by.
    failed
        Answers for which it had none.
    """

    comparison: Comparison
    passed: Passed
    failed: int


async def what_if(
    log: Log,
    spec: ModelSpec,
    *,
    until: str = "+",
    windows: int = 10,
    advance: Advance = lambda _answers: None,
) -> tuple[WhatIf, Model]:
    """Compare what was served with what another configuration would have answered.

    Parameters
    ----------
    spec
        The other configuration, of the same task.
    until
        The entry of the feedback stream up to which it goes.
    windows
        Into how many stretches of equally many answers the comparison over time is parted.
    advance
        Told how many answers have been looked at since it was last.

    Returns
    -------
    The comparison, and the other learner as it stands where the record ends.

    Raises
    ------
    StateError
        The record is not whole.
    DataError
        The archive is damaged.
    """
    answers = await told_answers(log, spec, until)
    other = await Other.begin(log, spec, until)
    scored: list[Scored] = []
    failed = 0
    for start in range(0, len(answers), PAGE):
        page = answers[start : start + PAGE]
        for answer, record in zip(page, await _records(log, page), strict=True):
            if record is None:
                continue
            await other.learn_before(answer.at_ms)
            output = other.answer(record)
            failed += output is None
            scored.append(Scored(answer, output))
        advance(len(page))
    await other.learn_before(math.inf)
    return WhatIf(compared(scored, spec.task, windows), other.passed, failed), other.learner


async def _records(log: Log, answers: Sequence[Told]) -> list[Prediction | None]:
    """Return what was asked and answered, by the copies that the signals bring."""
    found = await log.entries([("feedback", answer.signal) for answer in answers])
    return [
        None if not fields or b"r" not in fields else Prediction.model_validate_json(fields[b"r"])
        for fields in found
    ]
