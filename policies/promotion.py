"""When new weights may answer. Chosen in the configuration by import path, with its arguments.

    promotion: {policy: policies.promotion:Leash, alpha: 0.01}

A policy says which roles to compare (`duels`), when the learner keeps a snapshot (`snapshot_due`),
and, after every settled audit, what should move (`decide`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from online_learner.evidence import Case, Duel, Trial, labels_to_go, log_threshold
from online_learner.schema import Action, Aliases, Move, Status, Verdict


@dataclass(frozen=True)
class Sequential:
    """Snapshots, each frozen, each tested against the champion until it wins or patience ends.

    Parameters
    ----------
    alpha
        Bound on the probability that one candidate that is not better is ever promoted.
    gamma
        How much likelier one outcome is to be labelled than the other inside the audits.
    snapshot_every
        Learned signals between snapshots.
    max_open
        Challengers under test at once.
    patience
        Settled labels after which a challenger that has not won is retired.
    """

    alpha: float = 0.01
    gamma: float = 1.5
    snapshot_every: int = 200
    max_open: int = 3
    patience: int = 1000

    trusted_at_once = False

    def duels(self, aliases: Aliases) -> list[Duel]:
        """Return the comparisons to make: every challenger against the champion."""
        return [Duel(f"challenger:{n}", "champion", version=n) for n in aliases.challengers]

    def snapshot_due(self, aliases: Aliases, since_cut: int) -> bool:
        """Tell whether a snapshot should be cut after `since_cut` learned signals."""
        room = len(aliases.challengers) < self.max_open
        return since_cut >= self.snapshot_every and room and not aliases.frozen

    def decide(self, case: Case) -> Move | None:
        """Return what should move after the newest settled audit, or None."""
        if case.aliases.frozen:
            return None
        return self._admit(case) or self._promote(case) or self._retire(case)

    def goal(self, case: Case, trial: Trial) -> float:
        """Return the log e-value at which this candidate wins."""
        return log_threshold(self.alpha, k=trial.k, promotions=case.promotions)

    def _admit(self, case: Case) -> Move | None:
        if not case.candidates:
            return None
        room = self.max_open - len(case.aliases.challengers)
        admitted = tuple(case.candidates[:room]) if room > 0 else ()
        refused = [n for n in case.candidates if n not in admitted]
        challengers = case.aliases.challengers + admitted
        return Move(
            case.aliases.model_copy(update={"challengers": challengers}),
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
            if trial.log_e >= self.goal(case, trial):
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
        verdict = self._verdict(case, trial, "bless" if before.following else "promote", winner)
        statuses: dict[int, Status] = {winner: "blessed"}
        statuses |= dict.fromkeys(fallen, "rejected")
        return Move(after, verdict, statuses=statuses)

    def _retire(self, case: Case) -> Move | None:
        for version, trial in self._ladder(case):
            if trial.n >= self.patience:
                challengers = tuple(n for n in case.aliases.challengers if n != version)
                return Move(
                    case.aliases.model_copy(update={"challengers": challengers}),
                    self._verdict(case, trial, "reject", version),
                    statuses={version: "rejected"},
                )
        return None

    def _verdict(self, case: Case, trial: Trial, action: Action, version: int) -> Verdict:
        reference = case.aliases.reference
        goal = self.goal(case, trial)
        more = labels_to_go(trial.log_e, goal, trial.n)
        sentence = {
            "promote": f"Version {version} answers from now on: it beat version {reference}",
            "bless": f"Version {version} is blessed as the new anchor: it beat version {reference}",
            "follow": f"The champion follows the learner from now on: it beat version {reference}",
            "reject": f"Version {version} is retired: it did not beat version {reference}",
        }[action]
        sentence += f" by {trial.wins} wins to {trial.losses} losses in {trial.n} audited answers"
        sentence += (
            f" ({100 * trial.mean:+.1f} points; e-value {_e(trial.log_e)}, needed {_e(goal)})."
        )
        if action == "reject" and more is not None:
            sentence += f" About {more} more labels would have decided it."
        return Verdict(
            action=action,
            by=type(self).__name__,
            sentence=sentence,
            version=version,
            reference=reference,
            numbers=numbers(trial, goal) | {"alpha": self.alpha, "gamma": self.gamma},
        )


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
        Settled labels after which the lineage's test starts anew: memory of bad times is costly.
    """

    mean_labels_between_false_pulls: float = 10_000.0
    restart_after: int = 2000

    def duels(self, aliases: Aliases) -> list[Duel]:
        """Return the comparisons: the lineage's before trust, then the ladder's and the pull's."""
        if not aliases.following:
            return [Duel("latest", "champion", restart_after=self.restart_after)]
        ladder = [Duel(f"challenger:{n}", "anchor", version=n) for n in aliases.challengers]
        return [*ladder, Duel("anchor", "champion", detector=True)]

    def snapshot_due(self, aliases: Aliases, since_cut: int) -> bool:
        """Tell whether to cut a rung of the ladder; there is none before the leash."""
        return aliases.following and super().snapshot_due(aliases, since_cut)

    def decide(self, case: Case) -> Move | None:
        """Return what should move after the newest settled audit, or None."""
        if case.aliases.frozen:
            return None
        if not case.aliases.following:
            return self._admit_none(case) or self._follow(case)
        return self._pull(case) or super().decide(case)

    def _admit_none(self, case: Case) -> Move | None:
        if not case.candidates:
            return None
        return Move(case.aliases, statuses=dict.fromkeys(case.candidates, "rejected"))

    def _follow(self, case: Case) -> Move | None:
        trial = case.trial(self.duels(case.aliases)[0])
        if trial is None or trial.log_e < self.goal(case, trial):
            return None
        verdict = self._verdict(case, trial, "follow", case.aliases.champion)
        return Move(case.aliases.followed(), verdict)

    def _pull(self, case: Case) -> Move | None:
        trial = case.trial(self.duels(case.aliases)[-1])
        goal = math.log(self.mean_labels_between_false_pulls)
        anchor = case.aliases.anchor
        if trial is None or anchor is None or trial.log_e < goal:
            return None
        verdict = Verdict(
            action="pull",
            by=type(self).__name__,
            sentence=(
                f"The leash is pulled: version {anchor} answers again and the learner starts anew "
                f"from it. On {trial.n} audited answers it won {trial.wins} and lost "
                f"{trial.losses} against what was served."
            ),
            version=anchor,
            reference=anchor,
            numbers=numbers(trial, goal),
        )
        fallen: dict[int, Status] = dict.fromkeys(case.aliases.challengers, "rejected")
        return Move(case.aliases.pulled_to(anchor), verdict, reset_to=anchor, statuses=fallen)


