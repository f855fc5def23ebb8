"""Updates at the edge of what is admitted: no weight may ever be other than finite.

Each learner is taught as the service teaches it: in batches, and where one is refused, the state of
before comes back, the lessons are tried one by one, and those that are refused are set aside. The
lessons are of numbers up to the limit of the door, of either sign and down to the smallest, mixed
with ordinary ones, of weights up to the largest, and of targets that contradict each other. After
every batch the whole state is looked through, not only the answers.
"""

from __future__ import annotations

import math
import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.report import Bar
from online_learner.interpret import MAX_WEIGHT
from online_learner.learners import Model
from online_learner.learners.factory import make_learner
from online_learner.learners.river import RiverLearner
from online_learner.requests import MAX_MAGNITUDE
from online_learner.schema import Example, Lesson, Ranked, Rated
from online_learner.settings import ModelSpec

FULL, SHORT = 1_000_000, 20_000
BATCH = 64
DIM = 8
LABELS = ["a", "b", "c"]
TWO = [False, True]
EXTREMES = (MAX_MAGNITUDE, -MAX_MAGNITUDE, 5e-324, -5e-324, 2.3e-308, 1e-160, 0.0, -0.0, 1.0, -1.0)
ORDINARY = {"n0": 0.5, "n1": -1.0, "n2": 2.0}


@dataclass(frozen=True, slots=True)
class Kind:
    """A learner, and what it is taught.

    Parameters
    ----------
    lesson
        Makes one.
    share
        How much of all updates it gets.
    """

    title: str
    spec: ModelSpec
    lesson: Callable[[random.Random], Lesson]
    share: float = 1.0


# --- lessons ----------------------------------------------------------------------------------


def number(rng: random.Random) -> float | int:
    """Return a number that the door admits: an extreme one, one of any size, or an ordinary one."""
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(EXTREMES)
    if kind < 0.35:
        return rng.choice((int(MAX_MAGNITUDE), -int(MAX_MAGNITUDE), 0, 1))
    if kind < 0.7:
        size = math.log10(MAX_MAGNITUDE)
        return rng.choice((-1.0, 1.0)) * 10.0 ** rng.uniform(-size, size) * 0.999
    return rng.gauss(0.0, 1.0)


def weight(rng: random.Random) -> float:
    """Return a weight that a lesson may have."""
    return rng.choice((1.0, 1.0, 1.0, MAX_WEIGHT, 1e-9, 5e-324, rng.uniform(0.0, MAX_WEIGHT)))


def numbers(rng: random.Random) -> dict[str, Any]:
    """Return some numbers under few names, so that the same weights are pulled again and again."""
    return {f"n{rng.randrange(6)}": number(rng) for _ in range(rng.randint(1, 5))}


def vector(rng: random.Random) -> dict[str, Any]:
    """Return an embedding."""
    return {"e": [number(rng) for _ in range(DIM)]}


def anything(rng: random.Random) -> dict[str, Any]:
    """Return numbers beside words, booleans and a list."""
    more = {"text": " ".join(rng.choices(("so", "it", "goes", "\0", "x" * 40), k=3))}
    return numbers(rng) | more | {"flag": rng.random() < 0.5, "list": [number(rng)] * 2}


def labelled(
    features: Callable[[random.Random], dict[str, Any]],
    labels: Sequence[Any],
    *,
    wrong: float = 0.0,
) -> Callable[[random.Random], Lesson]:
    """Return a maker of examples with a label, a share of which says that it is wrong."""
    return lambda rng: Example(
        features(rng), rng.choice(labels), weight(rng), complementary=rng.random() < wrong
    )


def valued(
    features: Callable[[random.Random], dict[str, Any]],
) -> Callable[[random.Random], Lesson]:
    """Return a maker of examples with a number as target."""
    return lambda rng: Example(features(rng), float(number(rng)), weight(rng))


