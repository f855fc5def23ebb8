"""Implicit signals: how soon it is found that they mislead, and that they change nothing.

Answers are right in eight of ten cases. People say of some whether they are, and click on some: on
wrong ones, on right ones, or on any. The lens is the real one, with its defaults; so is the loop,
which answers and learns the same with the clicks and without.
"""

from __future__ import annotations

import asyncio
import math
import random
import tempfile
from dataclasses import dataclass

import numpy as np

from benchmarks import report, streams
from benchmarks.report import Bar
from online_learner.loop import Loop
from online_learner.schema import Feedback, Prediction, Said, Signal
from online_learner.settings import Settings
from policies.implicit import Agreement

RIGHT = 0.8  # of the answers
EXPLICIT = 0.3  # of the answers of which people say whether they are right
HONEST = 0.9  # of what they say
EVENTS, MANY = 2_000, 10_000  # signals
BEGINS_MS = 1_000_000_000_000
RUNS, MORE_RUNS = 100, 500
ALPHA = 0.05  # of the lens, by default
SEED = 50
ANSWERS = 2_400  # in the real loop


@dataclass(frozen=True, slots=True)
class Clicks:
    """How often people click, on right answers and on wrong ones."""

    on_right: float
    on_wrong: float

    @property
    def verdict(self) -> int:
        """What should be found: 1 agrees, -1 disagrees, 0 unclear."""
        return (self.on_right > self.on_wrong) - (self.on_right < self.on_wrong)


CASES = {
    "mislead: 50 % of the wrong ones, 10 % of the right": Clicks(0.1, 0.5),
    "mislead a little: 40 %, 20 %": Clicks(0.2, 0.4),
    "honest: 10 %, 40 %": Clicks(0.4, 0.1),
    "honest a little: 20 %, 40 %": Clicks(0.4, 0.2),
    "random: 25 %": Clicks(0.25, 0.25),
    "random, rare: 3 %": Clicks(0.03, 0.03),
}


def signal(kind: str, value: object, t: int, answer: int, *, right: bool) -> Signal:
    """Return a signal on an answer: a click, or a thumb."""
    prediction = Prediction(model="web", features={}, output=True, version=1, lineage=1, step=1)
    feedback = Feedback(kind=kind, value=value, source="human:ada", prediction_id="")
    said = Said() if kind == "implicit" else Said(right=right, reward=float(right))
    return Signal(feedback, prediction, said, f"{answer}-0", BEGINS_MS + 1000 * t)


def first_verdict(clicks: Clicks, seed: int, most: int) -> tuple[int, int | None]:
    """Return the first verdict on clicks, 0 if there is none, and after how many signals it came.

    One signal a second, and an answer may have both; which comes first is drawn too.
    """
    rng, lens = random.Random(f"{SEED} {seed}"), Agreement("classification", [False, True])
    t = answer = 0
    while t < most:
        answer += 1
        right = rng.random() < RIGHT
        found = []
        if rng.random() < (clicks.on_right if right else clicks.on_wrong):
            found.append(("implicit", {"event": "click", "value": None}, right))
        if rng.random() < EXPLICIT:
            said = right if rng.random() < HONEST else not right
            found.append(("thumbs", said, said))
        rng.shuffle(found)
        for kind, value, says in found:
            t += 1
            lens.hear(signal(kind, value, t, answer, right=says))
            event = lens.events.get("click")
            if event is not None and event.verdict:
                return event.verdict, t
    return 0, None


def section(full: bool) -> tuple[str, list[Bar]]:
    """Measure how soon, and how often wrongly; returns tables and bars."""
    runs = MORE_RUNS if full else RUNS
    rows, shares = [], {}
    for name, clicks in CASES.items():
        found = [first_verdict(clicks, seed, MANY) for seed in range(runs)]
        times = [t for verdict, t in found if t is not None and verdict == clicks.verdict]
        soon = sum(t <= EVENTS for t in times) / runs
        wrong = sum(verdict not in {0, clicks.verdict} for verdict, _ in found) / runs
        shares[name] = (soon, wrong)
        error = np.sqrt(max(wrong, 1 / runs) * (1 - wrong) / runs)
        rows.append(
            [
                name,
                f"{np.median(times):,.0f}" if times else "-",
                f"{np.quantile(times, 0.9):,.0f}" if times else "-",
                f"{100 * soon:.0f} %" if clicks.verdict else "-",
                f"{100 * wrong:.1f} ± {100 * error:.1f} %",
            ]
        )
    head = ["clicks", "signals to the verdict", "90 %", f"by {EVENTS:,}", "wrong verdicts"]
    mislead, honest, chance = (
        next(found for name, found in shares.items() if name.startswith(kind))
        for kind in ("mislead:", "honest:", "random:")
    )
    said, same = asyncio.run(_loop())
    bars = [
        Bar(f"clicks that mislead: found within {EVENTS:,} signals", 100 * mislead[0], 95, " %"),
        Bar(f"honest clicks: found within {EVENTS:,} signals", 100 * honest[0], 90, " %"),
        Bar(
            "random clicks: wrong verdicts (alpha, and two standard errors)",
            100 * chance[1],
            100 * (ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / runs)),
            " %",
            at_most=True,
        ),
        Bar("with the default configuration, weights are the same bits", float(same), 1),
    ]
    text = [
        f"{runs} runs, each of up to {MANY:,} signals; ± is a standard error.",
        report.table(head, rows),
        f"Through the loop, with a store and the default configuration, {ANSWERS:,} answers with "
        f"clicks on wrong ones: “{said}” The learner's weights "
        + ("are the same bits as without the clicks." if same else "DIFFER from those without."),
    ]
    return "\n\n".join(text), bars


# --- the real loop --------------------------------------------------------------------------------


async def _loop() -> tuple[str, bool]:
    """Return what the report says of misleading clicks, and whether weights are those without."""
    with_clicks, said = await _play(clicks=True)
    without, _ = await _play(clicks=False)
    return said, with_clicks == without


async def _play(*, clicks: bool) -> tuple[str, str]:
    """Return the digest of the weights, and what the lens says."""
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory() as directory:
        web = {
            "task": "classification",
            "labels": [False, True],
            "learner": "benchmarks.models:logistic",
        }
        settings = Settings.model_validate({"data_dir": directory, "models": {"web": web}})
        async with await Loop.open(settings, rng=random.Random(SEED)) as loop:
            for number, (x, y) in enumerate(streams.rows("SEA, abrupt", ANSWERS, SEED)):
                answer = await loop.predict("web", x)
                right = answer["output"] == y
                drawn, speaks, first = rng.random(), rng.random(), rng.random()
                click = clicks and drawn < (0.1 if right else 0.5)
                if click and first < 0.5:
                    await loop.feedback(answer["prediction_id"], "implicit", event="click")
                if speaks < EXPLICIT:
                    user = f"u{number % 20}"
                    await loop.feedback(answer["prediction_id"], "correction", y, user_id=user)
                if click and first >= 0.5:
                    await loop.feedback(answer["prediction_id"], "implicit", event="click")
                if number % 10 == 9:
                    await loop.turn("web")
            await loop.turn("web")
            stages = loop.stages("web")
            lens = stages.observer.lenses["implicit"]
            return stages.trainer.learner.digest(), lens.report()["sentence"]
