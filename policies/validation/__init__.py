"""Whom to believe, and how far: each signal is looked at, in order, before it becomes a lesson.

Set aside, with the reason, where operators list and release it:

| reason          | what                                                                          |
|-----------------|-------------------------------------------------------------------------------|
| `duplicate`     | the same source says the same of the same answer, under another key           |
| `flip`          | a source has changed its mind on one answer more than `flips` times           |
| `contradiction` | a source says opposite things in one payload, or of an equal input within     |
|                 | `breath_s` seconds                                                            |
| `burst`         | a source speaks `burst` times as often as it used to, and as others do        |

What is not set aside is learned, with another weight than the table of signals says:

* *share*: in a decaying window of 1,000 lessons a rater may have `share` times what raters have on
  average, however much they say. Half of that counts in full, the rest less and less. With as few
  raters as `share`, nobody is cut. What is cut from some is added to all, up to twice their weight:
  else a crowd whose busiest few say most things would be learned from at half the pace.
* *reputation*: who disagrees with what answers, with auditors or with other raters, more than the
  crowd of the moment does, is believed less, down to `floor` (see `reputation`). Where observers
  find that the world has moved, it may be suspended for a time.

An auditor is under none of this, and the system itself under neither of these two, nor under
`burst`. A source `key:...` is the application: it named nobody, so that nothing is known of who
speaks, and nothing is held against it. An application with users passes `user_id`; else one of them
can teach whatever they like.

All of it follows from the stream alone, so that a replay gives the same bits; time is that of its
entries. What was released is not looked at again.

Its price: a group of raters to whom the truth is another one looks like liars who collude. Those
who differ from the answers on up to a fifth more of the inputs than others do lose nothing; beyond,
they are hardly heard, unless auditors agree with them, they have a model of their own, or
`floor: null` believes everybody alike.

In the configuration of a model, with what is to differ from the defaults:

    validation: policies.validation:Accept
    validation: {use: policies.validation:Validation, share: 3.0, burst: null}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from online_learner.schema import Signal, Task
from policies.validation.bursts import Bursts
from policies.validation.opinions import Opinions, agrees, lean_of, question_of
from policies.validation.raters import Rater, Raters
from policies.validation.reputation import Reputation

LEAST = 0.01  # of its weight, that a lesson keeps in any case
LEAST_SHARE = 2.0  # weights in the window that everybody may have
MOST_LIFT = 2.0  # times what a lesson weighs where shares are cut
FAR = 3.0  # usual distances from the number served that still agree
FAR_N = 40.0  # numbers that the usual distance is made of


class Accept:
    """Believes everybody."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def look(self, _signal: Signal) -> str | None:
        """Return None: nothing is set aside."""
        return None

    def weigh(self, _signal: Signal, weight: float) -> float:
        """Return the weight."""
        return weight

    def state(self) -> dict[str, Any]:
        """Return nothing: it remembers nobody."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the state that `state` returned."""


