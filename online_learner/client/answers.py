"""Answers, and what can be said about them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, Unpack

from online_learner.client import signals
from online_learner.client.errors import PredictionGone
from online_learner.client.fields import FeedbackFields
from online_learner.client.reading import read_as
from online_learner.client.signals import Signal
from online_learner.schema import Flag, Output

R = TypeVar("R")  # a Receipt, or the promise of one


class Subject(ABC, Generic[R]):
    """One answer that something can be said about, in every kind of feedback.

    Which kinds mean something depends on the model's task; the service refuses the others, and
    says which ones do.
    """

    __slots__ = ()
    _send: Callable[[dict[str, Any]], R]

    @abstractmethod
    def _named(self) -> dict[str, Any]:
        """Return the fields that say which answer it is."""

    def say(self, *said: Signal, **fields: Unpack[FeedbackFields]) -> R:
        """Say one thing, or several at once: all of them are accepted, or none."""
        content = said[0] if len(said) == 1 else {"signals": list(said)}
        return self._send({**self._named(), **content, **fields})

    def correct(self, value: Any, **fields: Unpack[FeedbackFields]) -> R:
        """Say what the right answer is."""
        return self.say(signals.correction(value), **fields)

    def thumbs(self, *, up: bool, **fields: Unpack[FeedbackFields]) -> R:
        """Say whether the answer is good, without saying which one would be."""
        return self.say(signals.thumbs(up=up), **fields)

    def rate(
        self,
        value: float,
        scale: tuple[float, float] | None = None,
        **fields: Unpack[FeedbackFields],
    ) -> R:
        """Rate it, from 1 to 5 or on a scale `(low, high)` of your own."""
        return self.say(signals.rating(value, scale), **fields)

    def select(self, value: Any, **fields: Unpack[FeedbackFields]) -> R:
        """Say which of the labels or options shown was taken; None: none of them."""
        return self.say(signals.selection(value), **fields)

    def prefer(self, chosen: str, rejected: str, **fields: Unpack[FeedbackFields]) -> R:
        """Say which of two options is better. Of two answers, see `Client.prefer`."""
        return self.say(signals.preference(chosen, rejected), **fields)

    def rank(self, ids: Iterable[str], **fields: Unpack[FeedbackFields]) -> R:
        """Put some or all of the options in order, best first."""
        return self.say(signals.ranking(ids), **fields)

    def categorize(self, value: str, **fields: Unpack[FeedbackFields]) -> R:
        """Put it into one of the categories that the configuration declares."""
        return self.say(signals.category(value), **fields)

    def flag(
        self,
        rule: str,
        *,
        severity: str | None = None,
        detail: str | None = None,
        **fields: Unpack[FeedbackFields],
    ) -> R:
        """Say that it breaks a rule; severity is `note`, `warn` (the default) or `block`."""
        return self.say(signals.flag(rule, severity=severity, detail=detail), **fields)

    def implicit(
        self, event: str, value: float | None = None, **fields: Unpack[FeedbackFields]
    ) -> R:
        """Say what a user did, rather than said: `click`, `purchase`, `dwell` with its seconds."""
        return self.say(signals.implicit(event, value), **fields)


@dataclass(frozen=True, slots=True)
class RankedOption:
    """One option of a ranking.

    Attributes
    ----------
    score
        The reward; differences of rewards are log-odds of preference.
    probability
        That it is the best of all, by the model.
    propensity
        The probability with which this place was filled as it was, where orders are explored.
    """

    id: str
    score: float
    probability: float
    propensity: float


@dataclass(frozen=True, slots=True)
class Answer(Subject[R]):
    """One answer, and the way to say what is right or wrong about it.

    Attributes
    ----------
    prediction_id
        Signed; opens this answer for feedback. None where the service answered without a log.
    version, step
        Which snapshot answered, and at which commit of the learner.
    output
        The label, the number, or the ids of the options in the order in which they are to be shown.
    scores
        Probabilities by label, rewards by option; empty for regression.
    ranking
        The options in order; of an answer made elsewhere, best first.
    propensity
        The probability with which this output was drawn; 1 where nothing is explored.
    asked
        Whether the service would like the right answer.
    flags
        What the rules found.
    blocked
        A rule blocked the answer: `output` is the configured fallback.
    model_version
        Of what answered, where the answer was made elsewhere.
    known
        It had been logged before: an answer that is logged `once`.
    feedback_expires_at
        Until when feedback is taken, RFC 3339.
    raw
        The reply as it came.
    """

    prediction_id: str | None
    model: str
    version: int
    step: int
    output: Output = field(hash=False)
    scores: Mapping[str, float] = field(hash=False)
    ranking: tuple[RankedOption, ...]
    uncertainty: float
    propensity: float
    asked: bool
    flags: tuple[Flag, ...]
    blocked: bool
    model_version: str | None
    feedback_expires_at: str | None
    known: bool
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    _send: Callable[[dict[str, Any]], R] = field(repr=False, compare=False)

    @classmethod
    def read(cls, send: Callable[[dict[str, Any]], R], reply: Mapping[str, Any]) -> Answer[R]:
        """Return the answer in a reply; `send` takes the bodies of feedback on it."""
        return cls(
            prediction_id=reply["prediction_id"],
            model=reply["model"],
            version=reply["version"],
            step=reply["step"],
            output=reply["output"],
            scores=reply["scores"],
            ranking=tuple(read_as(RankedOption, option) for option in reply.get("ranking", ())),
            uncertainty=reply["uncertainty"],
            propensity=reply["propensity"],
            asked=reply["ask"] is not None,
            flags=tuple(map(Flag.model_validate, reply["flags"])),
            blocked=reply["blocked"],
            model_version=reply.get("model_version"),
            feedback_expires_at=reply["feedback_expires_at"],
            known=reply.get("known", False),
            raw=reply,
            _send=send,
        )

    def _named(self) -> dict[str, Any]:
        return {"prediction_id": id_of(self)}


@dataclass(frozen=True, slots=True)
class NamedAnswer(Subject[R]):
    """The answer under a name of the caller's own: `external_id`, or the latest of a session."""

    model: str
    external_id: str | None
    session_id: str | None
    _send: Callable[[dict[str, Any]], R] = field(repr=False, compare=False)

    def _named(self) -> dict[str, Any]:
        names = {"external_id": self.external_id, "session_id": self.session_id}
        return {"model": self.model, **{key: name for key, name in names.items() if name}}


def id_of(answer: Answer[Any] | str) -> str:
    """Return the prediction id of an answer; an id is returned as it is.

    Raises
    ------
    PredictionGone
        It was given without a log.
    """
    found = answer if isinstance(answer, str) else answer.prediction_id
    if found is None:
        detail = "this answer was given while its log was away: it takes no feedback"
        raise PredictionGone({"status": 404, "code": "not_logged", "detail": detail})
    return found
