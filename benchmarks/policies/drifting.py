"""Drift: how soon it is found, and how seldom where there is none, as the system would feed it.

A River model answers, one row a second, and learns in blocks what is audited: all, or a tenth that
a coin draws. Audits settle, answers are seen, and a few people speak unasked, mostly where an
answer was wrong. The lens is the real one, with its defaults.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from river import drift
from river.datasets import synth

from benchmarks import models, report, streams
from benchmarks.report import Bar
from benchmarks.streams import Row
from online_learner.learners.river import RiverLearner
from online_learner.schema import (
    Example,
    Feedback,
    Prediction,
    Raised,
    Said,
    Settled,
    Sighting,
    Signal,
)
from policies.drift import Drift
from policies.drift.words import group_of

N, WARM, EVERY = 15_000, 300, 10  # rows; learned before; answered before what came is learned
SEEDS, MORE_SEEDS = 3, 20
SEED = 40
AUDITED = 0.1
SPEAKS = {True: 0.02, False: 0.1}  # by whether the answer was right
SHIFTED = 0.75  # of those who ask after a shift, above the middle of one feature
MIDDLE = 5.0  # of SEA's features
MOST_FALSE = 3.0  # alarms about the loss in 100,000 answers where nothing changes
BEGINS_MS = 1_000_000_000_000  # when the stream begins
PLACE: dict[str, Any] = {"model": "web", "version": 1, "lineage": 1, "step": 1}
BEGINS = (
    "A change begins where 2 % of the rows are of what comes: in abrupt streams 100 rows before "
    f"its middle, in gradual ones {N // 6:,}."
)
REMARK = (
    "A learner that follows makes a change short: where it recovers before an alarm, none is "
    "raised. Where the same is asked, answers tell of a change only by what was learned since."
)
LEARNERS = {"Agrawal": models.hoeffding}
STILL: dict[str, Callable[[int], Any]] = {
    "SEA": lambda seed: streams.sea(0, seed),
    "Agrawal": lambda seed: streams.agrawal(0, seed),
    "Sine": lambda seed: streams.sine(0, seed),
    "Hyperplane": lambda seed: synth.Hyperplane(seed=seed, n_features=10, mag_change=0.0),
}


@dataclass(slots=True)
class Told:
    """What was said of one stream: alarms, each with the row at which it came, and all losses."""

    alarms: list[tuple[int, Raised]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def first(self, group: str, after: int, before: int) -> int | None:
        """Return how many rows after `after` a group raised its first alarm, if before `before`."""
        found = (t - after for t, a in self.alarms if kind_of(a) == group)
        return next((t for t in found if 0 <= t < before - after), None)

    def count(self, group: str, until: int) -> int:
        """Return how many alarms a group raised before a row."""
        return sum(t < until and kind_of(alarm) == group for t, alarm in self.alarms)


def kind_of(alarm: Raised) -> str:
    """Return what an alarm is about: `loss`, `answers`, `features`, or what people say unasked."""
    return "unasked" if alarm.about == "volunteered loss" else group_of(alarm.about)


def play(rows: Sequence[Row], stream: str, seed: int, *, audited: float = 1.0) -> Told:
    """Answer a stream, and let two lenses look on: one at audits and answers, one at people.

    Parameters
    ----------
    audited
        The share of answers that is labelled, learned and settled. Only where it is all of them,
        answers are looked at, and people heard: the answers are the same as without audits then.
    """
    rng, told = np.random.default_rng([SEED, seed]), Told()
    make = LEARNERS.get(stream.partition(",")[0], models.logistic)
    learner = RiverLearner(make(), task="classification", labels=models.LABELS)
    learner.learn([Example(features=x, target=y) for x, y in rows[:WARM]])
    lens, people = (Drift("classification", models.LABELS) for _ in range(2))
    for start in range(WARM, len(rows), EVERY):
        block, lessons = rows[start : start + EVERY], []
        answers = learner.predict([x for x, _ in block])
        for t, ((x, y), answer) in enumerate(zip(block, answers, strict=True), start):
            at_ms, right = BEGINS_MS + 1000 * t, answer.output == y
            told.losses.append(float(not right))
            if audited == 1.0:
                fields = {"features": x, "output": answer.output, "scores": answer.scores}
                prediction = Prediction(**fields, **PLACE)
                lens.see(Sighting(f"{at_ms}-0", at_ms, prediction))
                if rng.random() < SPEAKS[right]:
                    people.hear(_correction(prediction, y, at_ms))
            if rng.random() < audited:
                lessons.append(Example(features=x, target=y))
                scores = {"champion": float(right)}
                lens.settle(f"{at_ms}-0", Settled(answered=True, scores=scores))
            told.alarms += [(t, a) for one in (lens, people) for a in one.alarms()]
        learner.learn(lessons)
    return told


def _correction(prediction: Prediction, label: bool, at_ms: int) -> Signal:
    feedback = Feedback(kind="correction", value=label, source="human:ada", prediction_id="")
    return Signal(feedback, prediction, Said(right=label), f"{at_ms}-0", at_ms)


# --- streams --------------------------------------------------------------------------------------


def shifted(n: int, seed: int) -> list[Row]:
    """Return SEA, where at each third others begin to ask: one feature is larger, or as before."""
    rng, found = np.random.default_rng([SEED, seed, 1]), list[Row]()
    for x, y in streams.sea(0, seed):
        above = len(found) // (n // 3) == 1 and rng.random() < 2 * SHIFTED - 1
        if not above or x[0] > MIDDLE:
            found.append(({str(k): float(v) for k, v in x.items()}, bool(y)))
        if len(found) == n:
            break
    return found


def still(stream: str, n: int, seed: int) -> list[Row]:
    """Return a stream in which nothing changes."""
    taken = itertools.islice(STILL[stream](seed), n)
    return [({str(k): float(v) for k, v in x.items()}, bool(y)) for x, y in taken]


def changes(stream: str) -> list[int]:
    """Return at which rows the changes of a stream begin, and where it ends.

    Each begins where 2 % of the rows are of what comes: as long before its middle as it takes.
    """
    early = N // 6 if "gradual" in stream else streams.ABRUPT if "abrupt" in stream else 0
    return [N // 3 - early, 2 * N // 3 - early, N]


# --- what is measured -----------------------------------------------------------------------------


def delays(stream: str, found: Sequence[Told], group: str) -> list[int | None]:
    """Return after how many rows each change was found, None where it was not."""
    moments = changes(stream)
    return [
        told.first(group, begins, ends)
        for told in found
        for begins, ends in itertools.pairwise(moments)
    ]


def _cells(stream: str, told: Sequence[Told], group: str) -> list[str]:
    """Return how many changes were found, how late, and how many alarms came before any."""
    early = sum(one.count(group, changes(stream)[0]) for one in told)
    return [*_late(delays(stream, told, group)), str(early)]


def _late(found: Sequence[int | None]) -> list[str]:
    """Return how many were found, and of those the mean delay, and what 90 % stay below."""
    times = [time for time in found if time is not None]
    share = f"{len(times)} of {len(found)}"
    if not times:
        return [share, "-", "-"]
    error = np.std(times) / np.sqrt(len(times))
    return [share, f"{np.mean(times):,.0f} ± {error:,.0f}", f"{np.quantile(times, 0.9):,.0f}"]


def _per_100000(count: int, events: int) -> str:
    return f"{1e5 * count / events:.2f} ± {1e5 * np.sqrt(count) / events:.2f}"


WATCHED = (  # what is watched, by group, and the share that is audited
    ("loss, all audited", "loss", 1.0),
    ("loss, a tenth audited", "loss", AUDITED),
    ("loss, people unasked", "unasked", 1.0),
    ("answers", "answers", 1.0),
    ("features", "features", 1.0),
)


def section(full: bool) -> tuple[str, list[Bar]]:
    """Measure delays and false alarms; returns tables and bars."""
    seeds = range(MORE_SEEDS if full else SEEDS)
    moving = [name for name in streams.STREAMS if "Hyperplane" not in name]
    drawn = {name: [streams.rows(name, N, seed) for seed in seeds] for name in moving}
    told = {name: _played(name, found, seeds) for name, found in drawn.items()}
    rows = [
        [f"{stream}: {what}", *_cells(stream, told[stream][share], group)]
        for stream in moving
        for what, group, share in WATCHED[:-1]
    ]
    others = [play(shifted(N, seed), "SEA", seed) for seed in seeds]
    rows.append(["SEA, others ask: features", *_cells("SEA", others, "features")])
    head = ["stream, what is watched", "found", "delay (rows)", "90 %", "before any change"]
    quiet, bars = _quiet(seeds)
    found = delays("Sine, abrupt", told["Sine, abrupt"][1.0], "loss")
    share = 100 * sum(time is not None for time in found) / len(found)
    bars.append(Bar("Sine turned upside down, all audited: found", share, 100, " %"))
    text = [
        f"{N:,} rows a stream, {len(seeds)} seeds, two changes in each; ± is a standard error.",
        BEGINS,
        report.table(head, rows),
        REMARK,
        "Alarms in 100,000 answers where nothing changes:",
        quiet,
        "Detectors on the same losses, all audited, where the loss has risen:",
        _detectors(told["Sine, abrupt"][1.0], len(seeds)),
    ]
    return "\n\n".join(text), bars


def _played(
    stream: str, drawn: Sequence[Sequence[Row]], seeds: Iterable[int]
) -> dict[float, list[Told]]:
    """Return what is told of a stream, by the share that is audited, for each seed."""
    pairs = list(zip(drawn, seeds, strict=True))
    return {
        share: [play(rows, stream, seed, audited=share) for rows, seed in pairs]
        for share in (1.0, AUDITED)
    }


def _quiet(seeds: range) -> tuple[str, list[Bar]]:
    """Return the table of false alarms, and its bar."""
    rows, events, alarms = [], len(seeds) * (N - WARM), 0
    for stream in STILL:
        told = _played(stream, [still(stream, N, seed) for seed in seeds], seeds)
        counts = [sum(one.count(group, N) for one in told[share]) for _, group, share in WATCHED]
        rows.append([stream, *(_per_100000(count, events) for count in counts)])
        alarms += sum(counts[:3])
    bar = Bar(
        "alarms about a loss in 100,000 answers where nothing changes",
        1e5 * alarms / (events * len(STILL) * 3),
        MOST_FALSE,
        at_most=True,
    )
    return report.table(["stream", *(what for what, _, _ in WATCHED)], rows), [bar]


DETECTORS: dict[str, Callable[[], Any]] = {
    "ADWIN, as here": lambda: drift.ADWIN(delta=0.05, clock=8),
    "ADWIN, River's default": drift.ADWIN,
    "HDDM-A": drift.binary.HDDMA,
    "HDDM-W": drift.binary.HDDMW,
    "DDM": drift.binary.DDM,
    "EDDM": drift.binary.EDDM,
    "FHDDM": drift.binary.FHDDM,
    "Page-Hinkley": drift.PageHinkley,
}


def _rises(make: Callable[[], Any], losses: Sequence[float]) -> Iterator[int]:
    """Yield where a detector finds a change while the mean of the last 30 is above that so far."""
    detector, total = make(), 0.0
    for t, loss in enumerate(losses):
        total += loss
        detector.update(loss)
        if detector.drift_detected and np.mean(losses[max(0, t - 29) : t + 1]) > total / (t + 1):
            yield t + WARM


def _detectors(moving: Sequence[Told], seeds: int) -> str:
    """Return how others do on the losses of one stream, and on noise at a rate of 0.1."""
    rng = np.random.default_rng(SEED)
    noise = [(rng.random(N) < 0.1).astype(float).tolist() for _ in range(2 * seeds)]
    rows = []
    for name, make in DETECTORS.items():
        found = list[int | None]()
        for told in moving:
            times = list(_rises(make, told.losses))
            for begins, ends in itertools.pairwise(changes("Sine, abrupt")):
                found.append(next((t - begins for t in times if begins <= t < ends), None))
        false = sum(len(list(_rises(make, losses))) for losses in noise)
        rows.append([name, *_late(found), _per_100000(false, len(noise) * N)])
    return report.table(
        ["detector", "Sine, abrupt: found", "delay", "90 %", "on noise, per 100,000"], rows
    )