def compared(rng: random.Random) -> Lesson:
    """Return a comparison, or a judgement."""
    options = tuple(anything(rng) for _ in range(rng.randint(2, 4)))
    if rng.random() < 0.3:
        return Rated(numbers(rng), options[0], rng.choice((0.0, 1.0, rng.random())), weight(rng))
    last = len(options) - 1
    return Ranked(anything(rng), options, places=rng.randint(1, last), weight=weight(rng))


def spec(task: str, learner: Any, labels: Any = None) -> ModelSpec:
    """Return a model's configuration."""
    return ModelSpec.model_validate({"task": task, "labels": labels, "learner": learner})


SCALED = "river:preprocessing.StandardScaler | linear_model."
KINDS = [
    Kind(
        "River logistic",
        spec("classification", "river:linear_model.LogisticRegression", TWO),
        labelled(numbers, TWO),
    ),
    Kind(
        "River scaled logistic",
        spec("classification", f"{SCALED}LogisticRegression", TWO),
        labelled(numbers, TWO),
    ),
    Kind(
        "River scaled softmax",
        spec("classification", f"{SCALED}SoftmaxRegression", LABELS),
        labelled(numbers, LABELS),
    ),
    Kind(
        "River Bayes",
        spec("classification", "river:naive_bayes.GaussianNB", LABELS),
        labelled(numbers, LABELS),
        0.5,
    ),
    Kind(
        "River tree",
        spec("classification", "river:tree.HoeffdingTreeClassifier", LABELS),
        labelled(numbers, LABELS),
        0.5,
    ),
    Kind(
        "River forest",
        spec(
            "classification",
            {"use": "river.forest:ARFClassifier", "n_models": 3, "seed": 1},
            LABELS,
        ),
        labelled(numbers, LABELS),
        0.1,
    ),
    Kind(
        "River linear",
        spec("regression", "river:linear_model.LinearRegression"),
        valued(numbers),
        0.5,
    ),
    Kind(
        "River scaled linear", spec("regression", f"{SCALED}LinearRegression"), valued(numbers), 0.5
    ),
    Kind(
        "text", spec("classification", "torch:text", LABELS), labelled(anything, LABELS, wrong=0.2)
    ),
    Kind("dense", spec("classification", "torch:dense", TWO), labelled(vector, TWO, wrong=0.2), 2),
    Kind(
        "dense, hidden",
        spec("classification", {"use": "torch:dense", "hidden": 8}, LABELS),
        labelled(vector, LABELS, wrong=0.2),
        2,
    ),
    Kind("dense regression", spec("regression", "torch:dense"), valued(vector), 2),
    Kind(
        "mixed regression, squared",
        spec("regression", {"use": "torch:mixed", "hidden": 8, "loss": "squared"}),
        valued(anything),
    ),
    Kind(
        "module",
        spec(
            "classification",
            {"use": "torch:nn.Linear", "in_features": DIM, "out_features": 3},
            LABELS,
        ),
        labelled(vector, LABELS, wrong=0.2),
    ),
    Kind("ranking", spec("ranking", "torch:ranking"), compared, 0.4),
]


# --- the whole state --------------------------------------------------------------------------


def not_finite(model: Model) -> int:
    """Return how many numbers of a model's state are not finite."""
    if isinstance(model, RiverLearner):
        return sum(not math.isfinite(found) for found in _floats(model.model, set()))
    from online_learner.learners.torch import tensors

    found, _ = tensors.unpack(model.to_bytes())
    floating = (tensor for tensor in found.values() if tensor.is_floating_point())
    return int(sum((~tensor.isfinite()).sum() for tensor in floating))


# What a statistic of River begins with, before it has seen anything.
_BEGINNINGS = frozenset({"min", "max", "_min", "_max"})


