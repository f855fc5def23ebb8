"""Admission: each kind is checked against what was served; the refusal names place and cure."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from online_learner.errors import Invalid
from online_learner.ingest.admit import Admission
from online_learner.requests import KINDS, read_feedback
from online_learner.schema import Feedback, Option, Prediction, Task
from online_learner.settings import ModelSpec
from online_learner.stages import make_rules, make_signals
from policies.signals import TABLE

OPTIONS = [Option(id=name, features={"title": name}) for name in "abcd"]
BASE: dict[str, Any] = {"model": "m", "features": {"n": 1}, "version": 1, "lineage": 1, "step": 1}
SERVED = {
    "labels": Prediction(output="sport", scores={"news": 0.2, "sport": 0.7, "art": 0.1}, **BASE),
    "two": Prediction(output=True, scores={"true": 0.7, "false": 0.3}, **BASE),
    "open": Prediction(output=7, scores={"7": 0.6, "sport": 0.3, "true": 0.1}, **BASE),
    "number": Prediction(output=2.0, **BASE),
    "ranking": Prediction(output=["b", "a", "c"], options=OPTIONS, top_k=3, **BASE),
    "numbered": Prediction(output=["1", "0"], options=[Option(id=i) for i in "01"], **BASE),
    "made": Prediction(
        output=["0", "1"], options=[Option(id=i) for i in "01"], role="external", **BASE
    ),
}
SPECS: dict[str, dict[str, Any]] = {
    "labels": {"task": "classification", "labels": ["news", "sport", "art"]},
    "two": {"task": "classification", "labels": [False, True]},
    "open": {"task": "classification"},
    "number": {"task": "regression"},
    "ranking": {"task": "ranking"},
    "numbered": {"task": "ranking"},
    "made": {"task": "generation"},
}
COMMON = {"categories": {"helpful": "up", "off_topic": "down", "spam": "ignore"}}


def door(case: str, **more: Any) -> Admission:
    """Return the admission of one of the models above."""
    spec = ModelSpec.model_validate({"learner": "a:b"} | COMMON | SPECS[case] | more)
    return Admission(spec, make_signals(spec), make_rules(spec))


def admitted(
    case: str, body: dict[str, Any], record: Prediction | None = None, **more: Any
) -> Feedback:
    """Return what is kept of one signal about the answer above, or about `record`."""
    admission = door(case, **more)
    request: Any = read_feedback({"prediction_id": "x", **body})
    admission.check_kind(request)
    known = (record or SERVED[case]) if admission.needs_record(request) else None
    noted = admission.read_comment(request.comment)
    said_by = {"prediction_id": request.prediction_id or "", "source": "human:ada"}
    return admission.admit(request, request, known, **said_by, noted=noted)


def refusal(case: str, body: dict[str, Any], **more: Any) -> Invalid:
    """Return the error with which a signal is refused."""
    with pytest.raises(Invalid) as caught:
        admitted(case, body, **more)
    return caught.value


def said(kind: str, *value: Any, **fields: Any) -> dict[str, Any]:
    """Return a body, with a value where one is given."""
    return {"kind": kind, **({"value": value[0]} if value else {}), **fields}


def pair(chosen: str, rejected: str) -> dict[str, Any]:
    """Return a preference."""
    return said("preference", chosen=chosen, rejected=rejected)


# --- what is taken ----------------------------------------------------------------------------

NEW = {"id": "e", "features": {"title": "e", "vector": [0.5, 1]}}
TAKEN: list[tuple[str, dict[str, Any], Any]] = [
    ("labels", said("thumbs", False), False),
    ("labels", said("correction", "art"), "art"),
    ("labels", said("selection", "news"), "news"),
    ("labels", said("selection", None), None),
    ("two", said("selection", False), False),
    ("open", said("selection", 7), 7),
    ("labels", said("category", "spam"), "spam"),
    ("labels", said("rating", 5), {"value": 5.0, "scale": [1.0, 5.0]}),
    ("labels", said("rating", 0, scale=[0, 10]), {"value": 0.0, "scale": [0.0, 10.0]}),
    ("labels", said("rating", -3, scale=[-5, -1.5]), {"value": -3.0, "scale": [-5.0, -1.5]}),
    ("labels", said("flag", rule="r"), {"rule": "r", "severity": "warn", "detail": None}),
    ("labels", said("implicit", event="click"), {"event": "click", "value": None}),
    ("labels", said("implicit", event="dwell", value=3), {"event": "dwell", "value": 3.0}),
    ("number", said("correction", 3), 3.0),
    ("number", said("thumbs", True), True),
    ("ranking", said("correction", "a"), "a"),
    ("ranking", said("correction", NEW), NEW),
    ("ranking", said("selection", "c"), "c"),
    ("ranking", said("selection", None), None),
    ("ranking", said("ranking", ["c", "b"]), ["c", "b"]),
    ("ranking", said("ranking", ["c", "b", "a"]), ["c", "b", "a"]),
    ("ranking", pair("c", "a"), {"chosen": "c", "rejected": "a"}),
    ("numbered", said("selection", 1), "1"),
    ("made", said("selection", "1"), "1"),
    ("made", said("correction", "a better one"), "a better one"),
    ("made", said("correction", {"box": [1, 2.5, None, True]}), {"box": [1, 2.5, None, True]}),
    ("made", said("correction", None), None),
    ("made", pair("1", "0"), {"chosen": "1", "rejected": "0"}),
]


@pytest.mark.parametrize(("case", "body", "value"), TAKEN)
def test_what_fits_is_kept(case: str, body: dict[str, Any], value: Any) -> None:
    """The value is kept as the model's task takes it, type and all, under its source."""
    found = admitted(case, body)
    assert (found.kind, found.source) == (body["kind"], "human:ada")
    assert repr(found.value) == repr(value)


