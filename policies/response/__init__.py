"""Who answers? Of which answers people speak, what that hides, and how lessons make up for it.

Two things are told apart.

* Some answers are spoken of more readily for what is known of them beforehand: what was asked, the
  output, how sure the model was. A small regression over *all* answers, spoken of or not, finds
  that (`propensity`).
* Some are for how good they are: people speak up where an answer is wrong. Nothing that is known
  beforehand shows this. Audits do, which a coin draws and an auditor answers (`silence`). Without
  them it cannot be seen, and the report says so.

Both together give the chance with which an answer is spoken of. Estimates of how good answers are
make up for it, and so do the weights of lessons, once that has foretold audits better than what is
said unasked (`proof`, `weights`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Any

from online_learner.schema import Label, Raised, Settled, Sighting, Signal, Task
from policies.lately import Lately
from policies.lens import Lens
from policies.response.audits import Audits, Word
from policies.response.covariates import Covariates, Place, segment_values
from policies.response.outcomes import Outcomes, edges, explicit
from policies.response.proof import Proof
from policies.response.propensity import Propensity
from policies.response.rates import Rates
from policies.response.silence import Silence
from policies.response.telling import NO_AUDITS, by_dimension, silence_told
from policies.response.waiting import Spoken, Waiting
from policies.response.weights import Lane, Lesson, Weights, mean_chance, table
from policies.switch import ALPHA, Mode

CLIP = 10.0  # chosen by simulation (`benchmarks.policies.response`)
KEEP = 1.0 - 1.0 / 2000  # of the share that is audited, with each answer
LATEST = 500  # lessons that weigh 1 on average
REFRESH = 200  # lessons after which the learner is told anew
REMEMBERED = 1000  # answers of which somebody has spoken: only the first word counts
RECENT = 5000  # answers spoken of that a mean of late is made of, at most twice as many
SHOWN = "feedback_shown"


class Response(Lens):
    """Reports who speaks of what, and weighs lessons by the chance that they were given.

    Parameters
    ----------
    weigh
        `auto` weighs once that has won on audits; `on` and `off` whatever has.
    clip
        The largest weight; the least is its inverse.
    alpha
        The probability with which a correction that is no better is ever switched on.

    Raises
    ------
    ValueError
        An argument is out of its range.
    """

    def __init__(
        self,
        task: Task,
        labels: Sequence[Label] | None = None,
        *,
        segments: Sequence[str] = (),
        weigh: Mode | bool = "auto",
        clip: float = CLIP,
        alpha: float = ALPHA,
    ) -> None:
        super().__init__(task, labels, segments=segments)
        if not (isinstance(clip, int | float) and clip > 1.0):
            raise ValueError(f"clip is the largest weight, more than 1, not {clip!r}")
        self._clip = float(clip)
        self._proof = Proof(weigh, alpha=alpha)
        self._covariates = Covariates(task, self.segments)
        self._propensity = Propensity()
        self._outcomes = Outcomes(task)
        self._silence = Silence(len(edges(task)) + 1)
        self._audits = Audits()
        self._waiting = Waiting()
        self._rates = Rates()
        self._spoken_well = Lately(RECENT)  # goodness, by those who spoke unasked
        self._audited = 0.0  # share of all answers
        self._told_shown: set[str] = set()  # interfaces that tell when they are shown
        self._counted: OrderedDict[str, None] = OrderedDict()
        self._lessons: deque[Lesson] = deque(maxlen=LATEST)
        self._since = 0  # lessons since the learner was told
        self._table: dict[str, Any] = {}
        self._weights: Weights | None = None  # in the learner

    # --- what is observed -------------------------------------------------------------------------

    def see(self, sighting: Sighting) -> None:
        """Count an answer, and learn whether somebody spoke of it: by the covariates alone."""
        prediction = sighting.prediction
        if prediction.ask is not None and prediction.ask.reason == "gold":
            return
        self._covariates.see(prediction)
        place = self._covariates.place(prediction)
        self._silence.see(place.stratum)
        self._audited += (1.0 - KEEP) * (prediction.audited - self._audited)
        words = [word for word in sighting.signals if explicit(word)]
        spoke = any(not word.auditor for word in words)
        self._count(sighting, place, spoke=spoke, answered=bool(words))
        if not (prediction.audited and self._audits.usable):
            self._propensity.see(place, spoke=spoke)

    def _count(self, sighting: Sighting, place: Place, *, spoke: bool, answered: bool) -> None:
        """Count the answer by what it is; those asked about also where an auditor answered."""
        prediction = sighting.prediction
        reason = "no" if prediction.ask is None else prediction.ask.reason
        self._rates.count("all", "", spoke=spoke)
        self._rates.count("asked", reason, spoke=answered)
        self._rates.count("score", str(place.bucket), spoke=spoke)
        if place.label is not None:
            self._rates.count("output", place.label, spoke=spoke)
        for name, value in segment_values(prediction, self.segments):
            self._rates.count(f"segment {name}", value, spoke=spoke)
        self._count_shown(sighting, spoke=spoke)

    def _count_shown(self, sighting: Sighting, *, spoke: bool) -> None:
        """Count by where it could be spoken of: out of answers shown, by interfaces that tell."""
        shown: dict[str, dict[str, Any]] = {}
        for word in sighting.signals:
            event = word.kind == "implicit" and word.value.get("event") == SHOWN
            if word.interface is None or not (event or (explicit(word) and not word.auditor)):
                continue
            parts = [word.interface.get("id"), word.interface.get("variant")]
            name = "/".join(str(part) for part in parts if part is not None)
            shown.setdefault(name, word.interface)
            if event and len(self._told_shown) < REMEMBERED:
                self._told_shown.add(name)
        for name, interface in shown.items():
            if name in self._told_shown:
                self._rates.count("interface", name, spoke=spoke)
                if interface.get("position") is not None:
                    self._rates.count("position", str(interface["position"]), spoke=spoke)

    def hear(self, signal: Signal) -> None:
        """Count how good the answer was, by the first who says so; of audits once they settle."""
        prediction = signal.prediction
        gold = prediction.ask is not None and prediction.ask.reason == "gold"
        if gold or not explicit(signal.feedback):
            return
        goodness = self._outcomes.goodness(signal)
        self._outcomes.see(signal)
        if goodness is None:
            return
        place, auditor = self._covariates.place(prediction), signal.feedback.auditor
        chance = self._propensity.chance(place)
        number = self._outcomes.number(goodness)
        self._lessons.append(Lesson(place.stratum, number, chance))
        self._since += 1
        word = Word(place.stratum, number, goodness, chance, auditor)
        if prediction.audited:
            self._take_audit(signal.answer, self._audits.hear(signal.answer, word))
        elif not auditor and signal.answer not in self._counted:
            self._counted[signal.answer] = None
            if len(self._counted) > REMEMBERED:
                self._counted.popitem(last=False)
            self._take_word(signal.answer, word)

    def settle(self, entry: str, settled: Settled) -> None:
        """Count an audit: as a draw without bias, or, where too few answer, as another word."""
        self._take_audit(entry, self._audits.settle(entry, settled))

    def _take_audit(self, entry: str, found: tuple[Word, bool] | None) -> None:
        if found is None:
            return
        word, drawn = found
        if not drawn:
            self._take_word(entry, word)
            return
        audit = Spoken(_ms(entry), word.stratum, word.number, word.goodness)
        words, waits = self._waiting.draw(audit) if self._audits.usable else ([], False)
        if words:
            self._compare(audit, words)
        for other in words:
            self._silence.hear(*other[1:])
        if not waits:
            self._silence.draw(*audit[1:4])

    def _take_word(self, entry: str, word: Word) -> None:
        """Count what somebody chose to say; where there are audits, once one of its time settles.

        So neither is counted yet when both are compared.
        """
        if word.auditor:
            return
        self._spoken_well.add(word.goodness)
        mean = self._propensity.mean
        weight = max(1.0 / self._clip, min(self._clip, mean / word.chance))
        spoken = Spoken(_ms(entry), word.stratum, word.number, word.goodness, weight)
        audits, waits = self._waiting.speak(spoken) if self._audits.usable else ([], False)
        if audits and audits[-1].at_ms >= spoken.at_ms:
            self._compare(audits[-1], [spoken])
        for audit in audits:
            self._silence.draw(*audit[1:4])
        if not waits:
            self._silence.hear(*spoken[1:])

    def _compare(self, audit: Spoken, words: Sequence[Spoken]) -> None:
        if self._silence.spoken.any():
            raw, corrected = self._silence.raw(), self._silence.corrected()
            told = [(word.stratum, word.number) for word in words]
            self._proof.compare(raw, corrected, (audit.stratum, audit.number), told)

    # --- what follows from it ---------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Return who speaks of what, what that hides, and whether lessons are weighed by it."""
        audits, usable = self._audits, self._audits.usable
        return {
            "rate": self._rates.rate("all", ""),
            "by": by_dimension(self._rates, self._covariates, self.segments),
            "estimates": {
                "volunteered": self._spoken_well.older.interval(),
                "corrected": self._silence.estimate(audited=usable),
                "audited": audits.good.older.interval() if usable else None,
            },
            "silence": silence_told(self._silence, audits),
            "weighing": self._proof.told(missing="" if usable else NO_AUDITS),
        }

    def alarms(self) -> list[Raised]:
        """Return where people speak more or less than they did; see `rates`."""
        return self._rates.alarms()

    def table(self) -> dict[str, Any]:
        """Return what lessons are weighed by, renewed every `REFRESH` lessons; empty while off."""
        if not self._proof.on:
            self._table = {}
        elif self._lessons and (not self._table or self._since >= REFRESH):
            self._since = 0
            self._table = self._renewed()
        return self._table

    def _renewed(self) -> dict[str, Any]:
        audits = self._audits
        lane = Lane(self._audited, audits.share) if audits.usable else Lane(0.0, 0.0)
        ratios = self._silence.heard(audited=audits.usable).ratios
        mean = mean_chance(self._lessons, lane, ratios, self._clip)
        return table(
            self._covariates, self._propensity, self._outcomes, ratios=ratios, lane=lane, mean=mean
        )

    # --- in the learner ---------------------------------------------------------------------------

    def adopt(self, table: Mapping[str, Any]) -> None:
        """Weigh by this table from here on."""
        self._weights = Weights(self.task, self.segments, self._clip, table) if table else None

    def factor(self, signal: Signal) -> float:
        """Return m / q, by the table: see `weights`."""
        return 1.0 if self._weights is None else self._weights.factor(signal)

    # --- memory -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return all that has to survive a restart."""
        return {
            "proof": self._proof.pack(),
            "covariates": self._covariates.pack(),
            "propensity": self._propensity.pack(),
            "mean_error": self._outcomes.mean_error,
            "silence": self._silence.pack(),
            "audits": self._audits.pack(),
            "waiting": self._waiting.pack(),
            "rates": self._rates.pack(),
            "spoken_well": self._spoken_well.pack(),
            "audited": self._audited,
            "told_shown": sorted(self._told_shown),
            "counted": list(self._counted),
            "lessons": [[x.stratum, x.number, x.chance] for x in self._lessons],
            "since": self._since,
            "table": self._table,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        if not state:
            return
        self._proof.restore(state["proof"])
        self._covariates = self._covariates.unpack(state["covariates"])
        self._propensity = Propensity.unpack(state["propensity"])
        self._outcomes = Outcomes(self.task, state["mean_error"])
        self._silence = Silence.unpack(state["silence"], len(edges(self.task)) + 1)
        self._audits = Audits.unpack(state["audits"])
        self._waiting = Waiting.unpack(state["waiting"])
        self._rates = Rates.unpack(state["rates"])
        self._spoken_well = Lately.unpack(state["spoken_well"], RECENT)
        self._audited = state["audited"]
        self._told_shown = set(state["told_shown"])
        self._counted = OrderedDict.fromkeys(state["counted"])
        self._lessons = deque((Lesson(*lesson) for lesson in state["lessons"]), maxlen=LATEST)
        self._since, self._table = state["since"], state["table"]


def _ms(entry: str) -> int:
    """Return when an answer was given, by its place in the log."""
    return int(entry.partition("-")[0])
