"""What was learned, and what is kept of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pydantic import Field

from online_learner.schema.values import Record

Status: TypeAlias = Literal["candidate", "blessed", "rejected"]


@dataclass(slots=True)
class Weighed:
    """What one lesson weighed: by the table of signals, in the end, and by what in between.

    `factors` are those of the observers, by name. What they do not account for is validation's.
    """

    raw: float
    given: float
    factors: dict[str, float] = field(default_factory=dict)


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
    set_aside: dict[str, str] = Field(default_factory=dict)  # entries not learned -> why
    digest: str
    state_digest: str | None = None
    reset_to: int | None = None  # version that the weights were reset to, instead of learning
    released: list[str] = Field(default_factory=list)  # earlier entries that this step learned
    tables: bool = False  # it took in the tables of the entry `to`, and learned nothing
    weighed: dict[str, Weighed] = Field(default_factory=dict)  # by entry, where it was corrected
    retracted: list[str] = Field(default_factory=list)  # entries taken back; still in the weights
    unlearned: list[str] = Field(default_factory=list)  # entries that are in the weights no more
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
    differs: int | None = None  # step from which on the weights are not those recorded
    tainted: bool = False  # it was learned on from a version that is
    pid: int = 0
    at: float = 0.0


class Registered(Record):
    """Where weights are from that were trained elsewhere: who brought them, and in which file."""

    by: str
    note: str = ""
    sha256: str  # of the file


class Trained(Record):
    """Where weights are from that were trained anew: the dataset, the job, and what was tried.

    `scores` are those on the part of the dataset that was held out, by configuration.
    """

    dataset: str  # the id of the dataset's version
    job: str
    parent: int | None = None  # the version that stood when the job began
    configuration: dict[str, Any] = Field(default_factory=dict)
    scores: dict[str, float] = Field(default_factory=dict)
    because: str = ""  # by hand, on schedule, after so many signals, an alarm


class Version(Record):
    """A kept snapshot. Numbers count snapshots in the order in which they were cut.

    One that was registered has learned nothing of the stream, and stands at its beginning. One that
    had learned what was taken back later is learned anew without it, under the same number, and
    `unlearned` counts how many signals that were; where it cannot be, it is `tainted`, and so is
    what is learned on from there.
    """

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
    registered: Registered | None = None
    trained: Trained | None = None
    unlearned: int = 0
    tainted: bool = False

    @property
    def brought(self) -> bool:
        """Whether it did not come of the learner: it was registered, or trained anew."""
        return self.registered is not None or self.trained is not None
