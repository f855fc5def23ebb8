"""Who answers, who is tested, what was decided, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pydantic import Field

from online_learner.schema.learning import Status
from online_learner.schema.values import Record

Action: TypeAlias = Literal[
    "admit",
    "restart",
    "register",
    "promote",
    "follow",
    "bless",
    "reject",
    "doubt",
    "trust",
    "pull",
    "rollback",
    "freeze",
    "thaw",
    "forget",
]


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
    doubt: int | None = None  # everything is audited until so many audits have settled
    frozen: bool = False
    pinned: bool = False  # frozen while following: the pinned step answers
    rebuilt: int = 0  # how often kept versions were learned anew, without what was taken back

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
                "doubt": None,
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
                "doubt": None,
            }
        )


class Verdict(Record):
    """A decision, with the numbers behind it and a sentence that says why."""

    action: Action
    by: str  # policy, or the operator's key
    sentence: str
    guard: str | None = None  # that fired
    test: dict[str, Any] | None = None  # the test that it rests on: name, duel, k, terms
    settled: str = ""  # the last settled audit when it was decided
    offset: str = ""  # where the gatekeeper stood in the feedback stream
    version: int | None = None
    reference: int | None = None
    numbers: dict[str, float | int | str | None] = Field(default_factory=dict)
    epoch: int = 0
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Alarm:
    """What a guard found wrong with a role: no test, and no waiting for labels.

    Parameters
    ----------
    guard
        `failure`, `collapse`, `latency`, `jump`, `segment` or `unpaired`.
    """

    role: str
    guard: str
    sentence: str
    numbers: dict[str, float | int | str | None] = field(default_factory=dict)


class Settled(Record):
    """One settled audit as scalars. Its id in the stream is the prediction's.

    Of what users sent it has nothing but the values of declared segments: raters are a keyed hash,
    and so is a label that the configuration does not declare (see `naming`).

    From these entries alone every test can be computed again; see `recheck`.
    """

    answered: bool
    rater: str = ""  # a keyed hash of who gave the signal that stands
    auditor: bool = False
    asked: dict[str, bool] = Field(default_factory=dict)  # test -> whether its roles disagreed
    points: dict[str, float] = Field(default_factory=dict)  # test -> d, where it counted
    capped: list[str] = Field(default_factory=list)  # tests in which the rater has had a full share
    shown: str = "champion"
    chances: dict[str, float] = Field(default_factory=dict)
    rewards: dict[str, float] = Field(default_factory=dict)  # test -> reward of what was shown
    segments: dict[str, str] = Field(default_factory=dict)
    generation: int = 0  # in which it was asked
    scores: dict[str, float] = Field(default_factory=dict)  # role -> how good its answer is, 0 to 1
    confidence: float | None = None  # of the champion in its answer, where it has a score
    right: str | None = None  # the right label, where one was told
    outputs: dict[str, str] = Field(default_factory=dict)  # role -> its label
    losses: dict[str, float] = Field(default_factory=dict)  # role -> -log of its score of `right`


class GateState(Record):
    """The gatekeeper's state as of the last settled audit."""

    settled: str = "0-0"
    candidates: int = 0  # tests that were ever begun
    promotions: int = 0
    newest: int = 0  # the newest version that was looked at
    answered: int = 0
    unanswered: int = 0
    trials: dict[str, Any] = Field(default_factory=dict)
    watch: dict[str, Any] = Field(default_factory=dict)
    unpaired: dict[str, Any] = Field(default_factory=dict)
    watched: str = "0-0"  # the last audit that the guards have seen
    errors: int = 0  # of the champion, for numbers
    mean_error: float = 0.0
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Move:
    """What a policy wants done: new aliases, and the verdict that explains them."""

    aliases: Aliases
    verdict: Verdict | None = None
    reset_to: int | None = None  # version that the learner restarts from
    statuses: dict[int, Status] = field(default_factory=dict)
    pin: bool = False
    restart: tuple[str, ...] = ()  # keys of tests that begin anew, as further candidates
