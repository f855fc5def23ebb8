"""What is observed of those who speak and those who are silent, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field

from online_learner.schema.answering import Prediction
from online_learner.schema.scaling import Scaling
from online_learner.schema.telling import Feedback
from online_learner.schema.values import Record


class Advice(Record):
    """What gateways heed, by observation: how scores are scaled, and how much more is asked.

    `scalings` are by place (see `place_of`); `ask` multiplies the budget of active learning.
    """

    n: int = 0
    scalings: dict[str, Scaling] = Field(default_factory=dict)
    ask: float = 1.0
    at: float = 0.0


def place_of(role: str, version: int) -> str:
    """Return under which name the weights of a role are known: `champion:3`, `challenger:4`.

    A challenger's role has its version in it already. The learner's newest step, which moves on, is
    `latest` whatever version it is counted under, and also where it answers as the champion.
    """
    return role if role == "latest" or ":" in role else f"{role}:{version}"


class Raised(Record):
    """An alarm: something is not as it was, or not as it should be. Nothing is decided by it.

    `by` is the observer's name, `about` what it speaks of, and `effects` what follows by policy.
    """

    by: str
    about: str
    sentence: str
    numbers: dict[str, float | int | str | None] = Field(default_factory=dict)
    effects: list[str] = Field(default_factory=list)
    at: float = 0.0


class Observed(Record):
    """How far the observers have come, by stream, and what they have passed on."""

    n: int = 0  # commits
    places: dict[str, str] = Field(default_factory=dict)
    seen: int = 0  # answers that were looked at after their window
    window_s: float | None = None  # how long after an answer that is
    tables: dict[str, dict[str, Any]] = Field(default_factory=dict)  # that the learner was told
    advice: Advice = Field(default_factory=Advice)
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A logged answer, after the time in which people speak, and what they had said by then.

    Parameters
    ----------
    entry
        Its place in the log.
    at_ms
        When it was given, in milliseconds since the epoch.
    signals
        What was said of it within the window, implicit signals among them; of each source, kind
        and subject the latest. Empty: nobody spoke.
    """

    entry: str
    at_ms: int
    prediction: Prediction
    signals: tuple[Feedback, ...] = ()
