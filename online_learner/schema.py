"""The records that flow through the loop: what was answered, what was said of it, what was decided.

They ignore keys that they do not know, so that two releases can read one stream during an upgrade.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from online_learner.chat import shared_context

Status: TypeAlias = Literal["candidate", "blessed", "rejected"]
Action: TypeAlias = Literal[
    "promote", "follow", "bless", "reject", "pull", "rollback", "freeze", "thaw"
]

Label: TypeAlias = bool | int | str
Output: TypeAlias = bool | int | float | str | list[str] | None  # a ranking: option ids, best first
Severity: TypeAlias = Literal["note", "warn", "block"]
Task: TypeAlias = Literal["classification", "regression", "ranking", "generation"]


class Record(BaseModel):
    """What the store keeps.

    Records on the hot path have a `default_factory`: pydantic deep-copies a default of `{}`.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    def pack(self) -> bytes:
        """Return compact JSON; fields at their default are left out."""
        return self.__pydantic_serializer__.to_json(self, exclude_defaults=True)


# --- predictions ------------------------------------------------------------------------------


class Ask(Record):
    """Why a label is asked for, and the probability with which it was."""

    reason: Literal["audit", "uncertain"]
    probability: float


class Shadow(Record):
    """What one set of weights answered: unexplored, unblocked, at prediction time."""

    version: int
    lineage: int
    step: int
    output: Output
    scores: dict[str, float] = Field(default_factory=dict)


class Flag(Record):
    """What a rule found in an input, an output, a comment or a correction."""

    rule: str
    severity: Severity
    where: Literal["input", "output", "comment", "correction"]
    detail: str = ""  # what was found and where, never the personal data itself
    option: str | None = None  # of several outputs, the one that it speaks of


class Option(Record):
    """One of several things to choose from: a document to rank, an answer that an LLM gave."""

    id: str
    features: dict[str, Any] = Field(default_factory=dict)
    logprobs: list[float] | None = None


class Prediction(Record):
    """One answer, as it was given: all that feedback is later joined to.

    For a ranking, `output` holds the ids of the options that were shown, in the order in which they
    were shown, `scores` the score of every option, and `propensities` the probability with which
    each place of `output` was filled as it was (see `explore`).
    """

    model: str
    features: dict[str, Any]  # checked at the door; for `generation` the prompt
    options: list[Option] = Field(default_factory=list)
    output: Output
    scores: dict[str, float] = Field(default_factory=dict)
    propensities: list[float] = Field(default_factory=list)
    top_k: int | None = None
    uncertainty: float = 0.0
    version: int
    lineage: int
    step: int
    role: str = "champion"
    propensity: float = 1.0
    explored: bool = False  # the order or label shown is not the one that scored best
    flags: list[Flag] = Field(default_factory=list)
    blocked: bool = False  # `fallback` was served, not `output`
    fallback: Any = None
    model_version: str | None = None  # of an answer made elsewhere
    parameters: dict[str, Any] = Field(default_factory=dict)  # temperature, top-p, ...
    generation: int = 0
    ask: Ask | None = None
    shadows: dict[str, Shadow] = Field(default_factory=dict)
    session_id: str | None = None
    user_id: str | None = None
    external_id: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    latency_ms: float = 0.0

    @property
    def withheld(self) -> bool:
        """Whether users saw the fallback. What was made elsewhere was shown there all the same."""
        return self.blocked and self.role != "external"

    def context(self) -> dict[str, Any]:
        """Return what the options share, for a ranker: a chat's messages as one text."""
        return shared_context(self.features)

    def shown(self) -> list[str]:
        """Return what could be chosen from: option ids, or label keys, in the order shown."""
        if isinstance(self.output, list):
            return self.output
        best = sorted(self.scores, key=self.scores.__getitem__, reverse=True)
        return best[: self.top_k]


class Audit(Record):
    """The part of an audited prediction that the gatekeeper reads: who answered what."""

    generation: int
    roles: dict[str, Shadow]


class Served(Record):
    """The weights that answered for the first time. Its id in the stream is the prediction's."""

    version: int
    lineage: int
    step: int


# --- feedback ---------------------------------------------------------------------------------

_SUBJECTS = {"preference": ("chosen", "rejected"), "flag": ("rule",), "implicit": ("event",)}


class Feedback(Record):
    """One accepted signal."""

    kind: str
    value: Any
    source: str  # "human:ada", "key:3f9c..."
    prediction_id: str
    tags: dict[str, str] = Field(default_factory=dict)
    reasons: list[str] = Field(default_factory=list)
    comment: str | None = None
    interface: dict[str, Any] | None = None
    observed_at: str | None = None
    flags: list[Flag] = Field(default_factory=list)

    def subject(self) -> str:
        """Return what it speaks of, where a source may have several opinions on one answer."""
        return "\0".join(sorted(self.value[name] for name in _SUBJECTS.get(self.kind, ())))


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


