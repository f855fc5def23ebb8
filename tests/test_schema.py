"""Records and requests: hostile values stop at the door, and what is stored comes back the same."""

from __future__ import annotations

import json
import math
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_learner.errors import Invalid, Malformed, ServiceError, from_validation
from online_learner.requests import (
    MAX_MAGNITUDE,
    Correction,
    FeedbackBatchRequest,
    PredictBatchRequest,
    PredictRequest,
    Signal,
    parse_feedback,
    read_feedback,
)
from online_learner.requests.telling import Thumbs
from online_learner.requests.values import MAX_FEATURES, MAX_PROMPT, MAX_TEXT
from online_learner.schema import (
    Aliases,
    Ask,
    Feedback,
    Prediction,
    Record,
    Shadow,
    finite,
    label_key,
    pack,
)
from serve_app.http import parse

SAID = {"prediction_id": "x"}


def check(model: Any, document: Any) -> Any:
    """Check a request (text as a body, else as it is) the way the routes do."""
    try:
        if model is Signal:
            if isinstance(document, dict):
                return read_feedback(document)
            return parse_feedback(document.encode() if isinstance(document, str) else document)
        if isinstance(document, str | bytes):
            return parse(model, document.encode() if isinstance(document, str) else document)
        return model.model_validate(document)
    except pydantic.ValidationError as error:
        raise from_validation(error, model) from None


def refusal(model: Any, document: Any) -> ServiceError:
    """Return the error with which a request is refused."""
    with pytest.raises(ServiceError) as caught:
        check(model, document)
    return caught.value


def ascii_id(value: Any) -> str:
    """Return a short name for a parameter that pytest could not print."""
    return f"{len(bin(value))} bits" if isinstance(value, int) else ascii(value)[:30]


# --- hostile values ---------------------------------------------------------------------------

NO_TOKENS = ["NaN", "Infinity", "-Infinity"]
NO_NUMBERS = [*NO_TOKENS, "1e308", "-1e308", "1e999", "-1e999", "1e15000"]
TOO_LARGE = ["1000000000000001", "-1000000000000001", "1.0000001e15", "1" + "0" * 400]
NO_SCALARS = ["null", "[]", "{}", '{"a": 1}', "[[[]]]", '["spam"]', "[1e999]", "[true]"]
NO_JSON = ["9" * 5000, "-" + "9" * 5000, r'"\ud800"', r'"\udc00x"', "01", "+1", "0x10", "'a'", ""]
FINE = [
    ("0", 0),
    ("-0.0", -0.0),
    ("1", 1),
    ("1.0", 1.0),
    ("true", True),
    ("false", False),
    ('"nan"', "nan"),
    ('"NaN"', "NaN"),
    ('"1e999"', "1e999"),
    ('""', ""),
    (r'"a\\u0000b"', r"a\u0000b"),
    (r'"\ud83d\ude42"', "🙂"),
    ("1e15", 1e15),
    ("-1000000000000000", -(10**15)),
    ("1e-999", 0.0),
    ("5e-324", 5e-324),
]


@pytest.mark.parametrize("text", NO_NUMBERS + TOO_LARGE + NO_SCALARS)
def test_a_hostile_feature_is_refused_by_its_place(text: str) -> None:
    """A number out of bounds or anything nested is 422; the feature is counted out, not named."""
    found = refusal(PredictRequest, f'{{"features": {{"ok": 1, "km/h": {text}}}}}')
    [place] = found.errors
    if text in NO_TOKENS:
        assert isinstance(found, Malformed)
        return
    assert isinstance(found, Invalid)
    assert place["pointer"] == "/features"
    assert place["message"].startswith("the feature at place 2, as sent, ")


@pytest.mark.parametrize("text", [*NO_NUMBERS, *TOO_LARGE, "[1e999]", '{"a": [-1e308]}'])
def test_a_hostile_correction_is_refused(text: str) -> None:
    """The right answer may be any JSON, but its numbers are in bounds."""
    body = f'{{"prediction_id": "x", "kind": "correction", "value": {text}}}'
    found = refusal(Signal, body)
    assert isinstance(found, Malformed if text in NO_TOKENS else Invalid)
    assert [item["pointer"] for item in found.errors] == ["" if text in NO_TOKENS else "/value"]


@pytest.mark.parametrize("text", NO_JSON)
def test_what_is_not_json_is_malformed(text: str) -> None:
    """Half a surrogate pair, an endless integer and JavaScript are 400."""
    assert isinstance(refusal(PredictRequest, f'{{"features": {{"a": {text}}}}}'), Malformed)
    body = f'{{"prediction_id": "x", "kind": "correction", "value": {text}}}'
    assert isinstance(refusal(Signal, body), Malformed)


