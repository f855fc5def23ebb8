"""The weights that answer, of one moment: immutable, so that no answer mixes two versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from online_learner.learners import Answer, Learner, Ranker
from online_learner.schema import Aliases, Option, Shadow, finite

CANNOT_TAKE = (TypeError, ValueError, KeyError, ArithmeticError)  # these features, says a learner


@dataclass(frozen=True, slots=True)
class Weights:
    """One set of weights, and where it comes from."""

    version: int
    lineage: int
    step: int
    learner: Learner | Ranker

    def answer(self, features: dict[str, Any], options: Sequence[Option] = ()) -> Answer:
        """Answer one request; an answer that is not finite is an error, not an answer.

        A ranking is by score, best first; equal scores keep the order in which they came.
        """
        if options:  # a learner's methods do not tell: classifiers may have a `score` of their own
            scores = self.score(features, [option.features for option in options])
            named = {option.id: score for option, score in zip(options, scores, strict=True)}
            found = Answer(best_first(named), named)
        else:
            found = cast("Learner", self.learner).predict([features])[0]
        self._check(list(found.scores.values()))
        self._check([found.output] if isinstance(found.output, float) else [])
        return found

    def score(self, features: dict[str, Any], options: Sequence[Mapping[str, Any]]) -> list[float]:
        """Return the reward of each option; raises where one is not finite."""
        scores = cast("Ranker", self.learner).score(features, [dict(o) for o in options])
        self._check(scores)
        return scores

    def _check(self, numbers: Sequence[float]) -> None:
        if not finite(numbers):
            raise FloatingPointError(f"version {self.version} gave a score that is not finite")

    def shadow(self, answer: Answer) -> Shadow:
        """Return an answer as the record keeps it."""
        return Shadow(
            version=self.version,
            lineage=self.lineage,
            step=self.step,
            output=answer.output,
            scores={} if isinstance(answer.output, list) else answer.scores,
        )


def best_first(scores: Mapping[str, float]) -> list[str]:
    """Return names by score, the best first.

    >>> best_first({"a": 0.1, "b": 0.7, "c": 0.1})
    ['b', 'a', 'c']
    """
    return sorted(scores, key=scores.__getitem__, reverse=True)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything that one answer needs, of one moment."""

    aliases: Aliases
    champion: Weights
    shadows: tuple[tuple[str, Weights], ...] = ()
    untrained: bool = False
