"""A comparison under way: the state of its tests, and the counts that explain it.

A trial changes only by `fold`, and only by the scalars of `Settled` entries: so it can be computed
again from the `evidence` stream.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from online_learner.evidence.betting import BettingTest, log_mean_exp
from online_learner.evidence.detector import ChangeDetector
from online_learner.evidence.exposure import ExposureTest
from online_learner.evidence.influence import Influence
from online_learner.evidence.scores import difference, same
from online_learner.evidence.segments import Segments
from online_learner.evidence.sensitivity import Sensitivity
from online_learner.evidence.terms import Duel, Terms
from online_learner.schema import Alarm, Audit, Output, Said, Settled

NAMED_RATERS = 50  # more are counted as so many
SCALE_SPAN = 100  # labels
SCALE_CUT = 10.0  # times the scale
UNEXPOSED = ("champion", "external")  # roles that answer where no coin decides


@dataclass(frozen=True, slots=True)
class Standing:
    """The signal that stands when an audit settles, and who gave it."""

    said: Said = field(default_factory=Said)
    rater: str = ""
    auditor: bool = False

    @property
    def rank(self) -> tuple[bool, int]:
        """Which of two signals stands: the higher."""
        tells = self.said.strength > 0 or self.said.reward is not None
        return self.auditor and tells, self.said.strength


@dataclass(frozen=True, slots=True)
class Reading:
    """What one settled audit says in one duel.

    Parameters
    ----------
    differ
        Whether the roles gave different answers.
    d
        The paired difference, or None where nothing is told.
    capped
        Whether the rater has had a full share of the evidence.
    reward
        Of what was shown, where a coin chose who answered.
    """

    differ: bool
    d: float | None
    capped: bool
    reward: float | None


@dataclass(slots=True)
class Responses:
    """How many audits were settled and answered, where two roles agreed and where they did not."""

    agreed: int = 0
    agreed_answered: int = 0
    differed: int = 0
    differed_answered: int = 0

    def count(self, *, differ: bool, answered: bool) -> None:
        """Add one settled audit."""
        self.agreed += not differ
        self.agreed_answered += answered and not differ
        self.differed += differ
        self.differed_answered += answered and differ

    def numbers(self) -> dict[str, float | int | None]:
        """Return the response rates, and the unanswered audits that might have decided."""
        return {
            "response_where_agreed": _share(self.agreed_answered, self.agreed),
            "response_where_differed": _share(self.differed_answered, self.differed),
            "unanswered_where_differed": self.differed - self.differed_answered,
        }


@dataclass(slots=True)
class Trial:
    """A duel under way.

    Parameters
    ----------
    k
        Number of the candidate in the stream of all candidates, from 1.
    n, wins, losses, total
        Points so far, those above and below 0, and their sum.
    scale, seen
        Running mean absolute error of the reference, for numbers: shape of the bounded loss. It
        fades over `SCALE_SPAN` labels.
    """

    duel: Duel
    k: int
    terms: Terms
    test: BettingTest | ChangeDetector
    sensitivity: Sensitivity
    exposed: ExposureTest | None
    influence: Influence
    exposed_influence: Influence
    segments: Segments
    responses: Responses = field(default_factory=Responses)
    n: int = 0
    wins: int = 0
    losses: int = 0
    total: float = 0.0
    audited: int = 0
    capped: int = 0
    scale: float = 0.0
    seen: int = 0
    raters: list[str] = field(default_factory=list)

    @classmethod
    def fresh(cls, duel: Duel, *, k: int, terms: Terms) -> Trial:
        """Start a duel without evidence."""
        test = ChangeDetector.fresh(terms.m) if duel.detector else BettingTest.fresh(terms.m)
        least, detector = terms.least_propensity, duel.detector
        exposed = ExposureTest.fresh(least, detector=detector) if least else None
        return cls(
            duel,
            k,
            terms,
            test,
            Sensitivity(terms.malice),
            exposed,
            Influence(terms.rater_share),
            Influence(terms.rater_share),
            Segments.fresh(terms.m, reverse=not duel.detector),
        )

    def name(self, generation: int) -> str:
        """Return the name of this very test: restarted, the duel is another candidate."""
        return f"{self.duel.key(generation)}#{self.k}"

    def identity(self, generation: int) -> dict[str, Any]:
        """Return all that it takes to begin this test again."""
        return {
            "name": self.name(generation),
            "duel": asdict(self.duel),
            "k": self.k,
            "terms": asdict(self.terms),
        }

    # --- what it says -------------------------------------------------------------------------

    @property
    def log_e(self) -> float:
        """Log of the e-value: the mean of both e-processes, where roles are exposed as well."""
        if self.exposed is None:
            return self.test.log_e
        return log_mean_exp([self.test.log_e, self.exposed.log_e])

    def reached(self, log_goal: float) -> bool:
        """Tell whether the evidence suffices, and comes from raters enough."""
        if isinstance(self.test, ChangeDetector):
            return self._alarmed(log_goal)
        return self.log_e >= log_goal and len(self.raters) >= self.terms.min_raters

    def _alarmed(self, log_goal: float) -> bool:
        """Tell whether a detector alarms; of two, each at half the level."""
        tests = [self.test] if self.exposed is None else [self.test, self.exposed.test]
        goal = log_goal + math.log(len(tests))
        return any(isinstance(test, ChangeDetector) and test.alarm(goal) for test in tests)

    @property
    def answered(self) -> int:
        """Settled audits on which somebody said something."""
        return self.responses.agreed_answered + self.responses.differed_answered

    @property
    def mean(self) -> float:
        """Mean difference so far, in [-1, 1]."""
        return self.total / self.n if self.n else 0.0

    def alarm(self) -> Alarm | None:
        """Return what a declared segment says, where one got significantly worse."""
        found = self.segments.worst()
        if found is None:
            return None
        role = self.duel.reference if self.duel.detector else self.duel.challenger
        return Alarm(role, "segment", f"{role} is significantly worse where {found[0]}", found[1])

    # --- reading ------------------------------------------------------------------------------

    def read(self, audit: Audit, standing: Standing) -> Reading | None:
        """Return what a settled audit says in this duel; None where a role was not asked.

        Nothing is counted yet, but for the running scale of a loss.
        """
        challenger = audit.roles.get(self.duel.challenger)
        reference = audit.roles.get(self.duel.reference)
        if challenger is None or reference is None:
            return None
        d = self._score(standing.said, challenger.output, reference.output, audit.shown)
        full = not (standing.auditor or self.influence.admits(standing.rater))
        capped = d is not None and full and self._lifted(d) != 0.0
        if not capped:
            self._rescale(standing.said.right, reference.output)
        return Reading(
            differ=_disagree(challenger.output, reference.output),
            d=d,
            capped=capped,
            reward=self._reward(standing, audit),
        )

    def _score(self, said: Said, challenger: Output, reference: Output, shown: str) -> float | None:
        """Return d, in [-1, 1]; None where nothing is told.

        What was said of an answer that a coin gave to another role speaks for that role; it is
        weighed as exposure, and makes no pair.
        """
        if shown not in UNEXPOSED:
            return None
        own = self.duel.reference == shown
        return difference(said, challenger, reference, scale=2 * self.scale, shown=own)

    def _lifted(self, d: float) -> float:
        """Return d with the margin; where there is one, ties are evidence too."""
        return min(1.0, d + self.duel.margin)

    def _rescale(self, right: Output, reference: Output) -> None:
        """Take in one more error of the reference: cut, so that no single one blinds the test."""
        if isinstance(right, float) and isinstance(reference, float):
            error = abs(right - reference)
            cut = min(error, SCALE_CUT * self.scale) if self.scale else error
            self.seen += 1
            self.scale += (cut - self.scale) / min(self.seen, SCALE_SPAN)

    def _reward(self, standing: Standing, audit: Audit) -> float | None:
        """Return the reward of what was shown, where a coin chose it; None: it does not count.

        It compares two roles only where either could have been shown. That is known before the
        draw, so to leave out the others tilts nothing.
        """
        chances, pair = audit.chances, (self.duel.challenger, self.duel.reference)
        if self.exposed is None or not all(chances.get(role, 0.0) > 0.0 for role in pair):
            return None
        free = standing.auditor or not self._sign(audit.shown)
        admitted = free or self.exposed_influence.admits(standing.rater)
        return standing.said.reward if admitted else None

    def _sign(self, shown: str) -> int:
        """Return for whom a reward speaks: +1 the challenger, -1 the reference, 0 another role."""
        return (shown == self.duel.challenger) - (shown == self.duel.reference)

    # --- counting -----------------------------------------------------------------------------

    def fold(self, name: str, settled: Settled) -> None:
        """Add one settled audit, if it was asked under this name: no other way changes a trial."""
        if name not in settled.asked:
            return
        self.audited += 1
        self.responses.count(differ=settled.asked[name], answered=settled.answered)
        self.capped += name in settled.capped
        if name in settled.points:
            self._count(settled.points[name], settled)
        if name in settled.rewards and self.exposed is not None:
            sign = self._sign(settled.shown)
            chances = settled.chances
            least = min(chances[self.duel.challenger], chances[self.duel.reference])
            reward, propensity = settled.rewards[name], chances[settled.shown]
            self.exposed.update(sign, reward, propensity, least)
            if sign:
                self._hear(self.exposed_influence, settled)

    def _count(self, d: float, settled: Settled) -> None:
        self.n += 1
        self.wins += d > 0
        self.losses += d < 0
        self.total += d
        raised = 0.0 if settled.auditor else self.terms.m
        lifted = self._lifted(d)
        if lifted or self.duel.detector:  # a detector counts every label
            self.test.update(lifted, raised)
        self.sensitivity.update(lifted, trusted=settled.auditor)
        self.segments.fold(d, raised, settled.segments)
        if lifted != 0.0:
            self._hear(self.influence, settled)

    def _hear(self, influence: Influence, settled: Settled) -> None:
        if settled.rater not in self.raters and len(self.raters) < NAMED_RATERS:
            self.raters.append(settled.rater)
        if not settled.auditor:
            influence.add(settled.rater)

    # --- keeping ------------------------------------------------------------------------------

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        state = {name: getattr(self, name) for name in _PLAIN}
        state |= {name: getattr(self, name).pack() for name in _PACKED}
        state |= {name: asdict(getattr(self, name)) for name in ("duel", "terms", "responses")}
        return state | {"exposed": self.exposed and self.exposed.pack()}

    @classmethod
    def unpack(cls, state: Mapping[str, Any]) -> Trial:
        """Return the trial that `pack` wrote."""
        duel, terms = Duel(**state["duel"]), Terms(**state["terms"])
        exposed = state["exposed"]
        return cls(
            duel=duel,
            terms=terms,
            test=(ChangeDetector if duel.detector else BettingTest).unpack(state["test"]),
            sensitivity=Sensitivity.unpack(state["sensitivity"]),
            exposed=ExposureTest.unpack(exposed) if exposed else None,
            influence=Influence.unpack(state["influence"]),
            exposed_influence=Influence.unpack(state["exposed_influence"]),
            segments=Segments.unpack(state["segments"]),
            responses=Responses(**state["responses"]),
            **{name: state[name] for name in _PLAIN},
        )


_PLAIN = (
    "k",
    "n",
    "wins",
    "losses",
    "total",
    "audited",
    "capped",
    "scale",
    "seen",
    "raters",
)
_PACKED = ("test", "sensitivity", "influence", "exposed_influence", "segments")


def _disagree(challenger: Output, reference: Output) -> bool:
    """Tell whether two roles gave different answers; rankings by their first place."""
    if isinstance(challenger, list) and isinstance(reference, list):
        return challenger[:1] != reference[:1]
    return not same(challenger, reference)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
