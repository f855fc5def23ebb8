"""What was asked and answered."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from online_learner.chat import shared_context
from online_learner.schema.scaling import Scaling
from online_learner.schema.values import Output, Record, Severity, label_key


class Ask(Record):
    """Why a label is asked for, and the probability with which it was.

    `audit`: a coin drew it to be evidence. `uncertain`: active learning did. `gold`: an operator
    planted the question, with the right answer, to learn about raters.
    """

    reason: Literal["audit", "uncertain", "gold"]
    probability: float


class Shadow(Record):
    """What one set of weights answered: unexplored, unblocked, at prediction time.

    Where it `failed` there is no output; for the gate that is a wrong answer, not a missing one.
    """

    version: int
    lineage: int
    step: int
    output: Output = None
    scores: dict[str, float] = Field(default_factory=dict)
    failed: bool = False
    took_ms: float = 0.0


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
    inputs: Literal["full", "hashed", "none"] = "full"  # what is kept of what was asked
    features: dict[str, Any]  # checked at the door; for `generation` the prompt
    options: list[Option] = Field(default_factory=list)
    output: Output
    scores: dict[str, float] = Field(default_factory=dict)
    scaling: Scaling | None = None  # by which `scores` came from those of the model
    propensities: list[float] = Field(default_factory=list)
    top_k: int | None = None
    uncertainty: float = 0.0
    version: int
    lineage: int
    step: int
    role: str = "champion"
    exposure: float = 1.0  # the probability with which `role` was drawn to answer
    chances: dict[str, float] = Field(default_factory=dict)  # P(role shown | audited), exposed
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
    observed_at: str | None = None  # of an answer made elsewhere: when it was
    tags: dict[str, str] = Field(default_factory=dict)
    latency_ms: float = 0.0

    @property
    def withheld(self) -> bool:
        """Whether users saw the fallback. What was made elsewhere was shown there all the same."""
        return self.blocked and self.role != "external"

    @property
    def imported(self) -> bool:
        """Whether it was made elsewhere, and no weights of ours scored it: it tells of no version.

        Feedback on it is learned; the gate and the observers leave it alone.
        """
        return self.role == "external" and self.lineage == 0  # ours are counted from 1

    @property
    def audited(self) -> bool:
        """Whether a coin drew it to be evidence."""
        return self.ask is not None and self.ask.reason == "audit"

    def raw_scores(self) -> dict[str, float]:
        """Return the scores as the model gave them."""
        return self.scores if self.scaling is None else self.scaling.undo(self.scores)

    def context(self) -> dict[str, Any]:
        """Return what the options share, for a ranker: a chat's messages as one text."""
        return shared_context(self.features)

    def shown(self) -> list[str]:
        """Return what could be chosen from: option ids, or label keys, in the order shown."""
        if isinstance(self.output, list):
            return self.output
        if self.imported and not self.scores and self.output is not None:
            return [label_key(self.output)]
        best = sorted(self.scores, key=self.scores.__getitem__, reverse=True)
        return best[: self.top_k]


class Audit(Record):
    """The part of an audited prediction that the gatekeeper reads: who answered what.

    `shown` is the role whose answer the user saw. Where a coin decided that, `chances` has the
    probability of each role that it could have shown, given that the answer is audited. `segments`
    has the declared segments that the question belongs to.
    """

    generation: int
    roles: dict[str, Shadow]
    shown: str = "champion"
    chances: dict[str, float] = Field(default_factory=dict)
    segments: dict[str, str] = Field(default_factory=dict)


class Served(Record):
    """The weights that answered for the first time. Its id in the stream is the prediction's."""

    version: int
    lineage: int
    step: int
