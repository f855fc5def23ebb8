"""Lessons that can be undone: what a learner cannot learn leaves no trace in it."""

from __future__ import annotations

from collections.abc import Sequence

from online_learner.learners import Model
from online_learner.learners.state import pack_state, unpack_state
from online_learner.schema import Lesson

EVERY = 2000  # lessons after which the state is packed anew


class Undo:
    """Keeps a packed state of a learner, and what it has learned since.

    Parameters
    ----------
    learner
        What learns; after a lesson that failed, it is another object.
    """

    def __init__(self, learner: Model) -> None:
        self.learner = learner
        self._base = pack_state(learner)
        self._since: list[Sequence[Lesson]] = []
        self._count = 0

    def learn(self, lessons: Sequence[Lesson]) -> int:
        """Learn a batch, without what cannot be learned; returns how many lessons that were.

        Each is tried by itself then. Where they can be learned one by one, and not together, none
        of them is learned.
        """
        kept = lessons
        try:
            self.learner.learn(lessons)
        except Exception:  # whatever a model raises
            kept = self._without_poison(lessons)
        self._since.append(kept)
        self._count += len(kept)
        if self._count >= EVERY:
            self._base, self._since, self._count = pack_state(self.learner), [], 0
        return len(lessons) - len(kept)

    def _without_poison(self, lessons: Sequence[Lesson]) -> Sequence[Lesson]:
        kept: list[Lesson] = []
        self._rebuild()
        for lesson in lessons:
            try:
                self.learner.learn([lesson])
            except Exception:
                self._rebuild()
                for before in kept:
                    self.learner.learn([before])
            else:
                kept.append(lesson)
        self._rebuild()
        try:
            self.learner.learn(kept)
        except Exception:
            self._rebuild()
            kept = []
            self.learner.learn(kept)
        return kept

    def _rebuild(self) -> None:
        self.learner = unpack_state(self._base, self.learner)
        for lessons in self._since:
            self.learner.learn(lessons)
