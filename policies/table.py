"""What each kind of feedback teaches and proves: `python -m policies.table > docs/kinds.md`.

Nothing on it is written by hand: each cell is the lesson that the table of `policies.signals` finds
in an example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from online_learner.schema import (
    Example,
    Feedback,
    Label,
    Lesson,
    Option,
    Prediction,
    Ranked,
    Rated,
    Task,
    label_key,
)
from policies.signals import Signals

_INTRO = """# What each kind of feedback teaches

Made by `make docs` from the default table, `policies/signals.py`, by asking it. The answer in
question was `spam` (of two labels, or of three), the number 20, or the options a, b and c in this
order; `generation` stands for answers made elsewhere, which teach a reward model.
`tests/test_stack_kinds.py` posts every kind on every task to a running system and checks that the
weights move so, or stay as they are.

*kept*: valid, and nothing to learn from it here; it stays in the log, and its receipt says so.
*refused*: 422 `kind_not_applicable`, with the kinds that mean something. `implicit` is shown with
`implicit_weight: 0.1`; by default it teaches nothing. Categories are mapped in the configuration.
"""
_TITLES: dict[str, tuple[Task, list[Label] | None]] = {
    "two labels": ("classification", ["ham", "spam"]),
    "three labels": ("classification", ["ham", "spam", "news"]),
    "a number": ("regression", None),
    "ranking": ("ranking", None),
    "generation": ("generation", None),
}
_RIGHT: dict[Task, Any] = {
    "classification": "ham",
    "regression": 30.0,
    "ranking": {"id": "new", "features": {"it": "new"}},
    "generation": "edit",
}
_TAKEN: dict[Task, Any] = {"classification": "ham", "ranking": "b", "generation": "b"}
_SAID: dict[str, tuple[str, Any]] = {
    "the right answer": ("correction", _RIGHT),
    "one of those shown": ("selection", _TAKEN),
    "none of these": ("selection", None),
    "up": ("thumbs", True),
    "down": ("thumbs", False),
    "5 of 5": ("rating", {"value": 5.0, "scale": [1.0, 5.0]}),
    "1 of 5": ("rating", {"value": 1.0, "scale": [1.0, 5.0]}),
    "b over a": ("preference", {"chosen": "b", "rejected": "a"}),
    "c, a, b": ("ranking", ["c", "a", "b"]),
    "mapped to up": ("category", "good"),
    "mapped to down": ("category", "bad"),
    "ignored": ("category", "other"),
    "warn or block": ("flag", {"rule": "r", "severity": "warn", "detail": None}),
    "note": ("flag", {"rule": "r", "severity": "note", "detail": None}),
    "liked (click, ...)": ("implicit", {"event": "click", "value": None}),
    "disliked (skip, ...)": ("implicit", {"event": "skip", "value": None}),
    "shown": ("implicit", {"event": "feedback_shown", "value": None}),
}


_GATE = """
# What it proves

What the gate hears, on an audited answer, of a challenger against the champion that was seen to
answer. *=*: whoever gave that answer was right, and another wrong; for a number, by the distance;
for an order, by its first place, or its pairs. *lost*: the challenger, where it disagrees. *open*:
nothing, until somebody says what is right. A number from 0 to 1 is a reward: evidence where
`exposure` lets a coin decide who answers.
"""


def page() -> str:
    """Return the page."""
    return "\n".join([_INTRO, *_table(_lesson), _GATE, *_table(_evidence), ""])


def _table(cell: Callable[[Signals, Feedback, Prediction], str]) -> list[str]:
    rows = [["kind", "said", *_TITLES], ["---"] * (len(_TITLES) + 2)]
    for words, (kind, value) in _SAID.items():
        cells = (_cell(cell, kind, value, task, labels) for task, labels in _TITLES.values())
        rows.append([f"`{kind}`", words, *cells])
    return list(map(_line, rows))


def _cell(
    cell: Callable[[Signals, Feedback, Prediction], str],
    kind: str,
    value: Any,
    task: Task,
    labels: list[Label] | None,
) -> str:
    categories = {"good": "up", "bad": "down", "other": "ignore"}
    signals = Signals(task, labels, categories=categories, implicit_weight=0.1)
    if kind not in signals.kinds():
        return "*refused*"
    value = value[task] if value is _RIGHT or value is _TAKEN else value
    feedback = Feedback(kind=kind, value=value, source="human:ada", prediction_id="")
    return cell(signals, feedback, _answer(task, labels))


def _lesson(signals: Signals, feedback: Feedback, prediction: Prediction) -> str:
    return _told(signals.lesson(feedback, prediction))


def _evidence(signals: Signals, feedback: Feedback, prediction: Prediction) -> str:
    if feedback.kind in {"flag", "implicit"}:
        return "*none*"
    said = signals.said(feedback, prediction)
    told = []
    if said.right is not None:
        order = isinstance(said.right, list)
        told.append(f"= {' > '.join(said.right) if order else said.right}")  # type: ignore[arg-type]
    told += ["lost"] * said.liked + ["open"] * (said.wrong is not None)
    told += [f"{said.reward:g}"] if said.reward is not None else []
    return ", ".join(told) or "*none*"


def _answer(task: Task, labels: list[Label] | None) -> Prediction:
    names = ["a", "b", "c"]
    options = [Option(id=name, features={"it": name}) for name in names]
    given: dict[str, Any] = {"output": names, "options": options}
    if task == "classification":
        given = {"output": "spam", "scores": {label_key(label): 0.5 for label in labels or ()}}
    elif task == "regression":
        given = {"output": 20.0}
    elif task == "generation":
        given["role"] = "external"
    return Prediction(model="m", features={}, version=1, lineage=1, step=0, **given)


def _told(lesson: Lesson | None) -> str:
    match lesson:
        case None:
            return "*kept*"
        case Example(target=target, complementary=complementary):
            text = f"not {target}" if complementary else f"{target}"
        case Rated(option=option, reward=reward):
            text = f"{_name(option)} is worth {reward:g}"
        case Ranked(options=options, worst_first=worst_first):
            first, *rest = map(_name, options)
            order = lesson.places == len(rest) > 1
            text = (
                " > ".join([first, *rest])
                if order
                else f"{first} {'<' if worst_first else '>'} {', '.join(rest)}"
            )
    return text if lesson.weight == 1.0 else f"{text} (weight {lesson.weight:g})"


def _name(features: dict[str, Any]) -> str:
    return str(next(iter(features.values())))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