def test_what_is_said_beside_it_is_kept() -> None:
    """Reasons, comment, interface, time and tags are kept as they were sent; tags in order."""
    body = said("thumbs", False) | {
        "reasons": ["slow", "wrong"],
        "comment": "no",
        "interface": {"id": "page", "variant": "b", "position": 3},
        "observed_at": "2026-01-01T00:00:00Z",
        "tags": {"b": "1", "a": "2"},
    }
    found = admitted("labels", body)
    assert (found.reasons, found.comment) == (["slow", "wrong"], "no")
    assert found.interface == {"id": "page", "variant": "b", "position": 3}
    assert found.observed_at == "2026-01-01T00:00:00Z"
    assert list(found.tags) == ["a", "b"]


# --- what is refused --------------------------------------------------------------------------

WRONG: list[tuple[str, dict[str, Any], str, str, str]] = [
    # off its scale
    ("labels", said("rating", 5.5), "/value", "invalid_value", "off its scale: see `scale`"),
    ("labels", said("rating", 0), "/value", "invalid_value", "off its scale"),
    ("labels", said("rating", 3, scale=[5, 1]), "/scale", "invalid_value", "lower end first"),
    ("labels", said("rating", 3, scale=[3, 3]), "/scale", "invalid_value", "lower end first"),
    # not shown
    (
        "labels",
        said("selection", "sports"),
        "/value",
        "not_served",
        "none of the 3 that were shown",
    ),
    ("two", said("selection", "true"), "/value", "invalid_value", "not a label"),
    ("two", said("selection", 1), "/value", "not_served", "none of the 2 that were shown"),
    ("ranking", said("selection", "d"), "/value", "not_served", "none of the 3"),
    ("ranking", said("selection", ""), "/value", "not_served", "none of the 3"),
    ("ranking", said("correction", "d"), "/value", "not_served", "none of the 3"),
    ("made", said("selection", "2"), "/value", "not_served", "none of the 2"),
    # orders
    ("ranking", said("ranking", ["a", "d"]), "/value/1", "not_served", "none of the 3"),
    ("ranking", said("ranking", ["a", "b", "a"]), "/value/2", "invalid_value", "twice"),
    ("ranking", pair("a", "a"), "/rejected", "invalid_value", "the chosen one itself"),
    ("ranking", pair("d", "a"), "/chosen", "not_served", "none of the 3"),
    ("ranking", pair("a", "d"), "/rejected", "not_served", "none of the 3"),
    # corrections that are no answer of the model
    ("labels", said("correction", "sports"), "/value", "invalid_value", '"news", "sport", "art"'),
    ("labels", said("correction", None), "/value", "invalid_value", "right label or number"),
    ("labels", said("correction", ["news"]), "/value", "invalid_value", "right label or number"),
    ("labels", said("correction", {"a": 1}), "/value", "invalid_value", "right label or number"),
    ("number", said("correction", "3"), "/value", "invalid_value", "send the right number"),
    ("open", said("correction", "x" * 65_537), "/value", "invalid_value", "65536 characters"),
    ("ranking", said("correction", 3), "/value", "invalid_value", "{id: ..., features: {...}}"),
    ("ranking", said("correction", {"id": "e"}), "/value", "invalid_value", "features"),
    ("ranking", said("correction", NEW | {"x": 1}), "/value", "invalid_value", "features"),
    ("ranking", said("correction", NEW | {"id": 3}), "/value", "invalid_value", "a text as its id"),
    (
        "ranking",
        said("correction", {"id": "e", "features": {"a/b": None}}),
        "/value/features",
        "invalid_value",
        "must be a number",
    ),
    # categories
    ("labels", said("category", "helpfull"), "/value", "invalid_value", "Did you mean 'helpful'?"),
    ("labels", said("category", "x"), "/value", "invalid_value", "helpful, off_topic, spam"),
]


