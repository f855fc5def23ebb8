"""What a policy decides on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from online_learner.evidence.terms import Duel
from online_learner.evidence.trial import Trial
from online_learner.schema import Alarm, Aliases


@dataclass(frozen=True, slots=True)
class Case:
    """All that a promotion may rest on.

    Parameters
    ----------
    trials
        The tests under way, by `Duel.key` of the generation that is.
    candidates
        Versions that were cut and have not been looked at.
    settled, waiting
        Audits that have settled, ever, and that have not yet.
    alarms
        What the guards found.
    """

    aliases: Aliases
    trials: Mapping[str, Trial]
    candidates: Sequence[int]
    promotions: int
    settled: int = 0
    waiting: int = 0
    alarms: Sequence[Alarm] = ()

    def trial(self, duel: Duel) -> Trial | None:
        """Return the state of a duel under the aliases as they are."""
        return self.trials.get(duel.key(self.aliases.generation))

    def segment_alarms(self) -> list[Alarm]:
        """Return what declared segments say, of the trials under way."""
        found = (trial.alarm() for trial in self.trials.values())
        return [alarm for alarm in found if alarm is not None]