class Control(Record):
    """An entry of the feedback stream that is not a signal, but alters learning."""

    action: Literal["reset"]
    to_version: int
    lineage: int
    reason: str = ""


# --- learning ---------------------------------------------------------------------------------


class Step(Record):
    """One commit of the learner. Its id in the stream is `to`, the last feedback entry it covers.

    `digest` chains the entries in the order in which they were learned; `state_digest` is the
    digest of the weights after the step, where it was taken.
    """

    lineage: int
    step: int
    after: str  # the feedback entry after which this step begins
    to: str
    signals: int
    set_aside: dict[str, str] = {}  # entries that were not learned, with the reason
    digest: str
    state_digest: str | None = None
    reset_to: int | None = None  # version that the weights were reset to, instead of learning
    at: float = 0.0  # when it was committed


class Checkpoint(Record):
    """Full state of the learner as of one step. The blob lies beside it."""

    lineage: int
    step: int
    offset: str
    digest: str
    state_digest: str
    learned: int  # signals learned, ever
    since_cut: int  # signals learned since the last version was cut
    pid: int = 0
    at: float = 0.0


class Version(Record):
    """A kept snapshot. Numbers count snapshots in the order in which they were cut."""

    version: int
    lineage: int
    step: int
    offset: str
    digest: str
    state_digest: str
    parent: int | None = None  # the blessed version that stood when it was cut
    learned: int = 0
    status: Status = "candidate"
    cut_at: float = 0.0
    untrained: bool = False


# --- deciding ---------------------------------------------------------------------------------


class Aliases(Record):
    """Who answers, and who is tested. One document, moved as one by compare-and-set on `epoch`."""

    epoch: int = 1
    generation: int = 1  # moves whenever the reference of the tests changes
    lineage: int = 1  # only the learner of this lineage may publish
    champion: int
    following: bool = False  # the champion is the lineage's latest step
    anchor: int | None = None
    previous: int | None = None
    challengers: tuple[int, ...] = ()
    trusted: bool = False
    frozen: bool = False
    pinned: bool = False  # frozen while following: the pinned step answers

    @property
    def reference(self) -> int:
        """The version that challengers have to beat."""
        return self.anchor if self.following and self.anchor is not None else self.champion

    def followed(self) -> Aliases:
        """Return the aliases on the leash: the lineage answers, today's champion is the anchor."""
        return self.model_copy(
            update={
                "following": True,
                "anchor": self.champion,
                "previous": self.champion,
                "generation": self.generation + 1,
                "trusted": True,
            }
        )

    def pulled_to(self, version: int) -> Aliases:
        """Return the aliases after a pull: an old version answers, a new lineage starts."""
        return self.model_copy(
            update={
                "champion": version,
                "previous": None,
                "anchor": None,
                "following": False,
                "pinned": False,
                "challengers": (),
                "lineage": self.lineage + 1,
                "generation": self.generation + 1,
                "trusted": False,
            }
        )


class Verdict(Record):
    """A decision, with the numbers behind it and a sentence that says why."""

    action: Action
    by: str  # policy, or the operator's key
    sentence: str
    version: int | None = None
    reference: int | None = None
    numbers: dict[str, float | int | str | None] = {}
    epoch: int = 0
    at: float = 0.0


class Settled(Record):
    """One settled audit: scalars only, no user data. Its id in the stream is the prediction's."""

    answered: bool
    points: dict[str, float] = {}  # test -> d


class GateState(Record):
    """The gatekeeper's state as of the last settled audit."""

    settled: str = "0-0"
    candidates: int = 0  # tests that were ever begun
    promotions: int = 0
    newest: int = 0  # the newest version that was looked at
    answered: int = 0
    unanswered: int = 0
    trials: dict[str, Any] = {}
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Move:
    """What a policy wants done: new aliases, and the verdict that explains them."""

    aliases: Aliases
    verdict: Verdict | None = None
    reset_to: int | None = None  # version that the learner restarts from
    statuses: dict[int, Status] = field(default_factory=dict)
    pin: bool = False


def label_key(label: Any) -> str:
    """Return the name of a label as a JSON key.

    >>> label_key(True), label_key("spam"), label_key(3)
    ('true', 'spam', '3')
    """
    return label if isinstance(label, str) else json.dumps(label)


def finite(numbers: Any) -> bool:
    """Tell whether all of the numbers are finite."""
    return all(map(math.isfinite, numbers))


def canonical(value: Any) -> str:
    """Return JSON as text, the same for equal values.

    >>> canonical({"b": 1, "a": [True]})
    '{"a": [true], "b": 1}'
    """
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def pack(value: Any) -> bytes:
    """Return compact JSON."""
    return to_json(value)
