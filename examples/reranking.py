"""Answers to choose from: which one suits the question, learned from what people prefer.

    python -m examples.reranking

For each question some generator has made four answers. The model puts them in order, and people
say what they think in one of five ways: they take an answer, prefer one of two, put all in order,
or judge the first by thumbs or stars. What they want is known here, and to nobody else: above all
an answer to this very question, then a polite one, then a short one. What is learned from them is
a reward model, as good for best-of-n as for training the generator (`Client.reward_func`).

To serve the same model, save the configuration as `loop.yaml` and run `online-learner up`.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from examples.scratch import scratch_loop
from online_learner.loop import Loop

CONFIG = """
models:
  answers:
    task: ranking
    learner: "torch:ranking"
    # One order in ten is drawn by chance, and the chances are logged: what is never shown is
    # never judged.
    exploration: {kind: epsilon, epsilon: 0.1}
    # Every step answers at once; leave the line out to wait for evidence.
    promotion: {policy: "policies.promotion:Always"}
"""

ACTIONS = {
    "password": "open the settings and choose a new one",
    "invoice": "look into your mail box, it is sent on the first",
    "refund": "send it back, the money comes within a week",
    "delivery": "follow the parcel with the number in the mail",
    "address": "change it in your profile before you order",
}
POLITE = ("thank you for asking,", "happy to help:", "sure,")
CURT = ("", "well,", "obviously,")
FILLER = "as was said many times before, and as everybody should know by now, read it once more"
NOISE = 0.5  # how far people are from being of one mind


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer, and what it is worth to people."""

    text: str
    worth: float


def candidates(topic: str, rng: random.Random) -> dict[str, Candidate]:
    """Return four answers to a question, by id."""
    found = {}
    for name in "abcd":
        about = topic if rng.random() < 0.5 else rng.choice(list(ACTIONS))
        polite, long = rng.random() < 0.5, rng.random() < 0.5
        parts = [rng.choice(POLITE if polite else CURT), f"for the {about}", ACTIONS[about]]
        text = " ".join(parts + [FILLER] * long).strip()
        found[name] = Candidate(text, 3.0 * (about == topic) + 1.5 * polite - 1.0 * long)
    return found


async def play(n: int, seed: int = 1) -> dict[str, float]:
    """Rank the answers to each question, hear what people prefer, learn; return how it went."""
    rng = random.Random(seed)
    best, by_chance = [], []
    async with scratch_loop(CONFIG) as loop:
        for i in range(n):
            topic = rng.choice(list(ACTIONS))
            made = candidates(topic, rng)
            answer = await loop.predict(
                "answers",
                {"prompt": f"What about my {topic}?"},
                options=[{"id": name, "features": {"text": c.text}} for name, c in made.items()],
            )
            top = max(c.worth for c in made.values())
            best.append(made[answer["output"][0]].worth == top)
            by_chance.append(fmean(c.worth == top for c in made.values()))
            await _say(loop, i, answer, made, rng)
            await loop.turn("answers")
    _show(answer, made)
    return {
        "best answer first": fmean(best[n // 2 :]),
        "best answer first, by chance": fmean(by_chance[n // 2 :]),
    }


async def _say(
    loop: Loop, i: int, answer: dict[str, Any], made: dict[str, Candidate], rng: random.Random
) -> None:
    """Say something about the answers, in another way each time."""
    felt = {name: c.worth + rng.gauss(0.0, NOISE) for name, c in made.items()}
    liked = sorted(felt, key=felt.__getitem__, reverse=True)
    first = felt[answer["output"][0]]
    ways: list[dict[str, Any]] = [
        {"kind": "selection", "value": liked[0]},
        {"kind": "preference", "chosen": liked[1], "rejected": liked[2]},
        {"kind": "ranking", "value": liked},
        {"kind": "thumbs", "value": first > 2.0},
        {"kind": "rating", "value": min(5.0, max(1.0, round(1.0 + first)))},
    ]
    await loop.feedback(answer["prediction_id"], **ways[i % len(ways)])


def _show(answer: dict[str, Any], made: dict[str, Candidate]) -> None:
    for option in answer["ranking"]:
        print(f"{option['probability']:5.2f}  {made[option['id']].text}")


def main(n: int = 600) -> dict[str, float]:
    """Play, and print how often the best answer came first in the second half."""
    found = asyncio.run(play(n))
    for name, share in found.items():
        print(f"{name:30} {share:6.3f}")
    return found


if __name__ == "__main__":
    main()
