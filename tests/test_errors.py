"""Errors: one tree, each with a code, a status and what to do next."""

from __future__ import annotations

import difflib
import inspect
import json
import re
from typing import Any

import pydantic
import pytest

from online_learner import errors
from online_learner.errors import (
    MAX_FOUND,
    MAX_HINTS,
    MAX_PLACES,
    Invalid,
    Malformed,
    OnlineLearnerError,
    ServiceError,
    did_you_mean,
    from_validation,
    json_pointer,
    known_fields,
    rationed,
    trace,
)
from online_learner.requests import (
    ONE,
    PredictRequest,
    ScoreRequest,
    check,
    parse_feedback,
    read_feedback,
)
from online_learner.requests.telling import Source

ALL = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, OnlineLearnerError)
]
SERVICE = [found for found in ALL if issubclass(found, ServiceError) and found is not ServiceError]
MEMBERS = {
    "type",
    "title",
    "status",
    "detail",
    "instance",
    "code",
    "errors",
    "retryable",
    "request_id",
}


def translated(document: dict[str, Any]) -> ServiceError:
    """Return our error for a signal that pydantic refuses."""
    with pytest.raises(pydantic.ValidationError) as caught:
        pydantic.TypeAdapter(ONE).validate_python({"prediction_id": "x", **document})
    return from_validation(caught.value, ONE)


def places(error: ServiceError) -> dict[str, str]:
    """Return the codes of an error by the places that they are about."""
    return {item["pointer"]: item["code"] for item in error.errors}


# --- the tree ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_in_the_tree_of_the_docstring(kind: type[OnlineLearnerError]) -> None:
    """The drawing at the top of the module names each error, with its status."""
    tree = inspect.getdoc(errors) or ""
    assert re.search(rf"\b{kind.__name__}\b", tree)
    if kind in SERVICE:
        assert re.search(rf"── {kind.__name__} +{kind.status} ", tree)


@pytest.mark.parametrize("kind", SERVICE)
def test_every_service_error_renders_as_a_problem(kind: type[ServiceError]) -> None:
    """RFC 9457 members and ours, JSON, the status of the class, a URN for the code."""
    found = kind("do this next").problem(instance="/v1/feedback", request_id="r1")
    assert set(found) - {"retry_after_s"} == MEMBERS
    assert json.loads(json.dumps(found)) == found
    assert found["status"] == kind.status
    assert found["code"] == kind.code
    assert found["type"] == f"urn:online-learner:{kind.code}"
    assert found["detail"] == "do this next"
    assert (found["instance"], found["request_id"]) == ("/v1/feedback", "r1")


def test_codes_and_titles_are_distinct() -> None:
    """No two service errors are told apart by the status alone."""
    assert len({kind.code for kind in SERVICE}) == len(SERVICE)
    assert len({kind.title for kind in SERVICE}) == len(SERVICE)
    assert all(400 <= kind.status < 600 for kind in SERVICE)


@pytest.mark.parametrize("kind", SERVICE)
def test_only_what_passes_by_itself_is_retryable(kind: type[ServiceError]) -> None:
    """A conflict and an absent store are worth a second try as they stand; a wrong body is not."""
    assert kind.retryable == (kind.status in {408, 409, 429, 503})
    assert (kind.retry_after_s is not None) == (kind.status in {429, 503})


def test_a_code_can_be_narrowed_for_one_error() -> None:
    """An error can say more than its class, and the class keeps its own code."""
    narrow = errors.NotFound("no", code="unknown_prediction")
    assert narrow.problem()["type"] == "urn:online-learner:unknown_prediction"
    assert errors.NotFound("no").code == "not_found"


def test_an_error_at_a_place_names_it() -> None:
    """`at` gives one entry with pointer, code and message, and says the same in the detail."""
    assert str(Invalid.at("", "no")) == "/: no"
    found = Invalid.at("/value", "is not a label", code="not_served")
    assert found.errors == [
        {"pointer": "/value", "code": "not_served", "message": "is not a label"}
    ]
    assert str(found) == "/value: is not a label"
    assert found.code == "not_served"
    assert Invalid.at("/value", "no").code == "invalid_value"


def test_errors_do_not_share_their_lists() -> None:
    """Two errors of one class have entries of their own."""
    one, other = Invalid("a"), Invalid("b")
    one.errors.append({"pointer": "/a", "code": "x", "message": "y"})
    assert other.errors == []