@pytest.mark.parametrize(("text", "value"), FINE)
def test_a_fine_value_arrives_as_it_was_sent(text: str, value: Any) -> None:
    """Type and value are kept: 1, 1.0 and true are three things, and "nan" is a text."""
    features = check(PredictRequest, f'{{"features": {{"a": {text}}}}}').features
    body = f'{{"prediction_id": "x", "kind": "correction", "value": {text}}}'
    for found in (features["a"], check(Signal, body).value):
        assert type(found) is type(value)
        assert repr(found) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        1e308,
        10**5000,
        -(10**5000),
        b"spam",
        1j,
        (1,),
        pytest.param(object(), id="an object"),
        "\ud800",
        "a\udfff",
    ],
    ids=ascii_id,
)
def test_hostile_python_values_are_refused(value: Any) -> None:
    """The library's own callers meet the same door as HTTP clients."""
    assert isinstance(refusal(PredictRequest, {"features": {"a": value}}), Invalid)
    assert isinstance(refusal(Signal, {**SAID, "kind": "correction", "value": value}), Invalid)


@pytest.mark.parametrize("name", ["\ud800", 1, None, b"a"])
def test_a_feature_is_named_by_text(name: Any) -> None:
    """Names that JSON cannot hold are refused."""
    assert isinstance(refusal(PredictRequest, {"features": {name: 1}}), Invalid)


@pytest.mark.parametrize("depth", [100, 5_000, 200_000])
@pytest.mark.parametrize(
    ("model", "body"),
    [
        (PredictRequest, '{"features": {"a": %s}}'),
        (PredictBatchRequest, '{"instances": [%s]}'),
        (FeedbackBatchRequest, '{"items": [%s]}'),
        (Signal, '{"prediction_id": "x", "kind": "correction", "value": %s}'),
    ],
)
def test_deep_nesting_is_refused_or_kept_for_its_item(model: Any, body: str, depth: int) -> None:
    """However deep the nesting, the process survives, and nothing too deep to be a value passes."""
    text = body % ("[" * depth + "]" * depth)
    if depth == 100 and model in (PredictBatchRequest, FeedbackBatchRequest):
        assert check(model, text)  # the items are checked one by one, later
    else:
        assert refusal(model, text).status in {400, 422}


def test_text_and_feature_counts_have_limits() -> None:
    """At the limit passes, one more is refused."""
    long = "ü" * MAX_TEXT
    assert check(PredictRequest, {"features": {"a": long}}).features["a"] == long
    assert isinstance(refusal(PredictRequest, {"features": {"a": long + "x"}}), Invalid)
    many = {str(n): 1 for n in range(MAX_FEATURES)}
    assert len(check(PredictRequest, {"features": many}).features) == MAX_FEATURES
    assert isinstance(refusal(PredictRequest, {"features": many | {"x": 1}}), Invalid)
    long = "ü" * MAX_PROMPT
    assert check(Signal, {**SAID, "kind": "correction", "value": long}).value == long
    body = {**SAID, "kind": "correction", "value": long + "x"}
    assert isinstance(refusal(Signal, body), Invalid)


@given(st.floats() | st.integers() | st.integers(-(10**400), 10**400))
def test_a_number_passes_exactly_inside_the_bound(value: float) -> None:
    """Finite and within ±1e15 passes unchanged; everything else is refused."""
    if abs(value) <= MAX_MAGNITUDE:
        assert check(PredictRequest, {"features": {"a": value}}).features == {"a": value}
    else:
        assert refusal(PredictRequest, {"features": {"a": value}}).code == "invalid_value"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "model", [PredictRequest, PredictBatchRequest, FeedbackBatchRequest, Signal]
)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "features",
                "top_k",
                "tags",
                "instances",
                "items",
                "kind",
                "value",
                "prediction_id",
                "source",
                "comment",
                "other",
            ]
        )
        | st.text(max_size=3),
        json_values | st.sampled_from(["thumbs", "correction", "human"]),
        max_size=5,
    )
)
def test_any_json_object_is_checked_or_refused(model: Any, document: dict[str, Any]) -> None:
    """Whatever JSON is sent, the outcome is a request or one of our errors: never another."""
    body = json.dumps(document)
    found: ServiceError | None = None
    try:
        check(model, body)
    except ServiceError as error:
        found = error
    if found is not None:
        assert found.status in {400, 422}
        assert found.errors
        assert json.dumps(found.problem())


