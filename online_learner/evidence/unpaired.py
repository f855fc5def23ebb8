"""Where only "wrong" is said, and never what is right: an alarm on the share of it alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from online_learner.evidence.detector import ChangeDetector
from online_learner.evidence.scores import same
from online_learner.schema import Alarm, Output, Said

BASE = 200  # judged answers that tell what is usual
LOG_GOAL = math.log(10_000.0)  # judged answers between false alarms, on average, or more


@dataclass(slots=True)
class Unpaired:
    """A watch on what is served, without another answer to compare it with.

    With more than two labels a thumbs-down does not say which one is right, so no difference to the
    anchor can be told, and no pull. Then the share of answers that were judged wrong is watched by
    itself: usual is what it was in the first `BASE`, by its upper bound (three standard errors),
    and a Shiryaev-Roberts detector looks for more. It cannot tell a worse model from a harder
    world; so it asks for a person.

    Parameters
    ----------
    seen, wrong
        Judged answers of the base, and how many were wrong.
    blind, told
        Answers judged wrong since then, without and with the right one.
    """

    seen: int = 0
    wrong: int = 0
    blind: int = 0
    told: int = 0
    detector: ChangeDetector = field(default_factory=lambda: ChangeDetector.fresh(0.0))

    def see(self, said: Said, output: Output) -> None:
        """Take in what was said of an answer that was served."""
        if said.right is None and said.wrong is None:
            return
        bad = said.right is None or not same(said.right, output)
        if self.seen < BASE:
            self.seen += 1
            self.wrong += bad
            return
        self.blind += said.right is None
        self.told += bad and said.right is not None
        if self.usual < 1.0:  # where nearly all that is said is "wrong", there is nothing to watch
            self.detector.update(bad - self.usual)

    @property
    def usual(self) -> float:
        """The largest share of wrong answers that still counts as usual."""
        share = self.wrong / BASE
        return share + 3.0 * math.sqrt(share * (1.0 - share) / BASE) + 1.0 / BASE

    def alarm(self) -> Alarm | None:
        """Return the alarm, where most of the wrong answers were not put right."""
        if self.seen < BASE or self.blind <= self.told or not self.detector.alarm(LOG_GOAL):
            return None
        said = (
            f"More answers are judged wrong than the {self.usual:.0%} that were usual at most, and "
            "nobody says what is right, so no other version can be compared"
        )
        numbers: dict[str, float | int | str | None] = {
            "usual": self.usual,
            "blind": self.blind,
            "log_e": self.detector.log_e,
            "log_e_needed": LOG_GOAL,
        }
        return Alarm("champion", "unpaired", said, numbers)

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        names = ("seen", "wrong", "blind", "told")
        return {name: getattr(self, name) for name in names} | {"detector": self.detector.pack()}

    @classmethod
    def unpack(cls, state: Mapping[str, Any]) -> Unpaired:
        """Return what `pack` wrote."""
        detector = ChangeDetector.unpack(state["detector"])
        return cls(**{**state, "detector": detector})
