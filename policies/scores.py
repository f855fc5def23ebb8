"""Scores that mean something: of answers that are sure to 90 %, nine in ten should be right.

For each set of weights that answers or is tested, a scaling is fitted online (`policies.fitting`)
on audited answers: a coin drew them, so they stand for all. Whether it is applied is decided by
its log loss on answers that it has not seen (`policies.contest`); a model that means what it says
is left alone. What is said of audited answers by some and not by others is beyond it.

Weights are known by their version; the learner's newest step, which moves on, is one of its own:
as `latest`, and as the champion once that follows the learner. A snapshot takes over what was known
of the lineage when it was cut, and keeps it when it is promoted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from online_learner.evidence import Reliability
from online_learner.schema import (
    Label,
    Prediction,
    Scaling,
    Shadow,
    Signal,
    Task,
    label_key,
    place_of,
)
from policies.arguments import check_number
from policies.contest import Contest
from policies.fitting import Fit, Truth
from policies.lens import Lens
from policies.switch import ALPHA, Mode, mode_of

HALF_LIFE = 400.0  # labels; weights that follow the learner move on
MOST_HALF_LIFE, LEAST_ALPHA = 1e6, 1e-9
SHOWN_HALF_LIFE = 1000.0  # labels, of what is reported
MOST_VERSIONS = 8  # the least recent are forgotten
MOST_HEARD = 500  # answers of which is remembered that they were judged
MOVING = "moving"
ROLES_TO_BE = ("champion", "anchor", "challenger")  # that a version has, or may have next


@dataclass(slots=True)
class Known:
    """What is known of the scores of some weights.

    Parameters
    ----------
    place
        Under which name they were seen last.
    kept, raw, scaled
        The weight of all losses, and the sums of those before and after scaling; they fade.
    """

    place: str
    fit: Fit
    contest: Contest
    before: Reliability = field(default_factory=lambda: Reliability.decayed(SHOWN_HALF_LIFE))
    after: Reliability = field(default_factory=lambda: Reliability.decayed(SHOWN_HALF_LIFE))
    kept: float = 0.0
    raw: float = 0.0
    scaled: float = 0.0

    def take(self, shadow: Shadow, truth: Truth) -> None:
        """Take in what these weights answered, once it is known what is true."""
        if shadow.output is None or isinstance(shadow.output, float | list) or not shadow.scores:
            return
        output, scaled = label_key(shadow.output), self.fit.offered.apply(shadow.scores)
        right = float(output == truth.right)
        self.before.add(shadow.scores.get(output, 0.0), right)
        self.after.add(scaled.get(output, 0.0), right)
        raw, corrected = truth.loss(shadow.scores), truth.loss(scaled)
        keep = self.before.keep
        self.kept = keep * self.kept + 1.0
        self.raw, self.scaled = keep * self.raw + raw, keep * self.scaled + corrected
        self.contest.compare(raw, corrected)
        self.fit.learn(shadow.scores, truth)

    @property
    def scaling(self) -> Scaling | None:
        """What should be applied; None where the scores are to stay as they are."""
        offered = self.fit.offered
        return offered if self.contest.on and offered != Scaling() else None

    def report(self) -> dict[str, Any]:
        """Return what operators are told."""
        return {
            "place": self.place,
            "n": self.before.n,
            "slope": self.fit.offered.slope,
            "shifts": dict(self.fit.offered.shifts),
            "raw_error": self.before.error,
            "error": self.after.error,
            "raw_log_loss": self.raw / self.kept if self.kept else None,
            "log_loss": self.scaled / self.kept if self.kept else None,
            "on": self.contest.on,
        }

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        parts = {name: getattr(self, name).pack() for name in ("fit", "contest", "before", "after")}
        return {"place": self.place, **parts, "sums": [self.kept, self.raw, self.scaled]}

    @classmethod
    def unpack(cls, state: Mapping[str, Any], mode: Mode, alpha: float) -> Known:
        """Return what `pack` wrote."""
        before, after = (Reliability.unpack(state[name]) for name in ("before", "after"))
        contest = Contest.unpack(state["contest"], mode, alpha)
        kept, raw, scaled = map(float, state["sums"])
        fit = Fit.unpack(state["fit"])
        return cls(state["place"], fit, contest, before, after, kept, raw, scaled)


class Scores(Lens):
    """Fits scalings of served scores, and says which of them to apply.

    Parameters
    ----------
    apply
        `auto`: where a scaling has won on audits, and until it loses; `on`, `off`: an operator
        decides.
    half_life
        Labels after which one counts half in the fit.
    alpha
        The probability with which a switch may be wrong.

    Raises
    ------
    TypeError, ValueError
        An argument is not as it should be.
    """

    def __init__(
        self,
        task: Task,
        labels: Sequence[Label] | None = None,
        *,
        segments: Sequence[str] = (),
        apply: Mode | bool = "auto",
        half_life: float = HALF_LIFE,
        alpha: float = ALPHA,
    ) -> None:
        super().__init__(task, labels, segments=segments)
        check_number("half_life", half_life, 1.0, MOST_HALF_LIFE)
        self._mode = mode_of(apply, "apply")
        check_number("alpha", alpha, LEAST_ALPHA, 1.0 - LEAST_ALPHA)
        self._alpha = alpha
        self._keep = 0.5 ** (1.0 / half_life)
        self._all: dict[str, Known] = {}  # by version, and `MOVING`; the least recent first
        self._heard: dict[str, bool] = {}  # answers that were judged -> whether by an auditor
        self._served = Reliability.decayed(SHOWN_HALF_LIFE)
        self._raw = Reliability.decayed(SHOWN_HALF_LIFE)
        self._generation = self._champion = 0  # of the newest answer that was heard of
        self._following = False
        self._newest = 0  # lineage

    # --- what is observed -------------------------------------------------------------------------

    def hear(self, signal: Signal) -> None:
        """Learn from the first word on an audited answer, and from an auditor's."""
        prediction = signal.prediction
        truth = _truth(signal)
        if self.task != "classification" or not prediction.audited or truth is None:
            return
        if not self._first(signal.answer, auditor=signal.feedback.auditor):
            return
        following = "anchor" in prediction.shadows
        if prediction.generation >= self._generation and "champion" in prediction.shadows:
            self._generation, self._following = prediction.generation, following
            self._champion = prediction.shadows["champion"].version
        self._serve(prediction, truth)
        found = [  # all of them first: what is copied must not have heard the truth
            (self._known(role, shadow, following=following), place_of(role, shadow.version), shadow)
            for role, shadow in prediction.shadows.items()
        ]
        for known, place, shadow in found:
            if known is not None:
                known.place = place
                known.take(shadow, truth)

    def _first(self, answer: str, *, auditor: bool) -> bool:
        """Tell whether nobody has judged this answer, or an auditor is the first one to do so."""
        before = self._heard.get(answer)
        if before is not None and (before or not auditor):
            return False
        self._heard[answer] = auditor
        if len(self._heard) > MOST_HEARD:
            del self._heard[next(iter(self._heard))]
        return True

    def _serve(self, prediction: Prediction, truth: Truth) -> None:
        if prediction.output is None or not prediction.scores:
            return
        output = label_key(prediction.output)
        right = float(output == truth.right)
        self._served.add(prediction.scores.get(output, 0.0), right)
        self._raw.add(prediction.raw_scores().get(output, 0.0), right)

    # --- whose scores they are --------------------------------------------------------------------

    def _known(self, role: str, shadow: Shadow, *, following: bool) -> Known | None:
        """Return what is known of the weights that a role has; None of an old lineage's step."""
        if role == "latest" or (role == "champion" and following):
            return self._lineage(shadow.lineage)
        return self._version(str(shadow.version), shadow.lineage)

    def _lineage(self, lineage: int) -> Known | None:
        """Return what is known of the learner's newest step, which begins as the champion was."""
        if lineage < self._newest:
            return None
        if lineage > self._newest or MOVING not in self._all:
            self._newest = lineage
            self._all[MOVING] = self._copied(self._all.get(str(self._champion)))
        return self._all[MOVING]

    def _version(self, name: str, lineage: int) -> Known:
        """Return what is known of a version, which was cut from its lineage."""
        known = self._all.pop(name, None)
        if known is None:
            known = self._copied(self._all.get(MOVING) if lineage == self._newest else None)
        self._all[name] = known
        versions = [name for name in self._all if name != MOVING]
        for old in versions[: max(0, len(versions) - MOST_VERSIONS)]:
            del self._all[old]
        return known

    def _copied(self, known: Known | None) -> Known:
        if known is None:
            return Known("", Fit(self._keep), Contest(self._mode, self._alpha))
        return Known.unpack(known.pack(), self._mode, self._alpha)

    # --- what follows from it ---------------------------------------------------------------------

    def scalings(self) -> dict[str, Scaling]:
        """Return the scalings to apply, under every name that their weights may answer by next.

        Weights move between two signals: what is known of a challenger stands as its champion's
        already, and what is known of the anchor too, which answers after a pull. The learner's
        newest step is `latest` before and while the champion follows it.
        """
        found: dict[str, Scaling] = {}
        for name, known in self._all.items():
            if known.scaling is not None:
                places = [f"{role}:{name}" for role in ROLES_TO_BE]
                found |= dict.fromkeys(["latest"] if name == MOVING else places, known.scaling)
        return found

    def report(self) -> dict[str, Any]:
        """Return `places` (each role's scores, raw and scaled), and what was `served`.

        `error` is the expected calibration error, `slope` and `shifts` the newest scaling, whether
        it is `on` or not; what is said of the scaled scores is as if it had been. All of it fades
        within some thousand labels. `raw` is what the models themselves gave of what was served.
        """
        answering = MOVING if self._following else str(self._champion)
        champion = self._all.get(answering)
        contest = Contest(self._mode, self._alpha) if champion is None else champion.contest
        return {
            "places": [known.report() for known in self._all.values()],
            "served": self._served.report(),
            "raw": self._raw.report(),
            "weighing": contest.told("scaling of the champion's scores"),
        }

    # --- memory -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return all that has to survive a restart, as plain JSON."""
        return {
            "known": {name: known.pack() for name, known in self._all.items()},
            "heard": dict(self._heard),
            "served": self._served.pack(),
            "raw": self._raw.pack(),
            "now": [self._generation, self._champion, self._following, self._newest],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned; an empty one has observed nothing."""
        fresh = Reliability.decayed(SHOWN_HALF_LIFE)
        known = state.get("known", {}).items()
        self._all = {name: Known.unpack(it, self._mode, self._alpha) for name, it in known}
        for one in self._all.values():
            one.fit.keep = self._keep  # by configuration, as mode and level are
        self._heard = dict(state.get("heard", {}))
        self._served = Reliability.unpack(state.get("served", fresh.pack()))
        self._raw = Reliability.unpack(state.get("raw", fresh.pack()))
        now = state.get("now", (0, 0, False, 0))
        self._generation, self._champion, self._following, self._newest = now


def _truth(signal: Signal) -> Truth | None:
    said = signal.said
    if isinstance(said.right, float | list) or isinstance(said.wrong, float | list):
        return None
    if said.right is not None:
        return Truth(right=label_key(said.right))
    return None if said.wrong is None else Truth(wrong=label_key(said.wrong))