# --- requests ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 0, 1.0, "true", "yes", None, [True]])
def test_a_thumb_is_a_boolean_and_nothing_like_it(value: Any) -> None:
    """Neither 1 nor "true" is taken for true."""
    assert isinstance(refusal(Signal, {**SAID, "kind": "thumbs", "value": value}), Invalid)


@pytest.mark.parametrize("value", [True, 1.0, "1"])
def test_an_integer_field_takes_integers_only(value: Any) -> None:
    """Neither true nor 1.0 nor "1" is taken for 1."""
    found = refusal(PredictRequest, {"features": {}, "top_k": value})
    assert [item["pointer"] for item in found.errors] == ["/top_k"]


@pytest.mark.parametrize("value", [True, 1.0, "", "x" * 257, [1]])
def test_a_version_is_a_number_or_a_name(value: Any) -> None:
    """A whole number, or the name of a version made elsewhere: nothing that only looks like it."""
    body = {**SAID, "kind": "thumbs", "value": True, "model_version": value}
    assert [item["pointer"] for item in refusal(Signal, body).errors] == ["/model_version"]


@pytest.mark.parametrize("value", [0, -1, 1001, 10**30])
def test_top_k_has_bounds(value: int) -> None:
    """From 1 to 1000."""
    assert isinstance(refusal(PredictRequest, {"features": {}, "top_k": value}), Invalid)


@pytest.mark.parametrize(
    ("document", "hint"),
    [
        ({"feature": {}, "features": {}}, "features"),
        ({"features": {}, "topk": 1}, "top_k"),
        ({"features": {}, "sesion_id": "s"}, "session_id"),
        ({"features": {}, "tag": {}}, "tags"),
    ],
)
def test_an_unknown_field_is_refused_with_a_hint(document: dict[str, Any], hint: str) -> None:
    """A typo is an error, not a silently ignored wish."""
    found = refusal(PredictRequest, document)
    assert found.code == "unknown_field"
    assert f"Did you mean '{hint}'?" in str(found)


@pytest.mark.parametrize(
    "extra",
    [
        {"source": {"id": ""}},
        {"source": {"type": "robot", "id": "a"}},
        {"source": {"type": "human"}},
        {"source": "human:ada"},
        {"user_id": ""},
        {"user_id": "u" * 257},
        {"idempotency_key": ""},
        {"idempotency_key": "k" * 257},
        {"idempotency_key": 1},
        {"comment": "c" * (MAX_TEXT + 1)},
        {"comment": "\ud800"},
        {"reasons": ["r"] * 33},
        {"reasons": "rude"},
        {"tags": {"": "x"}},
        {"tags": {"a": 1}},
        {"tags": {"a": {"b": "c"}}},
        {"interface": {"id": "page", "position": "3"}},
        {"observed_at": "t" * 65},
        {"dry_run": 1},
    ],
    ids=str,
)
def test_common_fields_of_feedback_are_checked(extra: dict[str, Any]) -> None:
    """Lengths, types and members of the fields that every kind has."""
    assert isinstance(refusal(Signal, {**SAID, "kind": "thumbs", "value": True, **extra}), Invalid)


@pytest.mark.parametrize("body", ["[]", '"x"', "1", "null", "true"])
@pytest.mark.parametrize("model", [PredictRequest, FeedbackBatchRequest, Signal])
def test_a_body_has_to_be_an_object(model: Any, body: str) -> None:
    """JSON that is no object is refused."""
    assert refusal(model, body).status in {400, 422}


@pytest.mark.parametrize("kind", [None, "thumb", "Thumbs", "", 1, True, ["thumbs"], {}])
def test_a_kind_that_is_none_is_refused(kind: Any) -> None:
    """The kind decides what else is taken, so it has to be there and be known."""
    document = {**SAID, "value": True} | ({} if kind is None else {"kind": kind})
    assert isinstance(refusal(Signal, document), Invalid)


def test_each_kind_becomes_its_own_type() -> None:
    """Thumbs and corrections are told apart by `kind` alone."""
    assert isinstance(check(Signal, {**SAID, "kind": "thumbs", "value": True}), Thumbs)
    assert isinstance(check(Signal, {**SAID, "kind": "correction", "value": True}), Correction)


@pytest.mark.parametrize(
    ("model", "field"), [(PredictBatchRequest, "instances"), (FeedbackBatchRequest, "items")]
)
def test_a_batch_has_from_1_to_1024_items(model: Any, field: str) -> None:
    """An empty batch and one that is too long are refused as a whole."""
    assert len(getattr(check(model, {field: [{}] * 1024}), field)) == 1024
    for count in (0, 1025):
        assert isinstance(refusal(model, {field: [{}] * count}), Invalid)


