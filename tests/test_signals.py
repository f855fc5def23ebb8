"""The table of what signals mean: every kind on every task, and what the gate may hear."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_learner.requests import KINDS
from online_learner.schema import (
    Example,
    Feedback,
    Lesson,
    Option,
    Output,
    Prediction,
    Ranked,
    Rated,
    Said,
    Task,
)
from policies.signals import FLAG_WEIGHT, TABLE, WEAK, Signals

CATEGORIES = {"helpful": "up", "off_topic": "down", "spam": "ignore"}
SCALE = [1.0, 5.0]
LABELS = ["news", "sport", "science"]
A, B, C, D, E = ({"title": name} for name in "abcde")
QUERY = {"query": "x"}
MADE = [{"text": "one"}, {"text": "two"}]
PROMPT = {"prompt": "x"}
BASE = {"version": 1, "lineage": 1, "step": 1}

SERVED = {
    "classification": Prediction(
        model="m",
        features={"n": 1},
        output="sport",
        scores={"news": 0.2, "sport": 0.7, "science": 0.1},
        **BASE,
    ),
    "two": Prediction(
        model="m", features={"n": 1}, output=True, scores={"true": 0.7, "false": 0.3}, **BASE
    ),
    "regression": Prediction(model="m", features={"n": 1}, output=2.0, **BASE),
    "ranking": Prediction(
        model="m",
        features=QUERY,
        options=[Option(id=f["title"], features=f) for f in (A, B, C, D)],
        output=["b", "a", "c"],  # of four, three were shown
        scores={"a": 1.0, "b": 2.0, "c": 0.5, "d": 0.1},
        top_k=3,
        **BASE,
    ),
    "generation": Prediction(
        model="m",
        features=PROMPT,
        options=[Option(id=str(i), features=made) for i, made in enumerate(MADE)],
        output=["0", "1"],
        scores={"0": 0.0, "1": 1.0},
        role="external",
        **BASE,
    ),
}


def signals(task: str) -> Signals:
    """Return the table for a task; `two` is a classification with two labels."""
    labels = {"classification": LABELS, "two": [False, True]}.get(task)
    kind: Any = "classification" if task == "two" else task
    return Signals(kind, labels, categories=CATEGORIES, implicit_weight=0.1)  # type: ignore[arg-type]


def said(kind: str, value: Any, source: str = "human:ada") -> Feedback:
    """Return a signal as it is kept."""
    return Feedback(kind=kind, value=value, source=source, prediction_id="p")


def stars(value: float, scale: list[float] | None = None) -> Feedback:
    """Return a rating as it is kept."""
    return said("rating", {"value": value, "scale": scale or SCALE})


def flag(severity: str = "warn", **more: Any) -> Feedback:
    """Return a flag as it is kept."""
    return said("flag", {"rule": "r", "severity": severity, "detail": None, **more})


def event(name: str, value: float | None = None) -> Feedback:
    """Return an implicit signal as it is kept."""
    return said("implicit", {"event": name, "value": value})


def example(target: Output, weight: float = 1.0, *, wrong: bool = False) -> Example:
    """Return a lesson about the label or number."""
    return Example({"n": 1}, target, weight, complementary=wrong)


def pages(*options: dict[str, Any], **fields: Any) -> Ranked:
    """Return a lesson about the order of pages."""
    return Ranked(QUERY, options, **fields)


def made(*options: dict[str, Any], **fields: Any) -> Ranked:
    """Return a lesson about the order of outputs."""
    return Ranked(PROMPT, options, **fields)


ONE, TWO = MADE
EDIT = {"text": "three"}
PAIR = {"chosen": "c", "rejected": "b"}
HALF = 0.25 / (2 * 0.25)  # how far a first 4 of 5 is from the middle, in two spreads
WEAKLY = {"weight": WEAK}
FLAGGED = {"weight": WEAK * FLAG_WEIGHT, "worst_first": True}
WORST = {"weight": WEAK, "worst_first": True}

LESSONS: list[tuple[str, Feedback, Lesson | None]] = [
    # classification: the label, what was served, or what it was not
    ("classification", said("correction", "news"), example("news")),
    ("classification", said("selection", "science"), example("science")),
    ("classification", said("selection", None), None),
    ("classification", said("thumbs", True), example("sport")),
    ("classification", said("thumbs", False), example("sport", wrong=True)),
    ("classification", stars(4), example("sport", HALF)),
    ("classification", stars(3), None),
    ("classification", stars(2), example("sport", HALF, wrong=True)),
    ("classification", said("category", "helpful"), example("sport")),
    ("classification", said("category", "off_topic"), example("sport", wrong=True)),
    ("classification", said("category", "spam"), None),
    ("classification", said("category", "of old"), None),
    ("classification", flag(), example("sport", FLAG_WEIGHT, wrong=True)),
    ("classification", flag("block"), example("sport", FLAG_WEIGHT, wrong=True)),
    ("classification", flag("note"), None),
    ("classification", event("click"), example("sport", 0.1)),
    ("classification", event("undo"), example("sport", 0.1, wrong=True)),
    ("classification", event("dwell", 31.0), example("sport", 0.1)),
    ("classification", event("dwell", 29.0), None),
    ("classification", event("dwell"), None),
    ("classification", event("feedback_shown"), None),
    # two labels: what is not right is the other
    ("two", said("thumbs", True), example(True)),
    ("two", said("thumbs", False), example(False)),
    ("two", said("correction", False), example(False)),
    ("two", stars(2), example(False, HALF)),
    ("two", said("category", "off_topic"), example(False)),
    ("two", flag(), example(False, FLAG_WEIGHT)),
    ("two", event("skip"), example(False, 0.1)),
    # regression: praise confirms the number, blame does not say which one is right
    ("regression", said("correction", 3.5), example(3.5)),
    ("regression", said("thumbs", True), example(2.0)),
    ("regression", said("thumbs", False), None),
    ("regression", stars(4), example(2.0, HALF)),
    ("regression", stars(1), None),
    ("regression", said("category", "helpful"), example(2.0)),
    ("regression", said("category", "off_topic"), None),
    ("regression", flag(), None),
    ("regression", event("purchase"), example(2.0, 0.1)),
    ("regression", event("undo"), None),
    # ranking: of those shown, in the order in which they were shown
    ("ranking", said("correction", {"id": "e", "features": E}), pages(E, B, A, C)),
    ("ranking", said("correction", "c"), pages(C, B, A)),
    ("ranking", said("selection", "a"), pages(A, B, C)),
    ("ranking", said("selection", None), None),
    ("ranking", said("thumbs", True), pages(B, A, C, **WEAKLY)),
    ("ranking", said("thumbs", False), pages(B, A, C, **WORST)),
    ("ranking", stars(7.5, [0, 10]), Rated(QUERY, B, (1 + HALF) / 2)),
    ("ranking", stars(0, [0, 10]), Rated(QUERY, B, 0.0)),
    ("ranking", said("preference", PAIR), pages(C, B)),
    ("ranking", said("ranking", ["c", "a"]), pages(C, A)),
    ("ranking", said("ranking", ["c", "a", "b"]), pages(C, A, B, places=2)),
    ("ranking", said("category", "helpful"), pages(B, A, C, **WEAKLY)),
    ("ranking", said("category", "off_topic"), pages(B, A, C, **WORST)),
    ("ranking", flag(), pages(B, A, C, **FLAGGED)),
    ("ranking", event("click"), pages(B, A, C, weight=WEAK * 0.1)),
    # generation: the same, and an edit is preferred to what it edits
    ("generation", said("correction", "three"), made(EDIT, ONE)),
    ("generation", said("correction", {"b": 1, "a": 2}), made({"json": '{"a": 2, "b": 1}'}, ONE)),
    ("generation", said("selection", "1"), made(TWO, ONE)),
    ("generation", said("thumbs", True), made(ONE, TWO, **WEAKLY)),
    ("generation", said("thumbs", False), made(ONE, TWO, **WORST)),
    ("generation", stars(4), Rated(PROMPT, ONE, (1 + HALF) / 2)),
    ("generation", said("preference", {"chosen": "1", "rejected": "0"}), made(TWO, ONE)),
    ("generation", said("ranking", ["1", "0"]), made(TWO, ONE)),
    ("generation", said("category", "off_topic"), made(ONE, TWO, **WORST)),
    ("generation", flag(), made(ONE, TWO, **FLAGGED)),
    ("generation", flag(option="1"), made(TWO, ONE, **FLAGGED)),
    ("generation", event("regenerate"), made(ONE, TWO, weight=WEAK * 0.1, worst_first=True)),
]  # fmt: skip


def name_of(value: Any) -> str:
    """Return a short name for a parameter."""
    if isinstance(value, Feedback):
        return f"{value.kind} {json.dumps(value.value)}"
    return value if isinstance(value, str) else ""


# --- lessons ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "feedback", "lesson"), LESSONS, ids=name_of)
def test_what_a_signal_teaches(task: str, feedback: Feedback, lesson: Lesson | None) -> None:
    """Each kind on each task becomes just this lesson, or none."""
    assert signals(task).lesson(feedback, SERVED[task]) == lesson


def test_every_cell_of_the_table_is_tried_or_refused() -> None:
    """No kind on no task is left out above, and what is refused stands nowhere in it."""
    tried = {("classification" if t == "two" else t, f.kind) for t, f, _ in LESSONS}
    refused = {(t, kind) for kind, row in TABLE.items() for t, cell in row.items() if cell is None}
    assert tried | refused == {(task, kind) for task in get_args(Task) for kind in KINDS}
    assert not tried & refused
    numbers = {"selection", "preference", "ranking"}
    assert refused == {("regression", kind) for kind in numbers} | {
        ("classification", "preference"),
        ("classification", "ranking"),
    }


@pytest.mark.parametrize("task", get_args(Task))
def test_kinds_are_those_that_mean_something(task: str) -> None:
    """A table says which kinds it takes, and a kind that it does not take teaches nothing."""
    table = signals(task)
    for kind, row in TABLE.items():
        assert (kind in table.kinds()) == (row[task] is not None)  # type: ignore[index]
    assert table.lesson(said("of another release", 1), SERVED[task]) is None


def test_a_rating_counts_by_its_distance_from_the_usual() -> None:
    """The further from what this rater gives, the heavier; the habit is learned on the way."""
    table = signals("two")
    weights = []
    for _ in range(30):
        lesson = table.lesson(stars(5), SERVED["two"])
        weights.append(lesson.weight if lesson is not None else 0.0)
    assert weights[0] == 1.0
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] < 0.7
    four = table.lesson(stars(4), SERVED["two"])
    assert isinstance(four, Example)
    assert four.target is False, "a 4 from who gives fives is blame"


def test_an_answer_that_stood_alone_is_rated() -> None:
    """With nothing beside it there is nothing to compare: praise is a reward of 1, blame of 0."""
    alone = SERVED["generation"].model_copy(
        update={"options": SERVED["generation"].options[:1], "output": ["0"]}
    )
    table = signals("generation")
    assert table.lesson(said("thumbs", True), alone) == Rated(PROMPT, ONE, 1.0, 1.0)
    assert table.lesson(said("thumbs", False), alone) == Rated(PROMPT, ONE, 0.0, 1.0)
    assert table.lesson(flag(option="0"), alone) == Rated(PROMPT, ONE, 0.0, FLAG_WEIGHT)
    assert table.lesson(said("selection", "0"), alone) is None


# --- blocked answers --------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["classification", "two", "ranking", "generation"])
@pytest.mark.parametrize(
    "feedback",
    [said("thumbs", True), said("thumbs", False), stars(5), stars(1), event("click")]
    + [said("category", name) for name in CATEGORIES],
    ids=name_of,
)
def test_a_judgement_of_a_fallback_says_nothing_about_the_model(
    task: str, feedback: Feedback
) -> None:
    """Where the fallback was served, what people think of it is neither lesson nor truth."""
    fallback = {"blocked": True, "fallback": "ask a person", "role": "champion"}
    blocked = SERVED[task].model_copy(update=fallback)
    assert signals(task).lesson(feedback, blocked) is None
    assert signals(task).said(feedback, blocked) == Said()


def test_what_was_made_elsewhere_was_shown_there() -> None:
    """A rule that blocks a logged answer comes too late: what people think of it is learned."""
    served = SERVED["generation"]
    blocked = served.model_copy(update={"blocked": True, "fallback": "ask a person"})
    for feedback in (said("thumbs", False), stars(5), said("selection", "1")):
        wanted = signals("generation").lesson(feedback, served)
        assert wanted is not None
        assert signals("generation").lesson(feedback, blocked) == wanted


def test_the_right_answer_to_a_blocked_one_is_learned() -> None:
    """A correction speaks of the question; a flag speaks of the output that was blocked."""
    blocked = SERVED["two"].model_copy(update={"blocked": True, "fallback": None})
    assert signals("two").lesson(said("correction", False), blocked) == example(False)
    assert signals("two").lesson(flag("block"), blocked) == example(False, FLAG_WEIGHT)
    assert signals("two").said(said("correction", False), blocked) == Said(right=False)


# --- between two predictions ------------------------------------------------------------------


def test_a_preference_for_or_against_a_fallback_teaches_nothing() -> None:
    """Users saw the fallback, and not the options that it stood for."""
    shown = SERVED["ranking"]
    blocked = shown.model_copy(update={"blocked": True, "fallback": "ask a person"})
    feedback = said("preference", {"chosen": "p", "rejected": "q"})
    for pair in ((shown, blocked), (blocked, shown)):
        assert signals("ranking").lesson(feedback, *pair) is None


def test_a_judgement_of_no_answer_teaches_nothing() -> None:
    """A model that knows no label yet answers with none, which is not to be learned as one."""
    silent = SERVED["classification"].model_copy(update={"output": None, "scores": {}})
    for feedback in (said("thumbs", True), said("thumbs", False), stars(5), event("click")):
        assert signals("classification").lesson(feedback, silent) is None


@pytest.mark.parametrize("chosen_first", [True, False])
def test_a_preference_between_two_answers(chosen_first: bool) -> None:
    """The first output of the chosen answer is preferred to that of the rejected one."""
    older = SERVED["generation"]
    newer = older.model_copy(
        update={"options": [Option(id="9", features=EDIT)], "output": ["9"], "features": PROMPT}
    )
    value = {"chosen": "p", "rejected": "q"} if chosen_first else {"chosen": "q", "rejected": "p"}
    lesson = signals("generation").lesson(said("preference", value), older, newer)
    assert lesson == (made(ONE, EDIT) if chosen_first else made(EDIT, ONE))
    assert signals("generation").said(said("preference", value), older) == Said()


# --- evidence for the gate --------------------------------------------------------------------

DOWN, MIDDLE = Said(reward=0.0), Said(reward=0.5)
LIKED = Said(liked=True, reward=1.0)
EVIDENCE: list[tuple[str, Feedback, Said]] = [
    ("classification", said("correction", "news"), Said(right="news")),
    ("classification", said("selection", "science"), Said(right="science")),
    ("classification", said("selection", None), Said()),
    ("classification", said("thumbs", True), Said(right="sport", reward=1.0)),
    ("classification", said("thumbs", False), Said(wrong="sport", reward=0.0)),
    ("classification", stars(5), Said(right="sport", reward=1.0)),
    ("classification", stars(3), MIDDLE),
    ("classification", stars(1), Said(wrong="sport", reward=0.0)),
    ("classification", said("category", "helpful"), Said(right="sport", reward=1.0)),
    ("classification", said("category", "spam"), Said()),
    ("two", said("thumbs", False), Said(right=False, reward=0.0)),
    ("two", stars(2), Said(right=False, reward=0.25)),
    ("two", said("category", "off_topic"), Said(right=False, reward=0.0)),
    ("regression", said("correction", 3.5), Said(right=3.5)),
    ("regression", said("thumbs", True), LIKED),
    ("regression", said("thumbs", False), DOWN),
    ("regression", stars(5), LIKED),
    ("ranking", said("correction", "c"), Said(right=["c"])),
    ("ranking", said("correction", {"id": "e", "features": {}}), Said()),
    ("ranking", said("selection", "a"), Said(right=["a"])),
    ("ranking", said("selection", None), Said()),
    ("ranking", said("preference", PAIR), Said(right=["c", "b"])),
    ("ranking", said("ranking", ["c", "a"]), Said(right=["c", "a"])),
    ("ranking", said("thumbs", True), LIKED),
    ("ranking", stars(5), LIKED),
    ("ranking", stars(2), Said(reward=0.25)),
    ("generation", said("selection", "1"), Said(right=["1"])),
    ("generation", said("correction", "three"), Said()),
    ("generation", said("correction", "1"), Said()),  # a text that looks like an id
    ("generation", said("correction", {"id": "1"}), Said()),
    ("generation", said("ranking", ["1", "0"]), Said(right=["1", "0"])),
]


@pytest.mark.parametrize(("task", "feedback", "evidence"), EVIDENCE, ids=name_of)
def test_what_may_judge(task: str, feedback: Feedback, evidence: Said) -> None:
    """The gate hears which answer is right, or what was shown is worth; labels keep their type."""
    found = signals(task).said(feedback, SERVED[task])
    assert found == evidence
    assert type(found.right) is type(evidence.right)


def test_evidence_does_not_know_the_rater() -> None:
    """What ratings teach depends on the rater's habit; what they prove does not."""
    table = signals("two")
    for _ in range(50):
        table.lesson(stars(5), SERVED["two"])
    before = table.state()
    assert table.said(stars(4), SERVED["two"]) == Said(right=True, reward=0.75)
    assert table.state() == before


