"""Frozen snapshots, tested against the champion until one wins."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from online_learner.evidence import Case, Duel, Trial, log_threshold, log_threshold_spent
from online_learner.schema import Action, Alarm, Aliases, Move, Status, Verdict
from policies.promotion import words


def check_ranges(policy: object, **ranges: tuple[float, float]) -> None:
    """Raise `ValueError` where an argument is no number between its ends, both excluded."""
    for name, (low, high) in ranges.items():
        value = getattr(policy, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
            ends = f"between {max(0, low):g} and {high:g}" if high < math.inf else f"above {low:g}"
            raise ValueError(f"`{name}` must be a number {ends}, not {value!r}")


@dataclass(frozen=True)
class Sequential:
    """Snapshots, each frozen, each tested against the champion until it wins or patience ends.

    Parameters
    ----------
    alpha
        Bound on the probability that one candidate that is not better is ever promoted. Over an
        endless stream of candidates at most `fdr` of the promotions are wrong.
    strict
        Spend `alpha` over all candidates instead: the probability that any bad one is ever
        promoted is at most `alpha`. It takes more labels with each candidate.
    margin
        How much worse, in points of accuracy or loss from 0 to 1, a challenger may be and still
        win: where newer weights are wanted unless they do harm.
    snapshot_every
        Learned signals between snapshots.
    max_open
        Challengers under test at once.
    patience
        Settled labels after which a challenger that has not won is retired.
    """

    alpha: float = 0.01
    fdr: float = 0.05
    strict: bool = False
    margin: float = 0.0
    snapshot_every: int = 200
    max_open: int = 3
    patience: int = 1000

    trusted_at_once = False
    waits_for_room = True  # what is brought while as many are under test as may be
    on_leash = False  # whether the champion may follow the learner

    def __post_init__(self) -> None:
        """Raise `ValueError` where an argument is out of its range."""
        check_ranges(
            self,
            alpha=(0.0, 1.0),
            fdr=(0.0, 1.0),
            margin=(-1e-9, 1.0),
            snapshot_every=(0, math.inf),
            max_open=(0, math.inf),
            patience=(0, math.inf),
        )

    def duels(self, aliases: Aliases) -> list[Duel]:
        """Return the comparisons to make: every challenger against the champion."""
        return self._against("champion", aliases)

    def _against(self, reference: str, aliases: Aliases) -> list[Duel]:
        margin = self.margin
        return [
            Duel(f"challenger:{n}", reference, version=n, margin=margin)
            for n in aliases.challengers
        ]

    def snapshot_due(self, aliases: Aliases, since_cut: int) -> bool:
        """Tell whether a snapshot should be cut after `since_cut` learned signals."""
        room = len(aliases.challengers) < self.max_open
        return since_cut >= self.snapshot_every and room and not aliases.frozen

    def decide(self, case: Case) -> Move | None:
        """Return what should move after the newest settled audit, or None.

        Guards act while nothing else does: a freeze keeps what answers, unless it fails.
        """
        move = self._guard(case)
        if move is not None or case.aliases.frozen:
            return move
        if case.aliases.following and not self.on_leash:
            return self._unleash(case)
        return self._admit(case) or self._promote(case) or self._retire(case)

    def goal(self, case: Case, trial: Trial) -> float:
        """Return the log e-value at which this candidate wins."""
        if self.strict:
            return log_threshold_spent(self.alpha, k=trial.k)
        return log_threshold(self.alpha, k=trial.k, promotions=case.promotions, fdr=self.fdr)

    # --- what guards found --------------------------------------------------------------------

    def _guard(self, case: Case) -> Move | None:
        for alarm in (*case.alarms, *case.segment_alarms()):
            move = self._act(case, alarm)
            if move is not None:
                return move
        return None

    def _act(self, case: Case, alarm: Alarm) -> Move | None:
        """Retire a challenger at once; go back from a champion to the one before it."""
        aliases = case.aliases
        for version in aliases.challengers:
            if alarm.role == f"challenger:{version}":
                return self._without(case, version, words.guarded(alarm, "reject", version))
        if alarm.role == "champion" and not aliases.following and aliases.previous is not None:
            return self._back_to(case, aliases.previous, alarm)
        return None

    def _back_to(self, case: Case, version: int, alarm: Alarm) -> Move:
        fallen: dict[int, Status] = dict.fromkeys(case.aliases.challengers, "rejected")
        verdict = words.guarded(alarm, "pull", version)
        return Move(case.aliases.pulled_to(version), verdict, reset_to=version, statuses=fallen)

    def _unleash(self, case: Case) -> Move:
        """Go back to the anchor: another policy left the champion following the learner."""
        aliases, by = case.aliases, type(self).__name__
        anchor = aliases.reference
        fallen: dict[int, Status] = dict.fromkeys(aliases.challengers, "rejected")
        verdict = words.unleashed(anchor, by)
        return Move(aliases.pulled_to(anchor), verdict, reset_to=anchor, statuses=fallen)

    # --- what the evidence says ---------------------------------------------------------------

    def _admit(self, case: Case) -> Move | None:
        if not case.candidates:
            return None
        room = self.max_open - len(case.aliases.challengers)
        admitted = tuple(case.candidates[:room]) if room > 0 else ()
        refused = [n for n in case.candidates if n not in admitted]
        challengers = case.aliases.challengers + admitted
        return Move(
            case.aliases.model_copy(update={"challengers": challengers}),
            words.admitted(admitted, refused, case.aliases.reference),
            statuses=dict.fromkeys(refused, "rejected"),
        )

    def _ladder(self, case: Case) -> Iterator[tuple[int, Trial]]:
        """Yield the snapshots under test, with the state of their duels."""
        for duel in self.duels(case.aliases):
            trial = case.trial(duel)
            if trial is not None and duel.version is not None:
                yield duel.version, trial

    def _promote(self, case: Case) -> Move | None:
        for version, trial in self._ladder(case):
            if trial.reached(self.goal(case, trial)):
                return self._crown(case, version, trial)
        return None

    def _crown(self, case: Case, winner: int, trial: Trial) -> Move:
        """Put the winner in the reference's place; later challengers are tested against it anew."""
        before = case.aliases
        survivors = tuple(n for n in before.challengers if n > winner)
        fallen = [n for n in before.challengers if n < winner]
        after = before.model_copy(
            update={
                "champion": winner,
                "previous": before.reference,
                "anchor": winner if before.following else None,
                "challengers": survivors,
                "generation": before.generation + 1,
                "trusted": True,
            }
        )
        action: Action = "bless" if before.following else "promote"
        statuses: dict[int, Status] = {winner: "blessed"}
        statuses |= dict.fromkeys(fallen, "rejected")
        return Move(after, self._verdict(case, trial, action, winner), statuses=statuses)

    def _retire(self, case: Case) -> Move | None:
        for version, trial in self._ladder(case):
            if trial.answered >= self.patience:
                return self._without(case, version, self._verdict(case, trial, "reject", version))
        return None

    def _without(self, case: Case, version: int, verdict: Verdict) -> Move:
        """Take a challenger out of the running."""
        challengers = tuple(n for n in case.aliases.challengers if n != version)
        after = case.aliases.model_copy(update={"challengers": challengers})
        return Move(after, verdict, statuses={version: "rejected"})

    def _verdict(self, case: Case, trial: Trial, action: Action, version: int) -> Verdict:
        goal, by = self.goal(case, trial), type(self).__name__
        verdict = words.verdict(case.aliases, trial, goal, action, version=version, by=by)
        rule = {
            "alpha": self.alpha,
            "fdr": self.fdr,
            "strict": self.strict,
            "promotions": case.promotions,
        }
        return verdict.model_copy(update={"numbers": verdict.numbers | rule})