def test_requests_do_not_change() -> None:
    """A checked request cannot be altered afterwards."""
    request = check(PredictRequest, {"features": {"a": 1}})
    with pytest.raises(pydantic.ValidationError):
        request.top_k = 3


# --- records ----------------------------------------------------------------------------------

scalars = (
    st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(-1e15, 1e15)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
)
texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)
probabilities = st.floats(0, 1)
shadows = st.builds(
    Shadow,
    version=st.integers(0, 9),
    lineage=st.integers(1, 9),
    step=st.integers(0, 9),
    output=scalars | st.none(),
    scores=st.dictionaries(texts, probabilities, max_size=3),
)
predictions = st.builds(
    Prediction,
    model=texts,
    features=st.dictionaries(texts, scalars, max_size=5),
    output=scalars | st.none(),
    scores=st.dictionaries(texts, probabilities, max_size=3),
    version=st.integers(0, 9),
    lineage=st.integers(1, 9),
    step=st.integers(0, 9),
    ask=st.none() | st.builds(Ask, reason=st.just("audit"), probability=probabilities),
    shadows=st.dictionaries(texts, shadows, max_size=2),
    session_id=st.none() | texts,
    tags=st.dictionaries(texts, texts, max_size=2),
)
signals = st.builds(
    Feedback,
    kind=st.sampled_from(["thumbs", "correction"]),
    value=scalars,
    source=texts,
    prediction_id=texts,
    comment=st.none() | texts,
    reasons=st.lists(texts, max_size=2),
)


@given(predictions | signals)
def test_a_record_comes_back_as_it_was_stored(record: Record) -> None:
    """Every value and its type survive the store: true stays true, 1.0 stays a float."""
    again = type(record).model_validate_json(record.pack())
    assert again == record
    assert repr(again) == repr(record)


@given(predictions)
def test_packing_is_stable(record: Prediction) -> None:
    """What was read and is written again gives the same bytes."""
    assert Prediction.model_validate_json(record.pack()).pack() == record.pack()


def test_defaults_take_no_space() -> None:
    """Fields at their default are left out of the stored record."""
    record = Prediction(model="m", features={}, output=1, version=0, lineage=1, step=0)
    assert set(json.loads(record.pack())) == {
        "model",
        "features",
        "output",
        "version",
        "lineage",
        "step",
    }


def test_a_newer_release_may_add_fields() -> None:
    """A stored record with fields that this release does not know can be read."""
    record = Prediction(model="m", features={}, output=1, version=0, lineage=1, step=0)
    newer = json.loads(record.pack()) | {"mood": "good"}
    assert Prediction.model_validate_json(json.dumps(newer)) == record


@pytest.mark.parametrize(
    ("label", "key"),
    [(True, "true"), (False, "false"), ("spam", "spam"), (3, "3"), (-1, "-1"), ("true", "true")],
)
def test_labels_have_names_as_json_keys(label: Any, key: str) -> None:
    """A label's name in `scores` is the label itself, or its JSON."""
    assert label_key(label) == key


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([], True), ([0.0, 1], True), ([math.nan], False), ([1.0, -math.inf], False)],
)
def test_finite_wants_all_of_them(numbers: list[float], expected: bool) -> None:
    """One number that is not finite is enough."""
    assert finite(numbers) is expected


def test_pack_is_compact() -> None:
    """No spaces, and text as it is."""
    assert pack({"a": [1, "ü"]}) == '{"a":[1,"ü"]}'.encode()


# --- aliases ----------------------------------------------------------------------------------


def test_the_reference_is_the_champion_until_the_leash() -> None:
    """Challengers have to beat the champion, or on the leash the anchor."""
    before = Aliases(champion=3)
    assert before.reference == 3
    after = before.followed()
    assert after.following
    assert after.trusted
    assert (after.champion, after.anchor, after.previous, after.reference) == (3, 3, 3, 3)
    assert after.model_copy(update={"anchor": 5}).reference == 5


def test_a_pull_starts_a_new_lineage_that_has_to_earn_trust() -> None:
    """The old version answers alone, tests begin anew, and the old learner may not publish."""
    before = Aliases(champion=3, challengers=(4, 5), trusted=True).followed()
    after = before.pulled_to(2)
    assert after.champion == 2
    assert not after.following
    assert not after.trusted
    assert (after.anchor, after.previous, after.challengers) == (None, None, ())
    assert after.lineage == before.lineage + 1
    assert after.generation == before.generation + 1
