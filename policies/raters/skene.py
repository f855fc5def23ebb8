"""Who can be believed when raters contradict one another? Dawid and Skene, as the words come.

Each rater says labels by a table of their own, given the true one; the truth of an answer is known
by an auditor, or told from all that is said of it; both are estimated together [1]. Here that is
done in steps [2]: with each word the truth of its answer is told anew, from the tables without what
that answer has taught, and its words are counted anew. One answer more, the one that was not looked
at for the longest, is told anew with each word: so early answers profit from what came later.

* A rater's table is shrunk to that of all, for each truth the more, the less raters differ: by the
  variance of their accuracy between them, less what chance gives (one-way analysis of variance).
* Before anything is said of an answer, a label is as likely to be true as words name it. With the
  share of answers for which it seems to be true, which [1] takes, one label can crowd out all
  others when a fifth of the raters always say it (in one of four simulated crowds).
* A word counts half after `HALF` further ones of its rater: who improves is heard again.
* Of an answer of which one rater speaks, and no auditor, nothing is learned of the rater. What
  answered is no rater: who merely agrees with it would confirm it, and it them.

What comes of it is a weight for each rater: how far they agree with the truth beyond chance
(`kappa`), as a multiple of the mean over words. Words are believed or doubted, never turned round.

References
----------
[1] A. P. Dawid, A. M. Skene. Maximum likelihood estimation of observer error-rates using the EM
    algorithm. Applied Statistics 28 (1979).
[2] R. M. Neal, G. E. Hinton. A view of the EM algorithm that justifies incremental, sparse, and
    other variants. Learning in Graphical Models (1998); stepwise: O. Cappe, E. Moulines. On-line
    expectation-maximization for latent data models. JRSS-B 71 (2009).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from online_learner.evidence import Floats
from policies.raters.confusion import Word, blank, chances, count, grown, guessed, kappa, shrunk
from policies.raters.strength import NEGLIGIBLE, STRONGEST, strengths

HALF = 300.0  # words of a rater, after which one counts half
MOST_LABELS = 200
MOST_WORDS = 10  # of one answer; where the truth is known, the latest
RIGHT, RIGHT_N = 0.7, 8.0  # of all raters before anybody has spoken, and its worth in words
LEAST_ROW = 1.0  # words that the table of all is worth at least, for each truth
BUSY = 200.0  # words of one rater that count for the table of all
CLASS_N, CLASS_HALF = 1.0, 2000.0  # answers of each truth at first; after which one counts half
NAMED_KEEP = 0.5 ** (1.0 / CLASS_HALF)  # of the words for each label, with each word
UNLIKELY = 1e-3  # of a truth, below which it is taken for impossible: memory is bounded
EVERY = 50  # words, after which all raters are compared; with very many, less often


@dataclass(slots=True)
class Answer:
    """What was said of one answer, by whom, and what is true by that.

    Parameters
    ----------
    born
        How many answers there had been.
    truth
        What an auditor says, by number.
    posterior
        With which its words are counted; None where they are not.
    """

    born: int
    words: dict[str, Word] = field(default_factory=dict)
    truth: int | None = None
    posterior: Floats | None = None


@dataclass(slots=True)
class Table:
    """A rater's counts, and how many words they have said."""

    counts: Floats
    n: int = 0


