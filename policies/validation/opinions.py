"""What was said of the latest answers, by whom: repeats, changes of mind, contradictions, peers.

A source's *lean* is what its signals come to: a right answer, a wrong one, or good or bad. Two
leans oppose each other where both cannot be meant; numbers and orders that differ do not.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from online_learner.schema import Feedback, Prediction, Said, Task, canonical, pack

MOST_EACH = 8  # sources that are remembered of one answer
MOST_SAID = 16  # kinds, and subjects, that are remembered of one source and answer
SHORT = 24  # characters up to which a value is remembered as it is
OPPOSITES = {"+": "-", "-": "+"}


@dataclass(slots=True)
class Opinion:
    """What one source has said of one answer.

    Parameters
    ----------
    lean
        What it came to, or None where that is not told.
    at_ms
        When it was said last.
    changes
        How often they have said something else than before.
    said
        The value last said, by kind and subject.
    auditor
        Whether it is an auditor's.
    """

    lean: str | None = None
    at_ms: int = 0
    changes: int = 0
    said: dict[str, str] = field(default_factory=dict)
    auditor: bool = False

    def say(self, feedback: Feedback) -> tuple[str | None, str]:
        """Take in a value; returns what was said before of the same subject, and the value."""
        about, value = f"{feedback.kind} {_brief(feedback.subject())}", _brief(feedback.value)
        before = self.said.pop(about, None)
        self.said[about] = value
        if len(self.said) > MOST_SAID:
            del self.said[next(iter(self.said))]
        return before, value

    def pack(self) -> list[Any]:
        """Return it as plain JSON."""
        return [self.lean, self.at_ms, self.changes, self.said, self.auditor]


@dataclass(slots=True)
class Opinions:
    """What was said of the latest answers, and by whom of the latest inputs.

    Parameters
    ----------
    flips
        How often a source may change its mind on one answer.
    breath_s
        For how long nobody may say the opposite of what they said of an equal input.
    most
        How many answers are remembered, and how many inputs.
    """

    flips: int
    breath_s: float
    most: int = 1000
    answers: OrderedDict[str, dict[str, Opinion]] = field(default_factory=OrderedDict)
    inputs: OrderedDict[str, tuple[str, int, str]] = field(default_factory=OrderedDict)

    def of(self, answer: str) -> dict[str, Opinion]:
        """Return what is known of an answer, by source."""
        return self.answers.get(answer, {})

    def hear(
        self, feedback: Feedback, answer: str, lean: str | None, question: str | None, now_ms: int
    ) -> str | None:
        """Take in what a source says.

        Parameters
        ----------
        lean
            What it comes to (see `lean_of`).
        question
            The input, for this source (see `question_of`), or None where it is not compared.

        Returns
        -------
        Why it is not to be learned, or None.
        """
        opinion = self._opinion(answer, feedback.source)
        before, value = opinion.say(feedback)
        if before == value:
            return "duplicate: this source has said the same of this answer before"
        opposite = _opposed(opinion.lean, lean)
        together = opinion.at_ms == now_ms  # one payload, appended at one moment
        opinion.at_ms = now_ms
        if opposite and together and before is None:
            return "contradiction: this source says the opposite of this answer in the same breath"
        opinion.lean, opinion.auditor = lean or opinion.lean, feedback.auditor
        if before is not None or opposite:
            opinion.changes += 1
            if opinion.changes > self.flips:
                return (
                    f"flip: this source has changed its mind on this answer {opinion.changes} times"
                )
        if question is None or lean is None or not self._recants(question, lean, answer, now_ms):
            return None
        return (
            "contradiction: this source has said the opposite of an equal input in the last "
            f"{self.breath_s:g} s"
        )

    def _opinion(self, answer: str, source: str) -> Opinion:
        answers = self.answers
        known = answers.get(answer)
        if known is None:
            known = answers[answer] = {}
            if len(answers) > self.most:
                answers.popitem(last=False)
        else:
            answers.move_to_end(answer)
        opinion = known.pop(source, None) or Opinion()
        known[source] = opinion
        if len(known) > MOST_EACH:
            del known[next(iter(known))]
        return opinion

    def _recants(self, question: str, lean: str, answer: str, now_ms: int) -> bool:
        """Tell whether a source opposes what it said of another answer to the same question."""
        oldest_ms, inputs = now_ms - int(1000 * self.breath_s), self.inputs
        while inputs:
            first = next(iter(inputs))
            if inputs[first][1] >= oldest_ms and len(inputs) <= self.most:
                break
            del inputs[first]
        before = inputs.get(question)
        if before is not None and before[2] != answer and _opposed(before[0], lean):
            return True
        inputs[question] = (lean, now_ms, answer)
        if before is not None:
            inputs.move_to_end(question)
        return False

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {
            "answers": {
                answer: {source: opinion.pack() for source, opinion in known.items()}
                for answer, known in self.answers.items()
            },
            "inputs": {question: list(found) for question, found in self.inputs.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `pack` wrote."""
        self.answers = OrderedDict(
            (answer, {source: Opinion(*found) for source, found in known.items()})
            for answer, known in state["answers"].items()
        )
        self.inputs = OrderedDict(
            (question, (lean, at, answer))
            for question, (lean, at, answer) in state["inputs"].items()
        )


def lean_of(said: Said, task: Task) -> str | None:
    """Return what a signal comes to, as text: `=right`, `!wrong`, or `+` and `-`.

    >>> lean_of(Said(right="spam"), "classification"), lean_of(Said(reward=0.75), "ranking")
    ("='spam'", '+')
    """
    if task == "classification" and said.right is not None:
        return f"={said.right!r}"
    if task == "classification" and said.wrong is not None:
        return f"!{said.wrong!r}"
    if task == "classification" or said.reward is None or said.reward == 0.5:
        return None
    return "+" if said.reward > 0.5 else "-"


def question_of(feedback: Feedback, prediction: Prediction, task: Task) -> str | None:
    """Return a source and an input as one short name, where a label is said of the input."""
    if task != "classification":
        return None
    asked = pack(prediction.features)
    return hashlib.blake2b(feedback.source.encode() + b"\0" + asked, digest_size=8).hexdigest()


def agrees(one: str | None, other: str | None) -> bool | None:
    """Tell whether two leans agree; None where they do not speak of the same."""
    if one is None or other is None:
        return None
    return True if one == other else False if _opposed(one, other) else None


def _opposed(one: str | None, other: str | None) -> bool:
    if not one or not other or one == other:
        return False
    if one in OPPOSITES or other in OPPOSITES:
        return OPPOSITES.get(one) == other
    if one[0] == other[0]:
        return one[0] == "="  # two right answers; two wrong ones may both be meant
    return one[1:] == other[1:]


def _brief(value: Any) -> str:
    text = canonical(value) if isinstance(value, dict | list) else repr(value)
    if len(text) <= SHORT:
        return text
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