# --- did you mean -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("auditt", ["audit", "alpha"], " Did you mean 'audit'?"),
        ("feature", ["features", "top_k"], " Did you mean 'features'?"),
        ("Value", ["value"], " Did you mean 'value'?"),
        ("zzz", ["audit", "alpha"], ""),
        ("audit", [], ""),
        ("", ["audit"], ""),
    ],
)
def test_the_closest_known_word_is_offered(word: str, known: list[str], hint: str) -> None:
    """A near miss gets a hint; a wild guess gets none."""
    assert did_you_mean(word, known) == hint


# --- pydantic's errors in our words -----------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ((), ""),
        (("a", 0, "b"), "/a/0/b"),
        (("a/b",), "/a~1b"),
        (("a~b",), "/a~0b"),
        (("~1",), "/~01"),
        (("",), "/"),
    ],
)
def test_pointers_are_escaped(path: tuple[int | str, ...], pointer: str) -> None:
    """Slashes and tildes in names are written as RFC 6901 says."""
    assert json_pointer(*path) == pointer


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"kind": "thumbs"}, {"/value": "invalid_value"}),
        ({"kind": "thumbs", "value": 1}, {"/value": "invalid_value"}),
        ({"kind": "correction"}, {"/value": "invalid_value"}),
        ({"kind": "thumbs", "value": True, "vale": 1}, {"": "unknown_field"}),
        ({"kind": "thumbs", "value": True, "thumbs": 1}, {"": "unknown_field"}),
        (
            {"kind": "thumbs", "value": True, "source": {"id": "a", "typ": "human"}},
            {"/source": "unknown_field"},
        ),
        (
            {"kind": "thumbs", "value": True, "reasons": ["a", ""]},
            {"/reasons/1": "invalid_value"},
        ),
        (
            {"kind": "thumbs", "value": True, "tags": {"a/b": ""}},
            {"/tags": "invalid_value"},
        ),
        (
            {"kind": "thumbs", "value": 0, "comment": 1, "extra": 2},
            {"/value": "invalid_value", "/comment": "invalid_value", "": "unknown_field"},
        ),
    ],
)
def test_every_wrong_place_is_named(document: dict[str, Any], expected: dict[str, str]) -> None:
    """Pointers lead to what holds a wrong key, or to the place; all of them are in one reply."""
    assert places(translated(document)) == expected


@pytest.mark.parametrize(
    ("document", "hint"),
    [
        ({"kind": "thumbs", "value": True, "vale": 1}, "'value'"),
        ({"kind": "thumbs", "value": True, "modelversion": 1}, "'model_version'"),
        ({"kind": "thumbs", "value": True, "source": {"id": "a", "typ": "human"}}, "'type'"),
        ({"kind": "thumbs", "value": True, "interface": {"id": "a", "varient": "b"}}, "'variant'"),
    ],
)
def test_a_misspelt_field_gets_a_hint(document: dict[str, Any], hint: str) -> None:
    """The hint comes from the fields that are known in that very place."""
    assert f"Did you mean {hint}?" in str(translated(document))


@pytest.mark.parametrize("body", [b"", b"{", b"[[", b"nul", b"\xff\xfe", b'{"a": 1,}', b"{'a': 1}"])
def test_a_body_that_is_not_json_is_malformed(body: bytes) -> None:
    """400, not 422: nothing in it can be pointed to."""
    with pytest.raises(pydantic.ValidationError) as caught:
        PredictRequest.model_validate_json(body)
    found = from_validation(caught.value, PredictRequest)
    assert isinstance(found, Malformed)
    assert found.code == "malformed"


SECRETS = ["hunter2", "sk-live-0123456789abcdef", "ada@example.org", "Ada Lovelace"]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "document",
    [
        '{"kind": "thumbs", "value": "%s", "comment": ["%s"]}',
        '{"kind": "thumbs", "value": true, "%s": 1}',
        '{"kind": "thumbs", "value": true, "source": {"id": "a", "%s": 1}}',
        '{"kind": "thumbs", "value": true, "tags": {"%s": ""}}',
        '{"kind": "%s", "value": true}',
        '{"signals": [{"kind": "%s"}]}',
        '{"kind": "correction", "value": {"%s": 1e99}}',
        '{"%s": 1, "%s": 2}',
        '{"a": "%s\\u0000"}',
        '{"a": "%s',
        '"%s"',
    ],
)
def test_an_error_does_not_repeat_what_was_sent(document: str, secret: str) -> None:
    """Values and keys stay out of it: they may be personal, or a key in the wrong field."""
    with pytest.raises(ServiceError) as caught:
        parse_feedback(document.replace("%s", secret).encode())
    assert secret not in json.dumps(caught.value.problem())


