"""Raters: how good labels are by majority and by weights that are found as the words come.

Each word weighs what its rater weighed before it. Real raters are those of `get_another_label`; of
its third set, HITspam, no item with a known truth was labelled. `of the honest` is the majority of
those who do not spam: what there is to be gained by leaving the others out.
"""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import models, report
from benchmarks.hostile.raters import rows_of
from benchmarks.policies import crowds
from benchmarks.policies.crowds import Crowd, Plan
from benchmarks.report import Bar
from benchmarks.texts import Absent
from online_learner.schema import Feedback, Prediction, Signal
from policies.raters import Raters
from policies.raters.scale import Scale
from policies.raters.skene import Skene
from policies.signals import Signals

GAIN, LOSS = 2.0, -0.3  # points against the majority: where raters differ, and where they do not
SPAM = 0.2
PLANS = {
    "2 labels, 20 % say anything": Plan(),
    "5 labels, 20 % say anything": Plan(labels=5),
    "2 labels, 20 % always say the same": Plan(constant=True),
    "2 labels, all are right in .75": Plan(spam=0.0, alike=0.75),
    "5 labels, all are right in .6": Plan(labels=5, spam=0.0, alike=0.6),
}
ECHO = Plan(echo=0.75)
MODEL = "model"
AGAIN = 0.8  # the weight at which somebody is heard again
FEW = 0.5  # the weight at which they are hardly heard
TURN, RIGHT = 400, 0.9  # words before somebody turns; how often they are right when honest
INVERTED, RATINGS, RATED = 0.1, 3, 2_000  # share of raters; of an answer; answers
STREAMS = ("SEA", "Hyperplane")
ROWS, SHARED = 6_000, 0.3  # rows to learn from; of these, so many are labelled by three
AUDITED = 0.3  # of all answers


@dataclass(frozen=True, slots=True)
class Found:
    """Accuracies on one crowd; `others` is the majority without those who are no good."""

    majority: float
    others: float
    batch: float
    weighed: float

    @property
    def gain(self) -> float:
        """Points by which weights are better than the majority."""
        return 100 * (self.weighed - self.majority)


def weighed(crowd: Crowd, answers: Mapping[str, str] | None = None) -> float:
    """Return the accuracy of the vote in which each word weighs what was known before it.

    Parameters
    ----------
    answers
        What a model says of each item, taken as one more voice; it has no vote.
    """
    skene = Skene(crowd.labels)
    votes: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for rater, item, label in crowd.words:
        votes[item][label] += skene.weights.get(rater, skene.default)
        if answers and skene.said(item) is None:
            skene.hear(item, MODEL, answers[item])
        skene.hear(item, rater, label)
    return crowds.accuracy(votes, crowd.truth)


