"""Stage 5: turn joined records into paired scores, and keep the evidence.

Only audited predictions count: a coin drew them before anybody knew the label, and every role
answered them at that moment with weights that could not know it. They settle in the order in which
they were predicted, each once: when labelled, or as unanswered at the deadline. (By order of
arrival, or several points a prediction, an equal candidate would be promoted most of the time.)

The judge holds no connection and no clock; its state is small and goes into the store with each
commit. What is still pending is read again from the streams after a restart.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from online_learner.evidence import Duel, Trial
from online_learner.schema import Aliases, Audit, GateState, Output, Settled


def entry_order(entry: str) -> tuple[int, int]:
    """Return a stream entry id as numbers that sort as the stream does."""
    ms, _, seq = entry.partition("-")
    return int(ms), int(seq or 0)


@dataclass(slots=True)
class _Pending:
    audit: Audit
    truth: Output = None
    answered: bool = False


class Judge:
    """Settles audited predictions and feeds the duels under way.

    Parameters
    ----------
    m
        The raised null; see `evidence.raised_null`.
    deadline_s
        Seconds after which an audited prediction without a label settles as unanswered.
    """

    def __init__(self, *, m: float, deadline_s: float, state: GateState | None = None) -> None:
        state = state or GateState()
        self._m = m
        self._deadline_ms = deadline_s * 1000
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
        self.trials = {key: Trial.unpack(trial) for key, trial in state.trials.items()}
        self.settled = state.settled
        self.candidates = state.candidates
        self.promotions = state.promotions
        self.newest = state.newest
        self.answered = state.answered
        self.unanswered = state.unanswered

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
            at=now,
        )

    # --- what arrives -------------------------------------------------------------------------

    def see_audit(self, entry: str, audit: Audit) -> None:
        """Take in an audited prediction; they must come in the order of their ids."""
        if entry_order(entry) > entry_order(self.settled):
            self._pending[entry] = _Pending(audit)

    def see_signal(self, entry: str, truth: Output) -> None:
        """Take in a signal on prediction `entry`; `truth` is None where it tells no right answer.

        The last one that tells the truth stands, until the prediction settles.
        """
        pending = self._pending.get(entry)
        if pending is not None:
            pending.answered = True
            if truth is not None:
                pending.truth = truth

    @property
    def waiting(self) -> int:
        """How many audited predictions have not settled."""
        return len(self._pending)

    # --- what is compared ---------------------------------------------------------------------

    def open(self, duels: Iterable[Duel], aliases: Aliases) -> None:
        """Begin the duels that are new, and drop those that are no longer asked for."""
        wanted = {duel.key(aliases.generation): duel for duel in duels}
        for key in list(self.trials):
            if key not in wanted:
                del self.trials[key]
        for key, duel in wanted.items():
            if key not in self.trials:
                self._begin(key, duel)

    def _begin(self, key: str, duel: Duel) -> None:
        self.candidates += not duel.detector
        self.trials[key] = Trial.fresh(duel, k=max(1, self.candidates), m=self._m)

    # --- what settles -------------------------------------------------------------------------

    def settle(self, *, now: float) -> Iterator[tuple[str, Settled]]:
        """Settle pending predictions in their order, as far as possible; yields each as it settles.

        The caller may stop between two of them, to decide.
        """
        while self._pending:
            entry, pending = next(iter(self._pending.items()))
            overdue = now * 1000 - entry_order(entry)[0] > self._deadline_ms
            if pending.truth is None and not overdue:
                return
            del self._pending[entry]
            yield entry, self._settle(entry, pending)

    def _settle(self, entry: str, pending: _Pending) -> Settled:
        self.settled = entry
        self.answered += pending.answered
        self.unanswered += not pending.answered
        points: dict[str, float] = {}
        if pending.truth is not None:
            for key, trial in list(self.trials.items()):
                d = self._score(key, trial, pending)
                if d is not None:
                    points[key] = d
                    self._count(key, trial, d)
        return Settled(answered=pending.answered, points=points)

    def _score(self, key: str, trial: Trial, pending: _Pending) -> float | None:
        """Return d where both roles answered under the very key of the duel, else None."""
        roles, duel = pending.audit.roles, trial.duel
        challenger, reference = roles.get(duel.challenger), roles.get(duel.reference)
        if challenger is None or reference is None:
            return None
        if duel.key(pending.audit.generation) != key:
            return None
        return trial.score(pending.truth, challenger.output, reference.output)

    def _count(self, key: str, trial: Trial, d: float) -> None:
        limit = trial.duel.restart_after
        if limit is not None and trial.n >= limit:
            self._begin(key, trial.duel)
            trial = self.trials[key]
        trial.count(d)
