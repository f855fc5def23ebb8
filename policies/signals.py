"""What a signal means: a lesson trains, evidence may judge. The table of all kinds and tasks.

| kind       | classification       | regression      | ranking             | evidence             |
|------------|----------------------|-----------------|---------------------|----------------------|
| correction | the label            | the number      | a new option first  | label, number        |
| selection  | the label taken      | refused         | the taken first     | what was taken       |
| thumbs     | up: the label served | up: the number  | first above, or     | a label; else who    |
|            | down: the other, or, | served          | below, the others   | disagrees has lost;  |
|            | of many, not this    | down: nothing   | (weak)              | a reward             |
| rating     | as thumbs, by the calibrated distance  | reward of the first | as thumbs            |
| preference | refused              | refused         | one above another   | the pair             |
| ranking    | refused              | refused         | in this order       | the order            |
| category   | up, down or ignored, by the configured map: as thumbs        | as thumbs            |
| flag       | down, from the system, with a bounded weight: as thumbs      | none                 |
| implicit   | as thumbs, with `implicit_weight`, where that is not 0       | none                 |

`generation` is read as `ranking` of the outputs; the edit that a correction makes is preferred to
the original. Thumbs speak only about what was shown: on a number they say "good enough", which is
no distance to score another answer by; with more than two labels, a thumbs-down does not say which
one is right; on a fallback in a blocked answer's place they say nothing about the model. So by
thumbs and ratings alone a challenger wins only where it is shown, to a share that a coin draws.

A team that sees it otherwise writes a class with the same methods and names it in the configuration
(`signals: my_team.signals:Signals`). Weights are set here, on the server, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from online_learner.schema import (
    Example,
    Feedback,
    Label,
    Lesson,
    Output,
    Prediction,
    Ranked,
    Rated,
    Said,
    Task,
    canonical,
)
from policies.calibration import Calibration

WEAK = 0.3  # a judgement of the first option, read as a comparison with the others
FLAG_WEIGHT = 0.3  # the system's own opinion, against a person's
DWELL_S = 30.0  # seconds of reading that count as satisfied (Fox et al., ACM TOIS 23, 2005)
LIKED = frozenset({"click", "copy", "purchase", "save", "share"})
DISLIKED = frozenset({"abandon", "regenerate", "skip", "undo"})


@dataclass(frozen=True, slots=True)
class Heard:
    """One signal, what it was said about, and who reads it."""

    signals: Signals
    feedback: Feedback
    prediction: Prediction
    other: Prediction | None = None  # the second of a preference between two predictions

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        """The features of each option, by id."""
        return {option.id: option.features for option in self.prediction.options}

    @property
    def ranks(self) -> bool:
        """Whether options are compared, rather than a label or number found."""
        return self.signals.task in {"ranking", "generation"}


Meaning: TypeAlias = Callable[[Heard], Lesson | None]


class Signals:
    """The default table.

    Parameters
    ----------
    task
        `classification`, `regression`, `ranking` or `generation`.
    labels
        The closed set of labels, or None where labels are learned.
    categories
        What each declared category means: `up`, `down` or `ignore`.
    implicit_weight
        Weight of an implicit signal against an explicit one, at most 0.1; 0 learns none.
    """

    def __init__(
        self,
        task: Task,
        labels: list[Label] | None = None,
        *,
        categories: Mapping[str, str] | None = None,
        implicit_weight: float = 0.0,
    ) -> None:
        self.task = task
        self.labels = labels
        self.categories = categories or {}
        self.implicit_weight = min(0.1, implicit_weight)
        self.calibration = Calibration()

    def kinds(self) -> list[str]:
        """Return the kinds of feedback that mean something for the task."""
        return [kind for kind, row in TABLE.items() if row[self.task] is not None]

    def lesson(
        self, feedback: Feedback, prediction: Prediction, other: Prediction | None = None
    ) -> Lesson | None:
        """Return what to learn, or None where the signal teaches nothing.

        Parameters
        ----------
        other
            The second prediction of a preference between two.
        """
        meaning = TABLE[feedback.kind][self.task] if feedback.kind in TABLE else None
        return meaning(Heard(self, feedback, prediction, other)) if meaning is not None else None

    def said(self, feedback: Feedback, prediction: Prediction) -> Said:
        """Return what a signal tells the gate: the right answer, or how good what was shown is.

        For a ranking the right answer is a list of option ids: the one that was taken, or an order.
        """
        if feedback.kind in {"correction", "selection"}:
            return Said(right=self._named(feedback, prediction))
        if feedback.kind == "preference":
            pair = [feedback.value["chosen"], feedback.value["rejected"]]
            return Said(right=pair if set(pair) <= set(prediction.shown()) else None)
        if feedback.kind == "ranking":
            return Said(right=feedback.value)
        if prediction.withheld:
            return Said()
        return self._judged(feedback, prediction)

    def _named(self, feedback: Feedback, prediction: Prediction) -> Output:
        """Return the answer that a correction or selection names."""
        value: Output = feedback.value
        if self.task in {"classification", "regression"} or value is None:
            return value
        if self.task == "generation" and feedback.kind == "correction":
            return None  # an edit, even one that reads like an option's id
        return [value] if isinstance(value, str) and value in prediction.shown() else None

    def _judged(self, feedback: Feedback, prediction: Prediction) -> Said:
        """Return what a judgement of what was shown implies, by the signal alone."""
        up, reward = _crude(self, feedback), _reward(self, feedback)
        if up is None or self.task != "classification":
            own = prediction.role == "champion" and not prediction.explored
            return Said(liked=up is True and own, reward=reward)
        right = prediction.output if up else self.other_label(prediction.output)
        return Said(right=right, wrong=prediction.output if right is None else None, reward=reward)

    def other_label(self, label: Output) -> Label | None:
        """Return the other label, where there are just two."""
        if self.labels is None or len(self.labels) != 2 or label is None:
            return None
        first, second = self.labels
        return second if label == first else first

    def state(self) -> dict[str, Any]:
        """Return what was learned of the raters; it travels with the weights."""
        return self.calibration.pack() if self.calibration.raters else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the state that `state` returned."""
        self.calibration = Calibration.unpack(state) if state else Calibration()