# --- state and weights ------------------------------------------------------------------------


def test_what_is_known_of_raters_travels() -> None:
    """The state is plain JSON; a table that took it reads on as the first one does."""
    one, other = signals("two"), signals("two")
    assert one.state() == {}
    for value in (5, 4, 5, 2):
        one.lesson(stars(value), SERVED["two"])
    other.restore(json.loads(json.dumps(one.state())))
    assert other.lesson(stars(3), SERVED["two"]) == one.lesson(stars(3), SERVED["two"])
    assert other.state() == one.state()
    other.restore({})
    assert other.state() == {}


@given(
    st.sampled_from(LESSONS),
    st.lists(st.sampled_from([1, 2, 3, 4, 5]), max_size=10),
    st.floats(0.0, 1.0),
)
def test_weights_are_bounded(
    case: tuple[str, Feedback, Lesson | None], before: list[int], weight: float
) -> None:
    """No signal weighs more than a correction; an implicit one at most a tenth of it."""
    task, feedback, _ = case
    table = signals(task)
    table.implicit_weight = Signals("regression", implicit_weight=weight).implicit_weight
    for value in before:
        table.lesson(stars(value), SERVED[task])
    lesson = table.lesson(feedback, SERVED[task])
    if lesson is not None:
        assert 0.0 < lesson.weight <= (0.1 if feedback.kind == "implicit" else 1.0)
    if isinstance(lesson, Rated):
        assert 0.0 <= lesson.reward <= 1.0


def test_without_a_weight_implicit_signals_teach_nothing() -> None:
    """What users do is kept, and learned only where the configuration says so."""
    table = Signals("classification", LABELS)  # type: ignore[arg-type]
    assert table.lesson(event("purchase"), SERVED["classification"]) is None
