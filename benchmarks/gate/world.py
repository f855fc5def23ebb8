"""A small world around the gate's own code: who answers, who rates, and what the judge makes of it.

The records are real, and so are the table of signals, the judge and the policy, wired as the
gatekeeper wires them. There is no store and no model, and the clock ticks once a question.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from online_learner.evidence import Terms
from online_learner.journal import _audit
from online_learner.judge import Judge
from online_learner.promote import CROWNED
from online_learner.schema import Aliases, Ask, Audit, Feedback, Prediction, Shadow, Verdict
from online_learner.settings import GuardsSpec
from policies.promotion import Leash, Sequential
from policies.signals import Signals

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Rng = np.random.Generator
Rates = tuple[float, float]  # where the champion was wrong, and where it was right

START_S = 1_700_000_000
DEADLINE_S = 1_000.0
NEVER, ALWAYS = (0.0, 0.0), (1.0, 1.0)
TERMS = Terms(gamma=1.5, rater_share=0.1)  # the defaults of a model's configuration
GUARDS = GuardsSpec()
LEASH, COLD = Leash(), Aliases(champion=1)
SEED = 13


# --- what there is ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pair:
    """How often a champion is right, and a candidate beside it.

    Parameters
    ----------
    gain
        By how much the candidate is right more often.
    differ
        The share of questions on which just one of them is right.
    accuracy
        How often the champion is.
    """

    gain: float
    differ: float = 0.2
    accuracy: float = 0.8
    labels: int = 2

    def draw(self, rng: Rng, n: int) -> tuple[Ints, Ints, Ints]:
        """Draw the truth, the champion's answer and the candidate's, shape `(n,)` each."""
        u, win = rng.random(n), (self.differ + self.gain) / 2
        both = (u >= self.differ) & (u < win + self.accuracy)
        right = np.stack([both | ((u >= win) & (u < self.differ)), both | (u < win)])
        truth = rng.integers(0, self.labels, n)
        slips = rng.integers(1, self.labels, (2, n))
        champion, candidate = (truth + np.where(right, 0, slips)) % self.labels
        return truth, champion, candidate


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who says something, of which answers, when, and what.

    Parameters
    ----------
    audit
        The share of questions that a coin draws.
    audited, queued, volunteered
        How many audits are answered; how many of the other questions are asked about because they
        are uncertain, and answered; on how many of the rest somebody says something unasked.
    delays
        The longest time until it is said, in questions; the shortest is a tenth of it.
    opinions
        How many raters speak of one answer, each.
    kind
        What they send.
    malice
        The share of raters that skip all audits but those on which both differ, and call the
        candidate right there; `eves` in number.
    """

    raters: int = 40
    audit: float = 1.0
    audited: Rates = ALWAYS
    queued: Rates = NEVER
    volunteered: Rates = NEVER
    delays: Rates = (0.0, 0.0)
    opinions: int = 1
    kind: Literal["correction", "thumbs"] = "correction"
    malice: float = 0.0
    eves: int = 4
    auditor: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """Two models, a crowd, and the configuration of the gate, for about so many audits."""

    pair: Pair
    crowd: Crowd = Crowd()
    audits: int = 1_000
    terms: Terms = TERMS
    policy: Sequential = LEASH
    aliases: Aliases = COLD

    @property
    def questions(self) -> int:
        """How many questions bring that many audits."""
        return round(self.audits / self.crowd.audit)

    @property
    def zeal(self) -> float:
        """The share of labels that are malicious, of the audits on which both differ.

        Every rater gives as many labels as any other, and the malicious give all of theirs there.
        """
        malice = self.crowd.malice
        return malice / (malice + (1.0 - malice) * self.pair.differ)


# --- what chance decides ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is answered, and about which answers somebody is asked, shape `(n,)` each."""

    truth: Ints
    champion: Ints
    candidate: Ints
    audited: Bools
    queued: Bools

    @classmethod
    def of(cls, world: World, rng: Rng) -> Drawn:
        """Draw it."""
        n = world.questions
        truth, champion, candidate = world.pair.draw(rng, n)
        audited = rng.random(n) < world.crowd.audit
        queued = rng.random(n) < np.where(champion != truth, *world.crowd.queued)
        return cls(truth, champion, candidate, audited, queued & ~audited)

    def questions(self, role: str) -> list[Prediction]:
        """Return the records, the candidate in the shadow of this role."""
        reasons = np.select([self.audited, self.queued], ["audit", "uncertain"], "").tolist()
        rows = zip(self.champion.tolist(), self.candidate.tolist(), reasons, strict=True)
        return [_question(*row, role) for row in rows]


@lru_cache(maxsize=1024)
def _question(champion: int, candidate: int, reason: str, role: str) -> Prediction:
    said = {"champion": champion, role: candidate}
    ask = Ask.model_validate({"reason": reason, "probability": 1.0}) if reason else None
    shadows = {
        name: Shadow(version=1, lineage=1, step=1, output=output) for name, output in said.items()
    }
    place = {"version": 1, "lineage": 1, "step": 1, "generation": 1}
    return Prediction(
        model="world", features={}, output=champion, ask=ask, shadows=shadows, **place
    )