# --- the right answer ---------------------------------------------------------------------------


def _right(heard: Heard) -> Lesson | None:
    """Take the value as the target."""
    if heard.feedback.value is None:  # none of these
        return None
    return Example(heard.prediction.features, heard.feedback.value)


def _new_first(heard: Heard) -> Lesson | None:
    """Put the option sent, a new one or one of those shown, above those shown."""
    value = heard.feedback.value
    return _taken_first(heard) if isinstance(value, str) else _above(heard, value["features"])


def _edit_first(heard: Heard) -> Lesson | None:
    """Prefer the edit to the output that it edits."""
    value = heard.feedback.value
    edit = {"text": value} if isinstance(value, str) else {"json": canonical(value)}
    return _above(heard, edit, heard.prediction.shown()[:1])


def _taken_first(heard: Heard) -> Lesson | None:
    """Put the option taken above all others shown (Plackett-Luce, first place)."""
    taken = heard.feedback.value
    if taken is None:  # none of these
        return None
    rest = [name for name in heard.prediction.shown() if name != taken]
    return _above(heard, heard.options[taken], rest)


def _preferred(heard: Heard) -> Lesson | None:
    """Put the chosen one above the rejected one (Bradley-Terry)."""
    chosen, rejected = heard.feedback.value["chosen"], heard.feedback.value["rejected"]
    context, options = heard.prediction.context(), heard.options
    if heard.other is None:
        return Ranked(context, (options[chosen], options[rejected]))
    first, second = (_first(prediction) for prediction in (heard.prediction, heard.other))
    if first is None or second is None:
        return None
    own = chosen == heard.feedback.prediction_id
    return Ranked(context, (first, second) if own else (second, first))


def _in_order(heard: Heard) -> Lesson | None:
    """Put the options named in this order (Plackett-Luce)."""
    order = tuple(heard.options[name] for name in heard.feedback.value)
    return Ranked(heard.prediction.context(), order, places=len(order) - 1)


def _above(heard: Heard, best: dict[str, Any], names: list[str] | None = None) -> Lesson | None:
    names = heard.prediction.shown() if names is None else names
    rest = tuple(heard.options[name] for name in names)
    return Ranked(heard.prediction.context(), (best, *rest)) if rest else None


def _first(prediction: Prediction) -> dict[str, Any] | None:
    """Return the features of the option that was shown first, or None for a fallback."""
    if prediction.withheld:
        return None
    shown = prediction.shown()
    return next((o.features for o in prediction.options if o.id == shown[0]), None)


# --- a judgement of what was served ---------------------------------------------------------------


def _thumbs(heard: Heard) -> Lesson | None:
    """Take what was served as right, or as wrong."""
    return _judged(heard, 1.0 if heard.feedback.value else -1.0)


def _rating(heard: Heard) -> Lesson | None:
    """Read it as thumbs, by the calibrated distance; for a ranking as the reward of the first."""
    distance = heard.signals.calibration.read(heard.feedback.source, _fraction(heard.feedback))
    if distance == 0.0 or heard.prediction.withheld:
        return None
    if heard.ranks:
        return _rated(heard.prediction, (1.0 + distance) / 2.0, 1.0)
    return _judged(heard, distance)


