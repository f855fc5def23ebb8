"""What was said of an answer, and what that means for learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import Field

from online_learner.schema.answering import Flag, Prediction
from online_learner.schema.values import Output, Record

_SUBJECTS = {"preference": ("chosen", "rejected"), "flag": ("rule",), "implicit": ("event",)}


class Feedback(Record):
    """One accepted signal."""

    kind: str
    value: Any
    source: str  # "human:ada", "key:3f9c..."
    auditor: bool = False  # it came with a key that has the scope `audit`
    prediction_id: str
    tags: dict[str, str] = Field(default_factory=dict)
    reasons: list[str] = Field(default_factory=list)
    comment: str | None = None
    interface: dict[str, Any] | None = None
    observed_at: str | None = None
    flags: list[Flag] = Field(default_factory=list)

    def subject(self) -> str:
        """Return what it speaks of, where a source may have several opinions on one answer."""
        names = _SUBJECTS.get(self.kind)
        return "\0".join(sorted(self.value[name] for name in names)) if names else ""


@dataclass(frozen=True, slots=True)
class Example:
    """What a signal means for learning: `features -> target`, with a weight.

    Where it is `complementary`, the target is a label that is *not* the right one.
    """

    features: dict[str, Any]
    target: Output
    weight: float = 1.0
    complementary: bool = False


@dataclass(frozen=True, slots=True)
class Ranked:
    """What a comparison means for learning: options in the order in which they were preferred.

    The first `places` places are decided, the others are tied behind them: a Plackett-Luce
    likelihood of that many stages. Two options make it Bradley-Terry. Where it is `worst_first`,
    the order is that of dislike: the first option is worse than all others.
    """

    features: dict[str, Any]  # the context (query, prompt) that the options share
    options: tuple[dict[str, Any], ...]  # the features of each option, two or more
    places: int = 1
    worst_first: bool = False
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Rated:
    """What an absolute judgement means for a ranker: one option's reward, from 0 (bad) to 1."""

    features: dict[str, Any]
    option: dict[str, Any]
    reward: float
    weight: float = 1.0


Lesson: TypeAlias = Example | Ranked | Rated


@dataclass(frozen=True, slots=True)
class Said:
    """What a signal tells the gate about an answer.

    Parameters
    ----------
    right
        The right answer: a label, a number; for a ranking the option taken, or an order.
    wrong
        The label that was shown, where it is only known not to be the right one.
    liked
        What was shown was good enough, which is no distance to score another answer by.
    reward
        How good what was shown is, from 0 to 1: evidence only where the role was drawn by chance.
    """

    right: Output = None
    wrong: Output = None
    liked: bool = False
    reward: float | None = None

    @property
    def strength(self) -> int:
        """How much it tells: 2 the right answer, 1 something, 0 nothing about other answers."""
        return 2 if self.right is not None else int(self.liked or self.wrong is not None)


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal on its way to the learner, with all that is known of it.

    Parameters
    ----------
    said
        What it tells of the answer.
    answer
        The entry of the answer in the log.
    at_ms
        When it was accepted, in milliseconds since the epoch, by its own entry.
    """

    feedback: Feedback
    prediction: Prediction
    said: Said
    answer: str
    at_ms: int


class Control(Record):
    """An entry of the feedback stream that is not a signal, but alters learning.

    `reset` goes back to a version under a new lineage. `release` learns entries that had been set
    aside or rolled back. `tables` are what observers found, by their names; from there on the
    learner weighs by them. `retract` says that entries were taken back by who has the right to;
    `unlearn`, later, puts the weights in their place that were learned without them.
    """

    action: Literal["reset", "release", "tables", "retract", "unlearn"]
    to_version: int = 0
    lineage: int = 0
    entries: list[str] = Field(default_factory=list)
    tables: dict[str, dict[str, Any]] = Field(default_factory=dict)
    by: str = ""
    reason: str = ""