@dataclass(frozen=True)
class Always(Sequential):
    """Every step is served at once, without evidence: for tests, and for the brave."""

    trusted_at_once = True

    def duels(self, aliases: Aliases) -> list[Duel]:
        """Return no comparison."""
        return []

    def snapshot_due(self, aliases: Aliases, since_cut: int) -> bool:
        """Cut none."""
        return False

    def decide(self, case: Case) -> Move | None:
        """Follow the learner from the start."""
        before = case.aliases
        if before.frozen or before.following:
            return None
        sentence = "The champion follows the learner from now on: the policy asks for no evidence."
        verdict = Verdict(action="follow", by="Always", sentence=sentence, version=before.champion)
        return Move(before.followed(), verdict)


@dataclass(frozen=True)
class Manual(Sequential):
    """Snapshots are cut and compared, and an operator decides."""

    def decide(self, case: Case) -> Move | None:
        """Admit new snapshots, the oldest giving way; promote nothing."""
        if case.aliases.frozen or not case.candidates:
            return None
        queue = (*case.aliases.challengers, *case.candidates)
        kept, dropped = queue[-self.max_open :], queue[: -self.max_open]
        return Move(
            case.aliases.model_copy(update={"challengers": kept}),
            statuses=dict.fromkeys(dropped, "rejected"),
        )

    def snapshot_due(self, aliases: Aliases, since_cut: int) -> bool:
        """Cut one every `snapshot_every` learned signals, however many are open."""
        return since_cut >= self.snapshot_every and not aliases.frozen


def numbers(trial: Trial, goal: float) -> dict[str, float | int | str | None]:
    """Return the numbers behind a decision."""
    return {
        "n": trial.n,
        "wins": trial.wins,
        "losses": trial.losses,
        "mean": trial.mean,
        "log_e": trial.log_e,
        "log_e_needed": goal,
        "candidate": trial.k,
    }


def _e(log_e: float) -> str:
    return f"{math.exp(min(log_e, 700.0)):.3g}"
