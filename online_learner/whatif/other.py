"""The other learner: it learns what had been committed by then, as its configuration reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from online_learner.archive.log import Log
from online_learner.bundle import Weights
from online_learner.errors import StateError
from online_learner.ids import entry_order
from online_learner.interpret import NOTHING, Batch, Interpreter
from online_learner.learners import Learner, Model, Ranker
from online_learner.learners.factory import make_learner
from online_learner.learners.undo import Undo
from online_learner.replay.ahead import Ahead
from online_learner.schema import Control, Output, Prediction, Step
from online_learner.settings import ModelSpec
from online_learner.stages import make_lenses, make_signals, make_validation
from online_learner.store import Entry
from online_learner.weigh import Corrections


@dataclass(slots=True)
class Passed:
    """What of the record there was, and what the other learner went by.

    Parameters
    ----------
    lessons
        That it learned.
    aside
        Signals that its validation doubts, or that it cannot learn.
    resets
        Moments at which the served weights went back: its own did not.
    retracted
        Signals that were taken back, and that it never saw.
    """

    steps: int = 0
    lessons: int = 0
    aside: int = 0
    resets: int = 0
    retracted: int = 0


class Other:
    """A fresh learner on its way along a record.

    Parameters
    ----------
    gone
        Signals that were taken back.
    """

    def __init__(self, log: Log, spec: ModelSpec, gone: frozenset[str], until: str = "+") -> None:
        corrections = Corrections(make_lenses(spec))
        self._interpreter = Interpreter(make_signals(spec), make_validation(spec), corrections)
        self._undo = Undo(make_learner(spec))
        self._log = log
        self._ahead = Ahead(log)
        self._gone = gone
        self._until = until
        self._at = "0-0"
        self._next: tuple[str, Step] | None = None
        self._aside: set[str] = set()
        self.passed = Passed()

    @classmethod
    async def begin(cls, log: Log, spec: ModelSpec, until: str = "+") -> Other:
        """Return one that has learned nothing yet; raises `StateError` where the record is cut."""
        for stream in ("feedback", "steps"):
            if (begins := await log.begins(stream)) != "0-0":
                raise StateError(
                    f"the record of '{log.registry.model}' begins at {begins}, and another learner "
                    "begins with nothing: it takes the whole record, as an archive has it"
                )
        registry = log.registry
        gone = await registry.store.hash(registry.keys.retracted)
        return cls(log, spec, frozenset(entry.decode() for entry in gone), until)

    @property
    def learner(self) -> Model:
        """What it has learned so far."""
        return self._undo.learner

    def answer(self, record: Prediction) -> Output:
        """Return what it would have answered; None where it has no answer."""
        learner = cast("Learner | Ranker", self._undo.learner)
        weights = Weights(version=0, lineage=0, step=0, learner=learner)
        try:
            if isinstance(learner, Ranker):
                answer = weights.answer(record.context(), record.options)
            else:
                answer = weights.answer(record.features)
        except Exception:  # whatever a model raises that cannot take these features
            return None
        if isinstance(answer.output, list):
            shown = set(record.shown())
            return [name for name in answer.output if name in shown]
        return answer.output

    async def learn_before(self, at_ms: float) -> None:
        """Learn the steps that were committed before a moment."""
        while True:
            found = await self._ahead.next(self._at)
            if found is None or self._is_beyond(found[0]) or _committed_ms(*found) >= at_ms:
                return
            await self._learn(*found)

    def _is_beyond(self, entry: str) -> bool:
        return self._until != "+" and entry_order(entry) > entry_order(self._until)

    async def _learn(self, entry: str, step: Step) -> None:
        covered = await self._ahead.covered(step)
        self._at = entry
        self.passed.steps += 1
        if step.reset_to is not None:
            self.passed.resets += 1
        elif step.tables:
            for _, fields in covered[-1:]:
                self._interpreter.heed(Control.model_validate_json(fields[b"c"]).tables)
        elif step.released:
            missed = [name for name in step.released if name in self._aside]
            known = await self._log.entries([("feedback", name) for name in missed])
            self._aside.difference_update(missed)
            pairs = zip(missed, known, strict=True)
            self._read([(name, fields or {}) for name, fields in pairs], released=True)
        elif not step.retracted and not step.unlearned:
            self._read(covered)

    def _read(self, entries: Sequence[Entry], *, released: bool = False) -> None:
        kept = [item for item in entries if item[0] not in self._gone]
        self.passed.retracted += len(entries) - len(kept)
        batch = self._interpreter.read(kept, self._undo.learner, released=released)
        lessons = batch.keep()
        refused = self._undo.learn(lessons)
        self.passed.lessons += len(lessons) - refused
        self.passed.aside += refused + self._doubted(batch)

    def _doubted(self, batch: Batch) -> int:
        doubted = [e for e, why in batch.set_aside.items() if not why.startswith(NOTHING)]
        self._aside.update(doubted)
        return len(doubted)


def _committed_ms(entry: str, step: Step) -> float:
    """Return when a step was committed: no earlier than the last signal that it covers."""
    return max(1000.0 * step.at, float(entry_order(entry)[0]))