class Told(NamedTuple):
    """One signal: of which question, by whom, and what it says."""

    question: int
    rater: int
    value: bool | int


def tell(world: World, rng: Rng, drawn: Drawn) -> dict[int, list[Told]]:
    """Draw what is said, by the number of the question after which it comes."""
    crowd, n = world.crowd, world.questions
    wrong, differ = drawn.champion != drawn.truth, drawn.champion != drawn.candidate
    evil = drawn.audited & differ & (rng.random(n) < world.zeal)
    answered = np.where(wrong, *crowd.audited), np.where(wrong, *crowd.volunteered)
    heard = drawn.queued | evil | (rng.random(n) < np.where(drawn.audited, *answered))
    question = np.repeat(np.flatnonzero(heard), crowd.opinions)
    delay = rng.uniform(0.1, 1.0, len(question)) * np.where(wrong, *crowd.delays)[question]
    rater = rng.integers(crowd.raters, size=n)[question] + np.arange(len(question)) % crowd.opinions
    rater = np.where(evil[question], -1 - rater % crowd.eves, rater % crowd.raters)
    value = np.where(evil, drawn.candidate, drawn.truth)
    value = (drawn.champion == value if crowd.kind == "thumbs" else value)[question]
    found = defaultdict(list)
    rows = zip(question.tolist(), rater.tolist(), value.tolist(), strict=True)
    for after, row in zip((question + delay.astype(np.int64)).tolist(), rows, strict=True):
        found[after].append(Told(*row))
    return found


# --- what the gate makes of it ------------------------------------------------------------------


class Gate:
    """The judge and a policy, wired as `promote.Gatekeeper` wires them; a mistake is a subclass."""

    judges: type[Judge] = Judge

    def __init__(self, world: World) -> None:
        self.aliases, self.policy = world.aliases, world.policy
        self.kind, self.auditor = world.crowd.kind, world.crowd.auditor
        self.signals = Signals("classification", list(range(world.pair.labels)))
        self.judge = self.judges(terms=world.terms, deadline_s=DEADLINE_S)
        self.judge.open(self.policy.duels(self.aliases), self.aliases)

    def ask(self, entry: str, question: Prediction) -> None:
        """Log a question; only what the coin drew comes to the judge."""
        packed = _audit(question, ())
        if packed:
            self.judge.see_audit(entry, Audit.model_validate_json(packed))

    def hear(self, entry: str, question: Prediction, told: Told) -> None:
        """Take in a signal."""
        source = f"human:{told.rater}"
        feedback = Feedback(kind=self.kind, value=told.value, source=source, prediction_id="")
        said = self.signals.said(feedback, question)
        self.judge.see_signal(entry, said, rater=source, auditor=self.auditor)

    def settle(self, now: float) -> Verdict | None:
        """Settle what can settle, and decide after each; returns the verdict of a promotion."""
        for _ in self.judge.settle(now=now):
            move = self.policy.decide(self.judge.case(self.aliases, ()))
            if move is None or move.verdict is None:
                continue
            if move.verdict.action in CROWNED:
                return move.verdict
            self.judge.restart(move.restart)
            self.aliases = move.aliases
            self.judge.open(self.policy.duels(self.aliases), self.aliases)
        return None


class Outcome(NamedTuple):
    """After how many settled audits the candidate was promoted, and why; None: it never was."""

    after: int | None = None
    verdict: Verdict | None = None


def entry(question: int) -> str:
    """Return the id of a question in the stream."""
    return f"{(START_S + question) * 1000}-0"


def live(world: World, seed: int, gate: type[Gate] = Gate) -> Outcome:
    """Live through a world once, until the candidate is promoted or everything has settled."""
    rng, it = np.random.default_rng([SEED, seed]), gate(world)
    drawn = Drawn.of(world, rng)
    questions = drawn.questions(world.policy.duels(world.aliases)[0].challenger)
    told = tell(world, rng, drawn)
    for now in range(len(questions) + int(DEADLINE_S) + 2):
        if now < len(questions):
            it.ask(entry(now), questions[now])
        for signal in told.get(now, ()):
            it.hear(entry(signal.question), questions[signal.question], signal)
        verdict = it.settle(START_S + now)
        if verdict is not None:
            return Outcome(it.judge.answered + it.judge.unanswered, verdict)
    return Outcome()


def lives(world: World, runs: int, gate: type[Gate] = Gate) -> list[Outcome]:
    """Live through a world so many times."""
    return [live(world, seed, gate) for seed in range(runs)]


def promoted(outcomes: Sequence[Outcome]) -> float:
    """Return the share of lives in which the candidate was promoted."""
    return sum(outcome.after is not None for outcome in outcomes) / len(outcomes)
