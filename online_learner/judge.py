"""Stage 5: turn joined records into paired scores, and keep the evidence.

Only audited predictions count: a coin drew them before anybody knew the label, and every role
answered them at that moment with weights that could not know it. They settle in the order in which
they were predicted, each once: when labelled, or as unanswered at the deadline. (By order of
arrival, or several points a prediction, an equal candidate would be promoted most of the time.)

The judge holds no connection and no clock; its state is small and goes into the store with each
commit. What is still pending is read again from the streams after a restart.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from online_learner.evidence import (
    Case,
    Duel,
    Reading,
    Standing,
    Terms,
    Trial,
    Unpaired,
    Watch,
    score,
)
from online_learner.ids import entry_order
from online_learner.schema import (
    Alarm,
    Aliases,
    Audit,
    GateState,
    Label,
    Output,
    Said,
    Settled,
    Shadow,
    label_key,
)
from online_learner.settings import GuardsSpec

LEAST_SCORE = 1e-6  # of a label, for its loss: no single one outweighs all others
LOSS_DIGITS = 5
LARGEST_ERROR = 10.0  # times the mean, at which one is cut: no single one blinds the scores


@dataclass(slots=True)
class _Pending:
    """An audit, and the signal that stands: an auditor's, then the strongest, then the latest.

    An auditor who tells nothing takes no other signal's place.
    """

    audit: Audit
    answered: bool = False
    standing: Standing = field(default_factory=Standing)

    def hear(self, heard: Standing) -> None:
        if heard.rank >= self.standing.rank:
            self.standing = heard
        self.answered = True

    def decided(self, *, exposed: bool) -> bool:
        """Tell whether it need not wait for a better signal: who says "wrong" may correct it yet.

        Parameters
        ----------
        exposed
            Whether rewards are evidence.
        """
        said = self.standing.said
        rewarded = exposed and said.reward is not None and said.wrong is None
        return said.right is not None or said.liked or rewarded


class Judge:
    """Settles audited predictions and feeds the duels under way.

    Parameters
    ----------
    terms
        What the evidence is subject to.
    deadline_s
        Seconds after which an audited prediction without a label settles as unanswered.
    names
        By what name a label is kept; None: the model has no labels, and none is kept.
    """

    def __init__(
        self,
        *,
        terms: Terms,
        deadline_s: float,
        state: GateState | None = None,
        names: Callable[[Label], str] | None = None,
    ) -> None:
        state = state or GateState()
        self._names = names
        self._terms = terms
        self._deadline_ms = deadline_s * 1000
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
        self.trials = {key: Trial.unpack(trial) for key, trial in state.trials.items()}
        self.watch = Watch.unpack(state.watch) if state.watch else Watch()
        self.watch.name = names or label_key
        self.unpaired = Unpaired.unpack(state.unpaired) if state.unpaired else Unpaired()
        self.watched = state.watched
        self.settled = state.settled
        self.candidates = state.candidates
        self.promotions = state.promotions
        self.newest = state.newest
        self.answered = state.answered
        self.unanswered = state.unanswered
        self._errors = state.errors
        self._mean_error = state.mean_error

    def state(self, *, now: float) -> GateState:
        """Return all that has to survive a restart."""
        return GateState(
            settled=self.settled,
            candidates=self.candidates,
            promotions=self.promotions,
            newest=self.newest,
            answered=self.answered,
            unanswered=self.unanswered,
            trials={key: trial.pack() for key, trial in self.trials.items()},
            watch=self.watch.pack(),
            unpaired=self.unpaired.pack(),
            watched=self.watched,
            errors=self._errors,
            mean_error=self._mean_error,
            at=now,
        )

    # --- what arrives -------------------------------------------------------------------------

    def see_audit(self, entry: str, audit: Audit) -> None:
        """Take in an audited prediction; they must come in the order of their ids."""
        if entry_order(entry) > entry_order(self.settled):
            self._pending[entry] = _Pending(audit)
        if entry_order(entry) > entry_order(self.watched):
            self.watch.see(audit)
            self.watched = entry

    def see_signal(
        self,
        entry: str,
        said: Said,
        *,
        rater: str,
        auditor: bool = False,
        at_ms: float = 0.0,
    ) -> None:
        """Take in a signal on prediction `entry`; after the deadline it is too late.

        Parameters
        ----------
        rater
            Who says it; any name that does not change.
        at_ms
            When it was said, in milliseconds since 1970.
        """
        pending = self._pending.get(entry)
        if pending is not None and at_ms - entry_order(entry)[0] <= self._deadline_ms:
            pending.hear(Standing(said, rater, auditor))

    @property
    def waiting(self) -> int:
        """How many audited predictions have not settled."""
        return len(self._pending)

    # --- what is compared ---------------------------------------------------------------------

    def open(self, duels: Iterable[Duel], aliases: Aliases) -> None:
        """Begin the duels that are new, and drop those that are no longer asked for."""
        wanted = {duel.key(aliases.generation): duel for duel in duels}
        if not self.trials.keys() & wanted.keys():  # another reference: what is usual begins anew
            self.unpaired = Unpaired()
        for key in self.trials.keys() - wanted.keys():
            del self.trials[key]
        for key, duel in wanted.items():
            if key not in self.trials:
                self._begin(key, duel)

    def restart(self, keys: Iterable[str]) -> None:
        """Begin tests anew, each as a further candidate: memory of bad times is costly."""
        for key in keys:
            self._begin(key, self.trials[key].duel)

    def _begin(self, key: str, duel: Duel) -> None:
        self.candidates += not duel.detector
        self.trials[key] = Trial.fresh(duel, k=max(1, self.candidates), terms=self._terms)

    def alarms(self, aliases: Aliases, guards: GuardsSpec) -> list[Alarm]:
        """Return what the guards find; they need no label."""
        found = self.unpaired.alarm() if aliases.following else None
        unpaired = [] if found is None else [found]
        return [*self.watch.alarms(aliases, guards), *unpaired]

    def case(
        self, aliases: Aliases, candidates: Sequence[int], alarms: Sequence[Alarm] = ()
    ) -> Case:
        """Return all that a decision may rest on, as it is now."""
        return Case(
            aliases,
            self.trials,
            candidates,
            self.promotions,
            settled=self.answered + self.unanswered,
            waiting=self.waiting,
            alarms=alarms,
        )

    # --- what settles -------------------------------------------------------------------------

    def settle(self, *, now: float) -> Iterator[tuple[str, Settled]]:
        """Settle pending predictions in their order, as far as possible; yields each as it settles.

        The caller may stop between two of them, to decide.

        Parameters
        ----------
        now
            Up to when all signals have been seen, in seconds. The clock is not enough: after an
            outage labels wait in the stream, and those that came late would be lost.
        """
        while self._pending:
            entry, pending = next(iter(self._pending.items()))
            overdue = now * 1000 - entry_order(entry)[0] > self._deadline_ms
            if not overdue and not pending.decided(exposed=self._terms.least_propensity > 0):
                return
            del self._pending[entry]
            yield entry, self._settle(entry, pending)

    def _settle(self, entry: str, pending: _Pending) -> Settled:
        self.settled = entry
        self.answered += pending.answered
        self.unanswered += not pending.answered
        settled = self._settled(pending)
        for trial in self.trials.values():
            trial.fold(trial.name(pending.audit.generation), settled)
        champion = pending.audit.roles.get("champion")
        if champion is not None and pending.audit.shown == "champion":
            self.unpaired.see(pending.standing.said, champion.output)
        return settled

    def _settled(self, pending: _Pending) -> Settled:
        """Return what a prediction says, as scalars; nothing is counted yet."""
        audit, standing = pending.audit, pending.standing
        readings = dict(self._readings(audit, standing))
        told = {name: r.d for name, r in readings.items() if r.d is not None and not r.capped}
        rewarded = {name: r.reward for name, r in readings.items() if r.reward is not None}
        scores = self._scores(audit, standing.said)
        return Settled(
            answered=pending.answered,
            rater=standing.rater,
            auditor=standing.auditor,
            asked={name: reading.differ for name, reading in readings.items()},
            points=told,
            capped=[name for name, reading in readings.items() if reading.capped],
            shown=audit.shown,
            chances=audit.chances,
            rewards=rewarded,
            segments=audit.segments,
            generation=audit.generation,
            scores=scores,
            confidence=_confidence(audit) if "champion" in scores else None,
            **self._labels(audit, standing.said.right),
        )

    def _labels(self, audit: Audit, right: Output) -> dict[str, Any]:
        """Return the right label, each role's own, and its loss; nothing where none is told."""
        if self._names is None or right is None or isinstance(right, float | list):
            return {}
        key, names = label_key(right), self._names
        outputs = {
            role: names(shadow.output)
            for role, shadow in audit.roles.items()
            if shadow.output is not None and not isinstance(shadow.output, float | list)
        }
        losses = {role: _loss(shadow, key) for role, shadow in audit.roles.items()}
        told = {role: loss for role, loss in losses.items() if loss is not None}
        return {"right": names(right), "outputs": outputs, "losses": told}

    def _scores(self, audit: Audit, said: Said) -> dict[str, float]:
        """Return how good the answer of each role is, where that is told.

        The error of a number counts as a share of twice the champion's mean error so far.
        """
        outputs = {role: shadow.output for role, shadow in audit.roles.items()}
        shown, scale = outputs.get(audit.shown), 2 * self._mean_error
        found = {role: score(said, output, shown, scale=scale) for role, output in outputs.items()}
        self._take_error(said.right, outputs.get("champion"))
        return {role: value for role, value in found.items() if value is not None}

    def _take_error(self, right: Output, champion: Output) -> None:
        if isinstance(right, float) and isinstance(champion, float):
            error = abs(right - champion)
            cut = min(error, LARGEST_ERROR * self._mean_error) if self._mean_error else error
            self._errors += 1
            self._mean_error += (cut - self._mean_error) / self._errors

    def _readings(self, audit: Audit, standing: Standing) -> Iterator[tuple[str, Reading]]:
        """Yield what each duel reads, where it was logged under the very key of the duel."""
        for key, trial in self.trials.items():
            if trial.duel.key(audit.generation) == key:
                reading = trial.read(audit, standing)
                if reading is not None:
                    yield trial.name(audit.generation), reading


def _loss(shadow: Shadow, right: str) -> float | None:
    """Return -log of the score of the right label; None where there are no scores.

    A role that failed has the largest loss: for the gate, that is a wrong answer.
    """
    if not shadow.scores and not shadow.failed:
        return None
    return round(-math.log(max(LEAST_SCORE, min(1.0, shadow.scores.get(right, 0.0)))), LOSS_DIGITS)


def _confidence(audit: Audit) -> float | None:
    """Return how sure the champion was of its label; None where it gave none."""
    champion = audit.roles["champion"]
    if champion.output is None or isinstance(champion.output, float | list):
        return None
    return champion.scores.get(label_key(champion.output))
