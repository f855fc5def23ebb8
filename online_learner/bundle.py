"""The weights that answer, of one moment: immutable, so that no answer mixes two versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from online_learner.learners import Answer, Learner, Ranker
from online_learner.schema import Advice, Aliases, Option, Scaling, Shadow, finite, place_of

CHAMPION = "champion"
ANCHOR = "anchor"  # the last blessed version, behind a champion that follows the learner
LATEST = "latest"  # the lineage's newest step, in the shadows

T = TypeVar("T")

CANNOT_TAKE = (TypeError, ValueError, KeyError, ArithmeticError)  # these features, says a learner


@dataclass(frozen=True, slots=True)
class Weights:
    """One set of weights, and where it comes from."""

    version: int
    lineage: int
    step: int
    learner: Learner | Ranker
    untrained: bool = False

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

    def shadow(self, answer: Answer | None, *, took_ms: float = 0.0) -> Shadow:
        """Return an answer as the record keeps it; None is a failure."""
        place: dict[str, Any] = {
            "version": self.version,
            "lineage": self.lineage,
            "step": self.step,
            "took_ms": took_ms,
        }
        if answer is None:
            return Shadow(failed=True, **place)
        scores = {} if isinstance(answer.output, list) else answer.scores
        return Shadow(output=answer.output, scores=scores, **place)


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
    advice: Advice = field(default_factory=Advice)

    def scaling(self, role: str) -> Scaling | None:
        """Return by which scaling the scores of a role mean what they say; None as they are.

        A champion that follows the learner is the newest step, whatever its number: so that what
        was found of these weights is applied to no others, not for a moment, when they part.
        """
        if not self.advice.scalings:
            return None
        weights = self.champion if role == CHAMPION else self.roles[role]
        follows = role == CHAMPION and ANCHOR in dict(self.shadows)
        return self.advice.scalings.get(place_of(LATEST if follows else role, weights.version))

    @property
    def untrained(self) -> bool:
        """Whether what answers has learned nothing yet."""
        return self.champion.untrained

    @property
    def roles(self) -> dict[str, Weights]:
        """The weights by role, the champion's first."""
        return {CHAMPION: self.champion, **dict(self.shadows)}

    def stand_in(self, error: Exception) -> Weights | None:
        """Return the anchor, where it may answer for a champion that failed.

        An untrained one takes any question. That it does shows that the weights are at fault where
        their numbers are not finite, and nothing where they cannot take the features.
        """
        anchor = dict(self.shadows).get(ANCHOR)
        if anchor is None or (anchor.untrained and not isinstance(error, ArithmeticError)):
            return None
        return anchor

    def attempt(self, work: Callable[[Weights], T]) -> tuple[Weights, T]:
        """Do some work with the champion, or where it fails with the anchor; says which it was."""
        try:
            return self.champion, work(self.champion)
        except Exception as error:
            anchor = self.stand_in(error)
            if anchor is None:
                raise
            try:
                return anchor, work(anchor)
            except Exception:
                raise error from None  # both fail: it is the question


@dataclass(slots=True)
class Panel:
    """What every role of a bundle says to one question.

    Parameters
    ----------
    shadows
        All that was said, as the record keeps it.
    answers, errors
        What those said that could answer, and why the others could not.
    """

    bundle: Bundle
    shadows: dict[str, Shadow] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        features: dict[str, Any],
        options: Sequence[Option],
        clock: Callable[[], float],
    ) -> Panel:
        """Ask every role. Whatever one of them raises, the others are asked."""
        panel, started = cls(bundle), clock()
        for role, weights in bundle.roles.items():
            try:
                panel.answers[role] = weights.answer(features, options)
            except Exception as error:  # a team's own learner may raise anything
                panel.errors[role] = error
            now = clock()
            took_ms, started = round((now - started) * 1000, 3), now
            panel.shadows[role] = weights.shadow(panel.answers.get(role), took_ms=took_ms)
        return panel

    def who(self, drawn: str) -> str | None:
        """Return who answers where a role was drawn to: where it fails, the champion, the anchor.

        None: nobody can, and so it is the question.
        """
        for role in (drawn, CHAMPION):
            if role in self.answers:
                return role
        stands_in = self.bundle.stand_in(self.errors[CHAMPION]) is not None
        return ANCHOR if stands_in and ANCHOR in self.answers else None
