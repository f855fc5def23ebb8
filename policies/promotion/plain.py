"""Promotion without a test: always, or by hand."""

from __future__ import annotations

from dataclasses import dataclass

from online_learner.evidence import Case, Duel
from online_learner.schema import Aliases, Move, Verdict
from policies.promotion import words
from policies.promotion.sequential import Sequential


@dataclass(frozen=True)
class Always(Sequential):
    """Every step is served at once, without evidence: for tests, and for the brave."""

    trusted_at_once = True
    on_leash = True

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

    waits_for_room = False  # the oldest gives way

    def decide(self, case: Case) -> Move | None:
        """Admit new snapshots, the oldest giving way; promote nothing."""
        if case.aliases.frozen:
            return None
        if case.aliases.following:
            return self._unleash(case)
        if not case.candidates:
            return None
        queue = (*case.aliases.challengers, *case.candidates)
        kept, dropped = queue[-self.max_open :], queue[: -self.max_open]
        admitted = [n for n in kept if n in case.candidates]
        return Move(
            case.aliases.model_copy(update={"challengers": kept}),
            words.admitted(admitted, dropped, case.aliases.reference),
            statuses=dict.fromkeys(dropped, "rejected"),
        )

    def snapshot_due(self, aliases: Aliases, since_cut: int) -> bool:
        """Cut one every `snapshot_every` learned signals, however many are open."""
        return since_cut >= self.snapshot_every and not aliases.frozen
