"""Whom to believe among raters: how they agree, how they use the scale, and what that is worth.

Who names labels (by corrections, selections, thumbs, categories, preferences) is compared with the
others who spoke of the same answers, and with auditors, who are right (`skene`). Who gives values
is compared with the others on the same scale (`scale`). Where a single rater speaks of each answer
and no auditor does, nothing is learned of raters: agreement with what answered is no merit here; by
that, validation tells liars (`policies.validation`), whose weights those of this policy multiply.

An operator plants gold questions, so that an auditor's word comes first; audits that auditors
correct do as well. By them a paired test finds whether weights help (`proof`). Until it has, what
is found is reported only, and the learner is told nothing. Words are never turned round: who reads
a scale upside down is reported as `inverted`, and believed the least.

In the configuration of a model, with what is to differ from the defaults:

    observe: {raters: {use: policies.raters:Raters, weigh: on}}
    observe: {raters: null}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from online_learner.schema import Label, Raised, Signal, Task, label_key
from policies.lens import Lens
from policies.raters.confusion import Word
from policies.raters.known import Known, Record
from policies.raters.proof import MOST_WEIGHT, Proof
from policies.raters.reading import PAIR, is_rater, number_of, on_scale, word_of
from policies.raters.scale import AUDITOR, Scale
from policies.raters.skene import Skene
from policies.switch import ALPHA, Mode

TOP = 50  # raters that are reported
NEAR = 0.25  # of the scale: values as near as that agree
EVERY, PER_RATER = 100, 2  # signals between two tables, at least; and for each rater
STEP = 0.05  # by which a weight has to change for a new table
SPREADS = 8.0  # usual deviations of a number that make the scale from 0 to 1


class Raters(Lens):
    """Compares raters with one another and with auditors.

    Parameters
    ----------
    task, labels, segments
        Of the model, see `Lens`; raters are the same in all segments.
    weigh
        `auto`: the learner weighs raters once that has won on what auditors know; `on`, `off`.
    alpha
        The probability with which weights that do not help are ever switched on.
    floor
        The least that a lesson keeps of its weight, above 0.
    most
        Raters that are remembered; of answers, twice as many.

    Raises
    ------
    ValueError
        An argument is outside its range.
    """

    def __init__(
        self,
        task: Task,
        labels: Sequence[Label] | None = None,
        *,
        segments: Sequence[str] = (),
        weigh: Mode | bool = "auto",
        alpha: float = ALPHA,
        floor: float = 0.05,
        most: int = 1000,
    ) -> None:
        super().__init__(task, labels, segments=segments)
        if not (isinstance(floor, float) and 0.0 < floor < 1.0):
            raise ValueError(f"floor is above 0, and below 1, not {floor!r}")
        if not (isinstance(most, int) and most >= 1):
            raise ValueError(f"most is a number of raters, 1 or more, not {most!r}")
        self._proof = Proof(weigh, alpha=alpha)
        self._floor = floor
        self._known = Known(most)
        names = PAIR if task != "classification" else [label_key(label) for label in labels or ()]
        bounds = {"floor": floor, "most_weight": MOST_WEIGHT}
        self._skene = Skene(names, most=2 * most, most_raters=most, **bounds)
        self._scale = Scale(most=most, most_raters=most)
        self._numbers = [0.0, 0.0, 0.0]  # told by anybody: count, mean, squared deviations
        self._heard = self._due = 0
        self._found: dict[str, Any] = {}  # the last table, whether the learner is told or not
        self._inverted: list[str] = []
        self._raised: list[Raised] = []
        self._table: Mapping[str, Any] = {}

    # --- what is observed -------------------------------------------------------------------------

    def hear(self, signal: Signal) -> None:
        """Compare who speaks with the others, or the others with the auditor who speaks."""
        if signal.feedback.auditor:
            self._audit(signal)
        elif is_rater(signal):
            self._known.meet(signal.feedback.source).signals += 1
            self._compare_words(signal)
            self._compare_values(signal)
            self._heard += 1
            if self._heard >= self._due:
                self._refresh()

    def _compare_words(self, signal: Signal) -> None:
        if (found := word_of(signal, self.task)) is None:
            return
        name, label, wrong = found
        source, answer = signal.feedback.source, self._skene.said(name)
        if answer is not None and source not in answer.words:
            word = Word(self._skene.labels.get(label, -1), wrong)
            for other, theirs in answer.words.items():
                self._known.agree(source, other, agreed=_compatible(word, theirs))
            if answer.truth is not None:
                right = (word.label == answer.truth) != wrong
                self._known.judge(source, right=right)
                self._proof.word(self._weight(source), right=right)
        self._skene.hear(name, source, label, wrong=wrong)

    def _compare_values(self, signal: Signal) -> None:
        if (value := self._value(signal)) is None:
            return
        source, values = signal.feedback.source, self._scale.answers.get(signal.answer, {})
        if self.task != "classification" and source not in values:
            for other, theirs in values.items():
                near = abs(value - theirs.given) <= NEAR
                if other == AUDITOR:
                    self._known.judge(source, right=near)
                else:
                    self._known.agree(source, other, agreed=near)
        self._scale.hear(signal.answer, source, value, rated=on_scale(signal, self.task))

    def _audit(self, signal: Signal) -> None:
        if (found := word_of(signal, self.task)) is not None and not found[2]:
            name, label, _ = found
            answer = self._skene.said(name)
            if answer is not None and answer.truth is None:
                self._judge_words(answer.words, label)
            self._skene.tell(name, label)
        if (value := self._value(signal)) is not None:
            values = self._scale.answers.get(signal.answer, {})
            if self.task != "classification" and values and AUDITOR not in values:
                for source, theirs in values.items():
                    self._known.judge(source, right=abs(theirs.given - value) <= NEAR)
                given = [(theirs.given, self._weight(s)) for s, theirs in values.items()]
                self._proof.number(given, value)
            self._scale.hear(signal.answer, AUDITOR, value)

    def _judge_words(self, words: Mapping[str, Word], label: str) -> None:
        """Judge those who had spoken by the truth."""
        names = list(self._skene.labels)
        for source, word in words.items():
            self._known.judge(source, right=(names[word.label] == label) != word.wrong)
        votes = [(names[w.label], self._weight(s)) for s, w in words.items() if not w.wrong]
        if len(votes) > 1:
            self._proof.vote(votes, label)
        elif votes:
            [(said, weight)] = votes
            self._proof.word(weight, right=said == label)

    def _value(self, signal: Signal) -> float | None:
        """Return the value that a signal gives, from 0 to 1; numbers by their usual spread."""
        value = number_of(signal, self.task)
        if value is None or not math.isfinite(value) or self.task != "regression":
            return value
        n, mean, squares = self._numbers
        n, gap = n + 1.0, value - mean
        mean += gap / n
        squares += gap * (value - mean)
        if not math.isfinite(squares):
            return None
        self._numbers = [n, mean, squares]
        spread = math.sqrt(squares / n)
        return max(0.0, min(1.0, 0.5 + (value - mean) / (SPREADS * spread))) if spread else 0.5

    # --- what follows from it ---------------------------------------------------------------------

    def _refresh(self) -> None:
        """Tell anew what raters weigh; raise who is found to read the scale upside down."""
        self._due = self._heard + max(EVERY, PER_RATER * len(self._known.records))
        self._skene.compare()
        weights, default = dict(self._skene.weights), round(self._skene.default, 2)
        weights |= self._scale.weights(self._floor, MOST_WEIGHT) if self._by_value else {}
        for source in self._known.records:
            if self._is_inverted(source):
                weights[source] = self._floor
                self._raise(source)
        told = {s: round(w, 2) for s, w in weights.items() if abs(w - default) >= STEP}
        before = self._found.get("weights", {})
        moved = abs(default - self._found.get("default", 1.0)) >= STEP or any(
            abs(told.get(s, default) - before.get(s, default)) >= STEP for s in {*told, *before}
        )
        if moved:
            self._found = {"weights": told, "default": default}

    @property
    def _by_value(self) -> bool:
        return self.task != "classification"

    def _weight(self, source: str) -> float:
        """Return what a rater would weigh by what was found last."""
        default: float = self._found.get("default", 1.0)
        return float(self._found.get("weights", {}).get(source, default))

    def _is_inverted(self, source: str) -> bool:
        """Tell whether a rater says the opposite of what is meant, beyond doubt."""
        sums = self._scale.raters.get(source)
        if sums is not None and sums.inverted:
            return True
        two = len(self._skene.labels) == 2
        return two and self._known.records[source].lately.older.bounds()[1] < 0.5

    def _raise(self, source: str) -> None:
        if source not in self._inverted:
            self._inverted = [*self._inverted, source][-2 * TOP :]
            sentence = f"{source} says the opposite of what others say of the same answers."
            self._raised.append(Raised(by="", about="rater", sentence=sentence))

    def table(self) -> dict[str, Any]:
        """Return what raters weigh, once that has won: `weights`, and `default` for the others."""
        return self._found if self._proof.on else {}

    def alarms(self) -> list[Raised]:
        """Return who was found to say the opposite, since this was last asked."""
        found, self._raised = self._raised, []
        return found

    def report(self) -> dict[str, Any]:
        """Return how the busiest raters do, and whether they are weighed.

        `agreement` is with other raters on the same answers, `gold` with auditors, in pairs; of
        values, those agree that are a quarter of the scale apart or less. `leniency` is by how much
        of the scale they give more than others. `weight` is what they weigh, or would.
        """
        top = self._known.busiest(TOP)
        return {
            "raters": [self._told(source, record) for source, record in top],
            "others": len(self._known.records) - len(top),
            "weighing": self._proof.told(),
        }

    def _told(self, source: str, record: Record) -> dict[str, Any]:
        sums = self._scale.raters.get(source)
        slope = sums.slope if sums is not None else None
        return {
            "rater": source,
            "signals": record.signals,
            "agreement": record.agreement.rate(),
            "gold": record.gold.rate(),
            "weight": self._weight(source),
            "leniency": sums.leniency if sums is not None else None,
            "slope": slope[0] if slope is not None else None,
            "inverted": self._is_inverted(source),
        }

    # --- in the learner ---------------------------------------------------------------------------

    def adopt(self, table: Mapping[str, Any]) -> None:
        """Weigh by this table from here on.

        Raises
        ------
        LookupError, TypeError, ValueError
            It is no table of this policy.
        """
        if table:
            weights = {str(source): float(w) for source, w in table["weights"].items()}
            default = float(table["default"])
            if not all(0.0 < w <= MOST_WEIGHT for w in (default, *weights.values())):
                raise ValueError(f"the weight of a rater is above 0, and {MOST_WEIGHT:g} at most")
            table = {"weights": weights, "default": default}
        self._table = table

    def factor(self, signal: Signal) -> float:
        """Return what the rater weighs: 1 is as much as raters do on average."""
        if not self._table or not is_rater(signal):
            return 1.0
        default: float = self._table["default"]
        return float(self._table["weights"].get(signal.feedback.source, default))

    # --- memory -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return all that has to survive a restart, as plain JSON."""
        return {
            "known": self._known.pack(),
            "skene": self._skene.pack(),
            "scale": self._scale.pack(),
            "proof": self._proof.pack(),
            "numbers": self._numbers,
            "clock": [self._heard, self._due],
            "found": self._found,
            "inverted": self._inverted,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned; an empty one has observed nothing."""
        if not state:
            return
        self._known.restore(state["known"])
        self._skene.restore(state["skene"])
        self._scale.restore(state["scale"])
        self._proof.restore(state["proof"])
        self._numbers = list(state["numbers"])
        self._heard, self._due = state["clock"]
        self._found, self._inverted = dict(state["found"]), list(state["inverted"])


def _compatible(one: Word, other: Word) -> bool:
    """Tell whether both can be meant: a label that is right, or wrong, by each."""
    if one.wrong == other.wrong:
        return one.label == other.label or one.wrong
    return one.label != other.label
