"""The champion follows the learner, step by step, with an anchor behind that pulls it back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from online_learner.evidence import Case, Duel, Trial
from online_learner.schema import Alarm, Aliases, Move, Status
from policies.promotion import words
from policies.promotion.sequential import Sequential, check_ranges

DOUBT_AUDITS = 500  # settled audits, of all answers, before a doubt is given up


@dataclass(frozen=True)
class Leash(Sequential):
    """Once the lineage has beaten the champion, the champion follows it, step by step.

    An anchor walks behind in shadow. Frozen snapshots are tested against it, and the winner becomes
    the next anchor. A change detector on anchor against champion pulls the leash: the anchor
    answers again, and the learner starts anew from it.

    Parameters
    ----------
    mean_labels_between_false_pulls
        The detector's alarm level: settled labels between false alarms, on average, or more.
    restart_after
        Settled labels after which the lineage's test may start anew, as one candidate more. It does
        once that is nearer to its goal than the test is: memory of bad times is costly.
    """

    mean_labels_between_false_pulls: float = 10_000.0
    restart_after: int = 500

    on_leash = True

    def __post_init__(self) -> None:
        """Raise `ValueError` where an argument is out of its range."""
        super().__post_init__()
        check_ranges(
            self, mean_labels_between_false_pulls=(1.0, math.inf), restart_after=(0, math.inf)
        )

    def duels(self, aliases: Aliases) -> list[Duel]:
        """Return the comparisons: the lineage's before trust, then the ladder's and the pull's.

        Before trust the only snapshots under test are those that were registered.
        """
        if not aliases.following:
            lineage = Duel("latest", "champion", margin=self.margin)
            return [lineage, *self._against("champion", aliases)]
        return [*self._against("anchor", aliases), Duel("anchor", "champion", detector=True)]

    def snapshot_due(self, aliases: Aliases, since_cut: int) -> bool:
        """Tell whether to cut a rung of the ladder; there is none before the leash."""
        return aliases.following and super().snapshot_due(aliases, since_cut)

    def goal(self, case: Case, trial: Trial) -> float:
        """Return the log e-value at which a candidate wins, or the leash is pulled."""
        if trial.duel.detector:
            return math.log(self.mean_labels_between_false_pulls)
        return super().goal(case, trial)

    def decide(self, case: Case) -> Move | None:
        """Return what should move after the newest settled audit, or None."""
        if case.aliases.following:
            pull = None if case.aliases.frozen else self._pull(case)
            return pull or super().decide(case) or self._trust(case)
        move = self._guard(case)
        if move is not None or case.aliases.frozen:
            return move
        return (
            self._admit(case)
            or self._follow(case)
            or self._promote(case)
            or self._retire(case)
            or self._restart(case)
        )

    # --- before trust -------------------------------------------------------------------------

    def _follow(self, case: Case) -> Move | None:
        trial = case.trial(self.duels(case.aliases)[0])
        if trial is None or not trial.reached(self.goal(case, trial)):
            return None
        if any(alarm.role == "latest" for alarm in (*case.alarms, *case.segment_alarms())):
            return None  # better on the whole, and not fit to serve
        verdict = self._verdict(case, trial, "follow", case.aliases.champion)
        return Move(case.aliases.followed(), verdict)

    def _restart(self, case: Case) -> Move | None:
        duel = self.duels(case.aliases)[0]
        trial = case.trial(duel)
        if trial is None or trial.answered < self.restart_after or not self._behind(case, trial):
            return None
        verdict = self._verdict(case, trial, "restart", case.aliases.champion)
        return Move(case.aliases, verdict, restart=(duel.key(case.aliases.generation),))

    def _behind(self, case: Case, trial: Trial) -> bool:
        """Tell whether a fresh test, one candidate more, would be nearer to its goal."""
        fresh = replace(trial, k=trial.k + 1)
        return self.goal(case, fresh) < self.goal(case, trial) - trial.log_e

    # --- on the leash -------------------------------------------------------------------------

    def _pull(self, case: Case) -> Move | None:
        trial = case.trial(self.duels(case.aliases)[-1])
        anchor = case.aliases.anchor
        if trial is None or anchor is None or not trial.reached(self.goal(case, trial)):
            return None
        goal = self.goal(case, trial)
        by = type(self).__name__
        verdict = words.verdict(case.aliases, trial, goal, "pull", version=anchor, by=by)
        fallen: dict[int, Status] = dict.fromkeys(case.aliases.challengers, "rejected")
        return Move(case.aliases.pulled_to(anchor), verdict, reset_to=anchor, statuses=fallen)

    def _act(self, case: Case, alarm: Alarm) -> Move | None:
        """Pull the leash at once; where only labels can tell whether it is harm, ask for them."""
        aliases = case.aliases
        if alarm.role != "champion" or not aliases.following or aliases.anchor is None:
            return super()._act(case, alarm)
        if alarm.guard == "jump":
            return None if aliases.frozen else self._doubt(case, alarm)
        if alarm.guard == "unpaired":
            return None if aliases.frozen else self._freeze(case, alarm)
        return self._back_to(case, aliases.anchor, alarm)

    def _doubt(self, case: Case, alarm: Alarm) -> Move | None:
        if case.aliases.doubt is not None:
            return None
        after = case.aliases.model_copy(
            update={"doubt": case.settled + case.waiting + DOUBT_AUDITS}
        )
        return Move(after, words.guarded(alarm, "doubt", case.aliases.champion))

    def _trust(self, case: Case) -> Move | None:
        doubt = case.aliases.doubt
        if doubt is None or case.settled < doubt:
            return None
        after = case.aliases.model_copy(update={"doubt": None})
        return Move(after, words.trusted_again(case.aliases, DOUBT_AUDITS, type(self).__name__))

    def _freeze(self, case: Case, alarm: Alarm) -> Move:
        after = case.aliases.model_copy(update={"frozen": True, "pinned": True})
        verdict = words.guarded(alarm, "freeze", case.aliases.champion)
        return Move(after, verdict, pin=not case.aliases.pinned)
