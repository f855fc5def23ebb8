"""Answers that take no learning: what good weights have to be better than."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from online_learner.learners import Answer
from online_learner.schema import Example, Task, label_key


@dataclass(slots=True)
class Constant:
    """The one answer that fits some rows best, whatever is asked.

    The commonest label, with the share of each label as its score; or the mean of the numbers.

    Examples
    --------
    >>> found = Constant("classification")
    >>> for target in ("ham", "ham", "spam"):
    ...     found.see(Example({}, target))
    >>> found.answer()
    Answer(output='ham', scores={'ham': 0.6666666666666666, 'spam': 0.3333333333333333})
    """

    task: Task
    labels: dict[str, Any] = field(default_factory=dict)
    weights: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    total: float = 0.0
    sum: float = 0.0

    def see(self, lesson: Example) -> None:
        """Take in one row."""
        self.total += lesson.weight
        if self.task == "regression":
            self.sum += lesson.weight * float(lesson.target)  # type: ignore[arg-type]
            return
        name = label_key(lesson.target)
        self.labels.setdefault(name, lesson.target)
        self.weights[name] += lesson.weight

    @classmethod
    def of(cls, task: Task, lessons: Iterable[Any]) -> Constant:
        """Return the one that has seen these; what is no example tells nothing."""
        found = cls(task)
        for lesson in lessons:
            if isinstance(lesson, Example):
                found.see(lesson)
        return found

    def answer(self) -> Answer | None:
        """Return the answer, or None of no rows, and where there is none that heeds nothing."""
        if not self.total:
            return None
        if self.task == "regression":
            return Answer(self.sum / self.total)
        shares = {name: weight / self.total for name, weight in self.weights.items()}
        return Answer(self.labels[max(shares, key=shares.__getitem__)], shares)


@dataclass(slots=True)
class NoChange:
    """The last truth again: what the row before turned out to be."""

    last: Answer | None = None

    def answer(self, lesson: Example) -> Answer | None:
        """Return its answer to a row, None to the first, and take in the truth."""
        before, self.last = self.last, Answer(lesson.target, {})
        return before