def measured(crowd: Crowd) -> Found:
    """Return the accuracies on one crowd."""
    others = crowds.majority(crowd, liars=False)
    return Found(crowds.majority(crowd), others, crowds.batch(crowd), weighed(crowd))


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return the tables, and the bars."""
    seeds = range(30 if full else 6)
    labels, bars = _labels(seeds)
    tables = [labels, _echo(seeds), *_heard_again(seeds), *_upside_down(seeds)]
    learned, more = _learned(range(10 if full else 3))
    switched, most = _switched(seeds[: len(seeds) // 2])
    return "\n\n".join([*tables, learned, switched]), [*bars, *more, *most]


def _crowds(seeds: Sequence[int]) -> Iterator[tuple[str, list[Crowd], bool]]:
    for name, plan in PLANS.items():
        yield name, [crowds.planted(plan, seed)[0] for seed in seeds], plan.spam > 0
    for name in crowds.REAL:
        try:
            found = [crowds.real(name, seed) for seed in seeds[: max(1, len(seeds) // 3)]]
        except Absent:
            continue
        yield f"{name}, as it is", found, False
        spammed = [crowds.spammed(crowd, SPAM, n) for n, crowd in enumerate(found)]
        yield f"{name}, 20 % say anything", spammed, True


def _labels(seeds: Sequence[int]) -> tuple[str, list[Bar]]:
    rows, gains, losses = [], {}, {}
    for name, found, differ in _crowds(seeds):
        runs = [measured(crowd) for crowd in found]
        gain = [run.gain for run in runs]
        (gains if differ else losses)[name] = statistics.mean(gain)
        cells = [statistics.mean(column) for column in zip(*map(_cells, runs), strict=True)]
        rows.append([name, f"{len(runs)}", *(f"{cell:.3f}" for cell in cells), _with_error(gain)])
    head = ["crowd", "runs", "majority", "of the honest", "batch", "weighed", "gain, points"]
    bars = [
        Bar(f"labels, {name}: points over majority", gain, GAIN) for name, gain in gains.items()
    ] + [Bar(f"labels, {name}: points over majority", gain, LOSS) for name, gain in losses.items()]
    return report.table(head, rows), bars


def _cells(run: Found) -> tuple[float, ...]:
    return run.majority, run.others, run.batch, run.weighed


def _with_error(values: Sequence[float]) -> str:
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:+.1f}"
    return f"{mean:+.1f} +- {statistics.stdev(values) / len(values) ** 0.5:.1f}"


def _echo(seeds: Sequence[int]) -> str:
    without, with_ = [], []
    for seed in seeds:
        crowd, answers = crowds.planted(ECHO, seed)
        base = crowds.majority(crowd)
        without.append(100 * (weighed(crowd) - base))
        with_.append(100 * (weighed(crowd, answers) - base))
    return (
        "Where 20 % of the raters say what a model says that is right in .75, and the model is no "
        f"rater: {_with_error(without)} points over the majority. Where it is taken as one more "
        f"voice: {_with_error(with_)}. So it is none."
    )


# --- who turns ------------------------------------------------------------------------------------


def words_until(seed: int, *, improves: bool, most: int = 3_000) -> int:
    """Return after how many words one who turns is heard again, or hardly heard any more.

    Before, they have said `TURN` words: anything, or as an honest rater.
    """
    rng, skene = random.Random(seed), Skene(["0", "1"])
    said, turned = 0, 0
    for number in range(100 * most):
        truth = rng.choice("01")
        for rater in rng.sample(range(20), 4):
            honest = rater > 0 or (said >= TURN) == improves
            right = rng.random() < (RIGHT if honest else 0.5)
            skene.hear(str(number), f"{rater}", truth if right else "10"[int(truth)])
            said += rater == 0
        weight = skene.weights.get("0", 1.0)
        turned = said - TURN
        if turned > 0 and (weight >= AGAIN if improves else weight <= FEW):
            break
        if turned >= most:
            break
    return turned


def _heard_again(seeds: Sequence[int]) -> Iterator[str]:
    again = [words_until(seed, improves=True) for seed in seeds]
    hardly = [words_until(seed, improves=False) for seed in seeds]
    yield (
        f"Who said anything for {TURN} words, and is right in {RIGHT:.0%} from then on, weighs "
        f"{AGAIN:g} again after {_middle(again)} words; who was right and says anything from then "
        f"on weighs {FEW:g} after {_middle(hardly)}."
    )


def _middle(values: Sequence[int]) -> str:
    return f"{statistics.median(values):,.0f} (at most {max(values):,})"


# --- scales ---------------------------------------------------------------------------------------


def ratings_until(seed: int, *, raters: int = 40) -> tuple[list[int], int, int]:
    """Return after how many ratings each inverted scale is found, how many not, and false ones."""
    rng, scale = random.Random(seed), Scale()
    odd = round(INVERTED * raters)
    lenient = [rng.gauss(0.0, 0.1) for _ in range(raters)]
    found: dict[int, int] = {}
    for number in range(RATED):
        worth = rng.betavariate(2.0, 2.0)
        for rater in rng.sample(range(raters), RATINGS):
            meant = worth + lenient[rater] + rng.gauss(0.0, 0.2)
            stars = max(0, min(4, round(4 * meant)))
            given = (4 - stars if rater < odd else stars) / 4
            scale.hear(str(number), str(rater), given)
            if rater not in found and scale.raters[str(rater)].inverted:
                found[rater] = scale.raters[str(rater)].n
    true = [n for rater, n in found.items() if rater < odd]
    return true, odd - len(true), len(found) - len(true)


def _upside_down(seeds: Sequence[int]) -> Iterator[str]:
    runs = [ratings_until(seed) for seed in seeds]
    found = [n for true, _, _ in runs for n in true]
    missed, false = sum(run[1] for run in runs), sum(run[2] for run in runs)
    yield (
        f"Of 40 raters with 1 to 5 stars, {INVERTED:.0%} read the scale upside down; {RATINGS} "
        f"rate each answer. They are found after {_middle(found)} ratings of their own; "
        f"{missed} of {missed + len(found)} are not found within {RATED:,} answers. Of the "
        f"{round(40 * (1 - INVERTED)) * len(runs)} others {false} are taken for such."
    )


# --- learning -------------------------------------------------------------------------------------


def learned(stream: str, seed: int, *, spam: float, weigh: bool) -> float:
    """Return the accuracy of a learner on true labels, in the second half of a stream.

    It learns what a crowd says, each word with the weight that was known before.
    """
    rng, skene, model = random.Random(seed), Skene(["false", "true"]), models.logistic()
    right = [0.5 if n < spam * 40 else rng.uniform(0.75, 0.95) for n in range(40)]
    hits = 0
    for number, (features, truth) in enumerate(rows_of(stream, seed, ROWS)):
        if number >= ROWS // 2:
            hits += model.predict_one(features) == truth
        for rater in rng.sample(range(40), 3 if rng.random() < SHARED else 1):
            label = truth == (rng.random() < right[rater])
            weight = skene.weights.get(f"{rater}", skene.default) if weigh else 1.0
            model.learn_one(features, label, w=weight)
            skene.hear(str(number), f"{rater}", str(label).lower())
    return hits / (ROWS - ROWS // 2)


def _learned(seeds: Sequence[int]) -> tuple[str, list[Bar]]:
    rows, bars = [], []
    for spam in (0.4, 0.0):
        for stream in STREAMS:
            pairs = [
                [learned(stream, seed, spam=spam, weigh=weigh) for weigh in (False, True)]
                for seed in seeds
            ]
            raw, better = (statistics.mean(column) for column in zip(*pairs, strict=True))
            gain = [100 * (b - a) for a, b in pairs]
            name = f"{stream}, {spam:.0%} say anything"
            rows.append([name, f"{len(pairs)}", f"{raw:.3f}", f"{better:.3f}", _with_error(gain)])
            bars.append(Bar(f"learner, {name}: points over raw", statistics.mean(gain), LOSS))
    head = ["learner", "runs", "raw labels", "weighed", "gain, points"]
    return report.table(head, rows), bars


# --- the switch -----------------------------------------------------------------------------------


def truths_until_on(plan: Plan, seed: int, *, single: bool) -> int | None:
    """Return after how many truths the lens weighs; None where it does not.

    Parameters
    ----------
    single
        Whether the auditor comes first, as with gold questions: each word is judged by itself.
    """
    crowd, _ = crowds.planted(plan, seed)
    lens, table = Raters("classification", crowd.labels), Signals("classification", [*crowd.labels])
    rng, told, left = random.Random(seed), 0, dict[str, int]()
    for _, item, _ in crowd.words:
        left[item] = left.get(item, 0) + 1
    audited = {item for item in crowd.truth if rng.random() < AUDITED}
    asked: set[str] = set()
    for rater, item, label in crowd.words:
        left[item] -= 1
        if single and item in audited and item not in asked:
            asked.add(item)
            lens.hear(_signal(table, item, "auditor", crowd.truth[item], auditor=True))
            told += 1
        lens.hear(_signal(table, item, rater, label))
        if not single and item in audited and not left[item]:
            lens.hear(_signal(table, item, "auditor", crowd.truth[item], auditor=True))
            told += 1
        if lens.table():
            return told
    return None


def _signal(table: Signals, item: str, source: str, label: str, *, auditor: bool = False) -> Signal:
    prediction = Prediction(model="m", features={}, output="0", version=1, lineage=1, step=1)
    feedback = Feedback(
        kind="correction", value=label, source=source, auditor=auditor, prediction_id=item
    )
    return Signal(feedback, prediction, table.said(feedback, prediction), item, 0)


def _switched(seeds: Sequence[int]) -> tuple[str, list[Bar]]:
    rows, false = [], 0
    ways: dict[str, Callable[[Plan, int], int | None]] = {
        "audits": lambda plan, seed: truths_until_on(plan, seed, single=False),
        "gold": lambda plan, seed: truths_until_on(plan, seed, single=True),
    }
    for name, plan in list(PLANS.items()):
        for way, work in ways.items():
            found = [n for seed in seeds if (n := work(plan, seed)) is not None]
            middle = f"{np.median(found):.0f}" if found else "-"
            rows.append([name, way, f"{len(found)} of {len(seeds)}", middle])
            false += len(found) if not plan.spam else 0
    text = report.table(["crowd", "truth by", "weighed", "after, truths (median)"], rows)
    count = sum(not plan.spam for plan in PLANS.values()) * len(ways) * len(seeds)
    bar = Bar("weighing begun where raters are alike, of runs", false / count, 0.05, at_most=True)
    about = f"{AUDITED:.0%} of {crowds.ITEMS:,} answers have an auditor's word:"
    return f"{about}\n\n{text}", [bar]
