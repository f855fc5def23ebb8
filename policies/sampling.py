r"""Of which answers a label is asked, beside the audits: active learning within a budget.

    ask_budget: 0.05
    sampling: {use: "policies.sampling:Margin", at_random: 0.2}

| class                 | asks first where                                                       |
|-----------------------|------------------------------------------------------------------------|
| `VariableUncertainty` | the largest probability is small                                       |
| `Margin`              | the two largest probabilities are close                                |
| `Entropy`             | the probabilities are spread over many labels                          |
| `Random`              | anywhere: the measure of all others                                    |

Every one decides by a coin, and what it returns is the exact probability of that coin given all
that came before and the scores at hand: who divides by it gets sums over all answers, so that what
was asked biases nothing. It is never 0, and where scores decide at least `at_random * budget`.

The coin leans against what is owed: after `asked` questions in `n` answers, the share aimed at is
`budget * exp((budget * n - asked) / slack)`, with a slow correction for streams that always come
out on one side. The questions differ from the budget by a few (a standard error of about
`sqrt(slack / 2)`), however long the stream, where independent coins are off by more and more.

A factor multiplies the budget while it is in force. What is asked by then is what was to be asked:
nothing is owed for it later.

The state lives in one process and may be lost: a new one asks at random first, and finds its
threshold within some dozens of answers. It may be shared by threads.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Collection, Mapping
from math import exp, inf, isfinite, log
from threading import Lock

from online_learner.schema import Task
from policies.arguments import check_number

SLACK = 4.0  # questions by which e times the budget, or an e-th of it, is aimed at
DAMPING = 4.0  # of the lean: at 4 it is critical, and does not swing
WINDOW = 256  # answers whose uncertainties give the threshold
AT_RANDOM = 0.1  # of the budget
SOFTNESS = 0.5  # half the width of the threshold, as a share of what lies above it
RANKS = ("ranking", "generation")  # the tasks whose scores are rewards


class Random:
    """Asks anywhere, with the budget for probability; leaning, so that the budget is kept.

    Parameters
    ----------
    task
        `classification`, `regression`, `ranking` or `generation`.
    budget
        The share of answers that a label is asked of, in [0, 1]; those that are audited are not
        among them.
    slack
        How many questions too many or too few change the share that is aimed at by a factor of e.

    Raises
    ------
    ValueError
        An argument is out of its range.
    """

    def __init__(self, task: Task, budget: float, *, slack: float = SLACK) -> None:
        check_number("budget", budget, 0.0, 1.0)
        check_number("slack", slack, 1.0, inf)
        self.task = task
        self.budget = budget
        self.slack = slack
        self._owed = 0.0  # questions
        self._lean = 0.0  # what has to be owed for the budget to be kept, learned slowly
        self._lock = Lock()

    def ask(
        self, scores: Mapping[str, float], rng: random.Random, *, factor: float = 1.0
    ) -> float | None:
        """Return the probability with which it asks, where it does; None where it does not.

        Parameters
        ----------
        scores
            By label or option id: probabilities, or the rewards of a ranking. Empty where the model
            gives none; it is then asked at random.
        factor
            By how much the budget is multiplied now.
        """
        if not self.budget:
            return None
        with self._lock:
            wanted = min(self.budget * factor, 1.0)
            share = min(wanted * exp((self._owed + self._lean) / self.slack), 1.0)
            chance = self._chance(scores, share, wanted)
            asked = rng.random() < chance
            self._owed += wanted - asked
            self._lean += self._owed * wanted / (DAMPING * self.slack)
        return chance if asked else None

    def _chance(self, scores: Mapping[str, float], share: float, wanted: float) -> float:
        """Return the probability of asking now.

        Parameters
        ----------
        share
            Of all answers, what is to be asked now.
        wanted
            The same, where nothing is owed.
        """
        return share


class VariableUncertainty(Random):
    """Asks where the model is least sure: a threshold that varies, is random, and keeps the budget.

    After Zliobaite, Bifet, Pfahringer and Holmes, "Active Learning With Drifting Streaming Data",
    IEEE Transactions on Neural Networks and Learning Systems 25(1), 2014. As there, the threshold
    follows the stream (*variable uncertainty*), so that the budget is spent whether the model is
    sure of much or of little; it is drawn anew each time, so that answers beyond it have a chance
    as well (*randomised*); and a part of the questions is asked at random (*split*), so that a
    change far from the boundary is noticed.

    There, the threshold moves by fixed steps. Here it is a rank: the answer is placed among the
    last `window` answers by its uncertainty, and asked if it is among the `share` most uncertain. A
    rank is the same whatever scale the scores are on: models that are sure of everything after a
    few labels, as linear ones are, and scores that are recalibrated on the way change nothing. Of
    answers that are equally uncertain, and at the soft edge, the rank is drawn, and the probability
    is the mean over what may be drawn. So while only one label is known, or all scores are equal,
    it asks at random; it needs no start of its own. A label that is still unknown is found by the
    part that is asked at random and where it looks like nothing known; asking more at random while
    labels still come cost accuracy on real intents.

    Parameters
    ----------
    at_random
        The share of the budget that is asked at random.
    window
        How many of the last answers an answer is placed among.
    softness
        How wide the edge is, in [0, 1]: at 1 the probability falls in a line from the most
        uncertain answer to twice the share; at 0 all above the threshold is asked, and nothing
        below.
    """

    def __init__(
        self,
        task: Task,
        budget: float,
        *,
        at_random: float = AT_RANDOM,
        window: int = WINDOW,
        softness: float = SOFTNESS,
        slack: float = SLACK,
    ) -> None:
        super().__init__(task, budget, slack=slack)
        check_number("at_random", at_random, 0.01, 1.0)
        check_number("softness", softness, 0.0, 1.0)
        check_number("window", window, 10, 10_000, whole=True)
        self.at_random = at_random
        self.window = window
        self.softness = softness
        self._rewards = task in RANKS
        self._last: deque[float] = deque()  # uncertainties, as they came
        self._ordered: list[float] = []  # the same, ascending

    def uncertainty(self, shares: Collection[float]) -> float:
        """Return how unsure the model is, on any scale.

        Parameters
        ----------
        shares
            The probabilities of two labels or more.
        """
        return 1.0 - max(shares)

    def _chance(self, scores: Mapping[str, float], share: float, wanted: float) -> float:
        if len(scores) < 2:
            return share
        shares = scores.values()
        found = self.uncertainty(_softmax(shares) if self._rewards else shares)
        if not isfinite(found):
            return share
        ordered = self._ordered
        n, low = len(ordered), bisect_left(ordered, found)
        high = bisect_right(ordered, found, low) if low < n and ordered[low] == found else low
        ordered.insert(low, found)
        self._last.append(found)
        if n >= self.window:
            del ordered[bisect_left(ordered, self._last.popleft())]
        by_chance = self.at_random * wanted
        threshold = (share - by_chance) / (1.0 - by_chance) if share > by_chance else 0.0
        chosen = self._chosen((n - high) / (n + 1), (n - low + 1) / (n + 1), threshold)
        return chosen + (1.0 - chosen) * by_chance

    def _chosen(self, above: float, upto: float, threshold: float) -> float:
        """Return the mean probability over the ranks from `above` up to `upto`.

        Ranks are shares of the window: 0 is the most uncertain. Equal ones share their ranks, and a
        newcomer among `n` has `1 / (n + 1)` of its own. The probability falls in a line around the
        threshold, from 1 to 0; over all ranks, the mean is the threshold itself.
        """
        half = self.softness * (threshold if threshold < 0.5 else 1.0 - threshold)
        start, end = threshold - half, threshold + half
        if above >= end:
            return 0.0
        if upto <= start:
            return 1.0
        sure = max(start - above, 0.0)
        first, last = max(above, start), min(upto, end)
        # The integral of (end - x) / (2 half), a line, over what lies on the edge.
        edge = (last - first) * (end - (first + last) / 2.0) / (2.0 * half) if half else 0.0
        return min((sure + edge) / (upto - above), 1.0)


class Margin(VariableUncertainty):
    """Asks where the two most probable labels are closest; with two labels, as the others do.

    Where there are many labels it asks less about answers that are hopeless, and more about those
    that one label decides (Scheffer, Decomain and Wrobel, "Active Hidden Markov Models for
    Information Extraction", IDA 2001).
    """

    def uncertainty(self, shares: Collection[float]) -> float:
        """Return one minus the difference of the two largest probabilities."""
        if len(shares) == 2:
            first, second = shares
            return 1.0 - abs(first - second)
        ordered = sorted(shares)
        return 1.0 - ordered[-1] + ordered[-2]


class Entropy(VariableUncertainty):
    """Asks where the probabilities are spread most: by Shannon's entropy, in nats.

    It takes a logarithm for each label, and twice the time of the others where there are many.
    """

    def uncertainty(self, shares: Collection[float]) -> float:
        """Return the entropy of the probabilities."""
        return -sum([share * log(share) for share in shares if share > 0.0])


def _softmax(rewards: Collection[float]) -> list[float]:
    top = max(rewards)
    powers = [exp(reward - top) for reward in rewards]
    total = sum(powers)
    return [power / total for power in powers]
