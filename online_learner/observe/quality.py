"""How good the answers are, as it goes on: of each role, beside two that know nothing.

Built in: it reads the audits that settle, a draw without bias, and keeps sums (`tallies`). Where
nothing is ever corrected, there is what people say of answers: the share of thumbs that are up and
the mean rating, of all alike, and of all *raters* alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from online_learner.evidence import RunningMean
from online_learner.observe.tallies import LARGEST_LOSS, Interval, Opinions, Tally
from online_learner.schema import (
    Label,
    Raised,
    Scaling,
    Settled,
    Sighting,
    Signal,
    Task,
)

METRICS: Mapping[Task, str] = {"classification": "accuracy", "regression": "closeness"}
BASELINES = ("no_change", "majority")
KINDS = {"thumbs": "thumbs_up", "rating": "mean_rating"}
MOST_ROLES = 12  # of more, those are forgotten that were not scored for longest
STILL = 50  # audits without a challenger after which it is not under test any more
MOST_VALUES = 50  # of a segment; others are counted as one
MOST_LABELS = 1000  # that are counted for the majority
MOST_NUMBERS = 40  # of a point
OTHERS = "(others)"
POINTED = ("champion", "challenger", "anchor", "latest", *BASELINES)
TELLERS = ("volunteered", "corrected", "audited")
BOUNDED = ("n", "score", "low", "high")
FIGURES = ("accuracy", "recent", "decayed", "log_loss", "calibration_error", "macro_f1")


class Quality:
    """Keeps the figures of a model's answers; an observer like those of `policies.lens`.

    Parameters
    ----------
    task
        `classification`, `regression`, `ranking` or `generation`.
    labels
        The closed set of labels, or None where labels are learned.
    segments
        Features or tags by whose values answers are told apart.
    """

    def __init__(
        self, task: Task, labels: Sequence[Label] | None = None, *, segments: Sequence[str] = ()
    ) -> None:
        self.task = task
        self.labels = labels
        self.segments = tuple(segments)
        self.generation = 0
        self.roles: dict[str, Tally] = {}
        self._audits = 0
        self._scored: dict[str, int] = {}  # by role: at which of these audits it was scored last
        self.baselines: dict[str, Tally] = {name: Tally() for name in BASELINES}
        self._last: str | None = None  # the newest right label
        self._labels: dict[str, int] = {}  # how often each was right
        self._by_value: dict[str, dict[str, tuple[RunningMean, RunningMean]]] = {}
        self._said: dict[str, Opinions] = {name: Opinions() for name in KINDS.values()}

    # --- what is observed -------------------------------------------------------------------------

    def see(self, sighting: Sighting) -> None:
        """Pass over what was answered: only what is audited stands for all."""

    def hear(self, signal: Signal) -> None:
        """Take in thumbs and ratings of what people saw, whatever the model; not what was planted.

        A planted question is an answer that many are asked about.
        """
        feedback, prediction = signal.feedback, signal.prediction
        name = KINDS.get(feedback.kind)
        planted = prediction.ask is not None and prediction.ask.reason == "gold"
        if name is None or prediction.withheld or planted or feedback.source.startswith("system:"):
            return
        if feedback.kind == "thumbs":
            self._said[name].add(feedback.source, float(feedback.value))
            return
        low, high = feedback.value["scale"]
        share = (feedback.value["value"] - low) / (high - low)
        self._said[name].add(feedback.source, min(1.0, max(0.0, float(share))))

    def settle(self, entry: str, settled: Settled) -> None:
        """Take in an audit that has settled; with another reference of the tests, means begin anew.

        What was answered before that, and settles after it, is left out.
        """
        if settled.generation < self.generation or not settled.scores:
            return
        if settled.generation > self.generation:
            self._renew(settled.generation)
        self._audits += 1
        for role, score in list(settled.scores.items())[:MOST_ROLES]:
            self._scored[role] = self._audits
            self._take(self.roles.setdefault(role, Tally()), role, score, settled)
        while len(self.roles) > MOST_ROLES:  # a lasting champion outlives many challengers
            oldest = min(self.roles, key=self._scored.__getitem__)
            del self.roles[oldest], self._scored[oldest]
        if self.task == "classification":
            self._guess(settled)
        if "champion" in settled.scores:
            self._take_segments(settled.segments, settled.scores["champion"])

    def _renew(self, generation: int) -> None:
        """Begin all means anew; what the champion did of late stays, whoever that was."""
        self.generation = generation
        self.roles = {role: tally for role, tally in self.roles.items() if role == "champion"}
        self._scored = {role: at for role, at in self._scored.items() if role in self.roles}
        for tally in (*self.roles.values(), *self.baselines.values()):
            tally.all = RunningMean()
        self._by_value = {}

    def _take(self, tally: Tally, role: str, score: float, settled: Settled) -> None:
        tally.score(score)
        if role == "champion" and settled.confidence is not None:
            tally.reliability.add(settled.confidence, score)
        if role in settled.losses:
            tally.losses.add(min(1.0, settled.losses[role] / LARGEST_LOSS))
        if settled.right is not None:
            tally.confusion.add(settled.right, settled.outputs.get(role))

    def _guess(self, settled: Settled) -> None:
        """Let the baselines guess by what has settled before.

        Where all that is known is what was wrong, they count as wrong too: see `evidence.score`.
        """
        majority = max(self._labels, key=self._labels.__getitem__, default=None)
        for name, guess in (("no_change", self._last), ("majority", majority)):
            tally = self.baselines[name]
            tally.score(float(guess is not None and guess == settled.right))
            if settled.right is not None:
                tally.confusion.add(settled.right, guess)
        right = settled.right
        if right is not None:
            self._last = right
            if right in self._labels or len(self._labels) < MOST_LABELS:
                self._labels[right] = self._labels.get(right, 0) + 1

    def _take_segments(self, segments: Mapping[str, str], score: float) -> None:
        for name, value in segments.items():
            values = self._by_value.setdefault(name, {})
            key = value if value in values or len(values) < MOST_VALUES else OTHERS
            all_, decayed = values.setdefault(key, _pair())
            all_.add(score)
            decayed.add(score)

    # --- what follows from it ---------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Return the figures, as plain JSON; what is not known is null.

        `accuracy` is the mean since the tests began anew, with bounds that hold at every look at
        once; `recent` that of the last 500, `decayed` one that fades by half within 500, each with
        bounds for one look. Log loss, calibration error and macro-F1 fade likewise. `baselines`
        say the last right label, or the most frequent one, as known by the audits before. All of it
        is of the scores as the models gave them. From the `sums`, each mean can be carried on.
        """
        found: dict[str, Any] = {
            "metric": METRICS.get(self.task, "agreement"),
            "generation": self.generation,
            "roles": {role: tally.report() for role, tally in self.roles.items()},
            "baselines": {name: self.baselines[name].report() for name in BASELINES},
            "segments": {
                name: {
                    value: {**(all_.interval() or {}), "decayed": decayed.mean}
                    for value, (all_, decayed) in values.items()
                }
                for name, values in self._by_value.items()
            },
            "said": {name: opinions.report() for name, opinions in self._said.items()},
        }
        sums = {role: tally.all.pack() for role, tally in self.roles.items()}
        return {**found, "point": _point(found, self._tested()), "sums": sums}

    def _tested(self) -> list[str]:
        """Return the challengers that are under test still."""
        after = self._audits - STILL
        challengers = [role for role in self.roles if role.startswith("challenger:")]
        return [role for role in challengers if self._scored[role] > after]

    def alarms(self) -> list[Raised]:
        """Return none: what has changed is for others to say."""
        return []

    def table(self) -> dict[str, Any]:
        """Return nothing for the learner to weigh by."""
        return {}

    def scalings(self) -> dict[str, Scaling]:
        """Return no scalings."""
        return {}

    def ask(self) -> float:
        """Return 1: nobody is asked more often."""
        return 1.0

    def adopt(self, table: Mapping[str, Any]) -> None:
        """Weigh by nothing."""

    def factor(self, signal: Signal) -> float:
        """Return 1: no lesson weighs more or less."""
        return 1.0

    # --- memory -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return all that has to survive a restart, as plain JSON."""
        return {
            "generation": self.generation,
            "roles": {role: tally.pack() for role, tally in self.roles.items()},
            "scored": {"audits": self._audits, "last": dict(self._scored)},
            "baselines": {name: tally.pack() for name, tally in self.baselines.items()},
            "last": self._last,
            "labels": dict(self._labels),
            "segments": {
                name: {value: [mean.pack() for mean in pair] for value, pair in values.items()}
                for name, values in self._by_value.items()
            },
            "said": {name: opinions.pack() for name, opinions in self._said.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned; an empty one has observed nothing."""
        self.generation = state.get("generation", 0)
        self.roles = {role: Tally.unpack(it) for role, it in state.get("roles", {}).items()}
        scored = state.get("scored", {"audits": 0, "last": {}})
        self._audits = scored["audits"]
        self._scored = dict.fromkeys(self.roles, 0) | scored["last"]
        baselines = state.get("baselines", {})
        self.baselines = {
            name: Tally.unpack(baselines[name]) if name in baselines else Tally()
            for name in BASELINES
        }
        self._last = state.get("last")
        self._labels = dict(state.get("labels", {}))
        self._by_value = {
            name: {
                value: (RunningMean.unpack(pair[0]), RunningMean.unpack(pair[1]))
                for value, pair in values.items()
            }
            for name, values in state.get("segments", {}).items()
        }
        said = state.get("said", {})
        self._said = {name: Opinions.unpack(said.get(name, {})) for name in KINDS.values()}


def _pair() -> tuple[RunningMean, RunningMean]:
    return RunningMean(), Tally().decayed


def estimates(reports: Mapping[str, Any]) -> dict[str, Interval | None]:
    """Return how often the champion is right, as told by those who speak, corrected, and audited.

    The observer of responses finds it (`policies.response`); null where it does not tell, or, being
    a team's own, tells something else.
    """
    report = reports.get("response")
    found = report.get("estimates") if isinstance(report, Mapping) else None
    told = found if isinstance(found, Mapping) else {}
    return {teller: _interval(told.get(teller)) for teller in TELLERS}


def _interval(told: Any) -> Interval | None:
    found = {name: told.get(name) for name in BOUNDED} if isinstance(told, Mapping) else {}
    numbers = [x for x in found.values() if isinstance(x, int | float) and math.isfinite(x)]
    return found if len(numbers) == len(BOUNDED) else None


def _point(report: Mapping[str, Any], tested: Sequence[str]) -> dict[str, float]:
    """Return the figures of a moment, flat; of several challengers the one tested for longest."""
    found: dict[str, float] = {}
    roles = {**report["roles"], **report["baselines"]}
    if tested:
        roles["challenger"] = roles[max(tested, key=lambda role: roles[role]["accuracy"]["n"])]
    for role in POINTED:
        for figure in FIGURES if role in roles else ():
            value = roles[role][figure]
            number = value["score"] if isinstance(value, dict) else value
            if number is not None:
                found[f"{role}.{figure}"] = number
    for name, said in report["said"].items():
        for kind, value in said.items():
            if value is not None:
                found[f"said.{name}.{kind}"] = value["score"]
    kept = [(name, number) for name, number in found.items() if math.isfinite(number)]
    return dict(kept[:MOST_NUMBERS])