def _floats(value: Any, seen: set[int]) -> Iterator[float]:
    """Yield every number in an object: in containers, arrays, attributes, and Rust's own state."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, np.ndarray | np.generic):
        yield from np.asarray(value, float).ravel().tolist() if value.dtype.kind == "f" else ()
    elif isinstance(value, int | str | bytes | type | None) or id(value) in seen:
        return
    else:
        seen.add(id(value))
        if isinstance(value, dict):
            parts: Any = [v for k, v in value.items() if k not in _BEGINNINGS]
        elif isinstance(value, list | tuple | set | frozenset):
            parts = value
        else:
            parts = _inside(value)
        for part in parts:
            yield from _floats(part, seen)


def _inside(value: Any) -> list[Any]:
    try:
        reduced = value.__reduce_ex__(4)
    except TypeError:  # a function, a generator: no state
        return []
    if isinstance(reduced, str):
        return []
    _, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    return [arguments, state, list(items or ()), list(pairs or ())]


# --- teaching ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Taught:
    """What came of some updates."""

    updates: int = 0
    refused: int = 0
    ruined: int = 0  # states with a number that is not finite
    answers: int = 0  # of ordinary questions, at the end, that were finite
    took_s: float = 0.0


def teach(kind: Kind, count: int, seed: int) -> Taught:
    """Teach a learner as the service does, and look through its state after every batch."""
    rng, model = random.Random(seed), make_learner(kind.spec)
    found, started = Taught(), time.perf_counter()
    state, batch = model.to_bytes(), 0
    while found.updates < count:
        lessons = [kind.lesson(rng) for _ in range(min(BATCH, count - found.updates))]
        model, refused = learned(model, state, lessons)
        found.updates += len(lessons)
        found.refused += refused
        batch += 1
        state = model.to_bytes()
        found.ruined += not_finite(model) > 0
    found.took_s = time.perf_counter() - started
    found.answers = answers(model, kind)
    return found


def learned(model: Any, state: bytes, lessons: Sequence[Lesson]) -> tuple[Any, int]:
    """Learn a batch, or what can be learned of it; returns the model, and how many were refused."""
    try:
        model.learn(lessons)
    except Exception:
        model, refused = model.from_bytes(state), 0
        for lesson in lessons:
            before = model.to_bytes()
            try:
                model.learn([lesson])
            except Exception:
                model, refused = model.from_bytes(before), refused + 1
        return model, refused
    return model, 0


def answers(model: Any, kind: Kind) -> int:
    """Return whether an ordinary question still gets an answer that is finite."""
    if kind.spec.task == "ranking":
        return int(np.isfinite(model.score({}, [ORDINARY, {}])).all())
    features = (
        {"e": [0.5] * DIM} if kind.lesson(random.Random(0)).features.keys() == {"e"} else ORDINARY
    )
    try:
        [answer] = model.predict([features])
    except ArithmeticError:
        return 0
    output = answer.output if isinstance(answer.output, float) else 0.0
    return int(np.isfinite([output, *answer.scores.values()]).all())


# --- the section ------------------------------------------------------------------------------


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return what came of the updates, by learner."""
    warnings.simplefilter("ignore")  # of numbers that overflow: what comes of it is looked at
    total, shares = FULL if full else SHORT, sum(kind.share for kind in KINDS)
    found = {
        kind.title: teach(kind, round(total * kind.share / shares + 0.5), seed)
        for seed, kind in enumerate(KINDS)
    }
    rows = [
        [
            title,
            f"{taught.updates:,}",
            f"{taught.refused:,}",
            str(taught.ruined),
            "yes" if taught.answers else "no",
            f"{taught.took_s:.0f} s",
        ]
        for title, taught in found.items()
    ]
    head = ["learner", "updates", "refused", "states not finite", "answers after it", "took"]
    text = (
        f"Numbers up to ±{MAX_MAGNITUDE:g}, weights up to {MAX_WEIGHT:g}, in batches of {BATCH}. "
        "What a learner refuses is set aside as poison, and leaves no trace.\n\n"
        + report.table(head, rows)
    )
    updates, ruined = (
        sum(getattr(t, name) for t in found.values()) for name in ("updates", "ruined")
    )
    silent = sum(not taught.answers for taught in found.values())
    return text, [
        Bar("fuzzed updates", updates, FULL),
        Bar("states with a weight that is not finite", ruined, 0, at_most=True),
        Bar("learners that gave no finite answer afterwards", silent, 0, at_most=True),
    ]