class Skene:
    """Whom to believe of those who name labels.

    Parameters
    ----------
    labels
        Names of the labels that are known; others are met.
    most, most_raters
        Answers and raters that are remembered.
    floor, most_weight
        Bounds of a weight.
    """

    def __init__(
        self,
        labels: Sequence[str] = (),
        *,
        most: int = 2000,
        most_raters: int = 1000,
        floor: float = 0.05,
        most_weight: float = 2.0,
    ) -> None:
        self.labels = {label: number for number, label in enumerate(labels)}
        self.answers: dict[str, Answer] = {}  # the least recently heard of first
        self.raters: dict[str, Table] = {}  # the least recent first
        self.weights: dict[str, float] = {}
        self.default = 1.0  # weight of those of whom nothing is known
        self._most, self._most_raters = most, most_raters
        self._bounds = floor, most_weight
        self._turns: deque[str] = deque()
        self._born = self._heard = 0
        self._classes = np.full(len(labels), CLASS_N)
        self._named = np.full(len(labels), CLASS_N)
        self._strength = np.full(len(labels), STRONGEST)
        self._usual = self._spoken_by(guessed(len(labels), RIGHT, RIGHT_N))

    # --- what is said -----------------------------------------------------------------------------

    def hear(self, name: str, rater: str, label: str, *, wrong: bool = False) -> None:
        """Take in what a rater says of an answer; their last word on it counts."""
        if (number := self._number(label)) is None:
            return
        answer = self._meet(name)
        if rater not in answer.words and len(answer.words) >= MOST_WORDS:
            if answer.truth is None:
                return
            del answer.words[next(iter(answer.words))]  # what it has taught stays
        self._forget(answer)
        table = self.raters.pop(rater, None) or Table(blank(len(self.labels)))
        self.raters[rater] = table
        table.counts *= 0.5 ** (1.0 / HALF)
        table.n += 1
        answer.words[rater] = Word(number, wrong, table.n)
        if not wrong:
            self._named = np.maximum(self._named * NAMED_KEEP, CLASS_N / 10)
            self._named[number] += 1.0
        self._learn(answer)
        if len(self.raters) > self._most_raters:
            gone = next(iter(self.raters))
            del self.raters[gone]
            self.weights.pop(gone, None)
        self._rehearse(name)
        self._heard += 1
        if self._heard % max(EVERY, len(self.raters) // 4) == 0:
            self.compare()

    def tell(self, name: str, label: str) -> None:
        """Take in what an auditor says of an answer: it is true."""
        if (number := self._number(label)) is not None:
            answer = self._meet(name)
            self._forget(answer)
            answer.truth = number
            self._learn(answer)

    def said(self, name: str) -> Answer | None:
        """Return what was said of an answer, where it is remembered."""
        return self.answers.get(name)

    def posterior(self, name: str) -> dict[str, float]:
        """Return the probability of each label to be true of an answer; nothing where unknown."""
        answer = self.answers.get(name)
        if answer is None or answer.posterior is None:
            return {}
        return dict(zip(self.labels, answer.posterior.tolist(), strict=True))

    def _number(self, label: str) -> int | None:
        found = self.labels.get(label)
        if found is None and len(self.labels) < MOST_LABELS:
            found = self.labels[label] = len(self.labels)
            labels = found + 1
            self._classes = np.append(self._classes, CLASS_N)
            self._named = np.append(self._named, CLASS_N)
            for table in self.raters.values():
                table.counts = grown(table.counts, labels)
            for answer in self.answers.values():
                if answer.posterior is not None:
                    answer.posterior = np.append(answer.posterior, 0.0)
            self._pool()
        return found

    def _meet(self, name: str) -> Answer:
        answer = self.answers.pop(name, None)
        if answer is None:
            self._born += 1
            self._classes = np.maximum(self._classes * _class_keep(1), CLASS_N / 10)
            answer = Answer(self._born)
            self._turns.append(name)
        self.answers[name] = answer
        if len(self.answers) > self._most:
            del self.answers[next(iter(self.answers))]  # what it has taught stays
        return answer

    # --- steps ------------------------------------------------------------------------------------

    def _forget(self, answer: Answer) -> None:
        """Take back what an answer has taught."""
        if answer.posterior is not None:
            self._count(answer, answer.posterior, -1.0)
            answer.posterior = None

    def _learn(self, answer: Answer) -> None:
        """Tell the truth of an answer from all tables as they are without it, and count by it."""
        words = [
            (self.raters[name], word) for name, word in answer.words.items() if name in self.raters
        ]
        labels = len(self.labels)
        if answer.truth is not None:
            posterior = np.zeros(labels)
            posterior[answer.truth] = 1.0
        elif len(words) < 2 or labels < 2:
            return
        else:
            strength = self._rows()
            logs = np.log(self._named)
            for table, word in words:
                logs = logs + np.log(chances(table.counts, word, self._usual, strength))
            posterior = np.exp(logs - logs.max())
            posterior[posterior < UNLIKELY * posterior.sum()] = 0.0
            posterior /= posterior.sum()
        answer.posterior = posterior
        self._count(answer, posterior, 1.0)

    def _count(self, answer: Answer, posterior: Floats, sign: float) -> None:
        for name, word in answer.words.items():
            if (table := self.raters.get(name)) is not None and table.n >= word.at:
                count(table.counts, word, posterior, sign * 0.5 ** ((table.n - word.at) / HALF))
        self._classes = self._classes + sign * posterior * _class_keep(self._born - answer.born)

    def _rehearse(self, but: str) -> None:
        """Tell anew the answer that was not looked at for the longest."""
        while self._turns and self._turns[0] not in self.answers:
            self._turns.popleft()
        if self._turns:
            name = self._turns.popleft()
            self._turns.append(name)
            if name != but:
                self._forget(self.answers[name])
                self._learn(self.answers[name])

    # --- who is believed --------------------------------------------------------------------------

    def compare(self) -> None:
        """Compare all raters: what is usual, how far they differ, and what each one weighs."""
        self._pool()
        strength, classes = self._rows(), self._classes / self._classes.sum()
        worth = {
            name: kappa(shrunk(table.counts, self._usual, strength), classes)
            for name, table in self.raters.items()
        }
        n = {name: max(0.0, float(table.counts.sum())) for name, table in self.raters.items()}
        total = sum(n.values())
        mean = sum(max(0.0, worth[name]) * n[name] for name in n) / total if total > 0 else 0.0
        if mean <= 0.0:
            self.weights, self.default = dict.fromkeys(worth, 1.0), 1.0
            return
        low, high = self._bounds
        self.weights = {name: min(high, max(low, k / mean)) for name, k in worth.items()}
        self.default = min(1.0, max(low, kappa(self._usual, classes) / mean))

    def _pool(self) -> None:
        """Tell how all raters speak, and how far they differ."""
        labels = len(self.labels)
        total, known = guessed(labels, RIGHT, RIGHT_N), []
        for table in self.raters.values():
            own = np.maximum(table.counts, 0.0)
            n = float(own.sum())
            if n > NEGLIGIBLE:
                total = total + own * min(1.0, BUSY / n)
                known.append(own)
        self._usual = self._spoken_by(total)
        self._strength = strengths(np.array(known), labels)

    def _rows(self) -> Floats:
        """Return how many words the table of all is worth, for each truth."""
        if self._usual.ndim == 1:
            coins: Floats = self._strength * self._classes / self._classes.sum()
            return np.maximum(LEAST_ROW, coins)
        return self._strength

    @staticmethod
    def _spoken_by(counts: Floats) -> Floats:
        if counts.ndim == 1:
            coin: Floats = counts / counts.sum()
            return coin
        rows: Floats = counts / np.maximum(counts.sum(axis=1), 1e-9)[:, None]
        return rows

    # --- memory -----------------------------------------------------------------------------------

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON; counts to three digits."""
        answers = {name: list(_packed(answer)) for name, answer in self.answers.items()}
        raters = {name: [t.n, _brief(t.counts)] for name, t in self.raters.items()}
        return {
            "labels": list(self.labels),
            "answers": answers,
            "raters": raters,
            "weights": {name: round(weight, 4) for name, weight in self.weights.items()},
            "default": self.default,
            "turns": [name for name in self._turns if name in self.answers],
            "clock": [self._born, self._heard],
            "classes": [_brief(self._classes), _brief(self._named)],
            "usual": [_brief(self._usual, 6), _brief(self._strength)],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `pack` returned."""
        self.labels = {label: number for number, label in enumerate(state["labels"])}
        shape = blank(len(self.labels)).shape
        self.answers = {
            name: Answer(
                born,
                {
                    rater: Word(label, bool(wrong), at)
                    for rater, (label, wrong, at) in words.items()
                },
                truth,
                None if posterior is None else _full(posterior, len(self.labels)),
            )
            for name, (born, words, truth, posterior) in state["answers"].items()
        }
        self.raters = {
            name: Table(np.array(counts, dtype=np.float64).reshape(shape), n)
            for name, (n, counts) in state["raters"].items()
        }
        self.weights, self.default = dict(state["weights"]), state["default"]
        self._turns = deque(state["turns"])
        self._born, self._heard = state["clock"]
        self._classes, self._named = (np.array(c, dtype=np.float64) for c in state["classes"])
        usual, strength = state["usual"]
        self._strength = np.array(strength, dtype=np.float64)
        self._usual = np.array(usual, dtype=np.float64).reshape(shape)


def _class_keep(answers: int) -> float:
    return math.pow(0.5, answers / CLASS_HALF)


def _full(posterior: Mapping[str, float], labels: int) -> Floats:
    found = np.zeros(labels)
    for number, p in posterior.items():
        found[int(number)] = p
    return found


def _packed(answer: Answer) -> Iterator[Any]:
    yield answer.born
    yield {name: [w.label, int(w.wrong), w.at] for name, w in answer.words.items()}
    yield answer.truth
    if answer.posterior is None:
        yield None
    else:  # only what is possible
        yield {int(n): round(float(answer.posterior[n]), 4) for n in answer.posterior.nonzero()[0]}


def _brief(values: Floats, digits: int = 3) -> list[float]:
    found: list[float] = np.round(values.ravel(), digits).tolist()
    return found