class Validation:
    """The default policy. A rule is switched off with None (`null` in YAML).

    Parameters
    ----------
    task
        `classification`, `regression`, `ranking` or `generation`.
    share
        How many times the average rater's share one may have.
    floor
        The least that reputation leaves of a weight, above 0.
    flips
        How often a source may change its mind on one answer.
    breath_s
        For how many seconds nobody may contradict themselves on equal inputs.
    burst
        How many times the usual rate is too much.
    most
        How many raters are remembered, and how many answers: 100 to 200 bytes of each checkpoint.

    Raises
    ------
    ValueError
        A parameter is outside its range.
    """

    raters: Raters
    reputation: Reputation
    opinions: Opinions
    bursts: Bursts
    distances: tuple[float, float]  # of numbers said from those served: their sum, and count
    suspended_until_ms: int  # by the stream's time

    def __init__(
        self,
        task: Task,
        *,
        share: float | None = 2.0,
        floor: float | None = 0.03,
        flips: int | None = 3,
        breath_s: float | None = 10.0,
        burst: float | None = 10.0,
        most: int = 1000,
    ) -> None:
        if share is not None and share < 1:
            raise ValueError("share is a multiple of the average rater's: 1 or more")
        if floor is not None and not 0 < floor <= 1:
            raise ValueError("floor is above 0, and at most 1")
        if flips is not None and flips < 0:
            raise ValueError("flips is 0 or more")
        if breath_s is not None and breath_s <= 0:
            raise ValueError("breath_s is above 0; null switches the rule off")
        if burst is not None and burst < 1:
            raise ValueError("burst is a multiple of the usual rate: 1 or more")
        if most < 1:
            raise ValueError("most is 1 or more")
        self.task = task
        self.share = share
        self.floor = floor
        self.flips = flips
        self.breath_s = breath_s
        self.burst = burst
        self.most = most
        self._forget()

    def look(self, signal: Signal) -> str | None:
        """Return why a signal is to be set aside, or None where it may be learned."""
        feedback = signal.feedback
        nobody = feedback.source.startswith("key:") and not feedback.auditor
        if nobody or feedback.kind == "implicit":
            return None
        if not _exempt(signal) and self.burst is not None:
            rater = self.raters.meet(feedback.source)
            if self.bursts.too_much(rater, signal.at_ms):
                return "burst: this source speaks far more often than it used to, and than others"
        lean = lean_of(signal.said, self.task)
        question = None
        if self.breath_s is not None:
            question = question_of(feedback, signal.prediction, self.task)
        reason = self.opinions.hear(feedback, signal.answer, lean, question, signal.at_ms)
        return None if feedback.auditor else reason

    def weigh(self, signal: Signal, weight: float) -> float:
        """Return what a lesson is to weigh, and count it."""
        given = self._weigh(signal, weight)
        if signal.at_ms < self.suspended_until_ms:
            self.reputation.forgive()
        return given

    def suspend(self, until_ms: int) -> None:
        """Hold nothing against anybody by reputation, until then by the stream's own time.

        What was held against them before is forgiven: who was first to see that the world has moved
        disagreed with what answered. The crowd is heard all along, so that afterwards it is known
        what is usual now. Shares, and all that sets signals aside, stay as they are.

        Parameters
        ----------
        until_ms
            In milliseconds since the epoch; an earlier one than was told before changes nothing.
        """
        if until_ms > self.suspended_until_ms:
            self.suspended_until_ms = until_ms
            self.reputation.forgive()

    def _weigh(self, signal: Signal, weight: float) -> float:
        if signal.feedback.auditor:
            self._audit(signal)
        if _exempt(signal):
            return weight
        raters = self.raters
        rater = raters.meet(signal.feedback.source)
        news, taught = raters.news(rater), raters.taught(rater)
        wanted = weight
        if self.floor is not None:
            wanted *= self.reputation.worth(rater)
            self._compare(rater, signal, news)
        given = wanted if self.share is None else self._share(taught, wanted)
        raters.teach(rater, given, wanted, news, taught)
        return given * min(MOST_LIFT, raters.lift)

    def _share(self, taught: float, weight: float) -> float:
        """Return what the share of a rater who has taught so much leaves of a weight."""
        raters, share = self.raters, self.share or 0.0
        most = max(LEAST_SHARE, share * raters.weight / max(1.0, raters.active))
        left = min(weight * min(1.0, 2.0 - 2.0 * taught / most), most - taught)
        return max(LEAST * weight, left)

    # --- reputation -----------------------------------------------------------------------------

    def _compare(self, rater: Rater, signal: Signal, news: float) -> None:
        """Compare who speaks with an auditor, the other raters of the answer, and the answer."""
        others = self.opinions.of(signal.answer)
        if len(others) > (signal.feedback.source in others):
            lean = lean_of(signal.said, self.task)
            found = [
                (other.auditor, self.raters.known.get(name), agreed)
                for name, other in others.items()
                if name != signal.feedback.source
                and (agreed := agrees(lean, other.lean)) is not None
            ]
            audits = [agreed for auditor, _, agreed in found if auditor]
            if audits:
                self.reputation.audited(rater, agreed=audits[-1])
                return
            peers = [(peer, agreed) for _, peer, agreed in found if peer is not None]
            if peers:
                self.reputation.compare_peers(rater, peers, news)
        with_answer = self._agreement(signal)
        if with_answer is not None:
            self.reputation.compare(rater, signal.feedback.kind, with_answer, news)

    def _audit(self, signal: Signal) -> None:
        """Compare those who spoke of an answer before with the auditor who speaks now."""
        lean = lean_of(signal.said, self.task)
        for source, opinion in self.opinions.of(signal.answer).items():
            rater, agreed = self.raters.known.get(source), agrees(lean, opinion.lean)
            if rater is not None and agreed is not None and self.floor is not None:
                self.reputation.audited(rater, agreed=agreed)

    def _agreement(self, signal: Signal) -> float | None:
        """Return how a signal agrees with what answered, or None where that says nothing."""
        prediction, said = signal.prediction, signal.said
        answer = prediction.output
        if prediction.withheld or prediction.explored or answer is None:
            return None
        if self.task == "regression":
            return self._nearness(answer, said.right)
        if self.task != "classification":
            return None
        if said.right is not None:
            return float(said.right == answer)
        return 0.0 if said.wrong is not None and said.wrong == answer else None

    def _nearness(self, answer: Any, right: Any) -> float | None:
        """Return 1 where a number is as near to what answered as those of others, else less."""
        if not isinstance(right, int | float) or not isinstance(answer, int | float):
            return None
        distance = abs(float(right) - float(answer))
        total, count = self.distances
        far = FAR * total / count if total else distance
        keep = 1.0 - 1.0 / FAR_N
        self.distances = (total * keep + min(distance, far), count * keep + 1.0)
        return far / distance if distance > far else 1.0

    # --- memory ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what is remembered, as plain JSON; nothing where nothing is."""
        until_ms = self.suspended_until_ms
        if not self.raters.known and not self.opinions.answers and not until_ms:
            return {}
        return {
            "raters": self.raters.pack(),
            "reputation": self.reputation.pack(),
            "opinions": self.opinions.pack(),
            "bursts": self.bursts.pack(),
            "distances": list(self.distances),
            **({"suspended_until_ms": until_ms} if until_ms else {}),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the state that `state` returned."""
        self._forget()
        if state:
            self.raters = Raters.unpack(state["raters"], most=self.most)
            self.reputation = Reputation.unpack(state["reputation"], floor=self.reputation.floor)
            self.opinions.restore(state["opinions"])
            self.bursts = Bursts(self.bursts.times, *state["bursts"])
            total, count = state["distances"]
            self.distances = (total, count)
            self.suspended_until_ms = state.get("suspended_until_ms", 0)

    def _forget(self) -> None:
        flips = 1 << 30 if self.flips is None else self.flips
        self.raters = Raters(self.most)
        self.reputation = Reputation(self.floor or 1.0)
        self.opinions = Opinions(flips, self.breath_s or 0.0, self.most)
        self.bursts = Bursts(self.burst or 0.0)
        self.distances = (0.0, 0.0)
        self.suspended_until_ms = 0


def _exempt(signal: Signal) -> bool:
    """Tell whether somebody may say as much as they like, and is believed."""
    return signal.feedback.auditor or signal.feedback.source.startswith(("key:", "system:"))
