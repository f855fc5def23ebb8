"""Has the world moved? Change detectors on the loss, the answers and what is asked.

| what is watched     | from                                         | an alarm where it           |
|---------------------|----------------------------------------------|-----------------------------|
| `loss`              | audits: 1 - the score of the champion        | rises                       |
| `volunteered loss`  | what people say unasked: was it good?        | rises                       |
| `score`             | how sure the answers are, labelled or not    | falls                       |
| `output ...`        | the share of each of the commonest answers   | changes                     |
| `feature ...`       | what is asked, ranked among what is usual    | changes                     |

Each has a detector of its own (`window`). Only a rising loss says that answers have become worse:
that those who ask are others than before may do no harm, and an answer may be less sure because the
learner has learned better. So the two losses may raise a false alarm with `delta` each, and all
other detectors together with `delta`.

A learner changes all the time what it answers, and how sure it is, and of many answers the least
change is found. So what is not the loss has to move by `least` from where it was at the last alarm.

Several detectors find one change. Within `cooldown_s` of an alarm about one of loss, answers or
features there is no further one about the same of these three.

By default an alarm is all. Other `effects` are in force for `effect_s` after one: `ask` multiplies
the budget of active learning, `reputation` holds nothing against raters who disagree with the
answers, `snapshots` makes candidates come sooner, and `retrain` has the model trained anew where
its configuration says `retrain: {on_drift: true}`.

Time is that of the streams: nothing here looks at a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from online_learner.schema import (
    Label,
    Prediction,
    Raised,
    Settled,
    Sighting,
    Signal,
    Task,
    label_key,
)
from policies.arguments import YEAR_S, check_number
from policies.drift.traits import ASPECTS, LEARN, MOST_LENGTH, Trait, features_of
from policies.drift.window import Change, Window
from policies.drift.words import GROUPS, RISING, group_of, sentence
from policies.lens import Lens
from policies.opinion import goodness

EFFECTS = ("ask", "reputation", "snapshots", "retrain")
LEAST_DELTA = 1e-9
HASTE = 2.0  # times what was learned since the last snapshot counts
MOST_OUTPUTS = 8  # labels that have a detector of their own
MOST_FEATURES = 20
MOST_MET = 1000  # names of features that are counted
MOST_TOLD = 50  # detectors in a report
FALSE_ALARMS = 20.0  # in 100,000 values of two-valued noise, times `delta` (benchmarks.policies)


class Drift(Lens):
    """Watches for change.

    Parameters
    ----------
    delta
        How readily change is found: of each loss, and of all else together.
    least
        By how much shares, scores and ranks, from 0 to 1, have to move for an alarm.
    most_features
        How many features are watched: those that come most often.
    cooldown_s
        Seconds of the stream's time after an alarm without another about the same.
    effects
        What follows from an alarm: `ask`, `reputation`, `snapshots`, `retrain`.
    upon
        After which alarms they follow: about the `loss`, or `any`.
    effect_s
        For how many seconds of the stream's time.
    ask_factor
        By how much more is asked.

    Raises
    ------
    TypeError, ValueError
        A parameter is outside its range.
    """

    def __init__(
        self,
        task: Task,
        labels: Sequence[Label] | None = None,
        *,
        segments: Sequence[str] = (),
        delta: float = 0.05,
        least: float = 0.05,
        most_features: int = MOST_FEATURES,
        cooldown_s: float = 3600.0,
        effects: Sequence[str] = (),
        upon: str = "loss",
        effect_s: float = 3600.0,
        ask_factor: float = 2.0,
    ) -> None:
        super().__init__(task, labels, segments=segments)
        check_number("delta", delta, LEAST_DELTA, 0.3)
        check_number("least", least, 0.0, 0.99)
        check_number("most_features", most_features, 0, MOST_FEATURES, whole=True)
        check_number("cooldown_s", cooldown_s, 0.0, YEAR_S)
        check_number("effect_s", effect_s, 1.0, YEAR_S)
        check_number("ask_factor", ask_factor, 1.0, 10.0)
        if not isinstance(effects, list | tuple) or any(name not in EFFECTS for name in effects):
            raise ValueError(f"effects is a list of these: {', '.join(EFFECTS)}")
        if upon not in ("loss", "any"):  # a tuple: it may be anything, also a list
            raise ValueError("upon is `loss` or `any`")
        self.delta = delta
        self.least = least
        self.most_features = most_features
        self.cooldown_s = cooldown_s
        self.effects = tuple(name for name in EFFECTS if name in effects)
        self.upon = upon
        self.effect_s = effect_s
        self.ask_factor = ask_factor
        self._forget()

    def _forget(self) -> None:
        self._windows: dict[str, Window] = {}
        self._traits: dict[str, Trait] = {}
        self._met: dict[str, int] = {}  # how often a feature came, until it is known which come
        self._labels: dict[str, int] | None = {}  # how often a label came; None once that is known
        self._seen = 0
        self._usual: dict[str, float] = {}  # the mean before any change, and at the last alarm
        self._found: dict[str, list[int]] = {}  # by detector: alarms, and when the last was
        self._raised: list[Raised] = []
        self._raised_ms: dict[str, int] = {}  # by group
        self._now_ms = 0
        self._until_ms = 0  # effects are in force

    # --- what is observed -------------------------------------------------------------------------

    def see(self, sighting: Sighting) -> None:
        """Take in how sure an answer was, which it was, and what was asked."""
        self._tick(sighting.at_ms)
        prediction = sighting.prediction
        if prediction.ask is not None and prediction.ask.reason == "gold":
            return
        self._seen += 1
        confidence = _confidence(prediction)
        if confidence is not None:
            self._watch("score", confidence)
        if isinstance(prediction.output, bool | int | str):
            self._see_label(label_key(prediction.output)[:MOST_LENGTH])
        values = features_of(prediction.context())
        if self.task == "regression" and isinstance(prediction.output, float):
            self._read("output", prediction.output)
        if self._seen <= LEARN:
            self._meet(values)
            return
        for name in self._met:
            self._read(f"feature {name}", values.get(name))

    def hear(self, signal: Signal) -> None:
        """Take in what was said unasked.

        What was drawn by a coin settles; and what active learning asks about is wrong more often
        than others, the more so the more is asked, as may follow from an alarm.
        """
        self._tick(signal.at_ms)
        prediction = signal.prediction
        shown = prediction.role == "champion" and not prediction.explored
        good = goodness(signal)
        if shown and prediction.ask is None and good is not None:
            self._watch("volunteered loss", 1.0 - good)

    def settle(self, entry: str, settled: Settled) -> None:
        """Take in the loss of an audit that was answered."""
        self._tick(int(entry.partition("-")[0]))
        score = settled.scores.get("champion")
        if settled.answered and score is not None:
            self._watch("loss", 1.0 - score)

    def _see_label(self, label: str) -> None:
        """Take in which label was answered; the first answers tell which are watched."""
        if self._labels is not None:
            self._labels[label] = self._labels.get(label, 0) + 1
            if sum(self._labels.values()) >= LEARN:
                for name in self._commonest(self._labels, MOST_OUTPUTS):
                    self._windows[f"output {name}"] = Window(self._delta("output"))
                self._labels = None
            return
        for what in [name for name in self._windows if name.startswith("output ")]:
            self._watch(what, float(what == f"output {label}"))

    def _meet(self, names: Iterable[str]) -> None:
        """Take in which features came; the first answers tell which are watched."""
        for name in names:
            if name in self._met or len(self._met) < MOST_MET:
                self._met[name] = self._met.get(name, 0) + 1
        if self._seen == LEARN:
            self._met = self._commonest(self._met, self.most_features)

    def _read(self, what: str, value: Any) -> None:
        """Take in a value of any kind by its trait."""
        trait = self._traits.setdefault(what, Trait())
        changed = False
        for aspect, number in trait.read(value):
            changed = self._watch(f"{aspect} {what}".strip(), number) or changed
        if changed:  # what is usual is another now
            del self._traits[what]
            for name in (what, *(f"{aspect} {what}" for aspect in ASPECTS)):
                self._windows.pop(name, None)
                self._usual.pop(name, None)

    def _watch(self, what: str, value: float) -> bool:
        """Take in a number; tells whether it has moved far enough to matter."""
        window = self._windows.get(what)
        if window is None:
            window = self._windows[what] = Window(self._delta(what))
        change = window.add(value)
        if change is None:
            return False
        if group_of(what) != "loss":
            change = replace(change, before=self._usual.setdefault(what, change.before))
            if abs(change.after - change.before) < self.least:
                return False
            self._usual[what] = change.after
        rose = change.after > change.before
        if RISING.get(what, rose) == rose:
            self._raise(what, change)
        return True

    def _delta(self, what: str) -> float:
        if group_of(what) == "loss":
            return self.delta
        return self.delta / (1 + MOST_OUTPUTS + len(ASPECTS) * self.most_features)

    # --- what follows from it ---------------------------------------------------------------------

    def _raise(self, what: str, change: Change) -> None:
        count, _ = self._found.get(what, (0, 0))
        self._found[what] = [count + 1, self._now_ms]
        group = group_of(what)
        acts = self.effects if self.upon == "any" or group == "loss" else ()
        if acts:
            self._until_ms = self._now_ms + round(1000 * self.effect_s)
        before = self._raised_ms.get(group)
        if before is not None and self._now_ms - before < 1000 * self.cooldown_s:
            return
        self._raised_ms[group] = self._now_ms
        alarm = Raised(
            by="drift",
            about=what,
            sentence=sentence(what, change),
            numbers={
                "before": round(change.before, 4),
                "after": round(change.after, 4),
                "n_before": change.n_before,
                "n": change.n,
            },
            effects=list(acts),
        )
        self._raised.append(alarm)

    def report(self) -> dict[str, Any]:
        """Return what is watched, how often it has changed, and what is in force."""
        order = sorted(self._windows, key=lambda what: (GROUPS.index(group_of(what)), what))
        watched = []
        for what in order[:MOST_TOLD]:
            window = self._windows[what]
            alarms, last_ms = self._found.get(what, (0, None))
            width, mean = window.width, window.mean
            told = {"what": what, "n": window.n, "mean": mean, "width": width}
            watched.append({**told, "alarms": alarms, "last_at_ms": last_ms})
        return {
            "watched": watched,
            "others": max(0, len(order) - MOST_TOLD),
            "effects": self._in_force(),
            "false_alarms_per_100000": round(3 * FALSE_ALARMS * self.delta, 2),
        }

    def _in_force(self) -> dict[str, Any]:
        if self._now_ms >= self._until_ms:
            return {}
        told = {
            "ask": self.ask_factor,
            "reputation": "suspended",
            "snapshots": HASTE,
            "retrain": True,
        }
        return {**{name: told[name] for name in self.effects}, "until_ms": self._until_ms}

    def alarms(self) -> list[Raised]:
        """Return what has been raised since this was last asked."""
        raised, self._raised = self._raised, []
        return raised

    def table(self) -> dict[str, Any]:
        """Return what the learner heeds while effects are in force: `suspend_until_ms`, `haste`."""
        found: dict[str, Any] = {}
        if "reputation" in self._in_force():
            found["suspend_until_ms"] = self._until_ms
        if "snapshots" in self._in_force():
            found["haste"] = HASTE
        return found

    def ask(self) -> float:
        """Return `ask_factor` while that effect is in force."""
        return self.ask_factor if "ask" in self._in_force() else 1.0

    # --- memory -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return all that has to survive a restart: values, no detectors."""
        return {
            "windows": {what: window.state() for what, window in self._windows.items()},
            "traits": {what: trait.state() for what, trait in self._traits.items()},
            "met": self._met,
            "labels": self._labels,
            "seen": self._seen,
            "usual": self._usual,
            "found": self._found,
            "raised": [alarm.model_dump() for alarm in self._raised],
            "raised_ms": self._raised_ms,
            "now_ms": self._now_ms,
            "until_ms": self._until_ms,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned; the detectors are built from the values again."""
        self._forget()
        if not state:
            return
        self._windows = {
            what: Window.restored(found, self._delta(what))
            for what, found in state["windows"].items()
        }
        self._traits = {what: Trait.restored(found) for what, found in state["traits"].items()}
        self._met, self._seen = dict(state["met"]), state["seen"]
        self._labels = None if state["labels"] is None else dict(state["labels"])
        self._usual = dict(state["usual"])
        self._found = {what: list(found) for what, found in state["found"].items()}
        self._raised = [Raised(**alarm) for alarm in state["raised"]]
        self._raised_ms = dict(state["raised_ms"])
        self._now_ms, self._until_ms = state["now_ms"], state["until_ms"]
        if self._seen >= LEARN:
            self._keep_features()

    def _keep_features(self) -> None:
        """Go on with as many features as are configured now; none come in place of others."""
        self._met = self._commonest(self._met, self.most_features)
        kept = {f"feature {name}" for name in self._met} | {"output"}
        self._traits = {what: trait for what, trait in self._traits.items() if what in kept}
        self._windows = {
            what: window
            for what, window in self._windows.items()
            if group_of(what) != "features" or what[what.find("feature ") :] in kept
        }

    def _tick(self, at_ms: int) -> None:
        self._now_ms = max(self._now_ms, at_ms)

    @staticmethod
    def _commonest(counts: Mapping[str, int], most: int) -> dict[str, int]:
        """Return the commonest, by name where they are equally common."""
        order = sorted(counts.items(), key=lambda found: (-found[1], found[0]))
        return dict(order[:most])


def _confidence(prediction: Prediction) -> float | None:
    """Return how sure an answer was; None where it has no score between 0 and 1."""
    if not isinstance(prediction.output, bool | int | str):
        return None
    score = prediction.scores.get(label_key(prediction.output))
    return score if score is not None and 0 <= score <= 1 else None