@pytest.mark.parametrize(("case", "body", "pointer", "code", "words"), WRONG)
def test_what_does_not_fit_is_refused(
    case: str, body: dict[str, Any], pointer: str, code: str, words: str
) -> None:
    """The refusal points at the place, has its own code, and says what would fit."""
    error = refusal(case, body)
    [place] = error.errors
    assert (place["pointer"], place["code"], error.code) == (pointer, code, code)
    assert words in error.detail


def test_categories_have_to_be_declared() -> None:
    """A model without categories says that it has none, and how to declare them."""
    assert "`categories`" in refusal("labels", said("category", "helpful"), categories={}).detail


@pytest.mark.parametrize("task", get_args(Task))
def test_a_kind_that_means_nothing_for_the_task(task: Task) -> None:
    """It is refused before anything else is looked at, and those that mean something are named."""
    case = {"classification": "labels", "regression": "number", "generation": "made"}.get(
        task, task
    )
    fields: dict[str, dict[str, Any]] = {
        "preference": pair("x", "x"),
        "ranking": said("ranking", ["x", "x"]),
        "flag": said("flag", rule="x"),
        "implicit": said("implicit", event="x"),
        "thumbs": said("thumbs", True),
        "rating": said("rating", 99),
    }
    for kind in KINDS:
        request = read_feedback({"prediction_id": "x", **fields.get(kind, said(kind, "x"))})
        if TABLE[kind][task] is not None:
            door(case).check_kind(request)
            continue
        with pytest.raises(Invalid) as caught:
            door(case).check_kind(request)
        assert caught.value.code == "kind_not_applicable"
        assert caught.value.errors[0]["pointer"] == "/kind"
        named = caught.value.detail.rpartition("send ")[2].split(", ")
        assert named == sorted(k for k in KINDS if TABLE[k][task] is not None)


# --- blocked answers and rules ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "body"),
    [
        ("labels", said("selection", "sport")),
        ("ranking", said("selection", "a")),
        ("ranking", pair("a", "b")),
        ("ranking", said("ranking", ["a", "b"])),
    ],
)
def test_what_was_blocked_was_not_shown(case: str, body: dict[str, Any]) -> None:
    """Who saw the fallback cannot have taken or compared what was behind it."""
    blocked = SERVED[case].model_copy(update={"blocked": True})
    with pytest.raises(Invalid) as caught:
        admitted(case, body, blocked)
    assert caught.value.code == "not_served"


def test_what_was_made_elsewhere_was_shown_there() -> None:
    """A rule that blocks a logged answer here does not undo that it was shown there."""
    blocked = SERVED["made"].model_copy(update={"blocked": True})
    assert admitted("made", pair("1", "0"), blocked).value == {"chosen": "1", "rejected": "0"}


CARD = {"rule": "personal_data", "kinds": ["card"], "on": ["feedback"], "severity": "block"}
MAIL = {"rule": "personal_data", "kinds": ["email"], "on": ["feedback"], "name": "mail"}


def test_a_rule_may_refuse_a_comment_or_a_correction() -> None:
    """What a rule blocks is refused with the place, and is not repeated in the error."""
    number = "4111 1111 1111 1111"
    comment = refusal("labels", said("thumbs", True) | {"comment": number}, rules=[CARD])
    correction = refusal("open", said("correction", number), rules=[CARD])
    assert [e.errors[0]["pointer"] for e in (comment, correction)] == ["/comment", "/value"]
    assert {e.code for e in (comment, correction)} == {"blocked_by_rule"}
    assert all(number not in e.detail for e in (comment, correction))


def test_what_a_rule_only_notes_is_kept_with_the_signal() -> None:
    """Flags on comment and correction stand beside the signal; other kinds have no correction's."""
    body = said("correction", "ada@example.org") | {"comment": "ask bob@example.org"}
    flags = admitted("open", body, rules=[MAIL]).flags
    assert [(f.rule, f.where, f.severity) for f in flags] == [
        ("mail", "comment", "warn"),
        ("mail", "correction", "warn"),
    ]
    assert admitted("open", said("thumbs", True), rules=[MAIL]).flags == []


def test_an_edit_keeps_to_the_output_schema() -> None:
    """A correction that breaks the model's own schema is refused; one that keeps it is taken."""
    schema = {"type": "object", "required": ["box"]}
    error = refusal("made", said("correction", {"bax": 1}), output_schema=schema)
    assert (error.code, error.errors[0]["pointer"]) == ("blocked_by_rule", "/value")
    assert "output_schema" in error.detail
    assert admitted("made", said("correction", {"box": 1}), output_schema=schema).flags == []