def test_a_trace_says_where_and_not_what() -> None:
    """The frames and types of an error and its cause are told; their messages are not."""

    def fail() -> None:
        try:
            json.loads("hunter2")
        except ValueError as error:
            raise KeyError("hunter3") from error

    with pytest.raises(KeyError) as caught:
        fail()
    found = trace(caught.value)
    assert "hunter" not in found.replace('json.loads("hunter2")', "").replace('"hunter3"', "")
    assert re.search(
        r"in fail\n(.|\n)*KeyError\nwas raised because of\n(.|\n)*JSONDecodeError$", found
    )


def test_a_detail_stays_short_when_everything_is_wrong() -> None:
    """The sentence names the first five places; the list has all of them."""
    found = translated({"kind": "thumbs", "value": True} | {f"field{n}": 1 for n in range(40)})
    assert len(found.errors) == 40
    assert str(found).count("unknown field") == 5


@pytest.mark.parametrize(
    ("model", "path", "expected"),
    [
        (Source, (), ["id", "type"]),
        (ONE, ("thumbs", "source"), ["id", "type"]),
        (None, (), []),
    ],
)
def test_known_fields_are_those_of_the_place(
    model: Any, path: tuple[str, ...], expected: list[str]
) -> None:
    """Unions, optional fields and nesting are followed to the fields that can stand there."""
    assert known_fields(model, path) == expected


# --- what a wrong request may cost ------------------------------------------------------------

THUMB = {"prediction_id": "x", "kind": "thumbs", "value": True}


def misspelt(count: int) -> dict[str, Any]:
    """Return a thumb with so many fields that are nearly known."""
    return THUMB | {f"value{i}": 1 for i in range(count)}


def scored(outputs: list[Any]) -> ServiceError:
    """Return what is wrong with a request for scores."""
    with pytest.raises(ServiceError) as caught:
        check(ScoreRequest, {"prompt": "p", "outputs": outputs})
    return caught.value


def told(document: Any) -> ServiceError:
    """Return what is wrong with feedback."""
    with pytest.raises(ServiceError) as caught:
        read_feedback(document)
    return caught.value


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the words that a known one is sought for, as they come."""
    found: list[str] = []
    search = difflib.get_close_matches

    def counted(word: str, *args: Any, **options: Any) -> list[str]:
        found.append(word)
        return search(word, *args, **options)

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    return found


def test_a_bounded_number_of_places_is_named() -> None:
    """However many outputs are wrong, the first are named."""
    assert len(scored([1] * MAX_FOUND).errors) == MAX_PLACES


def test_places_beyond_number_are_counted_alone() -> None:
    """Pydantic is not asked for its list of them, which is long in the making."""
    error = scored([{"a": 1}] * 600)
    assert (error.errors, str(error)) == (
        [],
        "wrong in 1200 places, too many to name: send less at a time",
    )
    assert isinstance(error, Invalid)


def test_few_words_of_a_request_get_a_hint(searches: list[str]) -> None:
    """The first unknown fields are compared with the known ones, the others are not."""
    error = told(misspelt(40))
    assert len(searches) == MAX_HINTS
    assert [("Did you mean 'value'?" in e["message"]) for e in error.errors] == [True] * 5 + [
        False
    ] * 35


def test_errors_within_a_ration_share_it(searches: list[str]) -> None:
    """In a batch, each error names a few places, all together not more than one request may."""
    with rationed(each=7):
        named = [len(told(misspelt(40)).errors) for _ in range(30)]
    assert named == [7] * 14 + [2] + [0] * 15
    assert len(searches) == MAX_HINTS
    assert len(told(misspelt(40)).errors) == 40


def test_a_kind_is_compared_within_the_ration(searches: list[str]) -> None:
    """An unknown kind stays one by its code when no hint is left."""
    with rationed():
        found = [told(THUMB | {"kind": "thumb"}) for _ in range(20)]
    assert len(searches) == MAX_HINTS
    assert {error.code for error in found} == {"kind_not_applicable"}