def _category(heard: Heard) -> Lesson | None:
    """Read it as up, down or nothing, as the category is configured."""
    up = _crude(heard.signals, heard.feedback)
    return None if up is None else _judged(heard, 1.0 if up else -1.0)


def _flag(heard: Heard) -> Lesson | None:
    """Read it as down, with a bounded weight; a mere note teaches nothing."""
    value = heard.feedback.value
    if value["severity"] == "note":
        return None
    if heard.ranks and value.get("option") is not None:
        return _one_judged(heard, value["option"], -FLAG_WEIGHT)
    return _judged(heard, -FLAG_WEIGHT, blocked_too=True)  # it speaks about the output itself


def _implicit(heard: Heard) -> Lesson | None:
    """Read it as weakly up or down, by the event, where `implicit_weight` is not 0."""
    event, value = heard.feedback.value["event"], heard.feedback.value["value"]
    up = event in LIKED or (event == "dwell" and (value or 0.0) >= DWELL_S)
    weight = heard.signals.implicit_weight
    if not weight or not (up or event in DISLIKED):
        return None
    return _judged(heard, weight if up else -weight)


def _judged(heard: Heard, u: float, *, blocked_too: bool = False) -> Lesson | None:
    """Return the lesson in "what was served is good (u > 0) or bad", with weight |u|."""
    prediction = heard.prediction
    if prediction.withheld and not blocked_too:
        return None
    if heard.ranks:
        return _one_judged(heard, prediction.shown()[0], u)
    unknown = prediction.output is None  # the model knew no label yet
    if unknown or (u < 0 and heard.signals.task == "regression"):
        return None
    if u > 0:
        return Example(prediction.features, prediction.output, weight=u)
    right = heard.signals.other_label(prediction.output)
    if right is not None:
        return Example(prediction.features, right, weight=-u)
    return Example(prediction.features, prediction.output, weight=-u, complementary=True)


def _one_judged(heard: Heard, name: str, u: float) -> Lesson | None:
    """Put one option above, or below, the others (weak); where it stands alone, rate it."""
    context, options = heard.prediction.context(), heard.options
    rest = [other for other in heard.prediction.shown() if other != name]
    if not rest:
        return Rated(context, options[name], 1.0 if u > 0 else 0.0, abs(u))
    ordered = tuple(options[other] for other in (name, *rest))
    return Ranked(context, ordered, worst_first=u < 0, weight=WEAK * abs(u))


def _rated(prediction: Prediction, reward: float, weight: float) -> Lesson | None:
    first = _first(prediction)
    return None if first is None else Rated(prediction.context(), first, reward, weight)


def _crude(signals: Signals, feedback: Feedback) -> bool | None:
    """Return whether a signal by itself says good (True) or bad, without knowing its rater."""
    if feedback.kind == "thumbs":
        return bool(feedback.value)
    if feedback.kind == "rating":
        fraction = _fraction(feedback)
        return None if fraction == 0.5 else fraction > 0.5
    if feedback.kind == "category":
        return {"up": True, "down": False}.get(signals.categories.get(feedback.value, ""))
    return None


def _reward(signals: Signals, feedback: Feedback) -> float | None:
    """Return how good what was shown is, from 0 to 1, by the signal alone."""
    if feedback.kind == "rating":
        return _fraction(feedback)
    up = _crude(signals, feedback)
    return None if up is None else float(up)


def _fraction(feedback: Feedback) -> float:
    """Return a rating's place on its scale, from 0 to 1."""
    low, high = feedback.value["scale"]
    return float((feedback.value["value"] - low) / (high - low))


# --- the table ------------------------------------------------------------------------------------


def _row(
    classification: Meaning | None,
    regression: Meaning | None,
    ranking: Meaning | None,
    generation: Meaning | None,
) -> dict[Task, Meaning | None]:
    return {
        "classification": classification,
        "regression": regression,
        "ranking": ranking,
        "generation": generation,
    }


TABLE: dict[str, dict[Task, Meaning | None]] = {  # None: refused with kind_not_applicable
    #                  classification regression  ranking       generation
    "correction": _row(_right,        _right,     _new_first,   _edit_first),
    "selection":  _row(_right,        None,       _taken_first, _taken_first),
    "thumbs":     _row(_thumbs,       _thumbs,    _thumbs,      _thumbs),
    "rating":     _row(_rating,       _rating,    _rating,      _rating),
    "preference": _row(None,          None,       _preferred,   _preferred),
    "ranking":    _row(None,          None,       _in_order,    _in_order),
    "category":   _row(_category,     _category,  _category,    _category),
    "flag":       _row(_flag,         _flag,      _flag,        _flag),
    "implicit":   _row(_implicit,     _implicit,  _implicit,    _implicit),
}  # fmt: skip
